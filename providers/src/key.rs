//! Keys: the form of a source's secret in its scheme, and the only comparison of signatures.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
#[cfg(feature = "ed25519")]
use ed25519_dalek::VerifyingKey as Ed25519Key;
use hmac::{Hmac, KeyInit as _, Mac as _};
use hookmill_config::scheme::{Algorithm, KeyForm};
use hookmill_core::rejection::{Reason, Rejection};
#[cfg(feature = "ecdsa")]
use p256::ecdsa::signature::Verifier as _;
#[cfg(feature = "ecdsa")]
use p256::ecdsa::{Signature as EcdsaSignature, VerifyingKey as EcdsaKey};
#[cfg(feature = "ecdsa")]
use p256::pkcs8::DecodePublicKey as _;
#[cfg(feature = "rsa")]
use rsa::pkcs8::DecodePublicKey as _;
#[cfg(feature = "rsa")]
use rsa::{Pkcs1v15Sign, RsaPublicKey};
use sha1::{Digest as _, Sha1};
use sha2::Sha256;
#[cfg(feature = "sha512")]
use sha2::Sha512;
use subtle::{Choice, ConstantTimeEq as _};

/// A key, ready to verify. For an HMAC key, the two initial blocks of every hash are computed once.
#[derive(Clone)]
pub(crate) enum Key {
    HmacSha1(Hmac<Sha1>),
    HmacSha256(Hmac<Sha256>),
    #[cfg(feature = "sha512")]
    HmacSha512(Hmac<Sha512>),
    #[cfg(feature = "ed25519")]
    Ed25519(Ed25519Key),
    #[cfg(feature = "ecdsa")]
    EcdsaP256(EcdsaKey),
    #[cfg(feature = "rsa")]
    RsaSha1(RsaPublicKey),
    Token(Vec<u8>),
}

impl Key {
    /// The key of a secret, or the problem with the secret.
    pub(crate) fn new(
        algorithm: Algorithm,
        form: KeyForm,
        secret: &str,
    ) -> Result<Self, &'static str> {
        match algorithm {
            Algorithm::Ed25519 => Self::ed25519(form, secret),
            Algorithm::EcdsaP256 => Self::ecdsa_p256(secret),
            Algorithm::Token => Ok(Self::Token(secret.as_bytes().to_vec())),
            Algorithm::HmacSha1 => Ok(Self::hmac_sha1(&bytes(form, secret)?)),
            Algorithm::HmacSha256 => Ok(Self::hmac_sha256(&bytes(form, secret)?)),
            Algorithm::HmacSha512 => Self::hmac_sha512(&bytes(form, secret)?),
        }
    }

    pub(crate) fn hmac_sha1(key: &[u8]) -> Self {
        Self::HmacSha1(Hmac::new_from_slice(key).expect(ANY_LENGTH))
    }

    pub(crate) fn hmac_sha256(key: &[u8]) -> Self {
        Self::HmacSha256(Hmac::new_from_slice(key).expect(ANY_LENGTH))
    }

    #[cfg(feature = "sha512")]
    #[expect(clippy::unnecessary_wraps, reason = "without the feature, it is an error")]
    fn hmac_sha512(key: &[u8]) -> Result<Self, &'static str> {
        Ok(Self::HmacSha512(Hmac::new_from_slice(key).expect(ANY_LENGTH)))
    }

    #[cfg(not(feature = "sha512"))]
    fn hmac_sha512(_: &[u8]) -> Result<Self, &'static str> {
        Err("is an HMAC-SHA512 key, which this build does not support; build it again")
    }

    #[cfg(feature = "ed25519")]
    pub(crate) fn ed25519(form: KeyForm, secret: &str) -> Result<Self, &'static str> {
        const WRONG: &str = "is not an Ed25519 public key: 32 bytes, in hexadecimal or base64";
        let form = if form == KeyForm::Text { KeyForm::Hex } else { form };
        let key: [u8; 32] = bytes(form, secret)?.try_into().map_err(|_| WRONG)?;
        let key = Ed25519Key::from_bytes(&key).map_err(|_| WRONG)?;
        // With such a key, one signature is valid for many messages.
        if key.is_weak() { Err("is a weak Ed25519 key") } else { Ok(Self::Ed25519(key)) }
    }

    #[cfg(not(feature = "ed25519"))]
    pub(crate) fn ed25519(_: KeyForm, _: &str) -> Result<Self, &'static str> {
        Err("is an Ed25519 key, which this build does not support; build it again")
    }

    #[cfg(feature = "ecdsa")]
    fn ecdsa_p256(secret: &str) -> Result<Self, &'static str> {
        EcdsaKey::from_public_key_der(&der(secret)?)
            .map(Self::EcdsaP256)
            .map_err(|_| "is not a P-256 public key: base64 of DER, or PEM")
    }

    #[cfg(not(feature = "ecdsa"))]
    fn ecdsa_p256(_: &str) -> Result<Self, &'static str> {
        Err("is a P-256 key, which this build does not support; build it again")
    }

    #[cfg(feature = "rsa")]
    pub(crate) fn rsa_sha1(secret: &str) -> Result<Self, &'static str> {
        RsaPublicKey::from_public_key_der(&der(secret)?)
            .map(Self::RsaSha1)
            .map_err(|_| "is not an RSA public key: PEM, or base64 of DER")
    }

    #[cfg(not(feature = "rsa"))]
    pub(crate) fn rsa_sha1(_: &str) -> Result<Self, &'static str> {
        Err("is an RSA key, which this build does not support; build it again")
    }

    /// Whether it is an HMAC key.
    pub(crate) fn is_hmac(&self) -> bool {
        match self {
            Self::HmacSha1(_) | Self::HmacSha256(_) => true,
            #[cfg(feature = "sha512")]
            Self::HmacSha512(_) => true,
            _ => false,
        }
    }

    /// The HMAC over the concatenated parts; `None` for another kind of key.
    pub(crate) fn tag(&self, parts: &[&[u8]]) -> Option<Vec<u8>> {
        macro_rules! tag {
            ($mac:expr) => {{
                let mut mac = $mac.clone();
                for part in parts {
                    mac.update(part);
                }
                Some(mac.finalize().into_bytes().to_vec())
            }};
        }
        match self {
            Self::HmacSha1(mac) => tag!(mac),
            Self::HmacSha256(mac) => tag!(mac),
            #[cfg(feature = "sha512")]
            Self::HmacSha512(mac) => tag!(mac),
            Self::Token(_) => None,
            #[cfg(feature = "ed25519")]
            Self::Ed25519(_) => None,
            #[cfg(feature = "ecdsa")]
            Self::EcdsaP256(_) => None,
            #[cfg(feature = "rsa")]
            Self::RsaSha1(_) => None,
        }
    }

    /// Whether this key made any of the signatures. For secret keys, this takes the same time for every signature in the
    /// list.
    fn made_any(&self, parts: &[&[u8]], signatures: &[Vec<u8>]) -> bool {
        let equals = |expected: &[u8]| {
            let found = signatures
                .iter()
                .fold(Choice::from(0), |found, signature| found | expected.ct_eq(signature));
            bool::from(found)
        };
        if let Some(tag) = self.tag(parts) {
            return equals(&tag);
        }
        match self {
            Self::HmacSha1(_) | Self::HmacSha256(_) => false,
            #[cfg(feature = "sha512")]
            Self::HmacSha512(_) => false,
            // Compared as hashes, so that the time does not reveal the length of the secret.
            Self::Token(token) => {
                let hashes: Vec<_> =
                    signatures.iter().map(|sent| Sha256::digest(sent).to_vec()).collect();
                let expected = Sha256::digest(token);
                let found = hashes
                    .iter()
                    .fold(Choice::from(0), |found, hash| found | expected.as_slice().ct_eq(hash));
                found.into()
            }
            #[cfg(feature = "ed25519")]
            Self::Ed25519(key) => {
                let message = parts.concat();
                signatures.iter().any(|signature| {
                    signature
                        .as_slice()
                        .try_into()
                        .is_ok_and(|signature| key.verify_strict(&message, &signature).is_ok())
                })
            }
            #[cfg(feature = "ecdsa")]
            Self::EcdsaP256(key) => {
                let message = parts.concat();
                signatures.iter().any(|signature| {
                    EcdsaSignature::from_der(signature)
                        .is_ok_and(|signature| key.verify(&message, &signature).is_ok())
                })
            }
            #[cfg(feature = "rsa")]
            Self::RsaSha1(key) => {
                let hash = parts.iter().fold(Sha1::new(), Sha1::chain_update);
                let hash = hash.finalize();
                signatures
                    .iter()
                    .any(|signature| key.verify(pkcs1v15_sha1(), &hash, signature).is_ok())
            }
        }
    }
}

