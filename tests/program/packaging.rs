//! What `deploy/` holds fits the program: units, image, compose file, alerts and dashboard. The Debian package has its own
//! test, `deploy/debian/test`. Needs systemd-analyze, promtool and Python with PyYAML; what is not there is left out, and
//! said, unless `DT_RECEIVER_TEST_REQUIRE_TOOLS` is set.

mod metric_table;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::authority;
use crate::common::{Receiver, run};

/// Metrics of the dashboard that show only once something has happened that this test does not bring about.
const LATER: [&str; 6] = [
    "dt_receiver_other_scheme_failed_total",
    "dt_receiver_kafka_producers_renewed_total",
    // Of a receiver with `[monitor]`.
    "dt_receiver_cloud_connector_status",
    "dt_receiver_cloud_connector_disable_seconds",
    "dt_receiver_cloud_up",
    // Of a receiver with `[[source]]`.
    "dt_receiver_stream_up",
];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A tool that is there; otherwise says what is left out.
fn tool(program: &str, probe: &[&str], what: &str) -> bool {
    if Command::new(program).args(probe).output().is_ok_and(|output| output.status.success()) {
        return true;
    }
    assert!(std::env::var_os("DT_RECEIVER_TEST_REQUIRE_TOOLS").is_none(), "{program} does not run: {what}");
    // Not a print macro: this line is to be seen although the test passes.
    let _said = writeln!(std::io::stderr(), "tests/program/packaging.rs leaves out {what}: needs {program}");
    false
}

fn succeeds(command: &mut Command) -> String {
    let output = command.output().expect("it runs");
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{said}");
    said
}

fn promtool() -> String {
    std::env::var("DT_RECEIVER_TEST_PROMTOOL").unwrap_or_else(|_| "promtool".to_owned())
}

/// A YAML file of ours as JSON; none without Python.
fn yaml(name: &str) -> Option<serde_json::Value> {
    let python = std::env::var("DT_RECEIVER_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    if !tool(&python, &["-c", "import yaml"], name) {
        return None;
    }
    let script = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    let json = succeeds(Command::new(python).args(["-c", script]).arg(path(name)));
    Some(serde_json::from_str(&json).expect("JSON"))
}

#[test]
fn the_units_are_sound_and_the_service_has_next_to_no_rights() {
    if !tool("systemd-analyze", &["--version"], "the units") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let program = env!("CARGO_BIN_EXE_dt-receiver");
    let mut files = Vec::new();
    for name in ["dt-receiver.service", "dt-receiver.socket"] {
        let unit = text(&format!("deploy/systemd/{name}")).replace("/usr/bin/dt-receiver", program);
        let file = folder.path().join(name);
        fs::write(&file, unit).expect("written");
        files.push(file);
    }
    let said = succeeds(Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&files));
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("dt-receiver")).collect();
    assert_eq!(ours, [] as [&str; 0]);
    // The threshold is in tenths.
    let judge = ["security", "--offline=true", "--threshold=20", "--no-pager"];
    succeeds(Command::new("systemd-analyze").args(judge).arg(&files[0]));
}

#[test]
fn the_service_may_take_the_memory_that_its_limits_allow_and_leaves_no_core() {
    let unit = text("deploy/systemd/dt-receiver.service");
    let limits = dt_receiver::config::Limits::default();
    // What TLS adds, as docs/limits.md has it.
    let bound =
        limits.max_memory() + (u64::try_from(limits.max_connections).expect("fits") + 128) * (40 << 10);
    assert!(unit.contains(&format!("is {} MiB", bound >> 20)), "{} MiB", bound >> 20);
    assert!(unit.contains("\nMemoryMax=2G\n") && (bound..bound * 2).contains(&(2 << 30)), "{bound}");
    assert!(unit.contains("\nLimitCORE=0\n") && unit.contains("\n#LoadCredential="));
}

