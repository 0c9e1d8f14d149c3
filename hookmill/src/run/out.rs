//! Where requests to providers go: out, or, in development, onto the screen.

use std::path::PathBuf;

use hookmill_core::config::{AlertUrl, Consumers};
use hookmill_core::fetch::{Fetch, FetchError};
use hookmill_core::outbound::{ApiRequest, ApiResponse};
use hookmill_core::secret::Secret;
use hookmill_native::HttpClient;

use crate::run::display::{SCHEME, show};
use crate::run::secrets::from_environment;

/// Has everything shown instead of sent that is not in the outbox: what `dev` does.
pub fn display_only(mut config: Consumers) -> Consumers {
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
    Network(HttpClient),
    /// They are shown, and the HTML parts of emails are kept in this folder.
    Display { folder: PathBuf },
}

impl Fetch for Out {
    async fn ask(&self, request: ApiRequest, key: &Secret) -> Result<ApiResponse, FetchError> {
        match self {
            Self::Network(client) => client.ask(request, key).await,
            Self::Display { folder } => show(folder, &request),
        }
    }
}
