//! Reads one table of TOML key by key, and collects all problems instead of stopping at the first one.

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use toml::{Table, Value};

use super::lines::{below, segments};
use super::problem::Problems;
use super::source::Sources;
use super::suggest::did_you_mean;
use super::units::{read_duration, read_size, write_duration, write_size};

/// A table that is being read. Reading a key removes it from the table; [`finish`](Self::finish) reports the remaining keys as
/// unknown. A method that reads a key returns `None` if the key is absent, or after it reported the value as invalid.
pub struct Section<'a> {
    path: String,
    left: Table,
    allowed: Vec<&'static str>,
    problems: &'a Problems,
    sources: &'a dyn Sources,
}

/// The value of a key that is a boolean or a table, such as a feature that can be switched on with or without details.
pub enum FlagOrSection<'a> {
    /// `true` or `false`.
    Flag(bool),
    /// A table.
    Section(Section<'a>),
}

/// The value of a key in a table whose keys are names chosen by the author of the file.
pub enum NamedValue<'a> {
    /// A string.
    Text(String),
    /// A number, or `true` or `false`.
    Constant(serde_json::Value),
    /// A table.
    Section(Section<'a>),
}

/// Creates sections, and returns their properties.
impl<'a> Section<'a> {
    /// Creates the section of the top level of a file.
    #[must_use]
    pub fn root(table: Table, problems: &'a Problems, sources: &'a dyn Sources) -> Self {
        Self { path: String::new(), left: table, allowed: Vec::new(), problems, sources }
    }

    fn inner(&self, path: String, table: Table) -> Section<'a> {
        Section { path, left: table, allowed: Vec::new(), problems: self.problems, sources: self.sources }
    }

    /// Returns the source of secrets and files.
    #[must_use]
    pub fn sources(&self) -> &'a dyn Sources {
        self.sources
    }

    /// Returns the path of this table, such as `connector.plant-1`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the full path of a key in this table.
    fn path_of(&self, key: &str) -> String {
        below(&self.path, key)
    }

    /// Returns the last segment of this table's path. For an entry of a list, it is the entry's name or index.
    #[must_use]
    pub fn segment(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or_default()
    }

    /// Returns whether the table has a value at a key that was not read yet.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.left.contains_key(key)
    }

    /// Returns the value at a key that was not read yet, as text for a message; empty if there is none.
    #[must_use]
    pub fn shown(&self, key: &str) -> String {
        self.left.get(key).map(short).unwrap_or_default()
    }

    /// Returns whether an error was reported about a key of this table.
    #[must_use]
    pub fn has_errors_at(&self, key: &str) -> bool {
        self.problems.has_errors_at(&self.path_of(key))
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.allowed.push(key);
        self.left.remove(key)
    }

    /// Removes keys that are known, but cannot be read, so that [`finish`](Self::finish) does not report them as unknown.
    pub fn skip<'b>(&mut self, keys: impl IntoIterator<Item = &'b str>) {
        for key in keys {
            self.left.remove(key);
        }
    }

    /// Removes all keys that were not read yet, except for `keys`.
    pub fn skip_all_but(&mut self, keys: &[&str]) {
        self.left.retain(|key, _| keys.contains(&key));
    }

    /// Reports every key that was not read as unknown.
    pub fn finish(self) {
        let allowed = self.allowed.join(", ");
        for key in self.left.keys() {
            let hint = did_you_mean(key, self.allowed.iter().copied());
            self.complain(key, format!("unknown key; {hint}expected one of {allowed}"));
        }
    }
}

/// Reports problems.
impl Section<'_> {
    /// Reports an error about a key.
    pub fn complain(&self, key: &str, text: impl Into<String>) {
        self.problems.error(&self.path_of(key), text.into());
    }

    /// Reports a warning about a key.
    pub fn warn(&self, key: &str, text: impl Into<String>) {
        self.problems.warning(&self.path_of(key), text.into());
    }

    /// Reports that a required key is absent, with the message `text`, unless an error was already reported about the key.
    pub fn missing(&self, key: &str, text: &str) {
        if !self.has_errors_at(key) {
            self.complain(key, text);
        }
    }

    /// Reports that the value `found` at `key` is invalid. `allowed` describes the allowed values.
    pub fn problem(&self, key: &str, found: &str, allowed: &str) {
        self.complain(key, format!("found \"{}\"; expected {allowed}", found.escape_debug()));
    }

    /// Reports that the value `found` at `key` is not one of the choices, and suggests the closest one.
    pub fn no_choice(&self, key: &str, found: &str, choices: &[&str]) {
        let hint = did_you_mean(found, choices.iter().copied());
        let (found, allowed) = (found.escape_debug(), choices.join(", "));
        self.complain(key, format!("found \"{found}\"; {hint}expected {allowed}"));
    }

    fn wrong_type(&self, key: &str, found: &Value, allowed: &str) {
        self.complain(key, format!("found {} ({}); expected {allowed}", short(found), found.type_str()));
    }

    /// Reports a value of a wrong type at a key where it may be a secret by mistake. The message does not contain the value.
    fn wrong_kind(&self, key: &str, found: &Value, allowed: &str) {
        self.complain(key, format!("found a value of type {}; expected {allowed}", found.type_str()));
    }
}

