//! What stands at one key: how its value is read, checked, written, compared and documented.
//!
//! An entry begins with the type of the value, and says what holds without it:
//!
//! ```text
//! size(1024..=65_536).or(4096)                    a size, 4 KiB unless given
//! number(1..=100).or(10).restart()                a number; a new one needs a restart
//! duration(SECOND..=HOUR).or_none("never")        an `Option<Duration>`, `None` unless given
//! path("PEM").needed("is missing; name a file")   has to be given
//! ```
//!
//! Where no type fits, [`custom`] takes a function. Where a key is a table, [`table`] stands for another struct of keys.

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
    /// Reads the keys; what is wrong is reported, and has its default. `None` if a key that is needed cannot be had.
    fn read(section: &mut Section<'_>) -> Option<Self>;

    /// Adds what is different in `next`.
    fn compare(&self, next: &Self, changes: &mut Changes);

    /// Returns the rows of the keys.
    fn rows() -> Vec<Key>;

    /// Returns the tables below this one.
    fn tables() -> Vec<Table>;
}

/// What stands at the key of a field of type `T`.
pub trait Entry<T>: Sized {
    /// Reads the value, or returns the default. `None` where there is none of the two, after that was reported.
    fn read(self, field: &'static str, section: &mut Section<'_>) -> Option<T>;

