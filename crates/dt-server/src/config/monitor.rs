//! The table `[monitor]`: what is watched at DT, and what is done about it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::public_url::{NotAPublicUrl, PublicUrl};
use super::{Config, ConnectorConfig, Mode};
use dt_sink::config::{Problems, Section, config_keys, custom, duration, flag, texts};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
/// The smallest `spool.max_size` with which events can be filled, in bytes: filling pauses at half of it, and an empty log has three
/// segments of 16 MiB, and dead letters.
const LEAST_SPOOL: u64 = 112 << 20;

config_keys! {
    /// What is watched at DT, and what is done about it.
    #[derive(Debug, Clone, PartialEq, Eq)]
    #[non_exhaustive]
    pub struct MonitorSettings {
        needed {
            /// The URL at which DT reaches the receiver. A Data Connector belongs to the connector whose `path` follows it in
            /// the Endpoint URL.
            public_url: PublicUrl = custom("URL", read_public_url)
                .shown_as(ToString::to_string)
                .needed("is missing; give the URL at which DT reaches the receiver, such as \"https://receiver.example.com\"")
                .sample("\"https://receiver.example.com\""),
        }
        /// The projects that are watched.
        projects: BTreeSet<String> = texts("list of project ids", "those of the connectors")
            .or(BTreeSet::new())
            .default_words("those of the connectors")
            .sample("[\"c14u9p094l47cdv1o3pg\"]"),
        /// The time between two checks.
        interval: Duration = duration(SECOND..=HOUR).or(Duration::from_secs(300)),
        /// Sets a Data Connector that DT disabled (`SYSTEM_DISABLED`) to `ACTIVE` again, once the receiver is healthy, and syncs
        /// it. One that a person disabled is never changed.
        reenable: bool = flag().or(false),
        /// The shortest time between two attempts to set a Data Connector to `ACTIVE`. After three attempts without a
        /// delivery, a person has to act.
        reenable_after: Duration = duration(SECOND..=HOUR.saturating_mul(24)).or(HOUR),
        /// Fetches missed events from DT's event history. Needs mode `spool`, and a `dedup_window` that is not 0.
        backfill: bool = flag().or(true).restart(),
    }
}

/// Reads the public URL. Error messages do not contain the value, which may contain a password.
fn read_public_url(section: &mut Section<'_>, key: &'static str) -> Option<PublicUrl> {
    let url: Result<PublicUrl, NotAPublicUrl> = section.private_string(key)?.parse();
    match url {
        Ok(url) => Some(url),
        Err(error) => {
            section.complain(key, error.to_string());
            None
        }
    }
}

impl MonitorSettings {
    pub(super) fn check(&mut self, section: &Section<'_>) {
        if !self.public_url.is_secure() {
            let text =
                "is not https; DT delivers to https only (http is allowed on this machine, for `emulate`)";
            section.complain("public_url", text);
        }
        for project in self.projects.iter().filter(|project| !is_id(project)) {
            section.problem("projects", project, "ids of projects, of letters, digits, - and _");
        }
    }
}

