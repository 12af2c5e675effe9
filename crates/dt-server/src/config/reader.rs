//! Reads one table of TOML key by key, and collects what is wrong instead of stopping at it.

use std::cell::RefCell;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use toml::{Table, Value};

use super::duration::{read_duration, write_duration};
use super::lines::{self, Lines, segments};
use super::suggest::did_you_mean;

/// Something wrong, or odd, at a key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The key's path, such as `limits.max_body` or `connector.plant-1.path`. A connector or sink without a name of its own
    /// has its number from 0.
    pub key: String,
    /// What is wrong, what was found, what is allowed.
    pub text: String,
    /// The line of the file, from 1: of the key, or of its table if the key is missing. `None` where there is none.
    pub line: Option<usize>,
}

impl Problem {
    /// Describes a problem that has no line.
    pub fn new(key: impl Into<String>, text: impl Into<String>) -> Self {
        Self { key: key.into(), text: text.into(), line: None }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        write!(f, "{}: {}", self.key, self.text)
    }
}

/// All problems found so far.
#[derive(Debug, Default)]
pub(super) struct Problems {
    lines: Lines,
    errors: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
}

impl Problems {
    /// No problem yet, in a file with these lines.
    pub(super) fn at(lines: Lines) -> Self {
        Self { lines, ..Self::default() }
    }

    fn problem(&self, key: &str, text: String) -> Problem {
        Problem { key: key.to_owned(), text, line: self.lines.line(key) }
    }

    pub(super) fn error(&self, key: &str, text: String) {
        self.errors.borrow_mut().push(self.problem(key, text));
    }

    pub(super) fn warning(&self, key: &str, text: String) {
        self.warnings.borrow_mut().push(self.problem(key, text));
    }

    /// Whether there is an error at a key, or below it.
    pub(super) fn has_errors_at(&self, key: &str) -> bool {
        let is_at = |problem: &Problem| {
            let rest = problem.key.strip_prefix(key);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        self.errors.borrow().iter().any(is_at)
    }

    pub(super) fn into_parts(self) -> (Vec<Problem>, Vec<Problem>) {
        (self.errors.into_inner(), self.warnings.into_inner())
    }
}

/// A table that is being read. Keys are taken out one by one; [`finish`](Self::finish) complains of what is left.
pub(super) struct Section<'a> {
    path: String,
    left: Table,
    allowed: Vec<&'static str>,
    problems: &'a Problems,
}

impl<'a> Section<'a> {
    pub(super) fn root(table: Table, problems: &'a Problems) -> Self {
        Self { path: String::new(), left: table, allowed: Vec::new(), problems }
    }

    /// The full path of a key in this table.
    fn path_of(&self, key: &str) -> String {
        lines::below(&self.path, key)
    }

    /// The last part of this table's path: the name or number that stands for it in a list.
    pub(super) fn segment(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or_default()
    }

    /// The path of this table.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Notes that `found` is not what is allowed at `key`.
    pub(super) fn problem(&self, key: &str, found: &str, allowed: &str) {
        self.complain(key, format!("found \"{}\"; allowed is {allowed}", found.escape_debug()));
    }

    /// Notes that `found` is not one of the choices at `key`.
    pub(super) fn no_choice(&self, key: &str, found: &str, choices: &[&str]) {
        let hint = did_you_mean(found, choices.iter().copied());
        let (found, allowed) = (found.escape_debug(), choices.join(", "));
        self.complain(key, format!("found \"{found}\"; {hint}allowed is {allowed}"));
    }

    /// A list that says nothing: an empty one could be meant as "none" or as "all".
    pub(super) fn strings_not_empty(&mut self, key: &'static str, without: &str) -> Option<Vec<String>> {
        let strings = self.strings(key)?;
        if strings.is_empty() {
            self.complain(key, format!("the list is empty; leave the key out for {without}"));
        }
        Some(strings)
    }

    pub(super) fn complain(&self, key: &str, text: String) {
        self.problems.error(&self.path_of(key), text);
    }

