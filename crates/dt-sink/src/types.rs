//! The types of sinks that a program knows. A type is named in the configuration (`type = "NAME"`) and on the command line
//! (`--sink NAME:PLACE`). All other code uses its [`Settings`] without knowing the type.
//!
//! A new type is a struct of its keys, defined with [`config_keys!`](crate::config_keys), that implements [`SinkSettings`],
//! and one line in the program's table of types.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::config::{Changes, Keys, Reload, Section, Table};
use super::{DeadLetterSink, Metric, OpenError, Sink, SinkError, SinkReporter};
use crate::record::{Format, PathTemplate};
use dt_verify::Difference;

/// The settings of one type of sink, and everything that is specific to the type.
pub trait SinkSettings: Keys + Clone + PartialEq + fmt::Debug + Send + Sync + 'static {
    /// The name of the sink type, for `type = "NAME"`.
    const NAME: &'static str;
    /// The form of the text after `--sink NAME:`, such as `PATH`; `None` if the type has no such text.
    const PLACE: Option<&'static str>;
    /// The purpose of the sink, in Markdown, for the reference.
    const ABOUT: &'static str;
    /// The name of a sink of this type in the sample file.
    const SAMPLE_NAME: &'static str = Self::NAME;
    /// The form of the text after `dead_letters = "NAME:`, such as `TOPIC`; `None` if the type stores no dead letters.
    const DEAD_LETTERS: Option<&'static str> = None;
    /// The metrics that sinks of this type report.
    const METRICS: &'static [Metric] = &[];
    /// The formats that sinks of this type can write: the allowed values of the key `format`. If there are none, the key is an
    /// error.
    const FORMATS: &'static [Format] = &Format::ALL;

    /// Creates the settings from the text after `--sink NAME:`; the text is empty if [`PLACE`](Self::PLACE) is `None`.
    ///
    /// # Errors
    ///
    /// [`BadPlace`] if the text is invalid.
    fn from_place(place: &str) -> Result<Self, BadPlace>;

    /// Checks combinations of keys after they were read, and reports problems to the section.
    fn check(&self, _section: &Section<'_>) {}

    /// Returns the files that the sink writes, from the key `path`; `None` for a sink that writes no files. No other sink may
    /// write the same files, and they must not be in the folder of the spool.
    fn files(&self) -> Option<&PathTemplate> {
        None
    }

    /// Returns whether the change to the settings `next` requires a new sink in place of the running one.
    fn needs_new_sink(&self, next: &Self) -> bool {
        self != next
    }

    /// Creates a sink, without opening it.
    ///
    /// # Errors
    ///
    /// [`OpenError::Unusable`] if the sink can never work with these settings.
    fn sink(&self, context: SinkContext) -> Result<Box<dyn Sink>, OpenError>;

    /// Checks at the destination whether a sink with these settings could deliver, without any change there: nothing is created,
    /// published or written. Blocks for at most about `context.give_up_after`. Returns the result in words fit for a report;
    /// `None` if the type cannot check this.
    ///
    /// # Errors
    ///
    /// [`SinkError`] with the cause and the remedy, without a secret.
    fn probe(&self, _context: SinkContext) -> Option<Result<String, SinkError>> {
        None
    }

    /// Returns whether `place`, the text after `dead_letters = "NAME:`, names a valid destination for dead letters.
    fn is_dead_letter_place(_place: &str) -> bool {
        false
    }

    /// Opens the destination for dead letters that `place` names, with the settings of this sink.
    ///
    /// # Errors
    ///
    /// [`OpenError::Unusable`] if the destination can never work, or the type stores no dead letters.
    fn open_dead_letters(
        &self,
        _place: &str,
        _context: SinkContext,
    ) -> Result<Arc<dyn DeadLetterSink>, OpenError> {
        Err(OpenError::Unusable(format!("a sink of type \"{}\" takes no dead letters", Self::NAME)))
    }
}

