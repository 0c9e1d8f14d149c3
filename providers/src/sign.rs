//! Signs requests as the provider would, for `hookmill send` and for tests.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey as Ed25519Key};
use hookmill_config::Source;
use hookmill_config::scheme::{
    Algorithm, KeyForm, NamePart, Part, Place, Scheme, Template, TimeUnit,
};
use hookmill_core::hash::sha256_hex;
use hookmill_core::secret::{ExposeSecret as _, Secret, SecretName};
use hookmill_core::time::Timestamp;
use hookmill_rules::{Body, Path, Step};
use p256::ecdsa::{Signature as EcdsaSignature, SigningKey as EcdsaKey};
use p256::pkcs8::EncodePublicKey as _;
use rsa::RsaPrivateKey;
use rsa::pkcs8::{DecodePrivateKey as _, EncodePublicKey as _};
use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};

use crate::key::{Key, pkcs1v15_sha1};
use crate::template::encode;
use crate::{member_text, paddle_classic, plain, standard_webhooks, twilio, url};

/// An event to sign.
#[derive(Clone, Copy, Debug)]
pub struct UnsignedEvent<'a> {
    /// Its id, for providers that send it in a header.
    pub id: &'a str,
    /// Its type, for providers that send it in a header.
    pub kind: &'a str,
    /// The time of signing.
    pub at: Timestamp,
    /// The query of the URL, if there is one.
    pub query: Option<&'a str>,
    /// Its body.
    pub body: &'a [u8],
}

/// A signed request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Signed {
    /// Its headers.
    pub headers: Vec<(String, String)>,
    /// Its body: some providers add a signature or a time to it.
    pub body: Vec<u8>,
}

/// Signs a request as the provider of a source would. If the source's secret is a public key, `secret` must be the private
/// one: 32 bytes in hexadecimal for Ed25519 and P-256, PEM for RSA.
///
/// # Errors
///
/// The problem with the secret, or the body.
pub fn sign(source: &Source, secret: &Secret, event: UnsignedEvent<'_>) -> Result<Signed, String> {
    let secret = secret.expose_secret().trim();
    let body = event.body.to_vec();
    match &source.scheme {
        Scheme::Template(template) => {
            by_template(template, &source.events.id, &source.events.kind, source, secret, event)
        }
        Scheme::StandardWebhooks { families, .. } => {
            let family = families.first().map_or("webhook", String::as_str);
            let timestamp = event.at.seconds().to_string();
            let parts = [event.id.as_bytes(), b".", timestamp.as_bytes(), b".", event.body];
            let signature = match standard_webhooks::private_key(secret) {
                Some(key) => {
                    format!("v1a,{}", STANDARD.encode(key?.sign(&parts.concat()).to_bytes()))
                }
                None => {
                    let tag = standard_webhooks::key(true, secret)?.tag(&parts);
                    let tag = tag.ok_or("is a public key, which cannot sign")?;
                    format!("v1,{}", STANDARD.encode(tag))
                }
            };
            let headers =
                [("id", event.id.to_owned()), ("timestamp", timestamp), ("signature", signature)];
            let headers = headers.map(|(name, value)| (format!("{family}-{name}"), value));
            Ok(Signed { headers: headers.into(), body })
        }
        Scheme::Twilio => {
            let [key, _] = twilio::keys(secret)?;
            let url = url(source.public_url.as_deref(), event.query);
            let headers = twilio::sign(&key, &url, event.body).map_err(|error| error.detail)?;
            Ok(Signed { headers, body })
        }
        Scheme::PaddleClassic => {
            let key = RsaPrivateKey::from_pkcs8_pem(secret)
                .map_err(|_| "is not an RSA private key in PEM")?;
            let signed = paddle_classic::signed(event.body).map_err(|error| error.detail)?;
            let signature = key
                .sign(pkcs1v15_sha1(), &Sha1::digest(signed))
                .map_err(|error| error.to_string())?;
            let mut body = body;
            body.extend_from_slice(b"&p_signature=");
            let encoded = percent_encoding::utf8_percent_encode(
                &STANDARD.encode(signature),
                percent_encoding::NON_ALPHANUMERIC,
            )
            .to_string();
            body.extend_from_slice(encoded.as_bytes());
            let form = "application/x-www-form-urlencoded".to_owned();
            Ok(Signed { headers: vec![("Content-Type".to_owned(), form)], body })
        }
    }
}

