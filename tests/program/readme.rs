//! Runs what the README and the pages of `docs/` show: shell commands against the built program, queries against its
//! database, configurations through the checks. Their Rust code is a doc test of the crate (`src/lib.rs`).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use crate::common::Receiver;
use dt_receiver::config::{Config, Sources};

const README: &str = include_str!("../../README.md");
const FIRST_STEPS: &str = include_str!("../../docs/getting-started.md");
const RECOVERY: &str = include_str!("../../docs/spool-and-recovery.md");

/// Returns the code blocks of a language, in order.
fn blocks_of(page: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    page.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap_or_default().to_owned()).collect()
}

/// Returns the only block of a language that contains `words`.
fn block_with(page: &str, language: &str, words: &str) -> String {
    let mut found = blocks_of(page, language);
    found.retain(|block| block.contains(words));
    assert_eq!(found.len(), 1, "blocks of {language} with {words:?}: {found:?}");
    found.remove(0)
}

/// Runs a block unchanged, except for the ports, with the built program as `dt-receiver` and as `cargo run`.
fn run(block: &str, receiver: Option<&Receiver>, folder: &Path) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_dt-receiver"));
    let mut script = block.replace("cargo run --release --", "dt-receiver");
    assert!(!script.contains("cargo"), "{script}");
    if let Some(receiver) = receiver {
        let address = receiver.listen.to_string();
        script = script.replace("127.0.0.1:8080", &address);
        script = script.replace(" send ", &format!(" send --url http://{address}/ "));
    }
    let folders = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{folders}", program.parent().expect("a folder").display());
    let mut command = Command::new("bash");
    command.args(["-e", "-c", &script]).env("PATH", path).env_remove("RUST_LOG").current_dir(folder);
    command.output().expect("bash runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Starts the receiver of `docs/getting-started.md` on free ports.
fn first_receiver(folder: &Path) -> Receiver {
    let command = block_with(FIRST_STEPS, "sh", "dt-receiver serve");
    assert_eq!(command.trim(), "DT_SIGNATURE_SECRET=some-good-secret dt-receiver serve");
    Receiver::start(["--data", folder.join("data").to_str().expect("text")], &[])
}

#[test]
fn the_readme_fits_two_screens() {
    assert!(README.lines().count() <= 90, "{}", README.lines().count());
}

#[test]
fn the_first_command_shows_events() {
    let first = blocks_of(README, "sh").into_iter().next().expect("a block");
    assert_eq!(first.trim(), "cargo run --release -- demo");
    let folder = tempfile::tempdir().expect("a folder");
    let shown = run(&first.replace("-- demo", "-- demo --events 3"), None, folder.path());
    assert!(shown.status.success(), "{}", text(&shown.stderr));
    assert!(text(&shown.stdout).contains("25 devices"), "{}", text(&shown.stdout));
}

#[test]
fn the_second_command_is_the_one_that_ci_runs() {
    let ci = include_str!("../../.ci/run");
    assert_eq!(block_with(README, "sh", "cargo test").trim(), "cargo test");
    assert!(ci.lines().any(|line| line.contains("cargo test")), "{ci}");
}

/// Starts the receiver of the README on free ports; returns the file that its sink writes as well.
fn receiver_with_a_file(folder: &Path) -> (Receiver, PathBuf) {
    let command = block_with(README, "sh", "dt-receiver serve");
    let sink =
        command.trim().strip_prefix("DT_SIGNATURE_SECRET=some-good-secret dt-receiver serve --sink file:");
    let events = folder.join(sink.expect("a file sink"));
    let (data, sink) = (folder.join("data"), format!("file:{}", events.display()));
    (Receiver::start(["--data", data.to_str().expect("text"), "--sink", &sink], &[]), events)
}

/// The section "Receive".
#[test]
fn the_readme_writes_sent_events_to_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let (receiver, events) = receiver_with_a_file(folder.path());
    let sent = run(&block_with(README, "sh", "dt-receiver send"), Some(&receiver), folder.path());
    assert!(sent.status.success(), "{}", text_of(&sent));
    assert!(receiver.stop().status.success());
    assert_eq!(fs::read_to_string(events).expect("the file").lines().count(), 5);
}

