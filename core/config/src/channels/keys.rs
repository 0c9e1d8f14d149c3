//! The keys of `[email]`, `[sms]`, `[tracking]` and `[templates]`. A Worker carries the types of the module above instead.

use std::time::Duration;

use hookmill_core::email::{self, Mailbox};
use hookmill_core::outbound::{Provider, Purpose, Transport};
use hookmill_core::secret::SecretName;
use hookmill_keys::kind::{choice, duration, secret, table, text, whole};
use hookmill_keys::{
    DefaultDoc, Item, KeyDoc, Kind, Located, Section, Table, flatten, flatten_as, keys, seconds,
    several,
};
use hookmill_rules::decl::mailbox;
use url::{Host, Url};

use super::{Api, Emails, OnUncertain, Quota, SMTP_SCHEMES, Sending, Sms};

keys! {
    /// The keys of all channels.
    pub struct DeliveryKeys {
        /// What to do with messages whose delivery is uncertain: `hold` them for an operator, or `retry`.
        on_uncertain: OnUncertain = choice(OnUncertain::ALL.to_vec()).default("\"hold\""),
        quota: Option<Quota> =
            table("a table: { month = 3000, warn_at = 0.8 }").optional().example("{ month = 3000 }"),
    }
}

keys! {
    /// How emails are sent.
    pub struct EmailKeys {
        /// The provider.
        provider: Located<Provider> =
            choice(Provider::of(Purpose::Email)).located().required("add the provider: provider = \"resend\"")
                .example("\"resend\""),
        /// The provider to use while the first is unavailable.
        fallback: Option<Located<Provider>> =
            choice(Provider::of(Purpose::Email)).located().optional().example("\"sendgrid\""),
        /// The number of consecutive requests without a response, or with 5xx, after which Hookmill uses the `fallback`, which it needs.
        failover_after: u32 = whole(1..=1000).default("3"),
        /// The sender.
        from: Option<Mailbox> =
            mailbox().expected("add the sender: from = \"Acme <hello@example.com>\"")
                .example("\"Acme <hello@example.com>\""),
        /// The address for replies, unless a rule has one.
        reply_to: Option<Mailbox> =
            mailbox().optional().defaults_to("the sender")
                .example("\"Support <support@example.com>\""),
        /// How long to wait for a full batch.
        wait: Duration = duration(Duration::ZERO..=seconds(3600)).default("\"5s\""),
        /// The maximum emails of rules to one address per hour. Further emails are `suppressed`.
        per_hour: u32 = whole(1..=100_000).default("100"),
        delivery: DeliveryKeys = flatten(),
        apis: Vec<(Provider, Option<Api>)> = several(email_apis, email_api_docs),
    }
    present |section| {
        if let (Some(here), None) = (section.at("failover_after"), section.at("fallback")) {
            let problem = here.error("`failover_after` needs a `fallback`");
            section.report(problem.hint("add the fallback provider: fallback = \"sendgrid\""));
        }
    };
    check |keys, section| {
        if let Some(fallback) = keys.fallback.as_ref().filter(|other| other.value == keys.provider.value) {
            let problem = fallback.error("`fallback` is the same as `provider`");
            section.report(problem.hint("use another provider, or remove `fallback`"));
        }
        for named in keys.named() {
            let name = named.value.as_str();
            if named.value.facts().transport == Transport::Smtp && section.at(name).is_none() {
                let problem = named.error(format!("`[email.{name}]` is missing"));
                section.report(problem.hint(
                    "add the server: smtp = { host = \"email-smtp.us-east-1.amazonaws.com\", user = \"AKIA…\" }",
                ));
            }
        }
    };
    schema { "dependentRequired": { "failover_after": ["fallback"] } };
}

impl EmailKeys {
    /// The provider, and the fallback.
    fn named(&self) -> impl Iterator<Item = &Located<Provider>> {
        [Some(&self.provider), self.fallback.as_ref()].into_iter().flatten()
    }

    /// The names of both.
    pub fn providers(&self) -> Vec<Provider> {
        self.named().map(|named| named.value).collect()
    }

    /// Where the file names a provider that only the native binary can reach, if it does.
    pub fn native_only(&self) -> Option<Located<Provider>> {
        self.named().find(|named| named.value.is_native_only()).cloned()
    }

