//! Reports about the requests that ingress rejected: counts, and a few samples.
//!
//! Anyone can cause rejections at any rate, so a rejection must cost less than an event: ingress counts them in memory, and
//! sends a report every few seconds.

use serde::{Deserialize, Serialize};

use crate::json::to_json;

use crate::rejection::Reason;
use crate::time::Timestamp;

/// The version of [`Report`] that this code writes.
const VERSION: u32 = 1;

/// The requests that one ingress rejected in a few seconds. Within a version fields are only added.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The version of this form.
    v: u32,
    /// When the report was made.
    pub at: Timestamp,
    /// One tally for each source and reason.
    pub rejections: Vec<Tally>,
}

/// Rejected requests with the same source and reason.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Tally {
    /// The source; `None` if the request named no configured source.
    pub source: Option<String>,
    /// The reason.
    pub reason: Reason,
    /// Their number.
    pub count: u64,
    /// The first few of them.
    pub samples: Vec<Sample>,
}

/// A rejected request. It contains no part of the request: no secret, no signature, no body.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// The time.
    pub at: Timestamp,
    /// The sentence in the response.
    pub detail: String,
    /// A hash of the client's address, 16 hex digits, if the address is known. The same address has the same hash until the
    /// Worker is built again, or natively until the data folder is replaced.
    pub remote: Option<String>,
    /// The request's `Content-Length`.
    pub content_length: Option<u64>,
    /// The size of the body in bytes, if it was read.
    pub body_bytes: Option<u64>,
}

impl Report {
    /// A report about these rejections.
    pub const fn new(at: Timestamp, rejections: Vec<Tally>) -> Self {
        Self { v: VERSION, at, rejections }
    }

    /// Its text on the queue of reports.
    pub fn encode(&self) -> String {
        to_json(self)
    }

    /// Reads a text from [`Report::encode`]; `None` if it is not a report, or has a newer version.
    pub fn decode(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().filter(|report: &Self| report.v == VERSION)
    }
}
