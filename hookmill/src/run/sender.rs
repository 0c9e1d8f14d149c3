//! Sends what is in the outbox, whenever there is something to do.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::run::secrets::from_environment;
use crate::run::shown::{SCHEME, show};
use hookmill_consumers::alert::{Alarm, Looked, look};
use hookmill_consumers::outbox::Unsent;
use hookmill_consumers::outgoing::{Outgoing, Round, Sent, round};
use hookmill_consumers::refetch::{self, Apis, Asked};
use hookmill_core::config::{AlertUrl, Consumers};
use hookmill_core::fetch::{Fetch, FetchError};
use hookmill_core::outbound::{ApiRequest, ApiResponse};
use hookmill_core::secret::Secret;
use hookmill_native::{HttpClient, Metrics, Sqlite, now};
use tokio::sync::{Notify, watch};
use tracing::{debug, error, warn};

/// The longest time without a look into the outbox, which others may write as well.
const LOOK: Duration = Duration::from_secs(10);
/// How long to wait after the store did not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// The most lines in the log about what one round has not sent.
const LINES: usize = 20;

/// Sends until `stopped` says so, and brings what is in hand to its end.
pub async fn send(
    store: Sqlite,
    fetch: Out,
    outgoing: Outgoing,
    metrics: Metrics,
    written: Arc<Notify>,
    mut stopped: watch::Receiver<bool>,
) {
    while !*stopped.borrow() {
        // Registered before looking, so that what comes in between is not missed.
        let written = written.notified();
        let wait = match round(&store, &fetch, &outgoing, now).await {
            Ok(Round { sent, next }) => {
                report(outgoing.channel(), &sent, &metrics);
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

fn report(channel: &str, sent: &Sent, metrics: &Metrics) {
    for (state, count) in sent.states() {
        metrics.count_outgoing(channel, state, count as u64);
        debug!(channel, state, count, "outbox");
    }
    for unsent in sent.unsent.iter().take(LINES) {
        let Unsent { id, event: (source, event), rule, state, error } = unsent;
        let what =
            if state == "uncertain" { "nobody knows whether it was sent" } else { "not sent" };
        warn!(channel, id, rule, source, event, state, error, "{what}");
    }
    if sent.unsent.len() > LINES {
        let more = sent.unsent.len() - LINES;
        warn!(channel, more, "like these; `hookmill email list` shows which");
    }
    for problem in &sent.problems {
        warn!(channel, "{problem}");
    }
}

/// Asks for objects that are to be asked for, until `stopped` says so.
pub async fn refetch(
    store: Sqlite,
    fetch: HttpClient,
    config: Consumers,
    apis: Apis,
    written: Arc<Notify>,
    mut stopped: watch::Receiver<bool>,
) {
    while !*stopped.borrow() {
        let written = written.notified();
        let wait = match refetch::round(&store, &fetch, &config, &apis, now).await {
            Ok(Asked { applied, problems, next }) => {
                if applied > 0 {
                    debug!(applied, "objects were asked for and applied");
                }
                for problem in problems {
                    warn!("{problem}");
                }
                next.map_or(LOOK, |next| next - now()).min(LOOK)
            }
            Err(error) => {
                error!(%error, "cannot look which objects are to be asked for");
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

/// How often somebody looks whether something is the matter.
const GLANCE: Duration = Duration::from_secs(60);

/// Tells whoever wants to know if something is the matter, until `stopped` says so.
pub async fn watch_over(
    store: Sqlite,
    fetch: Out,
    alarm: Alarm,
    written: Arc<Notify>,
    mut stopped: watch::Receiver<bool>,
) {
    while !*stopped.borrow() {
        match look(&store, &fetch, &alarm, now()).await {
            Ok(Looked { told, problems }) => {
                for text in &told {
                    warn!("alert: {text}");
                }
                for problem in problems {
                    warn!("{problem}; it is sent again in a minute");
                }
                if !told.is_empty() {
                    written.notify_waiters();
                }
            }
            Err(error) => error!(%error, "cannot look whether something is the matter"),
        }
        tokio::select! {
            () = tokio::time::sleep(GLANCE) => {}
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
    }
}

/// Has everything shown instead of sent that is not in the outbox: what `dev` does.
pub fn shown_only(mut config: Consumers) -> Consumers {
    // What is asked of an API changes nothing there; in development its key need not be set.
    config.apis.retain(|_, api| from_environment(&api.key).is_some());
    if let Some(webhook) = config.alerts.as_mut().and_then(|alerts| alerts.webhook.as_mut()) {
        webhook.url = AlertUrl::Literal(format!("{SCHEME}alert"));
    }
    config
}

/// What becomes of requests to providers.
#[derive(Clone)]
pub enum Out {
    /// They go out.
    Sent(HttpClient),
    /// They are shown, and the HTML parts of emails are kept in this folder.
    Shown { folder: PathBuf },
}

impl Fetch for Out {
    async fn ask(&self, request: ApiRequest, key: &Secret) -> Result<ApiResponse, FetchError> {
        match self {
            Self::Sent(client) => client.ask(request, key).await,
            Self::Shown { folder } => show(folder, &request),
        }
    }
}
