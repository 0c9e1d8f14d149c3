//! The destination of requests to providers: the network, or in development the screen.

use std::path::PathBuf;

use hookmill_config::{AlertUrl, Consumers};
use hookmill_core::fetch::{Fetch, FetchError};
use hookmill_core::outbound::{ApiRequest, ApiResponse};
use hookmill_core::secret::Secret;
use hookmill_native::HttpClient;

use crate::run::display::{SCHEME, show};
use crate::run::secrets::from_environment;

/// For `dev`: changes the configuration so that requests besides the outbox are displayed too.
pub fn display_only(mut config: Consumers) -> Consumers {
    // A refetch only reads, so it is sent; in development its key need not be set.
    config.apis.retain(|_, api| from_environment(&api.key).is_some());
    if let Some(webhook) = config.alerts.as_mut().and_then(|alerts| alerts.webhook.as_mut()) {
        webhook.url = AlertUrl::Literal(format!("{SCHEME}alert"));
    }
    config
}

/// The destination of requests.
#[derive(Clone)]
pub enum Out {
    /// The network.
    Network(HttpClient),
    /// The screen; the HTML parts of emails go to this folder.
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