/// Returns whether a text can be the id of a project at DT.
pub(super) fn is_id(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

impl Config {
    /// Returns the projects that the monitor watches; empty without a monitor.
    #[must_use]
    pub fn monitored_projects(&self) -> BTreeSet<String> {
        match &self.monitor {
            None => BTreeSet::new(),
            Some(monitor) if !monitor.projects.is_empty() => monitor.projects.clone(),
            Some(_) => self.connectors.iter().flat_map(|connector| connector.projects.clone()).collect(),
        }
    }

    /// Returns whether missed events are fetched.
    #[must_use]
    pub fn fills_gaps(&self) -> bool {
        !self.sources.is_empty() || self.monitor.as_ref().is_some_and(|monitor| monitor.backfill)
    }

    /// Checks `[monitor]` together with the other tables, and adds errors to `problems`.
    pub(super) fn check_monitor(&self, problems: &Problems) {
        let Some(monitor) = &self.monitor else { return };
        if self.api.is_none() && !problems.has_errors_at("api") {
            let text = "needs [api]: give the service account with which DT's REST API is called";
            problems.error("monitor", text.to_owned());
        }
        let projects = self.monitored_projects();
        if projects.is_empty() && !problems.has_errors_at("connector") {
            let text = "is missing, and no connector has `projects`; name the projects to be watched";
            problems.error("monitor.projects", text.to_owned());
        }
        // Those of `monitor.projects` were checked with the table.
        for project in projects.iter().filter(|project| monitor.projects.is_empty() && !is_id(project)) {
            let text = format!(
                "\"{}\" of a connector's `projects` is no id of a project; expected letters, digits, - and _",
                project.escape_debug()
            );
            problems.error("monitor.projects", text);
        }
        if !monitor.backfill {
            return;
        }
        if self.mode == Mode::Direct {
            let text = "is true, which mode `direct` cannot do: it has no log that knows what was received; set it to false, or \
                        use mode `spool`";
            problems.error("monitor.backfill", text.to_owned());
        }
        if self.dedup_window.is_zero() {
            let text = "is true, and `dedup_window` is 0: without the ids of received events, all would be filled twice; set one \
                        of them";
            problems.error("monitor.backfill", text.to_owned());
        }
        if self.spool.max_size < LEAST_SPOOL {
            let text = "is less than 112MiB: half of it hardly holds the segment that is written and two spare ones, and while the \
                        log is half full, nothing is filled";
            problems.warning("spool.max_size", text.to_owned());
        }
        if !problems.has_errors_at("connector") {
            self.check_owners(&projects, problems);
        }
    }

    /// Checks that each back-filled event of a project belongs to one connector, and that the ids of received events are kept. Adds
    /// errors to `problems`.
    fn check_owners(&self, projects: &BTreeSet<String>, problems: &Problems) {
        let accepts = |connector: &ConnectorConfig| {
            connector.projects.is_empty() || !connector.projects.is_disjoint(projects)
        };
        for connector in self.connectors.iter().filter(|connector| !connector.dedup && accepts(connector)) {
            let text = format!(
                "is true, and `dedup_window` of connector \"{}\" is 0: without the ids of received events, nothing can be filled; \
                 set one of them",
                connector.name
            );
            problems.error("monitor.backfill", text);
        }
        for project in projects {
            let named: Vec<_> =
                self.connectors.iter().filter(|connector| connector.projects.contains(project)).collect();
            let open = self.connectors.iter().filter(|connector| connector.projects.is_empty()).count();
            let problem = match (&named[..], open) {
                ([], 0) => "no connector accepts its events: add it to the `projects` of one",
                ([], 1) | ([_], _) => continue,
                ([], _) => {
                    "several connectors accept its events, and fetched ones belong to one: add it to the `projects` of that one"
                }
                (several, _) if have_other_events(several) => continue,
                _ => {
                    "several connectors have it in their `projects`, and fetched events belong to one: keep it in one of them, or \
                     give each `events` that the others do not have"
                }
            };
            problems.error("monitor.projects", format!("project {}: {problem}", project.escape_debug()));
        }
    }
}

/// Returns whether no event type is forwarded by two of these connectors.
fn have_other_events(connectors: &[&ConnectorConfig]) -> bool {
    let mut seen = BTreeSet::new();
    connectors.iter().all(|connector| {
        !connector.events.is_empty() && connector.events.iter().all(|event_type| seen.insert(event_type))
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::io;
    use std::path::Path;

    use super::*;
    use crate::config::Sources;
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
    const CONNECTOR: &str = "[[connector]]\nname = 'a'\nsecrets = [{ env = 'SECRET' }]\n";

    fn read(text: &str) -> Result<Config, String> {
        Config::from_toml(text, &OneSecret, &standard_types()).map_err(|error| error.to_string())
    }

    #[test]
    fn each_mistake_is_reported_with_its_remedy() {
        let monitor = "[monitor]\npublic_url = 'https://r.example'\nprojects = ['p']\n";
        let good = format!("{API}{monitor}{CONNECTOR}");
        let config = read(&good).expect("a good configuration");
        let settings = config.monitor.clone().expect("a monitor");
        assert_eq!((settings.reenable, settings.backfill, settings.interval.as_secs()), (false, true, 300));
        assert!(config.fills_gaps() && !read(CONNECTOR).expect("good").fills_gaps());
        let of_connectors =
            format!("{API}{}{CONNECTOR}projects = ['q']\n", monitor.replace("projects = ['p']\n", ""));
        let projects = read(&of_connectors).expect("good").monitored_projects();
        assert_eq!(projects.into_iter().collect::<Vec<_>>(), ["q"]);
        for (text, expected) in [
            (format!("{monitor}{CONNECTOR}"), "line 1: monitor: needs [api]"),
            (format!("{API}[monitor]\n{CONNECTOR}"), "line 5: monitor.public_url: is missing; give"),
            (good.replace("https://r", "http://r"), "line 6: monitor.public_url: is not https"),
            (
                good.replace("https://r", "https://u:some-good-secret@r"),
                "line 6: monitor.public_url: expected the URL",
            ),
            (good.replace("projects = ['p']\n", ""), "monitor.projects: is missing, and no connector has"),
            (good.replace("['p']", "['projects/p']"), "line 7: monitor.projects: found"),
            (of_connectors.replace("'q'", "'a b'"), "monitor.projects: \"a b\" of a connector's"),
            (format!("mode = 'direct'\n{good}"), "monitor.backfill: is true, which mode `direct` cannot do"),
            (format!("dedup_window = 0\n{good}"), "monitor.backfill: is true, and `dedup_window` is 0"),
            (good.replace("[monitor]", "[monitor]\ninterval = '2h'"), "line 6: monitor.interval: found"),
        ] {
            let error = read(&text).map(|_| ()).expect_err(&text);
            assert!(error.contains(expected) && !error.contains("some-good-secret"), "{text}: {error}");
        }
        let second = "[[connector]]\nname = 'b'\npath = '/b'\nsecrets = [{ env = 'SECRET' }]\n";
        let named = format!("{good}projects = ['p']\n");
        for (text, expected) in [
            (format!("{good}dedup_window = 0\n"), "`dedup_window` of connector \"a\" is 0: without the ids"),
            (format!("{named}{second}dedup_window = 0\n"), "`dedup_window` of connector \"b\" is 0: without"),
            (format!("{good}projects = ['q']\n"), "project p: no connector accepts its events"),
            (format!("{good}{second}"), "project p: several connectors accept its events"),
            (format!("{named}{second}projects = ['p']\n"), "project p: several connectors have it in"),
            (
                format!(
                    "{named}events = ['touch']\n{second}projects = ['p']\nevents = ['touch', 'temperature']\n"
                ),
                "project p: several connectors have it in",
            ),
        ] {
            let error = read(&text).map(|_| ()).expect_err(&text);
            assert!(error.contains(expected), "{text}: {error}");
        }
        let of_another = format!("{named}{second}projects = ['q']\ndedup_window = 0\n");
        let other_events =
            format!("{named}events = ['touch']\n{second}projects = ['p']\nevents = ['temperature']\n");
        for text in [format!("{named}{second}"), of_another, other_events] {
            read(&text).expect("a good configuration");
        }
        let small =
            |size: &str| read(&format!("{good}[spool]\nmax_size = '{size}'\n")).expect("allowed").warnings;
        assert_eq!(small("112MiB").len(), 0);
        let warnings = small("100MiB");
        assert!(warnings[0].to_string().contains("spool.max_size: is less than 112MiB"), "{warnings:?}");
        let off = good.replace("['p']\n", "['p']\nbackfill = false\n");
        assert!(read(&format!("mode = 'direct'\n{off}")).is_ok());
    }
}
