//! The texts of emails: read, checked, and compared with what rules give them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use hookmill_config::{Config, ConfigError, Located, TemplateFiles};
use hookmill_core::email::TemplateText;
use hookmill_core::template::{Templates, text_variables};
use hookmill_rules::ast::{EffectDecl, NamedValues, SendDecl};

/// Reads the templates of a configuration and adds their errors to `faults`. `base` is the folder of hookmill.toml.
pub(crate) fn read(
    config: &Config,
    base: &Path,
    faults: &mut Vec<ConfigError>,
) -> BTreeMap<String, TemplateText> {
    let mut texts = BTreeMap::new();
    for (name, files) in &config.templates {
        let mut file = |named: &Located<String>| {
            let read = fs::read_to_string(base.join(&named.value));
            let fault = |error| named.error(format!("cannot read {}: {error}", named.value));
            read.map_err(|error| faults.push(fault(error))).ok()
        };
        let html = files.html.as_ref().and_then(&mut file);
        let text = files.text.as_ref().map(&mut file);
        // A missing part or an unreadable file has been reported.
        if let (Some(subject), Some(html)) = (&files.subject, html) {
            let text = TemplateText { subject: subject.value.clone(), html, text: text.flatten() };
            texts.insert(name.clone(), text);
        }
    }
    let templates = Templates::new(&texts);
    faults.extend(unmatched(config, templates.as_ref().ok()));
    if let Err(errors) = templates {
        faults.extend(errors.iter().filter_map(|error| {
            let named = part(config.templates.get(&error.template)?, error.part)?;
            let line = error.line.map(|line| format!("line {line}: ")).unwrap_or_default();
            let file = if error.part == "subject" { "" } else { &format!("{}, ", named.value) };
            Some(named.error(format!("{file}{line}{}", error.problem)))
        }));
    }
    texts
}

fn part<'t>(files: &'t TemplateFiles, part: &str) -> Option<&'t Located<String>> {
    match part {
        "subject" => files.subject.as_ref(),
        "html" => files.html.as_ref(),
        _ => files.text.as_ref(),
    }
}

/// Reports missing and unused variables, for readable templates.
fn unmatched(config: &Config, templates: Option<&Templates>) -> Vec<ConfigError> {
    let mut faults = Vec::new();
    for rule in &config.rules {
        let (data, at, what, used) = match &rule.effect {
            EffectDecl::Send(SendDecl::Email(email)) => {
                let name = &email.template.value;
                // A template that cannot be read has been reported.
                let there = |templates: &&Templates| templates.names().any(|known| known == name);
                let Some(templates) = templates.filter(there) else { continue };
                (
                    &email.data,
                    email.template.place(),
                    format!("template `{name}`"),
                    templates.variables(name),
                )
            }
            EffectDecl::Send(SendDecl::Sms(sms)) => match text_variables(&sms.body.value) {
                Ok(used) => (&sms.data, sms.body.place(), "`body`".to_owned(), used),
                Err(error) => {
                    faults.push(sms.body.error(error.problem));
                    continue;
                }
            },
            _ => continue,
        };
        let none = NamedValues::new();
        let at = data.as_ref().map_or(at, Located::place);
        let data = data.as_ref().map_or(&none, |data| &data.value);
        for (name, _) in used.iter().filter(|(_, needed)| **needed) {
            if !data.iter().any(|(given, _)| given.value == *name) {
                let hint = format!("say where it is: data = {{ {name} = \"data.…\" }}");
                faults.push(at.error(format!("{what} needs `{name}`")).hint(hint));
            }
        }
        for (given, _) in data.iter().filter(|(given, _)| !used.contains_key(&given.value)) {
            let problem = given.error(format!("{what} does not use `{}`", given.value));
            faults.push(problem.suggest(&given.value, used.keys().map(String::as_str)));
        }
    }
    faults
}
