//! HMAC-SHA256 (RFC 2104), and the one comparison of signatures.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// A key, with the two blocks it starts every hash with computed once.
#[derive(Clone)]
pub(crate) struct HmacKey(Hmac<Sha256>);

impl HmacKey {
    pub(crate) fn new(key: &[u8]) -> Self {
        Self(Hmac::new_from_slice(key).expect("HMAC takes a key of any length"))
    }

    /// The HMAC over the parts, one after the other.
    pub(crate) fn tag(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.0.clone();
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    /// Whether this key made any of the signatures. Takes the same time for every signature of the list.
    pub(crate) fn made_any(&self, parts: &[&[u8]], signatures: &[[u8; 32]]) -> bool {
        let tag = self.tag(parts);
        let found = signatures
            .iter()
            .fold(subtle::Choice::from(0), |found, signature| found | tag.ct_eq(signature));
        found.into()
    }
}

impl fmt::Debug for HmacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HmacKey([redacted])")
    }
}
