//! `[email]`, `[sms]`, `[tracking]` and `[templates]`, and what a rule sends.

use std::collections::BTreeMap;
use std::time::Duration;

use super::parse::{
    ConditionDecl, EffectDecl, EmailDecl, NamedValues, SendDecl, SmsDecl, TemplateFiles, TrackDecl,
    ValueDecl, duration, integer, is_private, secret_name, value,
};
use super::toml_reader::{ConfigError, Item, Located, Section};
use super::{
    AlertUrl, AlertWebhook, Alerts, Api, Emails, OnUncertain, Quota, SMTP_SCHEMES, Sending, Sms,
};
use crate::email::Mailbox;
use crate::limits::COUNTED;
use crate::outbound::{Outcome, Provider, Purpose, Transport};
use crate::secret::SecretName;

pub(super) const ON_UNCERTAIN: [(&str, OnUncertain); 2] =
    [("hold", OnUncertain::Hold), ("retry", OnUncertain::Retry)];

/// Reads `[email]`. What is missing in it is reported, and something stands in for it. `native_only`: where a provider is named
/// that a Worker cannot reach.
pub(super) fn emails(
    root: &Section<'_>,
    native_only: &mut Option<Located<Provider>>,
) -> Option<Emails> {
    let section = root.get("email")?.section("a table")?;
    let providers = Provider::of(Purpose::Email);
    let provider = section.require("provider", "add the provider: provider = \"resend\"");
    let chosen = provider.and_then(|item| item.choice(&providers));
    let fallback = section.get("fallback").and_then(|item| item.choice(&providers));
    let from = section.require("from", "add the sender: from = \"Acme <hello@example.com>\"");
    let from = from.and_then(|item| mailbox(&item));
    let reply_to = section.get("reply_to").and_then(|item| mailbox(&item));
    let mut sending = sending(&section);
    let failover_after = section.get("failover_after").and_then(|item| integer(&item, 1..=1000));
    if let (Some(item), None) = (section.get("failover_after"), &fallback) {
        let problem = item.here.error("`failover_after` needs a `fallback`");
        section.report(problem.hint("add the fallback provider: fallback = \"sendgrid\""));
    }
    if let Some(count) = failover_after {
        sending.failover_after = u32::try_from(count).unwrap_or(sending.failover_after);
    }
    let settings = providers.into_iter().filter_map(|(name, provider)| {
        let item = section.get(name);
        let named = [&chosen, &fallback].into_iter().flatten().find(|p| p.value == provider);
        let table = item.as_ref().and_then(|item| item.section("a table"));
        match (provider.facts().transport, table, named) {
            (Transport::Https { .. }, table, _) => Some(api(provider, table)),
            (Transport::Smtp, Some(table), _) => Some(smtp_server(provider, table)),
            (Transport::Smtp, None, Some(named)) if item.is_none() => {
                let problem = named.error(format!("`[email.{name}]` is missing"));
                section.report(problem.hint(format!("add the server: {SMTP_EXAMPLE}")));
                None
            }
            (Transport::Smtp, None, _) => None,
        }
    });
    let settings: Vec<_> = settings.collect();
    if let (Some(provider), Some(fallback)) = (&chosen, &fallback)
        && provider.value == fallback.value
    {
        let problem = fallback.error("`fallback` is the same as `provider`");
        section.report(problem.hint("use another provider, or remove `fallback`"));
    }
    section.finish();
    let named = || [&chosen, &fallback].into_iter().flatten();
    *native_only = named().find(|named| named.value.is_native_only()).cloned();
    let apis = named().filter_map(|named| settings.iter().find(|api| api.provider == named.value));
    let apis = apis.cloned();
    let nobody = || Mailbox { name: None, address: String::new() };
    sending.apis = apis.collect();
    Some(Emails { sending, from: from.unwrap_or_else(nobody), reply_to })
}

