//! The keys of a rule, and the rules that they make.

use std::collections::BTreeSet;
use std::time::Duration;

use hookmill_core::email::{self, Mailbox};
use hookmill_core::outbound::{Outcome, Provider, Purpose};
use hookmill_keys::kind::{
    all_members, boolean, choice, duration, either, list, members, one_or_many, parsed, scalar,
    table, table_or, table_then, text, whole,
};
use hookmill_keys::{ConfigError, Item, Kind, Located, Section, days, keys, nearest};
use iso_currency::Currency;
use serde_json::{Value as Json, json};

use crate::ast::{
    ConditionDecl, DeleteDecl, EffectDecl, Extension, NamedValues, Newest, RuleDecl, SendDecl,
    StepDecl, SuppressionDecl, TableDecl, TableWrite, ValueDecl,
};
use crate::time;
use crate::{DatePart, EventField, FETCHED, Form, Pattern, Spelling, TimeForm, ValuePath, Zone};

/// The maximum delay of a message after its event.
const LONGEST_DELAY: Duration = days(30);

keys! {
    /// A rule: the events, and one effect.
    pub struct RuleKeys {
        /// A unique name, for messages. A rule with the name of a preset's rule replaces it.
        name: Option<Located<String>> = text("a name").located().expected("add a unique name").example("\"refunds\""),
        /// The events, by source and type. `*` matches any text.
        on: Option<Located<Vec<Located<String>>>> = events().located().expected(EXAMPLE_OF_ON).example("\"stripe:invoice.*\""),
        /// The list whose elements become rows. A path that begins with `@` selects from an element.
        each: Option<Located<ValuePath>> =
            path("a path to a list, such as \"data.object.items.data\"").located().optional()
                .example("\"data.object.items.data\""),
        /// The path that says whether the list of `each` goes on elsewhere: any value but `null`, `false`, 0 and "". The rows of an
        /// incomplete list are written, and none is removed. The table then needs `_version`, `_precedence` and `_event_id`.
        more: Option<Located<ValuePath>> =
            path("a path such as \"data.object.items.has_more\"").located().optional()
                .example("\"data.object.items.has_more\""),
        /// Conditions: paths and their allowed values. The rule runs if every condition holds. In a list of such tables, one of them
        /// is enough. Quote a path that contains dots; of several paths, joined with ` | `, the first that exists counts.
        when: Option<Vec<Vec<ConditionDecl>>> =
            one_or_many(conditions(), CONDITIONS).not_empty("the list of conditions is empty", format!("expected {CONDITIONS}"))
                .optional().example("{ \"data.object.status\" = [\"active\", \"trialing\"] }"),
        /// The handler: code that returns values. The rule's paths select from these values; without a handler, from the body.
        handler: Option<Located<String>> = text("the name of a handler").located().optional(),
        /// The table to write. Instead, a rule can have one of `email`, `sms`, `track`, `outcome`, `suppress` and `lift`.
        table: Option<Located<String>> = text("the name of a table").located().optional().example("\"refunds\""),
        /// The row: the columns of the table's primary key, all of them, and paths of their values. Required with `table`. An event without
        /// such a value becomes a dead letter.
        key: Option<NamedValues> = columns().optional().example("{ id = \"data.object.id\" }"),
        /// The other columns to write, and paths of their values. A missing value becomes NULL.
        set: Option<NamedValues> = columns().optional().example("{ amount = \"data.object.amount\" }"),
        /// For a counter, instead of `version` and `set`: columns, and the amounts to add. A missing value counts as 0.
        add: Option<NamedValues> = amounts().optional().example("{ total = 1 }"),
        /// The event's version: a path to a whole number, or a time. Of two events with the same key, the newer one wins. An event
        /// without a version becomes a dead letter, unless it deletes: then the deletion is final.
        version: Option<Located<ValueDecl>> = version().located().optional().example("\"created\""),
        /// Which of two events with the same version wins.
        tie: Option<TieKeys> =
            table(PRECEDENCE_EXAMPLE).optional()
                .defaults_to("the precedence of a rule that mirrors the same object; otherwise none")
                .example("{ precedence = { type = [\"*.created\", \"*\"] } }"),
        /// The events that delete the row: their types, from those in `on`, with `"*"` for all of them; or conditions, as in `when`. In
        /// a list, any of its entries is enough.
        delete: Option<Vec<DeleteDecl>> =
            deletions().optional().example("[\"*.deleted\", { \"data.object.status\" = \"canceled\" }]"),
        /// Whether a deletion stays, whatever comes later: the provider never uses an id again. Otherwise an event with a greater
        /// version writes the row again.
        r#final: Option<Located<bool>> =
            boolean().located().optional()
                .defaults_to("that of a rule that mirrors the same object; otherwise `false`"),
        /// Columns of the row, and the tables whose keys they have. A row counts as deleted if a final deletion has deleted such a
        /// parent, or the parent's own parent.
        parents: Option<Vec<(Located<String>, Located<String>)>> =
            members(text("the name of a table").located(), "columns and tables: { organization_id = \"organizations\" }")
                .optional().example("{ organization_id = \"organizations\" }"),
        /// Whether a deleted row stays, with `_deleted = 1` and the values of the event. `false` removes the row and records the
        /// deletion in `row_guards`. In both cases, a late event does not restore the row.
        tombstone: Option<Located<bool>> =
            boolean().located().optional().defaults_to_value("true"),
        /// Whether the rule only changes existing rows, which your application creates. An event that arrives before its row
        /// changes nothing. `key` may then be UNIQUE columns, and the four guard columns may be NULL at first.
        update: bool = boolean().default("false"),
        /// An email to send.
        email: Option<EmailDecl> =
            table("an email: { template = \"welcome\", to = \"data.email\" }").optional()
                .example("{ template = \"welcome\", to = \"data.email\" }"),
        /// An SMS to send.
        sms: Option<SmsDecl> =
            table("an SMS: { to = \"data.phone\", body = \"…\" }").optional()
                .example("{ to = \"data.phone\", body = \"Welcome.\" }"),
        /// A tracking event to send.
        track: Option<TrackDecl> =
            table("a tracking event: { provider = \"posthog\", event = \"Subscribed\", user = \"data.user_id\" }")
                .optional()
                .example("{ provider = \"posthog\", event = \"Subscribed\", user = \"data.user_id\" }"),
        /// The outcome of a sent message, as its provider reports it.
        outcome: Option<EffectDecl> =
            table_then("an outcome: { email = \"data.tags.hookmill\", is = \"bounced\" }", OutcomeKeys::effect)
                .optional().example("{ email = \"data.tags.hookmill\", is = \"bounced\" }"),
        /// An address to suppress.
        suppress: Option<EffectDecl> =
            table("an address: { address = \"data.to\", reason = \"bounced\" }").map(|keys: SuppressKeys| keys.effect())
                .optional().example("{ address = \"data.to\", reason = \"bounced\" }"),
        /// A suppression to lift.
        lift: Option<EffectDecl> =
            table("a suppression: { address = \"data.email\", reason = \"bounced\" }").map(|keys: LiftKeys| keys.effect())
                .optional().example("{ address = \"data.email\", reason = \"bounced\" }"),
    }
    schema {
        "if": true, "then": { "oneOf": EFFECTS.map(|key| json!({ "required": [key] })) },
        "dependentRequired": {
            "table": ["key"],
            "key": ["table"],
            "set": ["table"],
            "add": ["table"],
            "each": ["table"],
            "more": ["each"],
            "version": ["table"],
            "tie": ["table"],
            "delete": ["table"],
            "parents": ["table"],
            "update": ["table"],
            "final": ["delete"],
            "tombstone": ["delete"],
        },
    };
}

