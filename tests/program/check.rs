//! `dt-receiver check` reports every problem at once, where it is, and never shows a secret.

use std::path::Path;
use std::process::Command;

/// What `check` says of a file: exit code, standard output and standard error.
fn check_with(text: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("config.toml"), text).expect("written");
    run(folder.path(), &[&["check", "--config", "config.toml"], arguments].concat())
}

fn run(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_dt-receiver"));
    program.args(arguments).current_dir(folder).env_clear();
    program.env("SECRET", "some-good-secret").env("OTHER", "another-good-secret");
    let output = program.output().expect("runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn check(text: &str) -> (Option<i32>, String, String) {
    check_with(text, &[])
}

/// What `check` warns of in a file that is usable.
fn warnings(text: &str) -> String {
    let (code, said, complained) = check(text);
    assert_eq!((code, said.as_str()), (Some(0), "config.toml: ok\n"), "{complained}");
    complained
}

#[test]
fn every_problem_is_reported_at_once_with_its_line_although_secrets_are_missing() {
    let text = r#"lisen = "127.0.0.1:8080"
mode = "spol"
drain_timeout = "2d"
dead_letters = "kafka:dead"

[[connector]]
name = "plant-1"
secrets = [{ env = "NOT_SET" }]
events = []
projects = []
sinks = ["archiv"]

[[connector]]
name = "plant-2"
path = "/"
policy = "ether"
secrets = [
  { label = "new", env = "ALSO_NOT_SET" },
  { label = "old", file = "/run/not-there" },
]

[[connector]]
path = "no-slash"
headers = { X-Key = { env = "NO_HEADER" } }

[[sink]]
name = "archive"
type = "file"
path = "/not-there/events.ndjson"
rotate_every = "7h"

[[sink]]
name = "other"
tpe = "stdout"
"#;
    let (code, _, said) = check(text);
    assert_eq!(code, Some(2));
    let expected = [
        "line 1: lisen: unknown key; did you mean \"listen\"?",
        "line 2: mode: found \"spol\"; did you mean \"spool\"? expected spool, direct",
        "line 3: drain_timeout: found \"2d\" (string); expected a duration such as \"8s\", \"500ms\" or \"1d\", from 0s to 1h",
        "line 8: connector.plant-1.secrets.0.env: the environment variable NOT_SET is not set",
        "line 9: connector.plant-1.events: the list is empty",
        "line 10: connector.plant-1.projects: the list is empty",
        "line 11: connector.plant-1.sinks: no sink is named \"archiv\"; did you mean \"archive\"?",
        "line 15: connector.plant-2.path: \"/\" is used by two",
        "line 16: connector.plant-2.policy: found \"ether\"; did you mean \"either\"?",
        "line 18: connector.plant-2.secrets.0.env: the environment variable ALSO_NOT_SET is not set",
        "line 19: connector.plant-2.secrets.1.file: /run/not-there: No such file",
        "line 22: connector.2.name: is missing",
        "line 22: connector.2.secrets: no secret and no key set",
        "line 23: connector.2.path: found \"no-slash\"",
        "line 24: connector.2.headers.X-Key.env: the environment variable NO_HEADER is not set",
        "line 29: sink.archive.path: the folder /not-there does not exist",
        "line 30: sink.archive.rotate_every: found \"7h\"",
        "line 32: sink.other.type: is missing",
        "line 34: sink.other.tpe: unknown key; did you mean \"type\"?",
    ];
    for line in expected {
        assert!(said.contains(&format!("config.toml: {line}")), "no {line:?} in:\n{said}");
    }
    assert_eq!(said.lines().count(), expected.len(), "{said}");
}

#[test]
fn the_json_object_has_the_lines_too() {
    let (code, said, _) = check_with("\nlisen = 1\n", &["--json"]);
    assert_eq!(code, Some(2));
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let unknown = &said["errors"][0];
    assert_eq!((&unknown["key"], &unknown["line"]), (&"lisen".into(), &2.into()), "{said}");
    assert!(said["errors"][1]["line"].is_null(), "a connector is missing, in no line: {said}");
}

#[test]
fn a_day_is_a_duration_and_a_missing_folder_is_found() {
    let text = |path: &str| {
        format!(
            "dedup_window = '1d'\ndata = 'data'\n[[connector]]\nname = 'a'\nsecrets = [{{ env = 'SECRET' }}]\n\
             [[sink]]\nname = 'out'\ntype = 'file'\nrotate_every = '1d'\npath = '{path}'\n"
        )
    };
    for good in ["events.ndjson", "data/{date}.ndjson", "data/events.ndjson"] {
        assert_eq!(warnings(&text(good)), "", "{good}");
    }
    // What `serve` does not start without is an error; where it starts and waits, a warning.
    let (code, _, said) = check(&text("gone/events.ndjson"));
    assert_eq!(code, Some(2));
    assert!(
        said.contains("line 10: sink.out.path: the folder") && said.contains("gone does not exist"),
        "{said}"
    );
    let said = warnings(&text("gone/{date}.ndjson"));
    assert!(said.contains("warning: line 10: sink.out.path: the folder"), "{said}");
    assert!(said.contains("mkdir -p"), "{said}");
    let (code, _, said) = check(&text("config.toml/events.ndjson"));
    assert_eq!(code, Some(2));
    assert!(said.contains("is not a folder"), "{said}");
}

#[test]
fn files_are_checked_without_making_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("there.ndjson"), "kept").expect("written");
    std::os::unix::fs::symlink(path("gone"), path("link.ndjson")).expect("linked");
    let sinks = |paths: &[(&str, &str)]| -> String {
        let sinks = paths
            .iter()
            .map(|(name, path)| format!("[[sink]]\nname = '{name}'\ntype = 'file'\npath = '{path}'\n"));
        connector("a", SECRET) + "[[sink]]\nname = 'out'\ntype = 'stdout'\n" + &sinks.collect::<String>()
    };
    let good = [
        ("new", &*path("new.ndjson")),
        ("old", &*path("there.ndjson")),
        ("daily", &*path("{date}/x.ndjson")),
    ];
    let (code, said, complained) = check_with(&sinks(&good), &["--connect"]);
    assert_eq!((code, complained.as_str()), (Some(0), ""), "{said}");
    for line in [
        "config.toml: ok".to_owned(),
        "config.toml: sink out (stdout): ok: standard output needs no connection".to_owned(),
        format!("config.toml: sink new (file): ok: files can be made in {}", folder.path().display()),
        format!("config.toml: sink old (file): ok: {} can be written", path("there.ndjson")),
        format!("config.toml: sink daily (file): ok: files can be made in {}", folder.path().display()),
    ] {
        assert!(said.lines().any(|said| said == line), "no {line:?} in:\n{said}");
    }
    let bad = [
        ("link", &*path("link.ndjson"), "a symbolic link without a target"),
        ("folder", folder.path().to_str().expect("text"), "not a regular file"),
    ];
    let (code, said, complained) =
        check_with(&sinks(&bad.map(|(name, path, _)| (name, path))), &["--connect", "--json"]);
    assert_eq!((code, complained.as_str()), (Some(1), ""), "{said}");
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((&said["ok"], &said["errors"]), (&false.into(), &serde_json::json!([])), "{said}");
    assert_eq!(said["sinks"][0]["result"], "ok", "{said}");
    for (at, (name, path, text)) in (1..).zip(bad) {
        let sink = &said["sinks"][at];
        assert_eq!((&sink["name"], &sink["result"]), (&name.into(), &"failed".into()), "{said}");
        let found = sink["text"].as_str().expect("text");
        assert!(found.contains(path) && found.contains(text), "{said}");
    }
    let mut names: Vec<_> =
        folder.path().read_dir().expect("read").map(|entry| entry.expect("one").file_name()).collect();
    names.sort();
    assert_eq!(names, ["link.ndjson", "there.ndjson"]);
    assert_eq!(std::fs::read_to_string(path("there.ndjson")).expect("read"), "kept");
}

