//! `[[tests]]`: events, and their expected results. `hookmill check` runs them.

use hookmill_keys::kind::{
    choice, members, object, one_or_many, table, table_or, table_then, text, whole,
};
use hookmill_keys::{Kind, Located, Section, keys};
use serde_json::{Map, Value, json};

keys! {
    /// A test: events, and their expected results.
    #[derive(Clone, PartialEq, Debug)]
    pub struct RuleTest {
        /// The name of the test in messages.
        pub name: Option<Located<String>> =
            text("a name").located().optional().example("\"who signs up is a user\""),
        /// Rows that exist before the events arrive, such as those that your application makes and rules with `update` change.
        pub before: Vec<Before> =
            one_or_many(table("a table: { table = \"accounts\", row = { id = 1 } }"), "a table, or a list")
                .default("[]").hidden_default()
                .example("{ table = \"accounts\", row = { id = 1, stripe_customer_id = \"cus_1\" } }"),
        /// The events, in order of arrival.
        pub given: Vec<Given> =
            one_or_many(table("a table: { source = \"stripe\", file = \"tests/paid.json\" }"), "a table, or a list")
                .not_empty("the test has no events", "add one: { source = \"stripe\", file = \"tests/paid.json\" }")
                .required("add the events: given = { source = \"stripe\", file = \"tests/paid.json\" }")
                .example("{ source = \"stripe\", file = \"tests/paid.json\" }"),
        /// The expected results. Every result must hold. `"nothing"` means that no rule writes or sends anything, and that no event becomes a
        /// dead letter.
        pub expect: Vec<Located<Expectation>> =
            one_or_many(expectation().located(), "a table, or a list")
                .not_empty("the test expects nothing in particular", "add what must hold: { table = \"invoices\", row = { id = \"in_1\" } }")
                .required("add the expected results: expect = { table = \"invoices\", row = { id = \"in_1\" } }")
                .example("{ table = \"invoices\", row = { id = \"in_1\" } }"),
    }
}

keys! {
    /// A row that exists before the events arrive.
    #[derive(Clone, PartialEq, Debug)]
    pub struct Before {
        /// The table.
        pub table: Located<String> =
            text("the name of a table").located().required("add the table: table = \"accounts\"")
                .example("\"accounts\""),
        /// The row: columns and their values. `true` is 1, and a table or a list is JSON. Columns of Hookmill's that cannot be NULL
        /// have values that are older than every event.
        pub row: Located<Map<String, Value>> =
            object("columns and their values: row = { id = 1 }").located()
                .required("add the row: row = { id = 1 }").example("{ id = 1, stripe_customer_id = \"cus_1\" }"),
    }
}

keys! {
    /// A request.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct Given {
        /// The event's source.
        pub source: Located<String> =
            text("the name of a source").located().required("add the event's source: source = \"stripe\"")
                .example("\"stripe\""),
        /// The file with the body, relative to hookmill.toml.
        pub file: Located<String> =
            text("a file").located().required("add the file with its body: file = \"tests/paid.json\"")
                .example("\"tests/paid.json\""),
        /// The event's type, if the provider sends it in a header.
        pub event: Option<String> = text("a text").optional().example("\"issues\""),
        /// The event's id, if the provider sends it in a header.
        pub id: Option<String> = text("a text").optional().example("\"1\""),
        /// Other headers of the request.
        pub headers: Option<Vec<(Located<String>, String)>> =
            members(text("a text"), "headers and their values: { X-Request-Id = \"1\" }").optional()
                .example("{ X-Shopify-Shop-Domain = \"acme.myshopify.com\" }"),
    }
}

keys! {
    /// An expected result.
    pub struct ExpectKeys {
        /// The table or the view.
        table: Option<String> = text("the name of a table").optional().example("\"invoices\""),
        /// An expected row of `table`: columns and their values. Other columns do not matter. `true` is 1, a table or a list is JSON, and
        /// `{ exists = false }` is NULL.
        row: Option<Map<String, Value>> =
            object("columns and their values: row = { id = \"in_1\" }").optional().example("{ id = \"in_1\" }"),
        /// The expected number of rows of `table`.
        rows: Option<u32> = whole(0..=u32::MAX).optional().example("0"),
        /// An expected email: `rule`, `template`, `to`, `cc`, `reply_to`, `data`.
        email: Option<Map<String, Value>> =
            message(&["rule", "template", "to", "cc", "reply_to", "data"]).optional()
                .example("{ template = \"welcome\" }"),
        /// The expected number of emails.
        emails: Option<u32> = whole(0..=u32::MAX).optional().example("0"),
        /// An expected SMS: `rule`, `to`, `body` (the template), `data`.
        sms: Option<Map<String, Value>> =
            message(&["rule", "to", "body", "data"]).optional().example("{ to = \"+15550100002\" }"),
        /// The expected number of SMS.
        texts: Option<u32> = whole(0..=u32::MAX).optional().example("0"),
        /// An expected tracking event: `rule`, `event`, `to`, `data`.
        track: Option<Map<String, Value>> =
            message(&["rule", "event", "to", "data"]).optional().example("{ event = \"Subscribed\" }"),
        /// The expected number of tracking events.
        tracked: Option<u32> = whole(0..=u32::MAX).optional().example("0"),
        /// The result of the last event: `applied`, `recorded` (no rule matches it), `ignored` or `dead_letter`.
        outcome: Option<&'static str> = choice(OUTCOMES.map(|name| (name, name)).to_vec()).optional().example("\"applied\""),
        /// A part of an event's error: the event becomes a dead letter.
        error: Option<String> = text("a text").optional().example("\"not a valid whole number\""),
    }
    schema { "if": true, "then": { "oneOf": [
        { "required": ["table", "row"] },
        { "required": ["table", "rows"] },
        { "required": ["email"] },
        { "required": ["emails"] },
        { "required": ["sms"] },
        { "required": ["texts"] },
        { "required": ["track"] },
        { "required": ["tracked"] },
        { "required": ["outcome"] },
        { "required": ["error"] },
    ] } };
}

