//! The store on D1.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hookmill_core::store::{Param, Row, Rows, Statement, Store, StoreError};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use worker::wasm_bindgen::JsValue;
use worker::{D1Database, Env, Result};

use crate::text;

/// A D1 database.
pub struct D1 {
    database: D1Database,
    /// Its size in bytes after the last transaction; zero before the first.
    size: AtomicU64,
}

impl D1 {
    /// The database of this binding.
    ///
    /// # Errors
    ///
    /// If the Worker has no such binding.
    pub fn new(env: &Env, binding: &str) -> Result<Self> {
        let database = env.d1(binding)?;
        Ok(Self { database, size: AtomicU64::new(0) })
    }

    /// `batch()` is one round trip and one transaction: all statements, or none.
    async fn batch(&self, statements: Vec<Statement>) -> Result<Vec<Rows>> {
        let mut prepared = Vec::with_capacity(statements.len());
        // Each value is dropped as soon as JavaScript has it, so that a batch's values exist once, not twice.
        for Statement { sql, params } in statements {
            let sql = with_casts(&sql, &params);
            let params: Vec<_> = params.into_iter().map(bound).collect();
            prepared.push(self.database.prepare(&*sql).bind(&params)?);
        }
        let results = self.database.batch(prepared).await?;
        if let Some(size) = results.last().and_then(|last| last.meta().ok()??.size_after) {
            self.size.store(size as u64, Ordering::Relaxed);
        }
        results
            .iter()
            .map(|result| {
                let columns = RefCell::default();
                let rows = result.results::<Columns>()?.into_iter();
                Ok(rows.map(|row| row.into_row(&columns)).collect())
            })
            .collect()
    }
}

impl Store for D1 {
    #[worker::send]
    async fn execute(
        &self,
        statements: Vec<Statement>,
    ) -> std::result::Result<Vec<Rows>, StoreError> {
        self.batch(statements).await.map_err(|error| StoreError::from_d1(text(&error)))
    }

    async fn size(&self) -> Option<u64> {
        Some(self.size.load(Ordering::Relaxed)).filter(|size| *size > 0)
    }
}

/// The statement with a cast around each integer parameter. D1 would bind a JavaScript number as `REAL`, whose division and
/// text differ from an integer's, and it does not accept `BigInt`. So integers travel as text.
///
/// A batch may wait in D1, so the database itself tells the time. The parameter stays, since each one is bound.
fn with_casts<'s>(sql: &'s str, params: &[Param]) -> Cow<'s, str> {
    if !params.iter().any(|param| matches!(param, Param::Integer(_) | Param::Now)) {
        return Cow::Borrowed(sql);
    }
    let mut parts = sql.split('?');
    let mut cast = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        let (number, rest) = part.split_at(digits);
        let param =
            number.parse::<usize>().ok().and_then(|number| params.get(number.checked_sub(1)?));
        cast.push_str(&match param {
            Some(Param::Integer(_)) => format!("CAST(?{number} AS INTEGER)"),
            Some(Param::Now) => {
                format!("CAST(coalesce(?{number}, round(unixepoch('subsec') * 1000)) AS INTEGER)")
            }
            _ => format!("?{number}"),
        });
        cast.push_str(rest);
    }
    Cow::Owned(cast)
}

fn bound(param: Param) -> JsValue {
    match param {
        Param::Null | Param::Now => JsValue::NULL,
        Param::Integer(integer) => JsValue::from_str(&integer.to_string()),
        Param::Text(text) => JsValue::from_str(&text),
    }
}

/// A row as D1 returns it: an object with a member for each column.
struct Columns {
    names: Vec<String>,
    values: Vec<Value>,
}

impl Columns {
    /// Rows of one statement share the names of their columns.
    fn into_row(self, shared: &RefCell<Arc<[String]>>) -> Row {
        let mut shared = shared.borrow_mut();
        if **shared != *self.names {
            *shared = self.names.into();
        }
        Row::new(shared.clone(), self.values)
    }
}

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(ColumnsVisitor)
    }
}

struct ColumnsVisitor;

impl<'de> Visitor<'de> for ColumnsVisitor {
    type Value = Columns;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Columns, A::Error> {
        let mut columns = Columns { names: Vec::new(), values: Vec::new() };
        while let Some((name, value)) = map.next_entry()? {
            columns.names.push(name);
            columns.values.push(value);
        }
        Ok(columns)
    }
}

#[cfg(test)]
mod tests {
    use hookmill_core::params;

    use super::*;

    #[test]
    fn only_integers_are_cast() {
        let sql = "SELECT ?1, ?2 WHERE a = ?10 OR b = ?2";
        let params =
            params!["a", 2_u32, 3_u32, 4_u32, 5_u32, 6_u32, 7_u32, 8_u32, 9_u32, None::<i64>];
        assert_eq!(
            with_casts(sql, &params),
            "SELECT ?1, CAST(?2 AS INTEGER) WHERE a = ?10 OR b = CAST(?2 AS INTEGER)"
        );
        assert_eq!(with_casts("SELECT ?1", &params[..1]), "SELECT ?1");
        assert_eq!(
            with_casts("SELECT ?1", &[Param::Now]),
            "SELECT CAST(coalesce(?1, round(unixepoch('subsec') * 1000)) AS INTEGER)"
        );
    }
}