/// The keys that say what a rule does.
const EFFECTS: [&str; 7] = ["table", "email", "sms", "track", "outcome", "suppress", "lift"];

/// The keys that only a rule with `table` has.
const OF_TABLE: [&str; 12] = [
    "each",
    "more",
    "key",
    "set",
    "add",
    "version",
    "tie",
    "delete",
    "final",
    "parents",
    "tombstone",
    "update",
];

const EXAMPLE_OF_ON: &str = "add the events: on = [\"stripe:invoice.*\"]";

const PRECEDENCE_EXAMPLE: &str = "precedence = { column = \"status\", order = [\"trialing\", \"active\"] }, or { type = [\"*.created\", \"*\"] }, or a list of such tables; or refetch = true";

keys! {
    /// What decides between events with the same version.
    pub struct TieKeys {
        /// The order that decides, weakest first: of a value, or of event types. In a list of such orders, each decides between events
        /// that are equal in those before it.
        precedence: Option<Located<Vec<Located<PrecedenceKeys>>>> =
            one_or_many(table(PRECEDENCE_EXAMPLE).located(), PRECEDENCE_EXAMPLE)
                .not_empty("the list is empty", format!("expected {PRECEDENCE_EXAMPLE}")).located().optional()
                .example("[{ type = [\"*.created\", \"*\"] }, { column = \"status\", order = [\"trialing\", \"active\"] }]"),
        /// Whether to fetch the object from the provider's API if no precedence decides.
        refetch: Option<Located<bool>> =
            boolean().located().optional().defaults_to_value("false"),
    }
    present |section| {
        if section.at("precedence").is_none() && section.at("refetch").is_none() {
            let missing = section.here.error("`precedence` is missing");
            section.report_consequence(missing.hint(PRECEDENCE_EXAMPLE));
        }
    };
    schema { "minProperties": 1 };
}

keys! {
    /// The order that decides: of a value, or of event types.
    pub struct PrecedenceKeys {
        /// A column of `set`. It needs `order`.
        column: Option<String> = text("a column of `set`").optional().example("\"status\""),
        /// Instead of `column`: a path of a text, a number or a boolean. It needs `order`.
        path: Option<Vec<ValuePath>> = form().optional().example("\"data.object.status\""),
        /// The values of that column or at that path as the provider sends them, weakest first. Any other value is weaker than all
        /// of them. A number or a boolean is in quotes here, too.
        order: Option<Vec<Located<String>>> =
            words().optional().example("[\"trialing\", \"active\", \"canceled\"]"),
        /// Instead of a value: event types without their sources, weakest first. `*` matches any text; `"*"` means every type that no
        /// other entry matches. Without it, such a type is weaker than all entries.
        r#type: Option<Vec<Located<String>>> =
            words().optional().example("[\"*.created\", \"*\"]"),
    }
    present |section| {
        let given = ["column", "path", "order", "type"].map(|key| section.at(key).is_some());
        let fits = [
            [true, false, true, false],
            [false, true, true, false],
            [false, false, false, true],
        ];
        if !fits.contains(&given) {
            let problem =
                section.here.error("`precedence` needs `column` and `order`, `path` and `order`, or `type`");
            section.report_consequence(problem.hint(format!("expected {PRECEDENCE_EXAMPLE}")));
        }
    };
    schema {
        "if": true,
        "then": { "oneOf": [
            { "required": ["column", "order"] }, { "required": ["path", "order"] }, { "required": ["type"] },
        ] },
        "dependentSchemas": {
            "order": { "anyOf": [{ "required": ["column"] }, { "required": ["path"] }] },
            "column": { "required": ["order"] },
            "path": { "required": ["order"] },
        },
    };
}

keys! {
    /// An email to send.
    #[derive(Clone, PartialEq, Debug)]
    pub struct EmailDecl {
        /// A template of `[templates]`.
        pub template: Located<String> =
            text("the name of a template").located()
                .required("add the name of a template in `[templates]`: template = \"welcome\"")
                .example("\"welcome\""),
        /// The recipient: a path, an address (with `@`), or a list of either; the first that exists counts. With `recipients`, a path may
        /// lead to a list of addresses. Several recipients get one email and see each other.
        pub to: Located<ValueDecl> =
            recipients().located().required("add the recipient, a path or an address: to = \"data.email\"")
                .example("\"data.email\""),
        /// The recipients of a copy, like `to`.
        pub cc: Option<Located<ValueDecl>> =
            recipients().located().optional().example("\"Ops <ops@example.com>\""),
        /// The address for replies, like `to`.
        pub reply_to: Option<Located<ValueDecl>> =
            recipients().located().optional().defaults_to("that of `[email]`")
                .example("\"data.owner.email\""),
        /// The maximum number of recipients in `to`, and in `cc`. An email with more is `refused`, since the payload determines the list.
        pub recipients: u32 = whole(1..=10).default("1"),
        /// The group of emails that it belongs to, such as a newsletter. A recipient who has left the group does not get it. SendGrid gets
        /// the number of its unsubscribe group.
        pub group: Option<Located<String>> =
            text("the name of a group").located().optional().example("\"4711\""),
        /// The template's variables: names, and paths of their values.
        pub data: Option<Located<NamedValues>> =
            variables().located().optional().example("{ name = \"data.first_name\" }"),
        /// The delay after the event.
        pub delay: Duration = duration(Duration::ZERO..=LONGEST_DELAY).default("\"0s\"").example("\"1h\""),
    }
    refuse "bcc": "`bcc` is not supported", "use another rule to send a separate email";
    refuse "when": MISPLACED_WHEN.0, MISPLACED_WHEN.1;
}

keys! {
    /// An SMS to send.
    #[derive(Clone, PartialEq, Debug)]
    pub struct SmsDecl {
        /// The recipient: a path to a phone number with country code, or such a number.
        pub to: Located<ValueDecl> =
            phone_number().located().required("add a path to a phone number: to = \"data.phone\"")
                .example("\"data.phone\""),
        /// The text, a template.
        pub body: Located<String> =
            text("a template").located().required("add the text: body = \"Your code is {{ code }}\"")
                .example("\"Your code is {{ code }}\""),
        /// The template's variables: names, and paths of their values.
        pub data: Option<Located<NamedValues>> =
            variables().located().optional().example("{ code = \"data.code\" }"),
        /// The delay after the event.
        pub delay: Duration = duration(Duration::ZERO..=LONGEST_DELAY).default("\"0s\"").example("\"1h\""),
    }
    refuse "when": MISPLACED_WHEN.0, MISPLACED_WHEN.1;
}

