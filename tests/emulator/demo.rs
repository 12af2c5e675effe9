//! `dt-receiver demo`, as a program: what it shows, that it cleans up, and that what it suggests works as printed.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::{self, Ended};

const PROGRAM: &str = env!("CARGO_BIN_EXE_dt-receiver");

/// What a test that runs under Cargo has in its environment, and a user's shell has not.
const OF_CARGO: [&str; 2] = ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME"];

/// A shell that starts the program as a user would, with temporary files in `folder`.
fn shell(line: &str, folder: &Path) -> Command {
    let mut command = Command::new("bash");
    command.args(["-c", line]).current_dir(folder).env("TMPDIR", folder);
    for name in OF_CARGO.into_iter().chain(["RUST_LOG", "NO_COLOR", "CLICOLOR_FORCE"]) {
        command.env_remove(name);
    }
    command
}

/// Returns the number that precedes a word.
fn number_before(line: &str, word: &str) -> usize {
    let (before, _) = line.split_once(&format!(" {word}")).expect("the word");
    before.split_whitespace().last().expect("a number").parse().expect("a number")
}

/// Returns how many events wait for the archive, from each line of an event during the outage.
fn waiting(shown: &str) -> Vec<usize> {
    let from = shown.find("  sink down  ").expect("an outage");
    let outage = shown[from..].split("  sink up  ").next().unwrap_or_default();
    let lines = events(outage).into_iter().filter(|line| line.contains("archive: "));
    lines.map(|line| number_before(line, "waiting")).collect()
}

fn run(line: &str, folder: &Path) -> Ended {
    let ended = common::run_command(shell(line, folder), b"");
    assert_eq!(ended.code(), 0, "{ended:?}");
    ended
}

/// The lines with this word in the first column.
fn tagged<'a>(shown: &'a str, tag: &str) -> Vec<&'a str> {
    let tag = format!("  {tag}  ");
    shown.lines().filter(|line| line.starts_with(&tag)).collect()
}

/// The lines of events: they begin with a time.
fn events(shown: &str) -> Vec<&str> {
    let is_time = |word: &str| word.len() == 12 && word.as_bytes()[2] == b':';
    shown.lines().filter(|line| line.split_whitespace().next().is_some_and(is_time)).collect()
}

/// The commands under the heading `next`.
fn suggested(shown: &str) -> Vec<String> {
    let (_, next) = shown.split_once("\nnext\n").unwrap_or_else(|| panic!("no next steps: {shown}"));
    let commands = next.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    commands.map(str::to_owned).collect()
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).expect("the folder").next().is_none()
}

#[test]
fn the_first_event_is_shown_soon() {
    let folder = tempfile::tempdir().expect("a folder");
    let began = Instant::now();
    let mut command = shell(&format!("exec {PROGRAM} demo --events 5"), folder.path());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    let mut shown = String::new();
    while events(&shown).is_empty() {
        assert!(stdout.read_line(&mut shown).expect("text") > 0, "no event: {shown}");
    }
    let took = began.elapsed();
    stdout.read_to_string(&mut shown).expect("text");
    let mut stderr = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut stderr).expect("text");
    assert!(child.wait().expect("it ends").success());
    assert!(events(&shown).len() >= 5, "{shown}");
    assert!(shown.contains("25 devices"), "{shown}");
    assert_eq!(stderr, "");
    println!("the demo's first event came after {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn it_shows_values_rejections_an_outage_and_a_summary() {
    let folder = tempfile::tempdir().expect("a folder");
    let shown = run(&format!("{PROGRAM} demo --events 12"), folder.path()).stdout;
    assert!(!shown.contains('\x1b'), "a pipe gets no colours: {shown}");
    assert!(events(&shown).iter().any(|line| line.ends_with(" °C")), "{shown}");

    let refused = tagged(&shown, "refused     ");
    let outcomes: Vec<_> = refused.iter().filter_map(|line| line.split("401 ").nth(1)).collect();
    assert_eq!(outcomes, ["checksum_mismatch", "signature_mismatch"], "{shown}");
    assert!(refused[0].contains("changed to 99.50 °C"), "{shown}");
    assert!(tagged(&shown, "duplicate   ")[0].ends_with("200 duplicate"), "{shown}");

    assert_eq!(tagged(&shown, "sink down   ").len(), 1, "{shown}");
    // The archive can be a few events behind when the outage starts, so the first number is not always 1.
    let waiting = waiting(&shown);
    assert!(!waiting.is_empty() && waiting[0] > 0, "{shown}");
    assert!(waiting.is_sorted_by(|a, b| a < b), "each event of the outage waits, too: {shown}");
    let caught_up = tagged(&shown, "caught up   ");
    assert!(caught_up[0].ends_with("0 lost"), "{shown}");
    let caught_up: usize = number_before(caught_up[0], "events");
    assert!(caught_up >= waiting[waiting.len() - 1], "all that waited: {shown}");

    let count = events(&shown).len();
    let delivered = format!("{count} to screen, {count} to archive");
    assert!(tagged(&shown, "delivered   ")[0].contains(&delivered), "{shown}");
    assert_eq!(number_before(tagged(&shown, "accepted    ")[0], "events,"), count, "{shown}");
    assert_eq!(tagged(&shown, "lost        ")[0].split_whitespace().last(), Some("0"), "{shown}");
    assert!(is_empty(folder.path()), "it cleans up");
}

