//! Cloudflare Access for the admin API: keys, and JWTs that they sign.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rsa::pkcs1::DecodeRsaPrivateKey as _;
use rsa::traits::PublicKeyParts as _;
use rsa::{Pkcs1v15Sign, RsaPrivateKey};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The team in tests/hookmill.toml.
pub const ISSUER: &str = "http://localhost/access";
/// The application's audience tag.
pub const AUDIENCE: &str = "audience-of-the-contract";
/// The id of the valid key.
pub const KEY: &str = "key-of-the-contract";

/// PKCS #1 in base64. Only these tests use it.
const PRIVATE: &str = "\
    MIIEowIBAAKCAQEAqxDorHzf43r9fnvG2y17QzdqkldWfvXVEXvTI20XuYT8xzcSnqFTy0CpCrkiL8yanO0SHcCmLCRvf0vnBg53\
    Yr2wwZEq7poSkeCFMiAoxACOqT4ykUT3V1VPykUwRpJPdr9a3Pi5XC3gmb705W4wIcBeNIthVhKBE76XipDSvjYeaWxnwJZkhvVS\
    08NTcOcIrH1gg4lvwJ15Kd2FaUhA4sJGbrDhurXWE5Q68sHKvbkTwaDJwMruAxitmhSHg//xZaN4eOE2Jy5b63hG47H5Km/PhfT8\
    R6lllLCOp7wPvOq84Gd851l06sd7wmSXuQQ8G9JLqKI5B+xTngtkEf+iqwIDAQABAoIBAECHpl261XIoaQuXgZIYfBEFDIybqaNG\
    9NMdlK4ebv6qrfgwTDPOw58+iwXihITnd8OOonDaxVSNggnRBhsAxgRXbh/2tO1A7ZRdz6DzBK27UBWDwuuNyogFRI4Wv3k/o/41\
    fP8yTCn7nGgi4prRkBKLUH4dveAMJujd0qiQrQ7XGQtdiDd1mH2pRpsvgyRAkWtCAqKllCbwk8xhLR+yVwUhCTx6m7vFAwa7/311\
    Uv1ldi8+zh/xfO2Fdqa0mn7tbZ5l/eeuRqvQWxPdeiAtgykDCSQLjLXmjNaVvScRRICvPGiVp91vlJNN4C2yN/buQPQoV10MI1KU\
    LG5eiroLkhECgYEA4p9idq1drwjr7RPUIk3IfO/JSHwkDZZqDpibWPFyMv9JNVwvVOtCgpseF+7YG/I1iFac3NY5M6lBrCZVSWEg\
    Ofjh7o6U6xeaAlSrZEv7qoiO+zB3UaS4FENzKN06dmkII2NfoEgaTVMq+quDNVi0CmoY73uAenklOxGsNP+Di+0CgYEAwT3YSGEi\
    txLyOEkuJdo+JzYNEQBU48kFRB6DapG6xXhb0ekwzGMWJGYPZAKETR4krNEA2JzJDoxuWtC5KYN8/B9oNkpZuwURmLuDkh2w2LPV\
    AJSmb/L+4A/KEI9P1ieBdPpeZ83+3qmAGFdTpYHR/JwG54WCAIM6AcLppD64BfcCgYEAzqgPjy+K9dnJ4vipAtsxj5TOVZY2/lkC\
    v+q0BwiuXgjkRo+Y7fRXQ2iWqbZ5Rgq6fGiXRN7pbM3VAFo4feDfFV57ESLec/+ixqtVW/HaPmmnETLiLAZsgrX7ZvFOpboj3Ll6\
    81us+IR19f6/eL859yFHOePChmzA4bu88NtspwUCgYBwIP67IQIP0QKT/oK0nCqsfgSe9N5NPnu7xyjiUaVaqDg/WVxjfKuAe2g6\
    0+sJBJCrZqtjBbb0pi/yqmKG4DFJ6r+BoSroBkzrnwL9ahUP6WmTaK4bD5ktUnwhl8bvsQTBZ/YXrcRSV3Bor2NuCiJavf6ToTiK\
    K5shIoSINYx6iQKBgCHDI6xIbe6tyDrJj9fr0ftsTjc+YcMAIGIHFx3c1YTpfrtuxN24XFVhuxF7rDGZRm1b5oSERUkODeRYyCVE\
    G78j/3GhGqWdDOBJq8XgDFmOqB+16CN0XC6zMzZFwAZ+YFaXkDp9K6+UfJ6BZRCLB+c0I6aKxPXKI7D72V9P2RwC";

fn private() -> RsaPrivateKey {
    let der = STANDARD.decode(PRIVATE).expect("it is base64");
    RsaPrivateKey::from_pkcs1_der(&der).expect("it is a key")
}

/// The team's published keys.
pub fn keys() -> Value {
    let key = private();
    let number = |number: &rsa::BigUint| URL_SAFE_NO_PAD.encode(number.to_bytes_be());
    let (n, e) = (number(key.n()), number(key.e()));
    let key = json!({ "kid": KEY, "kty": "RSA", "alg": "RS256", "use": "sig", "e": e, "n": n });
    // There are others, one of which is not an RSA key.
    json!({ "keys": [{ "kid": "another", "kty": "EC", "crv": "P-256" }, key], "public_certs": [] })
}

/// A JWT with this header and these claims, signed by the key.
pub fn jwt(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let hash = Sha256::digest(signed.as_bytes());
    // The `DigestInfo` of RFC 8017, section 9.2.
    let prefix = b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20";
    let scheme = Pkcs1v15Sign { hash_len: Some(32), prefix: prefix.as_slice().into() };
    let signature = private().sign(scheme, &hash).expect("the key signs");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}
