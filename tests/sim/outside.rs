//! The providers that Hookmill sends to: what they have accepted, and their moods.

use std::collections::{BTreeMap, BTreeSet};

use hookmill_core::fetch::FetchError;
use hookmill_core::outbound::{ApiRequest, ApiResponse};
use hookmill_core::time::Timestamp;
use serde_json::{Value, json};

use crate::pipeline::key_of;
use crate::world::World;

/// The time for which Resend recognizes a batch, in milliseconds.
const RECOGNIZED: i64 = 24 * 3600 * 1000;

/// The state of the providers.
#[derive(Clone, Default)]
pub struct Outside {
    /// How often each message was delivered to its recipient, by the message's id.
    pub delivered: BTreeMap<String, usize>,
    /// Messages that may be delivered once more: a restored backup does not know that they were sent.
    pub forgotten: BTreeSet<String>,
    /// Resend's answers, by idempotency key: the body, the answer, and when it was first sent.
    answered: BTreeMap<String, (String, String, i64)>,
    /// Emails about which the provider has a report that it has not sent, by their ids.
    pub reports: Vec<String>,
    /// The idempotency keys of batches that Resend has called invalid.
    invalid: BTreeSet<String>,
    /// The current objects of the API, by their paths.
    pub objects: BTreeMap<String, Value>,
    /// The number of ids that providers have given.
    ids: usize,
}

/// What a provider does with a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mood {
    Fine,
    NotReached,
    NoAnswer {
        processed: bool,
    },
    /// It processes nothing.
    Status(u16),
    /// It may have processed the request.
    Failure {
        processed: bool,
    },
}

impl World {
    fn mood(&mut self) -> Mood {
        if !self.is_troubled || !self.choices.once_in(4) {
            return Mood::Fine;
        }
        match self.choices.below(8) {
            0 => Mood::NotReached,
            1 => Mood::NoAnswer { processed: false },
            2 => Mood::NoAnswer { processed: true },
            3 => Mood::Status(429),
            4 => Mood::Status(503),
            5 => Mood::Status(500),
            6 => Mood::Failure { processed: false },
            _ => Mood::Failure { processed: true },
        }
    }

    /// A provider's answer.
    pub fn answer(&mut self, request: &ApiRequest, key: &str) -> Result<ApiResponse, FetchError> {
        let path = request.url.strip_prefix("http://localhost/").unwrap_or_default();
        let (provider, path) = path.split_once('/').unwrap_or((path, ""));
        if key_of(provider).is_some_and(|own| own != key) {
            self.violated(format!("{provider} got the key of another provider"));
        }
        let mood = self.mood();
        let provider = provider.to_owned();
        self.note(|| format!("request to {provider}: {mood:?}"));
        let no_answer = || Err(FetchError::NoAnswer("simulated".to_owned()));
        let fails = |status| response(status, "");
        match mood {
            Mood::NotReached => Err(FetchError::NotSent("simulated".to_owned())),
            Mood::NoAnswer { processed: false } => no_answer(),
            // A 500 may come after the emails are sent, a 429 and a 503 do not.
            Mood::Status(status) => Ok(fails(status)),
            Mood::Failure { processed: false } => Ok(fails(502)),
            Mood::Fine | Mood::NoAnswer { .. } | Mood::Failure { .. } => {
                let path = path.to_owned();
                let response = self.processed(&provider, &path, request);
                match mood {
                    Mood::Fine => Ok(response),
                    Mood::Failure { .. } => Ok(fails(502)),
                    _ => no_answer(),
                }
            }
        }
    }

