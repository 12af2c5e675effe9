//! Reads one table of TOML key by key, and collects what is wrong instead of stopping at it.

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use toml::{Table, Value};

use super::lines::{below, segments};
use super::problem::Problems;
use super::source::Sources;
use super::suggest::did_you_mean;
use super::units::{read_duration, read_size, write_duration, write_size};

/// A table that is being read. Each key is taken out once; [`finish`](Self::finish) reports what is left as unknown. A
/// method that takes a key returns `None` where there is none, and where it reported the value as an error.
pub struct Section<'a> {
    path: String,
    left: Table,
    allowed: Vec<&'static str>,
    problems: &'a Problems,
    sources: &'a dyn Sources,
}

/// A switch, or the details of what it turns on.
pub enum FlagOrSection<'a> {
    /// `true` or `false`.
    Flag(bool),
    /// A table.
    Section(Section<'a>),
}

/// A value of a table whose keys are names that the file's author chose.
pub enum NamedValue<'a> {
    /// A string.
    Text(String),
    /// A number, or `true` or `false`.
    Constant(serde_json::Value),
    /// A table.
    Section(Section<'a>),
}

/// Making sections, and what they know.
impl<'a> Section<'a> {
    /// Starts with the top of a file.
    #[must_use]
    pub fn root(table: Table, problems: &'a Problems, sources: &'a dyn Sources) -> Self {
        Self { path: String::new(), left: table, allowed: Vec::new(), problems, sources }
    }

    fn inner(&self, path: String, table: Table) -> Section<'a> {
        Section { path, left: table, allowed: Vec::new(), problems: self.problems, sources: self.sources }
    }

    /// Returns where secrets and files are read.
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

    /// Returns the last part of this table's path: in a list, the name or number that stands for it.
    #[must_use]
    pub fn segment(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or_default()
    }

    /// Returns whether there is a value at a key that was not read yet.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.left.contains_key(key)
    }

    /// Returns the value at a key that was not read yet, as a problem shows it.
    #[must_use]
    pub fn shown(&self, key: &str) -> String {
        self.left.get(key).map(short).unwrap_or_default()
    }

    /// Returns whether there is an error at a key of this table.
    #[must_use]
    pub fn has_errors_at(&self, key: &str) -> bool {
        self.problems.has_errors_at(&self.path_of(key))
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.allowed.push(key);
        self.left.remove(key)
    }

    /// Leaves out keys that cannot be read, and are not unknown either.
    pub fn skip<'b>(&mut self, keys: impl IntoIterator<Item = &'b str>) {
        for key in keys {
            self.left.remove(key);
        }
    }

    /// Leaves out all that was not read, but for these keys.
    pub fn skip_all_but(&mut self, keys: &[&str]) {
        self.left.retain(|key, _| keys.contains(&key));
    }

    /// Reports every key that was not read.
    pub fn finish(self) {
        let allowed = self.allowed.join(", ");
        for key in self.left.keys() {
            let hint = did_you_mean(key, self.allowed.iter().copied());
            self.complain(key, format!("unknown key; {hint}expected one of {allowed}"));
        }
    }
}

/// Reporting problems.
impl Section<'_> {
    /// Reports an error at a key.
    pub fn complain(&self, key: &str, text: impl Into<String>) {
        self.problems.error(&self.path_of(key), text.into());
    }

    /// Reports a warning at a key.
    pub fn warn(&self, key: &str, text: impl Into<String>) {
        self.problems.warning(&self.path_of(key), text.into());
    }

    /// Reports a key that has to be there, unless there is an error at it already.
    pub fn missing(&self, key: &str, text: &str) {
        if !self.has_errors_at(key) {
            self.complain(key, text);
        }
    }

    /// Reports that `found` is not what is allowed at `key`.
    pub fn problem(&self, key: &str, found: &str, allowed: &str) {
        self.complain(key, format!("found \"{}\"; expected {allowed}", found.escape_debug()));
    }

    /// Reports that `found` is not one of the choices at `key`.
    pub fn no_choice(&self, key: &str, found: &str, choices: &[&str]) {
        let hint = did_you_mean(found, choices.iter().copied());
        let (found, allowed) = (found.escape_debug(), choices.join(", "));
        self.complain(key, format!("found \"{found}\"; {hint}expected {allowed}"));
    }

    fn wrong_type(&self, key: &str, found: &Value, allowed: &str) {
        self.complain(key, format!("found {} ({}); expected {allowed}", short(found), found.type_str()));
    }

    /// Reports a wrong type where a secret may stand by mistake: the value is not shown.
    fn wrong_kind(&self, key: &str, found: &Value, allowed: &str) {
        self.complain(key, format!("found a value of type {}; expected {allowed}", found.type_str()));
    }
}

