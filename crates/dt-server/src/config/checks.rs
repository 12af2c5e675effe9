//! Checks across keys and sections, after all of them were read: values that must differ, that exclude each other, or that are
//! probably wrong. Checks of the keys of one table are in the file of that table.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{Config, Limits, Listen, SinkConfig};
use dt_sink::config::{Problems, did_you_mean, segments};
use dt_sink::record::PathTemplate;

/// How the files of a sink can be located in the spool's folder. Each variant has the beginning of the message.
enum InSpool {
    /// All files of the sink are in the spool's folder.
    Always(String),
    /// Depending on the values of placeholders, a file can get a name that the spool uses.
    CanDamage(String),
    /// Depending on the values of placeholders, a file can be in the spool's folder, but only under a name that the spool does
    /// not use.
    Beside(String),
}

/// The largest sum of `header_timeout` and `deadline`: DT gives up on a request after 10 s.
const MAX_ANSWER_TIME: Duration = Duration::from_millis(9500);

impl Config {
    /// Checks keys of several sections, and adds errors to `problems`.
    pub(super) fn check(&self, problems: &Problems) {
        let Limits { header_timeout, deadline, .. } = self.limits;
        if header_timeout.saturating_add(deadline) > MAX_ANSWER_TIME {
            let text =
                "`header_timeout` and `deadline` together must not be over 9.5s, since DT gives up at 10s";
            problems.error("limits.deadline", text.to_owned());
        }
        let has_errors = problems.has_errors_at("connector") || problems.has_errors_at("source");
        if self.connectors.is_empty() && self.sources.is_empty() && !has_errors {
            let text = "at least one is needed; add a [[connector]] with `secrets = [{ env = \"NAME\" }]`";
            problems.error("connector", text.to_owned());
        }
        let place = self.dead_letter_place();
        if place.is_some() && self.connectors.iter().any(|c| c.quarantine_refused) {
            let text =
                "is true; copies of refused requests are kept in `dead.db` only, not in a topic of Kafka";
            problems.error("quarantine_refused", text.to_owned());
        }
        // A sink that could not be read may have been the one.
        if let Some(place) = place
            && self.dead_letter_sink().is_none()
            && !problems.has_errors_at("sink")
        {
            problems.error("dead_letters", place.needs_a_sink());
        }
        let names: Vec<_> = self.connectors.iter().map(|connector| Some(&*connector.name)).collect();
        let paths: Vec<_> = self.connectors.iter().map(|connector| Some(&*connector.path)).collect();
        each_once(problems, "connector", "name", &names, &names);
        each_once(problems, "connector", "path", &names, &paths);
        let names: Vec<_> = self.sinks.iter().map(|sink| Some(&*sink.name)).collect();
        let files = self.sinks.iter().map(|sink| sink.settings.files());
        let paths: Vec<Option<String>> = files.map(|files| files.map(ToString::to_string)).collect();
        let paths: Vec<Option<&str>> = paths.iter().map(Option::as_deref).collect();
        each_once(problems, "sink", "name", &names, &names);
        each_once(problems, "sink", "path", &names, &paths);
        self.check_sink_places(problems);
        self.check_monitor(problems);
        self.check_sources(problems);
        let is_any_port = self.listen.address().is_some_and(|address| address.port() == 0);
        if Some(&self.listen) == self.admin.as_ref() && !is_any_port {
            problems.error("admin", format!("is {} like `listen`; the two never share a port", self.listen));
        }
    }

    /// Adds warnings about values that are allowed but probably wrong.
    pub(super) fn check_oddities(&self, problems: &Problems) {
        for network in self.proxies.trusted.networks.iter().filter(|network| network.prefix_len() == 0) {
            let text = format!(
                "{network} makes everybody a proxy: any client can choose its address, so `allow_cidrs` and the limits per \
                 peer do not hold; name your own proxies only"
            );
            problems.warning("trusted_proxies", text);
        }
        let is_unix = matches!(self.listen, Listen::Unix(_));
        if !self.limits.allow_cidrs.is_empty() && is_unix && !self.proxies.trusted.unix {
            let text = "no request can be accepted: one that comes by a Unix socket has no address, and is in no network; add \
                        \"unix\" to `trusted_proxies` if a proxy there names its clients";
            problems.warning("limits.allow_cidrs", text.to_owned());
        }
        self.check_shared_keys(problems);
        self.warn_of_sinks_in_spool(problems);
    }