/// Reads plain values.
impl Section<'_> {
    /// Reads a string.
    pub fn string(&mut self, key: &'static str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) => Some(text),
            other => {
                self.wrong_type(key, &other, "a string");
                None
            }
        }
    }

    /// Reads a string at a key where a secret may be written by mistake. The report of a value of another type does not contain
    /// the value.
    pub fn private_string(&mut self, key: &'static str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) => Some(text),
            other => {
                self.wrong_kind(key, &other, "a string");
                None
            }
        }
    }

    /// Reads a boolean.
    pub fn flag(&mut self, key: &'static str) -> Option<bool> {
        match self.take(key)? {
            Value::Boolean(flag) => Some(flag),
            other => {
                self.wrong_type(key, &other, "true or false");
                None
            }
        }
    }

    /// Reads a list of strings.
    pub fn strings(&mut self, key: &'static str) -> Option<Vec<String>> {
        let value = self.take(key)?;
        let strings = value.as_array().and_then(|values| {
            values.iter().map(|value| value.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        });
        if strings.is_none() {
            self.wrong_type(key, &value, "a list of strings");
        }
        strings
    }

    /// Reads a list of strings that must not be empty, since an empty list could mean "none" or "all". `without` says, in the
    /// error message, what an absent key means.
    pub fn strings_not_empty(&mut self, key: &'static str, without: &str) -> Option<Vec<String>> {
        let strings = self.strings(key)?;
        if strings.is_empty() {
            self.complain(key, format!("the list is empty; leave the key out for {without}"));
        }
        Some(strings)
    }

    /// Reads a list of strings, or one string, which becomes a list of one.
    pub fn strings_or_string(&mut self, key: &'static str) -> Option<Vec<String>> {
        match self.left.get(key) {
            Some(Value::String(_)) => self.string(key).map(|text| vec![text]),
            _ => self.strings(key),
        }
    }

    /// Reads a string that is one of `words`, and parses it.
    pub fn word<T: FromStr>(&mut self, key: &'static str, words: &[&str]) -> Option<T> {
        let text = self.string(key)?;
        let value = text.parse().ok();
        if value.is_none() {
            self.no_choice(key, &text, words);
        }
        value
    }

    /// Reads a string and parses it. `allowed` describes the allowed values in the error message.
    pub fn parsed<T: FromStr>(&mut self, key: &'static str, allowed: &str) -> Option<T> {
        let text = self.string(key)?;
        let value = text.parse().ok();
        if value.is_none() {
            self.problem(key, &text, allowed);
        }
        value
    }

    /// Reads a whole number within `range`.
    pub fn number(&mut self, key: &'static str, range: &RangeInclusive<u64>) -> Option<u64> {
        let value = self.take(key)?;
        let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            let allowed = format!("a number from {} to {}", range.start(), range.end());
            self.wrong_type(key, &value, &allowed);
        }
        number
    }

    /// Reads a size within `range`, such as `"64KiB"`, or a number of bytes.
    pub fn size(&mut self, key: &'static str, range: &RangeInclusive<u64>) -> Option<u64> {
        let value = self.take(key)?;
        let bytes = match &value {
            Value::Integer(bytes) => u64::try_from(*bytes).ok(),
            Value::String(text) => read_size(text),
            _ => None,
        };
        let bytes = bytes.filter(|bytes| range.contains(bytes));
        if bytes.is_none() {
            let (least, most) = (write_size(*range.start()), write_size(*range.end()));
            let allowed = format!("a size such as \"64KiB\" or a number of bytes, from {least} to {most}");
            self.wrong_type(key, &value, &allowed);
        }
        bytes
    }

    /// Reads a duration within `range`, such as `"8s"`, `"500ms"`, `"72h"` or `"1d"`. The number 0 is accepted without a unit.
    pub fn duration(&mut self, key: &'static str, range: &RangeInclusive<Duration>) -> Option<Duration> {
        let value = self.take(key)?;
        let duration = match &value {
            Value::Integer(0) => Some(Duration::ZERO),
            Value::String(text) => read_duration(text),
            _ => None,
        };
        let duration = duration.filter(|duration| range.contains(duration));
        if duration.is_none() {
            let (least, most) = (write_duration(*range.start()), write_duration(*range.end()));
            let allowed = format!("a duration such as \"8s\", \"500ms\" or \"1d\", from {least} to {most}");
            self.wrong_type(key, &value, &allowed);
        }
        duration
    }
}