keys! {
    /// A tracking event to send.
    #[derive(Clone, PartialEq, Debug)]
    pub struct TrackDecl {
        /// The provider.
        pub provider: Located<Provider> =
            choice(Provider::of(Purpose::Tracking)).located().required("add the provider: provider = \"posthog\"")
                .example("\"posthog\""),
        /// The name of the tracking event, literally.
        pub event: String =
            text("a name").required("add the name of the event: event = \"Subscribed\"").example("\"Subscribed\""),
        /// The path of the user's id.
        pub user: Located<ValueDecl> =
            value().located().required("add the user: user = \"data.user_id\"").example("\"data.user_id\""),
        /// The properties: names, and paths of their values.
        pub properties: Option<NamedValues> =
            variables().optional().example("{ plan = \"data.plan\" }"),
        /// The delay after the event.
        pub delay: Duration = duration(Duration::ZERO..=LONGEST_DELAY).default("\"0s\"").example("\"1h\""),
    }
    refuse "when": MISPLACED_WHEN.0, MISPLACED_WHEN.1;
}

keys! {
    /// The outcome of a sent message.
    pub struct OutcomeKeys {
        /// The path of the email's id. Exactly one of `email` and `provider_id` is required.
        email: Option<Located<ValueDecl>> = value().located().optional().example("\"data.tags.hookmill\""),
        /// The path of the provider's message id.
        provider_id: Option<Located<ValueDecl>> = value().located().optional().example("\"MessageSid\""),
        /// The outcome. A later one replaces an earlier one, in this order.
        is: Outcome =
            choice(Outcome::ALL.to_vec()).required("add the outcome: is = \"bounced\"").example("\"bounced\""),
    }
    refuse "when": MISPLACED_WHEN.0, MISPLACED_WHEN.1;
    schema { "if": true, "then": { "oneOf": [{ "required": ["email"] }, { "required": ["provider_id"] }] } };
}

impl OutcomeKeys {
    fn effect(section: &Section<'_>, keys: Self) -> Option<EffectDecl> {
        let Self { email, provider_id, is: outcome } = keys;
        let by_provider_id = provider_id.is_some();
        match (email, provider_id) {
            (Some(of), None) | (None, Some(of)) => {
                Some(EffectDecl::Outcome { of, by_provider_id, outcome })
            }
            (Some(_), Some(_)) => {
                let problem = section.here.error("`email` and `provider_id` exclude each other");
                section.report(problem.hint("remove one of them"));
                None
            }
            (None, None) => {
                let hint = "add the path of the email's id: email = \"data.tags.hookmill\"";
                section.report_consequence(section.here.error("`email` is missing").hint(hint));
                None
            }
        }
    }
}

keys! {
    /// An address to suppress.
    pub struct SuppressKeys {
        /// The path of an address, or of a list of addresses.
        address: Located<ValueDecl> =
            value().located().required("add the path of the address: address = \"data.to\"").example("\"data.to\""),
        /// A short reason. An address can be suppressed for several.
        reason: String =
            text("a short reason").required("add a short reason: reason = \"bounced\"").example("\"bounced\""),
        /// The path of a group of emails. The address then gets no emails of this group, but all others. An event without such a value
        /// becomes a dead letter.
        group: Option<Located<ValueDecl>> = value().located().optional().example("\"asm_group_id\""),
        /// The time of the event. The newest event decides whether the address is suppressed. An event without such a value becomes a
        /// dead letter.
        version: Option<Located<ValueDecl>> = value().located().optional().defaults_to("the time of receipt")
            .example("{ unix_seconds = \"timestamp\" }"),
    }
    refuse "when": MISPLACED_WHEN.0, MISPLACED_WHEN.1;
}

keys! {
    /// A suppression to lift: Hookmill sends to the address again.
    pub struct LiftKeys {
        /// The path of an address, or of a list of addresses.
        address: Located<ValueDecl> =
            value().located().required("add the path of the address: address = \"data.email\"").example("\"data.email\""),
        /// The reason of the suppression, or a list of reasons. Suppressions for other reasons stay.
        reason: Vec<String> =
            one_or_many(text("a short reason"), "a reason, or a list of reasons")
                .not_empty("the list of reasons is empty", "expected the reason of the suppression")
                .required("add the reason of the suppression: reason = \"bounced\"")
                .example("[\"bounced\", \"complained\"]"),
        /// The path of a group of emails. The rule then lifts only the suppression for this group.
        group: Option<Located<ValueDecl>> = value().located().optional().example("\"asm_group_id\""),
        /// The time of the event. A suppression of the same time or later stays.
        version: Option<Located<ValueDecl>> = value().located().optional().defaults_to("the time of receipt")
            .example("{ unix_seconds = \"timestamp\" }"),
    }
    refuse "when": MISPLACED_WHEN.0, MISPLACED_WHEN.1;
}

impl SuppressKeys {
    fn effect(self) -> EffectDecl {
        let Self { address, reason, group, version } = self;
        let whom = SuppressionDecl { address, reasons: vec![reason], group, version };
        EffectDecl::Suppress(whom)
    }
}

impl LiftKeys {
    fn effect(self) -> EffectDecl {
        let Self { address, reason, group, version } = self;
        EffectDecl::Lift(SuppressionDecl { address, reasons: reason, group, version })
    }
}

/// Conditions belong to a rule, whatever its effect.
const MISPLACED_WHEN: (&str, &str) = (
    "`when` is a key of the rule, not of its effect",
    "move it below `on`: when = { \"data.status\" = \"active\" }",
);

