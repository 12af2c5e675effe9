//! The committed figures: a few lines of text, each a path, a part of it, and what that costs.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use crate::paths::PATHS;

/// How far a figure may be from the committed one, in percent.
const BOUND: u64 = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Within,
    More,
    Less,
    Unknown,
}

impl Verdict {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Within => "",
            Self::More => " <- COSTS MORE",
            Self::Less => " <- COSTS LESS: lower the figure",
            Self::Unknown => " <- NO FIGURE",
        }
    }
}

/// Instructions per event, and where they were counted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Baseline {
    origin: String,
    /// By path and part.
    figures: BTreeMap<(String, String), u64>,
}

type Name<'a> = (&'a str, &'a str);

fn owned((path, part): Name<'_>) -> (String, String) {
    (path.to_owned(), part.to_owned())
}

impl Baseline {
    /// No figures yet, counted here and now.
    pub(crate) fn here() -> Self {
        let said = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output().ok()?;
            Some(String::from_utf8_lossy(&output.stdout).trim().to_owned()).filter(|text| !text.is_empty())
        };
        let unknown = || "?".to_owned();
        let date = jiff::Timestamp::now().to_string();
        let rustc = said("rustc", &["--version"]).unwrap_or_else(unknown);
        let valgrind = said("valgrind", &["--version"]).unwrap_or_else(unknown);
        let commit = said("git", &["describe", "--always", "--dirty"]).unwrap_or_else(unknown);
        let date = date.get(..10).unwrap_or_default();
        Self { origin: format!("{date}, {rustc}, {valgrind}, commit {commit}"), figures: BTreeMap::new() }
    }

    /// Those of a file; none if there is none.
    pub(crate) fn read(file: &Path) -> Self {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let origin = text.lines().find_map(|line| line.strip_prefix("# Counted: "));
        let figure = |line: &str| match line.split_whitespace().collect::<Vec<_>>()[..] {
            [path, part, cost] => Some((owned((path, part)), cost.parse().ok()?)),
            _ => None,
        };
        let origin = origin.unwrap_or("?").to_owned();
        Self { origin, figures: text.lines().filter_map(figure).collect() }
    }

    /// These, save what was measured anew, and what there is no more.
    pub(crate) fn updated_by(self, measured: Self) -> Self {
        let is_old = |path: &str| {
            !measured.figures.keys().any(|(of, _)| of == path) && PATHS.iter().any(|known| known.name == path)
        };
        let mut figures = self.figures;
        figures.retain(|(path, _), _| is_old(path));
        figures.extend(measured.figures);
        Self { origin: measured.origin, figures }
    }

    pub(crate) fn write(&self, file: &Path) {
        let mut text = "# Instructions per event, written by `benches/guard/run --accept`.\n".to_owned();
        let mut line = |line: std::fmt::Arguments<'_>| writeln!(text, "{line}").expect("text takes all");
        line(format_args!("# Counted: {}", self.origin));
        for ((path, part), cost) in &self.figures {
            line(format_args!("{path:<8} {part:<4} {cost:>8}"));
        }
        std::fs::write(file, text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }

    pub(crate) fn set(&mut self, name: Name<'_>, cost: u64) {
        self.figures.insert(owned(name), cost);
    }

    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    pub(crate) fn judge(&self, name: Name<'_>, cost: u64) -> Verdict {
        match self.figures.get(&owned(name)) {
            None => Verdict::Unknown,
            Some(known) if cost * 100 > known * (100 + BOUND) => Verdict::More,
            Some(known) if cost * 100 < known * (100 - BOUND) => Verdict::Less,
            Some(_) => Verdict::Within,
        }
    }

    pub(crate) fn row(&self, name: Name<'_>, cost: u64) -> String {
        let (path, part) = name;
        let Some(&known) = self.figures.get(&owned(name)) else {
            return format!("{path:<8} {part:<4} {:>9} {cost:>8} {:>9}", "-", "-");
        };
        let change = (cost as f64 / known as f64 - 1.0) * 100.0;
        format!("{path:<8} {part:<4} {known:>9} {cost:>8} {change:>+7.2} %")
    }
}
