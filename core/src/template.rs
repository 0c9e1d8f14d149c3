//! The texts of emails: templates of minijinja with a subject line, an HTML part, and a text part that is given or derived.
//!
//! Errors in a template are found when it is loaded. Missing variables are found when it is compared with the data of the
//! rules: [`Templates::variables`].

// Values come from payloads, tokens and databases.
#![warn(clippy::arithmetic_side_effects)]

use std::collections::{BTreeMap, BTreeSet};

use iso_currency::Currency;
use minijinja::machinery::{Instruction, get_compiled_template};
use minijinja::{AutoEscape, Environment, ErrorKind, Template, UndefinedBehavior};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::email::TemplateText;
use crate::time::Timestamp;

/// Templates, ready to render.
#[derive(Debug)]
pub struct Templates {
    environment: Environment<'static>,
    /// By name, whether there is a text part.
    names: BTreeMap<String, bool>,
}

/// An email's texts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rendered {
    /// The subject line: one line.
    pub subject: String,
    /// The HTML part.
    pub html: String,
    /// The text part.
    pub text: String,
}

/// An error in a template.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Error)]
#[error("template `{template}`, {part}{}: {problem}", .line.map(|line| format!(", line {line}")).unwrap_or_default())]
pub struct TemplateError {
    /// Its name.
    pub template: String,
    /// `subject`, `html` or `text`.
    pub part: &'static str,
    /// The line in that part, from 1, if known.
    pub line: Option<usize>,
    /// The problem.
    pub problem: String,
}

const PARTS: [&str; 3] = ["subject", "html", "text"];

fn key(name: &str, part: &str) -> String {
    format!("{name}.{part}")
}

/// The name of the template of [`render_text`] and [`text_variables`] in errors.
const TEXT: &str = "text";

/// Renders a template that is a single text.
///
/// # Errors
///
/// As [`Templates::render`].
pub fn render_text(text: &str, data: &Map<String, Value>) -> Result<String, TemplateError> {
    let rendered = environment().render_str(text, context(data));
    rendered.map_err(|error| TemplateError::new(TEXT, TEXT, &error))
}

/// The variables of such a template, as [`Templates::variables`].
///
/// # Errors
///
/// If it has an error.
pub fn text_variables(text: &str) -> Result<BTreeMap<String, bool>, TemplateError> {
    let mut environment = environment();
    let added = environment.add_template(TEXT, text);
    added.map_err(|error| TemplateError::new(TEXT, TEXT, &error))?;
    match environment.get_template(TEXT) {
        Ok(template) => match unknown(&environment, &template) {
            Some((line, problem)) => Err(TemplateError::at(TEXT, TEXT, line, problem)),
            None => Ok(used(&environment, &template)),
        },
        Err(error) => Err(TemplateError::new(TEXT, TEXT, &error)),
    }
}

/// The variables of a template, without those that every template has; and whether each is required.
fn used(environment: &Environment<'_>, template: &Template<'_, '_>) -> BTreeMap<String, bool> {
    let tested = tested(template);
    let there = |name: &String| environment.globals().any(|(global, _)| global == *name);
    let names = template.undeclared_variables(false).into_iter().filter(|name| !there(name));
    names.map(|name| (name.clone(), !tested.contains(&name))).collect()
}

/// The variables that a template tests: `{% if name %}`, `{{ name | default("there") }}`, `name is defined`, `name or …`.
fn tested(template: &Template<'_, '_>) -> BTreeSet<String> {
    let code = &get_compiled_template(template).instructions;
    let asks = |index: u32| {
        let mut following = (index.saturating_add(1)..).map_while(|index| code.get(index));
        let next = following.find(|next| !matches!(next, Instruction::LoadConst(_)));
        matches!(
            next,
            Some(
                Instruction::JumpIfFalse(_)
                    | Instruction::JumpIfFalseOrPop(_)
                    | Instruction::JumpIfTrueOrPop(_)
                    | Instruction::Not
                    | Instruction::PerformTest("defined" | "undefined", ..)
                    | Instruction::ApplyFilter("default" | "d", ..)
            )
        )
    };
    let names = (0..).map_while(|index| Some((index, code.get(index)?)));
    let names = names.filter_map(|(index, instruction)| match instruction {
        Instruction::Lookup(name) if asks(index) => Some((*name).to_owned()),
        _ => None,
    });
    names.collect()
}

