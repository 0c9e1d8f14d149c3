//! Lists with pages. A cursor stores the position of the next page, so new rows do not move it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::problem::Problem;

/// The default page size.
const LIMIT: u32 = 50;
/// The maximum page size.
const MOST: u32 = 500;

/// Paging.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Paging {
    /// The page size, at most 500. Default: 50.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// `next` from the previous page.
    cursor: Option<String>,
}

/// A page of a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Page<T> {
    /// The items, latest first.
    pub(crate) items: Vec<T>,
    /// The cursor of the next page. Absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
}

impl Paging {
    /// One more than the page size: the extra row shows whether another page follows.
    pub(crate) fn limit(&self) -> Result<u32, Problem> {
        match self.limit.unwrap_or(LIMIT) {
            limit @ 1..=MOST => Ok(limit + 1),
            limit => Err(Problem::invalid(format!("limit is {limit}; use 1 to {MOST}"))),
        }
    }

    /// The position after the previous page: a time in milliseconds and an id; none for the first page.
    pub(crate) fn after(&self) -> Result<(Option<i64>, Option<String>), Problem> {
        let cursor = self.cursor.as_ref().filter(|cursor| !cursor.is_empty());
        let Some(cursor) = cursor else { return Ok((None, None)) };
        let read = || -> Option<(i64, String)> {
            let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
            let (at, id) = text.split_once(' ')?;
            Some((at.parse().ok()?, id.to_owned()))
        };
        let (at, id) = read().ok_or_else(|| {
            Problem::invalid("invalid cursor: pass `next` from the previous page")
        })?;
        Ok((Some(at), Some(id)))
    }

    /// The page of the found rows. `key` returns the position of an item.
    pub(crate) fn page<T>(
        &self,
        mut items: Vec<T>,
        key: impl Fn(&T) -> (i64, String),
    ) -> Result<Page<T>, Problem> {
        let limit = self.limit()? as usize - 1;
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(|last| {
            let (at, id) = key(last);
            URL_SAFE_NO_PAD.encode(format!("{at} {id}"))
        });
        Ok(Page { items, next })
    }
}
