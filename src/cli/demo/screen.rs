//! The output of the demo: aligned lines, coloured if standard output is a terminal that permits it.
//!
//! `anstream` determines whether colours are used: not in a pipe or a file, and not with `NO_COLOR` or `TERM=dumb`.

use std::fmt::Display;
use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

/// The widths of the columns, in characters: time or tag, device, event type, value.
const TAG: usize = 12;
const DEVICE: usize = 14;
const EVENT_TYPE: usize = 13;
const VALUE: usize = 25;

/// The width of the text after a tag, in characters: that of the three columns which it replaces.
const TEXT: usize = DEVICE + EVENT_TYPE + VALUE + 4;

/// The style of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Heading,
    /// Less important than the text around it.
    Faint,
    /// A measured value.
    Value,
    Good,
    Warning,
    Bad,
}

impl Tone {
    const fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Heading => Style::new().bold(),
            Self::Faint => Style::new().dimmed(),
            Self::Value => AnsiColor::Cyan.on_default(),
            Self::Good => AnsiColor::Green.on_default().bold(),
            Self::Warning => AnsiColor::Yellow.on_default().bold(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
        }
    }
}

/// Returns the text in its style. Spaces at its end are not coloured, so that [`line`] can remove them.
fn paint(tone: Tone, text: &str) -> String {
    let style = tone.style();
    let shown = text.trim_end();
    let spaces = text.strip_prefix(shown).unwrap_or_default();
    if shown.is_empty() { spaces.to_owned() } else { format!("{style}{shown}{style:#}{spaces}") }
}

/// One delivered event.
#[derive(Debug, Default)]
pub struct EventLine<'a> {
    pub time: &'a str,
    pub device: &'a str,
    pub event_type: &'a str,
    pub value: &'a str,
    /// An additional remark; usually empty.
    pub note: &'a str,
}

impl EventLine<'_> {
    /// Returns the line. `device` and `value` are the styles of these columns.
    fn text(&self, device: Tone, value: Tone) -> String {
        let Self { time, device: name, event_type, value: shown, note } = self;
        format!(
            "  {}  {}  {}  {}  {}",
            paint(Tone::Faint, &format!("{time:<TAG$}")),
            paint(device, &format!("{name:<DEVICE$}")),
            paint(Tone::Faint, &format!("{event_type:<EVENT_TYPE$}")),
            paint(value, &format!("{shown:<VALUE$}")),
            paint(Tone::Warning, note),
        )
    }
}

/// Writes one line with a single call, since two threads write lines.
///
/// # Errors
///
/// The error of the operating system, such as that the pipe is closed.
pub fn line(text: impl Display) -> io::Result<()> {
    let text = format!("{}\n", text.to_string().trim_end_matches(' '));
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes a heading after an empty line.
pub fn heading(text: &str) -> io::Result<()> {
    line(format_args!("\n{}", paint(Tone::Heading, text)))
}

/// Writes the names of the columns of [`event`].
pub fn columns() -> io::Result<()> {
    let names =
        EventLine { time: "time (UTC)", device: "device", event_type: "event", value: "value", note: "" };
    line(format_args!("\n{}", names.text(Tone::Faint, Tone::Faint)))
}

/// Writes a delivered event.
pub fn event(event: &EventLine<'_>) -> io::Result<()> {
    line(event.text(Tone::Plain, Tone::Value))
}

/// Writes a report: a tag, a text, and the outcome.
pub fn report(tone: Tone, tag: &str, text: &str, outcome: &str) -> io::Result<()> {
    line(format_args!("  {}  {text:<TEXT$}  {}", paint(tone, &format!("{tag:<TAG$}")), paint(tone, outcome)))
}

/// Writes a command, preceded by its purpose as a comment, so that both can be pasted into a shell.
pub fn command(purpose: &str, text: &str) -> io::Result<()> {
    line(format_args!("  {}\n  {}", paint(Tone::Faint, &format!("# {purpose}")), paint(Tone::Value, text)))
}

/// Formats a whole number with a comma between groups of three digits: `12,345`.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && digits.len().saturating_sub(place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats the time of day in UTC: `12:34:56.789`.
pub fn time_of_day(unix_millis: i64) -> String {
    const DAY: i64 = 86_400_000;
    let millis = unix_millis.rem_euclid(DAY);
    let (hours, minutes, seconds) = (millis / 3_600_000, millis / 60_000 % 60, millis / 1_000 % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{:03}", millis % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_written_for_people() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(time_of_day(1_644_492_133_120), "11:22:13.120");
        assert_eq!(time_of_day(-1), "23:59:59.999");
    }

    #[test]
    fn columns_stay_aligned_without_their_colours() {
        let event = EventLine {
            time: "11:22:13.120",
            device: "co2 1",
            event_type: "pressure",
            value: "1003.40 hPa",
            note: "note",
        };
        let plain = anstream::adapter::strip_str(&event.text(Tone::Plain, Tone::Value)).to_string();
        let names = EventLine { note: "note", ..EventLine::default() }.text(Tone::Faint, Tone::Faint);
        let names = anstream::adapter::strip_str(&names).to_string();
        assert_eq!(plain.find("note"), names.find("note"));
        assert_eq!(plain.find("note"), Some(2 + TAG + 2 + TEXT + 2));
    }
}
