//! SMTP, with lettre. This module sends the commands one by one, so that an error tells whether the server can have the
//! email: before the message is sent it cannot, and afterwards only its reply tells.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hookmill_core::email::Mailbox;
use hookmill_core::fetch::FetchError;
use hookmill_core::outbound::{ApiRequest, ApiResponse, Authorization};
use hookmill_core::secret::{ExposeSecret as _, Secret};
use hookmill_providers::email::smtp::{Message, Reply, Step};
use lettre::address::Address;
use lettre::message::{Mailbox as LettreMailbox, MultiPart, SinglePart};
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use lettre::transport::smtp::response::Response;
use reqwest::Url;
use tokio::time::timeout;

/// The time limit for everything before the message. Together with [`ANSWERING`] it is far below the lease of a batch.
const LEADING: Duration = Duration::from_secs(30);
/// The time limit for opening a connection.
const CONNECTING: Duration = Duration::from_secs(5);
/// The time limit for the reply to the message, which some servers scan first.
const ANSWERING: Duration = Duration::from_secs(30);
/// The time limit for QUIT. The server has replied to the message before it.
const LEAVING: Duration = Duration::from_secs(1);

/// Sends the email of a request to the server of its URL.
pub(crate) async fn send(request: &ApiRequest, key: &Secret) -> Result<ApiResponse, FetchError> {
    let user = match &request.authorization {
        Authorization::Password(user) => Some(user.as_str()),
        Authorization::Bearer
        | Authorization::User
        | Authorization::Header(_)
        | Authorization::None => None,
    };
    let login = user.map(|user| Login::new(user, key));
    let hide =
        |text: String| login.as_ref().map_or_else(|| text.clone(), |login| login.hide(&text));
    let not_sent = |error: String| FetchError::NotSent(hide(error));
    let response = |status: u16, step: Step, text: String, left_out: Vec<String>| {
        let left_out = left_out.into_iter().map(hide).collect();
        response(status, &Reply { step, text: hide(text), left_out })
    };
    let message: Message =
        serde_json::from_str(&request.body).map_err(|error| not_sent(error.to_string()))?;
    let server = Server::new(&request.url).map_err(not_sent)?;
    let letter = match Letter::new(&message) {
        Ok(letter) => letter,
        Err(problem) => return Ok(response(UNDELIVERABLE, Step::Message, problem, Vec::new())),
    };
    let credentials = login.as_ref().map(|login| &login.credentials);
    let lead = lead(&server, credentials, &letter);
    let Ok(ready) = timeout(LEADING, lead).await else {
        return Err(not_sent("the server took too long".to_owned()));
    };
    let (mut connection, left_out) = match ready {
        Ok(ready) => ready,
        Err(Failure { step, error }) => {
            return match error.code() {
                Some(status) => Ok(response(status, step, error.words(), Vec::new())),
                None => Err(not_sent(error.words())),
            };
        }
    };
    // From here on, a broken connection leaves delivery uncertain.
    let Ok(answered) = timeout(ANSWERING, connection.message(&letter.bytes)).await else {
        return Err(FetchError::NoAnswer("no reply to the message".to_owned()));
    };
    let answer = match answered {
        Ok(reply) => response(number(&reply), Step::Message, text(&reply), left_out),
        Err(error) => {
            let error = Error::Smtp(error);
            match error.code() {
                Some(status) => response(status, Step::Message, error.words(), left_out),
                None => return Err(FetchError::NoAnswer(hide(error.words()))),
            }
        }
    };
    let _ = timeout(LEAVING, connection.quit()).await;
    Ok(answer)
}

/// Credentials, and their encodings, which must not be quoted: some servers repeat what they reject.
struct Login {
    credentials: Credentials,
    hidden: [String; 3],
}

impl Login {
    fn new(user: &str, password: &Secret) -> Self {
        let password = password.expose_secret().trim().to_owned();
        // The encodings of AUTH PLAIN and AUTH LOGIN.
        let plain = STANDARD.encode(format!("\0{user}\0{password}"));
        let hidden = [plain, STANDARD.encode(&password), password.clone()];
        Self { credentials: Credentials::new(user.to_owned(), password), hidden }
    }