    /// How emails are sent.
    pub fn emails(&self) -> Emails {
        // After the error, a blank sender stands in, so that the rules can be checked.
        let unknown = || Mailbox { name: None, address: String::new() };
        let api = |named: &Located<Provider>| {
            let found = self.apis.iter().find(|(provider, _)| *provider == named.value);
            found.and_then(|(_, api)| api.clone())
        };
        let sending = Sending {
            apis: self.named().filter_map(api).collect(),
            failover_after: self.failover_after,
            wait: self.wait,
            on_uncertain: self.delivery.on_uncertain,
            quota: self.delivery.quota.clone(),
        };
        Emails {
            sending,
            from: self.from.clone().unwrap_or_else(unknown),
            reply_to: self.reply_to.clone(),
            per_hour: self.per_hour,
        }
    }
}

keys! {
    /// The API of a provider.
    pub struct ApiKeys {
        /// The name of the secret with the API key.
        pub(crate) key: Option<String> = secret("env:API_KEY").optional(),
        /// The maximum requests per second.
        pub(crate) rate: Option<u32> = whole(1..=10_000).optional(),
        /// The base URL.
        pub(crate) url: Option<String> = api_url().optional(),
    }
}

impl ApiKeys {
    /// The provider's API with these settings.
    pub(crate) fn api(self, provider: Provider) -> Api {
        let url = match provider.facts().transport {
            Transport::Https { url } => url,
            Transport::Smtp => "",
        };
        Api {
            provider,
            key: SecretName(self.key.unwrap_or_else(|| default_key(provider))),
            url: self.url.unwrap_or_else(|| url.to_owned()),
            rate: self.rate.unwrap_or(provider.facts().rate),
            user: None,
        }
    }
}

/// Keys of a provider's table, with the provider's own defaults.
pub(crate) fn with_defaults(provider: Provider, mut keys: Vec<KeyDoc>) -> Vec<KeyDoc> {
    let facts = provider.facts();
    for key in &mut keys {
        let default = match (key.name, facts.transport) {
            ("key" | "password", _) => format!("\"env:{}\"", default_key(provider)),
            ("rate", _) => facts.rate.to_string(),
            ("url", Transport::Https { url }) => format!("{url:?}"),
            _ => continue,
        };
        key.default = Some(DefaultDoc::Value(default));
    }
    keys
}

