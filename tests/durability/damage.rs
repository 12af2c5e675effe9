//! Files of the spool that went bad while it was down: a damaged record is set aside and counted, the records behind it go
//! on, and what can be repaired is.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dt_receiver::clock::ManualClock;
use dt_receiver::deliver::{Backoff, WorkerHandle};
use dt_receiver::record::{KeptHeaders, Record};
use dt_receiver::sink::{OpenError, Outcome, Sink};
use dt_receiver::spool::{Spool, SpoolOptions, StartAt};
use dt_receiver::telemetry::Telemetry;
use dt_receiver::verify::VerifiedBy;
use hyper::body::Bytes;
use rusqlite::Connection;

use crate::events::{SECRET, body, id};
use crate::sender::{Sender, readiness};
use crate::server::{Place, Server, Sinks};

const EVENTS: u64 = 200;
/// The event whose bytes are damaged.
const BAD: u64 = 100;

/// Changes the spool's file where `needle` stands.
fn damage(place: &Place, needle: &str, change: impl Fn(&mut [u8], usize)) {
    let database = &place.spool_files()[0];
    let mut bytes = fs::read(database).expect("read");
    let found: Vec<usize> =
        (0..bytes.len()).filter(|at| bytes[*at..].starts_with(needle.as_bytes())).collect();
    assert!(!found.is_empty(), "{needle} is there");
    for at in found {
        change(&mut bytes, at);
    }
    fs::write(database, &bytes).expect("written");
}

fn tool(place: &Place, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dt-receiver"));
    command.args(arguments).arg("--config").arg(&place.config).env("DT_SIGNATURE_SECRET", SECRET);
    command.output().expect("it runs")
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Serves until a new event and all that can be delivered are in the file, and `/readyz` says what it should. Gives that.
fn deliver(place: &Place, missing: &[u64], ready: &str) -> String {
    let server = Server::bare(place);
    let mut sender = Sender::connect(server.listen).expect("connected");
    assert_eq!(sender.send(2, 0).expect("an answer").status, 200, "events are accepted");
    // Events come in order, so the last one tells of the others.
    let last = id(2, 0);
    while !fs::read_to_string(&place.file).unwrap_or_default().contains(&last) {
        std::thread::yield_now();
    }
    let mut said = readiness(server.admin);
    while !said.starts_with(ready) {
        said = readiness(server.admin);
    }
    let ended = server.stop();
    assert!(ended.status.success(), "{ended:?}");
    let delivered: Vec<u64> = place
        .events_in_file()
        .into_keys()
        .filter(|(device, _)| *device == 1)
        .map(|(_, number)| number)
        .collect();
    let expected: Vec<u64> = (0..EVENTS).filter(|number| !missing.contains(number)).collect();
    assert_eq!(delivered, expected);
    said
}

#[test]
fn a_record_whose_bytes_changed_is_set_aside_and_the_rest_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place::with_backlog(folder.path(), EVENTS);
    // In the body, after the event's own columns: the id stays readable there.
    damage(&place, &format!("\"eventId\":\"{}", id(1, BAD)), |bytes, at| bytes[at + 20] ^= 1);
    let checked = tool(&place, &["spool", "check"]);
    assert_eq!(checked.status.code(), Some(1));
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(said.contains(&format!("record {}", BAD + 1)) && said.contains("checksum"), "{said}");
    deliver(&place, &[BAD], "ready\n");
    let listed = tool(&place, &["dead", "list", "--reason", "damaged", "--json"]);
    let said = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(said.contains(&id(1, BAD)) && said.contains("checksum does not match"), "{said}");
    assert_eq!(json(&tool(&place, &["spool", "status", "--json"]))["deadLetters"]["damaged"], 1);
    // Its signature tells that the body is not what DT sent.
    let replayed = tool(&place, &["dead", "replay", "--reason", "damaged", "--json"]);
    let report = json(&replayed);
    assert_eq!((&report["failed"], &report["accepted"]), (&1.into(), &0.into()), "{report}");
    assert!(report["notes"].to_string().contains("checksum_mismatch"), "{report}");
    assert_eq!(deliver_again(&place), None);
    assert!(
        tool(&place, &["spool", "check"]).status.success(),
        "the damaged record is gone from the records"
    );
}

