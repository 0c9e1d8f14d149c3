//! Decodes bodies with a `Content-Encoding`, by the decoders of the runtime: a Brotli decoder alone would double the Worker.

use hookmill_core::request::Coding;
use hookmill_ingress::DecodeError;
use worker::js_sys::{Function, Object, RangeError, Reflect, Uint8Array, global};
use worker::wasm_bindgen::{JsCast as _, JsValue};

/// Decodes a body to at most `limit` bytes.
///
/// # Errors
///
/// [`DecodeError`].
pub fn decode(coding: Coding, body: &[u8], limit: usize) -> Result<Vec<u8>, DecodeError> {
    let decoded =
        called(coding, body, limit).map_err(|error| match error.dyn_into::<RangeError>() {
            Ok(_) => DecodeError::TooLong,
            Err(_) => DecodeError::Malformed,
        })?;
    Ok(Uint8Array::new(&decoded).to_vec())
}

/// Calls `node:zlib`: <https://developers.cloudflare.com/workers/runtime-apis/nodejs/zlib/>. `DecompressionStream` has no Brotli.
/// An import would need the bundler to know the module.
fn called(coding: Coding, body: &[u8], limit: usize) -> Result<JsValue, JsValue> {
    let name = match coding {
        Coding::Gzip => "gunzipSync",
        Coding::Deflate => "inflateSync",
        Coding::Brotli => "brotliDecompressSync",
    };
    let member = |of: &JsValue, name: &str| Reflect::get(of, &name.into());
    let process = member(&global(), "process")?;
    let builtin: Function = member(&process, "getBuiltinModule")?.dyn_into()?;
    let zlib = builtin.call1(&process, &"node:zlib".into())?;
    let decoder: Function = member(&zlib, name)?.dyn_into()?;
    let options = Object::new();
    let limit = JsValue::from(u32::try_from(limit).unwrap_or(u32::MAX));
    Reflect::set(&options, &"maxOutputLength".into(), &limit)?;
    decoder.call2(&zlib, &Uint8Array::from(body), &options)
}