    pub(super) fn warn(&self, key: &str, text: String) {
        self.problems.warning(&self.path_of(key), text);
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.allowed.push(key);
        self.left.remove(key)
    }

    fn wrong_type(&self, key: &str, found: &Value, allowed: &str) {
        self.complain(key, format!("found {} ({}); allowed is {allowed}", short(found), found.type_str()));
    }

    /// The same where a secret may stand by mistake: the value is not shown.
    fn wrong_kind(&self, key: &str, found: &Value, allowed: &str) {
        self.complain(key, format!("found a value of type {}; allowed is {allowed}", found.type_str()));
    }

    pub(super) fn string(&mut self, key: &'static str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) => Some(text),
            other => {
                self.wrong_type(key, &other, "a string");
                None
            }
        }
    }

    /// A string where a secret may stand by mistake: a value of another type is not shown.
    pub(super) fn private_string(&mut self, key: &'static str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) => Some(text),
            other => {
                self.wrong_kind(key, &other, "a string");
                None
            }
        }
    }

    /// The value at a key that was not read yet, as a problem shows it.
    pub(super) fn shown(&self, key: &str) -> String {
        self.left.get(key).map(short).unwrap_or_default()
    }

    /// Leaves out keys that cannot be read, and are not unknown either.
    pub(super) fn skip(&mut self, keys: &[&str]) {
        for key in keys {
            self.left.remove(*key);
        }
    }

    /// Whether there is a value at a key that was not read yet.
    pub(super) fn has(&self, key: &str) -> bool {
        self.left.contains_key(key)
    }

    /// Whether there is an error at a key of this table.
    pub(super) fn has_errors_at(&self, key: &str) -> bool {
        self.problems.has_errors_at(&self.path_of(key))
    }

    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        match self.take(key)? {
            Value::Boolean(flag) => Some(flag),
            other => {
                self.wrong_type(key, &other, "true or false");
                None
            }
        }
    }

    pub(super) fn strings(&mut self, key: &'static str) -> Option<Vec<String>> {
        let value = self.take(key)?;
        let strings = value.as_array().and_then(|values| {
            values.iter().map(|value| value.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        });
        if strings.is_none() {
            self.wrong_type(key, &value, "a list of strings");
        }
        strings
    }

    /// A list of strings, or one string.
    pub(super) fn strings_or_string(&mut self, key: &'static str) -> Option<Vec<String>> {
        match self.left.get(key) {
            Some(Value::String(_)) => self.string(key).map(|text| vec![text]),
            _ => self.strings(key),
        }
    }

    /// `true` or `false`, or a table below this one.
    pub(super) fn flag_or_section(&mut self, key: &'static str) -> Option<FlagOrSection<'a>> {
        match self.take(key)? {
            Value::Boolean(flag) => Some(FlagOrSection::Flag(flag)),
            Value::Table(table) => Some(FlagOrSection::Section(self.below(self.path_of(key), table))),
            other => {
                self.wrong_type(key, &other, "true, false or a table");
                None
            }
        }
    }

    /// Takes all keys with their values as text, for a table whose keys are not ours.
    pub(super) fn into_pairs(mut self) -> (Vec<(String, String)>, Self) {
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

    /// One of a few words.
    pub(super) fn choice_into<T: FromStr>(&mut self, key: &'static str, choices: &[&str], target: &mut T) {
        if let Some(text) = self.string(key) {
            match text.parse() {
                Ok(value) => *target = value,
                Err(_) => self.no_choice(key, &text, choices),
            }
        }
    }

    pub(super) fn parse_into<T: FromStr>(&mut self, key: &'static str, allowed: &str, target: &mut T) {
        if let Some(text) = self.string(key) {
            match text.parse() {
                Ok(value) => *target = value,
                Err(_) => self.problem(key, &text, allowed),
            }
        }
    }

    /// A duration such as `"8s"`, `"500ms"`, `"72h"` or `"1d"`; a bare 0 is 0.
    pub(super) fn duration_into(
        &mut self,
        key: &'static str,
        range: RangeInclusive<Duration>,
        target: &mut Duration,
    ) {
        let Some(value) = self.take(key) else { return };
        let read = match &value {
            Value::Integer(0) => Some(Duration::ZERO),
            Value::String(text) => read_duration(text),
            _ => None,
        };
        match read {
            Some(duration) if range.contains(&duration) => *target = duration,
            _ => {
                let (least, most) = (write_duration(*range.start()), write_duration(*range.end()));
                let allowed =
                    format!("a duration such as \"8s\", \"500ms\" or \"1d\", from {least} to {most}");
                self.wrong_type(key, &value, &allowed);
            }
        }
    }

    /// A size such as `"64KiB"`, or a number of bytes.
    pub(super) fn size_into(&mut self, key: &'static str, range: RangeInclusive<usize>, target: &mut usize) {
        let Some(value) = self.take(key) else { return };
        let read = match &value {
            Value::Integer(bytes) => usize::try_from(*bytes).ok(),
            Value::String(text) => {
                text.parse().ok().and_then(|size: bytesize::ByteSize| usize::try_from(size.as_u64()).ok())
            }
            _ => None,
        };
        match read {
            Some(bytes) if range.contains(&bytes) => *target = bytes,
            _ => {
                let allowed = format!(
                    "a size such as \"64KiB\" or a number of bytes, from {} to {}",
                    range.start(),
                    range.end()
                );
                self.wrong_type(key, &value, &allowed);
            }
        }
    }

    pub(super) fn count_into(&mut self, key: &'static str, range: RangeInclusive<usize>, target: &mut usize) {
        let Some(value) = self.take(key) else { return };
        match value.as_integer().and_then(|count| usize::try_from(count).ok()) {
            Some(count) if range.contains(&count) => *target = count,
            _ => {
                let allowed = format!("a number from {} to {}", range.start(), range.end());
                self.wrong_type(key, &value, &allowed);
            }
        }
    }

    /// A table below this one.
    pub(super) fn section(&mut self, key: &'static str) -> Option<Section<'a>> {
        match self.take(key)? {
            Value::Table(table) => Some(self.below(self.path_of(key), table)),
            other => {
                self.wrong_kind(key, &other, &format!("a table, [{key}]"));
                None
            }
        }
    }

    /// A list of tables below this one.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Section<'a>> {
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
                Value::Table(table) => sections.push(self.below(lines::below(&path, &segment), table)),
                other => self.wrong_kind(key, &other, "a list of tables"),
            }
        }
        sections
    }

    fn below(&self, path: String, table: Table) -> Section<'a> {
        Section { path, left: table, allowed: Vec::new(), problems: self.problems }
    }

    /// Takes all remaining keys, for a table whose keys are names.
    pub(super) fn named_sections(mut self, allowed: &str) -> Vec<(String, Section<'a>)> {
        let mut sections = Vec::new();
        for (name, value) in std::mem::take(&mut self.left) {
            match value {
                Value::Table(table) => {
                    let path = self.path_of(&name);
                    sections.push((name, self.below(path, table)));
                }
                other => self.wrong_kind(&name, &other, allowed),
            }
        }
        sections
    }

    /// Complains of every key that was not read.
    pub(super) fn finish(self) {
        let allowed = self.allowed.join(", ");
        for key in self.left.keys() {
            let hint = did_you_mean(key, self.allowed.iter().copied());
            self.complain(key, format!("unknown key; {hint}allowed are: {allowed}"));
        }
    }
}

/// What may be switched, or said in detail.
pub(super) enum FlagOrSection<'a> {
    Flag(bool),
    Section(Section<'a>),
}

/// A value as it may be shown: short. Nothing secret stands in the file, but people make mistakes.
fn short(value: &Value) -> String {
    match value {
        Value::Table(_) => "a table".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        other => other.to_string().chars().take(40).collect(),
    }
}
