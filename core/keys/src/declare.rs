//! What a declared key knows.

use serde_json::{Map, Value, json};

use crate::kind::Kind;
use crate::reader::{Document, Section, to_json};

/// A table whose keys are declared. Implemented by [`keys!`](crate::keys!).
pub trait Table: Sized {
    /// What the table is for.
    const DOC: &'static str;

    /// Reads the keys of a section. Errors are reported to it. `None`: a required key is missing or has no usable value.
    ///
    /// The section is not finished, so that several tables can share it.
    fn read(section: &Section<'_>) -> Option<Self>;

    /// The declarations, in order.
    fn keys() -> Vec<KeyDoc>;

    /// Members of the table's JSON Schema that say how its keys depend on each other.
    fn constraints() -> Value {
        json!({})
    }
}

type Read<T> = Box<dyn Fn(&Section<'_>, &'static str) -> Option<T>>;

/// A declared key: how to read it, and what to say of it.
pub struct Key<T> {
    read: Read<T>,
    about: About,
}

enum About {
    /// A key of its own.
    One {
        schema: Box<dyn Fn() -> Value>,
        required: bool,
        default: Option<Default>,
        examples: Vec<&'static str>,
    },
    /// The keys of a table that share the section.
    Several(Box<dyn Fn() -> Vec<KeyDoc>>),
}

/// The default of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Default {
    /// A value, as TOML.
    Value(String),
    /// A sentence about it, such as "the scheme's".
    Text(&'static str),
}

/// A declaration, for schemas and documentation.
#[derive(Clone, PartialEq, Debug)]
pub struct KeyDoc {
    /// The key.
    pub name: &'static str,
    /// What it means.
    pub doc: String,
    /// The JSON Schema of its value.
    pub schema: Value,
    /// Whether the table needs it.
    pub required: bool,
    /// What holds without it.
    pub default: Option<Default>,
    /// Values, as TOML.
    pub examples: Vec<String>,
}

/// The name of a key, from that of its field.
#[doc(hidden)]
pub fn name(field: &'static str) -> &'static str {
    field.strip_prefix("r#").unwrap_or(field)
}

/// A text as TOML, as JSON.
pub(crate) fn toml_to_json(text: &str) -> Value {
    let text = format!("value = {text}");
    let document = Document::new("", &text);
    let table = document.parse();
    let value = table.get_ref().get("value");
    value.map_or(Value::Null, |value| to_json(value.get_ref()))
}

impl<T: 'static> Kind<T> {
    /// A key that the table needs. The hint says what to add.
    pub fn required(self, hint: &'static str) -> Key<T> {
        let (read, schema) = self.into_parts();
        let read = move |section: &Section<'_>, name| {
            section.require(name, hint).and_then(|item| read(&item))
        };
        Key {
            read: Box::new(read),
            about: About::One { schema, required: true, default: None, examples: Vec::new() },
        }
    }

    /// A key that may be missing.
    pub fn optional(self) -> Key<Option<T>> {
        let (read, schema) = self.into_parts();
        let read =
            move |section: &Section<'_>, name| Some(section.get(name).and_then(|item| read(&item)));
        Key {
            read: Box::new(read),
            about: About::One { schema, required: false, default: None, examples: Vec::new() },
        }
    }

    /// A key with a default, written as TOML. The default also stands in for an unusable value, which is reported.
    pub fn default(self, toml: &'static str) -> Key<T> {
        let (read, schema) = self.into_parts();
        let read = move |section: &Section<'_>, name| {
            section.get(name).and_then(|item| read(&item)).or_else(|| {
                let text = format!("{name} = {toml}");
                let document = Document::new("", &text);
                let table = document.parse();
                document.root(&table).get(name).and_then(|item| read(&item))
            })
        };
        let default = Some(Default::Value(toml.to_owned()));
        Key {
            read: Box::new(read),
            about: About::One { schema, required: false, default, examples: Vec::new() },
        }
    }

    /// A key with a default that TOML cannot express, and what to say of it.
    pub fn or(self, default: T, text: &'static str) -> Key<T>
    where
        T: Clone,
    {
        let (read, schema) = self.into_parts();
        let read = move |section: &Section<'_>, name| {
            Some(section.get(name).and_then(|item| read(&item)).unwrap_or_else(|| default.clone()))
        };
        let default = Some(Default::Text(text));
        Key {
            read: Box::new(read),
            about: About::One { schema, required: false, default, examples: Vec::new() },
        }
    }
}

impl<T> Key<T> {
    /// The same key, with an example as TOML.
    #[must_use]
    pub fn example(mut self, toml: &'static str) -> Self {
        if let About::One { examples, .. } = &mut self.about {
            examples.push(toml);
        }
        self
    }

    /// The same key, with what to say of its default. The reader leaves it to its users.
    #[must_use]
    pub fn defaults_to(mut self, found: Default) -> Self {
        if let About::One { default, .. } = &mut self.about {
            *default = Some(found);
        }
        self
    }

