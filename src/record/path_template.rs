//! Where a record belongs: a file's path with placeholders such as `{date}`.
//!
//! What a placeholder stands for may come from outside, so only `A-Z a-z 0-9 _ -` are taken over and at most 64 of
//! them; anything else becomes `_`, and nothing at all becomes `none`. No value can lead out of the folder.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::Record;
use crate::event::rfc3339_millis;

/// The longest value of a placeholder.
const MAX_VALUE: usize = 64;

/// All placeholders.
const PLACEHOLDERS: [(&str, Placeholder); 5] = [
    ("date", Placeholder::Date),
    ("hour", Placeholder::Hour),
    ("connector", Placeholder::Connector),
    ("project", Placeholder::Project),
    ("eventType", Placeholder::EventType),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placeholder {
    Date,
    Hour,
    Connector,
    Project,
    EventType,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(Placeholder),
}

/// A path with placeholders: a folder that is the same for every record, and the rest.
///
/// # Examples
///
/// ```
/// use dt_receiver::record::PathTemplate;
///
/// let template: PathTemplate = "/var/dt/{date}/{eventType}.ndjson".parse().unwrap();
/// assert_eq!(template.root(), std::path::Path::new("/var/dt"));
/// let error = "/var/dt/{day}.ndjson".parse::<PathTemplate>().unwrap_err();
/// assert!(error.to_string().contains("{date}, {hour}, {connector}, {project}, {eventType}"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTemplate {
    root: PathBuf,
    rest: Vec<Part>,
}

/// Not a path template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; allowed are {{date}}, {{hour}}, {{connector}}, {{project}}, {{eventType}}")]
pub struct NotATemplate(String);

impl PathTemplate {
    /// Exactly this path, whatever it holds. A last component that is not UTF-8 is kept as well as it can be.
    #[must_use]
    pub fn fixed(path: &Path) -> Self {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let root = path.parent().map(Path::to_owned).unwrap_or_default();
        match name {
            Some(name) => Self { root, rest: vec![Part::Text(name)] },
            // "/" or "..": a folder. Opening it says so.
            None => Self { root: path.to_owned(), rest: vec![Part::Text(".".to_owned())] },
        }
    }

    /// The folder that all its files are in. It has to be there.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The same, with its folder as seen from `/`.
    #[must_use]
    pub fn absolute(mut self) -> Self {
        let root = if self.root.as_os_str().is_empty() { Path::new(".") } else { &self.root };
        if let Ok(absolute) = std::path::absolute(root) {
            self.root = absolute;
        }
        self
    }

    /// Whether it is one file for all records.
    #[must_use]
    pub fn is_fixed(&self) -> bool {
        self.rest.iter().all(|part| matches!(part, Part::Text(_)))
    }

    /// How many folders lie between the root and its files.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.relative_text().matches('/').count()
    }

    /// Writes the record's path below [`root`](Self::root) into `out`.
    pub fn render(&self, record: &Record, out: &mut String) {
        out.clear();
        let mut time = None;
        for part in &self.rest {
            let placeholder = match part {
                Part::Text(text) => {
                    out.push_str(text);
                    continue;
                }
                Part::Value(placeholder) => placeholder,
            };
            match placeholder {
                Placeholder::Date | Placeholder::Hour => {
                    let time = time.get_or_insert_with(|| rfc3339_millis(record.received_at));
                    let range = if *placeholder == Placeholder::Date { 0..10 } else { 11..13 };
                    push_safe(time.get(range), out);
                }
                Placeholder::Connector => push_safe(Some(&record.connector), out),
                Placeholder::Project => push_safe(record.project.as_deref(), out),
                Placeholder::EventType => push_safe(Some(&record.event_type), out),
            }
        }
    }

    /// Whether a path below the root may have come from [`render`](Self::render).
    #[must_use]
    pub fn matches(&self, relative: &str) -> bool {
        fits(&self.rest, relative)
    }

    /// The part with the placeholders, as it was written.
    #[must_use]
    pub fn relative_text(&self) -> String {
        let mut text = String::new();
        for part in &self.rest {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Value(value) => {
                    let name = PLACEHOLDERS.iter().find(|(_, known)| known == value);
                    text.extend(["{", name.map_or("", |(name, _)| name), "}"]);
                }
            }
        }
        text
    }
}

/// Appends a value as it may stand in a file's name.
fn push_safe(value: Option<&str>, out: &mut String) {
    let value = value.filter(|value| !value.is_empty()).unwrap_or("none");
    out.extend(value.chars().take(MAX_VALUE).map(|c| if is_safe(c) { c } else { '_' }));
}