keys! {
    /// A constant, a field of the event, or a value whose form in the body differs from the stored form.
    pub struct ValueKeys {
        /// A constant: a string, a whole number or a boolean.
        value: Option<Json> = scalar().optional(),
        /// A field of the event.
        event: Option<EventField> = choice(EventField::ALL.to_vec()).optional(),
        /// A path to a text, a number or a boolean, stored as text. A number has one spelling: 12.50 is `12.5`.
        text: Option<Vec<ValuePath>> = form().optional(),
        /// A path to anything, stored as the text of its JSON.
        json: Option<Vec<ValuePath>> = form().optional(),
        /// A path to true or false, or to 1 or 0, with or without quotes, stored as 1 or 0.
        boolean: Option<Vec<ValuePath>> = form().optional(),
        /// A path to a whole number, in any JSON spelling, with or without quotes.
        integer: Option<Vec<ValuePath>> = form().optional(),
        /// A path to a number, with or without quotes, stored as a whole number of its smallest units. It needs `scale` or `currency`.
        decimal: Option<Vec<ValuePath>> = form().optional(),
        /// The decimal places of a `decimal`: "12.50" with 2 is stored as 1250. A value with more places makes a dead letter.
        scale: Option<u32> = whole(0..=18).optional().example("2"),
        /// Instead of `scale`: a path to the code of the currency. ISO 4217 says how many decimal places its amounts have: two for USD,
        /// none for JPY, three for KWD.
        currency: Option<Vec<ValuePath>> = form().optional(),
        /// A path to a time in seconds since 1970, stored in milliseconds.
        unix_seconds: Option<Vec<ValuePath>> = form().optional(),
        /// A path to a time in milliseconds since 1970.
        unix_milliseconds: Option<Vec<ValuePath>> = form().optional(),
        /// A path to an RFC 3339 time, stored in milliseconds since 1970.
        rfc3339: Option<Vec<ValuePath>> = form().optional(),
        /// A path to a time in another spelling, stored in milliseconds since 1970. It needs `format`.
        time: Option<Vec<ValuePath>> = form().optional(),
        /// How a `time` is written, such as `%F %T`, in the specifiers of <https://docs.rs/chrono/latest/chrono/format/strftime/>. In a list, the first
        /// format that fits the whole text counts. A format without a time of day means midnight.
        format: Option<Vec<String>> = one_or_many(time_format(), TIME_FORMATS).not_empty("no format is given", TIME_FORMATS)
            .optional(),
        /// The zone of times without an offset, and of a date: `UTC`, an offset such as `+02:00`, or a name of the IANA database such as
        /// `Europe/Berlin`. Of a time that a clock
        /// shows twice, as at the end of daylight saving time, the first one counts; a time that it skips, as at the beginning, counts
        /// with the offset before.
        zone: Option<Zone> = parsed(ZONE, |text: &str| text.parse::<Zone>().map_err(|()| unknown_zone(text)))
            .optional().defaults_to("`UTC`"),
        /// Stores the date of a time as text instead: `2026-01-31`, or its month, `2026-01`.
        r#as: Option<DatePart> = choice(DatePart::ALL.to_vec()).optional(),
    }
    schema {
        "if": true, "then": { "oneOf": FORMS.map(|key| json!({ "required": [key] })) },
        "dependentRequired": { "scale": ["decimal"], "currency": ["decimal"], "time": ["format"], "format": ["time"] },
        "dependentSchemas": {
            "decimal": { "oneOf": [{ "required": ["scale"] }, { "required": ["currency"] }] },
            "zone": { "anyOf": [{ "required": ["time"] }, { "required": ["as"] }] },
            "as": { "anyOf": TIMES.map(|key| json!({ "required": [key] })) },
        },
    };
}

/// The forms of a value. A value has exactly one form.
const FORMS: [&str; 11] = [
    "value",
    "event",
    "text",
    "json",
    "boolean",
    "integer",
    "decimal",
    "unix_seconds",
    "unix_milliseconds",
    "rfc3339",
    "time",
];

/// Those of a time.
const TIMES: [&str; 4] = ["unix_seconds", "unix_milliseconds", "rfc3339", "time"];

const TIME_FORMATS: &str = "a format of times, such as \"%F %T\", or a list of formats";

const ZONE: &str = "a time zone: \"UTC\", \"+02:00\" or \"Europe/Berlin\"";

/// The error of a zone that does not exist.
fn unknown_zone(text: &str) -> String {
    let names = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name());
    match nearest(text, names) {
        Some(near) => format!("unknown zone; did you mean {near:?}?"),
        None => "unknown zone".to_owned(),
    }
}

/// A format that determines a time.
fn time_format() -> Kind<String> {
    text(TIME_FORMATS).and_then(|item, format| {
        if let Some(problem) = time::problem_of_format(&format) {
            let error = item.here.error(format!("found {format:?}: {problem}"));
            item.report(error.hint(format!("expected {TIME_FORMATS}")));
        }
        Some(format)
    })
}

impl ValueKeys {
    fn decl(section: &Section<'_>, keys: Self) -> Option<ValueDecl> {
        let given: Vec<_> = FORMS.iter().filter(|key| section.at(key).is_some()).collect();
        for (key, needed) in [
            ("scale", &["decimal"][..]),
            ("currency", &["decimal"]),
            ("format", &["time"]),
            ("as", &TIMES),
            ("zone", &["time", "as"]),
        ] {
            if let Some(here) = section.at(key)
                && !needed.iter().any(|key| section.at(key).is_some())
            {
                let needed = needed.join("`, `");
                section.report(here.error(format!("`{key}` needs one of `{needed}`")));
            }
        }
        if given.len() != 1 {
            // An unknown key is reported as such.
            if given.len() > 1 || section.members().is_empty() {
                let problem = section.here.error("a value has exactly one form");
                section.report(problem.hint(format!("expected one of {}", FORMS.join(", "))));
            }
            return None;
        }
        let missing = |problem: &str, hint: &str| {
            section.report_consequence(section.here.error(problem).hint(hint));
        };
        if let Some(amount) = keys.decimal {
            return match (keys.scale, keys.currency) {
                (Some(scale), None) => {
                    Some(ValueDecl::Paths { paths: amount, form: Form::Decimal { scale } })
                }
                (None, Some(currency)) => {
                    let codes = currency.iter().map(ToString::to_string);
                    for code in codes {
                        let Some(known) = Currency::from_code(&code) else { continue };
                        let problem =
                            section.here.error(format!("`currency` is a path, and found {code:?}"));
                        section.report(problem.hint(format!(
                            "if every amount is in {code}, write instead: scale = {}",
                            known.exponent().unwrap_or_default()
                        )));
                    }
                    Some(ValueDecl::Money { amount, currency })
                }
                (None, None) if section.at("scale").or(section.at("currency")).is_none() => {
                    missing(
                        "`scale` is missing",
                        "add the number of decimal places: { decimal = \"amount\", scale = 2 }",
                    );
                    None
                }
                (None, None) => None,
                (Some(_), Some(_)) => {
                    let problem = section.here.error("`scale` and `currency` exclude each other");
                    section.report(problem.hint("remove one of them"));
                    None
                }
            };
        }
        if section.at("time").is_some() && section.at("format").is_none() {
            missing(
                "`format` is missing",
                "add how the time is written: { time = \"at\", format = \"%F %T\" }",
            );
        }
        let (zone, date) = (keys.zone.unwrap_or(Zone::UTC), keys.r#as);
        let time = |spelling| Form::Time(Box::new(TimeForm { spelling, zone, date }));
        let formats = Spelling::Formats(keys.format.unwrap_or_default());
        let forms = [
            (keys.text, Form::Text),
            (keys.json, Form::Json),
            (keys.boolean, Form::Boolean),
            (keys.integer, Form::Decimal { scale: 0 }),
            (keys.unix_seconds, time(Spelling::UnixSeconds)),
            (keys.unix_milliseconds, time(Spelling::UnixMilliseconds)),
            (keys.rfc3339, time(Spelling::Rfc3339)),
            (keys.time, time(formats)),
        ];
        let mut forms = forms.into_iter().filter_map(|(paths, form)| Some((paths?, form)));
        let constant = keys.value.map(|value| ValueDecl::Constant(value.to_string()));
        constant
            .or_else(|| keys.event.map(ValueDecl::Event))
            .or_else(|| forms.next().map(|(paths, form)| ValueDecl::Paths { paths, form }))
    }
}

keys! {
    /// A condition that a plain value cannot express.
    pub struct ConditionKeys {
        /// None of these values; also true for a missing value, unless `exists = true` excludes it: `{ exists = true, not = "" }`.
        not: Option<Vec<String>> = scalars().optional(),
        /// Whether the value must exist.
        exists: Option<bool> = boolean().or(true).optional(),
    }
    schema {
        "minProperties": 1,
        "dependentSchemas": { "not": { "properties": { "exists": { "const": true } } } },
    };
}

const ONE_VALUE: &str =
    "a path, a list of paths (the first one found is used), or a table such as { value = … }";

/// A value. One that cannot be read is `null`, so that the rest of the rule can be checked.
pub fn value() -> Kind<ValueDecl> {
    let kind = value_forms();
    Kind::new(
        || json!({ "$ref": "#/$defs/value" }),
        move |item| Some(kind.read(item).unwrap_or_else(|| ValueDecl::Constant("null".to_owned()))),
    )
}

/// A value, spelled out: the definition that the JSON Schema of [`value`] refers to.
pub fn value_forms() -> Kind<ValueDecl> {
    let plain = paths(ONE_VALUE)
        .with(json!({ "description": "A path in the body, or a list of paths. The rule uses the first path that exists." }))
        .map(|paths| ValueDecl::Paths { paths, form: Form::AsIs });
    table_or(table_then(ONE_VALUE, ValueKeys::decl), plain)
}

/// A path.
fn path(expected: &'static str) -> Kind<ValuePath> {
    parsed(expected, str::parse::<ValuePath>).with(json!({ "minLength": 1 }))
}

/// A path, or a list of paths.
fn paths(expected: &'static str) -> Kind<Vec<ValuePath>> {
    let kind = path("a path such as \"data.object.id\"");
    let schema = json!({
        "type": ["string", "array"], "minLength": 1, "minItems": 1, "items": { "type": "string", "minLength": 1 }
    });
    let read = move |item: &Item<'_>| {
        let list = item.list(expected, item.is_string());
        if list.is_empty() && item.is_list() {
            item.report(item.here.error("no path is given").hint(format!("expected {expected}")));
        }
        Some(list.iter().filter_map(|item| kind.read(item)).collect())
    };
    Kind::new(move || schema.clone(), read)
}

