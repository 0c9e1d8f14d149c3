//! The JSON Schema of a file. Editors that use Taplo show nothing beside a reference and offer each choice by itself, so schemas
//! are inlined and merged.

use serde_json::{Map, Value, json};

use crate::declare::{Table, table_schema};
use crate::kind::Kind;

/// The JSON Schema, draft 2020-12, of a file with the keys of `T`. `definitions` are the kinds that others refer to, by name.
pub fn root_schema<T: Table>(title: &str, definitions: Vec<(&str, Kind<()>)>) -> Value {
    let mut schema = table_schema::<T>();
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = title.into();
    for (name, kind) in definitions {
        let (_, make) = kind.into_parts();
        schema["$defs"][name] = make();
    }
    merge(&mut schema);
    schema
}

/// Makes one of choices that differ in their types: "a string, or a list of strings".
fn merge(schema: &mut Value) {
    const SIMPLE: [&str; 8] = [
        "type",
        "description",
        "pattern",
        "minLength",
        "maxLength",
        "items",
        "minItems",
        "maxItems",
    ];
    match schema {
        Value::Array(items) => return items.iter_mut().for_each(merge),
        Value::Object(members) => members.values_mut().for_each(merge),
        _ => return,
    }
    let Some(members) = schema.as_object_mut() else { return };
    let Some(Value::Array(choices)) = members.remove("anyOf") else { return };
    let (mut merged, mut types, mut others) = (Map::new(), Vec::new(), Vec::new());
    for choice in choices {
        match choice {
            Value::Object(mut choice)
                if choice.contains_key("type")
                    && choice.keys().all(|key| SIMPLE.contains(&key.as_str())) =>
            {
                match choice.remove("type") {
                    Some(Value::Array(several)) => types.extend(several),
                    one => types.extend(one),
                }
                merged.extend(choice);
            }
            // A choice of choices.
            Value::Object(mut choice) if choice.keys().all(|key| key == "anyOf") => {
                if let Some(Value::Array(inner)) = choice.remove("anyOf") {
                    others.extend(inner);
                }
            }
            other => others.push(other),
        }
    }
    match types.as_slice() {
        [] => {}
        [one] => drop(merged.insert("type".to_owned(), one.clone())),
        _ => drop(merged.insert("type".to_owned(), types.into())),
    }
    if others.is_empty() {
        for (key, value) in merged {
            members.entry(key).or_insert(value);
        }
        return;
    }
    others.extend((!merged.is_empty()).then_some(Value::Object(merged)));
    members.insert("anyOf".to_owned(), others.into());
    if members.contains_key("description") {
        // Taplo shows the description of choices only beside `properties`.
        members.insert("properties".to_owned(), json!({}));
    }
}
