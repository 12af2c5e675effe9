//! `dt-receiver emulate` as a program, and `emulate` with `serve` behind policy `both`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dt_receiver::emulator::Emulator;
use serde_json::{Value, json};

use crate::common::{self, Receiver, SECRET, SECRET_VARIABLE};
use crate::http::{ANYONE, ask};
use crate::wait::until;

/// A running `dt-receiver emulate`; it is killed when dropped.
struct Program {
    child: Child,
    url: String,
}

impl Program {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dt-receiver"));
        command.args(["emulate", "--listen", "127.0.0.1:0"]).args(arguments);
        command.env(SECRET_VARIABLE, SECRET).env_remove("RUST_LOG");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let url =
            line.split_whitespace().last().and_then(|url| url.strip_suffix("/v2")).expect("a URL").to_owned();
        Self { child, url }
    }

    fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
        assert!(self.child.wait().expect("it ends").success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn emulate_feeds_serve_and_keeps_its_state() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, state) = (folder.path().join("data"), folder.path().join("state.json"));
    let sink = format!("file:{}", folder.path().join("events").display());
    let receiver = Receiver::start(["--data", data.to_str().expect("UTF-8"), "--sink", &sink], &[]);
    let url = receiver.url("/");
    let arguments =
        ["--devices", "temperature:3,touch", "--interval", "1s", "--project", "p", "--connector", &url];
    let state = state.to_str().expect("UTF-8").to_owned();
    let arguments =
        [&arguments[..], &["--state", &state, "--seed", "1", "--fault", "burst=10,duplicate=0.5"]].concat();
    for _ in 0..2 {
        let program = Program::start(&arguments);
        let connectors = format!("{}/v2/projects/p/dataconnectors", program.url);
        let list = ask("GET", &connectors, &[ANYONE], "").await.body;
        let connectors = list["dataConnectors"].as_array().expect("a list").clone();
        assert_eq!(connectors.len(), 1, "a restart does not make it again");
        let name = connectors[0]["name"].as_str().expect("a name").to_owned();
        let metrics = format!("{}/v2/{name}:metrics", program.url);
        let mut counts = (0, 0);
        while counts.0 < 20 {
            let shown = ask("GET", &metrics, &[ANYONE], "").await.body;
            let count = |name: &str| shown["metrics"][name].as_u64().expect("a count");
            counts = (count("successCount"), count("errorCount"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(counts.1, 0);
        let devices = ask("GET", &format!("{}/v2/projects/p/devices", program.url), &[ANYONE], "").await.body;
        assert_eq!(devices["devices"].as_array().expect("a list").len(), 4);
        tokio::task::spawn_blocking(|| program.stop()).await.expect("stopped");
    }
    tokio::task::spawn_blocking(|| receiver.stop()).await.expect("stopped");
}

/// The program itself, with a real network: five days in five seconds. A millisecond is a minute and a half at this pace,
/// so an hour is allowed; `days.rs` is exact.
#[tokio::test(flavor = "multi_thread")]
async fn emulate_disables_a_connector_after_five_days() {
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port");
    let url = format!("http://{free}/");
    // A beat an hour, so that attempts fail all the time.
    let program = Program::start(&[
        "--time-scale",
        "86400",
        "--devices",
        "touch",
        "--interval",
        "1h",
        "--project",
        "p",
        "--connector",
        &url,
        "--fault",
        "burst=1",
    ]);
    let status = format!("{}/emulator", program.url);
    let time = |value: &Value| value.as_str().map(|text| text.parse::<jiff::Timestamp>().expect("RFC 3339"));
    let began = time(&ask("GET", &status, &[], "").await.body["time"]).expect("a time");
    let disabled = loop {
        let shown = ask("GET", &status, &[], "").await.body;
        if let Some(at) = time(&shown["connectors"][0]["disabledAt"]) {
            assert_eq!(shown["connectors"][0]["status"], "SYSTEM_DISABLED");
            assert_eq!(shown["connectors"][0]["queued"], 0);
            break at;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let took = disabled.duration_since(began).as_hours();
    assert!((116..=121).contains(&took), "{took} hours");
    let ledger = ask("GET", &format!("{}/emulator/ledger?fate=expired", program.url), &[], "").await.body;
    assert!(!ledger["entries"].as_array().expect("a list").is_empty(), "{ledger}");
    tokio::task::spawn_blocking(|| program.stop()).await.expect("stopped");
}

/// Processor time in seconds and resident memory in KiB of a process so far.
fn used(pid: u32) -> (f64, u64) {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).expect("it runs");
    // The name in parentheses may have spaces; user and system time are the 14th and 15th field.
    let stat = read("stat");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().expect("a number")).sum();
    let status = read("status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("in every status");
    let kib = line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("a number");
    (ticks as f64 / 100.0, kib)
}

/// 10,000 deliveries of 1,000 devices with a heartbeat of a second: less than half a core (in a release build; a debug
/// build is only told) and 100 MB. `DT_RECEIVER_TEST_DELIVERIES` sets another number.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_devices_cost_little() {
    let deliveries: u64 =
        std::env::var("DT_RECEIVER_TEST_DELIVERIES").map_or(10_000, |text| text.parse().expect("a number"));
    let target = crate::target::Target::start().await;
    let program = Program::start(&[
        "--devices",
        "temperature:1000",
        "--interval",
        "1s",
        "--project",
        "p",
        "--connector",
        &target.url,
    ]);
    let connectors = format!("{}/v2/projects/p/dataconnectors", program.url);
    let list = ask("GET", &connectors, &[ANYONE], "").await.body;
    let name = list["dataConnectors"][0]["name"].as_str().expect("a name").to_owned();
    let metrics = format!("{}/v2/{name}:metrics", program.url);
    let (began, before) = (Instant::now(), used(program.child.id()));
    let mut shown = Value::Null;
    while shown["metrics"]["successCount"].as_u64() < Some(deliveries) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        shown = ask("GET", &metrics, &[ANYONE], "").await.body;
        assert_eq!(shown["metrics"]["errorCount"], 0, "{shown}");
    }
    let (took, (seconds, kib)) = (began.elapsed(), used(program.child.id()));
    let cores = (seconds - before.0) / took.as_secs_f64();
    println!("{deliveries} deliveries of 1,000 devices in {took:?}: {cores:.2} of a core, {} MB", kib / 1024);
    assert!(kib < 100 * 1024, "{kib} KiB");
    assert!(cores < 0.5 || cfg!(debug_assertions), "{cores} cores");
    tokio::task::spawn_blocking(|| program.stop()).await.expect("stopped");
}

#[test]
fn wrong_arguments_are_usage_errors() {
    for (arguments, said) in [
        (&["--devices", "toaster:1"][..], "no device type"),
        (&["--interval", "0s"], "expected a duration"),
        (&["--time-scale", "0"], "time-scale"),
        (&["--service-account", "key"], "KEY:env=NAME:EMAIL"),
        (&["--service-account", "key:env=NO_SUCH_VARIABLE:me@example.com"], "NO_SUCH_VARIABLE is not set"),
        (&["--service-account", "key:file=/nonexistent:me@example.com"], "/nonexistent"),
        (&["--service-account", "key:env=PATH:me@example.com:king"], "project.user"),
        (&["--organization-name", ""], "organization-name"),
        (&["--fault", "smoke"], "no fault"),
        (&["--connector", "ftp://x"], "httpConfig.url"),
        (&["--state", "/nonexistent/state.json"], "/nonexistent"),
        (&["--public-url", "my-host:8081"], "http://192.0.2.7"),
        // What a user sees who asks for what DT rejects; the second ends the program.
        (
            &["--connector", "http://127.0.0.1:9/", "--connector", "ftp://x"],
            "rejects URLs that are not https",
        ),
    ] {
        let ended = common::run([&["emulate", "--listen", "127.0.0.1:0"], arguments].concat(), b"");
        assert_eq!(ended.code(), 2, "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(said), "{arguments:?}: {ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_organization_may_have_a_name() {
    let program = Program::start(&["--organization", "my-org", "--organization-name", "Acme Ltd."]);
    let url = format!("{}/v2/projects/p", program.url);
    let project = ask("GET", &url, &[ANYONE], "").await.body;
    assert_eq!(project["organization"], "organizations/my-org");
    assert_eq!(project["organizationDisplayName"], "Acme Ltd.");
    tokio::task::spawn_blocking(|| program.stop()).await.expect("stopped");
}

/// Every process of a machine can read the arguments of every other.
#[test]
fn a_secret_on_the_command_line_is_refused_and_not_repeated() {
    for old in
        ["key:hunter2:me@example.com", "key:hunter2:me@example.com:project.user", "key:hunter2", "hunter2"]
    {
        let ended = common::run(["emulate", "--listen", "127.0.0.1:0", "--service-account", old], b"");
        assert_eq!(ended.code(), 2, "{old}: {ended:?}");
        for form in ["KEY:env=NAME:EMAIL", "KEY:file=PATH:EMAIL"] {
            assert!(ended.stderr.contains(form), "{old}: {ended:?}");
        }
        assert!(!ended.stderr.contains("hunter2"), "{old}: {ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn emulate_takes_service_accounts_from_a_file_and_a_variable() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("secret");
    std::fs::write(&file, "of-the-file\n").expect("written");
    let from_file = format!("dev:file={}:dev@example.com", file.display());
    let from_variable = format!("user:env={SECRET_VARIABLE}:user@example.com:project.user");
    let program = Program::start(&["--service-account", &from_file, "--service-account", &from_variable]);
    let basic = |pair: String| {
        use base64::Engine;
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
    };
    let device = r#"{"type":"touch"}"#;
    for (pair, status) in [
        ("dev:of-the-file".to_owned(), 200),
        (format!("user:{SECRET}"), 403),
        (format!("dev:{SECRET}"), 401),
        ("any:secret".to_owned(), 401),
    ] {
        let url = format!("{}/v2/projects/p/devices", program.url);
        let answer = ask("POST", &url, &[("authorization", &basic(pair.clone()))], device).await;
        assert_eq!(answer.status, status, "{pair}: {answer:?}");
    }
    tokio::task::spawn_blocking(|| program.stop()).await.expect("stopped");
}

/// `http://0.0.0.0` is nowhere: an issuer has to be a URL that others can use.
#[test]
fn all_addresses_need_a_public_url() {
    let ended = common::run(["emulate", "--listen", "0.0.0.0:0"], b"");
    assert_eq!(ended.code(), 2, "{ended:?}");
    assert!(ended.stderr.contains("--public-url"), "{ended:?}");
}

#[tokio::test]
async fn a_public_url_is_what_others_are_told() {
    let listen = "0.0.0.0:0".parse().expect("an address");
    let builder =
        Emulator::builder().listen(listen).public_url("http://my-host:8081/").organization("my-org");
    let emulator = builder.start().await.expect("it starts");
    assert_eq!(emulator.issuer(), "http://my-host:8081/data-connector");
    assert_eq!(emulator.api_url(), "http://my-host:8081/v2");
    let root = format!("http://127.0.0.1:{}", emulator.address().port());
    let discovery = format!("{root}/data-connector/.well-known/openid-configuration");
    let discovery = ask("GET", &discovery, &[("host", "my-host:8081")], "").await.body;
    assert_eq!(discovery["jwks_uri"], "http://my-host:8081/data-connector/jwks.json");
    let project = emulator.call("GET", "/v2/projects/p", &Value::Null).expect("a project");
    assert_eq!(project["organization"], "organizations/my-org");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_signatures_pass_a_receiver_that_demands_both() {
    let folder = tempfile::tempdir().expect("a folder");
    let emulator = Emulator::builder().organization("my-org").start().await.expect("it starts");
    let key_set = folder.path().join("jwks.json");
    std::fs::write(&key_set, emulator.jwks()).expect("written");
    let place = folder.path().display();
    let config = format!(
        "data = '{place}/data'\n[[connector]]\nname = 'c'\npolicy = 'both'\nsecrets = [{{ env = '{SECRET_VARIABLE}' }}]\n\
         [connector.asymmetric]\nkey_set = '{}'\norganization = 'my-org'\nissuer = '{}'\n\
         [[sink]]\nname = 'f'\ntype = 'file'\npath = '{place}/events'\n",
        key_set.display(),
        emulator.issuer()
    );
    let file = folder.path().join("config.toml");
    std::fs::write(&file, config).expect("written");
    let receiver = Receiver::start(["--config".as_ref(), file.as_os_str()], &[]);
    let connector = crate::target::connect(
        &emulator,
        &receiver.url("/"),
        &json!({"httpConfig": {"url": receiver.url("/"), "signatureSecret": SECRET}}),
    );
    let device = crate::target::device(&emulator, "touch", &json!({}));
    crate::target::publish(&emulator, &device, &json!({"touch": {}}));
    until(|| (emulator.queued() == 0).then_some(())).await;
    // Without the secret's header it is not enough; and a key that the receiver does not know is not either.
    let change = |secret: &str| {
        emulator
            .call("PATCH", &connector, &json!({"httpConfig": {"signatureSecret": secret}}))
            .expect("changed");
    };
    change("");
    crate::target::publish(&emulator, &device, &json!({"touch": {}}));
    until(|| emulator.ledger().last().filter(|entry| entry.attempts > 0).map(|_| ())).await;
    assert_eq!(&*emulator.ledger()[1].last, "status_401");
    change(SECRET);
    emulator.rotate_key().expect("a key");
    crate::target::publish(&emulator, &device, &json!({"touch": {}}));
    until(|| emulator.ledger().last().filter(|entry| entry.attempts > 0).map(|_| ())).await;
    assert_eq!(&*emulator.ledger()[2].last, "status_401");
    tokio::task::spawn_blocking(|| receiver.stop()).await.expect("stopped");
    let events = std::fs::read_to_string(folder.path().join("events")).expect("a file");
    let lines: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["event"]["eventId"], *emulator.ledger()[0].event_id);
}
