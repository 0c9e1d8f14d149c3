//! Computes how many events D1 has space for.

use std::time::Duration;

use hookmill_config::{Config, Retention};
use hookmill_native::now;

use crate::samples;

/// The maximum size of a D1 database in bytes.
///
/// Source: <https://developers.cloudflare.com/d1/platform/limits/>.
const D1: f64 = 10e9;
/// The bytes of an event in the ledger and its indexes, and of its message in addition to its body. SQLite's `dbstat` shows
/// 283 and 1,430 after 10,000 events of 3.2 KB; SQLite has the same format everywhere.
const LEDGER: f64 = 300.0;
/// See [`LEDGER`].
const MESSAGE: f64 = 1400.0;
/// The size in bytes of an event of a provider without samples.
const EVENT: f64 = 2000.0;

/// A sentence about the space of D1 with this retention. The rows that rules write come in addition.
pub fn sentence(config: &Config) -> String {
    let size = event_size(config);
    let Retention { events, messages, .. } = config.retention;
    let seconds = |age: Option<Duration>| age.map_or(0.0, |age| age.as_secs_f64());
    let message = size + MESSAGE;
    let about = format!("(events of {:.1} KB, without the rows of rules)", size / 1000.0);
    if events.is_some() {
        let each = seconds(events) * LEDGER + seconds(messages) * message;
        let rate = round(D1 / each);
        return format!(
            "`[retention]` lets {rate} events a second fit into D1's 10 GB; more fill it {about}"
        );
    }
    let kept = messages.map(|age| {
        let taken = round(age.as_secs_f64() * message / 1e9);
        format!("; at one event a second, kept messages take {taken} GB")
    });
    format!(
        "the ledger keeps events forever, and {} million fill D1's 10 GB{} {about}; `events` in `[retention]` removes old ones",
        round(D1 / LEDGER / 1e6),
        kept.unwrap_or_default()
    )
}

/// The mean size in bytes of the samples of the sources' providers.
fn event_size(config: &Config) -> f64 {
    let mut sizes = Vec::new();
    for source in &config.ingress.sources {
        let scheme = &source.scheme_name;
        for kind in samples::types(scheme) {
            let body = samples::event(scheme, &kind, "evt_1", now());
            sizes.extend(body.map(|body| body.to_string().len()));
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    match sizes.len() {
        0 => EVENT,
        count => sizes.iter().sum::<usize>() as f64 / count as f64,
    }
}

/// Two significant digits.
fn round(number: f64) -> String {
    match number {
        10.0.. => format!("{number:.0}"),
        1.0.. => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}