fn by_template(
    template: &Template,
    id: &[NamePart],
    kind: &[NamePart],
    source: &Source,
    secret: &str,
    event: UnsignedEvent<'_>,
) -> Result<Signed, String> {
    let mut headers = Vec::new();
    let mut json: Option<Value> = serde_json::from_slice(event.body).ok();
    let mut changed = false;
    let mut put = |path: &str, value: Value| {
        let json = json.as_mut().ok_or("the body is not JSON")?;
        changed = true;
        set(json, path, value)
    };
    if let Some(name) = id.first().and_then(header) {
        headers.push((name.to_owned(), event.id.to_owned()));
    }
    if let [first, more @ ..] = kind
        && let Some(name) = header(first)
    {
        // The parts after the header are in the body.
        let kind = if more.is_empty() {
            event.kind
        } else {
            event.kind.split('.').next().unwrap_or_default()
        };
        headers.push((name.to_owned(), kind.to_owned()));
    }
    let mut timestamp = String::new();
    if let Some(time) = &template.timestamp {
        timestamp = match time.unit {
            TimeUnit::Seconds => event.at.seconds().to_string(),
            TimeUnit::Milliseconds => event.at.millis().to_string(),
            TimeUnit::Rfc3339 => event.at.to_string(),
        };
        match &time.place {
            Place::Header(names) => headers.push((names[0].clone(), timestamp.clone())),
            Place::Body(_, path) if template.payload.contains(&Part::Timestamp) => {
                put(path, json!(timestamp))?;
            }
            Place::Body(_, path) => {
                put(path, serde_json::from_str(&timestamp).unwrap_or(json!(timestamp)))?;
            }
            Place::Member(_) => {}
        }
    }
    for part in &template.payload {
        if let Part::Header(name, _) = part
            && !headers.iter().any(|(sent, _)| sent.eq_ignore_ascii_case(name))
        {
            headers.push((name.clone(), event.id.to_owned()));
        }
    }
    let mut members = Vec::new();
    let whole = Body::new(event.body).ok();
    let values = whole.as_ref().and_then(|body| template.reads.read(body).ok());
    for part in &template.payload {
        if let Part::Member(slot, path) = part {
            let member = match values.as_ref().and_then(|values| member_text(*slot, values)) {
                Some(there) => there,
                None => {
                    // A token: any value that does not repeat.
                    let token = sha256_hex(&[event.id.as_bytes()]);
                    put(path, json!(token))?;
                    token
                }
            };
            members.push(member);
        }
    }
    let mut body = if changed {
        json.as_ref().map(|json| json.to_string().into_bytes()).unwrap_or_default()
    } else {
        event.body.to_vec()
    };
    let url = url(source.public_url.as_deref(), event.query);
    let plain_url = plain(&url);
    let mut members = members.iter();
    let mut signed: Vec<&[u8]> = Vec::new();
    for part in &template.payload {
        signed.push(match part {
            Part::Literal(text) => text.as_bytes(),
            Part::Timestamp => timestamp.as_bytes(),
            Part::Method => b"POST",
            Part::Url => url.as_bytes(),
            Part::PlainUrl => plain_url.as_bytes(),
            Part::Body => &body,
            Part::Header(name, _) => headers
                .iter()
                .find(|(sent, _)| sent.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.as_bytes())
                .unwrap_or_default(),
            Part::Member(..) => members.next().map(String::as_bytes).unwrap_or_default(),
        });
    }
    let signature = signature(template, secret, &signed)?;
    let text = spelled(template, &timestamp, &signature);
    match &template.signature.place {
        Place::Header(names) => headers.push((names[0].clone(), text)),
        Place::Member(name) => headers.push((name.clone(), text)),
        Place::Body(_, path) => {
            let mut json: Value =
                serde_json::from_slice(&body).map_err(|_| "the body is not JSON")?;
            set(&mut json, path, json!(text))?;
            body = json.to_string().into_bytes();
        }
    }
    Ok(Signed { headers, body })
}

/// The header of a part of an id or type, if it is one; of alternatives, the first.
fn header(part: &NamePart) -> Option<&str> {
    match part {
        NamePart::Header(name) => Some(name),
        NamePart::Either(parts) => parts.first().and_then(header),
        NamePart::Body(..) | NamePart::BodyHash | NamePart::SignedHash => None,
    }
}

/// A signature as it appears in the request, with its prefix.
fn spelled(template: &Template, timestamp: &str, signature: &[u8]) -> String {
    let signature = encode(template.signature.encoding, signature);
    match (&template.signature.list, template.timestamp.as_ref().map(|time| &time.place)) {
        (Some((separator, Some(key))), Some(Place::Member(time))) => {
            format!("{time}={timestamp}{separator}{key}={signature}")
        }
        (Some((_, Some(key))), _) => format!("{key}={signature}"),
        (Some((_, None)) | None, _) => format!("{}{signature}", template.signature.prefix),
    }
}

