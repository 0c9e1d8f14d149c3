//! Sends what is in the outbox, whenever there is something to do.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hookmill_consumers::mail::{Mail, Round, Sent, resume, round};
use hookmill_core::config::{Api, Consumers};
use hookmill_core::fetch::{Fetch, FetchError};
use hookmill_core::outbound::{ApiRequest, ApiResponse, Provider};
use hookmill_core::secret::{Secret, SecretName};
use hookmill_native::{Metrics, Sqlite, now};
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tracing::{debug, error, info, warn};

/// The longest time without a look into the outbox, which others may write as well.
const LOOK: Duration = Duration::from_secs(60);
/// How long to wait after the store did not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// Sends until `stopped` says so, and brings what is in hand to its end.
pub async fn send<F: Fetch>(
    store: Sqlite,
    fetch: F,
    mail: Mail,
    metrics: Metrics,
    written: Arc<Notify>,
    mut stopped: watch::Receiver<bool>,
) {
    // The folder is locked, so whoever was sending is gone.
    if let Err(error) = resume(&store, now()).await {
        error!(%error, "what was being sent waits for the end of its lease");
    }
    while !*stopped.borrow() {
        // Registered before looking, so that what comes in between is not missed.
        let written = written.notified();
        let wait = match round(&store, &fetch, &mail, now).await {
            Ok(Round { sent, next }) => {
                report(&sent, &metrics);
                let wait = next.map_or(LOOK, |next| next - now());
                wait.min(LOOK)
            }
            Err(error) => {
                error!(%error, "cannot look into the outbox");
                PAUSE
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = written => {}
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
    }
}

fn report(sent: &Sent, metrics: &Metrics) {
    for (state, emails) in sent.states() {
        metrics.count_emails(state, emails as u64);
        match state {
            "sent" => debug!(emails, "sent"),
            state => warn!(emails, state, "emails were not sent"),
        }
    }
    for problem in &sent.problems {
        warn!(problem, "a batch of emails");
    }
}

/// Has emails shown instead of sent: what `dev` does.
pub fn shown_only(mut config: Consumers) -> Consumers {
    if let Some(emails) = &mut config.emails {
        let provider = Provider::Local;
        let key = SecretName(String::new());
        let (url, rate) = (provider.url().to_owned(), provider.rate());
        emails.apis = vec![Api { provider, key, url, rate }];
    }
    config
}

/// Shows emails, and keeps their HTML parts in a folder.
pub struct Show {
    /// The folder.
    pub folder: PathBuf,
}

impl Fetch for Show {
    async fn post(&self, request: ApiRequest, _: &Secret) -> Result<ApiResponse, FetchError> {
        #[derive(Deserialize)]
        struct Shown {
            to: Vec<String>,
            subject: String,
            html: String,
            text: String,
            tags: Vec<Tag>,
        }
        #[derive(Deserialize)]
        struct Tag {
            value: String,
        }
        let failed = |error: &dyn std::fmt::Display| FetchError::NotSent(error.to_string());
        let emails: Vec<Shown> = serde_json::from_str(&request.body).map_err(|e| failed(&e))?;
        std::fs::create_dir_all(&self.folder).map_err(|e| failed(&e))?;
        for email in emails {
            let id = email.tags.first().map(|tag| tag.value.as_str()).unwrap_or_default();
            let file = self.folder.join(format!("{id}.html"));
            std::fs::write(&file, &email.html).map_err(|e| failed(&e))?;
            let (to, subject, text) = (email.to.join(", "), email.subject, email.text);
            let file = file.display();
            info!("an email to {to}, shown and not sent ({file}):\n\n{subject}\n\n{text}\n");
        }
        Ok(ApiResponse { status: 200, retry_after: None, message_id: None, body: "{}".to_owned() })
    }
}
