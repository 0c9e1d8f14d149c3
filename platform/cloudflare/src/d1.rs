//! The store on D1.

use std::fmt;

use hookmill_core::store::{Rows, Statement, Store, StoreError};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use worker::wasm_bindgen::JsValue;
use worker::{D1Database, Env, Result};

use crate::text;

/// A D1 database.
pub struct D1(D1Database);

impl D1 {
    /// The binding of this name.
    ///
    /// # Errors
    ///
    /// If the Worker has no such binding.
    pub fn new(env: &Env, binding: &str) -> Result<Self> {
        env.d1(binding).map(Self)
    }

    /// `batch()` is one round trip and one transaction: all statements, or none.
    async fn batch(&self, statements: Vec<Statement>) -> Result<Vec<Rows>> {
        let mut prepared = Vec::with_capacity(statements.len());
        // Each value is let go as soon as JavaScript has it: a batch's exist once, not twice.
        for Statement { sql, params } in statements {
            let params: Vec<_> =
                params.into_iter().map(|param| JsValue::from_str(&param)).collect();
            prepared.push(self.0.prepare(&*sql).bind(&params)?);
        }
        let results = self.0.batch(prepared).await?;
        results
            .iter()
            .map(|result| Ok(result.results::<Row>()?.into_iter().map(|row| row.0).collect()))
            .collect()
    }
}

impl Store for D1 {
    #[worker::send]
    async fn execute(
        &self,
        statements: Vec<Statement>,
    ) -> std::result::Result<Vec<Rows>, StoreError> {
        self.batch(statements).await.map_err(|error| StoreError::from_text(&text(&error)))
    }
}

/// A row as D1 returns it, an object with a member for each column: their values as text, in order.
struct Row(Vec<Option<String>>);

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(RowVisitor)
    }
}

struct RowVisitor;

impl<'de> Visitor<'de> for RowVisitor {
    type Value = Row;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Row, A::Error> {
        let mut columns = Vec::with_capacity(map.size_hint().unwrap_or_default());
        while map.next_key::<IgnoredAny>()?.is_some() {
            columns.push(map.next_value::<Option<Column>>()?.map(|column| match column {
                Column::Text(text) => text,
                Column::Number(number) => number.to_string(),
            }));
        }
        Ok(Row(columns))
    }
}

/// JavaScript has one kind of number; a whole one prints without a fraction.
#[derive(Deserialize)]
#[serde(untagged)]
enum Column {
    Text(String),
    Number(f64),
}