    fn hide(&self, text: &str) -> String {
        let hide = |text: String, secret: &String| text.replace(secret, "[key]");
        self.hidden.iter().fold(text.to_owned(), hide)
    }
}

/// Hookmill's code for an email that no server could accept: "mailbox name not allowed". Source:
/// <https://www.rfc-editor.org/rfc/rfc5321#section-4.2.3>.
const UNDELIVERABLE: u16 = 553;

/// The server in the URL of a request.
struct Server {
    host: String,
    port: u16,
    encryption: Encryption,
}

/// How a connection is encrypted.
#[derive(PartialEq, Eq)]
enum Encryption {
    /// From the start.
    Implicit,
    /// After STARTTLS, which is required.
    StartTls,
    /// Not at all.
    None,
}

impl Server {
    fn new(url: &str) -> Result<Self, String> {
        let parsed = Url::parse(url).map_err(|error| format!("{url}: {error}"))?;
        let encryption = match parsed.scheme() {
            "smtps" => Encryption::Implicit,
            "smtp+starttls" => Encryption::StartTls,
            "smtp" => Encryption::None,
            _ => return Err(format!("{url} is not the URL of an SMTP server")),
        };
        match (parsed.host_str(), parsed.port()) {
            (Some(host), Some(port)) => Ok(Self { host: host.to_owned(), port, encryption }),
            _ => Err(format!("{url} has no server or no port")),
        }
    }
}

/// An email for SMTP: an envelope and bytes.
struct Letter {
    from: Address,
    to: Vec<Address>,
    bytes: Vec<u8>,
}

impl Letter {
    /// The email, or the reason why it cannot be sent.
    fn new(message: &Message) -> Result<Self, String> {
        let Message { id, boundary, from, to, cc, reply_to, subject, html, text } = message;
        let from = mailbox(from)?;
        let mut builder = lettre::Message::builder()
            .message_id(Some(id.clone()))
            .from(from.clone())
            .subject(subject);
        let mut envelope = Vec::new();
        for recipient in to {
            let recipient = mailbox(recipient)?;
            envelope.push(recipient.email.clone());
            builder = builder.to(recipient);
        }
        for recipient in cc {
            let recipient = mailbox(recipient)?;
            envelope.push(recipient.email.clone());
            builder = builder.cc(recipient);
        }
        if let Some(reply_to) = reply_to {
            builder = builder.reply_to(mailbox(reply_to)?);
        }
        let parts = MultiPart::alternative()
            .boundary(boundary)
            .singlepart(SinglePart::plain(text.clone()))
            .singlepart(SinglePart::html(html.clone()));
        let built = builder.multipart(parts).map_err(|error| error.to_string())?;
        Ok(Self { from: from.email, to: envelope, bytes: built.formatted() })
    }
}

fn mailbox(mailbox: &Mailbox) -> Result<LettreMailbox, String> {
    let address = mailbox.address.parse::<Address>();
    let address = address.map_err(|error| format!("{}: {error}", mailbox.address))?;
    Ok(LettreMailbox::new(mailbox.name.clone(), address))
}

/// An error before the message, and its step.
struct Failure {
    step: Step,
    error: Error,
}

/// The error.
enum Error {
    Smtp(lettre::transport::smtp::Error),
    /// The server has rejected a recipient, with this code.
    Recipient(u16, String),
    /// No server could accept it.
    Undeliverable(String),
}

