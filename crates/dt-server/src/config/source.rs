//! Reads the configuration of a source: `[[source]]`, from which the receiver reads events without being reached by DT.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::connector::read_events;
use super::monitor::is_id;
use super::{Config, Mode};
use dt_sink::config::{
    Changes, Problems, Reload, Section, Table, config_keys, custom, name, segments, text, texts, word,
};

config_keys! {
    /// One source: a project of DT whose events the receiver reads.
    #[derive(Debug, Clone, PartialEq, Eq)]
    #[non_exhaustive]
    pub struct SourceConfig {
        needed {
            /// The name in logs, metrics and envelopes (`connector`). No connector and no other source has it.
            name: Arc<str> = name().needed("is missing; give it a name").sample("\"plant-2\"").not_compared(),
            /// How events are read: from the stream of a project.
            source_type: SourceType = word(&["stream"]).needed(NO_TYPE).key("type").sample("\"stream\""),
            /// The id of the project. No connector accepts its events, and no other source reads them.
            project: String = text("id")
                .needed("is missing; give the id of the project whose events are read")
                .sample("\"b5rj9ed7rihk942p48og\""),
        }
        /// The event types that are read.
        events: BTreeSet<String> = custom("list of event types", read_events)
            .or(BTreeSet::new())
            .default_words("all")
            .sample("[\"temperature\", \"humidity\"]"),
        /// The sinks that receive its events.
        sinks: Option<Vec<String>> =
            texts("list of names of sinks", "all sinks").or_none("all").sample("[\"stdout\"]"),
    }
}

const NO_TYPE: &str = "is missing; expected \"stream\"";

/// How a source reads events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SourceType {
    /// From the stream of a project, and from the history what the stream missed.
    Stream,
}

impl FromStr for SourceType {
    type Err = UnknownSourceType;

    fn from_str(name: &str) -> Result<Self, UnknownSourceType> {
        match name {
            "stream" => Ok(Self::Stream),
            _ => Err(UnknownSourceType),
        }
    }
}

impl fmt::Display for SourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stream")
    }
}

/// The error for a text that is not the name of a type of source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown type of source; expected stream")]
pub struct UnknownSourceType;

impl SourceConfig {
    /// Reads a source. An invalid value adds an error; a configuration with errors is never used.
    pub(super) fn read(mut section: Section<'_>) -> Option<Self> {
        let source = Self::read_keys(&mut section)?;
        if !is_id(&source.project) {
            section.problem("project", &source.project, "the id of a project, of letters, digits, - and _");
        }
        section.finish();
        Some(source)
    }

    /// Adds the differences of `next` to `changes`, below the source's name. Each needs a restart.
    pub(super) fn changes_to(&self, next: &Self, changes: &mut Changes) {
        if self == next {
            return;
        }
        let shown = |source: &Self| {
            let Self { project, events, sinks, .. } = source;
            let sinks = sinks.as_ref().map_or_else(|| "all".to_owned(), |sinks| sinks.join(", "));
            let events: Vec<&str> = events.iter().map(String::as_str).collect();
            let events = if events.is_empty() { "all".to_owned() } else { events.join(", ") };
            format!("project {project}, events {events}, sinks {sinks}")
        };
        changes.value("stream", (shown(self), shown(next)), Reload::Restart);
    }

    /// Returns the table of a source, for the reference.
    pub(super) fn described() -> Table {
        let about = "A project whose events are read from DT's API, without an open port and a certificate: the receiver connects to \
                     DT. Needs `[api]` and mode `spool`. Which guarantees that has: [pull.md](pull.md). A change needs a restart.";
        let mut keys = Self::rows();
        keys.iter_mut().for_each(|key| key.reload = Reload::Restart);
        Table::new("[[source]]", about, keys)
    }
}

impl Config {
    /// Returns whether the receiver listens for requests of DT: it has a connector.
    #[must_use]
    pub fn listens(&self) -> bool {
        !self.connectors.is_empty()
    }