#[test]
fn what_the_image_copies_is_there_and_is_let_through() {
    let dockerfile = text("deploy/Dockerfile");
    let let_through = text(".dockerignore");
    let mut copied = 0;
    for line in dockerfile.lines().filter_map(|line| line.strip_prefix("COPY ")) {
        if line.starts_with("--from") {
            continue;
        }
        let words: Vec<&str> = line.split(' ').collect();
        for source in &words[..words.len() - 1] {
            assert!(path(source).exists(), "{source}");
            let pattern = if source.starts_with("LICENSE") { "LICENSE-*" } else { source };
            assert!(let_through.lines().any(|line| line == format!("!{pattern}")), "{source}");
            copied += 1;
        }
    }
    assert!(copied >= 6, "{copied}");
    assert!(dockerfile.contains("\nUSER nonroot"));
    // The command of the image, and its health check, are ones that the program knows.
    for start in ["HEALTHCHECK ", "CMD "] {
        let line = dockerfile.lines().find(|line| line.starts_with(start)).expect("a line");
        let list: Vec<String> =
            serde_json::from_str(&line[line.find('[').expect("a list")..]).expect("a list of words");
        let words = list.iter().filter(|word| !word.contains("bin/")).map(String::as_str);
        assert_eq!(run(words.chain(["--help"]), b"").code(), 0, "{line}");
    }
}

#[test]
fn what_compose_mounts_is_there() {
    let Some(compose) = yaml("deploy/compose.yaml") else { return };
    let services = compose["services"].as_object().expect("services");
    let mut mounted = 0;
    for (name, service) in services {
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let source = volume.as_str().expect("short form").split(':').next().expect("a source");
            if source.starts_with('.') {
                assert!(path("deploy").join(source).exists(), "{name}: {source}");
                mounted += 1;
            } else {
                assert!(compose["volumes"].as_object().expect("volumes").contains_key(source), "{source}");
            }
        }
        for other in service["depends_on"].as_array().into_iter().flatten() {
            assert!(services.contains_key(other.as_str().expect("a name")), "{name}: {other}");
        }
    }
    assert!(mounted >= 4, "{mounted}");
    let build = &services["receiver"]["build"];
    assert!(
        path("deploy")
            .join(build["context"].as_str().expect("a context"))
            .join(build["dockerfile"].as_str().expect("a file"))
            .exists()
    );
    let scraped = yaml("deploy/prometheus/prometheus.yml").expect("as the other");
    assert_eq!(scraped["scrape_configs"][0]["static_configs"][0]["targets"][0], "receiver:9464");
    let source = yaml("deploy/grafana/provisioning/datasources/prometheus.yaml").expect("as the other");
    assert_eq!(source["datasources"][0]["url"], "http://prometheus:9090");
    let boards = yaml("deploy/grafana/provisioning/dashboards/dt-receiver.yaml").expect("as the other");
    let shown = boards["providers"][0]["options"]["path"].as_str().expect("a folder");
    let grafana = services["grafana"]["volumes"].as_array().expect("volumes");
    assert!(grafana.iter().any(|volume| volume.as_str().is_some_and(|volume| volume.contains(shown))));
}

#[test]
fn promtool_takes_the_alerts_and_their_cases() {
    if !tool(&promtool(), &["--version"], "the alerts") {
        return;
    }
    let folder = path("deploy/prometheus");
    succeeds(Command::new(promtool()).args(["check", "config", "prometheus.yml"]).current_dir(&folder));
    succeeds(Command::new(promtool()).args(["test", "rules", "alerts_test.yml"]).current_dir(&folder));
}

