//! The entry of one key of the configuration: how its value is read, checked, written, compared and documented.
//!
//! An entry begins with the type of the value, and continues with the default:
//!
//! ```text
//! size(1024..=65_536).or(4096)                    a size, 4 KiB unless given
//! number(1..=100).or(10).restart()                a number; a new one needs a restart
//! duration(SECOND..=HOUR).or_none("never")        an `Option<Duration>`, `None` unless given
//! path("PEM").needed("is missing; name a file")   has to be given
//! ```
//!
//! Where no type fits, [`custom`] takes a function. For a key that is a table, [`table`] takes another struct of keys.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::changes::Changes;
use super::secret::is_name;
use super::section::Section;
use super::table::{Key, KeyDefault, Reload, Table};
use super::units::{write_duration, write_size};

/// A struct whose fields are the keys of a table. [`config_keys!`](crate::config_keys) implements it.
pub trait Keys: Sized {
    /// Reads the keys of a table. An invalid value is reported and replaced by the default of its key. Returns `None` if a key
    /// has neither a valid value nor a default.
    fn read(section: &mut Section<'_>) -> Option<Self>;

    /// Adds the keys whose values differ in `next` to `changes`.
    fn compare(&self, next: &Self, changes: &mut Changes);

    /// Returns the description of each key of this table, for the reference.
    fn rows() -> Vec<Key>;

    /// Returns the descriptions of the tables below this one, for the reference.
    fn tables() -> Vec<Table>;
}

/// The entry of a key whose value is stored in a field of type `T`.
pub trait Entry<T>: Sized {
    /// Reads the value, or returns the default. Returns `None`, after a report, if there is neither a valid value nor a default.
    fn read(self, field: &'static str, section: &mut Section<'_>) -> Option<T>;

