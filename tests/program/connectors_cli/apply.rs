//! `diff`, `apply` and `create --from-config`: the connectors of a project and a configuration.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::cloud::{Cloud, KEY_SECRET};
use super::other_clouds::{First, Seen, proxy, stubborn_api};
use super::{SECRETS, connectors, ended};
use crate::common::{self, Ended};

const CONFIG: &str = r#"
[[connector]]
name = "plant-1"
path = "/plant-1"
secrets = [{ label = "2026", env = "SIGNATURE" }, { label = "2025", env = "OLD_SIGNATURE" }]
headers = { X-Key = { env = "HEADER" } }
events = ["touch", "temperature"]
sinks = ["rooms"]

[[connector]]
name = "plant-2"
path = "/plant-2"
projects = ["p"]
secrets = [{ env = "SECOND_SIGNATURE" }]
sinks = ["all"]

[[connector]]
name = "of-another-project"
path = "/other"
projects = ["q"]
secrets = [{ env = "THIRD_SIGNATURE" }]

[[sink]]
name = "rooms"
type = "stdout"
only = { labels = { room = true, floor = "2" } }

[[sink]]
name = "all"
type = "file"
path = "events.ndjson"
"#;

/// Secrets of the configuration. Each contains a text of [`SECRETS`].
const VALUES: [(&str, &str); 5] = [
    ("SIGNATURE", "hunter2-signature"),
    ("OLD_SIGNATURE", "hunter2-signature-old"),
    ("SECOND_SIGNATURE", "hunter2-signature-second"),
    ("THIRD_SIGNATURE", "hunter2-signature-third"),
    ("HEADER", "hunter2-header"),
];

/// A cloud behind a proxy, and a configuration.
struct Setup {
    cloud: Cloud,
    url: String,
    seen: Seen,
    folder: TempDir,
}

impl Setup {
    fn new(first: First) -> Self {
        let cloud = Cloud::start(&["--service-account", "reader:env=READER:reader@example.com:project.user"]);
        let (url, seen) = proxy(&cloud, first);
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("dt-receiver.toml"), CONFIG).expect("written");
        Self { cloud, url, seen, folder }
    }

    fn command(&self, subcommand: &str, arguments: &[&str]) -> Command {
        self.command_at(&self.url, subcommand, arguments)
    }

    fn command_at(&self, url: &str, subcommand: &str, arguments: &[&str]) -> Command {
        let mut command = self.cloud.command_at(url, &[subcommand]);
        let option = if subcommand == "create" { "--from-config" } else { "--config" };
        command.arg(option).arg(self.folder.path().join("dt-receiver.toml"));
        command.args(["--public-url", "https://example.com/dt/"]).args(arguments).envs(VALUES);
        command
    }

    fn run(&self, subcommand: &str, arguments: &[&str]) -> Ended {
        ended(self.command(subcommand, arguments))
    }

    /// Runs a subcommand with `--json`, and returns its exit code and the connectors of its report.
    fn report(&self, subcommand: &str, arguments: &[&str]) -> (i32, Value) {
        let ended = self.run(subcommand, &[arguments, &["--json"]].concat());
        (ended.code(), ended.json()["connectors"].take())
    }

    /// Creates a connector with other settings than those of the configuration, and returns its id.
    fn create_other(&self, arguments: &[&str]) -> String {
        let mut command = self.cloud.command(&[&["create", "--json"], arguments].concat());
        command.env("OTHER", "hunter2-header-other");
        let created = ended(command);
        assert_eq!(created.code(), 0, "{created:?}");
        created.json()["id"].as_str().expect("an id").to_owned()
    }

    fn raw(&self, id: &str) -> Value {
        self.cloud.read(&format!("dataconnectors/{id}"))
    }

    fn count(&self) -> usize {
        self.cloud.read("dataconnectors")["dataConnectors"].as_array().expect("a list").len()
    }
}