/// Taking plain values.
impl Section<'_> {
    /// Takes a string.
    pub fn string(&mut self, key: &'static str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) => Some(text),
            other => {
                self.wrong_type(key, &other, "a string");
                None
            }
        }
    }

    /// Takes a string where a secret may stand by mistake: a value of another type is not shown.
    pub fn private_string(&mut self, key: &'static str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) => Some(text),
            other => {
                self.wrong_kind(key, &other, "a string");
                None
            }
        }
    }

    /// Takes `true` or `false`.
    pub fn flag(&mut self, key: &'static str) -> Option<bool> {
        match self.take(key)? {
            Value::Boolean(flag) => Some(flag),
            other => {
                self.wrong_type(key, &other, "true or false");
                None
            }
        }
    }

    /// Takes a list of strings.
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

    /// Takes a list of strings that may not be empty: that could be meant as "none" or as "all". `without` says what a
    /// missing key means.
    pub fn strings_not_empty(&mut self, key: &'static str, without: &str) -> Option<Vec<String>> {
        let strings = self.strings(key)?;
        if strings.is_empty() {
            self.complain(key, format!("the list is empty; leave the key out for {without}"));
        }
        Some(strings)
    }

    /// Takes a list of strings, or one string.
    pub fn strings_or_string(&mut self, key: &'static str) -> Option<Vec<String>> {
        match self.left.get(key) {
            Some(Value::String(_)) => self.string(key).map(|text| vec![text]),
            _ => self.strings(key),
        }
    }

    /// Takes one of a few words.
    pub fn word<T: FromStr>(&mut self, key: &'static str, words: &[&str]) -> Option<T> {
        let text = self.string(key)?;
        let value = text.parse().ok();
        if value.is_none() {
            self.no_choice(key, &text, words);
        }
        value
    }

    /// Takes something that is written as a string.
    pub fn parsed<T: FromStr>(&mut self, key: &'static str, allowed: &str) -> Option<T> {
        let text = self.string(key)?;
        let value = text.parse().ok();
        if value.is_none() {
            self.problem(key, &text, allowed);
        }
        value
    }

    /// Takes a whole number.
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

    /// Takes a size such as `"64KiB"`, or a number of bytes.
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

    /// Takes a duration such as `"8s"`, `"500ms"`, `"72h"` or `"1d"`; a bare 0 is 0.
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

/// Taking tables.
impl<'a> Section<'a> {
    /// Takes a table below this one.
    pub fn section(&mut self, key: &'static str) -> Option<Section<'a>> {
        self.table(key, &format!("a table, [{key}]"))
    }

    /// Takes a table that names where a secret is. The message for anything else shows how, but not what was found.
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

    /// Takes a list of tables below this one.
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

    /// Takes `true` or `false`, or a table below this one.
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

    /// Takes all remaining keys, for a table whose keys are names that the file's author chose.
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

    /// Takes all remaining keys, each with a string or `true`, for a table whose keys are names that the file's author chose. `None`
    /// stands for `true`.
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

    /// Takes all keys with their values, for a table whose keys are names that the file's author chose. Returns these pairs, and
    /// the section without them.
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

    /// Takes all keys with their values as text, for a table whose keys are another program's. Returns these pairs, and the
    /// section without them.
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

/// Returns a value as it may be shown: short. Nothing secret stands in the file, but people make mistakes.
fn short(value: &Value) -> String {
    match value {
        Value::Table(_) => "a table".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        other => other.to_string().chars().take(40).collect(),
    }
}
