//! Numbers as JSON spells them: `12`, `12.0`, `1.2e1`. The value counts, not the spelling.
//! <https://www.rfc-editor.org/rfc/rfc8259#section-6>

// Numbers come from payloads.
#![warn(clippy::arithmetic_side_effects)]

use std::borrow::Cow;
use std::fmt;

use super::value::plain;

/// A decimal number: its digits, and the power of ten of the last one. Equal numbers have equal parts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Number<'t> {
    negative: bool,
    /// Without zeros at either end.
    digits: Cow<'t, str>,
    power: i64,
}

impl<'t> Number<'t> {
    /// Parses `-?digits[.digits][e[+-]digits]`. Leading zeros are allowed: texts in quotes have them.
    pub(crate) fn parse(text: &'t str) -> Option<Self> {
        let (rest, negative) = text.strip_prefix('-').map_or((text, false), |rest| (rest, true));
        let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
            None => (rest, 0),
            Some((mantissa, exponent)) => (mantissa, parse_exponent(exponent)?),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            None => (mantissa, ""),
            Some((_, "")) => return None,
            Some(parts) => parts,
        };
        let are_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !are_digits(whole) || !are_digits(fraction) {
            return None;
        }
        let length = |text: &str| i64::try_from(text.len()).unwrap_or(i64::MAX);
        let all = match (whole.trim_start_matches('0'), fraction) {
            (whole, "") => Cow::Borrowed(whole),
            ("", fraction) => Cow::Borrowed(fraction.trim_start_matches('0')),
            (whole, fraction) => Cow::Owned(format!("{whole}{fraction}")),
        };
        let end = all.trim_end_matches('0').len();
        if end == 0 {
            return Some(Self { negative: false, digits: Cow::Borrowed(""), power: 0 });
        }
        let zeros = length(&all[end..]);
        let digits = match all {
            Cow::Borrowed(all) => Cow::Borrowed(&all[..end]),
            Cow::Owned(mut all) => {
                all.truncate(end);
                Cow::Owned(all)
            }
        };
        let power = exponent.saturating_sub(length(fraction)).saturating_add(zeros);
        Some(Self { negative, digits, power })
    }

    /// How many significant digits it has.
    pub(crate) fn digits(&self) -> usize {
        self.digits.len()
    }

    /// Whether it has no fraction.
    pub(crate) fn is_whole(&self) -> bool {
        self.power >= 0
    }

    /// The number in units of its `scale`th decimal place. Further digits are not allowed, unless `cut` drops them.
    pub(crate) fn units(&self, scale: u32, cut: bool) -> Option<i64> {
        let power = self.power.saturating_add(i64::from(scale));
        let (digits, zeros) = match usize::try_from(power) {
            Ok(zeros) => (&*self.digits, zeros),
            Err(_) if !cut => return None,
            Err(_) => {
                let dropped = usize::try_from(power.unsigned_abs()).unwrap_or(usize::MAX);
                (&self.digits[..self.digits.len().saturating_sub(dropped)], 0)
            }
        };
        if digits.is_empty() {
            return Some(0);
        }
        // Of 64 bits, at most 19 digits.
        if digits.len().saturating_add(zeros) > 19 {
            return None;
        }
        let mut all = digits.bytes().chain(std::iter::repeat_n(b'0', zeros));
        all.try_fold(0_i64, |units, digit| {
            let (units, digit) = (units.checked_mul(10)?, i64::from(digit.saturating_sub(b'0')));
            if self.negative { units.checked_sub(digit) } else { units.checked_add(digit) }
        })
    }
}

/// The one spelling of the number: without an exponent, unless that would be long.
impl fmt::Display for Number<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// The maximum number of zeros that are written.
        const ZEROS: i64 = 30;
        let (sign, digits) = (if self.negative { "-" } else { "" }, &*self.digits);
        let length = i64::try_from(digits.len()).unwrap_or(i64::MAX);
        let zeros = |count: i64| "0".repeat(usize::try_from(count).unwrap_or_default());
        let point = length.saturating_add(self.power);
        match self.power {
            _ if digits.is_empty() => f.write_str("0"),
            power @ 0..=ZEROS => write!(f, "{sign}{digits}{}", zeros(power)),
            ..0 if point > 0 => {
                let (whole, fraction) = digits.split_at(usize::try_from(point).unwrap_or_default());
                write!(f, "{sign}{whole}.{fraction}")
            }
            ..0 if point > ZEROS.saturating_neg() => {
                write!(f, "{sign}0.{}{digits}", zeros(point.saturating_neg()))
            }
            power => write!(f, "{sign}{digits}e{power}"),
        }
    }
}

/// An exponent. One beyond 64 bits is as good as the largest.
fn parse_exponent(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let size = digits.parse::<i64>().unwrap_or(i64::MAX);
    Some(if text.starts_with('-') { size.saturating_neg() } else { size })
}