#[test]
fn a_terminal_gets_colours_unless_it_asks_for_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let in_terminal = |set: &str| {
        let demo = format!("{set} {PROGRAM} demo --events 1");
        run(&format!("TERM=xterm script --quiet --return --command '{demo}' /dev/null"), folder.path()).stdout
    };
    let coloured = in_terminal("");
    assert!(coloured.contains("\x1b[31m"), "{coloured}");
    let plain = in_terminal("NO_COLOR=1");
    assert!(plain.contains("lost") && !plain.contains('\x1b'), "{plain}");
}

#[test]
fn kill_9_loses_nothing_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let shown = run(&format!("{PROGRAM} demo --events 1 --kill"), folder.path()).stdout;
    let killed = tagged(&shown, "kill -9     ");
    let before: usize =
        killed[0].split_whitespace().nth(2).expect("a number").replace(',', "").parse().expect("a number");
    assert!((300..3_000).contains(&before), "in the middle of the burst: {shown}");
    assert!(tagged(&shown, "counted     ")[0].ends_with("each once, 0 lost"), "{shown}");
    let processes: Vec<&str> = tagged(&shown, "serve       ")
        .iter()
        .map(|line| line.split_whitespace().nth(2).expect("a process id"))
        .collect();
    assert!(processes.len() == 2 && processes[0] != processes[1], "{shown}");
    for process in processes {
        let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
        assert_ne!(name.trim(), "dt-receiver", "it has ended");
    }
    assert!(is_empty(folder.path()), "it cleans up");
}

#[test]
fn ctrl_c_ends_it_at_once_with_a_sum() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = shell(&format!("exec {PROGRAM} demo --events 100000"), folder.path());
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    let mut shown = String::new();
    while events(&shown).is_empty() {
        assert!(stdout.read_line(&mut shown).expect("text") > 0, "no event: {shown}");
    }
    let began = Instant::now();
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(sent.expect("kill runs").success());
    stdout.read_to_string(&mut shown).expect("text");
    assert!(child.wait().expect("it ends").success());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(tagged(&shown, "lost        ")[0].split_whitespace().last(), Some("0"), "{shown}");
    assert!(is_empty(folder.path()), "it cleans up");
}

#[test]
fn a_closed_pipe_ends_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let shown = run(&format!("set -o pipefail; {PROGRAM} demo --events 100000 | head -n 1"), folder.path());
    assert_eq!((shown.stdout.lines().count(), shown.stderr.as_str()), (1, ""));
    assert!(is_empty(folder.path()), "it cleans up");
}

#[test]
fn the_next_steps_work_as_printed() {
    let folder = tempfile::tempdir().expect("a folder");
    let programs = Path::new(PROGRAM).parent().expect("a folder").display();
    let path = format!("PATH={programs}:$PATH; ");
    let shown = run(&format!("{path} dt-receiver demo --events 1"), folder.path()).stdout;
    let steps = suggested(&shown);
    let [kill, serve, send, help] = steps.as_slice() else { panic!("{steps:?}") };
    assert_eq!((kill.as_str(), help.as_str()), ("dt-receiver demo --kill", "dt-receiver --help"));
    assert!(run(&format!("{path} {help}"), folder.path()).stdout.contains("Usage: dt-receiver"));

    // As printed, but for the ports, which other tests may have.
    let serve = serve.replace(" serve", " serve --listen 127.0.0.1:0 --admin 127.0.0.1:0");
    let mut receiver =
        shell(&format!("{path} {}", serve.replace("DT_SIG", "exec env DT_SIG")), folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
    // It stays open: the receiver goes on writing its log.
    let mut log = BufReader::new(receiver.stderr.take().expect("piped")).lines();
    let listens = log.find(|line| line.as_ref().expect("text").contains(r#""message":"listening""#));
    let listens: Value = serde_json::from_str(&listens.expect("it listens").expect("text")).expect("JSON");
    let address = listens["listen"].as_str().expect("an address");
    let send = send.replace(" send ", &format!(" send --url http://{address}/ "));
    run(&format!("{path} {send}"), folder.path());
    let stopped = Command::new("kill").arg(receiver.id().to_string()).status();
    assert!(stopped.expect("kill runs").success());
    let received = receiver.wait_with_output().expect("it ends");
    assert!(received.status.success());
    assert_eq!(String::from_utf8_lossy(&received.stdout).lines().count(), 5);
}

#[test]
fn the_next_steps_name_the_program_as_it_was_started() {
    let folder = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::symlink(PROGRAM, folder.path().join("a tool")).expect("a link");
    let package = env!("CARGO_MANIFEST_DIR");
    for (line, command) in [
        ("'./a tool' demo --events 1".to_owned(), "'./a tool'".to_owned()),
        (
            format!(
                "cd {package} && CARGO_PKG_NAME=dt-receiver CARGO_MANIFEST_DIR={package} {PROGRAM} demo --events 1"
            ),
            // The tests' profile is that of `cargo run`.
            "cargo run --".to_owned(),
        ),
        (
            format!("CARGO_PKG_NAME=dt-receiver CARGO_MANIFEST_DIR={package} {PROGRAM} demo --events 1"),
            PROGRAM.to_owned(),
        ),
    ] {
        let steps = suggested(&run(&line, folder.path()).stdout);
        for step in &steps {
            let step = step.strip_prefix("DT_SIGNATURE_SECRET=some-good-secret ").unwrap_or(step);
            assert!(step.starts_with(&format!("{command} ")), "{line}: {step}");
        }
        assert_eq!(steps.len(), 4);
    }
}
