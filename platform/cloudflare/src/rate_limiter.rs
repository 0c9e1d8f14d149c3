//! Cloudflare's rate limiter.

use worker::js_sys::futures::JsFuture;
use worker::js_sys::{Object, Reflect};
use worker::wasm_bindgen::{JsCast as _, JsValue};
use worker::{Env, Result, worker_sys};

/// Whether a request with this key exceeds the limit. The limiter counts for each Cloudflare location.
///
/// Called by hand: `worker` converts one text and one boolean with a library that is a fifth of the ingress Worker.
///
/// # Errors
///
/// If the Worker has no such binding, or the limiter fails.
pub async fn limited(env: &Env, binding: &str, key: &str) -> Result<bool> {
    let limiter: JsValue = env.rate_limiter(binding)?.into();
    let options = Object::new();
    Reflect::set(&options, &"key".into(), &key.into())?;
    let limiter: worker_sys::RateLimiter = limiter.unchecked_into();
    let outcome: JsValue = JsFuture::from(limiter.limit(options)?).await?;
    let success = Reflect::get(&outcome, &"success".into())?.as_bool();
    success.map(|success| !success).ok_or_else(|| "the limiter did not respond".into())
}