/// What can be said of every channel; without its APIs.
fn sending(section: &Section<'_>) -> Sending {
    let wait = section.get("wait");
    let wait = wait.and_then(|item| duration(&item, Duration::ZERO..=Duration::from_secs(3600)));
    let on_uncertain = section.get("on_uncertain").and_then(|item| item.choice(&ON_UNCERTAIN));
    Sending {
        apis: Vec::new(),
        failover_after: 3,
        wait: wait.unwrap_or(Duration::from_secs(5)),
        on_uncertain: on_uncertain.map(|on_uncertain| on_uncertain.value).unwrap_or_default(),
        quota: section.get("quota").and_then(|item| quota(&item)),
    }
}

/// Reads `[sms]`.
pub(super) fn sms(root: &Section<'_>) -> Option<Sms> {
    let section = root.get("sms")?.section("a table")?;
    let account = section.require("account", "add your Twilio Account SID: account = \"AC…\"");
    let account = account.and_then(|item| item.string("an Account SID, \"AC…\""));
    if let Some(text) = &account
        && !is_sid("AC", &text.value)
    {
        let problem = text.error(format!("found {:?}", text.value));
        section.report(problem.hint("expected Twilio's Account SID: AC and 32 hexadecimal digits"));
    }
    let from = section.require("from", "add the sender: from = \"+15550100001\", or \"MG…\"");
    let from = from.and_then(|item| item.string("a phone number or a messaging service"));
    if let Some(text) = &from
        && !is_sms_sender(&text.value)
    {
        let problem = text.error(format!("found {:?}", text.value));
        section.report(problem.hint(
            "expected a phone number with country code (+15550100001), a messaging service (MG and 32 hexadecimal digits), a short code, or a sender name of at most 11 letters and digits",
        ));
    }
    let status_callback = section.get("status_callback").and_then(|item| {
        item.string("a URL such as \"https://hooks.example.com/webhooks/twilio\"")
    });
    let per_hour = section.get("per_hour").and_then(|item| integer(&item, 1..=100_000));
    let mut sending = sending(&section);
    if section.get("wait").is_none() {
        // One message goes out in one request, and somebody waits for it.
        sending.wait = Duration::ZERO;
    }
    let mut api = default_api(Provider::Twilio);
    api_settings(&mut api, &section);
    section.finish();
    sending.apis = vec![api];
    Some(Sms {
        sending,
        account: account.map(|account| account.value).unwrap_or_default(),
        from: from.map(|from| from.value).unwrap_or_default(),
        status_callback: status_callback.map(|url| url.value),
        per_hour: per_hour.and_then(|count| u32::try_from(count).ok()).unwrap_or(5),
    })
}

/// Reads `[tracking]`.
pub(super) fn tracking(root: &Section<'_>) -> Vec<(Provider, Sending)> {
    let mut tracking = Vec::new();
    let expected = "a table: [tracking.mixpanel] or [tracking.posthog]";
    let Some(section) = root.get("tracking").and_then(|item| item.section(expected)) else {
        return tracking;
    };
    for (name, provider) in Provider::of(Purpose::Tracking) {
        let Some(section) = section.get(name).and_then(|item| item.section("a table")) else {
            continue;
        };
        let mut sending = sending(&section);
        let mut api = default_api(provider);
        api_settings(&mut api, &section);
        section.finish();
        sending.apis = vec![api];
        tracking.push((provider, sending));
    }
    section.finish();
    tracking
}

/// `[email.quota]`.
fn quota(item: &Item<'_>) -> Option<Quota> {
    let section = item.section("a table: { month = 3000, warn_at = 0.8 }")?;
    let count = |key| {
        let count = section.get(key).and_then(|item| integer(&item, 1..=1_000_000_000))?;
        u64::try_from(count).ok()
    };
    let (day, month) = (count("day"), count("month"));
    let warn_at = section.get("warn_at").and_then(|item| {
        let expected = "a fraction above 0 and at most 1";
        let found = item.float(expected)?;
        let within = found.value > 0.0 && found.value <= 1.0;
        if !within {
            let problem = found.error(format!("found {}", found.value));
            item.report(problem.hint(format!("expected {expected}")));
        }
        within.then_some(found.value)
    });
    let notify = section.get("notify").and_then(|item| mailbox(&item));
    if day.is_none() && month.is_none() {
        let problem = section.here.error("the quota has neither `day` nor `month`");
        section.report(problem.hint("add at least one, such as month = 3000"));
    }
    section.finish();
    Some(Quota { day, month, warn_at: warn_at.unwrap_or(0.8), notify })
}