const fn is_safe(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

fn fits(parts: &[Part], text: &str) -> bool {
    match parts.split_first() {
        None => text.is_empty(),
        Some((Part::Text(literal), rest)) => {
            text.strip_prefix(&**literal).is_some_and(|text| fits(rest, text))
        }
        Some((Part::Value(_), rest)) => {
            let most = text.chars().take(MAX_VALUE).take_while(|c| is_safe(*c)).count();
            // Safe characters are one byte each.
            (1..=most).any(|len| text.get(len..).is_some_and(|text| fits(rest, text)))
        }
    }
}

impl FromStr for PathTemplate {
    type Err = NotATemplate;

    fn from_str(text: &str) -> Result<Self, NotATemplate> {
        // The root ends at the last slash before the first placeholder, or before the file's name.
        let fixed = text.split('{').next().unwrap_or_default();
        let (root, mut left) = match fixed.rfind('/') {
            Some(0) => ("/", text.get(1..).unwrap_or_default()),
            Some(at) => (text.get(..at).unwrap_or_default(), text.get(at..).unwrap_or_default()),
            None => ("", text),
        };
        left = left.trim_start_matches('/');
        if left.is_empty() || left.ends_with('/') {
            return Err(NotATemplate("it names a folder, not a file".to_owned()));
        }
        if left.split('/').any(|component| matches!(component, "." | ".." | "")) {
            return Err(NotATemplate("`.`, `..` and `//` may not follow a placeholder".to_owned()));
        }
        let mut rest = Vec::new();
        while !left.is_empty() {
            let (literal, after) = left.split_once('{').unwrap_or((left, ""));
            if literal.contains('}') {
                return Err(NotATemplate("a `}` without its `{`".to_owned()));
            }
            if !literal.is_empty() {
                rest.push(Part::Text(literal.to_owned()));
            }
            if literal.len() == left.len() {
                break;
            }
            let Some((name, after)) = after.split_once('}') else {
                return Err(NotATemplate("a `{` without its `}`".to_owned()));
            };
            match PLACEHOLDERS.iter().find(|(known, _)| *known == name) {
                Some((_, value)) => rest.push(Part::Value(*value)),
                None => {
                    return Err(NotATemplate(format!("unknown placeholder \"{{{}}}\"", name.escape_debug())));
                }
            }
            left = after;
        }
        Ok(Self { root: PathBuf::from(root), rest })
    }
}

impl fmt::Display for PathTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.root.join(self.relative_text()).display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text: &str) -> PathTemplate {
        text.parse().expect("a template")
    }

    #[test]
    fn the_root_ends_before_the_first_placeholder() {
        for (text, root, rest) in [
            ("events.ndjson", "", "events.ndjson"),
            ("/events.ndjson", "/", "events.ndjson"),
            ("a/../b/events.ndjson", "a/../b", "events.ndjson"),
            ("/a/b-{date}/c/{hour}.ndjson", "/a", "b-{date}/c/{hour}.ndjson"),
            ("{project}", "", "{project}"),
            ("/{project}", "/", "{project}"),
        ] {
            assert_eq!((template(text).root(), &*template(text).relative_text()), (Path::new(root), rest));
            assert_eq!(template(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_template_is_refused_with_what_is_allowed() {
        for text in
            ["", "a/", "{day}", "{date", "date}", "a}{date}", "{date}/../x", "{date}//x", "{{date}}", "{}"]
        {
            let error = text.parse::<PathTemplate>().expect_err(text).to_string();
            assert!(error.contains("{date}, {hour}, {connector}"), "{text}: {error}");
        }
    }

    #[test]
    fn no_value_leads_out_of_the_folder() {
        for (value, safe) in [
            (Some("touch"), "touch"),
            (Some(""), "none"),
            (None, "none"),
            (Some(".."), "__"),
            (Some("../../etc/passwd"), "______etc_passwd"),
            (Some("a\0b\nc æ"), "a_b_c__"),
        ] {
            let mut out = String::new();
            push_safe(value, &mut out);
            assert_eq!(out, safe);
        }
        let mut out = String::new();
        push_safe(Some(&"é".repeat(1000)), &mut out);
        assert_eq!(out, "_".repeat(64));
    }

    #[test]
    fn a_rendered_path_matches_its_template_and_others_do_not() {
        let two = template("/a/{date}/{eventType}-{project}.ndjson");
        assert_eq!(two.depth(), 1);
        for (path, matches) in [
            ("2024-01-01/touch-none.ndjson", true),
            ("2024-01-01/a-b-c.ndjson", true),
            ("2024-01-01/touch.ndjson", false),
            ("2024-01-01/x/touch-none.ndjson", false),
            ("2024-01-01/touch-none.ndjson.gz", false),
            ("../touch-none.ndjson", false),
        ] {
            assert_eq!(two.matches(path), matches, "{path}");
        }
    }
}
