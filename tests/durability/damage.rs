//! Pages of the database that went bad: what can be read is delivered, the rest is an error with the path and the cure,
//! and nothing is deleted or skipped.

use std::fs;
use std::process::Stdio;

use rusqlite::Connection;

use crate::events::id;
use crate::sender::{Sender, readiness};
use crate::server::{Place, Server, Sinks};

#[test]
fn a_damaged_page_is_reported_and_never_skipped() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place::new(folder.path(), Sinks::Down, "");
    let full = || Stdio::from(fs::File::options().write(true).open("/dev/full").expect("there"));
    let server = Server::start(place.serve(), full()).expect("it starts");
    let mut sender = Sender::connect(server.listen).expect("connected");
    for number in 0..200 {
        assert_eq!(sender.send(1, number).expect("an answer").status, 200);
    }
    server.stop();
    let database = &place.spool_files()[0];
    // A page that holds records in the middle of the backlog.
    let id = id(1, 100);
    let mut bytes = fs::read(database).expect("read");
    let body = format!("eventId\":\"{id}");
    let at = bytes.windows(body.len()).position(|window| window == body.as_bytes()).expect("it is there");
    let page = at / 4096 * 4096;
    bytes[page..page + 4096].fill(0xAA);
    fs::write(database, &bytes).expect("written");
    let out = folder.path().join("out.ndjson");
    let stdout = Stdio::from(fs::File::create(&out).expect("made"));
    let server = Server::start(place.serve(), stdout).expect("its header is whole");
    // The stop waits for the worker, which has met the page by then.
    let mut sender = Sender::connect(server.listen).expect("connected");
    let answer = sender.send(2, 0).expect("an answer");
    assert!(matches!(answer.status, 200 | 503), "{answer:?}");
    let mut said = readiness(server.admin);
    while said == "ready\n" {
        said = readiness(server.admin);
    }
    assert!(said.contains("damaged") && said.contains("spool.db") && said.contains("recover"), "{said}");
    server.stop();
    // Nothing was passed by: the cursor stands before the damage, and the records behind it are there.
    let connection = Connection::open(database).expect("opened");
    let cursor: i64 = connection.query_row("SELECT cursor FROM sinks", [], |row| row.get(0)).expect("read");
    assert!(cursor < 101, "{cursor} is past the damage");
    let last: i64 = connection.query_row("SELECT max(seq) FROM records", [], |row| row.get(0)).expect("read");
    assert!(last >= 200);
}
