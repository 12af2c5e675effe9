//! What is wrong, or looks wrong, in a configuration: collected while it is read, so that all of it is reported at once.

use std::cell::RefCell;
use std::fmt;

use super::lines::Lines;

/// An error or a warning at a key.
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

/// Collects the problems of one file.
#[derive(Debug, Default)]
pub struct Problems {
    lines: Lines,
    errors: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
}

impl Problems {
    /// Starts without a problem, in a file with these lines.
    #[must_use]
    pub fn at(lines: Lines) -> Self {
        Self { lines, ..Self::default() }
    }

    fn problem(&self, key: &str, text: String) -> Problem {
        Problem { key: key.to_owned(), text, line: self.lines.line(key) }
    }

    /// Adds an error at a key, given by its full path.
    pub fn error(&self, key: &str, text: String) {
        self.errors.borrow_mut().push(self.problem(key, text));
    }

    /// Adds a warning at a key, given by its full path.
    pub fn warning(&self, key: &str, text: String) {
        self.warnings.borrow_mut().push(self.problem(key, text));
    }

    /// Returns whether there is an error at a key, or below it.
    #[must_use]
    pub fn has_errors_at(&self, key: &str) -> bool {
        let is_at = |problem: &Problem| {
            let rest = problem.key.strip_prefix(key);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        self.errors.borrow().iter().any(is_at)
    }

    /// Returns the errors, and the warnings.
    #[must_use]
    pub fn into_parts(self) -> (Vec<Problem>, Vec<Problem>) {
        (self.errors.into_inner(), self.warnings.into_inner())
    }
}