/// The section "Emulate": its connector delivers to the receiver of the section "Receive".
#[test]
fn the_local_cloud_of_the_readme_delivers_to_its_receiver() {
    let folder = tempfile::tempdir().expect("a folder");
    let (receiver, events) = receiver_with_a_file(folder.path());
    let block = block_with(README, "sh", "dt-receiver emulate");
    let arguments = block.replace("\\\n", " ").replace("127.0.0.1:8080", &receiver.listen.to_string());
    let arguments = arguments.strip_prefix("DT_SIGNATURE_SECRET=some-good-secret dt-receiver emulate ");
    let mut cloud = crate::common::program()
        .args(["emulate", "--listen", "127.0.0.1:0"])
        .args(arguments.expect("one command").split_whitespace())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let deadline = Instant::now() + Duration::from_secs(60);
    let is_there =
        || fs::read_to_string(&events).is_ok_and(|text| text.contains("\"verifiedBy\":\"secret:default\""));
    while !is_there() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    cloud.kill().expect("killed");
    cloud.wait().expect("ended");
    assert!(is_there(), "{:?}", receiver.stop());
}

#[test]
fn every_option_of_the_local_cloud_is_known() {
    let help = Command::new(env!("CARGO_BIN_EXE_dt-receiver"))
        .args(["emulate", "--help"])
        .output()
        .expect("it runs");
    for block in [README, FIRST_STEPS].map(|page| block_with(page, "sh", "dt-receiver emulate")) {
        for option in block.split_whitespace().filter(|word| word.starts_with("--")) {
            assert!(text(&help.stdout).contains(option), "{option}");
        }
    }
}

#[test]
fn serve_prints_each_sent_event_as_one_json_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let receiver = first_receiver(folder.path());
    let sent = run(&block_with(FIRST_STEPS, "sh", "dt-receiver send"), Some(&receiver), folder.path());
    assert!(sent.status.success(), "{}{}", text(&sent.stdout), text(&sent.stderr));
    let stopped = receiver.stop();
    assert!(stopped.status.success());
    let lines: Vec<serde_json::Value> =
        stopped.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 5);
    assert!(lines.iter().all(|line| line["verifiedBy"] == "secret:default" && line["event"].is_object()));
}

#[test]
fn curl_with_a_signed_token_works_as_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let receiver = first_receiver(folder.path());
    let block = block_with(FIRST_STEPS, "sh", "curl ");
    let first = text(&run(&block, Some(&receiver), folder.path()).stdout);
    assert!(first.starts_with("HTTP/1.1 200"), "{first}");
    let shown = r#"{"eventId":"c82gg9catj3vmh4248og","status":"accepted"}"#;
    assert!(FIRST_STEPS.contains(shown) && first.ends_with(shown), "{first}");
    let again = text(&run(&block, Some(&receiver), folder.path()).stdout);
    assert!(again.contains("duplicate"), "{again}");
    assert_eq!(receiver.stop().stdout.lines().count(), 1);
}

#[test]
fn explain_names_the_cause_as_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = run(&block_with(FIRST_STEPS, "sh", "--explain"), None, folder.path());
    assert_eq!(output.status.code(), Some(1));
    let said = text_of(&output);
    assert!(said.contains("checksum_mismatch") && said.contains("body_has_newline"), "{said}");
}

#[test]
fn the_repair_commands_and_the_queries_work_beside_a_running_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("dt-receiver-data");
    let out = format!("file:{}", folder.path().join("out.ndjson").display());
    let receiver = Receiver::start(["--data", data.to_str().expect("text"), "--sink", &out], &[]);
    let sent = run(&block_with(README, "sh", "dt-receiver send"), Some(&receiver), folder.path());
    assert!(sent.status.success(), "{}", text(&sent.stderr));
    let commands = blocks_of(RECOVERY, "console").concat();
    let commands: Vec<&str> =
        commands.lines().map(|line| line.strip_prefix("$ dt-receiver ").expect("a command")).collect();
    assert_eq!(commands.len(), 6);
    for command in commands {
        let output = Command::new(env!("CARGO_BIN_EXE_dt-receiver"))
            .args(command.split(' '))
            .current_dir(folder.path())
            .output()
            .expect("it runs");
        assert!(output.status.success(), "{command}: {}{}", text(&output.stdout), text(&output.stderr));
    }
    let database = rusqlite::Connection::open(data.join("spool").join("dead.db")).expect("opened");
    let queries = block_with(RECOVERY, "sql", "SELECT");
    let queries: Vec<&str> = queries.split(';').map(str::trim).filter(|query| !query.is_empty()).collect();
    assert_eq!(queries.len(), 2);
    for query in queries {
        let mut statement = database.prepare(query).unwrap_or_else(|error| panic!("{query}: {error}"));
        let mut rows = statement.query([]).expect("run");
        while rows.next().unwrap_or_else(|error| panic!("{query}: {error}")).is_some() {}
    }
    drop(database);
    assert!(receiver.stop().status.success());
}