/// The values of a member of each connector of a report.
fn each(report: &Value, member: &str) -> Value {
    report.as_array().expect("a list").iter().map(|connector| connector[member].clone()).collect()
}

#[test]
fn apply_brings_an_empty_project_to_the_configured_state_and_is_idempotent() {
    let setup = Setup::new(First::Answered);
    let (code, different) = setup.report("diff", &[]);
    assert_eq!((code, each(&different, "connector")), (1, json!(["plant-1", "plant-2"])));
    assert_eq!(each(&different, "action"), json!(["create", "create"]));
    let shown = setup.run("diff", &[]);
    let expected = "plant-1: does not exist; expected https://example.com/dt/plant-1\n\
                    plant-2: does not exist; expected https://example.com/dt/plant-2\n";
    assert_eq!((shown.code(), &*shown.stdout), (1, expected));

    // Without a terminal and --yes, nothing changes.
    for arguments in [&[][..], &["--json"]] {
        let refused = setup.run("apply", arguments);
        assert_eq!(refused.code(), 2, "{refused:?}");
        assert!(
            refused.stderr.contains("nothing is changed") && refused.stderr.contains("--yes"),
            "{refused:?}"
        );
        assert!(refused.stdout.contains("plant-2"), "{refused:?}");
    }
    assert_eq!((setup.seen.writes().len(), setup.count()), (0, 0));

    let (code, applied) = setup.report("apply", &["--yes"]);
    assert_eq!((code, each(&applied, "action")), (0, json!(["create", "create"])), "{applied}");
    assert_eq!(each(&applied, "done"), json!([true, true]));
    let raw = setup.raw(applied[0]["id"].as_str().expect("an id"));
    assert_eq!((&raw["displayName"], &raw["status"]), (&json!("plant-1"), &json!("ACTIVE")));
    assert_eq!(
        (&raw["events"], &raw["labels"]),
        (&json!(["temperature", "touch"]), &json!(["floor", "room"]))
    );
    let config = json!({"url": "https://example.com/dt/plant-1", "signatureSecret": "hunter2-signature",
        "headers": {"X-Key": "hunter2-header"}});
    assert_eq!(raw["httpConfig"], config);
    let raw = setup.raw(applied[1]["id"].as_str().expect("an id"));
    assert_eq!((&raw["events"], &raw["labels"]), (&json!([]), &json!([])));

    let writes = setup.seen.writes();
    assert_eq!(writes, ["POST /v2/projects/p/dataconnectors"; 2]);
    let (code, again) = setup.report("apply", &["--yes"]);
    assert_eq!((code, each(&again, "action")), (0, json!(["none", "none"])), "{again}");
    // Nothing has to be confirmed.
    assert_eq!(setup.run("apply", &[]).code(), 0);
    let same = setup.run("diff", &[]);
    assert_eq!(same.code(), 0, "{same:?}");
    assert!(same.stdout.ends_with("): no difference\n"), "{same:?}");
    assert_eq!(setup.seen.writes(), writes);
    seen_by_dts_client(&setup);
}