#[test]
fn a_damaged_record_whose_body_is_whole_is_let_in_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place::with_backlog(folder.path(), EVENTS);
    // The column `event_id`, which stands before `touch`; the body has it before `","targetName`.
    damage(&place, &format!("{}touch", id(1, BAD)), |bytes, at| bytes[at] ^= 1);
    deliver(&place, &[BAD], "ready\n");
    let report = json(&tool(&place, &["dead", "replay", "--reason", "damaged", "--json"]));
    assert_eq!((&report["failed"], &report["accepted"]), (&0.into(), &1.into()), "{report}");
    assert_eq!(deliver_again(&place), Some(BAD), "as it was sent");
    assert_eq!(json(&tool(&place, &["spool", "status", "--json"]))["deadLetters"]["damaged"], 0);
}

/// Serves once more, on a new file; gives the event that came.
fn deliver_again(place: &Place) -> Option<u64> {
    fs::remove_file(&place.file).expect("removed");
    fs::write(&place.file, "").expect("made");
    // Another file is never extended; the operator says that it may be.
    let connection = Connection::open(&place.spool_files()[0]).expect("opened");
    connection.execute("UPDATE sinks SET checkpoint = NULL", []).expect("changed");
    drop(connection);
    let server = Server::bare(place);
    server.stop();
    let mut events = place.events_in_file().into_keys();
    let event = events.next();
    assert_eq!(events.next(), None);
    event.map(|(_, number)| number)
}

#[test]
fn a_page_that_cannot_be_read_costs_its_own_records_and_nothing_is_deleted() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place::with_backlog(folder.path(), EVENTS);
    // The page that holds the body of a record in the middle of the backlog.
    let needle = format!("\"eventId\":\"{}", id(1, BAD));
    let database = place.spool_files()[0].clone();
    let bytes = fs::read(&database).expect("read");
    let at = (0..bytes.len()).find(|at| bytes[*at..].starts_with(needle.as_bytes())).expect("there");
    let page = at / 4096 * 4096;
    let on_page: Vec<u64> = (0..EVENTS)
        .filter(|number| {
            let needle = format!("\"eventId\":\"{}", id(1, *number));
            (page..page + 4096).any(|at| bytes[at..].starts_with(needle.as_bytes()))
        })
        .collect();
    damage(&place, &needle, |bytes, at| {
        let page = at / 4096 * 4096;
        bytes[page..page + 4096].fill(0xAA);
    });
    let said = deliver(&place, &on_page, "ready, but: spool: ");
    assert!(said.contains("damaged"), "{said}");
    assert!(said.contains("spool.db") && said.contains("spool rebuild"), "{said}");
    let dead = json(&tool(&place, &["spool", "status", "--json"]))["deadLetters"]["damaged"].as_u64();
    assert_eq!(dead, Some(on_page.len() as u64), "each is counted, once");
    // Nothing was pruned, so that all but the page can be saved.
    let rebuilt = tool(&place, &["spool", "rebuild", "--json"]);
    assert_eq!(rebuilt.status.code(), Some(1), "something is lost: {rebuilt:?}");
    let report = json(&rebuilt);
    let lost = on_page.len() as u64;
    // The new event had gone to the file; whether it is among the records as well depends on when it got there.
    let of_backlog = EVENTS - lost;
    let saved = report["records"].as_u64().expect("a number");
    assert!(saved == of_backlog || saved == of_backlog + 1, "{report}");
    let records = "SELECT count(*) FROM records WHERE seq <= ?1";
    let connection = Connection::open(&database).expect("opened");
    let kept: i64 = connection.query_row(records, [EVENTS.cast_signed()], |row| row.get(0)).expect("counted");
    assert_eq!(kept.cast_unsigned(), of_backlog, "all of the backlog that can be read");
    drop(connection);
    assert_eq!((&report["lostRecords"], &report["deadLetters"]), (&lost.into(), &lost.into()), "{report}");
    assert_eq!((&report["lostDeadLetters"], &report["knownEvents"]), (&0.into(), &true.into()), "{report}");
    let kept = fs::read(report["kept"].as_str().expect("a path")).expect("it is there");
    assert!(kept.windows(64).any(|window| window == [0xAA; 64]), "the damaged file is kept as it was");
    let checked = tool(&place, &["spool", "check"]);
    assert!(checked.status.success(), "{checked:?}");
    // It goes on where it was: nothing is delivered twice, and a copy is a duplicate.
    let server = Server::bare(&place);
    let answer = Sender::connect(server.listen).and_then(|mut sender| sender.send(1, 0)).expect("an answer");
    assert!(answer.body.contains("duplicate"), "{answer:?}");
    assert_eq!(readiness(server.admin), "ready\n");
    server.stop();
    assert_eq!(place.events_in_file().len() as u64, EVENTS + 1 - lost);
}

