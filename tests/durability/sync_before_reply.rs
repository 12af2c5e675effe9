//! The order of things, proven under `strace`: no 200 leaves on a socket before the sync that covers its event has
//! returned.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::events::{has_tool, id, setting};
use crate::sender::Sender;
use crate::server::{Place, Server, Sinks};
use crate::trace::{Call, calls};

/// Where an event was written to a segment for the first time, which one that is, and where its 200 began.
#[derive(Debug, Default)]
struct Places {
    stored: Option<usize>,
    segment: String,
    replied: Option<usize>,
}

/// Finds both for every event, in one look at the trace.
fn places(calls: &[Call]) -> BTreeMap<&str, Places> {
    const LENGTH: usize = "ev0001n00000000z".len();
    let mut places: BTreeMap<&str, Places> = BTreeMap::new();
    for call in calls.iter().filter(|call| call.is_write()) {
        let segment = segment_in(&call.arguments);
        let is_reply = call.arguments.contains("HTTP/1.1 200");
        let starts = call.arguments.match_indices("ev0001n").map(|(at, _)| at);
        for id in starts.filter_map(|at| call.arguments.get(at..at + LENGTH)) {
            let place = places.entry(id).or_default();
            if let Some(segment) = segment
                && place.stored.is_none()
            {
                place.stored = call.returned;
                segment.clone_into(&mut place.segment);
            }
            if is_reply && place.replied.is_none() {
                place.replied = Some(call.began);
            }
        }
    }
    places
}

/// The name of the segment in the arguments of a call.
fn segment_in(arguments: &str) -> Option<&str> {
    const LENGTH: usize = "/segment-0000000001.log>".len();
    let at = arguments.find("/segment-")?;
    arguments.get(at..at + LENGTH).filter(|name| name.ends_with(".log>"))
}

/// What is wrong with the order of one event's calls; `Ok` gives how many lines lie between its sync and its answer.
fn order_of(calls: &[Call], places: &BTreeMap<&str, Places>, id: &str) -> Result<usize, String> {
    let place = places.get(id).ok_or_else(|| format!("{id}: never seen"))?;
    let replied = place.replied.ok_or_else(|| format!("{id}: no 200 was written"))?;
    let stored = place.stored.ok_or_else(|| format!("{id}: it was never written to a segment"))?;
    let syncs = calls.iter().filter(|call| call.is_sync_of(&place.segment) && call.began > stored);
    match syncs.filter_map(Call::succeeded).min() {
        Some(synced) if synced < replied => Ok(replied - synced),
        synced => Err(format!("{id}: written in line {stored}, synced in {synced:?}, answered in {replied}")),
    }
}

#[test]
fn no_200_leaves_before_the_sync_of_its_event_has_returned() {
    if !has_tool("strace", "the proof that a sync comes before each 200") {
        return;
    }
    let (events, connections) = (setting("DT_RECEIVER_TEST_TRACED_EVENTS", 1_000), 16);
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place::new(folder.path(), Sinks::File, "");
    let traced = "trace=fsync,fdatasync,write,writev,sendto,sendmsg,pwrite64,pwritev,pwritev2";
    let command = place.serve_under_strace(&["-s", "70000", "-e", traced]);
    let server = Server::start(command, Stdio::null()).expect("it starts");
    let (next, address) = (AtomicU64::new(0), server.listen);
    std::thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                let mut sender = Sender::connect(address).expect("connected");
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= events {
                        break;
                    }
                    assert_eq!(sender.send(1, number).expect("an answer").status, 200);
                }
            });
        }
    });
    let ended = server.stop();
    assert!(ended.status.success(), "{ended:?}");
    let text = std::fs::read_to_string(&place.trace).expect("a trace");
    let calls = calls(&text);
    let syncs = calls.iter().filter(|call| call.is_sync_of("/segment-")).count();
    let places = places(&calls);
    let wrong: Vec<String> =
        (0..events).filter_map(|number| order_of(&calls, &places, &id(1, number)).err()).collect();
    println!(
        "{events} events, {} calls, {syncs} syncs of segments, {} out of order",
        calls.len(),
        wrong.len()
    );
    assert!(wrong.is_empty(), "{} of {events}: {:#?}", wrong.len(), &wrong[..wrong.len().min(5)]);
}

#[test]
fn the_proof_sees_an_answer_that_comes_too_early() {
    let write = "7 write(9</s/segment-0000000001.log>, \"..ev0001n00000001z..\", 4096) = 4096\n";
    let (begun, synced) =
        ("7 fsync(9</s/segment-0000000001.log> <unfinished ...>\n", "7 <... fsync resumed>) = 0\n");
    let failed = "7 <... fsync resumed>) = -1 EIO (Input/output error)\n";
    let reply = "8 writev(12<socket:[1]>, [{iov_base=\"HTTP/1.1 200 OK..ev0001n00000001z\"}], 1) = 9\n";
    let order = |lines: &[&str]| {
        let calls = calls(&lines.concat());
        order_of(&calls, &places(&calls), "ev0001n00000001z")
    };
    assert_eq!(order(&[write, begun, synced, reply]), Ok(1));
    assert!(order(&[write, begun, reply, synced]).is_err());
    assert!(order(&[begun, write, synced, reply]).is_err());
    assert!(order(&[write, begun, failed, reply]).is_err());
    assert!(order(&[write, reply]).is_err());
    let other = "7 fsync(9</s/segment-0000000002.log>) = 0\n";
    assert!(order(&[write, other, reply]).is_err());
    assert!(order(&[begun, synced, reply]).is_err());
}
