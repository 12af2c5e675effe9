//! Compares two configurations, for the audit and for a reload. The entries of a table compare its keys; this file compares
//! connectors and sinks by their names.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Config, ConnectorConfig, Mode, SinkConfig, SourceConfig};
use dt_sink::config::{Changes, ConfigChange, Reload};
use dt_verify::Difference;

impl Config {
    /// Returns the keys whose values differ in `next`, with their values where these may be shown.
    #[must_use]
    pub fn changes_to(&self, next: &Self) -> Vec<ConfigChange> {
        let mut changes = Changes::default();
        self.compare_keys(next, &mut changes);
        let named = |config: &Self| -> BTreeMap<_, _> {
            config.connectors.iter().map(|c| (c.name.clone(), c.clone())).collect()
        };
        let both = (&named(self), &named(next));
        each(&mut changes, ("connector", Reload::Yes), both, ConnectorConfig::changes_to);
        let named = |config: &Self| -> BTreeMap<_, _> {
            config.sinks.iter().map(|s| (s.name.clone(), s.clone())).collect()
        };
        let both = (&named(self), &named(next));
        each(&mut changes, ("sink", Reload::Yes), both, SinkConfig::changes_to);
        let named = |config: &Self| -> BTreeMap<_, _> {
            config.sources.iter().map(|s| (s.name.clone(), s.clone())).collect()
        };
        let both = (&named(self), &named(next));
        each(&mut changes, ("source", Reload::Restart), both, SourceConfig::changes_to);
        changes.found()
    }

    /// Returns the keys in `changes` whose new values need a restart, according to the mode of this configuration.
    #[must_use]
    pub fn need_restart<'a>(&self, changes: &'a [ConfigChange]) -> Vec<&'a str> {
        let needs_restart = |change: &&ConfigChange| match change.reload {
            Reload::Yes => false,
            Reload::Restart => true,
            Reload::RestartInDirect => self.mode == Mode::Direct,
        };
        changes.iter().filter(needs_restart).map(|change| change.key.as_str()).collect()
    }
}

/// Connectors, sinks or sources, by name.
type Named<V> = BTreeMap<Arc<str>, V>;

/// Compares connectors, sinks or sources by name: records those that were added or removed, with what activates that, and calls
/// `differ` for those in both configurations.
fn each<V>(
    changes: &mut Changes,
    (section, reload): (&str, Reload),
    (before, after): (&Named<V>, &Named<V>),
    differ: impl Fn(&V, &V, &mut Changes),
) {
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        changes.note(&format!("{section}.{name}"), Difference::Removed, reload);
    }
    for (name, value) in after {
        let key = format!("{section}.{name}");
        match before.get(name) {
            Some(old) => changes.below(&key, |changes| differ(old, value, changes)),
            None => changes.note(&key, Difference::Added, reload),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;
    use crate::sink::standard_types;

    /// Secrets whose value is the name of their file.
    struct Named;

    impl Sources for Named {
        fn env(&self, name: &str) -> Option<std::ffi::OsString> {
            Some(name.into())
        }

        fn file(&self, path: &std::path::Path) -> std::io::Result<Vec<u8>> {
            Ok(path.to_string_lossy().into_owned().into_bytes())
        }
    }

    fn changes(before: &str, after: &str) -> Vec<String> {
        let read =
            |text: &str| Config::from_toml(text, &Named, &standard_types()).expect("a good configuration");
        let (before, after) = (read(before), read(after));
        assert_eq!(before.changes_to(&before), []);
        before.changes_to(&after).iter().map(ToString::to_string).collect()
    }

    const PLAIN: &str = "[[connector]]\nname = 'a'\nsecrets = [{ env = 'hidden-one' }]\n\
                         [[sink]]\nname = 'out'\ntype = 'file'\npath = '/tmp/x'\n";

    #[test]
    fn each_change_is_named_and_no_secret_is_shown() {
        let after = PLAIN.replace("hidden-one", "hidden-two").replace("/tmp/x", "/tmp/y");
        let after = format!(
            "listen = '127.0.0.1:1'\n{after}\n[[connector]]\nname = 'b'\npath = '/b'\nsecrets = [{{ env = 'x' }}]"
        );
        let found = changes(PLAIN, &after);
        assert_eq!(
            found,
            [
                "listen: 127.0.0.1:8080 -> 127.0.0.1:1",
                "connector.a.secrets.default changed",
                "connector.b added",
                "sink.out.path: \"/tmp/x\" -> \"/tmp/y\"",
            ]
        );
        assert!(!found.join(" ").contains("hidden"));
        assert_eq!(changes(&after, PLAIN).get(1).map(String::as_str), Some("connector.b removed"));
    }

    #[test]
    fn changes_that_need_a_restart_are_found() {
        let read =
            |text: &str| Config::from_toml(text, &Named, &standard_types()).expect("a good configuration");
        let (plain, next) = (
            read(PLAIN),
            read(&format!(
                "data = '/elsewhere'\ndedup_window = '1h'\n[limits]\nmax_body = '1MiB'\nmax_in_flight = 7\n{PLAIN}"
            )),
        );
        let changes = plain.changes_to(&next);
        assert_eq!(plain.need_restart(&changes), ["data", "limits.max_in_flight"]);
        let direct = read(&format!("mode = 'direct'\n{PLAIN}"));
        assert!(direct.need_restart(&direct.changes_to(&next)).contains(&"dedup_window"));
    }
}
