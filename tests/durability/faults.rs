//! Faults of the disk, injected by `strace` into the calls on the spool's files: whatever fails, an event that got a
//! 200 is there after a restart, and `/readyz` says what is wrong.

use std::process::Stdio;

use crate::events::{has_tool, setting};
use crate::sender::{Sender, readiness};
use crate::server::{Place, Server, Sinks};

/// How many events are sent into a fault: more than 50 commits in some thread, since each waits for the one before, any
/// of the runtime's threads commits, and strace counts the calls of each apart.
fn events() -> u64 {
    64 * std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64)
}

/// What became of one run.
#[derive(Debug, Default)]
struct Tally {
    refused_to_start: u64,
    poisoned: u64,
    acknowledged: u64,
}

/// Runs the server with the fault at the `when`-th call, restarts it, and compares.
fn run(fault: &str, when: u64, tally: &mut Tally) {
    let name = format!("{fault}:when={when}");
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place::new(folder.path(), Sinks::File, "");
    let inject = format!("inject={fault}:when={when}");
    let mut arguments = vec!["-e", &*inject];
    let files = place.spool_files();
    for file in &files {
        arguments.extend(["-P", file.to_str().expect("text")]);
    }
    let mut acknowledged = Vec::new();
    match Server::start(place.serve_under_strace(&arguments), Stdio::null()) {
        Err(ended) => {
            assert_eq!(ended.status.code(), Some(2), "{name}: {ended:?}");
            assert!(ended.stderr.contains("spool"), "{name}: it says why: {ended:?}");
            tally.refused_to_start += 1;
        }
        Ok(server) => {
            let mut sender = Sender::connect(server.listen).expect("connected");
            let mut last = 200;
            for number in 0..events() {
                let answer = sender.send(1, number).expect("an answer");
                assert!(matches!(answer.status, 200 | 503), "{name}: {answer:?}");
                if answer.status == 200 {
                    acknowledged.push((1, number));
                }
                last = answer.status;
            }
            if last == 503 {
                // It takes no more until it is restarted, and says so.
                let said = readiness(server.admin);
                assert!(said.starts_with("not ready: spool:") && said.contains("spool"), "{name}: {said}");
                tally.poisoned += 1;
            }
            server.kill();
            server.wait();
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
        run(fault, *when, &mut tally);
    }
    println!("{fault}: {} runs: {tally:?}", moments.len());
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