/// The first unknown filter, test or function, which would otherwise fail only when an email is sent. Returns its line, and
/// a sentence.
fn unknown(
    environment: &Environment<'_>,
    template: &Template<'_, '_>,
) -> Option<(Option<usize>, String)> {
    let code = &get_compiled_template(template).instructions;
    let undeclared = template.undeclared_variables(false);
    let mut state = environment.empty_state();
    (0..).map_while(|index| Some((index, code.get(index)?))).find_map(|(index, instruction)| {
        let (kind, name) = match instruction {
            Instruction::ApplyFilter(name, ..) => {
                let error = state.apply_filter(name, &[]).err()?;
                (error.kind() == ErrorKind::UnknownFilter).then_some(("filter", name))
            }
            Instruction::PerformTest(name, ..) => {
                let error = state.perform_test(name, &[]).err()?;
                (error.kind() == ErrorKind::UnknownTest).then_some(("test", name))
            }
            Instruction::CallFunction(name, _) => {
                let there = environment.globals().any(|(global, _)| global == *name);
                (undeclared.contains(*name) && !there).then_some(("function", name))
            }
            _ => None,
        }?;
        Some((code.get_line(index), format!("there is no {kind} `{name}`")))
    })
}

/// The filter `money`: formats an amount in the smallest unit of a currency as a decimal number. ISO 4217 defines the number
/// of decimal places. `places` overrides it, for an API that uses other units.
fn money(
    value: &minijinja::Value,
    currency: &str,
    places: Option<usize>,
) -> Result<String, minijinja::Error> {
    let fault = |problem| minijinja::Error::new(ErrorKind::InvalidOperation, problem);
    let amount = value.as_i64().or_else(|| value.as_str()?.parse().ok());
    let amount =
        amount.ok_or_else(|| fault("`money` needs a whole number of the smallest unit"))?;
    let places = match places {
        Some(places) if places <= 18 => places,
        Some(_) => return Err(fault("`money` supports at most 18 decimal places")),
        None => {
            let known = Currency::from_code(&currency.to_ascii_uppercase());
            let known = known.ok_or_else(|| fault("`money` needs the code of a currency"))?;
            known.exponent().unwrap_or_default().into()
        }
    };
    let digits = format!("{:0>width$}", amount.unsigned_abs(), width = places.saturating_add(1));
    let (whole, fraction) = digits.split_at(digits.len().saturating_sub(places));
    let sign = if amount < 0 { "-" } else { "" };
    let point = if fraction.is_empty() { "" } else { "." };
    Ok(format!("{sign}{whole}{point}{fraction}"))
}

/// The filter `date`: formats a time in UTC, given as seconds or milliseconds since the Unix epoch or in RFC 3339, with a
/// format of <https://docs.rs/chrono/latest/chrono/format/strftime/index.html>.
fn date(value: &minijinja::Value, format: Option<&str>) -> Result<String, minijinja::Error> {
    let fault = |problem| minijinja::Error::new(ErrorKind::InvalidOperation, problem);
    let number = || value.as_i64().or_else(|| value.as_str()?.parse().ok());
    // As seconds, this would be in the year 5138; as milliseconds, in 1973.
    let from_number = |n: i64| {
        if n.unsigned_abs() < 100_000_000_000 {
            Timestamp::from_seconds(n)
        } else {
            Timestamp::from_millis(n)
        }
    };
    let time = number().map(from_number);
    let of_text = |text: &str| {
        let day = || Timestamp::parse_rfc3339(&format!("{text}T00:00:00Z"));
        Timestamp::parse_rfc3339(text).or_else(day)
    };
    let time = time.or_else(|| of_text(value.as_str()?));
    let time = time.ok_or_else(|| fault("`date` needs a time"))?;
    time.format(format.unwrap_or("%Y-%m-%d"))
        .ok_or_else(|| fault("`date` does not support this format"))
}

/// `null` counts as missing at any depth, so that no email says "None".
fn context(data: &Map<String, Value>) -> minijinja::Value {
    fn without_null(value: &Value) -> Value {
        match value {
            Value::Object(members) => {
                let there = members.iter().filter(|(_, value)| !value.is_null());
                there.map(|(name, value)| (name.clone(), without_null(value))).collect()
            }
            Value::Array(items) => items.iter().map(without_null).collect(),
            value => value.clone(),
        }
    }
    let data = without_null(&Value::Object(data.clone()));
    minijinja::Value::from(minijinja::value::Serde(data))
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    // A missing value is an error, never blank; templates may test for it.
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    // Debug information tells which part of the template an error is about. Its information about the data is never
    // displayed.
    environment.set_debug(true);
    environment.add_filter("date", date);
    environment.add_filter("money", money);
    environment.set_formatter(|out, state, value| {
        if value.is_none() {
            return Err(ErrorKind::UndefinedError.into());
        }
        minijinja::escape_formatter(out, state, value)
    });
    environment.set_auto_escape_callback(|key| match key.rsplit_once('.') {
        Some((_, "html")) => AutoEscape::Html,
        _ => AutoEscape::None,
    });
    environment
}

