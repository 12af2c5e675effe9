//! Reads the configuration of a sink: `[[sink]]`, or `--sink` on the command line. Each type of sink reads its own keys: see
//! [`SinkSettings`](crate::sink::SinkSettings).

use std::sync::Arc;

use super::SinkFilter;
use crate::sink::{NoSinkType, NotASink, Settings, SinkTypes, StdoutConfig};
use dt_sink::config::{
    Changes, Key, KeyDefault, Section, Table, config_keys, custom, flag, name, table, unchecked, word,
};
use dt_sink::record::Format;

config_keys! {
    /// One sink.
    #[derive(Debug, Clone, PartialEq)]
    #[non_exhaustive]
    pub struct SinkConfig {
        needed {
            /// The name in logs, metrics and `connector.sinks`. Each sink has another one; the spool stores the
            /// position of a sink under its name.
            name: Arc<str> = name().needed("is missing; give it a name").sample("\"stdout\""),
        }
        /// The output: `body` is the received bytes, `envelope` adds when and how the event was received,
        /// `cloudevents` is CloudEvents 1.0, `line-protocol` is that of InfluxDB, for types that write lines. Details:
        /// [formats.md](formats.md).
        format: Format = word(&["body", "envelope", "cloudevents", "line-protocol"]).or(Format::default()),
        /// Where a new sink starts: with the next event, or with the oldest event that the spool still has.
        from_retained: bool = custom("`\"now\"`, `\"retained\"`", read_start)
            .or(false)
            .key("start")
            .default_shown("\"now\"")
            .not_compared(),
        /// The events that the sink receives, of those that its connectors accept; all, without this table. An event
        /// must match every key that is given, and of a list one value. The sink counts as having received any other
        /// event. Details: [receiving.md](receiving.md#events-of-a-sink).
        only: SinkFilter = table(unchecked),
        /// Whether the sink receives events that were fetched from a device's history at DT after an interruption:
        /// those with `"source":"backfill"` in an envelope. If `false`, the sink counts as having received them.
        backfill: bool = flag().or(true),
    }
    with {
        /// The keys of its type.
        pub settings: Settings,
    }
}

fn read_start(section: &mut Section<'_>, key: &'static str) -> Option<bool> {
    match section.string(key)?.as_str() {
        "now" => Some(false),
        "retained" => Some(true),
        other => {
            section.no_choice(key, other, &["now", "retained"]);
            None
        }
    }
}

/// Converts the settings of a sink on the command line; the sink has the name of its type.
impl From<Settings> for SinkConfig {
    fn from(settings: Settings) -> Self {
        Self::with_defaults(Arc::from(settings.type_name()), settings)
    }
}

impl SinkConfig {
    /// Returns the default sink: standard output.
    #[must_use]
    pub fn stdout() -> Self {
        Self::from(Settings::from(StdoutConfig::default()))
    }

    /// Reads a sink from the command line, such as `file:PATH`.
    ///
    /// # Errors
    ///
    /// [`NotASink`] if the type is unknown or its argument is wrong.
    pub fn parse(text: &str, types: &SinkTypes) -> Result<Self, NotASink> {
        types.parse(text).map(Self::from)
    }

    /// Reads a sink. An invalid value adds an error and is replaced by a placeholder, so that the other keys are checked; a
    /// configuration with errors is never used.
    pub(super) fn read(mut section: Section<'_>, types: &SinkTypes) -> Option<Self> {
        let has_format = section.has("format");
        let settings = read_settings(&mut section, types);
        let settings = settings.unwrap_or_else(|| StdoutConfig::default().into());
        let sink = Self::read_keys(&mut section, settings)?;
        if has_format {
            sink.check_format(&section);
        }
        section.finish();
        Some(sink)
    }

    /// Reports an error if sinks of this type cannot write the configured format.
    fn check_format(&self, section: &Section<'_>) {
        let (formats, type_name) = (self.settings.formats(), self.settings.type_name());
        if formats.contains(&self.format) {
            return;
        }
        let names: Vec<_> = formats.iter().map(|format| format.name()).collect();
        section.complain(
            "format",
            if names.is_empty() {
                format!("a sink of type \"{type_name}\" has no format; remove the key")
            } else {
                let found = self.format.name();
                format!("found \"{found}\"; a sink of type \"{type_name}\" takes {}", names.join(", "))
            },
        );
    }

    /// Adds the differences of `next` to `changes`, below the sink's name.
    pub(super) fn changes_to(&self, next: &Self, changes: &mut Changes) {
        self.compare_keys(next, changes);
        self.settings.compare(&next.settings, changes);
    }

    /// Returns whether the settings `next` require a new sink in place of the running one. The key `start` only matters for a new
    /// sink, and a changed `only` or `backfill` is applied by the worker.
    pub(crate) fn is_other_than(&self, next: &Self) -> bool {
        self.format != next.format || self.settings.needs_new_sink(&next.settings)
    }

    /// Returns the tables of all types of sinks, for the reference.
    pub(super) fn described(types: &SinkTypes) -> Vec<Table> {
        let about = "Where events are forwarded to. Without any, to standard output.";
        let names: Vec<String> = types.names().iter().map(|name| format!("`\"{name}\"`")).collect();
        let of_type = Key::new("type", names.join(", "), "The type of the sink.").or(KeyDefault::Needed);
        let mut keys = Self::rows();
        keys.insert(1.min(keys.len()), of_type.sample("\"stdout\""));
        let all = Table::new("[[sink]]", about, keys);
        let below = Self::tables().into_iter().map(|table| table.below("sink"));
        std::iter::once(all)
            .chain(below)
            .chain(types.iter().flat_map(|sink_type| sink_type.tables()))
            .collect()
    }
}

/// Reads the key `type` of a sink, and the keys that this type has.
fn read_settings(section: &mut Section<'_>, types: &SinkTypes) -> Option<Settings> {
    let Some(name) = section.string("type") else {
        section.missing("type", &format!("is missing; expected one of {}", types.names().join(", ")));
        skip_keys_of_types(section, types);
        return None;
    };
    match types.find(&name) {
        Ok(sink_type) => sink_type.read(section),
        Err(NoSinkType::Unknown) => {
            section.no_choice("type", &name, &types.names());
            skip_keys_of_types(section, types);
            None
        }
        Err(left_out) => {
            section.complain("type", left_out.to_string());
            // The keys of a type that is not built in are unknown.
            let own: Vec<_> = SinkConfig::rows().iter().map(|key| key.name).collect();
            section.skip_all_but(&own);
            None
        }
    }
}

/// Skips the keys of all types: without a valid `type`, it is unknown which keys are valid.
fn skip_keys_of_types(section: &mut Section<'_>, types: &SinkTypes) {
    for table in types.iter().flat_map(|sink_type| sink_type.tables()) {
        section.skip(table.keys.iter().map(|key| key.name).filter(|_| table.header == "[[sink]]"));
        section.skip(table.path().strip_prefix("sink."));
    }
}