    /// Warns of connectors with the same keys. A token does not contain the URL to which it was sent: a person who can read the
    /// requests of one connector can send them to the other one.
    pub(super) fn check_shared_keys(&self, problems: &Problems) {
        let names: Vec<_> = self.connectors.iter().map(|connector| Some(&*connector.name)).collect();
        for (at, (connector, segment)) in self.connectors.iter().zip(segments(&names)).enumerate() {
            for other in self.connectors.iter().take(at) {
                if connector.verifier.shares_a_secret_with(&other.verifier) {
                    let text = format!(
                        "a secret is also one of connector \"{}\", so that an event for one is authentic for the other: tokens \
                         are not bound to a URL; give each its own secret at DT",
                        other.name
                    );
                    problems.warning(&format!("connector.{segment}.secrets"), text);
                }
                let (these, those) = (&connector.projects, &other.projects);
                let are_disjoint = !these.is_empty() && !those.is_empty() && these.is_disjoint(those);
                if connector.verifier.shares_an_organization_with(&other.verifier) && !are_disjoint {
                    let text = format!(
                        "is also that of connector \"{}\", so that an event for one is authentic for the other: tokens are \
                         not bound to a URL; give both `projects` that have none in common",
                        other.name
                    );
                    problems.warning(&format!("connector.{segment}.asymmetric.organization"), text);
                }
            }
        }
    }

    /// Reports an error for sinks that write into the spool's folder: the spool would read their files as its own, or the sinks
    /// would overwrite its files.
    pub(super) fn check_sink_places(&self, problems: &Problems) {
        for (key, place) in self.sinks_in_spool() {
            let (found, remedy) = match place {
                InSpool::Always(found) => (found, ""),
                InSpool::CanDamage(found) => {
                    (found, ", with a folder of its own before the first placeholder")
                }
                InSpool::Beside(_) => continue,
            };
            problems.error(&key, format!("{found}; expected a path outside of it{remedy}"));
        }
    }

    /// Warns of sinks whose files can be in the spool's folder, under names that the spool does not use.
    fn warn_of_sinks_in_spool(&self, problems: &Problems) {
        for (key, place) in self.sinks_in_spool() {
            if let InSpool::Beside(found) = place {
                let text = format!(
                    "{found}, beside the files of the spool; give it a folder of its own before the first placeholder"
                );
                problems.warning(&key, text);
            }
        }
    }

    /// Returns the sinks whose files are, or can be, in the spool's folder, each with the key of its path.
    fn sinks_in_spool(&self) -> Vec<(String, InSpool)> {
        let spool = resolved(&self.spool_folder());
        let in_spool = |template: &PathTemplate| {
            let found = |verb| {
                let path = template.to_string();
                format!(
                    "found \"{}\", which {verb} in the spool's folder {}",
                    path.escape_debug(),
                    spool.display()
                )
            };
            let template = template.clone().absolute();
            let place = match template.is_fixed() {
                true => template.root().join(template.relative_text()),
                false => template.root().to_owned(),
            };
            if resolved(&place).starts_with(&spool) {
                return Some(InSpool::Always(found("is")));
            }
            let name_for = |name: &Arc<str>| name_in(&template, &spool, name);
            let of_connectors = self.connectors.iter().map(|connector| &connector.name);
            let of_sources = self.sources.iter().map(|source| &source.name);
            let names: Vec<String> = of_connectors.chain(of_sources).filter_map(name_for).collect();
            if names.is_empty() {
                None
            } else if names.iter().any(|name| name.is_empty() || can_be_of_spool(name)) {
                Some(InSpool::CanDamage(found("can be")))
            } else {
                Some(InSpool::Beside(found("can be")))
            }
        };
        let of_sink =
            |sink: &SinkConfig| Some((format!("sink.{}.path", sink.name), in_spool(sink.settings.files()?)?));
        self.sinks.iter().filter_map(of_sink).collect()
    }