/// Reads tables.
impl<'a> Section<'a> {
    /// Reads a table below this one.
    pub fn section(&mut self, key: &'static str) -> Option<Section<'a>> {
        self.table(key, &format!("a table, [{key}]"))
    }

    /// Reads a table that says where a secret is stored. The error message for a value of another type shows the form of such a
    /// table, but not the value.
    pub fn secret_section(&mut self, key: &'static str) -> Option<Section<'a>> {
        self.table(key, "{ env = \"NAME\" } or { file = \"PATH\" }")
    }

    fn table(&mut self, key: &'static str, expected: &str) -> Option<Section<'a>> {
        match self.take(key)? {
            Value::Table(table) => Some(self.inner(self.path_of(key), table)),
            other => {
                self.wrong_kind(key, &other, expected);
                None
            }
        }
    }

    /// Reads a list of tables below this one.
    pub fn sections(&mut self, key: &'static str) -> Vec<Section<'a>> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let Value::Array(items) = value else {
            self.wrong_kind(key, &value, &format!("a list of tables, [[{key}]]"));
            return Vec::new();
        };
        let path = self.path_of(key);
        let names: Vec<Option<&str>> = items.iter().map(|item| item.get("name")?.as_str()).collect();
        let segments = segments(&names);
        let mut sections = Vec::new();
        for (item, segment) in items.into_iter().zip(segments) {
            match item {
                Value::Table(table) => sections.push(self.inner(below(&path, &segment), table)),
                other => self.wrong_kind(key, &other, "a list of tables"),
            }
        }
        sections
    }

    /// Reads a boolean, or a table below this one.
    pub fn flag_or_section(&mut self, key: &'static str) -> Option<FlagOrSection<'a>> {
        match self.take(key)? {
            Value::Boolean(flag) => Some(FlagOrSection::Flag(flag)),
            Value::Table(table) => Some(FlagOrSection::Section(self.inner(self.path_of(key), table))),
            other => {
                self.wrong_type(key, &other, "true, false or a table");
                None
            }
        }
    }

    /// Reads all remaining keys of a table whose keys are names chosen by the author of the file. Each value must be a table.
    pub fn named_sections(mut self, allowed: &str) -> Vec<(String, Section<'a>)> {
        let mut sections = Vec::new();
        for (name, value) in std::mem::take(&mut self.left) {
            match value {
                Value::Table(table) => {
                    let path = self.path_of(&name);
                    sections.push((name, self.inner(path, table)));
                }
                other => self.wrong_kind(&name, &other, allowed),
            }
        }
        sections
    }

    /// Reads all remaining keys of a table whose keys are names chosen by the author of the file. Each value must be a string or
    /// `true`, which is returned as `None`.
    #[must_use]
    pub fn into_texts_or_true(mut self) -> Vec<(String, Option<String>)> {
        let mut pairs = Vec::new();
        for (key, value) in std::mem::take(&mut self.left) {
            match value {
                Value::String(text) => pairs.push((key, Some(text))),
                Value::Boolean(true) => pairs.push((key, None)),
                other => self.wrong_type(&key, &other, "a string, or true"),
            }
        }
        pairs
    }

    /// Reads all remaining keys of a table whose keys are names chosen by the author of the file. Returns the pairs of key and
    /// value, and the section without them.
    pub fn into_values(mut self) -> (Vec<(String, NamedValue<'a>)>, Self) {
        let mut pairs = Vec::new();
        for (key, value) in std::mem::take(&mut self.left) {
            let value = match value {
                Value::String(text) => NamedValue::Text(text),
                Value::Integer(number) => NamedValue::Constant(number.into()),
                Value::Float(number) if number.is_finite() => NamedValue::Constant(number.into()),
                Value::Boolean(flag) => NamedValue::Constant(flag.into()),
                Value::Table(table) => NamedValue::Section(self.inner(self.path_of(&key), table)),
                other => {
                    self.wrong_type(&key, &other, "a string, a number, true, false or a table");
                    continue;
                }
            };
            pairs.push((key, value));
        }
        (pairs, self)
    }

    /// Reads all remaining keys of a table whose keys are defined by another program. Returns the pairs of key and value as text,
    /// and the section without them.
    pub fn into_pairs(mut self) -> (Vec<(String, String)>, Self) {
        let mut pairs = Vec::new();
        for (key, value) in std::mem::take(&mut self.left) {
            match value {
                Value::String(text) => pairs.push((key, text)),
                Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => {
                    pairs.push((key, value.to_string()))
                }
                other => self.wrong_kind(&key, &other, "a string, a number, true or false"),
            }
        }
        (pairs, self)
    }
}

/// Returns a value as a short text for a message. The file should not contain secrets, but a person may have written one there.
fn short(value: &Value) -> String {
    match value {
        Value::Table(_) => "a table".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        other => other.to_string().chars().take(40).collect(),
    }
}