/// The paths of a value with a form.
fn form() -> Kind<Vec<ValuePath>> {
    paths("a path, or a list of paths (the first one found is used)")
}

/// Columns and their values.
fn columns() -> Kind<NamedValues> {
    members(value().located(), "columns and paths of their values: { id = \"data.object.id\" }")
}

/// Columns and the amounts to add: numbers or values.
fn amounts() -> Kind<NamedValues> {
    let constant = Kind::new(
        || json!({ "type": "integer", "description": "A constant amount." }),
        |item| {
            let number = item.integer("a whole number, or a path");
            Some(ValueDecl::Constant(number.unwrap_or_default().to_string()))
        },
    );
    let is_value = |item: &Item<'_>| item.is_string() || item.is_table() || item.is_list();
    let amount = either(is_value, value(), constant).located();
    members(amount, "columns and the amounts to add: { total = 1 }")
}

/// The variables of a template, or the properties of an event.
fn variables() -> Kind<NamedValues> {
    members(value().located(), "names and paths of their values: { name = \"data.first_name\" }")
}

/// The version of an event: a whole number, or a time.
fn version() -> Kind<ValueDecl> {
    value().and_then(|item, found| {
        let fits = match &found {
            ValueDecl::Paths { form: Form::Time(time), .. } => time.date.is_none(),
            ValueDecl::Paths { form, .. } => matches!(form, Form::AsIs | Form::Decimal { .. }),
            ValueDecl::Money { .. } => false,
            ValueDecl::Event(field) => *field == EventField::ReceivedAt,
            // An unreadable value has been reported.
            ValueDecl::Constant(json) => json == "null" || json.parse::<i64>().is_ok(),
        };
        if !fits {
            let problem = item.here.error("not a usable version");
            item.report(problem.hint(
                "expected a path to a whole number, or to a time: { rfc3339 = \"occurred_at\" }",
            ));
        }
        if found.is_of_element() {
            let problem = item.here.error("the version is that of an element");
            item.report(problem.hint(
                "the rows of a list share one version; use a path that does not begin with `@`",
            ));
        }
        if let ValueDecl::Paths { paths, form: Form::AsIs } = &found
            && let Some(header) = paths.iter().find(|path| matches!(path, ValuePath::Header(_)))
        {
            let problem = item.here.error("the version is in a header, and a header is text");
            item.report(problem.hint(format!(
                "add its form: {{ rfc3339 = \"{header}\" }}, or {{ integer = \"{header}\" }} for a whole number"
            )));
        }
        Some(found)
    })
}

/// Event patterns, `SOURCE:TYPE` in hookmill.toml and `TYPE` in a preset. The rule's reader tells them apart.
fn events() -> Kind<Vec<Located<String>>> {
    let event = text(ONE_EVENT).with(json!({ "pattern": "^[a-z0-9_-]+:[^\\s]+$" })).located();
    one_or_many(event, "a list of events").not_empty("the list of events is empty", EXAMPLE_OF_ON)
}

const ONE_EVENT: &str = "an event such as \"stripe:invoice.paid\" or \"stripe:invoice.*\"";

/// A list of different words, weakest first.
fn words() -> Kind<Vec<Located<String>>> {
    list(text("a text").located(), "a list, weakest first")
        .not_empty("the list is empty", "expected a list, weakest first")
        .with(json!({ "uniqueItems": true }))
        .and_then(|item, words| {
            for (i, word) in words.iter().enumerate() {
                if words[..i].iter().any(|other| other.value == word.value) {
                    item.report(word.error(format!("{:?} is listed twice", word.value)));
                }
            }
            Some(words)
        })
}

/// Strings, whole numbers or booleans, as JSON.
fn scalars() -> Kind<Vec<String>> {
    let scalar = scalar().map(|json| json.to_string());
    one_or_many(scalar, "a value, or a list of values")
        .not_empty("the list of values is empty", "expected at least one value")
}

const CONDITIONS: &str = "paths and their values: { \"data.object.status\" = \"active\" }";

