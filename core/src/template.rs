//! The texts of emails: templates of minijinja, a subject line and an HTML part, and a text part that is given or derived.
//!
//! What stands in a template by mistake is found when it is loaded, and what it misses when it is compared with the data
//! that rules give it: [`Templates::variables`].

use std::collections::{BTreeMap, BTreeSet};

use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::email::TemplateText;

/// Templates, ready to be filled in.
#[derive(Debug)]
pub struct Templates {
    environment: Environment<'static>,
    /// Name, and whether there is a text part.
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

/// What is wrong with a template.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Error)]
#[error("template `{template}`, {part}{}: {problem}", .line.map(|line| format!(", line {line}")).unwrap_or_default())]
pub struct TemplateError {
    /// Its name.
    pub template: String,
    /// `subject`, `html` or `text`.
    pub part: &'static str,
    /// The line in that part, from 1, if the fault has one.
    pub line: Option<usize>,
    /// What is wrong.
    pub problem: String,
}

const PARTS: [&str; 3] = ["subject", "html", "text"];

fn key(name: &str, part: &str) -> String {
    format!("{name}.{part}")
}

/// What [`render_text`] and [`text_variables`] call their template in an error.
const TEXT: &str = "text";

/// Fills in a template that is no more than a text.
///
/// # Errors
///
/// As [`Templates::render`].
pub fn render_text(text: &str, data: &Map<String, Value>) -> Result<String, TemplateError> {
    let data = minijinja::Value::from(minijinja::value::Serde(data));
    let rendered = environment().render_str(text, data);
    rendered.map_err(|error| TemplateError::new(TEXT, TEXT, &error))
}

/// What such a template wants to be given.
///
/// # Errors
///
/// If it has a fault.
pub fn text_variables(text: &str) -> Result<BTreeSet<String>, TemplateError> {
    let environment = environment();
    let template = environment.template_from_str(text);
    let template = template.map_err(|error| TemplateError::new(TEXT, TEXT, &error))?;
    Ok(wanted(template.undeclared_variables(false)))
}

/// Without what is there in every template.
fn wanted(names: impl IntoIterator<Item = String>) -> BTreeSet<String> {
    const GLOBALS: [&str; 4] = ["debug", "dict", "namespace", "range"];
    names.into_iter().filter(|name| !GLOBALS.contains(&name.as_str())).collect()
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    // What is missing is an error, never a blank; whether it is there may be asked.
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.set_auto_escape_callback(|key| match key.rsplit_once('.') {
        Some((_, "html")) => AutoEscape::Html,
        _ => AutoEscape::None,
    });
    environment
}

impl Templates {
    /// Reads templates.
    ///
    /// # Errors
    ///
    /// What is wrong with them: the first fault of each part.
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
        let names = texts.iter().map(|(name, texts)| (name.clone(), texts.text.is_some()));
        let names = names.collect();
        if errors.is_empty() { Ok(Self { environment, names }) } else { Err(errors) }
    }

    /// The names there are.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// What a template wants to be given, on its top level; none if there is no such template.
    pub fn variables(&self, name: &str) -> BTreeSet<String> {
        let parts = PARTS
            .into_iter()
            .filter_map(|part| self.environment.get_template(&key(name, part)).ok());
        wanted(parts.flat_map(|part| part.undeclared_variables(false)))
    }

    /// Fills a template in.
    ///
    /// # Errors
    ///
    /// If there is no such template, or something that it needs is missing. The error never holds a part of the data.
    pub fn render(&self, name: &str, data: &Map<String, Value>) -> Result<Rendered, TemplateError> {
        let data = minijinja::Value::from(minijinja::value::Serde(data));
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
        // A line end in a subject would begin another header.
        let subject = subject.split_whitespace().collect::<Vec<_>>().join(" ");
        if subject.is_empty() {
            let problem = "the subject line is blank".to_owned();
            return Err(TemplateError {
                template: name.to_owned(),
                part: "subject",
                line: None,
                problem,
            });
        }
        Ok(Rendered { subject, html, text })
    }
}

impl TemplateError {
    fn new(name: &str, part: &'static str, error: &minijinja::Error) -> Self {
        let problem = match error.kind() {
            ErrorKind::UndefinedError => "something that it needs is missing".to_owned(),
            ErrorKind::TemplateNotFound => "there is no such template".to_owned(),
            // The detail of these is about the template's text alone.
            ErrorKind::SyntaxError
            | ErrorKind::UnknownFilter
            | ErrorKind::UnknownTest
            | ErrorKind::UnknownFunction => {
                let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
                format!("{}{detail}", error.kind())
            }
            kind => kind.to_string(),
        };
        Self { template: name.to_owned(), part, line: error.line(), problem }
    }
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
        assert_eq!(templates.variables("welcome"), ["items", "name"].map(String::from).into());
        assert!(templates.variables("other").is_empty());
    }

    #[test]
    fn a_text_part_that_is_given_is_not_escaped() {
        let templates = templates("s", "<p>{{ name }}</p>", Some("Olá, {{ name }}")).unwrap();
        let rendered = templates.render("welcome", &data(json!({ "name": "A & B" }))).unwrap();
        assert_eq!(
            (rendered.html.as_str(), rendered.text.as_str()),
            ("<p>A &amp; B</p>", "Olá, A & B")
        );
    }

    #[test]
    fn what_is_wrong_is_told_without_the_data() {
        let errors = templates("{{ name", "<p>\n{% if %}</p>", Some("{{ name | nonsense }}"));
        insta::assert_debug_snapshot!(errors.unwrap_err());
        let hello = templates("Hello", "<p>\n{{ user.name.first }}</p>", None).unwrap();
        let canary = data(json!({ "user": { "name": "canary" } }));
        let missing = hello.render("welcome", &canary).unwrap_err();
        insta::assert_debug_snapshot!(missing);
        assert!(!format!("{missing:?}").contains("canary"));
        assert_eq!(
            hello.render("other", &canary).unwrap_err().problem,
            "there is no such template"
        );
        let blank = templates(" {{ name }} ", "", None).unwrap();
        assert!(blank.render("welcome", &data(json!({ "name": "" }))).is_err());
    }
}