impl Templates {
    /// Loads templates.
    ///
    /// # Errors
    ///
    /// The first error of each part.
    pub fn new(texts: &BTreeMap<String, TemplateText>) -> Result<Self, Vec<TemplateError>> {
        let mut environment = environment();
        let mut errors = Vec::new();
        for (name, texts) in texts {
            let parts = [Some(&texts.subject), Some(&texts.html), texts.text.as_ref()];
            for (part, text) in PARTS.into_iter().zip(parts) {
                let Some(text) = text else { continue };
                if let Err(error) = environment.add_template_owned(key(name, part), text.clone()) {
                    errors.push(TemplateError::new(name, part, &error));
                }
            }
        }
        for name in texts.keys() {
            for (part, template) in parts_of(&environment, name) {
                if let Some((line, problem)) = unknown(&environment, &template) {
                    errors.push(TemplateError::at(name, part, line, problem));
                }
            }
        }
        let names = texts.iter().map(|(name, texts)| (name.clone(), texts.text.is_some()));
        let names = names.collect();
        if errors.is_empty() { Ok(Self { environment, names }) } else { Err(errors) }
    }

    /// The names of the templates.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// The top-level variables of a template, and whether each is required or tested: `{% if name %}`, `{{ name |
    /// default("there") }}`. None if the template does not exist.
    pub fn variables(&self, name: &str) -> BTreeMap<String, bool> {
        let mut all = BTreeMap::new();
        for (_, template) in parts_of(&self.environment, name) {
            for (name, needed) in used(&self.environment, &template) {
                *all.entry(name).or_default() |= needed;
            }
        }
        all
    }

    /// Renders a template.
    ///
    /// # Errors
    ///
    /// If the template does not exist, or a required value is missing. The error never contains a part of the data.
    pub fn render(&self, name: &str, data: &Map<String, Value>) -> Result<Rendered, TemplateError> {
        let data = context(data);
        let part = |part: &'static str| {
            let template = self.environment.get_template(&key(name, part));
            let rendered = template.and_then(|template| template.render(data.clone()));
            rendered.map_err(|error| TemplateError::new(name, part, &error))
        };
        let (subject, html) = (part("subject")?, part("html")?);
        let text = match self.names.get(name) {
            Some(true) => part("text")?,
            _ => nanohtml2text::html2text(&html).trim().to_owned(),
        };
        // Such characters can hide what the recipient would see. A line break in a subject would begin another header.
        let visible = subject.chars().filter(|c| c.is_whitespace() || !is_hidden(*c));
        let subject = visible.collect::<String>();
        let subject = subject.split_whitespace().collect::<Vec<_>>().join(" ");
        if subject.is_empty() {
            let problem = "the subject line is blank".to_owned();
            return Err(TemplateError::at(name, "subject", None, problem));
        }
        Ok(Rendered { subject, html, text })
    }
}

impl TemplateError {
    fn new(name: &str, part: &'static str, error: &minijinja::Error) -> Self {
        let problem = match error.kind() {
            ErrorKind::UndefinedError => match source(error) {
                Some(source) => format!("a value is missing in `{source}`"),
                None => "a required value is missing".to_owned(),
            },
            ErrorKind::TemplateNotFound => "the template does not exist".to_owned(),
            // The details of these errors contain only the template's text.
            ErrorKind::SyntaxError
            | ErrorKind::UnknownFilter
            | ErrorKind::UnknownTest
            | ErrorKind::UnknownFunction => {
                let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
                format!("{}{detail}", error.kind())
            }
            kind => match source(error) {
                Some(source) => format!("{kind} in `{source}`"),
                None => kind.to_string(),
            },
        };
        Self::at(name, part, error.line(), problem)
    }

    fn at(name: &str, part: &'static str, line: Option<usize>, problem: String) -> Self {
        Self { template: name.to_owned(), part, line, problem }
    }
}

