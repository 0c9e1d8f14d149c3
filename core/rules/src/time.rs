//! Times in payloads.

// Times come from payloads.
#![warn(clippy::arithmetic_side_effects)]

use std::fmt;
use std::str::FromStr;

use chrono::format::{Parsed, StrftimeItems};
use chrono::{
    DateTime, Datelike as _, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta,
    TimeZone as _, Utc,
};
#[cfg(feature = "zones")]
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use super::number::Number;

/// How a payload spells a time, and what a rule stores of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TimeForm {
    /// The spelling.
    pub spelling: Spelling,
    /// The zone of times without an offset, and of a date.
    pub zone: Zone,
    /// The date to store. Otherwise, the time is stored as milliseconds since the Unix epoch.
    pub date: Option<DatePart>,
}

/// How a payload spells a time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spelling {
    /// Seconds since the Unix epoch, optionally with a fraction.
    UnixSeconds,
    /// Milliseconds since the Unix epoch.
    UnixMilliseconds,
    /// <https://www.rfc-editor.org/rfc/rfc3339>
    Rfc3339,
    /// The first of these formats that fits the whole text. A format without a time of day means midnight.
    /// <https://docs.rs/chrono/latest/chrono/format/strftime/>
    Formats(Vec<String>),
}

/// The part of a time that is stored as text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DatePart {
    /// `2026-01-31`
    Date,
    /// `2026-01`
    Month,
}

impl DatePart {
    /// Their names in hookmill.toml.
    pub const ALL: [(&'static str, Self); 2] = [("date", Self::Date), ("month", Self::Month)];
}

/// The last year in which `chrono-tz` knows when daylight saving time begins.
#[cfg(feature = "zones")]
const LAST_YEAR: i32 = 2099;

/// A time zone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Zone {
    /// Seconds east of UTC.
    Offset(i32),
    /// A zone of the IANA database: <https://www.iana.org/time-zones>.
    #[cfg(feature = "zones")]
    Named(Tz),
}

impl Zone {
    /// Coordinated Universal Time.
    pub const UTC: Self = Self::Offset(0);

    /// The time of a clock in this zone. If it shows that time twice, as when daylight saving time ends, the first one
    /// counts. If it never shows it, since it is put forward then, the clock counts as if it had not been.
    /// <https://www.rfc-editor.org/rfc/rfc5545#section-3.3.5>
    fn of_clock(self, clock: NaiveDateTime) -> Option<DateTime<Utc>> {
        self.shown(clock).or_else(|| {
            let day = TimeDelta::days(1);
            self.shown(clock.checked_sub_signed(day)?)?.checked_add_signed(day)
        })
    }

    /// The first time at which a clock in this zone shows this.
    fn shown(self, clock: NaiveDateTime) -> Option<DateTime<Utc>> {
        match self {
            Self::Offset(seconds) => FixedOffset::east_opt(seconds)?
                .from_local_datetime(&clock)
                .earliest()
                .map(|time| time.to_utc()),
            #[cfg(feature = "zones")]
            Self::Named(zone) => {
                let time = zone.from_local_datetime(&clock).earliest();
                time.filter(|_| clock.year() <= LAST_YEAR).map(|time| time.to_utc())
            }
        }
    }