    /// Adds the difference between the values before and after to `changes`, if they differ.
    fn compare(self, field: &'static str, values: (&T, &T), changes: &mut Changes);

    /// Returns the rows that this entry adds to the reference of its table.
    fn rows(self, field: &'static str, meaning: &str) -> Vec<Key>;

    /// Returns the tables that this entry adds below its table.
    fn tables(self, _field: &'static str, _meaning: &str) -> Vec<Table> {
        Vec::new()
    }
}

/// An entry with a default, so that the key may be absent.
pub trait OptionalEntry<T>: Entry<T> {
    /// Returns the value that is used if the key is absent.
    fn default(self) -> T;
}

/// Reads the value of a key of a section; `None` if the key is absent, or after an invalid value was reported.
type Read<T> = Box<dyn FnOnce(&mut Section<'_>, &'static str) -> Option<T>>;

/// The type of a key's value: the allowed values, and how a value is read, written as TOML and shown in the audit. The functions
/// below create the usual types; their parameter `allowed` is the description of the allowed values in the reference.
pub struct Kind<T> {
    allowed: String,
    read: Read<T>,
    /// Writes a value as TOML, for the default in the reference.
    toml: fn(&T) -> String,
    /// Writes a value for the audit of a changed configuration.
    shown: fn(&T) -> String,
}

impl<T: fmt::Debug + 'static> Kind<T> {
    fn new(
        allowed: impl Into<String>,
        read: impl FnOnce(&mut Section<'_>, &'static str) -> Option<T> + 'static,
        toml: fn(&T) -> String,
    ) -> Self {
        Self { allowed: allowed.into(), read: Box::new(read), toml, shown: |value| format!("{value:?}") }
    }

    /// Sets how the audit shows a value. The default is its `Debug` representation.
    #[must_use]
    pub fn shown_as(mut self, shown: fn(&T) -> String) -> Self {
        self.shown = shown;
        self
    }

    /// Sets the default: the value that is used if the key is absent.
    pub fn or(self, value: T) -> Optional<T> {
        let default = KeyDefault::Value((self.toml)(&value));
        Optional { value, about: About::new(self, default) }
    }

    /// Makes the value an `Option` that is `None` if the key is absent. `words` describe this default in the reference, and may
    /// be empty.
    pub fn or_none(self, words: &'static str) -> Optional<Option<T>> {
        let read = self.read;
        let kind = Kind::new(self.allowed, |section, key| read(section, key).map(Some), |_| String::new());
        let default = if words.is_empty() { KeyDefault::None } else { KeyDefault::Words(words) };
        Optional { value: None, about: About::new(kind, default) }
    }

    /// Makes the key required. A configuration without the key is invalid, with the error message `missing`.
    pub fn needed(self, missing: &'static str) -> Needed<T> {
        Needed { missing, about: About::new(self, KeyDefault::Needed) }
    }
}

/// Writes a value as a TOML string.
fn quoted(value: &impl fmt::Display) -> String {
    format!("\"{value}\"")
}

/// Creates the type of a whole number within `range`.
pub fn number<T>(range: RangeInclusive<T>) -> Kind<T>
where
    T: TryFrom<u64> + TryInto<u64> + Copy + fmt::Debug + fmt::Display + 'static,
{
    let allowed = format!("number, {} to {}", range.start(), range.end());
    let range = as_u64(*range.start())..=as_u64(*range.end());
    let read = move |section: &mut Section<'_>, key| section.number(key, &range)?.try_into().ok();
    Kind::new(allowed, read, T::to_string)
}

/// Creates the type of a size in bytes within `range`, such as `64KiB`.
pub fn size<T>(range: RangeInclusive<T>) -> Kind<T>
where
    T: TryFrom<u64> + TryInto<u64> + Copy + fmt::Debug + 'static,
{
    let range = as_u64(*range.start())..=as_u64(*range.end());
    let allowed = format!("size, {} to {}", write_size(*range.start()), write_size(*range.end()));
    let read = move |section: &mut Section<'_>, key| section.size(key, &range)?.try_into().ok();
    Kind::new(allowed, read, |bytes| quoted(&write_size(as_u64(*bytes))))
}

/// Converts a bound of a range, or a default, to `u64`. They are not negative and have at most 64 bits.
fn as_u64<T: TryInto<u64>>(value: T) -> u64 {
    value.try_into().unwrap_or(u64::MAX)
}

/// Creates the type of a duration within `range`, such as `8s`.
#[must_use]
pub fn duration(range: RangeInclusive<Duration>) -> Kind<Duration> {
    let allowed = format!("duration, {} to {}", write_duration(*range.start()), write_duration(*range.end()));
    let read = move |section: &mut Section<'_>, key| section.duration(key, &range);
    Kind::new(allowed, read, |duration| quoted(&write_duration(*duration)))
}

/// Creates the type of a boolean: `true` or `false`.
#[must_use]
pub fn flag() -> Kind<bool> {
    Kind::new("`true`, `false`", |section, key| section.flag(key), bool::to_string)
}

/// Creates the type of a string that is one of `words`.
pub fn word<T: FromStr + fmt::Debug + fmt::Display + 'static>(words: &'static [&'static str]) -> Kind<T> {
    let allowed: Vec<String> = words.iter().map(|word| format!("`\"{word}\"`")).collect();
    let read = |section: &mut Section<'_>, key| section.word(key, words);
    Kind::new(allowed.join(", "), read, quoted)
}

/// Creates the type of a string with any content.
#[must_use]
pub fn text(allowed: &str) -> Kind<String> {
    Kind::new(allowed, |section, key| section.string(key), quoted)
}

/// Creates the type of a path of a file or folder, which need not exist.
#[must_use]
pub fn path(allowed: &str) -> Kind<PathBuf> {
    let read = |section: &mut Section<'_>, key| section.string(key).map(PathBuf::from);
    Kind::new(allowed, read, |path| quoted(&path.display()))
}

/// Creates the type of a string that is parsed as a `T`. The error message for an invalid string names `expected`.
pub fn parsed<T>(allowed: &str, expected: &'static str) -> Kind<T>
where
    T: FromStr + fmt::Debug + fmt::Display + 'static,
{
    Kind::new(allowed, |section, key| section.parsed(key, expected), quoted)
}

/// Creates the type of a name ([`is_name`]). If the key is absent, an error is reported, and the index of the table in its list
/// takes its place.
#[must_use]
pub fn name() -> Kind<Arc<str>> {
    let read = |section: &mut Section<'_>, key| {
        let Some(name) = section.string(key) else {
            section.missing(key, "is missing; give it a name");
            return Some(Arc::from(section.segment()));
        };
        if !is_name(&name) {
            section.problem(key, &name, "1 to 64 letters, digits, - and _");
        }
        Some(Arc::from(name))
    };
    Kind::new("name", read, quoted)
}

/// Creates the type of a list of strings that must not be empty. `without` says, in the error message, what an absent key means.
pub fn texts<T>(allowed: &str, without: &'static str) -> Kind<T>
where
    T: FromIterator<String> + fmt::Debug + 'static,
{
    let read = move |section: &mut Section<'_>, key| {
        section.strings_not_empty(key, without).map(|texts| texts.into_iter().collect())
    };
    Kind::new(allowed, read, |_| String::new())
}

/// Creates a type whose values are read by the function `read`, which reports problems itself. `allowed` describes the allowed
/// values in the reference.
pub fn custom<T: fmt::Debug + 'static>(
    allowed: &str,
    read: fn(&mut Section<'_>, &'static str) -> Option<T>,
) -> Kind<T> {
    Kind::new(allowed, read, |_| String::new())
}

/// The properties of a key other than its default value.
struct About<T> {
    kind: Kind<T>,
    key: Option<&'static str>,
    default: KeyDefault,
    sample: Option<&'static str>,
    reload: Reload,
    is_compared: bool,
}

impl<T> About<T> {
    fn new(kind: Kind<T>, default: KeyDefault) -> Self {
        Self { kind, key: None, default, sample: None, reload: Reload::Yes, is_compared: true }
    }

