//! Restores the spelling of numbers in re-serialised JSON, such as `1` for `1.0` and `1000` for `1e3`.

use std::ops::Range;

use super::attempt::{Attempt, Scheme};
use super::unverified_token::UnverifiedToken;

/// The largest number of bytes that are hashed to find the original spelling, which takes some milliseconds.
const MAX_HASHED: usize = 8 * 1024 * 1024;

/// The largest count of numbers for which every subset is tried. For more numbers, only all of them, and each one alone, are
/// tried.
const MAX_SUBSETS: usize = 6;

/// Returns the attempt with the numbers of its body in the spelling that was signed; empty if that is not one of the usual
/// spellings.
pub fn respelt(attempt: &Attempt, scheme: Scheme) -> Vec<Attempt> {
    let Ok(text) = std::str::from_utf8(&attempt.body) else { return Vec::new() };
    let Some(token) = attempt.token(scheme).map(UnverifiedToken::parse) else { return Vec::new() };
    let limit = MAX_HASHED.checked_div(text.len()).unwrap_or_default();
    let mut candidates = candidates(text).take(limit);
    let found = candidates.find(|body| body != text && token.matches_body(body.as_bytes()) == Some(true));
    found.map(|body| attempt.with_body(body.into_bytes())).into_iter().collect()
}

/// Returns variants of a JSON text in which some of the numbers are written in another usual way, such as `1.0` for `1`, and the
/// others as they are. One of them may be the text that was signed.
fn candidates(text: &str) -> impl Iterator<Item = String> + '_ {
    let numbers: Vec<(Range<usize>, Number)> =
        numbers(text).filter_map(|at| Some((at.clone(), Number::read(text.get(at)?)?))).collect();
    Style::ALL.into_iter().flat_map(move |style| {
        let changes: Vec<(Range<usize>, String)> = numbers
            .iter()
            .map(|(at, number)| (at.clone(), number.write(style)))
            .filter(|(at, spelling)| text.get(at.clone()) != Some(spelling))
            .collect();
        let sets = subsets(changes.len());
        sets.into_iter().map(move |set| {
            let chosen = changes.iter().enumerate().filter(|(number, _)| set.contains(number));
            replaced(text, chosen.map(|(_, change)| change))
        })
    })
}

/// Returns the sets of indexes below `count` to try, the set of all indexes first.
fn subsets(count: usize) -> Vec<Vec<usize>> {
    let all: Vec<usize> = (0..count).collect();
    if count > MAX_SUBSETS {
        return std::iter::once(all.clone()).chain(all.into_iter().map(|one| vec![one])).collect();
    }
    let mut sets = vec![Vec::new()];
    for number in all {
        let with: Vec<Vec<usize>> = sets.iter().map(|set| [&set[..], &[number]].concat()).collect();
        sets.splice(..0, with);
    }
    sets.retain(|set| !set.is_empty());
    sets
}

fn replaced<'a>(text: &str, changes: impl Iterator<Item = &'a (Range<usize>, String)>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut copied = 0;
    for (at, spelling) in changes {
        out.push_str(text.get(copied..at.start).unwrap_or_default());
        out.push_str(spelling);
        copied = at.end;
    }
    out.push_str(text.get(copied..).unwrap_or_default());
    out
}

/// Returns the ranges of the numbers in a JSON text, outside of strings.
fn numbers(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let (mut in_string, mut escaped) = (false, false);
        let rest = text.get(at..)?;
        let start = rest.bytes().position(|byte| {
            if in_string {
                in_string = escaped || byte != b'"';
                escaped = !escaped && byte == b'\\';
                return false;
            }
            in_string = byte == b'"';
            byte == b'-' || byte.is_ascii_digit()
        })?;
        let start = at.saturating_add(start);
        let is_part = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
        let length = text.get(start..)?.bytes().take_while(is_part).count();
        at = start.saturating_add(length);
        Some(start..at)
    })
}

/// A spelling of numbers in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// `1000`, `21.5`
    Plain,
    /// `1000.0`, `21.5`
    Fraction,
    /// `1000.00`, `21.50`
    TrailingZero,
    /// `1e3`, `2.15e1`
    Exponent { mark: char, plus: bool, two_digits: bool, fraction: bool },
}

impl Style {
    /// The spellings of the usual JSON libraries.
    const ALL: [Self; 9] = [
        Self::Plain,
        Self::Fraction,
        Self::TrailingZero,
        Self::exponent('e', false, false, false),
        Self::exponent('E', false, false, false),
        Self::exponent('e', true, false, false),
        Self::exponent('e', true, true, false),
        Self::exponent('E', false, false, true),
        Self::exponent('e', false, false, true),
    ];

    const fn exponent(mark: char, plus: bool, two_digits: bool, fraction: bool) -> Self {
        Self::Exponent { mark, plus, two_digits, fraction }
    }
}

/// A number in JSON: its digits without leading and trailing zeros, and the position of the decimal point.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Number {
    is_negative: bool,
    /// The significant digits; empty for zero.
    digits: String,
    /// The number of digits before the decimal point.
    point: i32,
}