/// A certificate and its key.
static PAIR: LazyLock<(String, String)> = LazyLock::new(|| {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    (pair.cert.pem(), pair.signing_key.serialize_pem())
});

/// What the variable or the file with the URL of a database contains.
const DATABASE: &str = "postgres://dt:some-good-secret@127.0.0.1/dt";

/// Every variable is set and every file is there, so that only the shape counts.
struct Everything;

impl Sources for Everything {
    fn env(&self, name: &str) -> Option<OsString> {
        let is_url = name.ends_with("_URL");
        let secret = || OsString::from(if is_url { DATABASE } else { "some-good-secret" });
        (is_url || name.starts_with("DT_")).then(secret)
    }

    fn file(&self, path: &Path) -> io::Result<Vec<u8>> {
        if path.extension().is_some_and(|extension| extension == "json") {
            let vectors: serde_json::Value = serde_json::from_str(include_str!("../vectors/verify.json"))?;
            let verifiers: BTreeMap<String, serde_json::Value> =
                serde_json::from_value(vectors["verifiers"].clone())?;
            let keys =
                verifiers.values().find(|verifier| verifier["key_set"].is_object()).expect("a key set");
            return Ok(keys["key_set"].to_string().into_bytes());
        }
        if path.extension().is_some_and(|extension| extension == "pem") {
            let is_key = path.to_string_lossy().contains("key");
            return Ok(if is_key { PAIR.1.clone() } else { PAIR.0.clone() }.into_bytes());
        }
        let is_url = path.to_string_lossy().ends_with("-url");
        Ok(if is_url { DATABASE } else { "some-good-secret\n" }.as_bytes().to_vec())
    }
}

#[test]
fn every_sample_configuration_passes_the_checks() {
    let pages = pages();
    let samples = pages.iter().flat_map(|(_, page)| blocks_of(page, "toml"));
    let samples: Vec<String> = samples.filter(|block| block.contains("[[connector]]")).collect();
    assert!(samples.len() >= 5, "{}", samples.len());
    let has_tls = cfg!(any(feature = "kafka-tls", feature = "kafka-tls-vendored"));
    for sample in samples {
        let types = dt_receiver::sink_types();
        let config = Config::from_toml(&sample, &Everything, &types).and_then(Config::complete);
        // What a build lacks is named.
        let mut named =
            sample.lines().filter_map(|line| line.trim_start().strip_prefix("type = \"")?.split('"').next());
        let lacks_type = named.any(|name| types.find(name).is_err());
        let is_of_kafka = sample.contains("type = \"kafka\"");
        if lacks_type || (is_of_kafka && !has_tls && sample.contains("[sink.tls]")) {
            let error = config.expect_err("not built").to_string();
            assert!(error.contains("build with the feature"), "{error}\n{sample}");
            continue;
        }
        let config = config.unwrap_or_else(|error| panic!("{error}\n{sample}"));
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    }
}

/// Returns the pages for users, operators and contributors, with their paths.
fn pages() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| fs::read_to_string(root.join(name)).expect("text");
    let mut pages: Vec<(String, String)> =
        ["README.md", "CHANGELOG.md", "SECURITY.md"].map(|name| (name.to_owned(), read(name))).to_vec();
    for entry in fs::read_dir(root.join("docs")).expect("the docs") {
        let name = format!("docs/{}", entry.expect("an entry").file_name().to_string_lossy());
        // Beside the pages are the charts of one.
        if !name.ends_with(".md") {
            continue;
        }
        let page = read(&name);
        pages.push((name, page));
    }
    pages
}

#[test]
fn every_command_of_the_pages_is_known() {
    let mut known = 0;
    for (name, page) in pages() {
        let lines = blocks_of(&page, "console").join("\n");
        let shown = lines.lines().filter_map(|line| line.strip_prefix("$ "));
        // Odd parts of a page without its blocks, cut at each back quote, are code.
        let text: String = page.split("```").step_by(2).collect();
        let inline: Vec<&str> = text.split('`').skip(1).step_by(2).collect();
        for command in shown.chain(inline) {
            let command = command.split(['|', '>']).next().unwrap_or_default();
            let Some(arguments) = command.trim().strip_prefix("dt-receiver ") else { continue };
            // The words before `--help` have to be right, or they are complained of first.
            let output = Command::new(env!("CARGO_BIN_EXE_dt-receiver"))
                .args(arguments.split(' '))
                .arg("--help")
                .output()
                .expect("it runs");
            assert!(output.status.success(), "{name}: {command}\n{}", text_of(&output));
            known += 1;
        }
    }
    assert!(known >= 30, "{known}");
}

