//! Checks across keys and sections, after all of them were read: values that must differ, that exclude each other, or that are
//! probably wrong. Checks of keys of one table are beside that table.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::{Config, Limits, Listen};
use dt_sink::config::{Problems, did_you_mean, segments};
use dt_sink::record::PathTemplate;

/// The largest sum of header timeout and deadline: DT gives up on a request after 10 s.
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
        if self.connectors.is_empty() && !problems.has_errors_at("connector") {
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
    }

    /// Warns of connectors with common keys. A token does not contain the URL that it was sent to: a person who can read the
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

    /// Rejects sinks that write into the spool's folder: the spool would read their files as its own, or they would damage it.
    pub(super) fn check_sink_places(&self, problems: &Problems) {
        let spool = resolved(&self.spool_folder());
        for sink in &self.sinks {
            let Some(files) = sink.settings.files() else { continue };
            let template = files.clone().absolute();
            let place = match template.is_fixed() {
                true => template.root().join(template.relative_text()),
                false => template.root().to_owned(),
            };
            let (verb, remedy) = match resolved(&place).starts_with(&spool) {
                true => ("is", ""),
                false if self.can_lead_into(&template, &spool) => {
                    ("can be", ", with a folder of its own before the first placeholder")
                }
                false => continue,
            };
            let text = format!(
                "found \"{}\", which {verb} in the spool's folder {}; expected a path outside of it{remedy}",
                files.to_string().escape_debug(),
                spool.display()
            );
            problems.error(&format!("sink.{}.path", sink.name), text);
        }
    }

    /// Returns whether placeholders can yield the names of the folders from the template's root to this folder, so that a file
    /// would be in it. Projects and event types come from outside; connectors have the names in the configuration.
    fn can_lead_into(&self, template: &PathTemplate, folder: &Path) -> bool {
        let Ok(below) = folder.strip_prefix(resolved(template.root())) else { return false };
        let text = template.relative_text().replace("{date}", "2023-11-14").replace("{hour}", "22");
        let start = text.split('/').take(below.components().count()).collect::<Vec<_>>().join("/");
        let matches = |start: PathTemplate| {
            let below = below.strip_prefix(start.root()).ok().and_then(Path::to_str);
            below.is_some_and(|below| start.matches(below))
        };
        let of_connector = |name: &str| start.replace("{connector}", name).parse().is_ok_and(matches);
        self.connectors.iter().any(|connector| of_connector(&connector.name))
    }

    /// Checks that the sinks' folders exist: `serve` creates only the data folder, and folders with a placeholder in their
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

    /// Checks the names in `connector.sinks`. It is a separate check, since an embedder may add sinks after reading.
    pub(super) fn check_sink_names(&self, problems: &Problems) {
        let known: BTreeSet<&str> = self.sinks.iter().map(|sink| &*sink.name).collect();
        for connector in &self.connectors {
            for name in connector.sinks.iter().flatten().filter(|name| !known.contains(&***name)) {
                let allowed = known.iter().copied().collect::<Vec<_>>().join(", ");
                let (hint, name) = (did_you_mean(name, known.iter().copied()), name.escape_debug());
                let text = format!("no sink is named \"{name}\"; {hint}there are: {allowed}");
                problems.error(&format!("connector.{}.sinks", connector.name), text);
            }
        }
    }
}

/// Returns the absolute path without `..` and, as far as the path exists, without symbolic links.
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

/// Adds an error for each value that an earlier entry of the list has, too. `names` are the names of the entries.
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

    /// Returns whether a file sink with this path is refused, and checks the message.
    fn is_refused(folder: &str, data: &str, path: &str) -> bool {
        let secret = format!("{folder}/secret");
        std::fs::write(&secret, "some-good-secret").expect("written");
        let connector = |name: &str, at: &str| {
            format!(
                "[[connector]]\nname = '{name}'\npath = '{at}'\nsecrets = [{{ label = '{name}', file = '{secret}' }}]\n"
            )
        };
        let connectors = connector("plant", "/a") + &connector("spool", "/b");
        let path = format!("{folder}/{path}");
        let sink = format!("[[sink]]\nname = 'out'\ntype = 'file'\npath = '{path}'\n");
        let text = format!("data = '{folder}/{data}'\n{connectors}{sink}");
        let read = Config::from_toml(&text, &SystemSources, &standard_types()).and_then(Config::complete);
        let problems = match read {
            Ok(_) => return false,
            Err(ConfigError::Problems(problems)) => problems,
            Err(other) => panic!("{path}: {other}"),
        };
        let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        for word in ["sink.out.path: found", &path, "in the spool's folder", "expected"] {
            assert!(text.contains(word), "{path}: {text}");
        }
        true
    }

    /// The value of a placeholder may come from outside.
    #[test]
    fn no_template_leads_into_the_spools_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().to_str().expect("text");
        std::fs::create_dir(format!("{folder}/data")).expect("made");
        std::os::unix::fs::symlink("data", format!("{folder}/link")).expect("linked");
        for (path, expected) in [
            ("data/{project}/dead.db", true),
            ("data/{eventType}/{date}", true),
            ("data/{connector}/dead.db", true),
            ("data/sp{project}/x/y.ndjson", true),
            ("data/{project}", true),
            ("data/{date}{hour}{project}/x", false),
            ("link/{project}/dead.db", true),
            ("{project}/spool/dead.db", true),
            ("{project}/{eventType}/dead.db", true),
            ("data/{date}/events.ndjson", false),
            ("data/{hour}/{project}", false),
            ("data/{project}.ndjson", false),
            ("data/events-{project}/dead.db", false),
            ("data/events/{project}/dead.db", false),
            ("{project}/events/dead.db", false),
            ("{project}/{connector}/dead.db", true),
            ("{connector}/{project}/dead.db", false),
            ("{project}.ndjson", false),
        ] {
            assert_eq!(is_refused(folder, "data", path), expected, "{path}");
        }
    }
}