    /// Adds the difference between two values.
    fn compare(self, field: &'static str, values: (&T, &T), changes: &mut Changes);

    /// Returns the rows that it adds to its table.
    fn rows(self, field: &'static str, meaning: &str) -> Vec<Key>;

    /// Returns the tables that it adds below its table.
    fn tables(self, _field: &'static str, _meaning: &str) -> Vec<Table> {
        Vec::new()
    }
}

/// An entry that need not be given.
pub trait OptionalEntry<T>: Entry<T> {
    /// Returns what holds without it.
    fn default(self) -> T;
}

/// Takes a value out of a section.
type Read<T> = Box<dyn FnOnce(&mut Section<'_>, &'static str) -> Option<T>>;

/// The type of a key's value: what is allowed, and how it is read, written as TOML and shown. The functions below describe
/// the usual ones; their `allowed` is the text for the reference.
pub struct Kind<T> {
    allowed: String,
    read: Read<T>,
    /// Writes a value as TOML.
    toml: fn(&T) -> String,
    /// Writes a value for the audit.
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

    /// Sets how the audit shows a value; without, by its `Debug`.
    #[must_use]
    pub fn shown_as(mut self, shown: fn(&T) -> String) -> Self {
        self.shown = shown;
        self
    }

    /// Sets the value that holds when the key is not given.
    pub fn or(self, value: T) -> Optional<T> {
        let default = KeyDefault::Value((self.toml)(&value));
        Optional { value, about: About::new(self, default) }
    }

    /// Makes it an `Option` that is `None` unless given; `words` say what that means, and may be empty.
    pub fn or_none(self, words: &'static str) -> Optional<Option<T>> {
        let read = self.read;
        let kind = Kind::new(self.allowed, |section, key| read(section, key).map(Some), |_| String::new());
        let default = if words.is_empty() { KeyDefault::None } else { KeyDefault::Words(words) };
        Optional { value: None, about: About::new(kind, default) }
    }

    /// Makes the key required. A configuration without it is invalid, with the message `missing`.
    pub fn needed(self, missing: &'static str) -> Needed<T> {
        Needed { missing, about: About::new(self, KeyDefault::Needed) }
    }
}

/// Writes a value as a TOML string.
fn quoted(value: &impl fmt::Display) -> String {
    format!("\"{value}\"")
}

/// Describes a key with a whole number.
pub fn number<T>(range: RangeInclusive<T>) -> Kind<T>
where
    T: TryFrom<u64> + TryInto<u64> + Copy + fmt::Debug + fmt::Display + 'static,
{
    let allowed = format!("number, {} to {}", range.start(), range.end());
    let range = as_u64(*range.start())..=as_u64(*range.end());
    let read = move |section: &mut Section<'_>, key| section.number(key, &range)?.try_into().ok();
    Kind::new(allowed, read, T::to_string)
}

/// Describes a key with a size, in bytes.
pub fn size<T>(range: RangeInclusive<T>) -> Kind<T>
where
    T: TryFrom<u64> + TryInto<u64> + Copy + fmt::Debug + 'static,
{
    let range = as_u64(*range.start())..=as_u64(*range.end());
    let allowed = format!("size, {} to {}", write_size(*range.start()), write_size(*range.end()));
    let read = move |section: &mut Section<'_>, key| section.size(key, &range)?.try_into().ok();
    Kind::new(allowed, read, |bytes| quoted(&write_size(as_u64(*bytes))))
}

/// Converts a bound of a range or a default, which are not negative and no wider than 64 bits.
fn as_u64<T: TryInto<u64>>(value: T) -> u64 {
    value.try_into().unwrap_or(u64::MAX)
}

/// Describes a key with a duration.
#[must_use]
pub fn duration(range: RangeInclusive<Duration>) -> Kind<Duration> {
    let allowed = format!("duration, {} to {}", write_duration(*range.start()), write_duration(*range.end()));
    let read = move |section: &mut Section<'_>, key| section.duration(key, &range);
    Kind::new(allowed, read, |duration| quoted(&write_duration(*duration)))
}

/// Describes a key with `true` or `false`.
#[must_use]
pub fn flag() -> Kind<bool> {
    Kind::new("`true`, `false`", |section, key| section.flag(key), bool::to_string)
}

/// Describes a key with one of a few words.
pub fn word<T: FromStr + fmt::Debug + fmt::Display + 'static>(words: &'static [&'static str]) -> Kind<T> {
    let allowed: Vec<String> = words.iter().map(|word| format!("`\"{word}\"`")).collect();
    let read = |section: &mut Section<'_>, key| section.word(key, words);
    Kind::new(allowed.join(", "), read, quoted)
}

/// Describes a key with any text.
#[must_use]
pub fn text(allowed: &str) -> Kind<String> {
    Kind::new(allowed, |section, key| section.string(key), quoted)
}

/// Describes a key with the path of a file or a folder, which need not exist.
#[must_use]
pub fn path(allowed: &str) -> Kind<PathBuf> {
    let read = |section: &mut Section<'_>, key| section.string(key).map(PathBuf::from);
    Kind::new(allowed, read, |path| quoted(&path.display()))
}

/// Describes a key with a text that is parsed as a `T`. Messages name `expected` when it cannot be.
pub fn parsed<T>(allowed: &str, expected: &'static str) -> Kind<T>
where
    T: FromStr + fmt::Debug + fmt::Display + 'static,
{
    Kind::new(allowed, |section, key| section.parsed(key, expected), quoted)
}

/// Describes a key with a name. If it is missing, that is reported, and the table's number stands in.
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

/// Describes a key with a list of texts that is not empty. `without` says what a missing key means.
pub fn texts<T>(allowed: &str, without: &'static str) -> Kind<T>
where
    T: FromIterator<String> + fmt::Debug + 'static,
{
    let read = move |section: &mut Section<'_>, key| {
        section.strings_not_empty(key, without).map(|texts| texts.into_iter().collect())
    };
    Kind::new(allowed, read, |_| String::new())
}

/// Reads a value by a function of its own, which reports what is wrong. `allowed` is for the reference.
pub fn custom<T: fmt::Debug + 'static>(
    allowed: &str,
    read: fn(&mut Section<'_>, &'static str) -> Option<T>,
) -> Kind<T> {
    Kind::new(allowed, read, |_| String::new())
}

/// What is known of a key beside its default.
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

/// A key with a default.
pub struct Optional<T> {
    value: T,
    about: About<T>,
}

/// A key that has to be given.
pub struct Needed<T> {
    missing: &'static str,
    about: About<T>,
}

/// Adds to both kinds of entries what may be said of any key.
macro_rules! described {
    ($($entry:ident)+) => {$(
        impl<T> $entry<T> {
            /// Names the key, where the field has another name.
            #[must_use]
            pub fn key(mut self, key: &'static str) -> Self {
                self.about.key = Some(key);
                self
            }

            /// Sets a value for the sample file, as TOML.
            #[must_use]
            pub fn sample(mut self, toml: &'static str) -> Self {
                self.about.sample = Some(toml);
                self
            }

            /// Makes a new value need a restart.
            #[must_use]
            pub fn restart(mut self) -> Self {
                self.about.reload = Reload::Restart;
                self
            }

            /// Makes a new value need a restart in mode `direct`.
            #[must_use]
            pub fn restart_in_direct(mut self) -> Self {
                self.about.reload = Reload::RestartInDirect;
                self
            }

            /// Leaves the key out of the differences: it is compared elsewhere, or does not matter once it was used.
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
    /// Sets the default as the reference shows it, as TOML.
    #[must_use]
    pub fn default_shown(mut self, toml: &str) -> Self {
        self.about.default = KeyDefault::Value(toml.to_owned());
        self
    }

    /// Describes the default in words.
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

/// A check between the keys of a table, after they were read.
type Check<T> = fn(&mut T, &Section<'_>);

/// A table of its own: `[FIELD]`.
pub struct Inner<T> {
    check: Check<T>,
}

/// Keys of the same table, held together by a struct of their own.
pub struct Flat<T> {
    check: Check<T>,
}

/// Stands for a table `[FIELD]` with these keys; `check` looks across them.
pub fn table<T: Keys + Default>(check: Check<T>) -> Inner<T> {
    Inner { check }
}

/// Stands for keys of the same table; `check` looks across them.
pub fn flat<T: Keys + Default>(check: Check<T>) -> Flat<T> {
    Flat { check }
}

/// Checks nothing, for [`table`] and [`flat`].
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