/// A sink of four at a time that asks for a retry of each batch once, and keeps what it takes.
struct Slow {
    got: Arc<Mutex<Vec<String>>>,
    has_refused: bool,
}

impl Sink for Slow {
    fn open(&mut self, _checkpoint: Option<&[u8]>) -> Result<(), OpenError> {
        Ok(())
    }

    fn deliver(&mut self, batch: &[Arc<Record>]) -> Outcome {
        self.has_refused = !self.has_refused;
        if self.has_refused {
            return Outcome::retry(batch.len(), "not now");
        }
        let ids = batch.iter().map(|record| record.event_id.to_string());
        self.got.lock().expect("whole").extend(ids);
        Outcome::delivered(batch.len())
    }

    fn max_batch(&self) -> usize {
        4
    }
}

#[test]
fn a_damaged_page_does_not_stop_a_sink_of_few_records_at_a_time() {
    const FEW: u64 = 60;
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place::new(folder.path(), Sinks::File, "");
    let spool_folder = place.data.join("spool");
    let open = || {
        let options =
            SpoolOptions { min_free: 0, retain: Duration::from_secs(3600), ..SpoolOptions::default() };
        Arc::new(Spool::open(&spool_folder, options, Arc::new(ManualClock::at(0))).expect("opened"))
    };
    let spool = open();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    for number in 0..FEW {
        let record = Record {
            connector: Arc::from("default"),
            received_at: 0,
            verified_by: VerifiedBy::Secret { label: Arc::from("a") },
            event_id: id(1, number).into(),
            event_type: "touch".into(),
            project: None,
            device: Some("dev1".into()),
            request_id: None,
            headers: KeptHeaders::default(),
            body: Bytes::from(body(1, number)),
        };
        runtime.block_on(spool.append(Arc::new(record), true)).expect("stored");
    }
    spool.close();
    drop(spool);
    damage(&place, &format!("\"eventId\":\"{}", id(1, FEW / 2)), |bytes, at| {
        let page = at / 4096 * 4096;
        bytes[page..page + 4096].fill(0xAA);
    });
    let spool = open();
    let got = Arc::new(Mutex::new(Vec::new()));
    let sink = Box::new(Slow { got: Arc::clone(&got), has_refused: false });
    let millis = Duration::from_millis(1);
    let backoff = Backoff::new(millis, millis, 1).expect("good bounds");
    let telemetry = Arc::new(Telemetry::new(Arc::new(ManualClock::at(0))));
    let (name, skips, start) = (Arc::from("slow"), BTreeSet::new(), StartAt::Retained);
    let worker = WorkerHandle::start(name, sink, skips, start, backoff, Arc::clone(&spool), telemetry);
    let worker = worker.expect("started");
    let begun = Instant::now();
    let last = id(1, FEW - 1);
    while !got.lock().expect("whole").contains(&last) {
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", worker.trouble());
        std::thread::yield_now();
    }
    spool.tail().stop(Instant::now());
    worker.join();
    let got = got.lock().expect("whole").clone();
    assert!(got.is_sorted(), "each once, in order: {got:?}");
    let dead = spool.reader().and_then(|reader| reader.status()).expect("read").dead_letters["damaged"];
    assert!(dead > 0);
    assert_eq!(got.len() as u64 + dead, FEW);
}