/// Returns where the Debian package installs each file, by the assets in `Cargo.toml` that the source contains.
fn installed() -> BTreeMap<PathBuf, PathBuf> {
    let manifest = text("Cargo.toml");
    let assets =
        manifest.split("\nassets = [").nth(1).and_then(|rest| rest.split("\n]").next()).expect("assets");
    let mut installed = BTreeMap::new();
    for line in assets.lines().map(str::trim).filter(|line| line.starts_with('[')) {
        let [from, to, _]: [String; 3] = serde_json::from_str(line.trim_end_matches(',')).expect("an asset");
        let (folder, pattern) = from.rsplit_once('/').unwrap_or(("", &from));
        let names = match pattern.strip_prefix('*') {
            None => vec![pattern.to_owned()],
            Some(end) => {
                let names = fs::read_dir(path(folder)).into_iter().flatten();
                let names =
                    names.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
                names.filter(|name| name.ends_with(end)).collect()
            }
        };
        for name in names {
            let target = if to.ends_with('/') { Path::new(&to).join(&name) } else { PathBuf::from(&to) };
            installed.insert(target, Path::new(folder).join(name));
        }
    }
    installed
}

/// Returns `path` without `..`.
fn without_dots(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        if part == std::path::Component::ParentDir {
            plain.pop();
        } else {
            plain.push(part);
        }
    }
    plain
}

#[test]
fn every_link_of_the_installed_pages_works() {
    // Links of generated pages to files that Debian wants below `examples`.
    const ELSEWHERE: [&str; 2] = ["deploy/dt-receiver.toml", "deploy/grafana/dashboard.json"];
    let installed = installed();
    let mut followed = 0;
    for (page, source) in
        installed.iter().filter(|(page, _)| page.extension().is_some_and(|kind| kind == "md"))
    {
        let content = fs::read_to_string(path(source.to_str().expect("text"))).expect("a page");
        for link in content.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            if link.is_empty() || link.starts_with("http:") || link.starts_with("https:") {
                continue;
            }
            let target = without_dots(&page.parent().expect("a folder").join(link));
            assert!(
                installed.contains_key(&target) || ELSEWHERE.iter().any(|file| target.ends_with(file)),
                "{}: {link} is not in the package",
                source.display()
            );
            followed += 1;
        }
    }
    assert!(followed >= 40, "{followed}");
}

#[test]
fn each_alert_has_a_case_and_says_what_to_do() {
    let (rules, cases, page) = (
        text("deploy/prometheus/alerts.yml"),
        text("deploy/prometheus/alerts_test.yml"),
        text("docs/alerts.md"),
    );
    let names: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() >= 12, "{names:?}");
    for name in &names {
        assert!(cases.contains(&format!("alertname: {name}\n")), "no case that fires: {name}");
        assert!(page.contains(&format!("\n## {name}\n")), "docs/alerts.md: {name}");
        let rule = rules.split(&format!("- alert: {name}\n")).nth(1).expect("the rule");
        let rule = rule.split("- alert: ").next().expect("the rule");
        for key in ["severity: ", "summary: ", "description: "] {
            assert!(rule.contains(key), "{name}: {key}");
        }
        assert!(
            rule.contains(&format!("runbook: docs/alerts.md#{}\n", name.to_lowercase())),
            "{name}: runbook"
        );
    }
    let told = page.lines().filter(|line| line.starts_with("## ")).count();
    assert_eq!(told, names.len(), "docs/alerts.md has alerts that there are not");
}