/// Compares with what DT's own Python client sees: `.ci/run` names a Python that has it.
fn seen_by_dts_client(setup: &Setup) {
    let Ok(python) = std::env::var("DT_RECEIVER_TEST_PYTHON") else {
        let required = std::env::var_os("DT_RECEIVER_TEST_REQUIRE_TOOLS").is_some();
        assert!(!required, "DT_RECEIVER_TEST_PYTHON is not set, but the tools are required");
        // Not a print macro: the line has to be seen although the test passes.
        let line = "tests/program/connectors_cli leaves out DT's Python client: DT_RECEIVER_TEST_PYTHON is not set\n";
        let _written = std::io::stderr().write_all(line.as_bytes());
        return;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/disruptive_connectors.py");
    let mut command = Command::new(python);
    command
        .arg(script)
        .args(["p", "key", KEY_SECRET, "me@example.com"])
        .env("EMULATOR_URL", &setup.cloud.url);
    for variable in ["DT_CREDENTIALS_FILE", "DT_SERVICE_ACCOUNT_KEY_ID", "http_proxy", "HTTP_PROXY"] {
        command.env_remove(variable);
    }
    let seen = common::run_command(command, b"");
    assert_eq!(seen.code(), 0, "{seen:?}");
    let expected = json!([
        {"name": "plant-1", "type": "HTTP_PUSH", "status": "ACTIVE", "events": ["temperature", "touch"],
         "labels": ["floor", "room"], "url": "https://example.com/dt/plant-1", "secret": "hunter2-signature",
         "headers": {"X-Key": "hunter2-header"}},
        {"name": "plant-2", "type": "HTTP_PUSH", "status": "ACTIVE", "events": [], "labels": [],
         "url": "https://example.com/dt/plant-2", "secret": "hunter2-signature-second", "headers": {}},
    ]);
    assert_eq!(seen.json(), expected);
}

#[test]
fn apply_changes_what_is_different_and_nothing_else() {
    let setup = Setup::new(First::Answered);
    // Found by its name.
    let first = setup.create_other(&[
        "--name",
        "plant-1",
        "--url",
        "https://old.example.com/?key=hunter2-url",
        "--label",
        "name",
        "--label",
        "room",
        "--header",
        "x-key:env=OTHER",
        "--header",
        "X-Other:env=OTHER",
        "--secret-env",
        "OTHER",
        "--disabled",
    ]);
    // Found by its URL; its name stays.
    let second = setup.create_other(&["--name", "made in Studio", "--url", "https://EXAMPLE.com/dt/plant-2"]);
    let other =
        setup.create_other(&["--name", "foreign", "--url", "https://example.com/other", "--disabled"]);
    let foreign = setup.raw(&other);

    let (code, different) = setup.report("diff", &[]);
    assert_eq!((code, each(&different, "id")), (1, json!([first, second])));
    let expected = json!([
        {"setting": "status", "found": "USER_DISABLED", "expected": "ACTIVE"},
        {"setting": "url", "found": "https://old.example.com/?(redacted)", "expected": "https://example.com/dt/plant-1"},
        {"setting": "events", "found": "all", "expected": "temperature, touch"},
        {"setting": "labels", "found": "name, room", "expected": "name, room, floor"},
        {"setting": "signature secret", "found": "one that the receiver rejects", "expected": "that of the configuration"},
        {"setting": "headers", "found": "x-key with another value", "expected": "X-Key as in the configuration"},
    ]);
    assert_eq!(different[0]["differences"], expected);
    assert_eq!(each(&different[1]["differences"], "setting"), json!(["signature secret"]));
    let shown = setup.run("diff", &[]).stdout;
    let line = "  signature secret  not set -> that of the configuration\n";
    assert!(
        shown.starts_with(&format!("plant-1 ({first}): is different\n  status ")) && shown.ends_with(line),
        "{shown}"
    );

    let applied = setup.run("apply", &["--yes"]);
    assert_eq!(applied.code(), 0, "{applied:?}");
    assert!(applied.stdout.ends_with(&format!("plant-1 ({first}): changed\nplant-2 ({second}): changed\n")));
    let raw = setup.raw(&first);
    let config = json!({"url": "https://example.com/dt/plant-1", "signatureSecret": "hunter2-signature",
        "headers": {"x-key": "hunter2-header", "X-Other": "hunter2-header-other"}});
    assert_eq!((&raw["httpConfig"], &raw["status"]), (&config, &json!("ACTIVE")));
    assert_eq!(
        (&raw["events"], &raw["labels"]),
        (&json!(["temperature", "touch"]), &json!(["name", "room", "floor"]))
    );
    let raw = setup.raw(&second);
    assert_eq!(raw["displayName"], "made in Studio");
    assert_eq!(raw["httpConfig"]["url"], "https://EXAMPLE.com/dt/plant-2");
    assert_eq!(setup.raw(&other), foreign);
    assert_eq!(setup.run("diff", &[]).code(), 0);

    // Any secret that the receiver accepts is as expected, such as the old one during a rotation.
    let mut command = setup.cloud.command(&["update", &first, "--secret-env", "OLD_SIGNATURE"]);
    command.envs(VALUES);
    assert_eq!(ended(command).code(), 0);
    assert_eq!(setup.run("diff", &[]).code(), 0);
}

#[test]
fn user_and_password_of_the_url_are_as_good_as_the_header() {
    let setup = Setup::new(First::Answered);
    let config = CONFIG.replace("X-Key = ", "Authorization = ");
    std::fs::write(setup.folder.path().join("dt-receiver.toml"), config).expect("written");
    // The emulator accepts no such URL.
    let connector = json!({"name": "projects/p/dataconnectors/c", "displayName": "a", "type": "HTTP_PUSH", "status": "ACTIVE",
        "events": [], "labels": [], "httpConfig": {"url": "https://user:hunter2-url@example.com/dt/plant-1"}});
    let url = stubborn_api(&json!({"dataConnectors": [connector], "nextPageToken": ""}));
    let run = |password: &str| {
        let mut command = setup.command_at(&url, "diff", &["--json", "--basic-auth"]);
        command.env("HEADER", format!("Basic {}", STANDARD.encode(format!("user:{password}"))));
        ended(command).json()
    };
    let (same, other) = (run("hunter2-url"), run("hunter2-URL"));
    assert_eq!(same["connectors"][0]["id"], "c");
    let settings = each(&same["connectors"][0]["differences"], "setting");
    assert_eq!(settings, json!(["events", "labels", "signature secret"]));
    assert_eq!(other["connectors"][0]["action"], "create");
}

#[test]
fn create_from_a_configuration_leaves_existing_connectors_alone() {
    let setup = Setup::new(First::Answered);
    let id = setup.create_other(&["--name", "plant-1", "--url", "https://old.example.com/"]);
    let before = setup.raw(&id);
    let created = setup.run("create", &[]);
    assert_eq!(created.code(), 0, "{created:?}");
    assert!(
        created.stderr.contains("plant-1: exists already") && created.stdout.starts_with("plant-2 ("),
        "{created:?}"
    );
    assert_eq!((setup.raw(&id), setup.count()), (before, 2));
    let (code, again) = setup.report("create", &[]);
    assert_eq!((code, again, setup.count()), (0, json!([]), 2));
    for (arguments, words) in [
        (&["--name", "x"][..], "cannot be used with"),
        (&["--url", "https://h/"], "cannot be used with"),
        (&["--disabled"], "cannot be used with"),
    ] {
        let refused = setup.run("create", arguments);
        assert_eq!(refused.code(), 2, "{refused:?}");
        assert!(refused.stderr.contains(words), "{refused:?}");
    }
}

#[test]
fn several_candidates_are_named_and_none_is_changed() {
    let setup = Setup::new(First::Answered);
    let by_name = setup.create_other(&["--name", "plant-1", "--url", "https://old.example.com/"]);
    let by_url = setup.create_other(&["--name", "b", "--url", "https://example.com/dt/plant-1"]);
    for subcommand in ["diff", "apply", "create"] {
        let arguments: &[&str] = if subcommand == "apply" { &["--yes", "--json"] } else { &["--json"] };
        let refused = setup.run(subcommand, arguments);
        assert_eq!(
            (refused.code(), &refused.json()["error"]["code"]),
            (1, &json!("ambiguous")),
            "{refused:?}"
        );
        assert!(refused.stderr.contains(&by_name) && refused.stderr.contains(&by_url), "{refused:?}");
    }
    assert_eq!(setup.seen.writes().len(), 0);

    // One Data Connector for two of the configuration.
    connectors(&setup.cloud, &["delete", &by_url, "--yes"]);
    connectors(&setup.cloud, &["update", &by_name, "--url", "https://example.com/dt/plant-2"]);
    let refused = setup.run("diff", &["--json"]);
    assert_eq!((refused.code(), &refused.json()["error"]["code"]), (1, &json!("ambiguous")), "{refused:?}");
    assert!(refused.stderr.contains("plant-1 and plant-2: "), "{refused:?}");
}

#[test]
fn failures_are_named_and_nothing_is_half_told() {
    let setup = Setup::new(First::Answered);
    let with = |subcommand: &str, arguments: &[&str], more: &[&str]| {
        let mut command = setup.command(subcommand, arguments);
        command.args(more);
        ended(command)
    };
    let reader = ["--key-id", "reader", "--key-secret-env", "READER", "--email", "reader@example.com"];
    // A role that can only read can compare.
    assert_eq!(with("diff", &[], &reader).code(), 1);
    let forbidden = with("apply", &["--yes", "--json"], &reader);
    assert_eq!(
        (forbidden.code(), &forbidden.json()["error"]["code"]),
        (1, &json!("forbidden")),
        "{forbidden:?}"
    );
    assert_eq!(each(&forbidden.json()["connectors"], "done"), json!([false, false]));
    assert!(forbidden.stderr.contains("stopped at the connector plant-1"), "{forbidden:?}");
    for subcommand in ["diff", "apply"] {
        let wrong = with(subcommand, &["--json"], &["--key-secret-env", "SIGNATURE"]);
        assert_eq!((wrong.code(), &wrong.json()["error"]["code"]), (1, &json!("credentials")), "{wrong:?}");
    }
    assert_eq!(setup.count(), 0);

    for (fault, code) in [("rate-limit=1", "rate_limited"), ("api-outage", "unavailable")] {
        let cloud = Cloud::start(&["--fault", fault]);
        let setup = Setup {
            url: cloud.url.clone(),
            cloud,
            seen: Seen::default(),
            folder: tempfile::tempdir().unwrap(),
        };
        std::fs::write(setup.folder.path().join("dt-receiver.toml"), CONFIG).expect("written");
        let failed = setup.run("apply", &["--yes", "--json"]);
        assert_eq!((failed.code(), &failed.json()["error"]["code"]), (1, &json!(code)), "{failed:?}");
        assert!(failed.stderr.contains("5 attempts"), "{failed:?}");
    }
}

#[test]
fn a_create_whose_answer_is_lost_is_not_repeated() {
    let setup = Setup::new(First::AnswerLost);
    let (code, applied) = setup.report("apply", &["--yes"]);
    assert_eq!((code, each(&applied, "done")), (0, json!([true, true])), "{applied}");
    assert_eq!((setup.seen.writes().len(), setup.count()), (2, 2));
}

#[test]
fn what_is_still_different_after_a_change_is_named() {
    let setup = Setup::new(First::Answered);
    let mut api = json!({
        "name": "projects/p/dataconnectors/c", "displayName": "plant-1", "type": "HTTP_PUSH", "status": "SYSTEM_DISABLED",
        "events": ["touch", "temperature"], "labels": ["room", "floor"],
        "httpConfig": {"url": "https://example.com/dt/plant-1", "signatureSecret": "hunter2-signature-old", "headers": {}},
    });
    // The same object answers every request, also as the list.
    let mut second = api.clone();
    second["displayName"] = json!("plant-2");
    second["name"] = json!("projects/p/dataconnectors/d");
    second["httpConfig"]["url"] = json!("https://example.com/dt/plant-2");
    second["httpConfig"]["signatureSecret"] = json!("hunter2-signature-second");
    second["status"] = json!("ACTIVE");
    second["events"] = json!([]);
    api["dataConnectors"] = json!([api, second]);
    api["nextPageToken"] = json!("");
    let url = stubborn_api(&api);
    let applied = ended(setup.command_at(&url, "apply", &["--yes", "--json", "--basic-auth"]));
    let report = applied.json();
    assert_eq!(
        (applied.code(), each(&report["connectors"], "action")),
        (1, json!(["change", "none"])),
        "{applied:?}"
    );
    assert_eq!(report["connectors"][0]["stillDifferent"], json!(["status", "headers"]));
    assert!(applied.stderr.contains("plant-1: DT accepted the request, but these settings"), "{applied:?}");
    assert!(applied.stderr.contains("status, headers;"), "{applied:?}");
}

#[test]
fn wrong_options_are_refused_before_a_request() {
    let setup = Setup::new(First::Answered);
    let config = setup.folder.path().join("dt-receiver.toml");
    let run = |arguments: &[&str]| {
        let mut command = setup.cloud.command_at(&setup.url, arguments);
        command.envs(VALUES);
        ended(command)
    };
    let config = config.to_str().expect("text");
    let url = ["--public-url", "https://example.com"];
    for (arguments, words) in [
        (
            vec!["diff", "--config", config, "--public-url", "https://u:hunter2-url@example.com"],
            "without user",
        ),
        (vec!["diff", "--config", config, "--public-url", "example.com"], "without user"),
        (vec!["diff", "--config", config], "--public-url"),
        (vec!["create", "--from-config", config], "--public-url"),
        ([&["diff", "--config", "/none.toml"][..], &url].concat(), "/none.toml"),
    ] {
        let refused = run(&arguments);
        assert_eq!(refused.code(), 2, "{arguments:?}: {refused:?}");
        assert!(refused.stderr.contains(words), "{arguments:?}: {refused:?}");
    }
    // A secret that is not set; a configuration for other projects.
    let mut command = setup.command("apply", &["--yes"]);
    command.env_remove("HEADER");
    let refused = ended(command);
    assert_eq!(refused.code(), 2, "{refused:?}");
    assert!(refused.stderr.contains("HEADER is not set"), "{refused:?}");
    std::fs::write(
        config,
        CONFIG.split("\n[[connector]]").last().map(|part| format!("[[connector]]{part}")).unwrap(),
    )
    .expect("written");
    let refused = setup.run("diff", &[]);
    assert_eq!(refused.code(), 2, "{refused:?}");
    assert!(refused.stderr.contains("no [[connector]] accepts events of the project p"), "{refused:?}");
    assert_eq!(setup.seen.writes().len(), 0);
}

/// On a terminal, `apply` asks. `script` (of every Linux) makes one.
#[cfg(target_os = "linux")]
#[test]
fn on_a_terminal_apply_asks() {
    let setup = Setup::new(First::Answered);
    for (answer, code, count, words) in
        [("n\n", 1, 0, "nothing is changed"), ("\n", 1, 0, "nothing is changed"), ("y\n", 0, 2, "created")]
    {
        let apply = setup.command("apply", &[]);
        let mut script = Command::new("script");
        let quoted = |text: &std::ffi::OsStr| format!("'{}'", text.to_str().expect("text"));
        let line: Vec<String> =
            [apply.get_program()].into_iter().chain(apply.get_args()).map(quoted).collect();
        script.args(["-qec", &line.join(" "), "/dev/null"]).env("SHELL", "/bin/sh");
        for (name, value) in apply.get_envs() {
            match value {
                Some(value) => script.env(name, value),
                None => script.env_remove(name),
            };
        }
        let asked = common::run_command(script, answer.as_bytes());
        assert_eq!((asked.code(), setup.count()), (code, count), "{asked:?}");
        assert!(asked.stdout.contains("Apply these changes to the project p? [y/N]"), "{asked:?}");
        assert!(asked.stdout.contains(words), "{asked:?}");
        assert!(SECRETS.iter().all(|secret| !asked.stdout.contains(secret)), "{asked:?}");
    }
}
