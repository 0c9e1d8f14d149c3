//! Fingerprints: SHA-256 in hex. Nothing secret is hashed here.

use sha2::{Digest, Sha256};

/// SHA-256 of `bytes` in lower-case hex, 64 characters.
pub fn sha256_hex(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(&Sha256::digest(bytes))
}