#[test]
fn a_folder_of_another_user_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let locked = folder.path().join("locked");
    std::fs::create_dir(&locked).expect("made");
    std::fs::write(locked.join("old.ndjson"), "").expect("written");
    for (path, mode) in [(locked.join("old.ndjson"), 0o444), (locked.clone(), 0o555)] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("set");
    }
    let sink = |name: &str, file: &str| {
        format!("[[sink]]\nname = '{name}'\ntype = 'file'\npath = '{}'\n", locked.join(file).display())
    };
    let text = connector("a", SECRET) + &sink("new", "new.ndjson") + &sink("old", "old.ndjson");
    std::fs::write(folder.path().join("config.toml"), text).expect("written");
    let Some(mut program) = for_another_user(folder.path(), "a folder of another user") else { return };
    program.args(["check", "--connect", "--config"]).arg(folder.path().join("config.toml"));
    let output = program.current_dir("/").env("SECRET", "some-good-secret").output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for (name, path) in [("new", locked.clone()), ("old", locked.join("old.ndjson"))] {
        let line = format!("sink {name} (file): {}: this user may not write there", path.display());
        assert!(said.contains(&line), "no {line:?} in:\n{said}");
    }
}

#[test]
fn a_wrong_configuration_connects_nowhere() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listens");
    listener.set_nonblocking(true).expect("set");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let text = connector("a", SECRET) + &format!("[[sink]]\nname = 'h'\ntype = 'http'\nurl = '{url}'\n");
    let (code, said, _) = check_with(&("lisen = 1\n".to_owned() + &text), &["--connect", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((code, &json["sinks"]), (Some(2), &serde_json::json!([])), "{said}");
    assert_eq!(listener.accept().expect_err("no connection").kind(), std::io::ErrorKind::WouldBlock);
    // Without the option, a right one connects nowhere either.
    assert_eq!(warnings(&text), "");
    assert_eq!(listener.accept().expect_err("no connection").kind(), std::io::ErrorKind::WouldBlock);
}

/// A secret stands at each place where a name, a path or a table belongs.
#[test]
fn a_secret_in_the_wrong_place_is_never_shown() {
    let secrets = [
        "hunter2-hunter2",
        "hunter2 hunter2",
        "HUNTER2HUNTER2HUNTER2HUNTER2",
        "8f14e45fceea167a5a36dedd4bea2543",
        "c29tZS1odW50ZXIyLXNlY3JldA==",
        "hunter2/hunter2",
    ];
    for secret in secrets {
        for wrong in [
            format!("secrets = [{{ env = '{secret}' }}]"),
            format!("secrets = [{{ file = '{secret}' }}]"),
            format!("secrets = [{{ env = ['{secret}'] }}]"),
            format!("secrets = [{{ file = {{ hunter = '{secret}' }} }}]"),
            format!("secrets = [{{ label = '{secret} ', env = 'SECRET' }}]"),
            format!("secrets = [{{ label = ['{secret}'], env = 'SECRET' }}]"),
            format!("secrets = '{secret}'"),
            format!("secrets = ['{secret}']"),
            format!("secrets = [{{ env = 'SECRET' }}]\nheaders = {{ X-Key = '{secret}' }}"),
            format!("secrets = [{{ env = 'SECRET' }}]\nheaders = {{ X-Key = {{ env = '{secret}' }} }}"),
            format!("secrets = [{{ env = 'SECRET' }}]\nheaders = {{ X-Key = {{ file = '{secret}' }} }}"),
        ] {
            let (code, said, complained) = check(&format!("[[connector]]\nname = 'a'\n{wrong}\n"));
            let said = said + &complained;
            assert_eq!(code, Some(2), "{wrong}: {said}");
            assert!(!said.contains(secret), "{wrong}: {said}");
            assert!(said.contains("connector.a."), "{wrong}: {said}");
        }
    }
    for wrong in ["env = 20261130", "file = 20261130", "label = 20261130, env = 'SECRET'"] {
        let (_, _, said) = check(&format!("[[connector]]\nname = 'a'\nsecrets = [{{ {wrong} }}]\n"));
        assert!(said.contains("found a value of type integer") && !said.contains("20261130"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let text = "[[connector]]\nname = 'a'\nsecrets = [{ label = 'some-good-secret', env = 'SECRET' }]\n";
    let (code, _, said) = check(text);
    assert_eq!(code, Some(2));
    assert!(said.contains("label: is the secret itself") && !said.contains("some-good-secret"), "{said}");
    let text = "[[connector]]\nname = 'a'\nsecrets = [{ env = 'SECRET' }]\n[tls]\ncertificate = '/c.pem'\nkey = '''\n\
                -----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n'''\n";
    let (_, _, said) = check(text);
    assert!(said.contains("tls.key: ") && !said.contains("hunter2"), "{said}");
}

/// `serve` reads the same configuration, and says the same in its log and on standard error.
#[test]
fn serve_does_not_show_it_either() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = "[[connector]]\nname = 'a'\nsecrets = [{ label = 'x y', env = 'hunter2-hunter2' }]\n";
    std::fs::write(folder.path().join("config.toml"), text).expect("written");
    let (code, said, complained) = run(folder.path(), &["serve", "--config", "config.toml"]);
    assert_eq!(code, Some(2));
    let said = said + &complained;
    assert!(!said.contains("hunter2") && !said.contains("x y"), "{said}");
    assert!(said.contains("the environment variable of that name (not shown"), "{said}");
    let (code, _, said) = run(folder.path(), &["serve", "--secret-env", "hunter2-hunter2"]);
    assert_eq!(code, Some(2));
    assert!(!said.contains("hunter2"), "{said}");
}

/// A connector with the secret of a variable.
fn connector(name: &str, keys: &str) -> String {
    format!("[[connector]]\nname = '{name}'\npath = '/{name}'\n{keys}\n")
}

const SECRET: &str = "secrets = [{ env = 'SECRET' }]";

#[test]
fn a_list_of_addresses_that_no_request_can_be_in_is_a_warning() {
    let text =
        |root: &str| format!("{root}\n[limits]\nallow_cidrs = ['192.0.2.0/24']\n{}", connector("a", SECRET));
    for good in
        ["", "trusted_proxies = ['10.0.0.0/8']", "listen = 'unix:in.sock'\ntrusted_proxies = ['unix']"]
    {
        assert_eq!(warnings(&text(good)), "", "{good}");
    }
    let said = warnings(&text("listen = 'unix:in.sock'"));
    assert!(said.contains("warning: line 3: limits.allow_cidrs: ") && said.contains("\"unix\""), "{said}");
    let (code, said, _) = check_with(&text("listen = 'unix:in.sock'"), &["--json"]);
    assert_eq!(code, Some(0));
    assert!(said.contains("\"ok\":true") && said.contains("\"key\":\"limits.allow_cidrs\""), "{said}");
}

#[test]
fn to_trust_everybody_as_a_proxy_is_a_warning() {
    for network in ["0.0.0.0/0", "::/0"] {
        let said =
            warnings(&format!("trusted_proxies = ['127.0.0.1', '{network}']\n{}", connector("a", SECRET)));
        assert!(said.contains("warning: line 1: trusted_proxies: ") && said.contains(network), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

/// A token is not bound to the URL that it was sent to: an event for one connector is authentic for the other.
#[test]
fn keys_that_two_connectors_share_are_a_warning() {
    let asymmetric = |organization: &str, more: &str| {
        format!("{more}\n[connector.asymmetric]\norganization = '{organization}'")
    };
    let (own, one, two) =
        ("secrets = [{ env = 'OTHER' }]", "projects = ['one']", "projects = ['two', 'three']");
    for (a, b) in [
        (SECRET.to_owned(), own.to_owned()),
        (asymmetric("x", ""), asymmetric("y", "")),
        (asymmetric("x", one), asymmetric("x", two)),
        // Both signatures are needed, and one of them is another's.
        (
            asymmetric("x", &format!("policy = 'both'\n{SECRET}")),
            asymmetric("x", &format!("policy = 'both'\n{own}")),
        ),
        (SECRET.to_owned(), asymmetric("x", "")),
    ] {
        let text = connector("a", &a) + &connector("b", &b);
        assert_eq!(warnings(&text), "", "{text}");
    }
    let both = "secrets = [{ label = 'x', env = 'OTHER' }, { label = 'y', env = 'SECRET' }]";
    let said = warnings(&(connector("a", SECRET) + &connector("b", both)));
    assert!(said.contains("warning: line 8: connector.b.secrets: ") && said.contains("\"a\""), "{said}");
    assert!(!said.contains("some-good-secret"), "{said}");
    let open = [
        asymmetric("x", one),
        asymmetric("x", &format!("{one}\npolicy = 'asymmetric'")),
        asymmetric("x", ""),
    ];
    for b in open {
        let said = warnings(&(connector("a", &asymmetric("x", one)) + &connector("b", &b)));
        assert!(
            said.contains("connector.b.asymmetric.organization: ") && said.contains("`projects`"),
            "{said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn serve_logs_each_warning_once() {
    let folder = tempfile::tempdir().expect("a folder");
    // It ends, since this can be no folder.
    let text = format!("data = '/dev/null/data'\n{}{}", connector("a", SECRET), connector("b", SECRET));
    std::fs::write(folder.path().join("config.toml"), text).expect("written");
    let (code, _, said) = run(folder.path(), &["serve", "--config", "config.toml"]);
    assert_eq!(code, Some(2), "{said}");
    let warned = said.lines().filter(|line| line.contains("\"key\":\"connector.b.secrets\""));
    let warned: Vec<_> = warned.collect();
    assert!(warned.len() == 1 && warned[0].contains("WARN") && warned[0].contains("\"line\":9"), "{said}");
}

#[test]
fn the_help_names_the_variable_for_the_log() {
    let folder = tempfile::tempdir().expect("a folder");
    for arguments in [&["--help"][..], &["serve", "--help"]] {
        let (code, said, _) = run(folder.path(), arguments);
        assert_eq!(code, Some(0));
        assert!(said.contains("RUST_LOG"), "{said}");
    }
}

/// The program for a user without privileges, with a folder that this user may enter.
fn for_another_user(folder: &Path, left_out: &str) -> Option<Command> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    std::fs::set_permissions(folder, PermissionsExt::from_mode(0o777)).expect("permitted");
    // Where the build is, others may not be able to look.
    let copy = folder.join("dt-receiver");
    std::fs::copy(env!("CARGO_BIN_EXE_dt-receiver"), &copy).expect("copied");
    let is_root = std::fs::metadata("/proc/self/environ").expect("there").uid() == 0;
    if !is_root {
        return Some(Command::new(&copy));
    }
    if Command::new("setpriv").arg("--version").output().is_err() {
        let line = format!("left out for want of setpriv: {left_out}\n");
        let _said = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
        return None;
    }
    let mut program = Command::new("setpriv");
    program.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&copy);
    Some(program)
}

/// Other processes of the same user may look into one that may be dumped; into this one only root may.
#[test]
fn a_server_does_not_let_others_read_its_memory() {
    use std::io::{BufRead, BufReader};
    use std::os::unix::fs::MetadataExt;
    use std::process::Stdio;

    let folder = tempfile::tempdir().expect("a folder");
    let Some(mut program) = for_another_user(folder.path(), "the memory of another user's server") else {
        return;
    };
    program.args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"]);
    program.arg(folder.path().join("data")).current_dir("/").env("DT_SIGNATURE_SECRET", "some-good-secret");
    let mut server = program.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts");
    let lines = BufReader::new(server.stderr.take().expect("piped")).lines();
    let is_up = lines.map_while(Result::ok).any(|line| line.contains("listening"));
    let owner = std::fs::metadata(format!("/proc/{}/environ", server.id())).map(|found| found.uid());
    server.kill().and_then(|()| server.wait()).expect("killed");
    assert!(is_up, "it does not start");
    assert_eq!(owner.expect("it runs"), 0, "whoever is its user may read it");
}
