//! The dashboard: a page that displays the API. Its files contain no data, so they need no token; the page sends one to the
//! API.

use std::borrow::Cow;

use axum::Router;
use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hookmill_core::words::{
    EventState, LetterReason, LetterState, OutboxState, Word as _, WordFilter,
};
use serde_json::json;

use crate::platform::Admin;

const PAGE: &str = include_str!("../assets/index.html");
const SCRIPT: &str = include_str!("../assets/app.js");
const STYLE: &str = include_str!("../assets/style.css");

/// The page loads and calls only its own server, runs only its own script, and cannot be framed.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The files of the dashboard.
pub(crate) fn routes() -> Router<Admin> {
    Router::new()
        .route("/admin", get(page))
        .route("/admin/", get(page))
        .route("/admin/app.js", get(async || file("text/javascript; charset=utf-8", SCRIPT.into())))
        .route(
            "/admin/words.js",
            get(async || file("text/javascript; charset=utf-8", words().into())),
        )
        .route("/admin/style.css", get(async || file("text/css; charset=utf-8", STYLE.into())))
}

/// The lists of words in the page's menus.
fn words() -> String {
    let list = |name: &str, words: Vec<&str>| format!("export const {name} = {};\n", json!(words));
    [
        list("EVENT_STATES", EventState::words().collect()),
        list("LETTER_REASONS", LetterReason::words().collect()),
        list("LETTER_STATES", WordFilter::<LetterState>::words().collect()),
        list("OUTBOX_STATES", OutboxState::words().collect()),
    ]
    .concat()
}

/// The page gets a flag if Cloudflare Access is enabled. Then it tries that before it asks for a token.
async fn page(State(admin): State<Admin>) -> Response {
    let access = admin.0.config().is_some_and(|config| config.access.is_some());
    let page =
        if access { PAGE.replacen("<html", "<html data-access", 1) } else { PAGE.to_owned() };
    file("text/html; charset=utf-8", page.into())
}

fn file(kind: &'static str, text: Cow<'static, str>) -> Response {
    let headers = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        // All files have the same version, so the browser must revalidate them.
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}

#[cfg(test)]
mod tests {
    use hookmill_core::words::{RuleEffect, Word as _};

    use super::{PAGE, SCRIPT, STYLE, words};

    #[test]
    fn the_page_has_the_words_of_the_enums() {
        for name in words().lines().filter_map(|line| line.split(' ').nth(2)) {
            assert!(SCRIPT.contains(&format!("options: {name}")), "{name} is not used");
        }
        let effects = SCRIPT.lines().find(|line| line.starts_with("const EFFECTS")).unwrap();
        for word in RuleEffect::words() {
            assert!(effects.contains(&format!(" {word}: ")), "{word} has no description");
        }
    }

    #[test]
    fn text_never_becomes_markup() {
        for way in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!SCRIPT.contains(way), "{way} in app.js");
        }
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere() {
        // A namespace, which is not fetched.
        let script = SCRIPT.replace("http://www.w3.org/2000/svg", "");
        for text in [PAGE, STYLE, script.as_str()] {
            assert!(!text.contains("://") && !text.contains("url("));
        }
    }
}