/// The arguments for creating a sink, in addition to its settings.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SinkContext {
    /// The format in which the sink writes records.
    pub format: Format,
    /// How long the delivery of a record is retried before it counts as failed; `None` for no limit. In mode `direct`, a request
    /// waits for the delivery.
    pub give_up_after: Option<Duration>,
    /// Receives the metrics and log lines of the sink, and knows the sink's name.
    pub reporter: Arc<dyn SinkReporter>,
}

impl SinkContext {
    /// Creates a context without a time limit.
    #[must_use]
    pub const fn new(format: Format, reporter: Arc<dyn SinkReporter>) -> Self {
        Self { format, give_up_after: None, reporter }
    }
}

/// Why the text after `--sink NAME:` is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct BadPlace {
    why: String,
    is_private: bool,
}

impl BadPlace {
    /// Creates the error with a short reason; the message contains the text.
    pub fn new(why: impl fmt::Display) -> Self {
        Self { why: why.to_string(), is_private: false }
    }

    /// Creates the error for a text that may be a secret by mistake: the message does not contain the text.
    pub fn private(why: impl fmt::Display) -> Self {
        Self { why: why.to_string(), is_private: true }
    }
}

/// A type of sink.
#[derive(Clone, Copy)]
pub struct SinkType {
    name: &'static str,
    place: Option<&'static str>,
    dead_letters: Option<&'static str>,
    metrics: &'static [Metric],
    formats: &'static [Format],
    is_dead_letter_place: fn(&str) -> bool,
    read: fn(SinkType, &mut Section<'_>) -> Option<Settings>,
    from_place: fn(SinkType, &str) -> Result<Settings, BadPlace>,
    tables: fn() -> Vec<Table>,
}

impl fmt::Debug for SinkType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl SinkType {
    /// Returns the type that has these settings.
    #[must_use]
    pub const fn of<S: SinkSettings>() -> Self {
        Self {
            name: S::NAME,
            place: S::PLACE,
            dead_letters: S::DEAD_LETTERS,
            metrics: S::METRICS,
            formats: S::FORMATS,
            is_dead_letter_place: S::is_dead_letter_place,
            read: |sink_type, section| {
                let settings = S::read(section)?;
                settings.check(section);
                Some(Settings { sink_type, values: Arc::new(settings) })
            },
            from_place: |sink_type, place| {
                Ok(Settings { sink_type, values: Arc::new(S::from_place(place)?) })
            },
            tables: tables::<S>,
        }
    }

    /// Returns the name of the type.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Reads the keys of a `[[sink]]` that only this type has. Returns `None`, after a report, if they are invalid.
    #[must_use]
    pub fn read(self, section: &mut Section<'_>) -> Option<Settings> {
        (self.read)(self, section)
    }

    /// Returns the tables of a `[[sink]]` of this type, for the reference; empty if the type has no keys of its own.
    #[must_use]
    pub fn tables(&self) -> Vec<Table> {
        (self.tables)()
    }
}

/// Returns the tables of the keys of a type.
fn tables<S: SinkSettings>() -> Vec<Table> {
    let rows = <S as Keys>::rows();
    if rows.is_empty() {
        return Vec::new();
    }
    let given = format!("name = \"{}\"\ntype = \"{}\"", S::SAMPLE_NAME, S::NAME);
    let own = Table::new("[[sink]]", S::ABOUT, rows).given(given);
    let below = <S as Keys>::tables().into_iter().map(|table| table.below("sink"));
    std::iter::once(own).chain(below).collect()
}

/// The settings of a sink of some type. Cheap to clone.
#[derive(Clone)]
pub struct Settings {
    sink_type: SinkType,
    values: Arc<dyn AnySettings>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.values.fmt(f)
    }
}

impl PartialEq for Settings {
    fn eq(&self, other: &Self) -> bool {
        self.values.equals(&*other.values)
    }
}

