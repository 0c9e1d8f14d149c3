//! Decides which requests are accepted, and which events they contain.

use std::borrow::Cow;

use hookmill_config::Source;
use hookmill_config::scheme::Answer;
use hookmill_core::message::{BodyForm, Envelope, VERSION};
use hookmill_core::rejection::Rejection;
use hookmill_core::request::Request;
use hookmill_core::secret::{Secret, SecretName};
use hookmill_core::time::Timestamp;
use hookmill_providers::{Admitted, Event, KeyError, Verifier};

use crate::memory::{Memory, Reserved};
use crate::rejections::Rejections;

/// The sources with their keys, and the counts of rejections.
#[derive(Debug)]
pub struct Gate {
    config: hookmill_config::Ingress,
    /// By name, in order.
    verifiers: Vec<(String, Result<Verifier, KeyError>)>,
    memory: Memory,
    rejections: Rejections,
}

impl Gate {
    /// Loads the keys of every source. `lookup` finds a secret by name; `salt` is that of [`Rejections::new`]; `memory` is
    /// the maximum size of all bodies in memory, in bytes.
    ///
    /// A source without valid secrets rejects its requests, and [`Gate::problems`] gives the reason; the others work.
    pub fn new(
        config: hookmill_config::Ingress,
        salt: [u8; 16],
        memory: usize,
        lookup: impl Fn(&SecretName) -> Option<Secret>,
    ) -> Self {
        let strong =
            |source: &Source| Verifier::new(source, &lookup).and_then(Verifier::not_guessable);
        Self::of(config, salt, memory, strong)
    }

    /// The same for requests from this machine only. Secrets that can be guessed are accepted; also returns what is wrong with
    /// them.
    pub fn on_loopback(
        config: hookmill_config::Ingress,
        salt: [u8; 16],
        memory: usize,
        lookup: impl Fn(&SecretName) -> Option<Secret>,
    ) -> (Self, Vec<String>) {
        let mut weak = Vec::new();
        let any = |source: &Source| {
            let verifier = Verifier::new(source, &lookup)?;
            if let Some(error) = verifier.guessable() {
                weak.push(error.to_string());
            }
            Ok(verifier)
        };
        let gate = Self::of(config, salt, memory, any);
        (gate, weak)
    }

    fn of(
        config: hookmill_config::Ingress,
        salt: [u8; 16],
        memory: usize,
        mut verifier: impl FnMut(&Source) -> Result<Verifier, KeyError>,
    ) -> Self {
        let sources = config.sources.iter();
        let verifiers: Vec<_> =
            sources.map(|source| (source.name.clone(), verifier(source))).collect();
        let memory = Memory::new(memory, verifiers.len());
        Self { config, verifiers, memory, rejections: Rejections::new(salt) }
    }

    /// Why sources cannot verify requests; empty if all can.
    pub fn problems(&self, now: Timestamp) -> Vec<String> {
        self.verifiers
            .iter()
            .filter_map(|(name, verifier)| ready(name, verifier, now).err())
            .collect()
    }

    /// Its configuration.
    pub fn config(&self) -> &hookmill_config::Ingress {
        &self.config
    }

    /// The rejections since the last report.
    pub const fn rejections(&self) -> &Rejections {
        &self.rejections
    }

    /// The source with this name, if it is configured, or why it cannot verify requests; and the memory of a body.
    pub(crate) fn source(
        &self,
        name: &str,
        now: Timestamp,
    ) -> Option<(Result<&Verifier, String>, Reserved<'_>)> {
        let index = self.verifiers.iter().position(|(known, _)| known == name)?;
        let (name, verifier) = &self.verifiers[index];
        Some((ready(name, verifier, now), self.memory.reserve(index)))
    }
}

fn ready<'v>(
    name: &str,
    verifier: &'v Result<Verifier, KeyError>,
    now: Timestamp,
) -> Result<&'v Verifier, String> {
    match verifier {
        Ok(verifier) if verifier.expired(now) => {
            Err(format!("source `{name}`: all secrets that are set have expired (`not_after`)"))
        }
        Ok(verifier) => Ok(verifier),
        Err(error) => Err(error.to_string()),
    }
}