    fn compare(&self, field: &'static str, (before, after): (&T, &T), changes: &mut Changes)
    where
        T: PartialEq,
    {
        if self.is_compared && before != after {
            let shown = ((self.kind.shown)(before), (self.kind.shown)(after));
            changes.value(self.key.unwrap_or(field), shown, self.reload);
        }
    }

    fn row(self, field: &'static str, meaning: &str) -> Key {
        let mut row = Key::new(self.key.unwrap_or(field), self.kind.allowed, meaning).or(self.default);
        row.sample = self.sample.map(str::to_owned);
        row.reload = self.reload;
        row
    }
}

/// The entry of a key with a default.
pub struct Optional<T> {
    value: T,
    about: About<T>,
}

/// The entry of a required key.
pub struct Needed<T> {
    missing: &'static str,
    about: About<T>,
}

/// Adds the setters that both kinds of entries have.
macro_rules! described {
    ($($entry:ident)+) => {$(
        impl<T> $entry<T> {
            /// Sets the name of the key, if it differs from the name of the field.
            #[must_use]
            pub fn key(mut self, key: &'static str) -> Self {
                self.about.key = Some(key);
                self
            }

            /// Sets the value that the sample file shows, as TOML.
            #[must_use]
            pub fn sample(mut self, toml: &'static str) -> Self {
                self.about.sample = Some(toml);
                self
            }

            /// Declares that a new value takes effect only after a restart.
            #[must_use]
            pub fn restart(mut self) -> Self {
                self.about.reload = Reload::Restart;
                self
            }

            /// Declares that a new value takes effect only after a restart if the mode is `direct`.
            #[must_use]
            pub fn restart_in_direct(mut self) -> Self {
                self.about.reload = Reload::RestartInDirect;
                self
            }

            /// Leaves the key out of the differences: it is compared elsewhere, or has no effect once it was used.
            #[must_use]
            pub fn not_compared(mut self) -> Self {
                self.about.is_compared = false;
                self
            }
        }
    )+};
}

described! { Optional Needed }

impl<T> Optional<T> {
    /// Sets the default that the reference shows, as TOML.
    #[must_use]
    pub fn default_shown(mut self, toml: &str) -> Self {
        self.about.default = KeyDefault::Value(toml.to_owned());
        self
    }