/// `[email.resend]`, `[sources.stripe.api]` and the like.
pub(super) fn api(provider: Provider, section: Option<Section<'_>>) -> Api {
    let mut api = default_api(provider);
    if let Some(section) = section {
        api_settings(&mut api, &section);
        section.finish();
    }
    api
}

/// How a server is named.
const SMTP_EXAMPLE: &str =
    "smtp = { host = \"email-smtp.us-east-1.amazonaws.com\", user = \"AKIA…\" }";

/// `[email.smtp]`: a server instead of a URL, and a user whose password is the key.
fn smtp_server(provider: Provider, section: Section<'_>) -> Api {
    let mut api = default_api(provider);
    let host =
        section.require("host", "add the server: host = \"email-smtp.us-east-1.amazonaws.com\"");
    let host = host.and_then(|item| item.string("a host name"));
    let host = host.filter(|host| {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
        let fits = !host.value.is_empty() && host.value.chars().all(plain);
        if !fits {
            let problem = host.error(format!("found {:?}", host.value));
            section.report(
                problem.hint("expected a host name such as \"mail.example.com\"; `port` and `tls` are separate keys"),
            );
        }
        fits
    });
    let tls = section.get("tls").and_then(|item| item.choice(&SMTP_SCHEMES));
    let [(_, usual), ..] = SMTP_SCHEMES;
    let (scheme, usual_port) = tls.as_ref().map_or(usual, |tls| tls.value);
    if let (Some(tls), Some(host)) = (&tls, &host)
        && scheme == "smtp"
        && !["localhost", "127.0.0.1"].contains(&host.value.as_str())
    {
        let problem = tls.error("tls = \"none\" would send emails and the password unencrypted");
        section.report(problem.hint("use tls = \"starttls\" or \"implicit\"; \"none\" is only for a local server, host = \"localhost\""));
    }
    let port = section.get("port").and_then(|item| integer(&item, 1..=65_535));
    let port = port.and_then(|port| u16::try_from(port).ok()).unwrap_or(usual_port);
    let host = host.map(|host| host.value).unwrap_or_default();
    api.url = format!("{scheme}://{host}:{port}");
    let user = section.get("user");
    api.user = user.as_ref().and_then(|item| Some(item.string("a user name")?.value));
    if let Some(item) = section.get("password") {
        if let Some(name) = secret_name(&item, &format!("env:{}", api.key.0)) {
            api.key = name;
        }
        if user.is_none() {
            let problem = item.here.error("`password` needs a `user`");
            section.report(problem.hint("add the user: user = \"AKIA…\""));
        }
    }
    if let Some(rate) = section.get("rate").and_then(|item| integer(&item, 1..=10_000)) {
        api.rate = u32::try_from(rate).unwrap_or(api.rate);
    }
    section.finish();
    api
}

/// The environment variable with what opens an API, unless hookmill.toml names another.
pub(super) fn default_key(provider: Provider) -> String {
    let facts = provider.facts();
    let what = match (facts.transport, facts.purpose) {
        (Transport::Smtp, _) => "PASSWORD",
        // What Twilio itself calls it.
        (Transport::Https { .. }, Purpose::Sms) => "AUTH_TOKEN",
        (Transport::Https { .. }, Purpose::Email | Purpose::Tracking | Purpose::Objects) => {
            "API_KEY"
        }
    };
    format!("{}_{what}", facts.name.to_uppercase())
}

fn default_api(provider: Provider) -> Api {
    Api {
        provider,
        key: SecretName(default_key(provider)),
        url: match provider.facts().transport {
            Transport::Https { url } => url.to_owned(),
            Transport::Smtp => String::new(),
        },
        rate: provider.facts().rate,
        user: None,
    }
}

