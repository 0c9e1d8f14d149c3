//! What a declared key knows.

use serde_json::{Map, Value, json};

use crate::kind::Kind;
use crate::reader::{Document, Item, Section, to_json};

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
        note: Option<String>,
        required: bool,
        default: Option<DefaultDoc>,
        examples: Vec<&'static str>,
    },
    /// The keys of a table that share the section.
    Several(Box<dyn Fn() -> Vec<KeyDoc>>),
}

/// The default of a key, for documentation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DefaultDoc {
    /// A value, as TOML.
    Value(String),
    /// In words, such as "the scheme's".
    Text(String),
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
    /// Whether it is required.
    pub required: bool,
    /// Its default.
    pub default: Option<DefaultDoc>,
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
    /// A key of this kind: how to read it, given the reader of its value.
    fn key<U>(
        self,
        required: bool,
        default: Option<DefaultDoc>,
        read: impl Fn(&Section<'_>, &'static str, &dyn Fn(&Item<'_>) -> Option<T>) -> Option<U>
        + 'static,
    ) -> Key<U> {
        let note = self.note();
        let (of_value, schema) = self.into_parts();
        let read = move |section: &Section<'_>, name| read(section, name, &of_value);
        let about = About::One { schema, note, required, default, examples: Vec::new() };
        Key { read: Box::new(read), about }
    }

    /// A key without which the table cannot be used. The hint says what to add.
    pub fn required(self, hint: &'static str) -> Key<T> {
        self.key(true, None, move |section, name, read| {
            section.require(name, hint).and_then(|item| read(&item))
        })
    }

    /// A key that the table needs, but without which the rest of the table is checked all the same.
    pub fn expected(self, hint: &'static str) -> Key<Option<T>> {
        self.key(true, None, move |section, name, read| {
            Some(section.require(name, hint).and_then(|item| read(&item)))
        })
    }

    /// A key that may be missing.
    pub fn optional(self) -> Key<Option<T>> {
        self.key(false, None, |section, name, read| {
            Some(section.get(name).and_then(|item| read(&item)))
        })
    }

    /// A key with a default, written as TOML. The default also stands in for an unusable value, which is reported.
    ///
    /// # Panics
    ///
    /// While it reads: if the default is not a value of this kind.
    pub fn default(self, toml: &'static str) -> Key<T> {
        let default = Some(DefaultDoc::Value(toml.to_owned()));
        self.key(false, default, move |section, name, read| {
            let given = section.get(name).and_then(|item| read(&item));
            Some(given.unwrap_or_else(|| {
                let text = format!("{name} = {toml}");
                let document = Document::new("", &text);
                let table = document.parse();
                let default = document.root(&table).get(name).and_then(|item| read(&item));
                default.filter(|_| document.faults() == 0).unwrap_or_else(|| {
                    panic!("the default of `{name}` is not one of its values: {toml}")
                })
            }))
        })
    }
}

impl<T> Key<T> {
    /// Documents an example, as TOML.
    #[must_use]
    pub fn example(mut self, toml: &'static str) -> Self {
        if let About::One { examples, .. } = &mut self.about {
            examples.push(toml);
        }
        self
    }

    /// Documents a default that the caller applies, in words.
    #[must_use]
    pub fn defaults_to(self, text: &'static str) -> Self {
        self.with_default(Some(DefaultDoc::Text(text.to_owned())))
    }

    /// Documents a default that the caller applies, as TOML.
    #[must_use]
    pub fn defaults_to_value(self, toml: &'static str) -> Self {
        self.with_default(Some(DefaultDoc::Value(toml.to_owned())))
    }

    /// Hides the default from the documentation.
    #[must_use]
    pub fn hidden_default(self) -> Self {
        self.with_default(None)
    }

    fn with_default(mut self, found: Option<DefaultDoc>) -> Self {
        if let About::One { default, .. } = &mut self.about {
            *default = found;
        }
        self
    }

    /// Reads the key.
    #[doc(hidden)]
    pub fn read(self, section: &Section<'_>, name: &'static str) -> Option<T> {
        (self.read)(section, name)
    }

    /// Adds the key's documentation.
    #[doc(hidden)]
    pub fn describe(self, name: &'static str, doc: &str, keys: &mut Vec<KeyDoc>) {
        match self.about {
            About::One { schema, note, required, default, examples } => {
                let examples = examples.into_iter().map(str::to_owned).collect();
                let note = note.map(|note| format!(" {note}")).unwrap_or_default();
                let doc = format!("{}{note}", doc.trim()).trim().to_owned();
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
        // Without documentation of its own, a table has that of its declaration.
        let of_table = schema.get("description").and_then(Value::as_str).unwrap_or_default();
        let mut description =
            if self.doc.is_empty() { of_table.to_owned() } else { self.doc.clone() };
        match &self.default {
            Some(DefaultDoc::Value(toml)) => {
                description += &format!(" Default: `{toml}`.");
                schema.insert("default".to_owned(), toml_to_json(toml));
            }
            Some(DefaultDoc::Text(text)) => description += &format!(" Default: {text}."),
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

/// The table of a reference in Markdown: a row for each key, its default, and its meaning.
pub fn reference(keys: &[KeyDoc]) -> String {
    let mut text = "| Key | Default | Meaning |\n| --- | --- | --- |\n".to_owned();
    for key in keys {
        let default = match &key.default {
            Some(DefaultDoc::Value(toml)) => format!("`{toml}`"),
            Some(DefaultDoc::Text(text)) => text.clone(),
            None if key.required => "required".to_owned(),
            None => "none".to_owned(),
        };
        let of_table = key.schema["description"].as_str().unwrap_or_default();
        let mut meaning = if key.doc.is_empty() { of_table.to_owned() } else { key.doc.clone() };
        for example in &key.examples {
            meaning += &format!(" Example: `{} = {example}`.", key.name);
        }
        let escaped = |text: &str| text.replace('|', "\\|");
        let (default, meaning) = (escaped(&default), escaped(&meaning));
        text += &format!("| `{}` | {default} | {meaning} |\n", key.name);
    }
    text
}