keys! {
    /// An SMTP server, such as that of Amazon SES. Only the native binary can use it.
    pub struct SmtpKeys {
        /// The host name of the server.
        host: String =
            host_name().required("add the server: host = \"email-smtp.us-east-1.amazonaws.com\"")
                .example("\"email-smtp.us-east-1.amazonaws.com\""),
        /// The encryption of the connection. `starttls`: before anything else is sent; `implicit`: from the start; `none`: only with
        /// `host = "localhost"`.
        tls: (&'static str, u16) = choice(SMTP_SCHEMES.to_vec()).default("\"starttls\""),
        /// The port.
        port: Option<u16> =
            whole(1..=u16::MAX).optional()
                .defaults_to("587 with `starttls`, 465 with `implicit`, 25 with `none`")
                .example("2587"),
        /// The user name. Without it, Hookmill does not log in.
        user: Option<String> = text("a user name").optional().example("\"AKIAIOSFODNN7EXAMPLE\""),
        /// The name of the secret with the user's password. It needs a `user`.
        password: Option<String> = secret("env:SMTP_PASSWORD").optional(),
        /// The maximum emails per second.
        rate: Option<u32> = whole(1..=10_000).optional(),
    }
    present |section| {
        if let (Some(password), None) = (section.at("password"), section.at("user")) {
            let problem = password.error("`password` needs a `user`");
            section.report(problem.hint("add the user: user = \"AKIA…\""));
        }
    };
    check |keys, section| {
        if let Some(tls) = section.at("tls")
            && keys.tls.0 == "smtp"
            && !["localhost", "127.0.0.1"].contains(&keys.host.as_str())
        {
            let problem = tls.error("tls = \"none\" would send emails and the password unencrypted");
            section.report(problem.hint("use tls = \"starttls\" or \"implicit\"; \"none\" is only for a local server, host = \"localhost\""));
        }
    };
}

impl SmtpKeys {
    fn api(self, provider: Provider) -> Api {
        let (scheme, usual_port) = self.tls;
        let (host, port) = (self.host, self.port.unwrap_or(usual_port));
        let api = ApiKeys {
            key: self.password,
            rate: self.rate,
            url: Some(format!("{scheme}://{host}:{port}")),
        };
        Api { user: self.user, ..api.api(provider) }
    }
}

/// A table for each email provider. One that is missing has the provider's defaults, unless the provider needs it.
fn email_apis(section: &Section<'_>) -> Vec<(Provider, Option<Api>)> {
    let read = |(name, provider): (&'static str, Provider)| {
        let item = section.get(name);
        let api = match (provider.facts().transport, item) {
            (Transport::Smtp, item) => {
                item.and_then(|item| Some(table::<SmtpKeys>("a table").read(&item)?.api(provider)))
            }
            (Transport::Https { .. }, item) => {
                let keys = match item {
                    Some(item) => table::<ApiKeys>("a table").read(&item),
                    None => Some(ApiKeys { key: None, rate: None, url: None }),
                };
                keys.map(|keys| keys.api(provider))
            }
        };
        (provider, api)
    };
    Provider::of(Purpose::Email).into_iter().map(read).collect()
}

fn email_api_docs() -> Vec<KeyDoc> {
    let docs = |(name, provider): (&'static str, Provider)| {
        let title = provider.facts().title;
        match provider.facts().transport {
            Transport::Https { .. } => KeyDoc::table(
                name,
                format!("The API of {title}."),
                &with_defaults(provider, ApiKeys::keys()),
                ApiKeys::constraints(),
            ),
            Transport::Smtp => {
                let keys = with_defaults(provider, SmtpKeys::keys());
                KeyDoc::table(name, SmtpKeys::DOC.trim().to_owned(), &keys, SmtpKeys::constraints())
            }
        }
    };
    Provider::of(Purpose::Email).into_iter().map(docs).collect()
}

keys! {
    /// How SMS are sent: through Twilio.
    pub struct SmsKeys {
        /// Twilio's Account SID: `AC` and 32 hexadecimal digits.
        account: String =
            text("an Account SID, \"AC…\"").and_then(|item, text| {
                if !is_sid("AC", &text) {
                    item.unexpected(format!("{text:?}"), "Twilio's Account SID: AC and 32 hexadecimal digits");
                }
                Some(text)
            })
            .required("add your Twilio Account SID: account = \"AC…\"")
            .example("\"AC00000000000000000000000000000000\""),
        /// The sender: a phone number with country code, a messaging service (`MG…`), a short code, or a name.
        from: String =
            sms_sender().required("add the sender: from = \"+15550100001\", or \"MG…\"").example("\"+15550100001\""),
        /// The URL for Twilio's delivery reports: a source with the scheme and the preset `twilio`.
        status_callback: Option<String> =
            text("a URL such as \"https://hooks.example.com/webhooks/twilio\"").optional()
                .example("\"https://hooks.example.com/webhooks/twilio\""),
        /// The maximum messages to one number per hour. Further messages are `suppressed`.
        per_hour: u32 = whole(1..=100_000).default("5"),
        delivery: DeliveryKeys = flatten(),
        api: ApiKeys = flatten_as(|| with_defaults(Provider::Twilio, ApiKeys::keys())),
    }
}

impl SmsKeys {
    /// How SMS are sent.
    pub fn sms(self) -> Sms {
        let sending = Sending {
            apis: vec![self.api.api(Provider::Twilio)],
            failover_after: 0,
            // One message goes out in one request, so there is nothing to wait for.
            wait: Duration::ZERO,
            on_uncertain: self.delivery.on_uncertain,
            quota: self.delivery.quota,
        };
        Sms {
            sending,
            account: self.account,
            from: self.from,
            status_callback: self.status_callback,
            per_hour: self.per_hour,
        }
    }
}

keys! {
    /// A provider of tracking events.
    pub struct TrackerKeys {
        api: ApiKeys = flatten(),
        /// How long to wait for a full batch.
        wait: Duration = duration(Duration::ZERO..=seconds(3600)).default("\"5s\""),
        delivery: DeliveryKeys = flatten(),
    }
}

/// The providers of tracking events, a table for each.
pub struct TrackingKeys {
    /// By provider: how Hookmill sends to it.
    pub tracking: Vec<(Provider, Sending)>,
}

impl TrackingKeys {
    /// The providers that a file has a table for.
    pub(crate) fn named(root: &Section<'_>) -> Vec<Provider> {
        let section = root.get("tracking").filter(Item::is_table).and_then(|item| item.section(""));
        let named = |(name, provider): (&'static str, Provider)| {
            section.as_ref()?.at(name).map(|_| provider)
        };
        Provider::of(Purpose::Tracking).into_iter().filter_map(named).collect()
    }
}

impl Table for TrackingKeys {
    const DOC: &'static str = "The providers of tracking events.";

    fn read(section: &Section<'_>) -> Option<Self> {
        let tracker = |(name, provider): (&'static str, Provider)| {
            let keys = table::<TrackerKeys>("a table").read(&section.get(name)?)?;
            let sending = Sending {
                apis: vec![keys.api.api(provider)],
                failover_after: 0,
                wait: keys.wait,
                on_uncertain: keys.delivery.on_uncertain,
                quota: keys.delivery.quota,
            };
            Some((provider, sending))
        };
        let tracking = Provider::of(Purpose::Tracking).into_iter().filter_map(tracker).collect();
        Some(Self { tracking })
    }

    fn keys() -> Vec<KeyDoc> {
        let docs = |(name, provider): (&'static str, Provider)| {
            let keys = with_defaults(provider, TrackerKeys::keys());
            KeyDoc::table(
                name,
                format!("{}.", provider.facts().title),
                &keys,
                TrackerKeys::constraints(),
            )
        };
        Provider::of(Purpose::Tracking).into_iter().map(docs).collect()
    }
}

keys! {
    /// An email template, in Jinja.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct TemplateFiles {
        /// The subject line, a template.
        pub subject: Option<Located<String>> =
            text("a subject line").located().expected("add the subject line: subject = \"Welcome, {{ name }}\"")
                .example("\"Welcome, {{ name }}\""),
        /// The file with the HTML part, relative to hookmill.toml.
        pub html: Option<Located<String>> =
            text("a file").located().expected("add the HTML file: html = \"templates/welcome.html\"")
                .example("\"templates/welcome.html\""),
        /// The file with the text part, relative to hookmill.toml.
        pub text: Option<Located<String>> =
            text("a file").located().optional().defaults_to("derived from the HTML")
                .example("\"templates/welcome.txt\""),
    }
}

