//! The configuration refuses what it does not understand: each mistake is named by its key, with what was found and
//! what is allowed, and all mistakes are reported at once.

mod kafka;

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::LazyLock;

use dt_receiver::config::{Config, ConfigError, Label, SinkFilter, Sources};
use dt_receiver::sink_types;
use dt_receiver::tls::TlsVersion;

/// A configuration that uses every key there is.
const FULL: &str = r#"
listen = "127.0.0.1:18080"
admin = "off"
mode = "spool"
data = "data"
dead_letters = "kafka:dt.dead"
drain_timeout = "5s"
dedup_window = "24h"
dedup_max = 1000
quarantine_refused = false
socket_mode = "0600"
trusted_proxies = ["10.0.0.0/8", "fd00::1", "unix"]
client_header = "Forwarded"
proxy_protocol = true

[tls]
certificate = "cert.pem"
key = "key.pem"
client_ca = "ca.pem"
min_version = "1.3"
check_interval = "1s"

[limits]
max_body = "32KiB"
max_head = 16384
header_timeout = "1s"
handshake_timeout = "2s"
deadline = "8s"
keep_alive_idle = "60s"
max_connections = 100
max_in_flight = 50
max_in_flight_bytes = "1MiB"
max_connections_per_peer = 20
max_refused = 30
max_refused_per_peer = 3
max_unverified_bytes_per_peer = "64KiB"
allow_cidrs = ["192.0.2.0/24", "2001:db8::1"]

[[connector]]
name = "plant-1"
path = "/dt"
policy = "both"
secrets = [{ label = "new", env = "NEW" }, { label = "old", file = "old.txt" }]
events = ["temperature", "humidity"]
projects = ["c14u9p094l47cdv1o3pg"]
sinks = ["out"]
dedup_window = 0

[connector.asymmetric]
key_set = "keys.json"
organization = "my-organization"
issuer = "https://issuer.example"

[connector.headers]
x-my-header = { env = "HEADER" }

[[sink]]
name = "out"
type = "stdout"
format = "body"

[[sink]]
name = "archive"
type = "file"
path = "{date}/events.ndjson"
start = "retained"
backfill = false
rotate_size = "100MiB"
rotate_every = "1h"
compress = "zstd"

[sink.only]
events = ["touch"]
projects = ["p1"]
devices = ["b6roh6d7rihmn9oji86g"]
labels = { room = "kitchen", floor = true }
"#;

/// Certificates with their keys.
static PAIR: LazyLock<(String, String)> = LazyLock::new(pair);
static OTHER_PAIR: LazyLock<(String, String)> = LazyLock::new(pair);

fn pair() -> (String, String) {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    (pair.cert.pem(), pair.signing_key.serialize_pem())
}

struct Fixed;

impl Sources for Fixed {
    fn env(&self, name: &str) -> Option<OsString> {
        match name {
            "NEW" | "HEADER" => Some(OsString::from("some-good-secret")),
            "EMPTY" => Some(OsString::new()),
            "SPACED" => Some(OsString::from("some-good-secret ")),
            _ => None,
        }
    }