fn api_settings(api: &mut Api, section: &Section<'_>) {
    if let Some(item) = section.get("key")
        && let Some(name) = secret_name(&item, &format!("env:{}", api.key.0))
    {
        api.key = name;
    }
    if let Some(rate) = section.get("rate").and_then(|item| integer(&item, 1..=10_000)) {
        api.rate = u32::try_from(rate).unwrap_or(api.rate);
    }
    if let Some(item) = section.get("url")
        && let Some(url) = item.string("a URL such as \"https://api.eu.sendgrid.com\"")
    {
        // What opens the API goes with each request.
        if url.value.contains('@') {
            // It may be one, so it is not quoted.
            let problem = url.error("the URL contains a user name or password");
            return item.report(problem.hint("remove it and name the API key's secret in `key`"));
        }
        if is_private(&url.value) {
            url.value.trim_end_matches('/').clone_into(&mut api.url);
        } else {
            let problem = url.error(format!("found {:?}", url.value));
            item.report(problem.hint("expected https://, because each request carries the key"));
        }
    }
}

fn mailbox(item: &Item<'_>) -> Option<Mailbox> {
    let expected = "an address, as in \"Acme <hello@example.com>\"";
    let text = item.string(expected)?;
    let mailbox = text.value.parse().ok();
    if mailbox.is_none() {
        item.report(
            text.error(format!("found {:?}", text.value)).hint(format!("expected {expected}")),
        );
    }
    mailbox
}

/// Reads `[alerts]`.
pub(super) fn alerts(root: &Section<'_>, emails: bool) -> Option<Alerts> {
    let section = root.get("alerts")?.section("a table")?;
    let (email, webhook) = (section.get("email"), section.get("webhook"));
    if let (Some(item), false) = (&email, emails) {
        let problem = item.here.error("`[email]` is not configured");
        section.report(problem.hint("add [email] with `provider` and `from`"));
    }
    if email.is_none() && webhook.is_none() {
        let problem = section.here.error("`[alerts]` has no recipient");
        section.report(problem.hint("add email = \"Ops <ops@example.com>\", or webhook = { url = \"https://…\", secret = \"env:ALERTS_SECRET\" }"));
    }
    let email = email.and_then(|item| mailbox(&item));
    let webhook = webhook.and_then(|item| alert_webhook(&item));
    let time = |key, least: u64| {
        let range = Duration::from_secs(least)..=30 * 24 * HOUR;
        section.get(key).and_then(|item| duration(&item, range))
    };
    // Dead letters wait for somebody who may not know of them, so they are told of whatever else is said.
    let oldest_dead_letter = Some(time("oldest_dead_letter", 60).unwrap_or(HOUR));
    let lag = time("lag", 1);
    let name = section.get("name").and_then(|item| Some(item.string("a name")?.value));
    let repeat = time("repeat", 600).unwrap_or(24 * HOUR);
    let dead_letters =
        section.get("dead_letters").and_then(|item| integer(&item, 1..=COUNTED.into()));
    let dead_letters = dead_letters.and_then(|count| u32::try_from(count).ok());
    section.finish();
    Some(Alerts { name, email, webhook, oldest_dead_letter, dead_letters, lag, repeat })
}

const HOUR: Duration = Duration::from_secs(3600);

fn alert_webhook(item: &Item<'_>) -> Option<AlertWebhook> {
    let section =
        item.section("a table: { url = \"https://…\", secret = \"env:ALERTS_SECRET\" }")?;
    let url = section.require("url", "add the URL: url = \"https://…\", or \"env:ALERTS_URL\"");
    let url = url.and_then(|item| alert_url(&item));
    let secret =
        section.require("secret", "add the signing secret: secret = \"env:ALERTS_SECRET\"");
    let secret = secret.and_then(|item| secret_name(&item, "env:ALERTS_SECRET"));
    section.finish();
    Some(AlertWebhook { url: url?, secret: secret? })
}

