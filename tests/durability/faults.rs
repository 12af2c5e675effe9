//! Faults of the disk, injected by `strace` into the calls on the spool's files: whatever fails, an event that got a
//! 200 is there after a kill and a restart; and without a restart, events are accepted again by themselves.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::events::{has_tool, setting};
use crate::sender::{Sender, readiness};
use crate::server::{Place, Server, Sinks};

/// How many events are sent into a fault: more than 50 groups, since each event waits for the one before.
const EVENTS: u64 = 64;
/// How long events may be refused after one fault: a new segment is tried every second.
const RECOVERS_WITHIN: Duration = Duration::from_secs(30);

/// From when on calls are counted until one fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    /// The start on an empty folder: many calls before the spool is open.
    FirstStart,
    /// The start on a spool that is there: a few.
    Start,
    /// When it serves: the fault strikes while events come.
    Serving,
}

/// What became of the runs.
#[derive(Debug, Default)]
struct Tally {
    refused_to_start: u64,
    served: u64,
    /// Runs in which an event was answered 503.
    refused_events: u64,
    acknowledged: u64,
}

/// So many calls in a row fail while it serves: what is tried again at once fails as well, so that events are refused.
const IN_A_ROW: u64 = 4;

/// Runs the server with the fault at the `when`-th call of each thread, restarts it, and compares.
fn run(fault: &str, when: u64, from: From, tally: &mut Tally) {
    let when =
        if from == From::Serving { format!("{when}..{}", when + IN_A_ROW - 1) } else { when.to_string() };
    let name = format!("{fault}:when={when} from {from:?}");
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place::new(folder.path(), Sinks::File, "");
    if from == From::Start {
        Server::bare(&place).stop();
    }
    let inject = format!("inject={fault}:when={when}");
    let mut arguments = vec!["-e", &*inject];
    let files = place.spool_paths();
    for file in &files {
        arguments.extend(["-P", file.to_str().expect("text")]);
    }
    let mut acknowledged = Vec::new();
    let started = if from == From::Serving {
        Ok(Server::bare(&place))
    } else {
        Server::start(place.serve_under_strace(&arguments), Stdio::null())
    };
    match started {
        Err(ended) => {
            assert_eq!(ended.status.code(), Some(2), "{name}: {ended:?}");
            assert!(ended.stderr.contains("spool"), "{name}: it says why: {ended:?}");
            println!("{name}: {}", ended.stderr.lines().last().unwrap_or_default());
            tally.refused_to_start += 1;
        }
        Ok(server) => {
            let tracer = (from == From::Serving).then(|| place.attach_strace(server.pid(), &arguments));
            tally.served += 1;
            acknowledged = send_into_the_fault(&server, &name, tally);
            server.kill();
            server.wait();
            if let Some(mut tracer) = tracer {
                tracer.wait().expect("it ends with what it traces");
            }
        }
    }
    let trace = std::fs::read_to_string(&place.trace).expect("a trace");
    assert!(
        trace.contains("(INJECTED)"),
        "{name}: nothing was injected; {} answered 200",
        acknowledged.len()
    );
    // The restart recovers, takes the next event, and delivers everything.
    let server = Server::bare(&place);
    let answer = Sender::connect(server.listen).and_then(|mut sender| sender.send(2, 0)).expect("an answer");
    assert_eq!(answer.status, 200, "{name}: after the restart: {answer:?}");
    acknowledged.push((2, 0));
    let ended = server.stop();
    assert!(ended.status.success(), "{name}: {ended:?}");
    let delivered = place.events_in_file();
    for event in &acknowledged {
        assert_eq!(delivered.get(event), Some(&1), "{name}: {event:?} was answered 200; {ended:?}");
    }
    tally.acknowledged += acknowledged.len() as u64;
}

/// Sends events, and the last one until it is accepted. Returns what was answered 200.
fn send_into_the_fault(server: &Server, name: &str, tally: &mut Tally) -> Vec<(u64, u64)> {
    let mut acknowledged = Vec::new();
    let mut sender = Sender::connect(server.listen).expect("connected");
    let (mut refused, mut number, mut refused_since) = (0, 0, None);
    while number < EVENTS {
        let answer = sender.send(1, number).expect("an answer");
        assert!(matches!(answer.status, 200 | 503), "{name}: {answer:?}");
        if answer.status == 200 {
            acknowledged.push((1, number));
            refused_since = None;
            number += 1;
            continue;
        }
        refused += 1;
        let since = *refused_since.get_or_insert_with(Instant::now);
        let said = readiness(server.admin);
        assert!(since.elapsed() < RECOVERS_WITHIN, "{name}: it does not recover by itself: {said}");
    }
    let said = readiness(server.admin);
    assert!(!said.starts_with("not ready"), "{name}: {said}");
    tally.refused_events += u64::from(refused > 0);
    acknowledged
}

/// The moments at which a fault strikes: 1 to 50 in the long form.
fn moments() -> Vec<u64> {
    match setting("DT_RECEIVER_TEST_FAULTS", 0) {
        0 => vec![1, 3, 7, 12, 20, 33, 50],
        all => (1..=all).collect(),
    }
}

fn each_moment(fault: &str) {
    if !has_tool("strace", &format!("the fault {fault}")) {
        return;
    }
    let mut tally = Tally::default();
    let moments = moments();
    for when in &moments {
        for from in [From::FirstStart, From::Start, From::Serving] {
            run(fault, *when, from, &mut tally);
        }
    }
    println!("{fault}: {} runs: {tally:?}", 3 * moments.len());
    assert!(tally.refused_to_start > 0 && tally.refused_events > 0, "both have to be seen: {tally:?}");
}

#[test]
fn a_failing_sync_never_loses_what_was_acknowledged() {
    each_moment("fsync,fdatasync:error=EIO");
}

#[test]
fn a_full_disk_at_any_write_never_loses_what_was_acknowledged() {
    each_moment("pwrite64,write,ftruncate,fallocate:error=ENOSPC");
}

#[test]
fn a_failing_write_never_loses_what_was_acknowledged() {
    each_moment("pwrite64,write,ftruncate,fallocate:error=EIO");
}