/// The tag of the template that an error is about.
fn source(error: &minijinja::Error) -> Option<&str> {
    let (template, range) = (error.template_source()?, error.range()?);
    let from = template.get(..range.start)?.rfind(['{'])?;
    let from = template
        .get(..from)?
        .rfind('{')
        .filter(|before| from.checked_sub(*before) == Some(1))
        .unwrap_or(from);
    let to = range.end.checked_add(template.get(range.end..)?.find('}')?)?;
    let to = to.checked_add(template.get(to..)?.chars().take_while(|c| *c == '}').count())?;
    template.get(from..to).filter(|source| source.len() <= 200)
}

/// The parts that a template has.
fn parts_of<'e>(
    environment: &'e Environment<'_>,
    name: &str,
) -> impl Iterator<Item = (&'static str, Template<'e, 'e>)> {
    let part = |part| Some((part, environment.get_template(&key(name, part)).ok()?));
    PARTS.into_iter().filter_map(part)
}

/// Whether a character is a control character, or changes the direction of the text: <https://www.unicode.org/reports/tr9/>.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn templates(
        subject: &str,
        html: &str,
        text: Option<&str>,
    ) -> Result<Templates, Vec<TemplateError>> {
        let text =
            TemplateText { subject: subject.into(), html: html.into(), text: text.map(Into::into) };
        Templates::new(&BTreeMap::from([("welcome".to_owned(), text)]))
    }

    fn data(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_subject_has_no_characters_that_hide_it() {
        let templates = templates("Hi {{ name }}", "x", None).unwrap();
        let subject = |name: &str| {
            templates.render("welcome", &data(json!({ "name": name }))).unwrap().subject
        };
        assert_eq!(subject("a\0b\u{202e}c\u{2066}d\u{7f}\u{200f}"), "Hi abcd");
        assert_eq!(subject("a\r\nBcc: b\u{2028}c\td"), "Hi a Bcc: b c d");
        // A family, and a word in Persian, need joiners.
        assert_eq!(subject("👩\u{200d}👧 می\u{200c}خواهم"), "Hi 👩\u{200d}👧 می\u{200c}خواهم");
    }

    #[test]
    fn html_is_escaped_and_the_text_part_is_derived() {
        let templates = templates(
            "Welcome,\r\n{{ name }}",
            "<h1>Olá, {{ name }}</h1>\n<p>{% for item in items %}{{ item.n }} × {{ item.name }}<br>{% endfor %}</p>",
            None,
        )
        .unwrap();
        let data =
            data(json!({ "name": "<b>Ines & co</b>", "items": [{ "n": 2, "name": "\"x\"" }] }));
        insta::assert_debug_snapshot!(templates.render("welcome", &data).unwrap());
        let expected = ["items", "name"].map(|name| (name.to_owned(), true));
        assert_eq!(templates.variables("welcome"), expected.into());
        assert!(templates.variables("other").is_empty());
    }

    #[test]
    fn a_given_text_part_is_not_escaped() {
        let templates = templates("s", "<p>{{ name }}</p>", Some("Olá, {{ name }}")).unwrap();
        let rendered = templates.render("welcome", &data(json!({ "name": "A & B" }))).unwrap();
        assert_eq!(
            (rendered.html.as_str(), rendered.text.as_str()),
            ("<p>A &amp; B</p>", "Olá, A & B")
        );
    }

    #[test]
    fn an_error_does_not_contain_the_data() {
        let errors = templates("{{ name", "<p>\n{% if %}</p>", Some("{{ name | nonsense }}"));
        insta::assert_debug_snapshot!(errors.unwrap_err());
        let errors = templates(
            "{% if name is nonsense %}{% endif %}",
            "<p>\n{{ name | titel }}</p>",
            Some("{% if a %}{{ now() }}{% endif %}"),
        );
        insta::assert_debug_snapshot!("nonsense", errors.unwrap_err());
        assert!(templates("s", "{% include \"footer.html\" %}", None).is_err());
        let null = |template: &str| {
            render_text(template, &data(json!({ "o": { "n": null }, "l": [null] })))
        };
        for template in
            ["{{ o.n }}", "{{ o.n | upper }}", "{{ l[0] }}", "{% for n in l %}{{ n }}{% endfor %}"]
        {
            assert!(
                null(template).unwrap_err().problem.starts_with("a value is missing in `{{ "),
                "{template}"
            );
        }
        assert_eq!(null("{% if o.n %}x{% endif %}{{ o.n | default(\"y\") }}").unwrap(), "y");
        let hello = templates("Hello", "<p>\n{{ user.name.first }}</p>", None).unwrap();
        let canary = data(json!({ "user": { "name": "canary" } }));
        let missing = hello.render("welcome", &canary).unwrap_err();
        insta::assert_debug_snapshot!(missing);
        assert!(!format!("{missing:?}").contains("canary"));
        assert_eq!(
            hello.render("other", &canary).unwrap_err().problem,
            "the template does not exist"
        );
        let blank = templates(" {{ name }} ", "", None).unwrap();
        assert!(blank.render("welcome", &data(json!({ "name": "" }))).is_err());
    }

    #[test]
    fn a_tested_variable_is_not_required() {
        let html = "{% if a %}{{ a }}{% endif %}{{ b | default(\"there\") }}{{ c or 1 }}{{ d if d is defined }}\
                    {% if not e %}{% endif %}{% if f and g %}{% endif %}{{ h }}{% if h.i == 1 %}{% endif %}\
                    {% macro m(x) %}{{ x }}{% endmacro %}{{ m(j) }}{% for n in range(2) %}{{ n }}{% endfor %}";
        let templates = templates("s", html, None).unwrap();
        let needed = templates.variables("welcome").into_iter().filter(|(_, needed)| *needed);
        assert_eq!(needed.map(|(name, _)| name).collect::<Vec<_>>(), ["h", "j"]);
        assert_eq!(templates.variables("welcome").len(), 9);
        let least = data(json!({ "h": { "i": 2 }, "j": 1 }));
        templates.render("welcome", &least).unwrap();
        assert_eq!(
            text_variables("{% if a %}{{ a }}{{ b }}{% endif %}"),
            Ok([("a".into(), false), ("b".into(), true)].into())
        );
        assert_eq!(
            text_variables("{{ a | titel }}").unwrap_err().problem,
            "there is no filter `titel`"
        );
    }

    #[test]
    fn an_amount_is_written_in_its_currency() {
        let written = |template: &str, total: Value, currency: &str| {
            render_text(template, &data(json!({ "total": total, "currency": currency })))
        };
        let plain = "{{ total | money(currency) }}";
        for (total, currency, expected) in [
            (json!(1234), "USD", "12.34"),
            (json!(5), "eur", "0.05"),
            (json!(-5), "EUR", "-0.05"),
            (json!(1234), "JPY", "1234"),
            (json!("1234"), "KWD", "1.234"),
            (json!(0), "KWD", "0.000"),
            (json!(i64::MIN), "USD", "-92233720368547758.08"),
        ] {
            assert_eq!(written(plain, total, currency).unwrap(), expected);
        }
        assert_eq!(
            written("{{ total | money(currency, 2) }}", json!(1234), "ISK").unwrap(),
            "12.34"
        );
        for (template, total, currency) in [
            (plain, json!(12.5), "USD"),
            (plain, json!("canary"), "USD"),
            (plain, json!(1), "XYZ"),
            ("{{ total | money(currency, 99) }}", json!(1), "USD"),
        ] {
            let error = written(template, total, currency).unwrap_err();
            assert!(!error.problem.contains("canary"), "{error}");
        }
    }

    #[test]
    fn a_time_is_written_as_a_date() {
        let written = |template: &str, at: Value| render_text(template, &data(json!({ "at": at })));
        for at in [
            json!(1_767_225_600),
            json!(1_767_225_600_000_i64),
            json!("1767225600"),
            json!("2026-01-01T02:00:00+02:00"),
            json!("2026-01-01"),
        ] {
            assert_eq!(written("{{ at | date }}", at).unwrap(), "2026-01-01");
        }
        let words = "{{ at | date(\"%-d %B %Y, %H:%M\") }}";
        assert_eq!(written(words, json!(0)).unwrap(), "1 January 1970, 00:00");
        for (template, at) in [
            ("{{ at | date }}", json!("canary")),
            ("{{ at | date(\"%Q\") }}", json!(0)),
            ("{{ at | date }}", json!(i64::MIN)),
            ("{{ at | date }}", json!(i64::MAX)),
        ] {
            let error = written(template, at).unwrap_err();
            assert!(error.problem.contains("date"), "{error}");
            assert!(!error.problem.contains("canary"), "{error}");
        }
        assert_eq!(
            written("{{ when | date }}", json!(0)).unwrap_err().problem,
            "invalid operation in `{{ when | date }}`"
        );
    }
}