fn alert_url(item: &Item<'_>) -> Option<AlertUrl> {
    let text =
        item.string("a URL, or the name of a secret that contains it, such as \"env:ALERTS_URL\"")?;
    if text.value.starts_with("env:") {
        return secret_name(item, "env:ALERTS_URL").map(AlertUrl::Named);
    }
    if text.value.contains(['@', '?']) {
        // What is secret in it is not quoted.
        let problem = text.error("the URL contains a secret");
        item.report(
            problem.hint("put the URL into an environment variable: url = \"env:ALERTS_URL\""),
        );
        return None;
    }
    if !is_private(&text.value) {
        let problem = text.error(format!("found {:?}", text.value));
        item.report(problem.hint("expected https://"));
        return None;
    }
    Some(AlertUrl::Literal(text.value))
}

/// Reads `[templates]`.
pub(super) fn templates(root: &Section<'_>) -> BTreeMap<String, TemplateFiles> {
    let mut templates = BTreeMap::new();
    let expected = "a table of templates, such as [templates.welcome]";
    let Some(section) = root.get("templates").and_then(|item| item.section(expected)) else {
        return templates;
    };
    for (name, item) in section.members() {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if name.value.is_empty() || !name.value.chars().all(plain) {
            let problem = name.error(format!("invalid template name {:?}", name.value));
            item.report(problem.hint("a-z, 0-9, `-` and `_`"));
        }
        let Some(section) = item.section("a table") else { continue };
        let subject =
            section.require("subject", "add the subject line: subject = \"Welcome, {{ name }}\"");
        let html = section.require("html", "add the HTML file: html = \"templates/welcome.html\"");
        let text = section.get("text").and_then(|item| item.string("a file"));
        let files = TemplateFiles {
            subject: subject.and_then(|item| item.string("a subject line")),
            html: html.and_then(|item| item.string("a file")),
            text,
        };
        section.finish();
        templates.insert(name.value, files);
    }
    templates
}

/// Reads the `email` of a rule.
pub(super) fn email(item: &Item<'_>) -> Option<EffectDecl> {
    let example = "{ template = \"welcome\", to = \"data.email\" }";
    let section = item.section(&format!("an email: {example}"))?;
    let template = section
        .require("template", "add the name of a template in `[templates]`: template = \"welcome\"");
    let template = template.and_then(|item| item.string("the name of a template"));
    let to = section.require("to", "add the recipient, a path or an address: to = \"data.email\"");
    let to = to.and_then(|item| recipients(&item));
    let cc = section.get("cc").and_then(|item| recipients(&item));
    let reply_to = section.get("reply_to").and_then(|item| recipients(&item));
    if let Some(item) = section.get("bcc") {
        let problem = item.here.error("`bcc` is not supported");
        item.report(problem.hint("use another rule to send a separate email"));
    }
    let data = data(&section, "data");
    let delay = delay(&section);
    no_conditions(&section);
    section.finish();
    let email = EmailDecl { template: template?, to: to?, cc, reply_to, data, delay };
    Some(EffectDecl::Send(SendDecl::Email(email)))
}

/// Reads the `sms` of a rule.
pub(super) fn text(item: &Item<'_>) -> Option<EffectDecl> {
    let section = item.section("an SMS: { to = \"data.phone\", body = \"…\" }")?;
    let to = section.require("to", "add a path to a phone number: to = \"data.phone\"");
    let to = to.map(|item| numbers(&item));
    let body = section.require("body", "add the text: body = \"Your code is {{ code }}\"");
    let body = body.and_then(|item| item.string("a template"));
    let data = data(&section, "data");
    let delay = delay(&section);
    no_conditions(&section);
    section.finish();
    Some(EffectDecl::Send(SendDecl::Sms(SmsDecl { to: to?, body: body?, data, delay })))
}