/// Conditions: paths, and what their values may be.
fn conditions() -> Kind<Vec<ConditionDecl>> {
    let expected = CONDITIONS;
    let plain = scalars()
        .with(json!({ "description": "The value, or one of a list." }))
        .map(|any_of| (any_of, false));
    let spelled = table_then(expected, |section, keys: ConditionKeys| {
        match (section.at("not").and(keys.not), section.at("exists").and(keys.exists)) {
            (Some(any_of), None) => Some((any_of, true)),
            (Some(mut any_of), Some(true)) => {
                any_of.push("null".to_owned());
                Some((any_of, true))
            }
            (None, Some(exists)) => Some((vec!["null".to_owned()], exists)),
            _ => {
                section.ignore_unknown();
                let problem = section.here.error("invalid condition");
                section.report(problem.hint(
                    "expected a value, a list of values, { not = … }, { exists = true } or { exists = false }; quote a path with dots",
                ));
                None
            }
        }
    });
    let condition =
        table_or(spelled, plain).with(json!({ "description": "A condition on a value." }));
    all_members(condition, expected).and_then(|item, conditions| {
        let paths = |text: &str| text.split(" | ").map(str::parse).collect::<Result<Vec<_>, _>>();
        let decl = |(name, condition): (Located<String>, Option<_>)| match paths(&name.value) {
            Ok(paths) => condition.map(|(any_of, not)| ConditionDecl { paths, any_of, not }),
            Err(error) => {
                let problem = name.error(format!("found {:?}: {error}", name.value));
                item.report(problem.hint("expected a path such as \"data.object.status\""));
                None
            }
        };
        Some(conditions.into_iter().filter_map(decl).collect())
    })
}

/// The events that delete: patterns of their types, or conditions.
fn deletions() -> Kind<Vec<DeleteDecl>> {
    let types = text("an event type such as \"customer.deleted\" or \"*.deleted\"").located();
    one_or_many(
        table_or(conditions().map(DeleteDecl::When), types.map(DeleteDecl::Type)),
        "a list of event types and conditions",
    )
}

/// An email address with or without a name, as in `"Acme <hello@example.com>"`.
pub fn mailbox() -> Kind<Mailbox> {
    let expected = "an address, as in \"Acme <hello@example.com>\"";
    text(expected).and_then(move |item, text| {
        let mailbox = text.parse().ok();
        if mailbox.is_none() {
            item.unexpected(format!("{text:?}"), expected);
        }
        mailbox
    })
}

/// Literal addresses, or a path to addresses: a path has no `@`.
fn recipients() -> Kind<ValueDecl> {
    let expected = "a path to an address, an address, or a list of either";
    let (mailbox, value) = (mailbox(), value());
    paths(expected).reading(move |item| {
        let list = item.list(expected, item.is_string());
        if list.is_empty() {
            if item.is_list() {
                let problem = item.here.error("the list of recipients is empty");
                item.report(problem.hint(format!("expected {expected}")));
            }
            return None;
        }
        let texts: Vec<_> = list.iter().filter_map(|item| item.string(expected)).collect();
        let addresses = texts.iter().filter(|text| text.contains('@')).count();
        if addresses == 0 {
            return value.read(item);
        }
        if addresses < list.len() {
            let problem = item.here.error("the list mixes addresses and paths; use one kind");
            item.report(problem.hint(format!("expected {expected}")));
            return None;
        }
        let mailboxes = list.iter().filter_map(|item| mailbox.read(item));
        let mailboxes: Vec<_> = mailboxes.map(|mailbox| mailbox.to_string()).collect();
        Some(ValueDecl::Constant(Json::from(mailboxes).to_string()))
    })
}

/// A phone number, or a path to one: a path begins neither with `+` nor with a digit.
fn phone_number() -> Kind<ValueDecl> {
    let any = value();
    value().reading(move |item| {
        let is_number = |text: &String| text.starts_with(|c: char| c == '+' || c.is_ascii_digit());
        let number = if item.is_string() { item.string("").filter(is_number) } else { None };
        let Some(number) = number else { return any.read(item) };
        if email::number(&number).is_none() {
            let expected = "a phone number with country code, such as \"+15550100002\"";
            item.unexpected(format!("{number:?}"), expected);
        }
        Some(ValueDecl::text(&number))
    })
}

keys! {
    /// Columns to add to a preset's rule, instead of a rule.
    pub struct ExtendKeys {
        /// The preset's rule, or a list of its rules. All rules that write a table must set the same columns.
        extend: Vec<Located<String>> =
            one_or_many(text("the name of a preset's rule").located(), "a name, or a list of names")
                .not_empty("the list of rules is empty", "expected the name of a preset's rule")
                .required("add the preset's rule: extend = \"stripe-customers\"").example("\"stripe-customers\""),
        /// The columns to add, and paths of their values. A migration of yours adds them to the table.
        set: NamedValues =
            columns().required("add the columns: set = { tax_exempt = \"data.object.tax_exempt\" }")
                .example("{ tax_exempt = \"data.object.tax_exempt\" }"),
    }
}

/// Whether an entry of `rules` extends a preset's rule.
pub fn is_extension(item: &Item<'_>) -> bool {
    item.is_table() && item.section("").is_some_and(|section| section.at("extend").is_some())
}

/// Reads columns that extend rules of a preset, and reports their errors.
pub fn extension(item: &Item<'_>) -> Option<Extension> {
    let read = table::<ExtendKeys>("a table").read(item);
    read.map(|ExtendKeys { extend: rules, set }| Extension { rules, set })
}

/// Which sources the patterns of `on` are about.
pub enum Sources<'a> {
    /// A pattern names one of these: `stripe:invoice.*`.
    Named(&'a BTreeSet<String>),
    /// A preset's pattern is about the sources that have the preset: `invoice.*`.
    Preset(&'a [&'a String]),
}

/// Reads a rule and reports its errors.
pub fn rule(item: &Item<'_>, sources: &Sources<'_>) -> Option<RuleDecl> {
    let section = item.section("a rule: [[rules]]")?;
    let keys = <RuleKeys as hookmill_keys::Table>::read(&section);
    let rule = keys.and_then(|keys| keys.rule(&section, sources));
    let is_sound = section.finish();
    rule.map(|rule| RuleDecl { is_sound, ..rule })
}

