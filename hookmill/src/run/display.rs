//! The API that `dev` uses in place of all others: it displays messages instead of sending them.

use std::path::Path;
use std::time::Duration;

use hookmill_core::email::Email;
use hookmill_core::fetch::FetchError;
use hookmill_core::outbound::{
    ApiRequest, ApiResponse, Authorization, MessageResult, Method, SendResult,
};
use hookmill_providers::api::{Api, Sealed};
use hookmill_providers::email::EmailApi;
use serde::{Deserialize, Serialize};
use tracing::info;

/// The prefix of its URLs, followed by the channel.
pub const SCHEME: &str = "local:";

/// The API of `dev`. It displays a repeated email once, so delivery is never uncertain.
#[derive(Clone, Copy, Debug)]
pub struct DisplayApi;

impl Api for DisplayApi {
    fn name(&self) -> &'static str {
        "local"
    }

    fn recognizes_for(&self) -> Option<Duration> {
        Some(Duration::MAX)
    }

    fn max_batch(&self) -> usize {
        100
    }

    fn request(&self, batch: &Sealed<'_>) -> ApiRequest {
        ApiRequest {
            method: Method::Post,
            url: format!("{SCHEME}{}", batch.channel),
            headers: Vec::new(),
            authorization: Authorization::None,
            body: batch.body.to_owned(),
        }
    }

    fn answer(&self, members: usize, _response: &ApiResponse) -> SendResult {
        SendResult::Accepted(vec![MessageResult::Accepted(None); members])
    }

    fn recipients(&self, members: usize, body: &str) -> Vec<usize> {
        let Ok(emails) = serde_json::from_str::<Vec<Content>>(body) else {
            return vec![1; members];
        };
        emails.iter().map(|email| email.to.len()).collect()
    }
}

impl EmailApi for DisplayApi {
    fn body(&self, emails: &[&Email]) -> Option<String> {
        let content = emails.iter().map(|email| Content {
            id: email.id.clone(),
            to: email.to.iter().chain(&email.cc).map(ToString::to_string).collect(),
            subject: email.subject.clone(),
            html: email.html.clone(),
            text: email.text.clone(),
        });
        serde_json::to_string(&content.collect::<Vec<_>>()).ok()
    }

    fn reported_id(&self) -> Option<&'static str> {
        None
    }
}

/// An email for display.
#[derive(Serialize, Deserialize)]
struct Content {
    id: String,
    to: Vec<String>,
    subject: String,
    html: String,
    text: String,
}

/// Displays the content of a request, and writes the HTML parts of emails to a folder.
pub fn show(folder: &Path, request: &ApiRequest) -> Result<ApiResponse, FetchError> {
    let channel = request.url.trim_start_matches(SCHEME);
    if channel == "email" {
        let emails: Vec<Content> = serde_json::from_str(&request.body).map_err(cannot_display)?;
        for email in emails {
            show_email(folder, email).map_err(cannot_display)?;
        }
    } else {
        info!("{channel}, displayed instead of sent:\n\n{}\n", request.body);
    }
    Ok(ApiResponse {
        status: 200,
        retry_after: None,
        message_id: None,
        date: None,
        body: String::new(),
    })
}

fn cannot_display(error: impl std::fmt::Display) -> FetchError {
    FetchError::NotSent(error.to_string())
}

fn show_email(folder: &Path, email: Content) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let Content { id, to, subject, html, text } = email;
    let file = folder.join(format!("{id}.html"));
    std::fs::write(&file, html)?;
    let (to, file) = (to.join(", "), file.display());
    info!("an email to {to}, displayed instead of sent ({file}):\n\n{subject}\n\n{text}\n");
    Ok(())
}