/// All names of metrics in a text.
fn metrics_in(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("dt_receiver_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}

fn scrape(admin: SocketAddr) -> String {
    use std::io::Read;
    let mut stream = std::net::TcpStream::connect(admin).expect("connects");
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    answer
}

#[test]
fn each_metric_of_alerts_and_dashboard_is_in_a_scrape() {
    let dashboard = text("deploy/grafana/dashboard.json");
    let json: serde_json::Value = serde_json::from_str(&dashboard).expect("JSON");
    let rows =
        json["panels"].as_array().expect("panels").iter().filter(|panel| panel["type"] == "row").count();
    assert_eq!(rows, 8);
    // Comments name the rule's group.
    let rules = text("deploy/prometheus/alerts.yml");
    let rules: Vec<&str> = rules.lines().filter(|line| !line.trim().starts_with('#')).collect();
    let mut used = metrics_in(&dashboard);
    used.extend(metrics_in(&rules.join("\n")));
    for absent in LATER {
        assert!(used.remove(absent), "{absent} is not used any more");
    }
    assert!(used.len() >= 25, "{used:?}");

    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let file = format!("file:{}", folder.path().join("out.ndjson").display());
    let mut arguments = vec!["--data", data.to_str().expect("text"), "--sink", &file];
    if cfg!(feature = "kafka") {
        // Nobody is there, which is enough for its metrics.
        arguments.extend(["--sink", "kafka:127.0.0.1:9/dt.events"]);
    } else {
        used.retain(|name| !name.contains("_kafka_"));
    }
    let receiver = Receiver::start(arguments, &[]);
    for fault in ["none", "unsigned"] {
        let url = receiver.url("/");
        assert_eq!(run(["send", "--url", &url, "--count", "2", "--fault", fault], b"").code(), 0);
    }
    // One with a certificate and an issuer of keys has figures of its own; that nobody is there is enough.
    let pair = authority::Authority::new().good(1);
    let (certificate, key) = (folder.path().join("certificate.pem"), folder.path().join("key.pem"));
    fs::write(&certificate, pair.certificate).expect("written");
    fs::write(&key, pair.key).expect("written");
    let config = folder.path().join("tls.toml");
    let text = format!(
        "data = '{0}/data-tls'\n[tls]\ncertificate = '{0}/certificate.pem'\nkey = '{0}/key.pem'\n\
         [[connector]]\nname = 'c'\npolicy = 'asymmetric'\n[connector.asymmetric]\norganization = 'o'\n\
         issuer = 'http://127.0.0.1:9/data-connector'\n[[sink]]\nname = 'f'\ntype = 'file'\npath = '{0}/f'\n",
        folder.path().display()
    );
    fs::write(&config, text).expect("written");
    let over_tls = Receiver::start(["--config", config.to_str().expect("text")], &[]);
    let of_tls = metrics_in(&scrape(over_tls.admin));
    used.retain(|name| !of_tls.contains(name));
    over_tls.stop();
    // The figures of a producer come once in a while.
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        let there = metrics_in(&scrape(receiver.admin));
        let absent: Vec<&String> = used.difference(&there).collect();
        if absent.is_empty() {
            break;
        }
        assert!(Instant::now() < patience, "used, but not in a scrape: {absent:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(receiver.stop().status.success());
}

#[test]
fn health_tells_a_ready_receiver_from_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let receiver = Receiver::start(["--data", folder.path().to_str().expect("text")], &[]);
    let admin = receiver.admin.to_string();
    for more in [&["--json"][..], &["--json", "--live"]] {
        let asked = run(["health", "--admin", &admin].iter().chain(more), b"");
        assert_eq!(asked.code(), 0, "{asked:?}");
        assert_eq!((&asked.json()["ok"], &asked.json()["status"]), (&true.into(), &200.into()));
    }
    // Somebody answers, but has no such page: what is not ready is not.
    let public = receiver.listen.to_string();
    let asked = run(["health", "--admin", &public, "--json"], b"");
    assert_eq!((asked.code(), &asked.json()["status"]), (1, &404.into()));
    receiver.stop();
    let asked = run(["health", "--admin", &admin], b"");
    assert_eq!(asked.code(), 1);
    assert!(asked.stderr.contains("refused"), "{asked:?}");
}

#[test]
fn there_is_a_manual_page_for_every_subcommand() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().to_str().expect("text");
    assert_eq!(run(["man", "--out", out], b"").code(), 0);
    for page in ["dt-receiver.1", "dt-receiver-serve.1", "dt-receiver-spool-status.1", "dt-receiver-health.1"]
    {
        let page = fs::read_to_string(folder.path().join(page)).expect(page);
        assert!(page.contains(".TH dt-receiver"), "{page}");
    }
    assert_eq!(run(["man", "--out", "/nowhere/at/all"], b"").code(), 2);
}
