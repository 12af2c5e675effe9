//! The errors and warnings in a configuration. They are collected while it is read, so that all of them are reported at once.

use std::cell::RefCell;
use std::fmt;

use super::lines::Lines;

/// An error or a warning about a key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The path of the key, such as `limits.max_body` or `connector.plant-1.path`. A connector or sink without a valid, unique
    /// name is identified by its index from 0.
    pub key: String,
    /// The message: the problem, the value that was found, the allowed values.
    pub text: String,
    /// The line of the key in the file, from 1; for an absent key, the line of its table. `None` if there is no such line.
    pub line: Option<usize>,
}

impl Problem {
    /// Creates a problem without a line.
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

/// Collects the problems of one file.
#[derive(Debug, Default)]
pub struct Problems {
    lines: Lines,
    errors: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
}

impl Problems {
    /// Creates an empty collection. `lines` are the lines of the keys in the file.
    #[must_use]
    pub fn at(lines: Lines) -> Self {
        Self { lines, ..Self::default() }
    }

    fn problem(&self, key: &str, text: String) -> Problem {
        Problem { key: key.to_owned(), text, line: self.lines.line(key) }
    }

    /// Adds an error about the key with this full path.
    pub fn error(&self, key: &str, text: String) {
        self.errors.borrow_mut().push(self.problem(key, text));
    }

    /// Adds a warning about the key with this full path.
    pub fn warning(&self, key: &str, text: String) {
        self.warnings.borrow_mut().push(self.problem(key, text));
    }

    /// Returns whether an error was reported about a key, or about a key below it.
    #[must_use]
    pub fn has_errors_at(&self, key: &str) -> bool {
        let is_at = |problem: &Problem| {
            let rest = problem.key.strip_prefix(key);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        self.errors.borrow().iter().any(is_at)
    }

    /// Returns the errors and the warnings, in this order.
    #[must_use]
    pub fn into_parts(self) -> (Vec<Problem>, Vec<Problem>) {
        (self.errors.into_inner(), self.warnings.into_inner())
    }
}
