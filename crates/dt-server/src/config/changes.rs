//! What is different between two configurations: for the audit, and to tell what needs a restart. Values of secrets are
//! never among it, only that one was added, removed or changed.

use std::collections::BTreeMap;
use std::fmt;

use super::{
    Config, ConnectorConfig, FileConfig, KafkaConfig, Limits, Listen, Mode, Proxies, SinkConfig, SinkKind,
    SpoolLimits,
};
use crate::tls::TlsSettings;
use dt_verify::Difference;

/// The longest value that is shown.
const MAX_SHOWN: usize = 80;

/// One thing that is different.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigChange {
    /// The key's path with names for places, such as `connector.plant-1.secrets.2026` or `limits.deadline`.
    pub key: String,
    /// How it differs.
    pub how: Difference,
    /// The values before and after, where they may be shown.
    pub values: Option<(String, String)>,
}

impl fmt::Display for ConfigChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.values {
            Some((before, after)) => write!(f, "{}: {before} -> {after}", self.key),
            None => write!(f, "{} {}", self.key, self.how.name()),
        }
    }
}

/// Collects what is different below a key.
struct Changes {
    found: Vec<ConfigChange>,
}

impl Changes {
    /// Compares two values that may be shown.
    fn value<T: PartialEq + fmt::Debug>(&mut self, key: impl Into<String>, before: &T, after: &T) {
        if before != after {
            let values = Some((shown(before), shown(after)));
            self.found.push(ConfigChange { key: key.into(), how: Difference::Changed, values });
        }
    }

    /// Notes something whose values are not shown.
    fn note(&mut self, key: impl Into<String>, how: Difference) {
        self.found.push(ConfigChange { key: key.into(), how, values: None });
    }
}

/// A listener as a configuration names it.
#[derive(PartialEq, Eq)]
struct Named(String);

impl Named {
    fn of(listen: Option<&Listen>) -> Self {
        Self(listen.map_or_else(|| "off".to_owned(), ToString::to_string))
    }
}

impl fmt::Debug for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn shown<T: fmt::Debug>(value: &T) -> String {
    let text = format!("{value:?}");
    if text.chars().nth(MAX_SHOWN).is_none() {
        return text;
    }
    text.chars().take(MAX_SHOWN).chain("...".chars()).collect()
}

impl Config {
    /// What is different in `next`.
    #[must_use]
    pub fn changes_to(&self, next: &Self) -> Vec<ConfigChange> {
        let mut changes = Changes { found: Vec::new() };
        changes.value("listen", &Named::of(Some(&self.listen)), &Named::of(Some(&next.listen)));
        changes.value("admin", &Named::of(self.admin.as_ref()), &Named::of(next.admin.as_ref()));
        changes.value("socket_mode", &self.socket_mode, &next.socket_mode);
        match (&self.tls, &next.tls) {
            (Some(before), Some(after)) => before.changes_to(after, &mut changes),
            (None, Some(_)) => changes.note("tls", Difference::Added),
            (Some(_), None) => changes.note("tls", Difference::Removed),
            (None, None) => {}
        }
        self.proxies.changes_to(&next.proxies, &mut changes);
        changes.value("mode", &self.mode, &next.mode);
        changes.value("data", &self.data, &next.data);
        changes.value("dead_letters", &self.dead_letters, &next.dead_letters);
        changes.value("drain_timeout", &self.drain_timeout, &next.drain_timeout);
        changes.value("dedup_window", &self.dedup_window, &next.dedup_window);
        changes.value("dedup_max", &self.dedup_max, &next.dedup_max);
        self.spool.changes_to(&next.spool, &mut changes);
        self.limits.changes_to(&next.limits, &mut changes);
        let named = |config: &Self| -> BTreeMap<_, _> {
            config.connectors.iter().map(|c| (c.name.clone(), c.clone())).collect()
        };
        let (before, after) = (named(self), named(next));
        each(&mut changes, "connector", &before, &after, ConnectorConfig::changes_to);
        let named = |config: &Self| -> BTreeMap<_, _> {
            config.sinks.iter().map(|s| (s.name.clone(), s.clone())).collect()
        };
        let (before, after) = (named(self), named(next));
        each(&mut changes, "sink", &before, &after, SinkConfig::changes_to);
        changes.found
    }