    /// Checks that the folders of sinks exist: `serve` creates only the data folder, and folders with a placeholder in their
    /// name. A missing folder of a fixed path is an error, since `serve` would not start. In a template it is a warning: events
    /// wait until the folder exists.
    pub(super) fn check_sink_folders(&self, problems: &Problems) {
        let data = std::path::absolute(&self.data).unwrap_or_else(|_| self.data.clone());
        for sink in &self.sinks {
            let Some(files) = sink.settings.files() else { continue };
            let template = files.clone().absolute();
            let root = template.root();
            let (folder, key) = (root.display(), format!("sink.{}.path", sink.name));
            let text = match std::fs::metadata(root) {
                Ok(about) if about.is_dir() => continue,
                Ok(_) => format!("{folder} is not a folder"),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && data.starts_with(root) => {
                    continue;
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    format!("the folder {folder} does not exist; make it: mkdir -p {folder}")
                }
                Err(error) => format!("the folder {folder} cannot be used: {error}"),
            };
            if template.is_fixed() { problems.error(&key, text) } else { problems.warning(&key, text) }
        }
    }

    /// Checks the sink names in `connector.sinks`. This is a separate check, since an embedder may add sinks after reading.
    pub(super) fn check_sink_names(&self, problems: &Problems) {
        let known: BTreeSet<&str> = self.sinks.iter().map(|sink| &*sink.name).collect();
        let of_connectors = self.connectors.iter().map(|own| (format!("connector.{}", own.name), &own.sinks));
        let of_sources = self.sources.iter().map(|own| (format!("source.{}", own.name), &own.sinks));
        for (table, sinks) in of_connectors.chain(of_sources) {
            for name in sinks.iter().flatten().filter(|name| !known.contains(&***name)) {
                let allowed = known.iter().copied().collect::<Vec<_>>().join(", ");
                let (hint, name) = (did_you_mean(name, known.iter().copied()), name.escape_debug());
                let text = format!("no sink is named \"{name}\"; {hint}there are: {allowed}");
                problems.error(&format!("{table}.sinks"), text);
            }
        }
    }
}

/// Returns the name in a folder to which the placeholders of a template can lead, with the placeholders that it contains: that of
/// a file, or of a folder. It is empty if the file can have the name of the folder itself; `None` if nothing leads there.
/// Projects and event types come from outside; connectors have the names in the configuration.
fn name_in(template: &PathTemplate, folder: &Path, connector: &str) -> Option<String> {
    let below = folder.strip_prefix(resolved(template.root())).ok()?;
    let text = template.relative_text().replace("{date}", "2023-11-14").replace("{hour}", "22");
    let text = text.replace("{connector}", connector);
    let depth = below.components().count();
    let start: PathTemplate = text.split('/').take(depth).collect::<Vec<_>>().join("/").parse().ok()?;
    let below = below.strip_prefix(start.root()).ok()?.to_str()?;
    start.matches(below).then(|| text.split('/').nth(depth).unwrap_or_default().to_owned())
}

/// Returns whether a name with placeholders can become the name of a file of the spool.
fn can_be_of_spool(name: &str) -> bool {
    // Each of those has a dot, and no value of a placeholder has.
    if !name.contains('.') {
        return false;
    }
    let (start, end) = match (name.split_once('{'), name.rsplit_once('}')) {
        (Some((start, _)), Some((_, end))) => (start, end),
        _ => (name, name),
    };
    let template: Option<PathTemplate> = name.parse().ok();
    dt_log::FILE_NAMES.iter().any(|own| match own.split_once('*') {
        Some((before, after)) => {
            let begins = start.starts_with(before) || before.starts_with(start);
            begins && (end.ends_with(after) || after.ends_with(end))
        }
        None => template.as_ref().is_none_or(|template| template.matches(own)),
    })
}

/// Returns the absolute path without `..`. As far as the path exists, symbolic links are resolved.
fn resolved(path: &Path) -> PathBuf {
    let mut resolved = PathBuf::new();
    for component in std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).components() {
        match component {
            Component::ParentDir => drop(resolved.pop()),
            other => resolved.push(other),
        }
        if let Ok(real) = resolved.canonicalize() {
            resolved = real;
        }
    }
    resolved
}