fn signature(template: &Template, secret: &str, signed: &[&[u8]]) -> Result<Vec<u8>, String> {
    Ok(match template.algorithm {
        Algorithm::Token => secret.as_bytes().to_vec(),
        Algorithm::Ed25519 => {
            let seed =
                seed(secret).ok_or("is not an Ed25519 private key: 32 bytes in hexadecimal")?;
            Ed25519Key::from_bytes(&seed).sign(&signed.concat()).to_bytes().to_vec()
        }
        Algorithm::EcdsaP256 => {
            let key = seed(secret).and_then(|seed| EcdsaKey::from_slice(&seed).ok());
            let key = key.ok_or("is not a P-256 private key: 32 bytes in hexadecimal")?;
            let signature: EcdsaSignature = key.sign(&signed.concat());
            signature.to_der().as_bytes().to_vec()
        }
        Algorithm::HmacSha1 | Algorithm::HmacSha256 | Algorithm::HmacSha512 => {
            let key = Key::new(template.algorithm, template.key, secret)?;
            key.tag(signed).unwrap_or_default()
        }
    })
}

fn seed(text: &str) -> Option<[u8; 32]> {
    base16ct::mixed::decode_vec(text).ok()?.try_into().ok()
}

/// Writes a value at a path of members, and creates missing objects.
fn set(json: &mut Value, path: &str, value: Value) -> Result<(), String> {
    let path: Path = path.parse().map_err(|error| format!("{error}"))?;
    let mut place = json;
    for step in &path.steps {
        let Step::Key(key) = step else {
            return Err("the body has no such path".to_owned());
        };
        if place.is_null() {
            *place = json!({});
        }
        let object = place.as_object_mut().ok_or("the body has no such path")?;
        place = object.entry(key).or_insert(Value::Null);
    }
    *place = value;
    Ok(())
}

/// The keys that `hookmill dev` and `hookmill send` use if none are set. They are the same everywhere and thus not secret:
/// they make development work without setup, and their text says what they are.
#[derive(Debug)]
pub struct Development {
    /// The key that the source verifies with.
    pub verifying: Secret,
    /// The key that `send` signs with; the same, unless the scheme has public keys.
    pub signing: Secret,
}

/// The development keys of a source, for the secret of this name.
#[expect(clippy::missing_panics_doc, reason = "fixed keys are keys")]
pub fn development(source: &Source, name: &SecretName) -> Development {
    let label = development_label(name);
    let both = |text: String| Development { verifying: text.clone().into(), signing: text.into() };
    let seed = sha256_hex(&[label.as_bytes()]);
    let bytes = base16ct::lower::decode_vec(&seed).unwrap_or_default();
    match &source.scheme {
        Scheme::StandardWebhooks { .. } => both(format!("whsec_{}", STANDARD.encode(label))),
        Scheme::Twilio => both(label),
        Scheme::PaddleClassic => {
            let key = RsaPrivateKey::from_pkcs8_pem(DEVELOPMENT_RSA).expect("it is a key");
            let public = key.to_public_key().to_public_key_der().expect("a public key has DER");
            Development {
                verifying: STANDARD.encode(public.as_bytes()).into(),
                signing: DEVELOPMENT_RSA.into(),
            }
        }
        Scheme::Template(template) => match (template.algorithm, template.key) {
            (Algorithm::Ed25519, form) => {
                let seed_bytes: [u8; 32] = bytes.try_into().expect("SHA-256 has 32 bytes");
                let public = Ed25519Key::from_bytes(&seed_bytes).verifying_key().to_bytes();
                let verifying = match form {
                    KeyForm::Base64 => STANDARD.encode(public),
                    _ => base16ct::lower::encode_string(&public),
                };
                Development { verifying: verifying.into(), signing: seed.into() }
            }
            (Algorithm::EcdsaP256, _) => {
                let key = EcdsaKey::from_slice(&bytes).expect("a hash is below the order of P-256");
                let public = key.verifying_key().to_public_key_der().expect("a public key has DER");
                Development {
                    verifying: STANDARD.encode(public.as_bytes()).into(),
                    signing: seed.into(),
                }
            }
            (_, KeyForm::Hex) => both(seed),
            (_, KeyForm::Base64) => both(STANDARD.encode(label)),
            (_, KeyForm::Text) if source.scheme_name == "stripe" => both(format!("whsec_{label}")),
            (_, KeyForm::Text) => both(label),
        },
    }
}

/// The development token of a challenge.
pub fn development_token(name: &SecretName) -> Secret {
    development_label(name).into()
}

fn development_label(name: &SecretName) -> String {
    format!("for-development-only-{}", name.0.to_lowercase())
}

/// Public: it protects nothing.
const DEVELOPMENT_RSA: &str = include_str!("development_rsa.pem");
