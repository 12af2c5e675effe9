//! The path of the file for a record, with placeholders such as `{date}`. A placeholder's value cannot contain a path separator,
//! so a path never leaves its folder.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::Record;
use super::template::{self, MAX_VALUE, NotATemplate, Part, Placeholder, Template, is_safe};

/// A path with placeholders: a fixed folder, and a relative path that depends on the record.
///
/// # Examples
///
/// ```
/// use dt_sink::record::PathTemplate;
///
/// let template: PathTemplate = "/var/dt/{date}/{eventType}.ndjson".parse().unwrap();
/// assert_eq!(template.root(), std::path::Path::new("/var/dt"));
/// let error = "/var/dt/{day}.ndjson".parse::<PathTemplate>().unwrap_err();
/// assert!(error.to_string().contains("{date}, {hour}, {connector}, {project}, {eventType}"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTemplate {
    root: PathBuf,
    rest: Template<Placeholder>,
}

impl PathTemplate {
    /// Returns a template for exactly this path, without placeholders. Bytes of a file name that are not UTF-8 are replaced.
    #[must_use]
    pub fn fixed(path: &Path) -> Self {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let root = path.parent().map(Path::to_owned).unwrap_or_default();
        match name {
            Some(name) => Self { root, rest: Template::fixed(name) },
            // The path is "/" or ends with "..": a folder, which fails on opening.
            None => Self { root: path.to_owned(), rest: Template::fixed(".".to_owned()) },
        }
    }

    /// Returns the folder that contains all files of the template. It must exist.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the template with its folder as an absolute path.
    #[must_use]
    pub fn absolute(mut self) -> Self {
        let root = if self.root.as_os_str().is_empty() { Path::new(".") } else { &self.root };
        if let Ok(absolute) = std::path::absolute(root) {
            self.root = absolute;
        }
        self
    }

    /// Returns whether the template has no placeholders, so that all records go to one file.
    #[must_use]
    pub fn is_fixed(&self) -> bool {
        self.rest.is_fixed()
    }

    /// Returns the number of folder levels between [`root`](Self::root) and the files.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.relative_text().matches('/').count()
    }

    /// Writes the path of the record's file, relative to [`root`](Self::root), into `out`.
    pub fn render(&self, record: &Record, out: &mut String) {
        template::render(&self.rest, record, out);
    }

    /// Returns whether the placeholders have equal values for two records, so that both go to the same file. Much faster than
    /// [`render`](Self::render).
    #[must_use]
    pub fn is_same(&self, one: &Record, other: &Record) -> bool {
        template::is_same(&self.rest, one, other)
    }

    /// Returns whether `relative` is a path that [`render`](Self::render) can write.
    #[must_use]
    pub fn matches(&self, relative: &str) -> bool {
        fits(self.rest.parts(), relative)
    }

    /// Returns the part of the template with the placeholders, as it was written.
    #[must_use]
    pub fn relative_text(&self) -> String {
        self.rest.to_string()
    }
}

fn fits(parts: &[Part<Placeholder>], text: &str) -> bool {
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
        Ok(Self { root: PathBuf::from(root), rest: template::parse(left)? })
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