const ANY_LENGTH: &str = "HMAC takes a key of any length";

/// RSASSA-PKCS1-v1_5 with SHA-1; the prefix is the `DigestInfo` of RFC 8017, section 9.2.
#[cfg(feature = "rsa")]
pub(crate) fn pkcs1v15_sha1() -> Pkcs1v15Sign {
    const DIGEST_INFO: [u8; 15] =
        [0x30, 0x21, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00, 0x04, 0x14];
    Pkcs1v15Sign { hash_len: Some(20), prefix: DIGEST_INFO.into() }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key([redacted])")
    }
}

fn bytes(form: KeyForm, secret: &str) -> Result<Vec<u8>, &'static str> {
    match form {
        KeyForm::Text => Ok(secret.as_bytes().to_vec()),
        KeyForm::Hex => base16ct::mixed::decode_vec(secret).map_err(|_| "is not hexadecimal"),
        KeyForm::Base64 => STANDARD.decode(secret).map_err(|_| "is not base64"),
    }
}

/// The length of a valid key.
pub(crate) fn length(form: KeyForm, secret: &str) -> usize {
    bytes(form, secret).map_or(0, |key| key.len())
}

/// DER from PEM, or from base64 alone. Environment variables often contain line feeds as `\n`.
#[cfg(any(feature = "ecdsa", feature = "rsa"))]
fn der(secret: &str) -> Result<Vec<u8>, &'static str> {
    let lines = secret.replace("\\n", "\n");
    let lines = lines.lines().filter(|line| !line.starts_with("-----"));
    let base64: String = lines.flat_map(str::chars).filter(|c| !c.is_whitespace()).collect();
    STANDARD.decode(base64).map_err(|_| "is not base64, with or without the lines of PEM")
}

/// Finds the key that made one of the signatures.
pub(crate) fn matching<'k>(
    keys: impl IntoIterator<Item = &'k (usize, Key)>,
    parts: &[&[u8]],
    signatures: &[Vec<u8>],
) -> Result<usize, Rejection> {
    let matching = keys.into_iter().find(|(_, key)| key.made_any(parts, signatures));
    matching.map(|(index, _)| *index).ok_or_else(|| {
        Rejection::new(
            Reason::NoMatchingSignature,
            "the request was signed with another secret, or changed in transit",
        )
    })
}