/// Whether it is an identifier of Twilio's: two letters and 32 hexadecimal digits.
fn is_sid(prefix: &str, text: &str) -> bool {
    let digits = text.strip_prefix(prefix).unwrap_or_default();
    digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Who Twilio sends an SMS for: <https://www.twilio.com/docs/messaging/api/message-resource#create-a-message-resource>.
fn is_sms_sender(text: &str) -> bool {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let short_code = digits && (3..=8).contains(&text.len());
    let named = |c: char| c.is_ascii_alphanumeric() || " &+-_".contains(c);
    let has_letter = text.contains(|c: char| c.is_ascii_alphabetic());
    let name = text.len() <= 11 && has_letter && text.chars().all(named);
    let number = text.starts_with('+') && crate::email::number(text).is_some();
    number || short_code || name || is_sid("MG", text)
}

fn number_error(text: &Located<String>) -> ConfigError {
    let problem = text.error(format!("found {:?}", text.value));
    problem.hint("expected a phone number with country code, such as \"+15550100002\"")
}

/// A number as it is, or a path to one: what begins with `+` or a digit is no path.
fn numbers(item: &Item<'_>) -> Located<ValueDecl> {
    if item.is_string()
        && let Some(text) = item.string("a number")
        && text.value.starts_with(|c: char| c == '+' || c.is_ascii_digit())
    {
        if crate::email::number(&text.value).is_none() {
            item.report(number_error(&text));
        }
        let constant = serde_json::to_string(&text.value).unwrap_or_default();
        return item.here.clone().map(|()| ValueDecl::Constant(constant));
    }
    item.here.clone().map(|()| value(item))
}

/// Reads the `track` of a rule.
pub(super) fn track(item: &Item<'_>) -> Option<EffectDecl> {
    let example = "{ provider = \"posthog\", event = \"Subscribed\", user = \"data.user_id\" }";
    let section = item.section(&format!("a tracking event: {example}"))?;
    let provider = section.require("provider", "add the provider: provider = \"posthog\"");
    let provider = provider.and_then(|item| item.choice(&Provider::of(Purpose::Tracking)));
    let event = section.require("event", "add the name of the event: event = \"Subscribed\"");
    let event = event.and_then(|item| item.string("a name"));
    let user = section.require("user", "add the user: user = \"data.user_id\"");
    let user = user.map(|item| item.here.clone().map(|()| value(&item)));
    let properties = data(&section, "properties").value;
    let delay = delay(&section);
    no_conditions(&section);
    section.finish();
    let (provider, event) = (provider?, event?.value);
    let track = TrackDecl { provider, event, user: user?, properties, delay };
    Some(EffectDecl::Send(SendDecl::Track(track)))
}

/// Names, and where their values are from; located at whom they are for, if there are none.
fn data(section: &Section<'_>, key: &'static str) -> Located<NamedValues> {
    let expected = "names and paths of their values: { name = \"data.first_name\" }";
    let Some(item) = section.get(key) else { return section.here.clone().map(|()| Vec::new()) };
    let members = item.section(expected).map(|section| section.members()).unwrap_or_default();
    let values = members.into_iter().map(|(name, item)| {
        let found = item.here.clone().map(|()| value(&item));
        (name, found)
    });
    item.here.clone().map(|()| values.collect())
}

fn delay(section: &Section<'_>) -> Duration {
    let longest = Duration::from_secs(30 * 86_400);
    let delay = section.get("delay").and_then(|item| duration(&item, Duration::ZERO..=longest));
    delay.unwrap_or_default()
}

/// Conditions are those of a rule, whatever it does.
fn no_conditions(section: &Section<'_>) {
    if let Some(item) = section.get("when") {
        let problem = item.here.error("`when` is a key of the rule, not of its effect");
        item.report(problem.hint("move it below `on`: when = { \"data.status\" = \"active\" }"));
    }
}

/// Reads the `outcome` of a rule.
pub(super) fn outcome(item: &Item<'_>) -> Option<EffectDecl> {
    let section =
        item.section("an outcome: { email = \"data.tags.hookmill\", is = \"bounced\" }")?;
    let by_provider_id = section.get("provider_id");
    let of = if let Some(item) = &by_provider_id {
        Some(item.here.clone().map(|()| value(item)))
    } else {
        let hint = "add the path of the email's id: email = \"data.tags.hookmill\"";
        section.require("email", hint).map(|item| item.here.clone().map(|()| value(&item)))
    };
    let by_provider_id = by_provider_id.is_some();
    let outcome = section.require("is", "add the outcome: is = \"bounced\"");
    let outcome = outcome.and_then(|item| item.choice(&Outcome::ALL));
    no_conditions(&section);
    section.finish();
    Some(EffectDecl::Outcome { of: of?, by_provider_id, outcome: outcome?.value })
}

/// Reads the `suppress` of a rule.
pub(super) fn suppress(item: &Item<'_>) -> Option<EffectDecl> {
    let section = item.section("an address: { address = \"data.to\", reason = \"bounced\" }")?;
    let address = section.require("address", "add the path of the address: address = \"data.to\"");
    let address = address.map(|item| item.here.clone().map(|()| value(&item)));
    let reason = section.require("reason", "add a short reason: reason = \"bounced\"");
    let reason = reason.and_then(|item| item.string("a short reason"));
    no_conditions(&section);
    section.finish();
    Some(EffectDecl::Suppress { address: address?, reason: reason?.value })
}

/// Addresses as they are, or a path to them: what has an `@` is no path.
fn recipients(item: &Item<'_>) -> Option<Located<ValueDecl>> {
    let expected = "a path to an address, an address, or a list of either";
    let list = item.list(expected, item.is_string());
    if list.is_empty() {
        if item.is_list() {
            item.report(
                item.here
                    .error("the list of recipients is empty")
                    .hint(format!("expected {expected}")),
            );
        }
        return None;
    }
    let texts: Vec<_> = list.iter().filter_map(|item| item.string(expected)).collect();
    let addresses = texts.iter().filter(|text| text.value.contains('@')).count();
    if addresses == 0 {
        return Some(item.here.clone().map(|()| value(item)));
    }
    if addresses < list.len() {
        let problem = item.here.error("the list mixes addresses and paths; use one kind");
        item.report(problem.hint(format!("expected {expected}")));
        return None;
    }
    let mailboxes: Vec<_> = list.iter().filter_map(mailbox).map(|m| m.to_string()).collect();
    let constant = serde_json::to_string(&mailboxes).unwrap_or_default();
    Some(item.here.clone().map(|()| ValueDecl::Constant(constant)))
}

/// What has to hold: paths in quotes, and what their values may be.
pub(super) fn conditions(item: &Item<'_>) -> Vec<ConditionDecl> {
    let expected = "paths and their values: { \"data.object.status\" = \"active\" }";
    let Some(section) = item.section(expected) else { return Vec::new() };
    let condition = |(name, item): (Located<String>, Item<'_>)| {
        let path = match name.value.parse() {
            Ok(path) => path,
            Err(error) => {
                let problem = name.error(format!("found {:?}: {error}", name.value));
                item.report(problem.hint("expected a path such as \"data.object.status\""));
                return None;
            }
        };
        if !item.is_table() {
            return Some(ConditionDecl { path, any_of: values(&item), not: false });
        }
        let section = item.section(expected)?;
        let (not, exists) = (section.get("not"), section.get("exists"));
        let null = || vec!["null".to_owned()];
        let found = match (not, exists) {
            (Some(not), None) => Some(ConditionDecl { path, any_of: values(&not), not: true }),
            (None, Some(exists)) => {
                let not = exists.boolean()?;
                Some(ConditionDecl { path, any_of: null(), not })
            }
            _ => {
                let problem = section.here.error("invalid condition");
                section.report(problem.hint(
                    "expected a value, a list of values, { not = … }, or { exists = true }; quote a path with dots",
                ));
                None
            }
        };
        if found.is_some() {
            section.finish();
        }
        found
    };
    section.members().into_iter().filter_map(condition).collect()
}

/// A value or a list of values, as JSON.
fn values(item: &Item<'_>) -> Vec<String> {
    let list = item.list("a value, or a list of values", !item.is_list());
    if list.is_empty() {
        item.report(item.here.error("the list of values is empty"));
    }
    list.iter().filter_map(Item::json).collect()
}