const EXPECTED: &str = "\"nothing\", or a table with one of `table`, `email`, `emails`, `sms`, `texts`, `track`, `tracked`, `outcome` and `error`";

/// The expected members of a message.
fn message(names: &'static [&'static str]) -> Kind<Map<String, Value>> {
    let properties: Map<_, _> = names.iter().map(|name| ((*name).to_owned(), json!({}))).collect();
    let schema = json!({ "properties": properties, "additionalProperties": false });
    object("a table of expected values").with(schema).and_then(move |item, members| {
        for (name, _) in item.section("")?.members() {
            if !names.contains(&name.value.as_str()) {
                let problem = name.error(format!("unknown key `{}`", name.value));
                item.report(problem.suggest(&name.value, names.iter().copied()));
            }
        }
        Some(members)
    })
}

/// The results of an event.
const OUTCOMES: [&str; 4] = ["applied", "recorded", "ignored", "dead_letter"];

/// An expected result, after all events of a test have been applied.
#[derive(Clone, PartialEq, Debug)]
pub enum Expectation {
    /// `"nothing"`: no rule writes or sends anything, and there is no dead letter.
    Nothing,
    /// A table has a row with these values.
    Row {
        /// `table`.
        table: String,
        /// `row`: columns and their values; `{ exists = false }` for `NULL`.
        row: Map<String, Value>,
    },
    /// A table has this many rows.
    Rows {
        /// `table`.
        table: String,
        /// `rows`.
        count: u32,
    },
    /// The rules send a message with these members.
    Sent {
        /// `email`, `sms` or `track`.
        what: &'static str,
        /// The members.
        content: Map<String, Value>,
    },
    /// The rules send this many messages.
    Count {
        /// `email`, `sms` or `track`.
        what: &'static str,
        /// The number.
        count: u32,
    },
    /// The result of the last event.
    Outcome {
        /// `applied`, `recorded`, `ignored` or `dead_letter`.
        outcome: &'static str,
    },
    /// The last event becomes a dead letter.
    Error {
        /// A part of its error.
        error: String,
    },
}

fn expectation() -> Kind<Expectation> {
    let nothing = Kind::new(
        || json!({ "const": "nothing", "description": "No rule writes or sends anything, and there is no dead letter." }),
        |item| {
            let text = item.string(EXPECTED)?;
            if text != "nothing" {
                item.unexpected(format!("{text:?}"), EXPECTED);
            }
            (text == "nothing").then_some(Expectation::Nothing)
        },
    );
    table_or(table_then(EXPECTED, ExpectKeys::expectation), nothing)
}

impl ExpectKeys {
    fn expectation(section: &Section<'_>, keys: Self) -> Option<Expectation> {
        let given =
            ["table", "email", "emails", "sms", "texts", "track", "tracked", "outcome", "error"];
        let given: Vec<_> = given.into_iter().filter(|key| section.at(key).is_some()).collect();
        if given.len() != 1 {
            let problem = match given.as_slice() {
                [] => "the expectation is empty".to_owned(),
                several => format!("`{}` exclude each other", several.join("`, `")),
            };
            let problem = section.here.error(problem).hint(format!("expected {EXPECTED}"));
            if given.is_empty() {
                section.report_consequence(problem);
            } else {
                section.report(problem);
            }
            return None;
        }
        let [row, rows] = ["row", "rows"].map(|key| section.at(key));
        if section.at("table").is_none() {
            for (key, here) in [("row", &row), ("rows", &rows)] {
                if let Some(here) = here {
                    let problem = here.error(format!("`{key}` works only with `table`"));
                    section.report(problem.hint(format!("remove `{key}`")));
                }
            }
        }
        let sent = |what, content: Option<_>| Some(Expectation::Sent { what, content: content? });
        let count = |what, count: Option<_>| Some(Expectation::Count { what, count: count? });
        match given.as_slice() {
            ["email"] => sent("email", keys.email),
            ["emails"] => count("email", keys.emails),
            ["sms"] => sent("sms", keys.sms),
            ["texts"] => count("sms", keys.texts),
            ["track"] => sent("track", keys.track),
            ["tracked"] => count("track", keys.tracked),
            ["error"] => Some(Expectation::Error { error: keys.error? }),
            ["outcome"] => Some(Expectation::Outcome { outcome: keys.outcome? }),
            _ => {
                if row.is_some() == rows.is_some() {
                    let problem = if row.is_some() {
                        "`row` and `rows` exclude each other"
                    } else {
                        "`row` is missing"
                    };
                    section.report(section.here.error(problem).hint(
                        "add the expected row, row = { id = \"in_1\" }, or the number of rows, rows = 0",
                    ));
                    return None;
                }
                let table = keys.table?;
                match keys.rows {
                    Some(count) => Some(Expectation::Rows { table, count }),
                    None => Some(Expectation::Row { table, row: keys.row? }),
                }
            }
        }
    }
}