    /// The same key; documentation does not mention its default, which says nothing.
    #[must_use]
    pub fn hidden_default(mut self) -> Self {
        if let About::One { default, .. } = &mut self.about {
            *default = None;
        }
        self
    }

    /// Reads the key.
    #[doc(hidden)]
    pub fn read(self, section: &Section<'_>, name: &'static str) -> Option<T> {
        (self.read)(section, name)
    }

    /// Adds what there is to say of the key.
    #[doc(hidden)]
    pub fn describe(self, name: &'static str, doc: &str, keys: &mut Vec<KeyDoc>) {
        match self.about {
            About::One { schema, required, default, examples } => {
                let examples = examples.into_iter().map(str::to_owned).collect();
                let doc = doc.trim().to_owned();
                keys.push(KeyDoc { name, doc, schema: schema(), required, default, examples });
            }
            About::Several(several) => keys.extend(several()),
        }
    }
}

/// The keys of another table, in the same section.
pub fn flatten<T: Table + 'static>() -> Key<T> {
    flatten_as(T::keys)
}

/// The keys of another table, in the same section, described by `keys`.
pub fn flatten_as<T: Table + 'static>(keys: impl Fn() -> Vec<KeyDoc> + 'static) -> Key<T> {
    Key { read: Box::new(|section, _| T::read(section)), about: About::Several(Box::new(keys)) }
}

/// Keys whose names are not known here. `read` gets the section, and `keys` describes them.
pub fn several<T>(
    read: impl Fn(&Section<'_>) -> T + 'static,
    keys: impl Fn() -> Vec<KeyDoc> + 'static,
) -> Key<T> {
    let read = move |section: &Section<'_>, _| Some(read(section));
    Key { read: Box::new(read), about: About::Several(Box::new(keys)) }
}

impl KeyDoc {
    /// The key's JSON Schema, with its documentation: editors show the description and little else.
    pub(crate) fn to_schema(&self) -> Value {
        let mut schema = self.schema.as_object().cloned().unwrap_or_default();
        if let Some(reference) = schema.remove("$ref") {
            // Editors ignore what stands beside a reference.
            schema.insert("anyOf".to_owned(), json!([{ "$ref": reference }]));
        }
        let mut description = self.doc.clone();
        match &self.default {
            Some(Default::Value(toml)) => {
                description += &format!(" Default: `{toml}`.");
                schema.insert("default".to_owned(), toml_to_json(toml));
            }
            Some(Default::Text(text)) => description += &format!(" Default: {text}."),
            None => {}
        }
        for example in &self.examples {
            description += &format!(" Example: `{example}`.");
        }
        if !self.examples.is_empty() {
            let examples: Vec<_> = self.examples.iter().map(|toml| toml_to_json(toml)).collect();
            schema.insert("examples".to_owned(), examples.into());
        }
        schema.insert("description".to_owned(), description.into());
        Value::Object(schema)
    }
}

/// The JSON Schema of a declared table.
pub(crate) fn table_schema<T: Table>() -> Value {
    schema_of(T::DOC, &T::keys(), T::constraints())
}

fn schema_of(doc: &str, keys: &[KeyDoc], constraints: Value) -> Value {
    let mut schema = Map::new();
    schema.insert("type".to_owned(), "object".into());
    schema.insert("additionalProperties".to_owned(), false.into());
    schema.insert("description".to_owned(), doc.trim().into());
    let required: Vec<_> = keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    if !required.is_empty() {
        schema.insert("required".to_owned(), required.into());
    }
    let properties: Map<_, _> =
        keys.iter().map(|key| (key.name.to_owned(), key.to_schema())).collect();
    schema.insert("properties".to_owned(), properties.into());
    if let Value::Object(constraints) = constraints {
        schema.extend(constraints);
    }
    schema.into()
}

impl KeyDoc {
    /// A key whose value is a table with these keys.
    pub fn table(name: &'static str, doc: String, keys: &[Self], constraints: Value) -> Self {
        let schema = schema_of(&doc, keys, constraints);
        Self { name, doc, schema, required: false, default: None, examples: Vec::new() }
    }
}

/// The table of a reference in Markdown: a row for each key, its default, and its meaning. `prefix` stands before each key.
pub fn reference(prefix: &str, keys: &[KeyDoc]) -> String {
    let mut text = "| Key | Default | Meaning |\n| --- | --- | --- |\n".to_owned();
    for key in keys {
        let default = match &key.default {
            Some(Default::Value(toml)) => format!("`{toml}`"),
            Some(Default::Text(text)) => (*text).to_owned(),
            None if key.required => "required".to_owned(),
            None => "none".to_owned(),
        };
        let mut meaning = key.doc.clone();
        for example in &key.examples {
            meaning += &format!(" Example: `{} = {example}`.", key.name);
        }
        let escaped = |text: &str| text.replace('|', "\\|");
        let (default, meaning) = (escaped(&default), escaped(&meaning));
        text += &format!("| `{prefix}{}` | {default} | {meaning} |\n", key.name);
    }
    text
}