    fn file(&self, path: &Path) -> io::Result<Vec<u8>> {
        match path.to_str() {
            Some("old.txt") => Ok(b"secret-of-last-year\n".to_vec()),
            Some("keys.json") => Ok(key_set().into_bytes()),
            Some("cert.pem" | "ca.pem") => Ok(PAIR.0.clone().into_bytes()),
            Some("key.pem") => Ok(PAIR.1.clone().into_bytes()),
            Some("other-key.pem") => Ok(OTHER_PAIR.1.clone().into_bytes()),
            Some("not-keys.json") => Ok(b"{}".to_vec()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

fn key_set() -> String {
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("../../vectors/verify.json")).expect("JSON");
    let verifiers = vectors["verifiers"].as_object().expect("an object");
    let with_keys = verifiers.values().find(|verifier| verifier["key_set"].is_object()).expect("a key set");
    with_keys["key_set"].to_string()
}

fn problems(text: &str) -> Vec<String> {
    match Config::from_toml(text, &Fixed, &sink_types()).and_then(Config::complete) {
        Ok(_) => Vec::new(),
        Err(ConfigError::Problems(problems)) => problems.iter().map(ToString::to_string).collect(),
        Err(other) => vec![other.to_string()],
    }
}

#[test]
fn a_configuration_with_every_key_is_read() {
    let config = Config::from_toml(FULL, &Fixed, &sink_types())
        .and_then(Config::complete)
        .expect("a good configuration");
    assert_eq!(config.listen.to_string(), "127.0.0.1:18080");
    assert_eq!(config.admin, None);
    assert_eq!(config.limits.max_body, 32 * 1024);
    assert_eq!(config.dead_letters.as_deref(), Some("kafka:dt.dead"));
    assert_eq!(config.dead_letter_place(), None, "not in mode `spool`");
    assert_eq!(config.socket_mode, 0o600);
    let trusts = |address: &str| config.proxies.trusts(address.parse().ok());
    assert!(
        trusts("10.1.2.3") && trusts("::ffff:10.1.2.3") && trusts("fd00::1") && config.proxies.trusts(None)
    );
    assert!(!trusts("11.1.2.3") && !trusts("fd00::2"));
    let tls = config.tls.expect("a certificate");
    assert_eq!((tls.min_version, tls.check_interval.as_secs()), (TlsVersion::Tls13, 1));
    assert_eq!(config.connectors[0].events.len(), 2);
    assert!(!config.connectors[0].dedup);
    assert_eq!(config.sinks.len(), 2);
    assert_eq!(config.sinks[0].only, SinkFilter::default());
    assert!(config.sinks[0].backfill && !config.sinks[1].backfill);
    let only = &config.sinks[1].only;
    assert!(only.events.contains("touch") && only.projects.contains("p1") && only.devices.len() == 1);
    let labels = [("floor", Label::Present), ("room", Label::Is("kitchen".to_owned()))];
    assert_eq!(only.labels, labels.map(|(key, label)| (key.to_owned(), label)).into());
    assert_eq!(config.warnings, []);
}

#[test]
fn a_stray_key_is_refused_at_every_level() {
    let lines: Vec<&str> = FULL.lines().collect();
    let mut refused = 0;
    for (at, line) in lines.iter().enumerate() {
        if line.starts_with('[') || at == 0 {
            let mut with_stray = lines.clone();
            with_stray.insert(at + 1, "stray = 1");
            let problems = problems(&with_stray.join("\n"));
            assert_eq!(problems.len(), 1, "after {line:?}: {problems:?}");
            assert!(problems[0].contains("stray"), "after {line:?}: {problems:?}");
            refused += 1;
        }
    }
    assert_eq!(refused, 9);
    for inline in ["env = \"NEW\"", "file = \"old.txt\"", "env = \"HEADER\""] {
        let problems = problems(&FULL.replace(inline, &format!("{inline}, stray = 1")));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains("stray: unknown key"), "{problems:?}");
    }
}

#[test]
fn each_mistake_names_its_key_what_was_found_and_what_is_allowed() {
    // What is replaced, by what, and what the one problem has to say.
    let mistakes: &[(&str, &str, &[&str])] = &[
        ("\"127.0.0.1:18080\"", "\"localhost\"", &["listen", "localhost", "127.0.0.1:8080"]),
        ("\"127.0.0.1:18080\"", "8080", &["listen", "8080", "integer", "a string"]),
        ("\"127.0.0.1:18080\"", "\"unix:\"", &["listen", "unix:PATH", "systemd"]),
        ("\"0600\"", "\"0680\"", &["socket_mode", "0680", "0660"]),
        ("\"0600\"", "\"07777\"", &["socket_mode", "07777"]),
        ("\"10.0.0.0/8\"", "\"10.0.0.0/33\"", &["trusted_proxies", "10.0.0.0/33", "10.0.0.0/8", "unix"]),
        ("\"Forwarded\"", "\"X-Real-IP\"", &["client_header", "X-Real-IP", "X-Forwarded-For", "Forwarded"]),
        (
            "trusted_proxies = [\"10.0.0.0/8\", \"fd00::1\", \"unix\"]",
            "",
            &["proxy_protocol", "trusted_proxies"],
        ),
        ("\"2s\"", "\"2m\"", &["limits.handshake_timeout", "2m", "1m"]),
        ("min_version = \"1.3\"", "min_version = \"1.1\"", &["tls.min_version", "1.1", "1.2", "1.3"]),
        ("certificate = \"cert.pem\"", "", &["tls.certificate", "missing", "PEM"]),
        ("\"cert.pem\"", "\"gone.pem\"", &["tls.certificate", "gone.pem", "not found"]),
        (
            "key = \"key.pem\"",
            "key = \"other-key.pem\"",
            &["tls.key", "other-key.pem", "not the private key", "cert.pem"],
        ),
        ("\"ca.pem\"", "\"key.pem\"", &["tls.client_ca", "key.pem", "no certificate"]),
        ("\"ca.pem\"", "\"\"", &["tls.client_ca", "path"]),
        ("admin = \"off\"", "admin = \"on\"", &["admin", "on", "off"]),
        ("admin = \"off\"", "admin = \"127.0.0.1:18080\"", &["admin", "never share a port"]),
        ("\"spool\"", "\"fast\"", &["mode", "fast", "direct"]),
        (
            "quarantine_refused = false",
            "quarantine_refused = 1",
            &["quarantine_refused", "1", "true or false"],
        ),
        (
            "\"kafka:dt.dead\"",
            "\"folder:letters\"",
            &["dead_letters", "folder:letters", "kafka:TOPIC", "dead.db"],
        ),
        ("\"spool\"", "\"direct\"", &["dead_letters", "kafka:dt.dead", "a sink of type"]),
        ("\"5s\"", "\"5\"", &["drain_timeout", "\"5\"", "8s"]),
        ("\"5s\"", "\"-5s\"", &["drain_timeout", "-5s"]),
        ("dedup_max = 1000", "dedup_max = 0", &["dedup_max", "0", "1 to 20000000"]),
        ("\"32KiB\"", "\"32 apples\"", &["limits.max_body", "apples", "64KiB"]),
        ("\"32KiB\"", "-1", &["limits.max_body", "-1"]),
        // A body has to fit into a segment of the log, and the log needs four segments to accept events for long.
        ("\"32KiB\"", "\"9MiB\"", &["limits.max_body", "9MiB", "8MiB"]),
        ("[limits]", "[spool]\nmax_size = \"63MiB\"\n[limits]", &["spool.max_size", "63MiB", "64MiB"]),
        ("deadline = \"8s\"", "deadline = \"9s\"", &["limits.deadline", "9.5s", "10s"]),
        ("max_connections = 100", "max_connections = \"100\"", &["limits.max_connections", "string"]),
        ("per_peer = 20", "per_peer = 0", &["limits.max_connections_per_peer", "0", "1 to"]),
        ("max_refused = 30", "max_refused = -1", &["limits.max_refused", "-1", "1 to"]),
        ("\"64KiB\"", "\"lots\"", &["limits.max_unverified_bytes_per_peer", "lots"]),
        ("192.0.2.0/24", "192.0.2.0/33", &["limits.allow_cidrs", "192.0.2.0/33", "networks such as"]),
        (
            "[\"192.0.2.0/24\", \"2001:db8::1\"]",
            "\"192.0.2.0/24\"",
            &["limits.allow_cidrs", "a list of strings"],
        ),
        ("name = \"plant-1\"", "", &["connector.0.name", "missing"]),
        ("name = \"plant-1\"", "name = \"plant 1\"", &["connector.0.name", "plant 1", "letters, digits"]),
        ("path = \"/dt\"", "path = \"dt\"", &["connector.plant-1.path", "dt", "/dt"]),
        ("path = \"/dt\"", "path = \"/dt?x=1\"", &["connector.plant-1.path"]),
        ("\"both\"", "\"none\"", &["connector.plant-1.policy", "none", "secret, asymmetric, either, both"]),
        ("env = \"NEW\"", "env = \"NOT_SET\"", &["connector.plant-1.secrets.0.env", "NOT_SET", "not set"]),
        ("env = \"NEW\"", "env = \"EMPTY\"", &["connector.plant-1.secrets.0.env", "EMPTY", "empty"]),
        (
            "env = \"NEW\"",
            "env = \"NEW\", file = \"old.txt\"",
            &["connector.plant-1.secrets.0.env", "both", "delete one"],
        ),
        ("env = \"NEW\"", "value = \"some-good-secret\"", &["connector.plant-1.secrets.0"]),
        ("\"old.txt\"", "\"gone.txt\"", &["connector.plant-1.secrets.1.file", "gone.txt", "not found"]),
        ("label = \"old\"", "label = \"new\"", &["connector.plant-1.secrets", "new"]),
        ("label = \"old\", ", "", &["connector.plant-1.secrets.1.label", "missing"]),
        (
            "\"keys.json\"",
            "\"not-keys.json\"",
            &["connector.plant-1.asymmetric.key_set", "not-keys.json", "JWK set"],
        ),
        ("\"keys.json\"", "\"gone.json\"", &["connector.plant-1.asymmetric.key_set", "gone.json"]),
        ("organization = \"my-organization\"", "", &["connector.plant-1.asymmetric.organization", "missing"]),
        ("organization = \"my-organization\"", "organization = \"\"", &["organization", "empty"]),
        ("{ env = \"HEADER\" }", "\"value\"", &["connector.plant-1.headers.x-my-header", "env"]),
        (
            "sinks = [\"out\"]",
            "sinks = [\"nowhere\"]",
            &["connector.plant-1.sinks", "nowhere", "archive, out"],
        ),
        ("sinks = [\"out\"]", "sinks = []", &["connector.plant-1.sinks", "empty", "all sinks"]),
        (
            "events = [\"temperature\", \"humidity\"]",
            "events = []",
            &["plant-1.events", "empty", "all events"],
        ),
        ("[\"c14u9p094l47cdv1o3pg\"]", "[]", &["plant-1.projects", "empty", "any project"]),
        (
            "events = [\"temperature\", \"humidity\"]",
            "events = \"temperature\"",
            &["connector.plant-1.events", "list"],
        ),
        ("dedup_window = 0", "dedup_window = \"1h\"", &["connector.plant-1.dedup_window"]),
        ("type = \"stdout\"", "type = \"queue\"", &["sink.out.type", "queue", "stdout, file, http, kafka"]),
        (
            "format = \"body\"",
            "format = \"xml\"",
            &["sink.out.format", "xml", "body, envelope, cloudevents, line-protocol"],
        ),
        ("path = \"{date}/events.ndjson\"", "", &["sink.archive.path", "missing"]),
        (
            "{date}/",
            "{day}/",
            &["sink.archive.path", "{day}", "{date}, {hour}, {connector}, {project}, {eventType}"],
        ),
        ("{date}/", "{date}/../", &["sink.archive.path", ".."]),
        ("\"retained\"", "\"first\"", &["sink.archive.start", "first", "now, retained"]),
        ("\"100MiB\"", "\"1B\"", &["sink.archive.rotate_size", "1B", "1KiB"]),
        ("\"1h\"", "\"1s\"", &["sink.archive.rotate_every", "1s"]),
        ("\"1h\"", "\"7h\"", &["sink.archive.rotate_every", "divides a day"]),
        ("\"zstd\"", "\"xz\"", &["sink.archive.compress", "xz", "gzip, zstd"]),
        (
            "rotate_size = \"100MiB\"\nrotate_every = \"1h\"",
            "",
            &["sink.archive.compress", "rotate_size", "rotate_every"],
        ),
        ("events = [\"touch\"]", "events = []", &["sink.archive.only.events", "empty", "all events"]),
        ("[\"p1\"]", "[]", &["sink.archive.only.projects", "empty", "all projects"]),
        ("[\"b6roh6d7rihmn9oji86g\"]", "5", &["sink.archive.only.devices", "5", "list of strings"]),
        ("{ room = \"kitchen\", floor = true }", "{}", &["sink.archive.only.labels", "empty", "any labels"]),
        ("{ room = \"kitchen\", floor = true }", "[\"room\"]", &["sink.archive.only.labels", "a table"]),
        ("floor = true", "floor = false", &["sink.archive.only.labels.floor", "false", "a string, or true"]),
        ("floor = true", "floor = 2", &["sink.archive.only.labels.floor", "2", "a string, or true"]),
        ("name = \"archive\"", "name = \"out\"", &["sink.1.name", "out", "two"]),
    ];
    for (old, new, says) in mistakes {
        assert!(FULL.contains(old), "{old}");
        let found = problems(&FULL.replacen(old, new, 1)).join("\n");
        for word in *says {
            assert!(found.contains(word), "{old} -> {new}: {found:?} does not say {word:?}");
        }
    }
}

/// Every key of a Kafka sink.
#[test]
fn all_mistakes_are_reported_at_once() {
    let text = FULL.replace("\"5s\"", "\"x\"").replace("\"/dt\"", "\"dt\"").replace("\"body\"", "\"xml\"");
    let found = problems(&text).join("\n");
    for key in ["drain_timeout", "connector.plant-1.path", "sink.out.format"] {
        assert!(found.contains(key), "{found}");
    }
}

#[test]
fn a_configuration_without_a_connector_or_without_keys_is_refused() {
    assert!(problems("").join("\n").contains("connector: at least one is needed"));
    let found = problems("[[connector]]\nname = \"a\"").join("\n");
    assert!(found.contains("no secret and no key set"), "{found}");
    assert!(found.contains("secrets = [{ env"), "{found}");
}

#[test]
fn two_connectors_on_one_path_are_refused() {
    let one = |name: &str| format!("[[connector]]\nname = \"{name}\"\nsecrets = [{{ env = \"NEW\" }}]\n");
    let found = problems(&(one("a") + &one("b"))).join("\n");
    assert!(found.contains("connector.b.path") && found.contains("\"/\""), "{found}");
}

#[test]
fn what_looks_odd_is_a_warning() {
    let text = FULL.replace("\"humidity\"", "\"humidty\"").replace("env = \"NEW\"", "env = \"SPACED\"");
    let config = Config::from_toml(&text, &Fixed, &sink_types()).expect("allowed");
    let warnings: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
    let warnings = warnings.join("\n");
    assert!(
        warnings.contains("humidty")
            && warnings.contains("did you mean \"humidity\"?")
            && warnings.contains("white space"),
        "{warnings}"
    );
}

#[test]
fn no_secret_is_printed_by_debug_or_errors() {
    let config = Config::from_toml(FULL, &Fixed, &sink_types()).expect("a good configuration");
    let shown = format!("{config:?}");
    assert!(!shown.contains("some-good-secret") && !shown.contains("secret-of-last-year"), "{shown}");
}

#[test]
fn a_secret_that_stands_in_the_file_by_mistake_is_not_shown() {
    let good = r#"[{ label = "new", env = "NEW" }, { label = "old", file = "old.txt" }]"#;
    for (old, new) in [
        (good, "\"hunter2-hunter2\""),
        (good, "[\"hunter2-hunter2\"]"),
        ("{ env = \"HEADER\" }", "\"hunter2-hunter2\""),
        (good, "\"hunter2-hunter2"),
    ] {
        assert!(FULL.contains(old), "{old}");
        let found = problems(&FULL.replacen(old, new, 1)).join("\n");
        assert!(!found.is_empty() && !found.contains("hunter2"), "{found}");
    }
}

#[test]
fn text_that_is_not_toml_is_refused_with_its_line() {
    let found = problems("listen = \n").join("\n");
    assert!(found.contains("not TOML") && found.contains("line 1"), "{found}");
}

#[test]
fn the_page_on_limits_has_the_memory_that_they_allow() {
    let page = include_str!("../../../docs/limits.md");
    let defaults = dt_receiver::config::Limits::default();
    let mut fewer = defaults.clone();
    fewer.max_connections = 500;
    assert!(page.contains(&format!("= {} MiB", defaults.max_memory() >> 20)), "{}", defaults.max_memory());
    assert!(page.contains(&format!("is {} MiB", fewer.max_memory() >> 20)), "{}", fewer.max_memory());
}

#[test]
fn only_addresses_of_the_networks_are_allowed() {
    let mut limits = dt_receiver::config::Limits::default();
    let allows = |limits: &dt_receiver::config::Limits, text: &str| {
        limits.allows(Some(text.parse().expect("an address")))
    };
    assert!(allows(&limits, "198.51.100.1"), "an empty list is for all");
    limits.allow_cidrs =
        ["192.0.2.0/24", "2001:db8::/32"].map(|text| text.parse().expect("a network")).to_vec();
    for allowed in ["192.0.2.255", "::ffff:192.0.2.1", "2001:db8::1"] {
        assert!(allows(&limits, allowed), "{allowed}");
    }
    for refused in ["192.0.3.0", "2001:db9::1", "::1"] {
        assert!(!allows(&limits, refused), "{refused}");
    }
    assert!(!limits.allows(None), "an address that is not known is in no network");
    limits.allow_cidrs.clear();
    assert!(limits.allows(None), "an empty list is for all");
}

#[test]
fn a_file_sink_writes_nothing_into_the_folder_of_the_spool() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |relative: &str| format!("{}/{relative}", folder.path().display());
    std::fs::create_dir_all(path("data/spool")).expect("made");
    std::fs::write(path("data/spool/dead.db"), "").expect("written");
    std::os::unix::fs::symlink(path("data/spool"), path("link")).expect("made");
    std::os::unix::fs::symlink(path("data/spool/dead.db"), path("events.ndjson")).expect("made");
    let text = |sink: &str| {
        let data = path("data");
        format!(
            "data = '{data}'\n[[connector]]\nname = 'a'\nsecrets = [{{ env = 'NEW' }}]\n\
             [[sink]]\nname = 'out'\ntype = 'file'\npath = '{sink}'\n"
        )
    };
    for (sink, is_refused) in [
        ("data/spool/events.ndjson", true),
        ("data/spool/{date}.ndjson", true),
        ("data/spool/not-there/{date}/events.ndjson", true),
        ("data/spool", true),
        ("data/keys/../spool/events.ndjson", true),
        ("link/events.ndjson", true),
        ("link/../../data/spool/events.ndjson", true),
        ("link/not-there/../events.ndjson", true),
        ("events.ndjson", true),
        ("data/events.ndjson", false),
        ("data/{connector}/events.ndjson", false),
        ("data/spool.ndjson", false),
        ("data/spool-2/{date}.ndjson", false),
        ("data/spool/../events.ndjson", false),
        ("link/../events.ndjson", false),
    ] {
        let found = problems(&text(&path(sink))).join("\n");
        assert_eq!(!found.is_empty(), is_refused, "{sink}: {found}");
        for word in
            ["sink.out.path: found", &path(sink), "in the spool's folder", &path("data/spool"), "expected"]
        {
            assert!(!is_refused || found.contains(word), "{sink}: {found:?} does not say {word:?}");
        }
    }
    let refuses = |arguments: &[&str]| {
        let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_dt-receiver"));
        let output = program.args(arguments).env("NEW", "some-good-secret").output().expect("runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("in the spool's folder"), "{said}");
    };
    let (data, config, sink) = (path("data"), path("config.toml"), path("data/spool/events.ndjson"));
    std::fs::write(&config, text(&sink)).expect("written");
    refuses(&["check", "--config", &config]);
    refuses(&["serve", "--config", &config]);
    refuses(&["serve", "--secret-env", "NEW", "--data", &data, "--sink", &format!("file:{sink}")]);
    assert!(!std::path::Path::new(&sink).exists());
}

#[test]
fn a_sink_of_the_command_line_never_shows_a_password() {
    for text in [
        "postgresql://u:hunter2@h/d",
        "https://u:hunter2@h/",
        "http:https://u:hunter2@h/",
        "mqtt://u:hunter2@h:1883",
        "mqtt:u:hunter2@h",
    ] {
        let error = dt_receiver::sink_types().parse(text).expect_err("it is no sink").to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
