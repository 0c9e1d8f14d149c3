//! `stripe-revenue`, an example: revenue by month. A yearly invoice is earned month by month, which no path can express.

use chrono::{DateTime, Datelike as _, Months, NaiveDate};
use hookmill_rules::handler::{Event, Handler, Unhandled};
use serde::Deserialize;
use serde_json::{Value, json};

/// Returns a value for each line and month of a paid invoice: `{ "month": "2026-01", "currency": "usd", "amount": 1250 }`.
/// Amounts are in the currency's smallest unit; the first month gets the remainder of the division.
#[derive(Debug)]
pub struct Revenue;

/// <https://docs.stripe.com/api/invoices/object>
#[derive(Deserialize)]
struct Body {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    object: Invoice,
}

#[derive(Deserialize)]
struct Invoice {
    currency: String,
    lines: Lines,
}

#[derive(Deserialize)]
struct Lines {
    data: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    amount: i64,
    period: Period,
}

/// Unix seconds.
#[derive(Deserialize)]
struct Period {
    start: i64,
    end: i64,
}

impl Handler for Revenue {
    fn fields(&self) -> &'static [&'static str] {
        &["month", "currency", "amount"]
    }

    fn handle(&self, event: &Event<'_>) -> Result<Vec<Value>, Unhandled> {
        let body: Body = serde_json::from_slice(event.body)
            .map_err(|error| Unhandled(format!("not an invoice (line {})", error.line())))?;
        let Invoice { currency, lines } = body.data.object;
        let mut values = Vec::new();
        for Line { amount, period } in lines.data {
            let months = months(&period).ok_or_else(|| Unhandled("a line has no period".into()))?;
            let count = i64::try_from(months.len()).unwrap_or(i64::MAX);
            for (place, month) in months.iter().enumerate() {
                let rest = if place == 0 { amount % count } else { 0 };
                let month = month.format("%Y-%m").to_string();
                values.push(json!({ "month": month, "currency": currency, "amount": amount / count + rest }));
            }
        }
        Ok(values)
    }
}

/// The first day of each month of a period. A month begins on the period's day: 15 January to 15 March has January and
/// February. A period shorter than a month counts as one.
fn months(period: &Period) -> Option<Vec<NaiveDate>> {
    let day = |seconds| DateTime::from_timestamp(seconds, 0).map(|time| time.date_naive());
    let (start, end) = (day(period.start)?, day(period.end)?);
    let first = start.with_day(1)?;
    let mut months = vec![first];
    // No invoice spans a century. The limit bounds the loop.
    for count in 1..1200 {
        if start.checked_add_months(Months::new(count))? >= end {
            break;
        }
        months.push(first.checked_add_months(Months::new(count))?);
    }
    Some(months)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use hookmill_core::time::Timestamp;
    use hookmill_rules::EventFacts;

    use super::*;

    fn handled(body: &Value) -> Result<Vec<Value>, Unhandled> {
        let facts = EventFacts {
            source: "stripe",
            id: "evt_1",
            kind: "invoice.paid",
            received_at: Timestamp::from_seconds(0),
            headers: &BTreeMap::new(),
        };
        Revenue.handle(&Event { facts, body: body.to_string().as_bytes() })
    }

    fn invoice(amount: i64, start: &str, end: &str) -> Value {
        let seconds =
            |day: &str| Timestamp::parse_rfc3339(&format!("{day}T12:00:00Z")).unwrap().seconds();
        let period = json!({ "start": seconds(start), "end": seconds(end) });
        let lines = json!({ "data": [{ "amount": amount, "period": period }] });
        json!({ "data": { "object": { "currency": "usd", "lines": lines } } })
    }

    #[test]
    fn a_year_is_earned_month_by_month() {
        let year = handled(&invoice(12_005, "2026-01-31", "2027-01-31")).unwrap();
        assert_eq!(year.len(), 12);
        assert_eq!(year[0], json!({ "month": "2026-01", "currency": "usd", "amount": 1005 }));
        assert_eq!(year[1], json!({ "month": "2026-02", "currency": "usd", "amount": 1000 }));
        assert_eq!(year[11], json!({ "month": "2026-12", "currency": "usd", "amount": 1000 }));
        let total: i64 = year.iter().filter_map(|value| value["amount"].as_i64()).sum();
        assert_eq!(total, 12_005);
    }

    #[test]
    fn refunds_and_periods_below_a_month_are_earned_at_once() {
        let credit = handled(&invoice(-700, "2026-01-15", "2026-01-20")).unwrap();
        assert_eq!(credit, [json!({ "month": "2026-01", "currency": "usd", "amount": -700 })]);
        assert_eq!(handled(&invoice(5, "2026-03-01", "2026-03-01")).unwrap().len(), 1);
    }

    #[test]
    fn a_body_that_is_not_an_invoice_is_an_error() {
        let error = handled(&json!({ "data": {} })).unwrap_err();
        assert_eq!(error.to_string(), "not an invoice (line 1)");
        let mut odd = invoice(1, "2026-01-01", "2026-02-01");
        odd["data"]["object"]["lines"]["data"][0]["period"]["start"] = i64::MAX.into();
        assert!(handled(&odd).is_err());
    }
}