    /// The date at a time, with a year of four digits.
    fn date(self, time: DateTime<Utc>) -> Option<NaiveDate> {
        let has_four_digits = |year: i32| (0..=9999).contains(&year);
        if !has_four_digits(time.year()) {
            return None;
        }
        let date = match self {
            Self::Offset(seconds) => {
                time.with_timezone(&FixedOffset::east_opt(seconds)?).date_naive()
            }
            #[cfg(feature = "zones")]
            Self::Named(zone) => {
                let date = |time: DateTime<Utc>| time.with_timezone(&zone).date_naive();
                // After the last known year, the clock may be put forward or not.
                let hour = TimeDelta::hours(1);
                let [earlier, later] =
                    [time.checked_sub_signed(hour)?, time.checked_add_signed(hour)?];
                let is_certain = time.year() <= LAST_YEAR || date(earlier) == date(later);
                Some(date(time)).filter(|_| is_certain)?
            }
        };
        Some(date).filter(|date| has_four_digits(date.year()))
    }
}

impl FromStr for Zone {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text == "UTC" {
            return Ok(Self::UTC);
        }
        if text.starts_with(['+', '-']) {
            let offset = text.parse::<FixedOffset>().map_err(|_| ())?;
            return Ok(Self::Offset(offset.local_minus_utc()));
        }
        #[cfg(feature = "zones")]
        return text.parse().map(Self::Named).map_err(|_| ());
        #[cfg(not(feature = "zones"))]
        Err(())
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offset(0) => f.write_str("UTC"),
            Self::Offset(seconds) => match FixedOffset::east_opt(*seconds) {
                Some(offset) => offset.fmt(f),
                None => Ok(()),
            },
            #[cfg(feature = "zones")]
            Self::Named(zone) => zone.name().fmt(f),
        }
    }
}

impl TimeForm {
    /// This spelling, with the time stored.
    pub const fn of(spelling: Spelling) -> Self {
        Self { spelling, zone: Zone::UTC, date: None }
    }

    /// A time in microseconds since the Unix epoch, or the required form.
    pub(crate) fn micros(&self, text: &str) -> Result<i64, &'static str> {
        let units = |scale| Number::parse(text).and_then(|number| number.units(scale, true));
        match &self.spelling {
            Spelling::UnixSeconds => units(6).ok_or("time in Unix seconds"),
            Spelling::UnixMilliseconds => units(3).ok_or("time in Unix milliseconds"),
            Spelling::Rfc3339 => {
                let time = DateTime::parse_from_rfc3339(text);
                time.map(|time| time.timestamp_micros()).map_err(|_| "RFC 3339 time")
            }
            Spelling::Formats(formats) => {
                let mut times = formats.iter().filter_map(|format| parse(text, format, self.zone));
                times.next().map(|time| time.timestamp_micros()).ok_or("time in its `format`")
            }
        }
    }

    /// What is stored, as JSON text.
    pub(crate) fn stored(&self, text: &str) -> Result<String, &'static str> {
        let micros = self.micros(text)?;
        let Some(part) = self.date else { return Ok(micros.div_euclid(1000).to_string()) };
        let time = DateTime::from_timestamp_micros(micros).and_then(|time| self.zone.date(time));
        let date = time.ok_or("time that has a date")?;
        Ok(match part {
            DatePart::Date => date.format("\"%Y-%m-%d\""),
            DatePart::Month => date.format("\"%Y-%m\""),
        }
        .to_string())
    }
}

/// The first year of a format: a number of two digits is no year.
const FIRST_YEAR: i32 = 1000;

/// A time in this format. What the text says of a time must fit together: no part of it is left out.
fn parse(text: &str, format: &str, zone: Zone) -> Option<DateTime<Utc>> {
    let mut parsed = Parsed::new();
    chrono::format::parse(&mut parsed, text, StrftimeItems::new(format)).ok()?;
    let offset = parsed.offset();
    let of_day = [parsed.hour_div_12(), parsed.hour_mod_12(), parsed.minute(), parsed.second()];
    let has_time = parsed.timestamp().is_some() || of_day.iter().any(Option::is_some);
    let clock = if has_time {
        parsed.to_naive_datetime_with_offset(offset.unwrap_or(0)).ok()?
    } else {
        parsed.to_naive_date().ok()?.and_time(NaiveTime::MIN)
    };
    if clock.year() < FIRST_YEAR {
        return None;
    }
    match offset {
        Some(offset) => Zone::Offset(offset).of_clock(clock),
        None if parsed.timestamp().is_some() => Some(clock.and_utc()),
        None => zone.of_clock(clock),
    }
}