/// The content of an accepted request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Admission<'r> {
    /// Events with their bodies, to be enqueued before the response.
    Events(Vec<(Envelope, Cow<'r, [u8]>)>),
    /// A handshake: no event, but a response that the provider needs.
    Handshake(Answer),
}

/// Verifies a request and returns its events.
///
/// # Errors
///
/// [`Rejection`]; nothing of the request is stored.
pub fn admit<'r>(
    verifier: &Verifier,
    request: &Request<'r>,
    now: Timestamp,
) -> Result<Admission<'r>, Rejection> {
    let (verified, events) = match verifier.verify(request, now)? {
        Admitted::Events(verified, events) => (verified, events),
        Admitted::Handshake(answer) => return Ok(Admission::Handshake(answer)),
    };
    let source = &verifier.source().name;
    let headers = verifier.kept_headers(request);
    let envelope = |event: Event<'r>| {
        let envelope = Envelope {
            v: VERSION,
            source: source.clone(),
            id: event.id,
            kind: event.kind,
            received_at: now,
            verified: verified.clone(),
            generation: 0,
            rules: Vec::new(),
            headers: headers.clone(),
            api_version: event.api_version,
            from_api: None,
            body: BodyForm::Text,
        };
        (envelope, event.body)
    };
    Ok(Admission::Events(events.into_iter().map(envelope).collect()))
}

#[cfg(test)]
mod tests {
    use hookmill_config::parse;

    use super::*;

    #[test]
    fn a_source_whose_secrets_have_expired_is_not_ready() {
        let text = "[sources.s]\nscheme = \"stripe\"\nsecrets = [{ name = \"env:A\", not_after = 2026-01-01T00:00:00Z }]\n";
        let config = parse("hookmill.toml", text).unwrap().ingress;
        let gate = Gate::new(config, [0; 16], 0, |_| Some(Secret::from("a-secret-of-a-test")));
        let [before, after] = ["2025-12-31T00:00:00Z", "2026-01-02T00:00:00Z"]
            .map(|time| Timestamp::parse_rfc3339(time).unwrap());
        assert_eq!(gate.problems(before), Vec::<String>::new());
        assert!(gate.source("s", before).unwrap().0.is_ok());
        assert_eq!(gate.problems(after).len(), 1);
        // The response is 503.
        assert!(gate.source("s", after).unwrap().0.is_err());
    }

    #[test]
    fn a_source_whose_secret_can_be_guessed_is_not_ready() {
        let now = Timestamp::from_millis(0);
        for (scheme, secret, bytes) in [
            ("scheme = 'stripe'", "fifteen-letters", Some(15)),
            ("scheme = 'stripe'", "sixteen--letters", None),
            ("scheme = 'svix'", "whsec_AA==", Some(1)),
            ("scheme = 'svix'", "whsec_AAAAAAAAAAAAAAAAAAAAAA==", None),
            (
                "scheme = 'hmac'\nkey = 'hex'\npayload = '{body}'\nsignature = { header = 'S', encoding = 'hex' }\nevent = { id = 'id', type = 'type' }",
                "0102030405060708090a0b0c0d0e0f",
                Some(15),
            ),
            (
                "scheme = 'token'\nsignature = { header = 'T' }\nevent = { id = 'id', type = 'type' }",
                " a\n",
                Some(1),
            ),
            ("scheme = 'twilio'\npublic_url = 'https://a.test/b'", "12345", Some(5)),
        ] {
            let text = format!("[sources.s]\nsecrets = ['env:A']\n{scheme}\n");
            let config = parse("hookmill.toml", &text).unwrap().ingress;
            let gate = Gate::new(config, [0; 16], 0, |_| Some(Secret::from(secret)));
            let problem = bytes.map(|bytes| format!("source `s`: A has {bytes} bytes; a secret needs at least 16, or it can be guessed"));
            let problems: Vec<_> = problem.into_iter().collect();
            assert_eq!(gate.problems(now), problems, "{scheme}");
            let config = parse("hookmill.toml", &text).unwrap().ingress;
            let (gate, weak) =
                Gate::on_loopback(config, [0; 16], 0, |_| Some(Secret::from(secret)));
            assert_eq!((gate.problems(now), weak), (Vec::new(), problems), "{scheme}");
        }
    }
}