impl<S: SinkSettings> From<S> for Settings {
    fn from(settings: S) -> Self {
        Self { sink_type: SinkType::of::<S>(), values: Arc::new(settings) }
    }
}

impl Settings {
    /// Returns the name of the type.
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        self.sink_type.name
    }

    /// Returns the metrics that sinks of this type report.
    #[must_use]
    pub const fn metrics(&self) -> &'static [Metric] {
        self.sink_type.metrics
    }

    /// Returns the formats that sinks of this type can write.
    #[must_use]
    pub const fn formats(&self) -> &'static [Format] {
        self.sink_type.formats
    }

    /// Returns the settings if they are of the type `S`; otherwise `None`.
    #[must_use]
    pub fn get<S: SinkSettings>(&self) -> Option<&S> {
        let values: &dyn Any = &*self.values;
        values.downcast_ref()
    }

    /// Returns the files that the sink writes, from the key `path`; `None` for a sink that writes no files.
    #[must_use]
    pub fn files(&self) -> Option<&PathTemplate> {
        self.values.files()
    }

    /// Adds the keys whose values differ in `next` to `changes`.
    pub fn compare(&self, next: &Self, changes: &mut Changes) {
        self.values.compare(&*next.values, changes);
    }

    /// Returns whether the change to the settings `next` requires a new sink in place of the running one.
    #[must_use]
    pub fn needs_new_sink(&self, next: &Self) -> bool {
        self.values.needs_new_sink(&*next.values)
    }

    /// Creates a sink, without opening it.
    ///
    /// # Errors
    ///
    /// [`OpenError::Unusable`] if the sink can never work with these settings.
    pub fn sink(&self, context: SinkContext) -> Result<Box<dyn Sink>, OpenError> {
        self.values.sink(context)
    }

    /// Checks at the destination whether a sink with these settings could deliver: see [`SinkSettings::probe`].
    ///
    /// # Errors
    ///
    /// [`SinkError`] with the cause and the remedy, without a secret.
    pub fn probe(&self, context: SinkContext) -> Option<Result<String, SinkError>> {
        self.values.probe(context)
    }

    /// Opens the destination for dead letters that `place` names, with these settings.
    ///
    /// # Errors
    ///
    /// [`OpenError::Unusable`] if the destination can never work, or the type stores no dead letters.
    pub fn open_dead_letters(
        &self,
        place: &str,
        context: SinkContext,
    ) -> Result<Arc<dyn DeadLetterSink>, OpenError> {
        self.values.open_dead_letters(place, context)
    }
}

/// [`SinkSettings`] of any type. The alias has the lifetime that a downcast needs.
type AnySettingsRef = dyn AnySettings;

trait AnySettings: Any + fmt::Debug + Send + Sync {
    fn equals(&self, other: &AnySettingsRef) -> bool;
    fn files(&self) -> Option<&PathTemplate>;
    fn compare(&self, next: &AnySettingsRef, changes: &mut Changes);
    fn needs_new_sink(&self, next: &AnySettingsRef) -> bool;
    fn sink(&self, context: SinkContext) -> Result<Box<dyn Sink>, OpenError>;
    fn probe(&self, context: SinkContext) -> Option<Result<String, SinkError>>;
    fn open_dead_letters(
        &self,
        place: &str,
        context: SinkContext,
    ) -> Result<Arc<dyn DeadLetterSink>, OpenError>;
}

/// Returns the settings if they are of the type `S`; otherwise `None`.
fn same<S: SinkSettings>(settings: &AnySettingsRef) -> Option<&S> {
    let settings: &dyn Any = settings;
    settings.downcast_ref()
}

impl<S: SinkSettings> AnySettings for S {
    fn equals(&self, other: &AnySettingsRef) -> bool {
        same(other).is_some_and(|other| self == other)
    }

    fn files(&self) -> Option<&PathTemplate> {
        SinkSettings::files(self)
    }

