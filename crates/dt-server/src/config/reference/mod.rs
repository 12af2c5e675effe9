//! What a configuration may hold: one row for each key (`keys`), from which `docs/configuration.md`, the sample file and
//! `dt-receiver config reference` are made. `tests/config_reference.rs` holds the rows to what the reader takes: names,
//! ranges and defaults.

mod keys;

use std::fmt::Write;

use keys::TABLES;

/// A key, and what may stand there.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name in its table.
    pub name: &'static str,
    /// The type and the range of its value, in Markdown.
    pub allowed: &'static str,
    /// What it is for, in one or two sentences of Markdown.
    pub meaning: &'static str,
    /// What holds without it.
    pub default: KeyDefault,
    /// A value to show, as TOML; `None` where the default is one.
    pub sample: Option<&'static str>,
    /// The key of the same table that it cannot stand beside.
    pub instead_of: Option<&'static str>,
    /// Whether a reload takes a new value; otherwise it needs a restart.
    pub reload: bool,
}

/// What holds without a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyDefault {
    /// It has to be given.
    Needed,
    /// Nothing, or what the meaning says.
    None,
    /// This value, as TOML.
    Value(&'static str),
    /// What these words say.
    Words(&'static str),
}

/// The keys of a table.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// Its line in the file, such as `[[connector.secrets]]`; empty for the top of the file.
    pub header: &'static str,
    /// Lines of TOML that the keys stand below, for a table that comes in several kinds.
    pub given: &'static str,
    /// What it is for, in Markdown.
    pub about: &'static str,
    /// Its keys; none where the file's author names them.
    pub keys: &'static [Key],
}

impl Key {
    const fn new(name: &'static str, allowed: &'static str, meaning: &'static str) -> Self {
        let default = KeyDefault::None;
        Self { name, allowed, meaning, default, sample: None, instead_of: None, reload: true }
    }

    const fn needed(mut self) -> Self {
        self.default = KeyDefault::Needed;
        self
    }

    /// A default that is also shown.
    const fn or(mut self, toml: &'static str) -> Self {
        self.default = KeyDefault::Value(toml);
        self
    }

    const fn or_words(mut self, words: &'static str) -> Self {
        self.default = KeyDefault::Words(words);
        self
    }

    const fn sample(mut self, toml: &'static str) -> Self {
        self.sample = Some(toml);
        self
    }

    const fn instead_of(mut self, key: &'static str) -> Self {
        self.instead_of = Some(key);
        self
    }

    const fn restart(mut self) -> Self {
        self.reload = false;
        self
    }

    /// The value that the sample file shows.
    #[must_use]
    pub const fn shown(&self) -> &'static str {
        match (self.sample, self.default) {
            (Some(toml), _) | (None, KeyDefault::Value(toml)) => toml,
            (None, _) => "\"\"",
        }
    }
}

/// All tables, in the order of a file.
#[must_use]
pub const fn reference() -> &'static [Table] {
    TABLES
}

/// The page `docs/configuration.md`.
///
/// # Examples
///
/// ```
/// let page = dt_server::config::reference_markdown();
/// assert!(page.contains("| `listen` |"));
/// ```
#[must_use]
pub fn reference_markdown() -> String {
    let mut page = keys::INTRODUCTION.to_owned();
    for table in TABLES {
        let kind = table.given.lines().find(|line| line.starts_with("type"));
        let title = match (table.header, kind) {
            ("", _) => "Top of the file".to_owned(),
            (header, None) => format!("`{header}`"),
            (header, Some(kind)) => format!("`{header}` with `{kind}`"),
        };
        // Writing to a string does not fail.
        let _ = writeln!(page, "\n## {title}\n\n{}", table.about);
        if !table.keys.is_empty() {
            page.push_str("\n| key | value | default | meaning | reload |\n|---|---|---|---|---|\n");
        }
        for key in table.keys {
            let default = match key.default {
                KeyDefault::Needed => "needed".to_owned(),
                KeyDefault::None => "–".to_owned(),
                KeyDefault::Value(toml) => format!("`{toml}`"),
                KeyDefault::Words(words) => words.to_owned(),
            };
            let reload = if key.reload { "yes" } else { "restart" };
            let _ = writeln!(
                page,
                "| `{}` | {} | {default} | {} | {reload} |",
                key.name, key.allowed, key.meaning
            );
        }
    }
    page
}

/// The file `deploy/dt-receiver.toml`: every key, commented out by a `#` without a space, with its default or a sample.
///
/// # Examples
///
/// ```
/// let file = dt_server::config::sample_file();
/// assert!(file.contains("\n#listen = \"127.0.0.1:8080\"\n"));
/// ```
#[must_use]
pub fn sample_file() -> String {
    let mut file = keys::SAMPLE_INTRODUCTION.to_owned();
    for table in TABLES {
        file.push('\n');
        for line in wrapped(table.about) {
            let _ = writeln!(file, "# {line}");
        }
        for line in std::iter::once(table.header).filter(|line| !line.is_empty()).chain(table.given.lines()) {
            let _ = writeln!(file, "#{line}");
        }
        for key in table.keys {
            for line in wrapped(key.meaning) {
                let _ = writeln!(file, "# {line}");
            }
            let alternative = if key.instead_of.is_some() { " or: " } else { "" };
            let _ = writeln!(file, "#{alternative}{} = {}", key.name, key.shown());
        }
    }
    file
}

/// Breaks text into lines of at most 110 characters.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count().saturating_add(word.chars().count()) < 110 => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