    /// The keys whose change needs a restart, of those in `changes` from this configuration.
    #[must_use]
    pub fn need_restart<'a>(&self, changes: &'a [ConfigChange]) -> Vec<&'a str> {
        let keys = changes.iter().map(|change| change.key.as_str());
        keys.filter(|key| match *key {
            "listen" | "admin" | "socket_mode" | "tls" | "mode" | "data" => true,
            // What was made at the start: the permits of the load, and in mode `direct` the sizes of the queues.
            "limits.max_connections" | "limits.max_in_flight" | "limits.max_in_flight_bytes" => true,
            "limits.max_connections_per_peer" | "limits.max_unverified_bytes_per_peer" => true,
            "limits.max_refused" | "limits.max_refused_per_peer" => true,
            "dead_letters" | "dedup_window" | "dedup_max" | "limits.deadline" => self.mode == Mode::Direct,
            _ => false,
        })
        .collect()
    }
}

/// Compares what has names: added, removed, or different in the keys that `differ` finds.
fn each<V>(
    changes: &mut Changes,
    section: &str,
    before: &BTreeMap<std::sync::Arc<str>, V>,
    after: &BTreeMap<std::sync::Arc<str>, V>,
    differ: impl Fn(&V, &V, &str, &mut Changes),
) {
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        changes.note(format!("{section}.{name}"), Difference::Removed);
    }
    for (name, value) in after {
        let key = format!("{section}.{name}");
        match before.get(name) {
            Some(old) => differ(old, value, &key, changes),
            None => changes.note(key, Difference::Added),
        }
    }
}

impl TlsSettings {
    fn changes_to(&self, next: &Self, changes: &mut Changes) {
        let Self { certificate, key, client_ca, min_version, check_interval } = self;
        changes.value("tls.certificate", certificate, &next.certificate);
        changes.value("tls.key", key, &next.key);
        changes.value("tls.client_ca", client_ca, &next.client_ca);
        changes.value("tls.min_version", min_version, &next.min_version);
        changes.value("tls.check_interval", check_interval, &next.check_interval);
    }
}

impl Proxies {
    fn changes_to(&self, next: &Self, changes: &mut Changes) {
        let Self { networks, unix, header, protocol } = self;
        changes.value("trusted_proxies", &(networks, unix), &(&next.networks, &next.unix));
        changes.value("client_header", header, &next.header);
        changes.value("proxy_protocol", protocol, &next.protocol);
    }
}

impl SpoolLimits {
    fn changes_to(&self, next: &Self, changes: &mut Changes) {
        let Self { max_size, min_free, retain } = self;
        changes.value("spool.max_size", max_size, &next.max_size);
        changes.value("spool.min_free", min_free, &next.min_free);
        changes.value("spool.retain", retain, &next.retain);
    }
}

impl Limits {
    fn changes_to(&self, next: &Self, changes: &mut Changes) {
        // Taken apart, so that a new limit cannot be forgotten here.
        let Self {
            max_body,
            max_head,
            header_timeout,
            handshake_timeout,
            deadline,
            keep_alive_idle,
            max_connections,
            max_in_flight,
            max_in_flight_bytes,
            max_connections_per_peer,
            max_refused,
            max_refused_per_peer,
            max_unverified_bytes_per_peer,
            allow_cidrs,
        } = self;
        changes.value("limits.max_body", max_body, &next.max_body);
        changes.value("limits.max_head", max_head, &next.max_head);
        changes.value("limits.header_timeout", header_timeout, &next.header_timeout);
        changes.value("limits.handshake_timeout", handshake_timeout, &next.handshake_timeout);
        changes.value("limits.deadline", deadline, &next.deadline);
        changes.value("limits.keep_alive_idle", keep_alive_idle, &next.keep_alive_idle);
        changes.value("limits.max_connections", max_connections, &next.max_connections);
        changes.value("limits.max_in_flight", max_in_flight, &next.max_in_flight);
        changes.value("limits.max_in_flight_bytes", max_in_flight_bytes, &next.max_in_flight_bytes);
        let key = "limits.max_connections_per_peer";
        changes.value(key, max_connections_per_peer, &next.max_connections_per_peer);
        changes.value("limits.max_refused", max_refused, &next.max_refused);
        changes.value("limits.max_refused_per_peer", max_refused_per_peer, &next.max_refused_per_peer);
        let key = "limits.max_unverified_bytes_per_peer";
        changes.value(key, max_unverified_bytes_per_peer, &next.max_unverified_bytes_per_peer);
        changes.value("limits.allow_cidrs", allow_cidrs, &next.allow_cidrs);
    }
}