    fn compare(&self, next: &AnySettingsRef, changes: &mut Changes) {
        match same(next) {
            Some(next) => Keys::compare(self, next, changes),
            None => changes.note("type", Difference::Changed, Reload::Yes),
        }
    }

    fn needs_new_sink(&self, next: &AnySettingsRef) -> bool {
        same(next).is_none_or(|next| SinkSettings::needs_new_sink(self, next))
    }

    fn sink(&self, context: SinkContext) -> Result<Box<dyn Sink>, OpenError> {
        SinkSettings::sink(self, context)
    }

    fn probe(&self, context: SinkContext) -> Option<Result<String, SinkError>> {
        SinkSettings::probe(self, context)
    }

    fn open_dead_letters(
        &self,
        place: &str,
        context: SinkContext,
    ) -> Result<Arc<dyn DeadLetterSink>, OpenError> {
        SinkSettings::open_dead_letters(self, place, context)
    }
}

/// A type of sink that is not in this build.
#[derive(Debug, Clone, Copy)]
pub struct MissingType {
    /// The name of the type.
    pub name: &'static str,
    /// The name of the destination system, such as `Kafka`.
    pub title: &'static str,
    /// The Cargo feature that adds the type to a build.
    pub feature: &'static str,
    /// The form of the text after `--sink NAME:`; `None` if the type has no such text.
    pub place: Option<&'static str>,
    /// The form of the text after `dead_letters = "NAME:`; `None` if the type stores no dead letters.
    pub dead_letters: Option<&'static str>,
}

/// Why a sink type is not available.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoSinkType {
    /// The type exists, but not in this build.
    #[error("this build has no {title}; build with the feature `{feature}`")]
    LeftOut {
        /// The name of the destination system, such as `Kafka`.
        title: &'static str,
        /// The Cargo feature that adds the type to a build.
        feature: &'static str,
    },
    /// No type has this name.
    #[error("there is no such type of sink")]
    Unknown,
}

/// The types of sinks that a program knows. Empty by default.
#[derive(Debug, Clone, Default)]
pub struct SinkTypes {
    types: Vec<SinkType>,
    left_out: Vec<MissingType>,
}

impl SinkTypes {
    /// Adds the sink type with the settings `S`.
    #[must_use]
    pub fn with<S: SinkSettings>(mut self) -> Self {
        self.types.push(SinkType::of::<S>());
        self
    }

    /// Adds a type that is not in this build, unless a type with the same name was added.
    #[must_use]
    pub fn or_left_out(mut self, missing: MissingType) -> Self {
        if self.types.iter().all(|sink_type| sink_type.name != missing.name) {
            self.left_out.push(missing);
        }
        self
    }

    /// Returns the types of this build, without those that are left out.
    pub fn iter(&self) -> impl Iterator<Item = &SinkType> {
        self.types.iter()
    }