/// Sends the commands up to DATA, after which the server waits for the message. Returns the recipients that the server has
/// rejected; an error if it has rejected all.
async fn lead(
    server: &Server,
    credentials: Option<&Credentials>,
    letter: &Letter,
) -> Result<(AsyncSmtpConnection, Vec<String>), Failure> {
    let at = |step: Step| move |error| Failure { step, error: Error::Smtp(error) };
    let login = at(Step::Login);
    // Some servers reject a client that does not greet with a name.
    let hello = ClientId::Domain(letter.from.domain().to_owned());
    let tls = match server.encryption {
        Encryption::None => None,
        Encryption::Implicit | Encryption::StartTls => {
            Some(TlsParameters::new_rustls(server.host.clone()).map_err(login)?)
        }
    };
    let at_once = tls.clone().filter(|_| server.encryption == Encryption::Implicit);
    let address = (server.host.as_str(), server.port);
    let mut connection =
        AsyncSmtpConnection::connect_tokio1(address, Some(CONNECTING), &hello, at_once, None)
            .await
            .map_err(login)?;
    if let Some(tls) = tls.filter(|_| server.encryption == Encryption::StartTls) {
        connection.starttls(tls, &hello).await.map_err(login)?;
    }
    if let Some(credentials) = credentials {
        connection.auth(DEFAULT_MECHANISMS, credentials).await.map_err(login)?;
    }

    let knows = |connection: &AsyncSmtpConnection, extension| {
        connection.server_info().supports_feature(extension)
    };
    let mut parameters = Vec::new();
    let ascii = |address: &Address| AsRef::<str>::as_ref(address).is_ascii();
    if !ascii(&letter.from) || !letter.to.iter().all(ascii) {
        if !knows(&connection, Extension::SmtpUtfEight) {
            let words = "an address is not ASCII, and the server does not support SMTPUTF8";
            let error = Error::Undeliverable(words.to_owned());
            return Err(Failure { step: Step::Sender, error });
        }
        parameters.push(MailParameter::SmtpUtfEight);
    }
    if !letter.bytes.is_ascii() && knows(&connection, Extension::EightBitMime) {
        parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
    }
    let mail = Mail::new(Some(letter.from.clone()), parameters);
    connection.command(mail).await.map_err(at(Step::Sender))?;

    let mut left_out = Vec::new();
    let mut refusal = None;
    for address in &letter.to {
        if let Err(error) = connection.command(Rcpt::new(address.clone(), Vec::new())).await {
            let error = Error::Smtp(error);
            let Some(status) = error.code() else {
                return Err(Failure { step: Step::Recipient, error });
            };
            let words = format!("{address}: {status} {}", error.words());
            let error = Error::Recipient(status, words.clone());
            // A deferred recipient defers the email for all, so that no recipient gets it twice.
            if status < 500 {
                return Err(Failure { step: Step::Recipient, error });
            }
            left_out.push(words);
            refusal = Some(error);
        }
    }
    if let Some(error) = refusal.filter(|_| left_out.len() == letter.to.len()) {
        return Err(Failure { step: Step::Recipient, error });
    }
    connection.command(Data).await.map_err(at(Step::Message))?;
    Ok((connection, left_out))
}

impl Error {
    /// The server's code, if it has replied.
    fn code(&self) -> Option<u16> {
        match self {
            Self::Smtp(error) => error.status().map(u16::from),
            Self::Recipient(code, _) => Some(*code),
            Self::Undeliverable(_) => Some(UNDELIVERABLE),
        }
    }

    /// The server's words, or the error with its causes.
    fn words(&self) -> String {
        let error = match self {
            Self::Smtp(error) => error,
            Self::Recipient(_, words) | Self::Undeliverable(words) => return words.clone(),
        };
        let mut source = std::error::Error::source(error);
        if let (Some(_), Some(words)) = (error.status(), source) {
            return words.to_string();
        }
        let mut text = error.to_string();
        while let Some(cause) = source {
            let words = cause.to_string();
            if !text.contains(&words) {
                text += &format!(": {words}");
            }
            source = cause.source();
        }
        text
    }
}

fn number(reply: &Response) -> u16 {
    u16::from(reply.code())
}

fn text(reply: &Response) -> String {
    reply.message().collect::<Vec<_>>().join(" ")
}

fn response(status: u16, reply: &Reply) -> ApiResponse {
    let body = serde_json::to_string(reply);
    ApiResponse {
        status,
        retry_after: None,
        message_id: None,
        date: None,
        body: body.expect("texts serialize"),
    }
}
