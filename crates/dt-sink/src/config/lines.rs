//! The line of each key in the file, so that a problem can name it; and the names of list entries in a key's path.

use std::collections::BTreeMap;
use std::fmt;

use toml::de::{DeTable, DeValue};

use super::secret::is_name;

/// The lines of the keys, by the key's path such as `connector.plant-1.path`.
#[derive(Clone, Default)]
pub struct Lines(BTreeMap<String, usize>);

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lines")
    }
}

impl Lines {
    /// Finds the lines of all keys in a text of TOML. The result is empty if the text is not valid TOML.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let mut lines = Self::default();
        if let Ok(table) = DeTable::parse(text) {
            lines.add_table(text, "", table.get_ref());
        }
        lines
    }

    /// Returns the line of a key, counted from 1. For an absent key, it is the line of its table; `None` for an absent key at the
    /// top of the file.
    #[must_use]
    pub fn line(&self, key: &str) -> Option<usize> {
        let mut key = key.replace('"', "");
        loop {
            if let Some(line) = self.0.get(&key) {
                return Some(*line);
            }
            let parent = key.rfind('.')?;
            key.truncate(parent);
        }
    }

    fn add(&mut self, text: &str, key: String, start: usize) {
        let before = text.get(..start).unwrap_or_default();
        let line = before.matches('\n').count().saturating_add(1);
        self.0.entry(key).or_insert(line);
    }

    fn add_table(&mut self, text: &str, path: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let below = below(path, key.get_ref());
            self.add(text, below.clone(), key.span().start);
            self.add_value(text, &below, value.get_ref());
        }
    }

    fn add_value(&mut self, text: &str, path: &str, value: &DeValue<'_>) {
        match value {
            DeValue::Table(table) => self.add_table(text, path, table),
            DeValue::Array(items) => {
                let name = |item: &DeValue<'_>| Some(item.get("name")?.get_ref().as_str()?.to_owned());
                let names: Vec<Option<String>> = items.iter().map(|item| name(item.get_ref())).collect();
                for (item, segment) in items.iter().zip(segments(&names)) {
                    let below = below(path, &segment);
                    self.add(text, below.clone(), item.span().start);
                    self.add_value(text, &below, item.get_ref());
                }
            }
            _ => {}
        }
    }
}

/// Returns the path of `key` in the table with the path `path`.
#[must_use]
pub fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Returns the segment that identifies each entry of a list of tables in a key's path: the entry's name, if it is valid and
/// unique, and otherwise the entry's index from 0.
#[must_use]
pub fn segments<T: AsRef<str>>(names: &[Option<T>]) -> Vec<String> {
    let mut uses: BTreeMap<&str, usize> = BTreeMap::new();
    for name in names.iter().flatten() {
        let count = uses.entry(name.as_ref()).or_default();
        *count = count.saturating_add(1);
    }
    let is_usable = |name: &&str| is_name(name) && uses.get(name) == Some(&1);
    let names = names.iter().map(|name| name.as_ref().map(AsRef::as_ref).filter(is_usable));
    names.enumerate().map(|(at, name)| name.map_or_else(|| at.to_string(), str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_line_and_a_missing_one_that_of_its_table() {
        let text = "listen = 'x'\n\n[limits]\nmax_body = 1\n\n[[connector]]\nname = 'a'\n\
                    secrets = [\n  { env = 'A' },\n  { env = 'B' },\n]\n\n[[connector]]\npath = '/b'\n";
        let lines = Lines::of(text);
        for (key, line) in [
            ("listen", Some(1)),
            ("limits.max_body", Some(4)),
            ("limits.max_head", Some(3)),
            ("connector.a.name", Some(7)),
            ("connector.a.path", Some(6)),
            ("connector.a.secrets.0.env", Some(9)),
            ("connector.a.secrets.1.label", Some(10)),
            ("connector.1.path", Some(14)),
            ("connector.1.name", Some(13)),
            ("admin", None),
        ] {
            assert_eq!(lines.line(key), line, "{key}");
        }
    }

    #[test]
    fn an_entry_without_a_name_of_its_own_has_its_number() {
        let names = [Some("a"), Some("b"), None, Some("b"), Some("no name")];
        assert_eq!(segments(&names), ["a", "1", "2", "3", "4"]);
    }
}