    /// Checks the sources together with the other tables, and adds errors to `problems`.
    pub(super) fn check_sources(&self, problems: &Problems) {
        if self.sources.is_empty() {
            return;
        }
        if self.api.is_none() && !problems.has_errors_at("api") {
            let text = "needs [api]: give the service account with which DT's REST API is called";
            problems.error("source", text.to_owned());
        }
        if self.mode == Mode::Direct {
            let text = "cannot be used in mode `direct`, which has no log to find what the stream missed; use mode `spool`";
            problems.error("source", text.to_owned());
        }
        if self.dedup_window.is_zero() {
            let text =
                "needs a `dedup_window` that is not 0: what the stream missed is fetched with an overlap";
            problems.error("source", text.to_owned());
        }
        let names: Vec<_> = self.sources.iter().map(|source| Some(&*source.name)).collect();
        for (at, (source, segment)) in self.sources.iter().zip(segments(&names)).enumerate() {
            let before = self.sources.iter().take(at);
            let is_taken = self.connectors.iter().any(|connector| connector.name == source.name)
                || before.clone().any(|other| other.name == source.name);
            if is_taken {
                let text = format!("\"{}\" is also the name of another source or connector", source.name);
                problems.error(&format!("source.{segment}.name"), text);
            }
            let key = format!("source.{segment}.project");
            if let Some(other) = before.clone().find(|other| other.project == source.project) {
                problems.error(
                    &key,
                    format!("source \"{}\" reads the same project; delete one of them", other.name),
                );
            }
            for connector in &self.connectors {
                if connector.projects.is_empty() {
                    let text = format!(
                        "connector \"{}\" accepts events of any project, also of this one, so each would be stored twice; \
                         name the projects of the connector",
                        connector.name
                    );
                    problems.error(&key, text);
                } else if connector.projects.contains(&source.project) {
                    let text = format!(
                        "connector \"{}\" accepts events of this project, so each would be stored twice; delete one of them",
                        connector.name
                    );
                    problems.error(&key, text);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::io;
    use std::path::Path;

    use super::*;
    use crate::config::{Sources, reference};
    use crate::sink::standard_types;

    struct OneSecret;

    impl Sources for OneSecret {
        fn env(&self, name: &str) -> Option<OsString> {
            (name == "SECRET").then(|| "some-good-secret".into())
        }

        fn file(&self, _: &Path) -> io::Result<Vec<u8>> {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    const API: &str = "[api]\nkey_id = 'k'\nemail = 'e@x'\nsecret = { env = 'SECRET' }\n";
    const SOURCE: &str = "[[source]]\nname = 's'\ntype = 'stream'\nproject = 'p'\n";

    fn read(text: &str) -> Result<Config, String> {
        let config = Config::from_toml(text, &OneSecret, &standard_types()).and_then(Config::complete);
        config.map_err(|error| error.to_string())
    }

    fn connector(projects: &str) -> String {
        format!("[[connector]]\nname = 'a'\nsecrets = [{{ env = 'SECRET' }}]\n{projects}")
    }

    #[test]
    fn a_source_needs_no_connector_and_nothing_is_bound_without_one() {
        let config = read(&format!("{API}{SOURCE}events = ['touch']\nsinks = ['stdout']\n")).expect("good");
        let [source] = &config.sources[..] else { panic!("{:?}", config.sources) };
        assert_eq!((&*source.name, &*source.project, source.source_type), ("s", "p", SourceType::Stream));
        assert!(!config.listens() && config.fills_gaps());
        let both = read(&format!("{API}{SOURCE}{}", connector("projects = ['q']\n"))).expect("good");
        assert!(both.listens());
        let tables = reference(&standard_types());
        let table = tables.iter().find(|table| table.header == "[[source]]").expect("described");
        assert!(table.keys.iter().all(|key| key.reload == Reload::Restart));
    }

    #[test]
    fn each_mistake_is_reported_with_its_remedy() {
        let good = format!("{API}{SOURCE}");
        for (text, expected) in [
            (SOURCE.to_owned(), "source: needs [api]"),
            (format!("mode = 'direct'\n{good}"), "source: cannot be used in mode `direct`"),
            (format!("dedup_window = 0\n{good}"), "source: needs a `dedup_window`"),
            (good.replace("'stream'", "'push'"), "source.s.type: found \"push\"; expected"),
            (good.replace("type = 'stream'\n", ""), "source.s.type: is missing"),
            (good.replace("project = 'p'\n", ""), "source.s.project: is missing"),
            (good.replace("'p'", "'p/q'"), "source.s.project: found \"p/q\""),
            (format!("{good}path = '/'\n"), "source.s.path: unknown key"),
            (format!("{good}sinks = ['none']\n"), "source.s.sinks: no sink is named \"none\""),
            (
                format!("{good}{}", connector("projects = ['p']\n")),
                "source.s.project: connector \"a\" accepts events of this project",
            ),
            (
                format!("{good}{}", connector("")),
                "source.s.project: connector \"a\" accepts events of any project",
            ),
            (
                format!("{good}{}", SOURCE.replace("'s'", "'t'")),
                "source.t.project: source \"s\" reads the same project",
            ),
            (
                format!("{good}{}", connector("projects = ['q']\n").replace("'a'", "'s'")),
                "source.s.name: \"s\" is also the name of another",
            ),
        ] {
            let error = read(&text).map(drop).expect_err(&text);
            assert!(error.contains(expected), "{text}\n{error}");
        }
    }

    #[test]
    fn a_change_of_a_source_needs_a_restart() {
        let before = read(&format!("{API}{SOURCE}")).expect("good");
        let added = format!("{API}{SOURCE}{}", SOURCE.replace("'s'", "'t'").replace("'p'", "'q'"));
        for after in [added, format!("{API}{SOURCE}events = ['touch']\n"), format!("{API}{}", connector(""))]
        {
            let after = read(&after).expect("good");
            for changes in [before.changes_to(&after), after.changes_to(&before)] {
                let restart = before.need_restart(&changes);
                assert!(restart.iter().any(|key| key.starts_with("source.")), "{changes:?}");
            }
        }
    }
}
