//! Entries for tables that need not be there: any table, and one that names where a secret is.

use super::changes::Changes;
use super::entry::{Entry, OptionalEntry};
use super::secret::{optional_secret, secret_keys};
use super::section::Section;
use super::table::{Key, Reload, Table};
use dt_verify::{Difference, Secret};

/// A table `[FIELD]`. Without it the value is the default. A changed one is reported without its values, since they may be
/// secrets.
pub struct TableEntry<T> {
    /// Reads the table. `None`, after a report, if it is invalid: then the whole sink is.
    pub read: fn(Section<'_>) -> Option<T>,
    /// Returns the tables for the reference, by the name and the meaning of the field.
    pub tables: fn(&'static str, &str) -> Vec<Table>,
}

/// A table `[FIELD]` that names where a secret is: by `env` or by `file`.
pub struct SecretEntry {
    /// A name of a variable, for the sample.
    pub variable: &'static str,
    /// A path, for the sample.
    pub path: &'static str,
}

/// Reports that a table differs, without its values.
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