impl RuleKeys {
    fn rule(self, section: &Section<'_>, sources: &Sources<'_>) -> Option<RuleDecl> {
        let on: Vec<_> = self
            .on
            .iter()
            .flat_map(|on| &on.value)
            .flat_map(|text| patterns(text, sources, section))
            .collect();
        if let Some(each) = self.each.as_ref().filter(|each| each.value.is_of_element()) {
            let problem = each.error(format!("found {:?}", each.value.to_string()));
            section.report(
                problem
                    .hint("expected a path into the body; `@` refers to an element of this list"),
            );
        }
        if let Some(more) = &self.more {
            if section.at("each").is_none() {
                section.report(
                    more.error("`more` needs `each`")
                        .hint("add the path of the list, or remove `more`"),
                );
            } else if more.value.is_of_element() {
                let problem = more.error(format!("found {:?}", more.value.to_string()));
                section.report(
                    problem.hint("expected a path into the body: `more` is about the whole list"),
                );
            }
        }
        let given: Vec<_> = EFFECTS.into_iter().filter(|key| section.at(key).is_some()).collect();
        if given.len() > 1 {
            let problem = section.here.error(format!(
                "a rule can have only one effect, and this one has `{}`",
                given.join("`, `")
            ));
            section.report(problem.hint("move the other effect to another rule"));
            return None;
        }
        if let [effect, ..] = given.as_slice()
            && *effect != "table"
        {
            for key in OF_TABLE {
                if let Some(here) = section.at(key) {
                    let problem = here.error(format!("`{key}` works only with `table`"));
                    section.report(
                        problem
                            .hint(format!("remove `{key}`: this rule has the effect `{effect}`")),
                    );
                }
            }
        }
        let Self { name, handler, each, more, when, .. } = &self;
        let (name, handler, each) = (name.clone(), handler.clone(), each.clone());
        let more = more.as_ref().map(|more| more.value.clone());
        let at = name.as_ref().map_or_else(|| section.here.clone(), Located::place);
        let when = when.clone().unwrap_or_default();
        let effect = match given.first() {
            Some(&"email") => EffectDecl::Send(SendDecl::Email(self.email?.into())),
            Some(&"sms") => EffectDecl::Send(SendDecl::Sms(self.sms?)),
            Some(&"track") => EffectDecl::Send(SendDecl::Track(self.track?)),
            Some(&"outcome") => self.outcome?,
            Some(&"suppress") => self.suppress?,
            Some(&"lift") => self.lift?,
            _ => EffectDecl::Table(self.table(section, &at, &on)?),
        };
        let preset = matches!(sources, Sources::Preset(_));
        let is_sound = true;
        let rule =
            RuleDecl { name: name?, preset, is_sound, on, handler, each, more, when, effect };
        if section.at("each").is_none() {
            rule.report_elements(section);
        }
        Some(rule)
    }

    /// The rest of a rule that writes a table.
    fn table(self, section: &Section<'_>, at: &Located<()>, on: &[Pattern]) -> Option<TableDecl> {
        let missing = |key: &str, hint: &str| {
            if section.at(key).is_none() {
                let missing = section.here.error(format!("`{key}` is missing"));
                section.report_consequence(missing.hint(hint));
            }
        };
        missing("table", "add the table that the rule writes, or another effect such as `email`");
        missing("key", "add the row's key: key = { id = \"data.object.id\" }");
        let key = self.key.unwrap_or_default();
        let (set, add) = (self.set.unwrap_or_default(), self.add.unwrap_or_default());
        for (name, _) in set.iter().chain(&add) {
            if key.iter().any(|(key, _)| key.value == name.value) {
                section.report(name.error(format!("`{}` is part of the key", name.value)));
            }
        }
        let rule = TableRule {
            on,
            at,
            has_each: self.each.is_some(),
            has_handler: self.handler.is_some(),
            section,
        };
        let delete = self.delete.unwrap_or_default();
        rule.check_deletions(&delete);
        for key in ["tombstone", "final"] {
            if let (Some(here), true) = (section.at(key), delete.is_empty()) {
                let problem = here.error(format!("`{key}` needs `delete`"));
                section.report(
                    problem.hint("add the event types that delete: delete = \"*.deleted\""),
                );
            }
        }
        let tombstone = self.tombstone.is_none_or(|tombstone| tombstone.value);
        let is_final = self.r#final.map(|is_final| is_final.value);
        let tie = self.tie.map(|tie| rule.tie(tie)).unwrap_or_default();
        let write = match self.version {
            None => {
                if add.is_empty() {
                    section.report_consequence(at.error("the rule needs `version` or `add`").hint(
                        "add what orders the events (version = \"created\"), or what to count (add = { total = 1 })",
                    ));
                } else if let Some((name, _)) = set.first() {
                    let problem = name.error("`set` needs a `version`");
                    section.report_consequence(
                        problem.hint("without it, the row would depend on the order of arrival"),
                    );
                }
                let tied = tie.precedence.is_some() || tie.refetch.is_some();
                let others = self.update || !tombstone || is_final.is_some();
                if !delete.is_empty() || tied || others || self.parents.is_some() {
                    let problem = "`delete`, `final`, `parents`, `tie`, `update` and `tombstone` need a `version`";
                    section.report_consequence(at.error(problem));
                }
                // After the error, the columns of `set` stand in, so that the rest of the rule can be checked.
                TableWrite::Count { add: if add.is_empty() { set } else { add } }
            }
            Some(version) => {
                if let Some((name, _)) = add.first() {
                    let problem = name.error("a rule with a `version` cannot `add`");
                    section.report(problem.hint(
                        "count in a separate table, with a rule without `version` and `set`",
                    ));
                }
                if matches!(version.value, ValueDecl::Constant(_)) && tie.precedence.is_none() {
                    let problem =
                        version.error("all events have the same version, but `tie` is missing");
                    section.report(
                        problem.hint("add what orders the events: tie = { precedence = … }"),
                    );
                }
                let parents = self.parents.unwrap_or_default();
                for (name, _) in &parents {
                    if !key.iter().chain(&set).any(|(set, _)| set.value == name.value) {
                        let problem =
                            name.error(format!("`{}` is not set by this rule", name.value));
                        let names = set.iter().map(|(name, _)| name.value.as_str());
                        section.report(problem.suggest(&name.value, names));
                    }
                }
                let newest = Newest { set, version, tie: None, delete, is_final, parents };
                rule.newest(newest, tie, self.update, tombstone)
            }
        };
        Some(TableDecl { table: self.table?, key, write })
    }
}

/// What decides between events of one version.
#[derive(Default)]
struct Tie {
    precedence: Option<Located<Vec<Located<PrecedenceKeys>>>>,
    refetch: Option<Located<()>>,
}

/// What else of a rule decides how it writes its table.
struct TableRule<'r> {
    on: &'r [Pattern],
    at: &'r Located<()>,
    has_each: bool,
    has_handler: bool,
    section: &'r Section<'r>,
}