    fn processed(&mut self, provider: &str, path: &str, request: &ApiRequest) -> ApiResponse {
        let body = || serde_json::from_str::<Value>(&request.body).unwrap_or_default();
        match provider {
            "resend" => self.resend(request),
            "sendgrid" => {
                let sent = &body()["personalizations"];
                for email in sent.as_array().into_iter().flatten() {
                    self.deliver(email["custom_args"]["hookmill"].as_str().unwrap_or_default());
                }
                ApiResponse { message_id: Some(self.id()), ..response(202, "") }
            }
            "twilio" => {
                let mut fields = request.body.split('&');
                let text = fields.find_map(|field| field.strip_prefix("Body="));
                self.deliver(&format!("sms {}", text.unwrap_or_default().replace("%5F", "_")));
                response(201, &json!({ "sid": self.id() }).to_string())
            }
            // Both recognize an event that they have.
            "mixpanel" | "posthog" => {
                let events = body();
                let events = events.as_array().or_else(|| events["batch"].as_array());
                let count = events.map_or(0, Vec::len);
                self.outside
                    .delivered
                    .entry(provider.to_owned())
                    .and_modify(|all| *all += count)
                    .or_insert(count);
                response(200, &json!({ "num_records_imported": count, "status": 1 }).to_string())
            }
            "stripe" if path.starts_with("v1/customers?") => self.page(path),
            "stripe" => match self.outside.objects.get(path.rsplit('/').next().unwrap_or_default())
            {
                Some(object) => response(200, &object.to_string()),
                None => response(404, ""),
            },
            _ => response(200, ""),
        }
    }

    /// A page with one customer: <https://docs.stripe.com/api/pagination>.
    fn page(&self, path: &str) -> ApiResponse {
        let after = path.rsplit_once("starting_after=").map_or("", |(_, after)| after);
        let mut left = self.outside.objects.iter().filter(|(id, _)| id.as_str() > after);
        let page: Vec<_> = left.next().into_iter().map(|(_, object)| object).collect();
        let body = json!({ "object": "list", "data": page, "has_more": left.next().is_some() });
        let date = Timestamp::from_millis(self.time()).format("%a, %d %b %Y %H:%M:%S GMT");
        ApiResponse { date, ..response(200, &body.to_string()) }
    }

    /// <https://resend.com/docs/dashboard/emails/idempotency-keys>
    fn resend(&mut self, request: &ApiRequest) -> ApiResponse {
        let key = request.headers.iter().find(|(name, _)| *name == "idempotency-key");
        let key = key.map(|(_, key)| key.clone()).unwrap_or_default();
        let time = self.time();
        self.outside.answered.retain(|_, (_, _, at)| time - *at < RECOGNIZED);
        if let Some((body, answer, _)) = self.outside.answered.get(&key) {
            if *body != request.body {
                let problem = format!("the batch {key} has changed");
                self.violated(problem);
                return response(409, r#"{"name":"invalid_idempotent_request"}"#);
            }
            return response(200, &answer.clone());
        }
        let emails: Vec<Value> = serde_json::from_str(&request.body).unwrap_or_default();
        // It says of a batch, not of an email, that something is invalid, and says so again.
        let is_new = emails.len() > 1 && self.is_troubled;
        if self.outside.invalid.contains(&key) || (is_new && self.choices.once_in(4)) {
            self.outside.invalid.insert(key);
            return response(422, r#"{"name":"validation_error"}"#);
        }
        let (mut data, mut errors) = (Vec::new(), Vec::new());
        for (index, email) in emails.iter().enumerate() {
            if email["to"][0].as_str().is_some_and(|to| to.contains("refused")) {
                errors.push(json!({ "index": index, "message": "no" }));
            } else {
                self.deliver(email["tags"][0]["value"].as_str().unwrap_or_default());
                data.push(json!({ "id": self.id() }));
            }
        }
        let answer = json!({ "data": data, "errors": errors }).to_string();
        self.outside.answered.insert(key, (request.body.clone(), answer.clone(), time));
        response(200, &answer)
    }

    fn id(&mut self) -> String {
        self.outside.ids += 1;
        format!("provider-{}", self.outside.ids)
    }

    /// A message that no provider recognizes again is delivered once at most.
    fn deliver(&mut self, id: &str) {
        self.note(|| format!("delivered {id}"));
        if self.outside.forgotten.remove(id) {
            self.outside.delivered.remove(id);
        }
        if !id.starts_with("sms ") {
            self.outside.reports.push(id.to_owned());
        }
        let times = self.outside.delivered.entry(id.to_owned()).or_default();
        *times += 1;
        if *times > 1 {
            self.violated(format!("message {id} was delivered twice"));
        }
    }
}

fn response(status: u16, body: &str) -> ApiResponse {
    ApiResponse { status, retry_after: None, message_id: None, date: None, body: body.to_owned() }
}