/// Whether two JSON texts are the same value.
pub(crate) fn same(one: &str, other: &str) -> bool {
    if one == other {
        return true;
    }
    let is_text = |json: &str| json.starts_with('"');
    if is_text(one) || is_text(other) {
        return is_text(one) && is_text(other) && plain(one) == plain(other);
    }
    if let (Some(one), Some(other)) = (Number::parse(one), Number::parse(other)) {
        return one == other;
    }
    let tree = |json: &str| serde_json::from_str::<serde_json::Value>(json).ok();
    tree(one).is_some_and(|one| Some(one) == tree(other))
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn units(text: &str, scale: u32) -> Option<i64> {
        Number::parse(text)?.units(scale, false)
    }

    #[test]
    fn every_spelling_of_a_number_is_its_value() {
        for (text, scale, expected) in [
            ("0", 0, Some(0)),
            ("-0.0e9", 2, Some(0)),
            ("0012", 0, Some(12)),
            ("12.0", 0, Some(12)),
            ("8.13548e+8", 0, Some(813_548_000)),
            ("1E3", 2, Some(100_000)),
            ("1e-2", 2, Some(1)),
            ("1200e-2", 0, Some(12)),
            ("1205e-2", 0, None),
            ("1205e-2", 2, Some(1205)),
            ("0.5", 0, None),
            ("-0.05", 2, Some(-5)),
            ("9223372036854775807", 0, Some(i64::MAX)),
            ("-9223372036854775808", 0, Some(i64::MIN)),
            ("9223372036854775808", 0, None),
            ("0.0000000000000000001e19", 0, Some(1)),
            ("1e99999999999999999999", 0, None),
            ("0e99999999999999999999", 0, Some(0)),
            ("1e-99999999999999999999", 18, None),
        ] {
            assert_eq!(units(text, scale), expected, "{text}");
        }
        for text in
            ["", "-", ".5", "5.", "1,5", "1e", "1e+", "e1", "+1", "1.e1", "--1", "1e1.0", "٣"]
        {
            assert_eq!(Number::parse(text), None, "{text}");
        }
        let cut = |text| Number::parse(text).unwrap().units(3, true);
        assert_eq!([cut("1.0009"), cut("0.0009"), cut("-12e-4")], [Some(1000), Some(0), Some(-1)]);
    }

    #[test]
    fn the_same_value_has_several_spellings() {
        for (one, other) in [
            ("1000", "1e3"),
            ("-0", "0.00"),
            (r#""a\u0062""#, r#""ab""#),
            ("[1, {}]", "[1,{}]"),
            ("1e400", "10e399"),
        ] {
            assert!(same(one, other) && same(other, one), "{one} {other}");
        }
        for (one, other) in [
            ("1", "\"1\""),
            ("1", "true"),
            ("null", "\"null\""),
            ("98765432109876543210", "98765432109876543211"),
            ("0.1", "0.10000000000000000001"),
            ("1", "-1"),
        ] {
            assert!(!same(one, other) && !same(other, one), "{one} {other}");
        }
    }

    #[test]
    fn a_number_prints_in_one_way() {
        for (text, expected) in [
            ("-0.0", "0"),
            ("0012.50", "12.5"),
            ("-1.2e3", "-1200"),
            ("0.05", "0.05"),
            ("5e-2", "0.05"),
            ("98765432109876543210", "98765432109876543210"),
            ("1e400", "1e400"),
            ("-12e-400", "-12e-400"),
        ] {
            assert_eq!(Number::parse(text).unwrap().to_string(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_printed_number_is_the_same(text in "-?[0-9]{1,40}(\\.[0-9]{1,40})?(e-?[0-9]{1,3})?") {
            let number = Number::parse(&text).unwrap();
            let printed = number.to_string();
            prop_assert_eq!(Number::parse(&printed), Some(number.clone()), "{}", printed);
        }

        #[test]
        fn a_moved_point_does_not_change_a_number(
            units in any::<i64>(), scale in 0_u32..9, point in 0_u32..25, zeros in 0_usize..4
        ) {
            let digits = format!("{:0>30}", units.unsigned_abs());
            let (whole, fraction) = digits.split_at(digits.len() - point as usize);
            let sign = if units < 0 { "-" } else { "" };
            let exponent = i64::from(point) - i64::from(scale);
            let dot = if fraction.is_empty() { "" } else { "." };
            let zeros = "0".repeat(if dot.is_empty() { 0 } else { zeros });
            let text = format!("{sign}{whole}{dot}{fraction}{zeros}e{exponent}");
            prop_assert_eq!(Number::parse(&text).unwrap().units(scale, false), Some(units), "{}", text);
        }
    }
}