impl Number {
    /// Parses a number of JSON. Returns `None` for a number with a large exponent or more than 40 digits.
    fn read(text: &str) -> Option<Self> {
        const MAX_EXPONENT: i32 = 64;
        let (is_negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let exponent: i32 =
            exponent.parse().ok().filter(|e: &i32| e.unsigned_abs() <= MAX_EXPONENT.unsigned_abs())?;
        let digits = [whole, fraction].concat();
        let is_usable = !whole.is_empty() && digits.len() <= 40 && digits.bytes().all(|b| b.is_ascii_digit());
        if !is_usable {
            return None;
        }
        let zeros = digits.len().checked_sub(digits.trim_start_matches('0').len())?;
        let point = i32::try_from(whole.len())
            .ok()?
            .checked_add(exponent)?
            .checked_sub(i32::try_from(zeros).ok()?)?;
        let digits = digits.trim_matches('0').to_owned();
        let point = if digits.is_empty() { 1 } else { point };
        Some(Self { is_negative, digits, point })
    }

    fn write(&self, style: Style) -> String {
        let sign = if self.is_negative { "-" } else { "" };
        let digits = if self.digits.is_empty() { "0" } else { &*self.digits };
        let spelling = match style {
            Style::Plain | Style::Fraction | Style::TrailingZero => {
                let before = usize::try_from(self.point).unwrap_or(0);
                let zeros = usize::try_from(self.point.saturating_neg()).unwrap_or(0);
                let padded = format!("{}{digits}", "0".repeat(zeros));
                let padded = format!("{padded:0<before$}");
                let (whole, fraction) = padded.split_at_checked(before).unwrap_or((&padded, ""));
                let whole = if whole.is_empty() { "0" } else { whole };
                match (style, fraction) {
                    (Style::Plain, "") => whole.to_owned(),
                    (Style::Fraction, "") => format!("{whole}.0"),
                    (Style::TrailingZero, "") => format!("{whole}.00"),
                    (Style::TrailingZero, fraction) => format!("{whole}.{fraction}0"),
                    (_, fraction) => format!("{whole}.{fraction}"),
                }
            }
            Style::Exponent { mark, plus, two_digits, fraction } => {
                let (first, rest) = digits.split_at_checked(1).unwrap_or((digits, ""));
                let rest = if rest.is_empty() && fraction { "0" } else { rest };
                let dot = if rest.is_empty() { "" } else { "." };
                let exponent = self.point.saturating_sub(1);
                let (exponent_sign, width) = (
                    if exponent < 0 {
                        "-"
                    } else if plus {
                        "+"
                    } else {
                        ""
                    },
                    if two_digits { 2 } else { 1 },
                );
                format!("{first}{dot}{rest}{mark}{exponent_sign}{:0width$}", exponent.unsigned_abs())
            }
        };
        format!("{sign}{spelling}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_found_outside_of_strings() {
        let text = r#"{"a1":[-1.5e+3,0,"2","\"3"],"b":4}"#;
        let found: Vec<_> = numbers(text).filter_map(|at| text.get(at)).collect();
        assert_eq!(found, ["-1.5e+3", "0", "4"]);
        assert_eq!(numbers("\"1").count(), 0);
        assert_eq!(subsets(2), [vec![0, 1], vec![1], vec![0]]);
        assert_eq!(subsets(7).len(), 8);
    }

    #[test]
    fn a_number_is_written_in_every_style() {
        for (number, spellings) in [
            ("1000", ["1000", "1000.0", "1000.00", "1e3", "1E3", "1e+3", "1e+03", "1.0E3", "1.0e3"]),
            (
                "21.50",
                ["21.5", "21.5", "21.50", "2.15e1", "2.15E1", "2.15e+1", "2.15e+01", "2.15E1", "2.15e1"],
            ),
            (
                "-1.5e-3",
                [
                    "-0.0015", "-0.0015", "-0.00150", "-1.5e-3", "-1.5E-3", "-1.5e-3", "-1.5e-03", "-1.5E-3",
                    "-1.5e-3",
                ],
            ),
            ("0.0", ["0", "0.0", "0.00", "0e0", "0E0", "0e+0", "0e+00", "0.0E0", "0.0e0"]),
        ] {
            let read = Number::read(number).expect("a number");
            assert_eq!(Style::ALL.map(|style| read.write(style)), spellings, "{number}");
        }
        for odd in ["", "-", "1e", "1e999", "1.2.3", ".5", "1e+-3", "--1"] {
            assert_eq!(Number::read(odd), None, "{odd}");
        }
    }

    proptest! {
        #[test]
        fn every_style_has_the_same_value(value in -1e9..1e9_f64) {
            let read = Number::read(&value.to_string()).expect("a number");
            for style in Style::ALL {
                prop_assert_eq!(read.write(style).parse::<f64>().expect("a number"), value);
            }
        }

        #[test]
        fn no_text_is_too_odd(text in "\\PC{0,40}|[0-9eE.+\"\\\\{}-]{0,20}") {
            prop_assert!(candidates(&text).take(100).count() <= 100);
        }
    }
}
