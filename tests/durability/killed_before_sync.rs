//! Killed after a group was written and before it was synced: the restart finds the event though nobody knows whether
//! it is durable. The sender's retry is a duplicate, and may be answered only once what was recovered has been written to a
//! new segment and synced there, which is done before the program listens.

use std::process::Stdio;

use crate::events::{has_tool, id, setting};
use crate::sender::Sender;
use crate::server::{Place, Server, Sinks};
use crate::trace::{Call, calls};

/// Kills the server at its `when`-th sync of the first segment; returns the event that was in flight, and whether it was written.
fn kill_at_sync(place: &Place, when: u64) -> (u64, bool) {
    let inject = format!("inject=fsync,fdatasync:signal=KILL:when={when}");
    let segment = place.segment(1).to_str().expect("text").to_owned();
    let command = place.serve_under_strace(&["-s", "70000", "-P", &segment, "-e", &inject]);
    let mut in_flight = 0;
    match Server::start(command, Stdio::from(full_device())) {
        Err(ended) => assert_eq!(ended.status.code(), None, "killed before it listened: {ended:?}"),
        Ok(server) => {
            let mut sender = Sender::connect(server.listen).expect("connected");
            while let Some(answer) = sender.send(1, in_flight) {
                assert_eq!(answer.status, 200);
                in_flight += 1;
                assert!(in_flight < 1_000, "it was never killed");
            }
            server.wait();
        }
    }
    let trace = std::fs::read_to_string(&place.trace).expect("a trace");
    assert!(trace.contains("+++ killed by SIGKILL +++"), "when={when}");
    let calls = calls(&trace);
    let last = calls.iter().rfind(|call| call.is_sync_of("segment-0000000001.log>")).expect("a sync");
    assert_eq!(last.returned, None, "the last sync must not have returned");
    let id = id(1, in_flight);
    let written = |call: &&Call| call.is_write() && call.arguments.contains(&id) && call.returned.is_some();
    (in_flight, calls.iter().any(|call| written(&call)))
}

/// Standard output that never takes anything, so that no cursor moves.
fn full_device() -> std::fs::File {
    std::fs::File::options().write(true).open("/dev/full").expect("there")
}

/// Restarts under strace and retries; returns what the retry was answered.
fn retry(place: &Place, number: u64, was_written: bool) -> String {
    let traced = "trace=fsync,fdatasync,write,writev,pwrite64,rename,sendto,sendmsg,accept,accept4,listen";
    let command = place.serve_under_strace(&["-s", "70000", "-e", traced]);
    let server = Server::start(command, Stdio::from(full_device())).expect("it recovers");
    let answer = Sender::connect(server.listen).and_then(|mut sender| sender.send(1, number));
    let answer = answer.expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    server.kill();
    server.wait();
    let calls = calls(&std::fs::read_to_string(&place.trace).expect("a trace"));
    let listening = calls.iter().find(|call| matches!(&*call.name, "listen" | "accept" | "accept4"));
    let listening = listening.expect("it listened").began;
    if was_written {
        // What was recovered is written to what becomes the next segment, and synced there, before that has its name and
        // anybody can ask.
        let id = id(1, number);
        let rewritten = calls
            .iter()
            .rfind(|call| {
                call.is_write()
                    && call.arguments.contains(".tmp>")
                    && call.arguments.contains(&id)
                    && call.began < listening
            })
            .unwrap_or_else(|| panic!("{id} was not written again before line {listening}"));
        let named = calls
            .iter()
            .find(|call| call.name == "rename" && call.arguments.contains("segment-0000000002.log"))
            .expect("the segment gets its name");
        let synced = calls.iter().any(|call| {
            call.is_sync_of(".tmp>")
                && call.began > rewritten.began
                && call.succeeded().is_some_and(|line| line < named.began)
        });
        assert!(
            synced && named.succeeded().is_some_and(|line| line < listening),
            "{id}: written again in line {}, not synced before it got its name in {} and listened in {listening}",
            rewritten.began,
            named.began
        );
    }
    let reply: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    reply["status"].as_str().expect("a status").to_owned()
}

#[test]
fn a_retry_after_a_kill_before_the_sync_is_answered_only_once_that_is_synced() {
    if !has_tool("strace", "the kill between a write and its sync") {
        return;
    }
    let kills = setting("DT_RECEIVER_TEST_KILLS_BEFORE_SYNC", 8);
    let mut duplicates = 0;
    for when in 1..=kills {
        let folder = tempfile::tempdir().expect("a folder");
        let place = Place::new(folder.path(), Sinks::Down, "");
        let (number, was_written) = kill_at_sync(&place, when);
        let status = retry(&place, number, was_written);
        assert_eq!(status, if was_written { "duplicate" } else { "accepted" }, "when={when}, event {number}");
        duplicates += u64::from(was_written);
    }
    println!(
        "{kills} kills at a sync of a segment, {duplicates} of them with an event written and not synced"
    );
    assert!(duplicates >= kills / 2, "only {duplicates} of {kills} kills met an event");
}
