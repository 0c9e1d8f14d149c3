//! Points in time. No stage reads a clock: `now` is an argument.

// Values come from payloads, tokens and databases.
#![warn(clippy::arithmetic_side_effects)]

use std::fmt::{self, Write as _};
use std::ops::{Add, Sub};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

/// How far the clocks of two processes may differ before one of them counts as wrong.
const CLOCK_SLACK: Duration = Duration::from_secs(10);

impl Timestamp {
    /// The latest due time that the pipeline can have set, if no delay is longer than `longest`.
    ///
    /// A later due time comes from a clock that was ahead. It counts as due, so a corrected clock delays nothing. This
    /// applies to every due time in a database: a retry, the end of a lease, the next request that a rate allows.
    #[must_use]
    pub fn horizon(self, longest: Duration) -> Self {
        Self(self.0.saturating_add(millis(longest)).saturating_add(millis(CLOCK_SLACK)))
    }

    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// From whole seconds since the Unix epoch; saturates.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// From RFC 3339: <https://www.rfc-editor.org/rfc/rfc3339>.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        DateTime::parse_from_rfc3339(text).ok().map(|time| Self(time.timestamp_millis()))
    }

    /// From the `Date` of HTTP: <https://www.rfc-editor.org/rfc/rfc9110#section-5.6.7>.
    pub fn parse_http_date(text: &str) -> Option<Self> {
        DateTime::parse_from_rfc2822(text).ok().map(|time| Self(time.timestamp_millis()))
    }

    /// Its day in UTC: `2026-01-01`.
    pub fn day(self) -> String {
        let text = self.to_string();
        text.split('T').next().unwrap_or_default().to_owned()
    }

    /// Its month in UTC: `2026-01`.
    pub fn month(self) -> String {
        let day = self.day();
        day.rsplit_once('-').map_or("", |(month, _)| month).to_owned()
    }

    /// In UTC, with a format of <https://docs.rs/chrono/latest/chrono/format/strftime/index.html>; `None` if the format is
    /// invalid.
    pub fn format(self, words: &str) -> Option<String> {
        let time = DateTime::from_timestamp_millis(self.0)?;
        let mut text = String::new();
        write!(text, "{}", time.format(words)).ok()?;
        Some(text)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Microseconds since the Unix epoch, the unit of versions that are times.
    pub const fn micros(self) -> i64 {
        self.0.saturating_mul(1000)
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }
}

/// Adds; saturates.
impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }
}

/// Subtracts; saturates.
impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }
}

/// The difference; zero if negative.
impl Sub for Timestamp {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// RFC 3339 with milliseconds: `2026-01-01T00:00:00.000Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::from_timestamp_millis(self.0) {
            Some(time) => f.write_str(&time.to_rfc3339_opts(SecondsFormat::Millis, true)),
            None => write!(f, "{} ms", self.0),
        }
    }
}