impl ConnectorConfig {
    fn changes_to(&self, next: &Self, key: &str, changes: &mut Changes) {
        let Self { name: _, path, verifier, key_issuer, events, projects, sinks, dedup, quarantine_refused } =
            self;
        changes.value(format!("{key}.path"), path, &next.path);
        for (part, how) in verifier.differences(&next.verifier) {
            changes.note(format!("{key}.{part}"), how);
        }
        changes.value(format!("{key}.asymmetric.fetched_from"), key_issuer, &next.key_issuer);
        changes.value(format!("{key}.events"), events, &next.events);
        changes.value(format!("{key}.projects"), projects, &next.projects);
        changes.value(format!("{key}.sinks"), sinks, &next.sinks);
        changes.value(format!("{key}.dedup_window"), dedup, &next.dedup);
        changes.value(format!("{key}.quarantine_refused"), quarantine_refused, &next.quarantine_refused);
    }
}

impl SinkConfig {
    fn changes_to(&self, next: &Self, key: &str, changes: &mut Changes) {
        let Self { name: _, kind, format, from_retained: _ } = self;
        changes.value(format!("{key}.format"), format, &next.format);
        match (kind, &next.kind) {
            (SinkKind::Stdout, SinkKind::Stdout) => {}
            (SinkKind::File(before), SinkKind::File(after)) => before.changes_to(after, key, changes),
            (SinkKind::Kafka(before), SinkKind::Kafka(after)) => before.changes_to(after, key, changes),
            _ => changes.note(format!("{key}.type"), Difference::Changed),
        }
    }

    /// Whether a running sink has to be made anew for `next`. Where a new sink starts does not matter once it runs.
    pub(crate) fn is_other_than(&self, next: &Self) -> bool {
        (&self.kind, self.format) != (&next.kind, next.format)
    }
}

impl FileConfig {
    fn changes_to(&self, next: &Self, key: &str, changes: &mut Changes) {
        let Self { path, rotate_size, rotate_every, compress } = self;
        changes.value(format!("{key}.path"), &path.to_string(), &next.path.to_string());
        changes.value(format!("{key}.rotate_size"), rotate_size, &next.rotate_size);
        changes.value(format!("{key}.rotate_every"), rotate_every, &next.rotate_every);
        changes.value(format!("{key}.compress"), compress, &next.compress);
    }
}

impl KafkaConfig {
    fn changes_to(&self, next: &Self, key: &str, changes: &mut Changes) {
        let Self { brokers, topic, key: record_key, create_topic, tls, sasl, properties } = self;
        changes.value(format!("{key}.brokers"), brokers, &next.brokers);
        changes.value(format!("{key}.topic"), &topic.to_string(), &next.topic.to_string());
        changes.value(format!("{key}.key"), record_key, &next.key);
        changes.value(format!("{key}.create_topic"), create_topic, &next.create_topic);
        // Passwords may be in these.
        for (part, differs) in [("tls", tls != &next.tls), ("sasl", sasl != &next.sasl)] {
            if differs {
                changes.note(format!("{key}.{part}"), Difference::Changed);
            }
        }
        for (property, how) in Difference::between(properties, &next.properties) {
            changes.note(format!("{key}.properties.{property}"), how);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

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
        let read = |text: &str| Config::from_toml(text, &Named).expect("a good configuration");
        let (before, after) = (read(before), read(after));
        assert_eq!(before.changes_to(&before), []);
        before.changes_to(&after).iter().map(ToString::to_string).collect()
    }

    const PLAIN: &str = "[[connector]]\nname = 'a'\nsecrets = [{ env = 'hidden-one' }]\n\
                         [[sink]]\nname = 'out'\ntype = 'file'\npath = '/tmp/x'\n";

    #[test]
    fn each_thing_is_named_and_no_secret_is_shown() {
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
    fn what_needs_a_restart_is_told_apart() {
        let read = |text: &str| Config::from_toml(text, &Named).expect("a good configuration");
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