    /// Sets a description of the default in words, for the reference.
    #[must_use]
    pub fn default_words(mut self, words: &'static str) -> Self {
        self.about.default = KeyDefault::Words(words);
        self
    }
}

impl<T: PartialEq> Entry<T> for Optional<T> {
    fn read(self, field: &'static str, section: &mut Section<'_>) -> Option<T> {
        let key = self.about.key.unwrap_or(field);
        Some((self.about.kind.read)(section, key).unwrap_or(self.value))
    }

    fn compare(self, field: &'static str, values: (&T, &T), changes: &mut Changes) {
        self.about.compare(field, values, changes);
    }

    fn rows(self, field: &'static str, meaning: &str) -> Vec<Key> {
        vec![self.about.row(field, meaning)]
    }
}

impl<T: PartialEq> OptionalEntry<T> for Optional<T> {
    fn default(self) -> T {
        self.value
    }
}

impl<T: PartialEq> Entry<T> for Needed<T> {
    fn read(self, field: &'static str, section: &mut Section<'_>) -> Option<T> {
        let key = self.about.key.unwrap_or(field);
        let value = (self.about.kind.read)(section, key);
        if value.is_none() {
            section.missing(key, self.missing);
        }
        value
    }

    fn compare(self, field: &'static str, values: (&T, &T), changes: &mut Changes) {
        self.about.compare(field, values, changes);
    }

    fn rows(self, field: &'static str, meaning: &str) -> Vec<Key> {
        vec![self.about.row(field, meaning)]
    }
}

/// Checks the keys of a table in combination, after they were read, and can change them.
type Check<T> = fn(&mut T, &Section<'_>);

/// The entry of a key that is a table: `[FIELD]`.
pub struct Inner<T> {
    check: Check<T>,
}

/// The entry of several keys of the same table, which are grouped in a struct of their own.
pub struct Flat<T> {
    check: Check<T>,
}

/// Creates the entry of a table `[FIELD]` whose keys are those of `T`. `check` checks them in combination.
pub fn table<T: Keys + Default>(check: Check<T>) -> Inner<T> {
    Inner { check }
}

/// Creates the entry of keys of the same table that are grouped in a `T`. `check` checks them in combination.
pub fn flat<T: Keys + Default>(check: Check<T>) -> Flat<T> {
    Flat { check }
}

/// The check for [`table`] and [`flat`] that accepts all combinations.
pub fn unchecked<T>(_: &mut T, _: &Section<'_>) {}

impl<T: Keys + Default> Entry<T> for Inner<T> {
    fn read(self, field: &'static str, section: &mut Section<'_>) -> Option<T> {
        let Some(mut section) = section.section(field) else { return Some(T::default()) };
        let mut read = T::read(&mut section)?;
        (self.check)(&mut read, &section);
        section.finish();
        Some(read)
    }

    fn compare(self, field: &'static str, (before, after): (&T, &T), changes: &mut Changes) {
        changes.below(field, |changes| before.compare(after, changes));
    }

    fn rows(self, _: &'static str, _: &str) -> Vec<Key> {
        Vec::new()
    }

    fn tables(self, field: &'static str, meaning: &str) -> Vec<Table> {
        let table = Table::new(format!("[{field}]"), meaning, T::rows());
        std::iter::once(table).chain(T::tables().into_iter().map(|table| table.below(field))).collect()
    }
}

impl<T: Keys + Default> OptionalEntry<T> for Inner<T> {
    fn default(self) -> T {
        T::default()
    }
}

impl<T: Keys + Default> Entry<T> for Flat<T> {
    fn read(self, _: &'static str, section: &mut Section<'_>) -> Option<T> {
        let mut read = T::read(section)?;
        (self.check)(&mut read, section);
        Some(read)
    }

    fn compare(self, _: &'static str, (before, after): (&T, &T), changes: &mut Changes) {
        before.compare(after, changes);
    }

    fn rows(self, _: &'static str, _: &str) -> Vec<Key> {
        T::rows()
    }

    fn tables(self, _: &'static str, _: &str) -> Vec<Table> {
        T::tables()
    }
}

impl<T: Keys + Default> OptionalEntry<T> for Flat<T> {
    fn default(self) -> T {
        T::default()
    }
}
