//! What ingress tells of the requests that it refused: how many, and a few of them.
//!
//! Whoever can reach ingress can be refused as often as they like, so a rejection must cost less than an event: it is
//! counted in memory, and a report is made of the counts once in a while.

use serde::{Deserialize, Serialize};

use crate::json::to_json;

use crate::rejection::Reason;
use crate::time::Timestamp;

/// The version of [`Report`] that this code writes.
const VERSION: u32 = 1;

/// The requests that one ingress refused in a few seconds. Fields are only ever added within a version.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The version of this form.
    v: u32,
    /// When it was made.
    pub at: Timestamp,
    /// One tally for each source and reason.
    pub rejections: Vec<Tally>,
}

/// Requests that were refused for the same reason at the same source.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Tally {
    /// The source; `None` if the request named none that there is.
    pub source: Option<String>,
    /// Why.
    pub reason: Reason,
    /// How many.
    pub count: u64,
    /// The first few of them.
    pub samples: Vec<Sample>,
}

/// One request that was refused. It holds nothing that the request was made of: no secret, no signature, no body.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// When.
    pub at: Timestamp,
    /// The sentence that was answered.
    pub detail: String,
    /// Hash of the address it came from, 16 hex digits, if that is known. The same address has the same hash until the
    /// Worker is built anew, or natively as long as the data folder is kept.
    pub remote: Option<String>,
    /// How long the body was said to be, in bytes.
    pub content_length: Option<u64>,
    /// How long the body was, in bytes, if it was read.
    pub body_bytes: Option<u64>,
}

impl Report {
    /// A report of these.
    pub const fn new(at: Timestamp, rejections: Vec<Tally>) -> Self {
        Self { v: VERSION, at, rejections }
    }

    /// Its text on the queue of reports.
    pub fn encode(&self) -> String {
        to_json(self)
    }

    /// Reads what [`Report::encode`] wrote; `None` if it is no report, or of a newer version.
    pub fn decode(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().filter(|report: &Self| report.v == VERSION)
    }
}
