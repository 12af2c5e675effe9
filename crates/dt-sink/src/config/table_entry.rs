//! Entries for optional tables: any table, a table that says where a secret is stored, and a table of keys.

use super::changes::Changes;
use super::entry::{Entry, Keys, OptionalEntry};
use super::secret::{optional_secret, secret_keys};
use super::section::Section;
use super::table::{Key, Reload, Table};
use dt_verify::{Difference, Secret};

/// The entry of an optional table `[FIELD]`. If it is absent, the value is `T::default()`. A change is reported without values,
/// since they may be secrets.
pub struct TableEntry<T> {
    /// Reads the table. Returns `None`, after a report, if the table is invalid; then the settings of the whole sink are invalid.
    pub read: fn(Section<'_>) -> Option<T>,
    /// Returns the tables for the reference. The parameters are the name of the field and its meaning.
    pub tables: fn(&'static str, &str) -> Vec<Table>,
}

/// The entry of an optional table `[FIELD]` that says where a secret is stored, by the key `env` or `file`.
pub struct SecretEntry {
    /// The name of an environment variable, for the sample.
    pub variable: &'static str,
    /// The path of a file, for the sample.
    pub path: &'static str,
}

/// Adds the difference of a table to `changes`, without its values.
pub(super) fn note_table<T: PartialEq>(field: &str, (before, after): (&T, &T), changes: &mut Changes) {
    if before != after {
        changes.note(field, Difference::Changed, Reload::Yes);
    }
}

impl<T: PartialEq + Default> Entry<T> for TableEntry<T> {
    fn read(self, field: &'static str, section: &mut Section<'_>) -> Option<T> {
        section.section(field).map_or_else(|| Some(T::default()), self.read)
    }

    fn compare(self, field: &'static str, values: (&T, &T), changes: &mut Changes) {
        note_table(field, values, changes);
    }

    fn rows(self, _: &'static str, _: &str) -> Vec<Key> {
        Vec::new()
    }

    fn tables(self, field: &'static str, meaning: &str) -> Vec<Table> {
        (self.tables)(field, meaning)
    }
}

impl<T: PartialEq + Default> OptionalEntry<T> for TableEntry<T> {
    fn default(self) -> T {
        T::default()
    }
}

impl Entry<Option<Secret>> for SecretEntry {
    fn read(self, field: &'static str, section: &mut Section<'_>) -> Option<Option<Secret>> {
        Some(optional_secret(section, field))
    }

    fn compare(self, field: &'static str, values: (&Option<Secret>, &Option<Secret>), changes: &mut Changes) {
        note_table(field, values, changes);
    }

    fn rows(self, _: &'static str, _: &str) -> Vec<Key> {
        Vec::new()
    }

    fn tables(self, field: &'static str, meaning: &str) -> Vec<Table> {
        vec![Table::new(format!("[{field}]"), meaning, secret_keys(self.variable, self.path))]
    }
}

impl OptionalEntry<Option<Secret>> for SecretEntry {
    fn default(self) -> Option<Secret> {
        None
    }
}

/// The entry of an optional table `[FIELD]` whose keys are those of `T`. The value is `None` if the table is absent, or was reported
/// as invalid. The keys are compared one by one; adding or removing the table needs a restart.
pub struct OptionalTable<T> {
    check: fn(&mut T, &Section<'_>),
}

/// Creates the entry of an optional table. `check` checks its keys in combination.
pub fn optional_table<T: Keys>(check: fn(&mut T, &Section<'_>)) -> OptionalTable<T> {
    OptionalTable { check }
}

impl<T: Keys> Entry<Option<T>> for OptionalTable<T> {
    fn read(self, field: &'static str, section: &mut Section<'_>) -> Option<Option<T>> {
        let Some(mut section) = section.section(field) else { return Some(None) };
        let mut read = T::read(&mut section);
        if let Some(read) = &mut read {
            (self.check)(read, &section);
        }
        section.finish();
        Some(read)
    }

    fn compare(self, field: &'static str, values: (&Option<T>, &Option<T>), changes: &mut Changes) {
        match values {
            (Some(before), Some(after)) => changes.below(field, |changes| before.compare(after, changes)),
            (None, Some(_)) => changes.note(field, Difference::Added, Reload::Restart),
            (Some(_), None) => changes.note(field, Difference::Removed, Reload::Restart),
            (None, None) => {}
        }
    }

    fn rows(self, _: &'static str, _: &str) -> Vec<Key> {
        Vec::new()
    }

    fn tables(self, field: &'static str, meaning: &str) -> Vec<Table> {
        let table = Table::new(format!("[{field}]"), meaning, T::rows());
        std::iter::once(table).chain(T::tables().into_iter().map(|table| table.below(field))).collect()
    }
}

impl<T: Keys> OptionalEntry<Option<T>> for OptionalTable<T> {
    fn default(self) -> Option<T> {
        None
    }
}
