//! A user of the admin API.

use std::net::SocketAddr;

use hookmill_core::hash::sha256_hex;
use serde_json::Value;

use crate::http::{Response, exchange, request};

/// A token with the form of a random one.
fn token(name: &str) -> String {
    let text = format!("for-tests-only-{name}");
    format!("hookmill_{text:-<43}")
}

/// A user with a token, or without.
pub struct Operator {
    admin: SocketAddr,
    token: Option<String>,
}

impl Operator {
    /// Creates a token with this role, by SQL, for a user.
    pub fn new(admin: SocketAddr, name: &str, role: &str, sql: impl FnOnce(&str)) -> Self {
        let token = token(name);
        let hash = sha256_hex(&[token.as_bytes()]);
        sql(&format!(
            "INSERT INTO admin_tokens (name, hash, role, created_at) VALUES ('{name}', '{hash}', '{role}', 0)"
        ));
        Self { admin, token: Some(token) }
    }

    /// A user with a token that is not valid.
    pub fn guesser(admin: SocketAddr) -> Self {
        Self { admin, token: Some(token("guessed")) }
    }

    /// A user without a token.
    pub const fn stranger(admin: SocketAddr) -> Self {
        Self { admin, token: None }
    }

    /// The token; blank without one.
    pub fn token(&self) -> &str {
        self.token.as_deref().unwrap_or_default()
    }

    /// Reads a path.
    pub fn get(&self, path: &str) -> Response {
        self.ask("GET", path, b"")
    }

    /// Posts a change.
    pub fn post(&self, path: &str, body: &Value) -> Response {
        self.ask("POST", path, body.to_string().as_bytes())
    }

    /// Deletes something.
    pub fn delete(&self, path: &str, body: &Value) -> Response {
        self.ask("DELETE", path, body.to_string().as_bytes())
    }

    fn ask(&self, method: &str, path: &str, body: &[u8]) -> Response {
        let token = self
            .token
            .as_ref()
            .map(|token| ("Authorization".to_owned(), format!("Bearer {token}")));
        let mut headers: Vec<_> = token.into_iter().collect();
        if !body.is_empty() {
            headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
        }
        let bytes = request(method, &format!("/admin/api/v1{path}"), &headers, body);
        exchange(self.admin, &bytes).expect("the admin API listens")
    }
}
