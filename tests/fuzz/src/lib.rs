//! The common parts of the targets: sources of every scheme, and requests as readable text.
//!
//! A request is a line with the name of a source of `sources.toml` and optionally `?` and a query, lines of headers, a
//! blank line, and the body.

use std::sync::LazyLock;

use hookmill_config::{Source, parse};
use hookmill_core::secret::{Secret, SecretName};
use hookmill_core::time::Timestamp;
use hookmill_providers::{Verifier, development};

/// The time of every request.
pub const NOW: Timestamp = Timestamp::from_seconds(1_767_225_600);

/// A source with its keys.
pub struct Prepared {
    /// The source.
    pub source: Source,
    /// Its verifier.
    pub verifier: Verifier,
    /// The signing secret.
    pub signing: Secret,
}

impl Prepared {
    /// A source with development keys.
    ///
    /// # Panics
    ///
    /// If its scheme rejects them.
    pub fn new(source: Source) -> Self {
        let keys = development(&source, &SecretName("SECRET".into()));
        let verifier = Verifier::new(&source, |_| Some(keys.verifying.clone()));
        let verifier = verifier.expect("development keys fit every scheme");
        Self { source, verifier, signing: keys.signing }
    }
}

/// A source for every scheme, and more with options of the general ones.
pub static SOURCES: LazyLock<Vec<Prepared>> = LazyLock::new(|| {
    let config = parse("sources.toml", include_str!("../sources.toml"));
    let config = config.unwrap_or_else(|errors| panic!("{}", errors[0]));
    config.ingress.sources.into_iter().map(Prepared::new).collect()
});

/// A request in text.
pub struct Text<'d> {
    /// Its source.
    pub to: &'static Prepared,
    /// Its query.
    pub query: Option<&'d str>,
    /// Its headers.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: &'d [u8],
}

impl<'d> Text<'d> {
    /// Parses it; `None` if it is malformed, or names no source.
    pub fn parse(data: &'d [u8]) -> Option<Self> {
        let split = |data: &'d [u8]| {
            let end = data.iter().position(|byte| *byte == b'\n')?;
            Some((std::str::from_utf8(&data[..end]).ok()?, &data[end + 1..]))
        };
        let (first, mut rest) = split(data)?;
        let (name, query) = match first.split_once('?') {
            Some((name, query)) => (name, Some(query)),
            None => (first, None),
        };
        let to = SOURCES.iter().find(|prepared| prepared.source.name == name)?;
        let mut headers = Vec::new();
        loop {
            let (line, below) = split(rest)?;
            rest = below;
            if line.is_empty() {
                return Some(Self { to, query, headers, body: rest });
            }
            let (name, value) = line.split_once(": ")?;
            headers.push((name.to_owned(), value.to_owned()));
        }
    }
}