/// The environment variable with the key of an API, unless hookmill.toml names another.
pub(crate) fn default_key(provider: Provider) -> String {
    let facts = provider.facts();
    let what = match (facts.transport, facts.purpose) {
        (Transport::Smtp, _) => "PASSWORD",
        // Twilio's own name for it.
        (Transport::Https { .. }, Purpose::Sms) => "AUTH_TOKEN",
        (Transport::Https { .. }, Purpose::Email | Purpose::Tracking | Purpose::Objects) => {
            "API_KEY"
        }
    };
    format!("{}_{what}", facts.name.to_uppercase())
}

/// Whether a connection to this URL is encrypted, or stays on this machine.
pub(crate) fn is_private(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let on_this_machine = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => return false,
    };
    url.scheme() == "https" || (url.scheme() == "http" && on_this_machine)
}

/// Whether a text is an identifier of Twilio's: two letters and 32 hexadecimal digits.
fn is_sid(prefix: &str, text: &str) -> bool {
    let digits = text.strip_prefix(prefix).unwrap_or_default();
    digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A sender of SMS: <https://www.twilio.com/docs/messaging/api/message-resource#create-a-message-resource>.
fn sms_sender() -> Kind<String> {
    text("a phone number or a messaging service").and_then(|item, text| {
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        let short_code = digits && (3..=8).contains(&text.len());
        let named = |c: char| c.is_ascii_alphanumeric() || " &+-_".contains(c);
        let has_letter = text.contains(|c: char| c.is_ascii_alphabetic());
        let name = text.len() <= 11 && has_letter && text.chars().all(named);
        let number = text.starts_with('+') && email::number(&text).is_some();
        if !number && !short_code && !name && !is_sid("MG", &text) {
            item.unexpected(
                format!("{text:?}"),
                "a phone number with country code (+15550100001), a messaging service (MG and 32 hexadecimal digits), a short code, or a sender name of at most 11 letters and digits",
            );
        }
        Some(text)
    })
}

/// A host name.
fn host_name() -> Kind<String> {
    text("a host name").and_then(|item, host| {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
        let fits = !host.is_empty() && host.chars().all(plain);
        if !fits {
            item.unexpected(
                format!("{host:?}"),
                "a host name such as \"mail.example.com\"; `port` and `tls` are separate keys",
            );
        }
        fits.then_some(host)
    })
}

/// The URL of an API, to which each request carries the key.
pub(crate) fn api_url() -> Kind<String> {
    text("a URL such as \"https://api.eu.sendgrid.com\"").and_then(|item, url| {
        if url.contains('@') {
            // It may contain a secret, so no message quotes it.
            let problem = item.here.error("the URL contains a user name or password");
            item.report(problem.hint("remove it and name the API key's secret in `key`"));
            return None;
        }
        if !is_private(&url) {
            item.unexpected(format!("{url:?}"), "https://, because each request carries the key");
            return None;
        }
        Some(url.trim_end_matches('/').to_owned())
    })
}