fn text_of(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn every_link_of_the_pages_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let anchors = |page: &str| -> Vec<String> {
        let headings = page.lines().filter(|line| line.starts_with('#'));
        let anchor = |line: &str| {
            let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
            let text: String = line.trim_start_matches('#').trim().chars().filter(kept).collect();
            text.to_lowercase().replace(' ', "-")
        };
        headings.map(anchor).collect()
    };
    let mut followed = 0;
    for (name, page) in pages() {
        let folder = root.join(&name).parent().expect("a folder").to_owned();
        for link in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http:") || link.starts_with("https:") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { root.join(&name) } else { folder.join(file) };
            assert!(target.exists(), "{name}: {link}");
            if !anchor.is_empty() {
                let there = anchors(&fs::read_to_string(&target).expect("text"));
                assert!(there.iter().any(|known| known == anchor), "{name}: {link}: {there:?}");
            }
            followed += 1;
        }
    }
    assert!(followed >= 20, "{followed}");
}

#[test]
fn the_index_lists_every_page_once() {
    let index = include_str!("../../docs/README.md");
    for (name, _) in pages() {
        let Some(page) = name.strip_prefix("docs/").filter(|page| *page != "README.md") else { continue };
        assert_eq!(index.matches(&format!("- [{page}]({page}): ")).count(), 1, "{page}");
    }
}

/// A path is code (in back quotes) that starts with a folder of the source.
#[test]
fn every_path_that_the_pages_name_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders =
        [".ci", ".github", "benches", "crates", "deploy", "docs", "examples", "fuzz", "src", "tests"];
    let mut named = 0;
    for (name, page) in pages() {
        let prose: String = page.split("```").step_by(2).collect();
        for code in prose.split('`').skip(1).step_by(2) {
            let path = code.split([' ', '#']).next().unwrap_or_default();
            if path.split_once('/').is_some_and(|(folder, _)| folders.contains(&folder)) {
                assert!(root.join(path).exists(), "{name}: {path}");
                named += 1;
            }
        }
    }
    assert!(named >= 20, "{named}");
}

#[test]
fn every_code_has_its_paragraph() {
    let page = include_str!("../../docs/troubleshooting.md");
    let headings: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`')).collect();
    // The exit codes, and the one code of a dead letter that depends on the configuration.
    let mut codes = vec!["0", "1", "2", "70", "project_missing"];
    for source in [
        include_str!("../../crates/dt-server/src/http/reply.rs"),
        include_str!("../../crates/dt-verify/src/rejection.rs"),
        include_str!("../../crates/dt-sink/src/record/mod.rs"),
        include_str!("../../crates/dt-verify/src/event/not_a_delivery.rs"),
    ] {
        let function = source.split("fn code(").nth(1).or_else(|| source.split("fn reason(").nth(1));
        let function = function.expect("the function");
        let function = function.split("\n    }\n").next().expect("its end");
        let before = codes.len();
        codes.extend(function.lines().filter_map(|line| line.split("=> \"").nth(1)?.split('"').next()));
        assert!(codes.len() > before + 4, "{codes:?}");
    }
    for code in &codes {
        assert!(headings.contains(code), "docs/troubleshooting.md has no heading for `{code}`");
    }
    for heading in &headings {
        assert!(
            codes.contains(heading),
            "docs/troubleshooting.md explains `{heading}`, which does not exist"
        );
    }
    // A heading of its own each, with words below it.
    assert!(page.split("### `").skip(1).all(|part| part.lines().nth(1).is_some_and(|line| line.len() > 3)));
}

/// Returns the subcommands that the help of a command lists.
fn subcommands(of: &[&str]) -> Vec<String> {
    let help =
        Command::new(env!("CARGO_BIN_EXE_dt-receiver")).args(of).arg("--help").output().expect("a help");
    let help = text(&help.stdout);
    let listed =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_page_of_commands_lists_each_of_them_once() {
    let page = include_str!("../../docs/commands.md");
    let cells: String = page.lines().filter_map(|line| line.split('|').nth(1)).collect();
    let mut listed: Vec<&str> = cells.split('`').skip(1).step_by(2).collect();
    let mut known = Vec::new();
    for command in subcommands(&[]) {
        let below = subcommands(&[&command]);
        let is_single = below.is_empty();
        known.extend(below.into_iter().map(|name| format!("{command} {name}")));
        known.extend(Some(command).filter(|_| is_single));
    }
    listed.sort_unstable();
    known.sort_unstable();
    assert!(known.len() >= 30, "{known:?}");
    assert_eq!(listed, known);
}
