//! Decodes bodies with a `Content-Encoding`.

use std::io::{ErrorKind, Read};

use brotli_decompressor::Decompressor;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use hookmill_core::request::Coding;
use hookmill_ingress::DecodeError;
use tokio::sync::Semaphore;

/// A body that may become longer than this is decoded on a thread of its own.
const SHORT_BYTES: usize = 256 * 1024;
/// The size of the decoder's buffer.
const BUFFER_BYTES: usize = 4096;

/// The places for long bodies. A Brotli decoder takes up to 16 MiB, which the budget for bodies does not count.
static PLACES: Semaphore = Semaphore::const_new(4);

/// Decodes a body to at most `limit` bytes.
///
/// # Errors
///
/// [`DecodeError`].
pub async fn decode(coding: Coding, body: Vec<u8>, limit: usize) -> Result<Vec<u8>, DecodeError> {
    if limit <= SHORT_BYTES {
        return decoded(coding, &body, limit);
    }
    let _place = PLACES.acquire().await;
    let work = tokio::task::spawn_blocking(move || decoded(coding, &body, limit));
    // A panic ends the task.
    work.await.unwrap_or(Err(DecodeError::Malformed))
}

fn decoded(coding: Coding, body: &[u8], limit: usize) -> Result<Vec<u8>, DecodeError> {
    match coding {
        Coding::Gzip => whole(MultiGzDecoder::new(body), limit),
        Coding::Deflate => whole(ZlibDecoder::new(body), limit),
        Coding::Brotli => whole(Decompressor::new(body, BUFFER_BYTES), limit),
    }
}

fn whole(mut decoder: impl Read, limit: usize) -> Result<Vec<u8>, DecodeError> {
    let mut whole = Vec::new();
    let mut buffer = [0; BUFFER_BYTES];
    loop {
        match decoder.read(&mut buffer) {
            Ok(0) => return Ok(whole),
            Ok(length) if whole.len() + length > limit => return Err(DecodeError::TooLong),
            Ok(length) => whole.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Err(DecodeError::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

    use super::*;

    /// `{"a":1}` as Node's `brotliCompressSync` writes it.
    const BROTLI: &[u8] = b"\x0b\x03\x80{\"a\":1}\x03";

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(body: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    #[tokio::test]
    async fn each_coding_is_undone() {
        let body = b"{\"a\":1}";
        for (coding, encoded) in [
            (Coding::Gzip, gzip(body)),
            // Two members are one body.
            (Coding::Gzip, [gzip(&body[..3]), gzip(&body[3..])].concat()),
            (Coding::Deflate, zlib(body)),
            (Coding::Brotli, BROTLI.to_vec()),
        ] {
            for limit in [body.len(), SHORT_BYTES + 1] {
                let decoded = decode(coding, encoded.clone(), limit).await;
                assert_eq!(decoded.as_deref(), Ok(&body[..]), "{coding}");
            }
            let decoded = decode(coding, encoded.clone(), body.len() - 1).await;
            assert_eq!(decoded, Err(DecodeError::TooLong), "{coding}");
            let cut = encoded[..encoded.len() - 1].to_vec();
            let decoded = decode(coding, cut, body.len()).await;
            assert_eq!(decoded, Err(DecodeError::Malformed), "{coding}");
            for other in [&b""[..], b"{}", b"\xff\xff\xff\xff"] {
                let decoded = decode(coding, other.to_vec(), 100).await;
                assert_eq!(decoded, Err(DecodeError::Malformed), "{coding} {other:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_bomb_ends_at_the_limit() {
        let bomb = gzip(&vec![0; 10_000_000]);
        assert!(bomb.len() < 20_000, "{}", bomb.len());
        assert_eq!(decode(Coding::Gzip, bomb, 1_000_000).await, Err(DecodeError::TooLong));
    }
}
