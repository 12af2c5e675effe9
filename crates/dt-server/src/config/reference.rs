//! Writes the reference of all keys (`docs/configuration.md`) and the sample file, from the entries of the keys. After a change
//! of an entry, run
//! `dt-receiver config reference > docs/configuration.md` and `dt-receiver config sample > deploy/dt-receiver.toml`.

use std::fmt::Write;

use super::{Config, ConnectorConfig, SinkConfig, SourceConfig};
use crate::sink::SinkTypes;
use dt_sink::config::{KeyDefault, Reload, Table};

const INTRODUCTION: &str = "# Configuration

Every key of the file that `dt-receiver serve --config FILE` reads. This page is made by `dt-receiver config reference`,
[`deploy/dt-receiver.toml`](../deploy/dt-receiver.toml) by `dt-receiver config sample`; a test compares both with the code. `dt-receiver check --config FILE` reports every mistake of a file at once, each with its line and key, what was
found and what is allowed, and every warning; missing secrets, missing folders of sinks and unknown keys are mistakes, too. With
`--connect` it also connects to the destination of each sink: see [receiving.md](receiving.md#check-before-the-start).

- A duration is a text such as `\"8s\"`, `\"500ms\"`, `\"72h\"` or `\"1d\"` (24 h); 0 may stand without a unit.
- A size is a text such as `\"64KiB\"`, or a number of bytes.
- A name has 1 to 64 letters, digits, `-` and `_`.
- An empty list of `events`, `projects`, `devices` or `sinks` is a mistake, since it could mean \"none\" or \"all\": without the key, it
  is all of them.
- A secret never stands in the file: `env` names an environment variable, `file` a file, whose last line end is left out.
  Should it stand there by mistake, it is not shown: only what looks like a variable's name or a path is.
- *reload*: whether a running receiver activates a new value on SIGHUP, or needs a restart.
";

const SAMPLE_INTRODUCTION: &str =
    "# Every key of dt-receiver, with its default, or a sample where there is none. All of it is commented out: `#key`
# is a key, `# text` is text. What a key may hold: docs/configuration.md. Made by `dt-receiver config sample`.
";

/// Returns all tables, in the order of a file, with sinks of these types.
#[must_use]
pub fn reference(types: &SinkTypes) -> Vec<Table> {
    let top = Table::new("", "Addresses, and settings for all connectors.", Config::rows());
    let mut tables = vec![top];
    tables.extend(Config::tables());
    tables.extend(ConnectorConfig::described());
    tables.push(SourceConfig::described());
    tables.extend(SinkConfig::described(types));
    tables
}

/// Returns the page `docs/configuration.md`.
///
/// # Examples
///
/// ```
/// let page = dt_server::config::reference_markdown(&dt_server::sink::standard_types());
/// assert!(page.contains("| `listen` |"));
/// ```
#[must_use]
pub fn reference_markdown(types: &SinkTypes) -> String {
    let mut page = INTRODUCTION.to_owned();
    for table in reference(types) {
        let kind = table.given.lines().find(|line| line.starts_with("type"));
        let title = match (table.header.as_str(), kind) {
            ("", _) => "Top of the file".to_owned(),
            (header, None) => format!("`{header}`"),
            (header, Some(kind)) => format!("`{header}` with `{kind}`"),
        };
        // Writing to a string does not fail.
        let _ = writeln!(page, "\n## {title}\n\n{}", table.about);
        if !table.keys.is_empty() {
            page.push_str("\n| key | value | default | meaning | reload |\n|---|---|---|---|---|\n");
        }
        for key in &table.keys {
            let default = match &key.default {
                KeyDefault::Needed => "needed".to_owned(),
                KeyDefault::None => "–".to_owned(),
                KeyDefault::Value(toml) => format!("`{toml}`"),
                KeyDefault::Words(words) => (*words).to_owned(),
            };
            let reload = match key.reload {
                Reload::Yes => "yes",
                Reload::Restart => "restart",
                Reload::RestartInDirect => "restart in mode `direct`",
            };
            let _ = writeln!(
                page,
                "| `{}` | {} | {default} | {} | {reload} |",
                key.name, key.allowed, key.meaning
            );
        }
    }
    page
}

/// Returns the file `deploy/dt-receiver.toml`: every key, commented out by a `#` without a space, with its default or a sample.
///
/// # Examples
///
/// ```
/// let file = dt_server::config::sample_file(&dt_server::sink::standard_types());
/// assert!(file.contains("\n#listen = \"127.0.0.1:8080\"\n"));
/// ```
#[must_use]
pub fn sample_file(types: &SinkTypes) -> String {
    let mut file = SAMPLE_INTRODUCTION.to_owned();
    for table in reference(types) {
        file.push('\n');
        for line in wrapped(&table.about) {
            let _ = writeln!(file, "# {line}");
        }
        for line in
            std::iter::once(table.header.as_str()).filter(|line| !line.is_empty()).chain(table.given.lines())
        {
            let _ = writeln!(file, "#{line}");
        }
        for key in &table.keys {
            for line in wrapped(&key.meaning) {
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