    /// Returns the names of all types; those that are left out come last.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        let left_out = self.left_out.iter().map(|missing| missing.name);
        self.types.iter().map(|sink_type| sink_type.name).chain(left_out).collect()
    }

    /// Returns the name of each type with the metrics that it declares. A type that declares none is left out.
    #[must_use]
    pub fn metrics(&self) -> Vec<(&'static str, &'static [Metric])> {
        let types = self.types.iter().filter(|sink_type| !sink_type.metrics.is_empty());
        types.map(|sink_type| (sink_type.name, sink_type.metrics)).collect()
    }

    /// Returns the form of each type on the command line, such as `file:PATH`.
    #[must_use]
    pub fn usages(&self) -> Vec<String> {
        let types = self.types.iter().map(|sink_type| (sink_type.name, sink_type.place));
        let left_out = self.left_out.iter().map(|missing| (missing.name, missing.place));
        let usage = |(name, place): (&str, Option<&str>)| match place {
            Some(place) => format!("{name}:{place}"),
            None => name.to_owned(),
        };
        types.chain(left_out).map(usage).collect()
    }

    /// Returns the form of each destination for dead letters in the configuration, such as `kafka:TOPIC`.
    #[must_use]
    pub fn dead_letter_places(&self) -> Vec<String> {
        let types = self.types.iter().map(|sink_type| (sink_type.name, sink_type.dead_letters));
        let left_out = self.left_out.iter().map(|missing| (missing.name, missing.dead_letters));
        let place = |(name, place): (&str, Option<&str>)| Some(format!("{name}:{}", place?));
        types.chain(left_out).filter_map(place).collect()
    }

    /// Returns the type with this name.
    ///
    /// # Errors
    ///
    /// [`NoSinkType`] if no type has this name, or if the type is not in this build.
    pub fn find(&self, name: &str) -> Result<SinkType, NoSinkType> {
        if let Some(sink_type) = self.types.iter().find(|sink_type| sink_type.name == name) {
            return Ok(*sink_type);
        }
        let missing = self.left_out.iter().find(|missing| missing.name == name);
        Err(missing.map_or(NoSinkType::Unknown, |missing| NoSinkType::LeftOut {
            title: missing.title,
            feature: missing.feature,
        }))
    }

    /// Parses a sink of the command line, such as `stdout` or `file:PATH`.
    ///
    /// # Errors
    ///
    /// [`NotASink`] with the reason.
    pub fn parse(&self, text: &str) -> Result<Settings, NotASink> {
        let (name, place) = text.split_once(':').map_or((text, None), |(name, place)| (name, Some(place)));
        // A URL may contain a password.
        let shown = match place {
            Some(place) if place.contains("//") || place.contains('@') => format!("{name}:…"),
            _ => text.to_owned(),
        };
        let unknown = || NotASink::Unknown {
            text: shown.escape_debug().to_string(),
            allowed: self.usages().join(", "),
        };
        let sink_type = match self.find(name) {
            Ok(sink_type) => sink_type,
            Err(left_out @ NoSinkType::LeftOut { .. }) if place.is_some() => return Err(left_out.into()),
            Err(_) => return Err(unknown()),
        };
        let place = match (sink_type.place, place) {
            (None, None) => "",
            (Some(_), Some(place)) if !place.is_empty() => place,
            _ => return Err(unknown()),
        };
        let wrong = |why: BadPlace| {
            let shown = if why.is_private { name } else { text };
            NotASink::BadPlace { text: shown.escape_debug().to_string(), why }
        };
        (sink_type.from_place)(sink_type, place).map_err(wrong)
    }

    /// Returns whether a text such as `kafka:TOPIC` names a valid destination for dead letters. For a type that is not in this
    /// build, any text after the name is accepted.
    #[must_use]
    pub fn is_dead_letter_place(&self, text: &str) -> bool {
        let Some((name, place)) = text.split_once(':') else { return false };
        match self.types.iter().find(|sink_type| sink_type.name == name) {
            Some(sink_type) => (sink_type.is_dead_letter_place)(place),
            None => {
                self.left_out.iter().any(|missing| missing.name == name && missing.dead_letters.is_some())
            }
        }
    }
}

/// Why a text of the command line does not name a sink.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotASink {
    /// The text does not begin with a known type, or does not have the form of its type.
    #[error("\"{text}\" is no sink; expected {allowed}")]
    Unknown {
        /// The text of the command line.
        text: String,
        /// The forms of all types, such as `file:PATH`.
        allowed: String,
    },
    /// The text after the type is invalid.
    #[error("{text}: {why}")]
    BadPlace {
        /// The text of the command line; only the name of the type if the rest may be a secret.
        text: String,
        /// Why the text after the name of the type is invalid.
        why: BadPlace,
    },
    /// The type is not in this build.
    #[error(transparent)]
    LeftOut(#[from] NoSinkType),
}