/// Why a text is not a format of times; `None` if it is one.
#[cfg(feature = "toml")]
pub(crate) fn problem_of_format(format: &str) -> Option<&'static str> {
    use std::fmt::Write as _;

    use chrono::format::Item;

    if StrftimeItems::new(format).any(|item| item == Item::Error) {
        return Some("unknown specifier");
    }
    if format.contains("%f") {
        return Some("`%f` is a number of nanoseconds; for a fraction of a second, write `%.f`");
    }
    if format.contains("%Z") {
        return Some("`%Z` does not determine an offset; write the name itself, and add `zone`");
    }
    let has = |specifiers: &[&str]| specifiers.iter().any(|part| format.contains(part));
    if has(&["%p", "%P"]) && has(&["%H", "%k", "%T", "%R", "%X"]) {
        return Some("`%p` needs `%I`, an hour of 12; an hour of 24 needs no `%p`");
    }
    // A format determines a time if it reads what it writes, in both halves of a day.
    let day = DateTime::from_timestamp(1_772_582_400, 0)?;
    let at = |minutes| day.checked_add_signed(TimeDelta::minutes(minutes));
    let times = [at(30)?, at(9 * 60 + 30)?, at(12 * 60 + 30)?, at(21 * 60 + 45)?];
    // This one only reads: an offset with or without a colon or minutes.
    let writable = format.replace("%#z", "%z");
    let written = |time: DateTime<Utc>| {
        let mut text = String::new();
        write!(text, "{}", time.format(&writable)).map(|()| text)
    };
    let Ok(of_day) = written(day) else { return Some("unknown specifier") };
    let is_read = |time: &DateTime<Utc>| {
        let of_time = written(*time).unwrap_or_default();
        let expected = if of_day == of_time { day } else { *time };
        parse(&of_time, format, Zone::UTC) == Some(expected)
    };
    (!times.iter().all(is_read)).then_some("it does not determine a time")
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    fn form(formats: &[&str], zone: &str) -> TimeForm {
        let formats = formats.iter().map(|format| (*format).to_owned()).collect();
        TimeForm { spelling: Spelling::Formats(formats), zone: zone.parse().unwrap(), date: None }
    }

    #[test]
    fn no_part_of_a_text_is_left_out() {
        for (format, text, expected) in [
            ("%F%z", "2026-01-05-1100", Some(1_767_610_800_000_000)),
            ("%F%#z", "2026-01-05+01:00", Some(1_767_567_600_000_000)),
            ("%F %H:%M%.f", "2026-01-05 10:07.5", None),
            ("%F %T %s", "2026-01-05 10:00:00 1767607200", Some(1_767_607_200_000_000)),
            ("%F %T %s", "2026-01-05 10:00:00 1767607201", None),
            ("%s", "1767607200", Some(1_767_607_200_000_000)),
            ("%m/%d/%y", "01/05/26", Some(1_767_571_200_000_000)),
        ] {
            assert_eq!(form(&[format], "UTC").micros(text).ok(), expected, "{format} {text}");
        }
    }

    #[test]
    fn the_first_format_that_fits_the_whole_text_counts() {
        let formats =
            ["%F %T", "%FT%T%.f", "%F %T UTC", "%F %T %z", "%a, %d %b %Y %T %z", "%d/%m/%Y"];
        for (text, zone, expected) in [
            ("2026-01-05 10:00:00", "UTC", Some(1_767_607_200_000_000)),
            ("2026-01-05 10:00:00", "+02:00", Some(1_767_600_000_000_000)),
            ("2026-01-05 10:00:00", "America/New_York", Some(1_767_625_200_000_000)),
            ("2026-01-05T10:00:00.123456", "UTC", Some(1_767_607_200_123_456)),
            ("2026-01-05T10:00:00", "UTC", Some(1_767_607_200_000_000)),
            ("2026-01-05 10:00:00 UTC", "+02:00", Some(1_767_600_000_000_000)),
            // The offset of the text, not that of the zone.
            ("2026-01-05 10:00:00 +0100", "America/New_York", Some(1_767_603_600_000_000)),
            ("Mon, 05 Jan 2026 10:00:00 +0000", "UTC", Some(1_767_607_200_000_000)),
            ("Tue, 05 Jan 2026 10:00:00 +0000", "UTC", None),
            ("05/01/2026", "UTC", Some(1_767_571_200_000_000)),
            ("2026-01-05 10:00:00 and more", "UTC", None),
            ("2026-01-05 25:00:00", "UTC", None),
            ("2026-01-05 10:00:00 +2400", "UTC", None),
            ("2026-01-05 10:00:00 -9959", "+02:00", None),
            ("05/01/26", "UTC", None),
            ("2099-07-01 00:00:00", "Europe/Berlin", Some(4_086_540_000_000_000)),
            ("2100-07-01 00:00:00", "Europe/Berlin", None),
            ("", "UTC", None),
            // Twice, and never: an hour, a midnight, and a day.
            ("2026-11-01 01:30:00", "America/New_York", Some(1_793_511_000_000_000)),
            ("2026-03-08 02:30:00", "America/New_York", Some(1_772_955_000_000_000)),
            ("08/09/2024", "America/Santiago", Some(1_725_768_000_000_000)),
            ("30/12/2011", "Pacific/Apia", Some(1_325_239_200_000_000)),
        ] {
            assert_eq!(form(&formats, zone).micros(text).ok(), expected, "{text} {zone}");
        }
    }

    #[test]
    fn a_date_is_that_of_its_zone() {
        for (zone, date, month) in [
            ("UTC", "\"2026-01-31\"", "\"2026-01\""),
            ("+09:00", "\"2026-02-01\"", "\"2026-02\""),
            ("Asia/Tokyo", "\"2026-02-01\"", "\"2026-02\""),
            ("-05:00", "\"2026-01-31\"", "\"2026-01\""),
        ] {
            let stored = |date| {
                let zone = zone.parse().unwrap();
                TimeForm { spelling: Spelling::UnixSeconds, zone, date: Some(date) }
                    .stored("1769900400")
            };
            assert_eq!(stored(DatePart::Date).as_deref(), Ok(date), "{zone}");
            assert_eq!(stored(DatePart::Month).as_deref(), Ok(month), "{zone}");
        }
        let far = TimeForm { date: Some(DatePart::Date), ..TimeForm::of(Spelling::UnixSeconds) };
        assert_eq!(far.stored("9000000000000"), Err("time that has a date"));
        let in_york = |text| {
            let zone = "America/New_York".parse().unwrap();
            TimeForm { spelling: Spelling::Rfc3339, zone, date: Some(DatePart::Date) }.stored(text)
        };
        assert_eq!(in_york("9999-12-31T23:59:59Z").as_deref(), Ok("\"9999-12-31\""));
        // Midnight, if the clock is not put forward.
        assert_eq!(in_york("2150-07-01T04:30:00Z"), Err("time that has a date"));
        assert_eq!(in_york("0000-01-01T00:00:00Z"), Err("time that has a date"));
    }

    #[cfg(feature = "toml")]
    #[test]
    fn a_format_determines_a_time() {
        for format in [
            "%F %T",
            "%Y-%m-%dT%H:%M:%S%.f%:z",
            "%s",
            "%d.%m.%y %I:%M %p",
            "%F",
            "%c",
            "%+",
            "%FT%T%.f%#z",
        ] {
            assert_eq!(problem_of_format(format), None, "{format}");
        }
        for format in
            ["%T", "%F %H", "%F %I:%M", "%F %H:%M %p", "%Y-%m", "", "now", "%Q", "%F %Z", "%F %"]
        {
            assert!(problem_of_format(format).is_some(), "{format}");
        }
    }

    #[test]
    fn a_zone_prints_as_it_was_written() {
        for zone in ["UTC", "+09:00", "-03:30", "Europe/Berlin"] {
            assert_eq!(zone.parse::<Zone>().unwrap().to_string(), zone);
        }
        for zone in ["", "+25:00", "Mars", "utc+1"] {
            assert_eq!(zone.parse::<Zone>(), Err(()), "{zone}");
        }
    }
}
