//! An entry for a table that need not be there, and for tables whose keys the file's author chooses.

use dt_sink::config::{Changes, Entry, Key, OptionalEntry, Reload, Section, Table};
use dt_verify::Difference;

/// A table `[FIELD]`. Without it the value is the default. A changed one is reported without its values, since they may be
/// secrets.
pub struct TableEntry<T> {
    /// Reads the table. `None`, after a report, if it is invalid: then the whole sink is.
    pub read: fn(Section<'_>) -> Option<T>,
    /// Returns the tables for the reference, by the name and the meaning of the field.
    pub tables: fn(&'static str, &str) -> Vec<Table>,
}

impl<T: PartialEq + Default> Entry<T> for TableEntry<T> {
    fn read(self, field: &'static str, section: &mut Section<'_>) -> Option<T> {
        section.section(field).map_or_else(|| Some(T::default()), self.read)
    }

    fn compare(self, field: &'static str, (before, after): (&T, &T), changes: &mut Changes) {
        if before != after {
            changes.note(field, Difference::Changed, Reload::Yes);
        }
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
