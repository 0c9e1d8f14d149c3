//! Fingerprints: SHA-256 in hex. Nothing secret is hashed here.

use sha2::{Digest, Sha256};

/// The SHA-256 of the concatenated parts in lower-case hex: 64 characters.
pub fn sha256_hex(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    base16ct::lower::encode_string(&hash.finalize())
}