impl TableRule<'_> {
    fn tie(&self, keys: TieKeys) -> Tie {
        let types = keys.precedence.iter().flat_map(|steps| &steps.value);
        let types = types.flat_map(|step| step.value.r#type.iter().flatten());
        let errors = types.filter_map(|text| not_of(self.on, text));
        errors.for_each(|error| self.section.report(error));
        let refetch = keys.refetch.filter(|refetch| refetch.value);
        Tie { precedence: keys.precedence, refetch: refetch.map(|refetch| refetch.map(drop)) }
    }

    fn check_deletions(&self, delete: &[DeleteDecl]) {
        for delete in delete {
            match delete {
                DeleteDecl::Type(glob) => {
                    if let Some(error) = not_of(self.on, glob) {
                        self.section.report(error);
                    }
                }
                DeleteDecl::When(conditions) => {
                    let mut paths = conditions.iter().flat_map(|when| &when.paths);
                    if let Some(path) = paths.find(|path| path.is_of_element()) {
                        let path = path.to_string();
                        let problem = self.at.error(format!("`delete` asks for {path:?}"));
                        self.section.report(problem.hint(
                            "a deletion is about the whole list; to leave out an element, use `when`",
                        ));
                    }
                }
            }
        }
    }

    /// The steps of a tie. `set` are the rule's columns.
    fn steps(
        &self,
        steps: Located<Vec<Located<PrecedenceKeys>>>,
        set: &NamedValues,
    ) -> Located<Vec<StepDecl>> {
        let here = steps.place();
        let decls: Vec<_> =
            steps.value.into_iter().filter_map(|step| self.step(step, set)).collect();
        let positions = |step: &StepDecl| match step {
            StepDecl::Value { order, .. } | StepDecl::Type(order) => order.len() + 1,
        };
        let all = decls.iter().try_fold(1_usize, |all, step| all.checked_mul(positions(step)));
        if all.and_then(|all| i64::try_from(all).ok()).is_none_or(|all| all > FETCHED) {
            let problem = here.error("its lists have too many combinations");
            self.section.report(problem.hint(format!(
                "shorten the lists: the product of their lengths, each plus 1, is at most {FETCHED}"
            )));
        }
        here.map(|()| decls)
    }

    fn step(&self, step: Located<PrecedenceKeys>, set: &NamedValues) -> Option<StepDecl> {
        let here = step.place();
        let PrecedenceKeys { column, path, order, r#type } = step.value;
        let texts =
            |words: Vec<Located<String>>| words.into_iter().map(|word| word.value).collect();
        let names = || set.iter().map(|(name, _)| name.value.as_str());
        let value = match (column, path, order.is_some(), r#type) {
            (Some(column), None, true, None) => {
                let Some(found) = names().position(|name| name == column) else {
                    let problem = here.error(format!("`{column}` is not set by this rule"));
                    self.section.report(problem.suggest(&column, names()));
                    return None;
                };
                set[found].1.value.clone()
            }
            (None, Some(paths), true, None) => ValueDecl::Paths { paths, form: Form::AsIs },
            (None, None, false, Some(types)) => return Some(StepDecl::Type(texts(types))),
            _ => return None,
        };
        if value.is_of_element() {
            let problem = here.error("events about a list do not compare by its elements");
            self.section.report(
                problem.hint("precedence = { type = [\"*.created\", \"*\"] }, or the path of a value outside the list"),
            );
            return None;
        }
        let stored = order?.into_iter().map(|word| self.stored(&value, word)).collect();
        Some(StepDecl::Value { order: stored, value })
    }

    /// The text of a word of `order` as a value with this form is stored, so that both compare.
    fn stored(&self, value: &ValueDecl, word: Located<String>) -> String {
        let (problem, hint) = match value {
            ValueDecl::Paths { form: Form::Json, .. } | ValueDecl::Money { .. } => (
                "JSON and amounts of money do not compare with the words of `order`".to_owned(),
                "use `path`",
            ),
            ValueDecl::Paths { form, .. } => match form.stored_text(&word.value) {
                Ok(stored) => return stored,
                Err(expected) => (
                    format!("{:?} is not a valid {expected}, as the column requires", word.value),
                    "use the values of the provider",
                ),
            },
            ValueDecl::Constant(_) | ValueDecl::Event(_) => return word.value,
        };
        self.section.report(word.error(problem).hint(hint));
        word.value
    }

    /// Which of the ways to keep the newest event's rows a rule has. Reports combinations that exclude each other.
    fn newest(&self, newest: Newest, tie: Tie, update: bool, tombstone: bool) -> TableWrite {
        let Tie { precedence, refetch } = tie;
        let tie = precedence.map(|steps| self.steps(steps, &newest.set));
        let newest = Newest { tie, ..newest };
        let report = |error| self.section.report(error);
        let fits = !self.has_handler && (self.has_each || (!update && tombstone));
        if let Some(given) = refetch.as_ref().filter(|_| !fits) {
            let problem =
                given.error("`refetch` works only in a rule that keeps the newest state of rows");
            report(problem.hint("remove it, or remove `update`, `tombstone`, `add` and `handler`"));
        }
        let refetch = refetch.filter(|_| fits);
        if self.has_each {
            if update || !tombstone {
                let problem =
                    self.at.error("`update` and `tombstone` cannot be combined with `each`");
                report(problem.hint("remove them: Hookmill removes rows that leave the list"));
            }
            return TableWrite::List { newest, refetch };
        }
        match (update, tombstone) {
            (true, false) => {
                let problem = self.at.error("a rule with `update` cannot remove rows");
                report(problem.hint("remove `tombstone`: `_deleted` marks deleted rows"));
                TableWrite::Update { newest }
            }
            (true, true) => TableWrite::Update { newest },
            (false, true) => TableWrite::Upsert { newest, refetch },
            (false, false) => TableWrite::Remove { newest },
        }
    }
}

impl RuleDecl {
    /// Reports every path that begins at an element, where there is no list.
    fn report_elements(&self, section: &Section<'_>) {
        let hint = "`@` refers to an element of the list that `each` selects: each = \"data.object.items.data\"";
        for value in self.values().into_iter().filter(|value| value.value.is_of_element()) {
            section.report(value.error("`each` is missing").hint(hint));
        }
        let mut paths = self.when.iter().flatten().flat_map(|when| &when.paths);
        if let Some(path) = paths.find(|path| path.is_of_element()) {
            let problem = format!("`when` asks for {:?}, but `each` is missing", path.to_string());
            section.report(self.name.error(problem).hint(hint));
        }
    }
}

fn patterns(text: &Located<String>, sources: &Sources<'_>, section: &Section<'_>) -> Vec<Pattern> {
    let names = match sources {
        Sources::Preset(users) => {
            let pattern = |source: &&String| Pattern {
                source: (*source).clone(),
                event_type: text.value.clone(),
            };
            return users.iter().map(pattern).collect();
        }
        Sources::Named(names) => names,
    };
    let error = text.error(format!("found {:?}", text.value));
    let error = match text.value.split_once(':') {
        None => error.hint(format!("expected {ONE_EVENT}")),
        Some((_, "")) => error.hint("the type of the event is missing; `*` means every type"),
        Some((_, event_type))
            if event_type.contains(|c: char| c.is_whitespace() || c.is_control()) =>
        {
            error.hint("an event type cannot contain whitespace")
        }
        Some((source, event_type)) if names.contains(source) => {
            return vec![Pattern { source: source.to_owned(), event_type: event_type.to_owned() }];
        }
        Some((source, _)) => {
            let error = text.error(format!("no source has the name `{source}`"));
            error.suggest(source, names.iter().map(String::as_str))
        }
    };
    section.report(error);
    Vec::new()
}

/// The error of a pattern of event types that matches none of the events in `on`.
fn not_of(on: &[Pattern], text: &Located<String>) -> Option<ConfigError> {
    // An empty `on` has been reported.
    if on.is_empty() || on.iter().any(|pattern| pattern.may_be(&text.value)) {
        return None;
    }
    let error = text.error(format!("`on` matches no event of type {:?}", text.value));
    let types = on.iter().map(|pattern| format!("{:?}", pattern.event_type));
    let types = types.collect::<Vec<_>>().join(", ");
    Some(
        error.hint(format!(
            "add it to `on`, or name a type from there, without its source: {types}"
        )),
    )
}