/// Adds an error for each value that an earlier entry of the list has as well. `names` are the names of the entries.
fn each_once(problems: &Problems, section: &str, key: &str, names: &[Option<&str>], values: &[Option<&str>]) {
    let mut seen = BTreeSet::new();
    for (value, segment) in values.iter().zip(segments(names)) {
        if let Some(value) = value
            && !seen.insert(*value)
        {
            let text = format!("\"{}\" is used by two of them", value.escape_debug());
            problems.error(&format!("{section}.{segment}.{key}"), text);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, ConfigError, SystemSources};
    use crate::sink::standard_types;

    /// Returns whether a file sink with this path is refused, or otherwise whether there is a warning. Checks the message.
    fn verdict(folder: &str, path: &str) -> &'static str {
        let connector = |name: &str, at: &str| {
            let secret = format!("{folder}/secret-{name}");
            std::fs::write(&secret, format!("some-good-secret-{name}")).expect("written");
            format!(
                "[[connector]]\nname = '{name}'\npath = '{at}'\nsecrets = [{{ label = '{name}', file = '{secret}' }}]\n"
            )
        };
        let connectors = connector("plant", "/a") + &connector("spool", "/b");
        let path = format!("{folder}/{path}");
        let sink = format!("[[sink]]\nname = 'out'\ntype = 'file'\npath = '{path}'\n");
        let text = format!("data = '{folder}/data'\n{connectors}{sink}");
        let read = Config::from_toml(&text, &SystemSources, &standard_types()).and_then(Config::complete);
        let (verdict, problems) = match read {
            Ok(config) if config.warnings.is_empty() => return "fine",
            Ok(config) => ("warned of", config.warnings),
            Err(ConfigError::Problems(problems)) => ("refused", problems),
            Err(other) => panic!("{path}: {other}"),
        };
        assert_eq!(problems.len(), 1, "{path}: {problems:?}");
        let text = problems[0].to_string();
        for word in ["sink.out.path: found", &path, "in the spool's folder"] {
            assert!(text.contains(word), "{path}: {text}");
        }
        verdict
    }

    /// The value of a placeholder may come from outside.
    #[test]
    fn no_template_leads_to_a_file_of_the_spool() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().to_str().expect("text");
        std::fs::create_dir(format!("{folder}/data")).expect("made");
        std::os::unix::fs::symlink("data", format!("{folder}/link")).expect("linked");
        for (path, expected) in [
            ("data/{project}/dead.db", "refused"),
            ("data/{project}/dead.db-wal", "refused"),
            ("data/{project}/ids.{eventType}", "refused"),
            ("data/{project}/{eventType}/{date}.ndjson", "warned of"),
            ("data/{project}/segment-{hour}.log", "refused"),
            ("data/{project}/{eventType}.log", "refused"),
            ("data/{project}/spare-1{eventType}", "warned of"),
            ("data/{project}/spare-1.t{eventType}", "refused"),
            ("data/{project}/{date}", "warned of"),
            ("data/{project}/{date}.ndjson", "warned of"),
            ("data/{project}/{eventType}.ndjson", "warned of"),
            ("data/{eventType}/{date}", "warned of"),
            ("data/{connector}/dead.db", "refused"),
            ("data/{connector}/{date}.ndjson", "warned of"),
            ("data/sp{project}/x/y.ndjson", "warned of"),
            ("data/{project}", "refused"),
            ("data/{date}{hour}{project}/x", "fine"),
            ("link/{project}/dead.db", "refused"),
            ("link/{project}/{date}.ndjson", "warned of"),
            ("{project}/spool/dead.db", "refused"),
            ("{project}/spool/{date}.ndjson", "warned of"),
            ("{project}/{eventType}/dead.db", "refused"),
            ("data/{date}/events.ndjson", "fine"),
            ("data/{hour}/{project}", "fine"),
            ("data/{project}.ndjson", "fine"),
            ("data/events-{project}/dead.db", "fine"),
            ("data/events/{project}/dead.db", "fine"),
            ("{project}/events/dead.db", "fine"),
            ("{project}/{connector}/dead.db", "refused"),
            ("{connector}/{project}/dead.db", "fine"),
            ("{project}.ndjson", "fine"),
        ] {
            assert_eq!(verdict(folder, path), expected, "{path}");
        }
    }
}
