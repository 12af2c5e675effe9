//! A spool that an earlier program wrote opens, and is delivered from: `tests/spools/v2`, written with short segments.
//!
//! `DT_RECEIVER_TEST_WRITE_SPOOL=1` writes it anew; a format that was released must stay as it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use dt_receiver::log::{Progress, Reader, SinkSet, StartAt};
use dt_receiver::record::{DeadLetter, KeptHeaders, Reason, Record, RequestId};
use hyper::HeaderMap;
use hyper::body::Bytes;
use rusqlite::Connection;

use crate::events::{body, has_tool, id};
use crate::sender::Sender;
use crate::server::{Place, Server, Sinks};
use crate::spools::{self, THEN, record};

fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join("spools").join("v2")
}

/// The id of the request that brought an event.
fn request_id(number: u64) -> RequestId {
    format!("0000000000010000000{number}").parse().expect("an id")
}

/// Ten events, of which the sink `file` has passed six and rejected one, with an unreadable and an expired letter.
fn write(to: &Path) {
    let log = spools::open(to).expect("opened");
    let sink = log.register(&Arc::from("file"), StartAt::Now, Vec::new()).expect("registered");
    let mut headers = HeaderMap::new();
    headers.insert("x-dt-signature", "header.claims.signature".parse().expect("a value"));
    headers.insert("user-agent", "DT".parse().expect("a value"));
    let event = |number: u64| {
        let headers = KeptHeaders::of(&headers);
        Arc::new(Record { request_id: Some(request_id(number)), headers, ..record(number) })
    };
    for number in 0..10 {
        log.append_blocking(event(number), SinkSet::new([sink.number]), true).expect("stored");
    }
    let mut letters = Vec::new();
    for (reason, body) in [(Reason::Unreadable, "not JSON"), (Reason::Expired, "too late")] {
        let (connector, error, body) = (Arc::from("default"), "why".to_owned(), Bytes::from(body));
        letters.push(DeadLetter::of_request(connector, reason, error, THEN, body).with_headers(&headers));
    }
    letters.push(DeadLetter::of_record(&event(2), Arc::from("file"), "never".to_owned(), 2).with_seq(3));
    log.dead_letters().add_blocking(letters).expect("stored");
    log.advance(Progress { sink: sink.number, cursor: 6, checkpoint: None, ends_replay: false }, true)
        .expect("stored");
    log.close();
    drop(log);
    for name in spools::contents(to).into_keys().filter(|name| name.starts_with("spare-")) {
        fs::remove_file(to.join(name)).expect("removed");
    }
}

/// A place with the committed spool.
fn place(folder: &Path) -> Place {
    if std::env::var_os("DT_RECEIVER_TEST_WRITE_SPOOL").is_some_and(|value| value == "1") {
        let _none = fs::remove_dir_all(committed());
        write(&committed());
    }
    let place = Place::new(folder, Sinks::File, "");
    spools::copy(&committed(), &place.spool());
    place
}

#[test]
fn a_spool_of_version_2_is_opened_and_delivered_from() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = place(folder.path());
    let server = Server::bare(&place);
    let mut sender = Sender::connect(server.listen).expect("connected");
    let answer = sender.send(1, 0).expect("an answer");
    assert!(answer.status == 200 && answer.body.contains("duplicate"), "its ids are known: {answer:?}");
    assert_eq!(sender.send(2, 0).expect("an answer").status, 200);
    let ended = server.stop();
    assert!(ended.status.success(), "{ended:?}");
    let delivered: Vec<_> = place.events_in_file().into_keys().collect();
    assert_eq!(delivered, [(1, 6), (1, 7), (1, 8), (1, 9), (2, 0)], "the backlog, then what came");
    let database = Connection::open(place.spool_file("dead.db")).expect("opened");
    let mut statement = database
        .prepare("SELECT reason || ' ' || attempts || ' ' || error || ' ' || signatures || ' ' || header_names FROM letters ORDER BY id")
        .expect("prepared");
    let dead: Vec<String> =
        statement.query_map([], |row| row.get(0)).expect("run").collect::<Result<_, _>>().expect("read");
    let headers = r#"[["X-Dt-Signature","header.claims.signature"]] ["user-agent"]"#;
    assert_eq!(
        dead,
        [
            format!("unreadable 0 why {headers}"),
            format!("expired 0 why {headers}"),
            format!("rejected 2 never {headers}")
        ]
    );
}

#[test]
fn what_is_written_today_is_of_the_committed_format() {
    let folder = tempfile::tempdir().expect("a folder");
    let (today, place) = (folder.path().join("today"), place(folder.path()));
    write(&today);
    let schema = |path: PathBuf| -> (i64, i64, Vec<String>) {
        let database = Connection::open(path).expect("opened");
        let pragma = |name| database.pragma_query_value(None, name, |row| row.get(0)).expect("read");
        let mut statement =
            database.prepare("SELECT coalesce(sql, name) FROM sqlite_schema").expect("prepared");
        let tables = statement.query_map([], |row| row.get(0)).expect("run").collect::<Result<_, _>>();
        (pragma("user_version"), pragma("application_id"), tables.expect("read"))
    };
    const CHANGED: &str = "the format has changed: give it a new version, or before its release run with DT_RECEIVER_TEST_WRITE_SPOOL=1";
    for name in ["dead.db", "ids.db"] {
        assert_eq!(schema(today.join(name)), schema(place.spool_file(name)), "{name}: {CHANGED}");
    }
    // The ids of the stores differ, the checksums with them, and how events are grouped; what events are written as does not.
    const BEFORE: usize = "defaultsecret:secret-1".len();
    let frames = |folder: &Path| {
        let bytes = fs::read(folder.join("segment-0000000001.log")).expect("read");
        let find = |text: &str| {
            bytes.windows(text.len()).position(|found| found == text.as_bytes()).expect("it is there")
        };
        let frame = |number: u64| {
            let body = body(1, number);
            bytes[find(&id(1, number)) - BEFORE..find(&body) + body.len()].to_vec()
        };
        (bytes[..12].to_vec(), (0..10).map(frame).collect::<Vec<_>>())
    };
    assert_eq!(frames(&today), frames(&place.spool()), "{CHANGED}");
    let reader = Reader::open(&place.spool()).expect("opened");
    let mut backlog = Vec::new();
    reader
        .events(6, |seen| {
            backlog.push((seen.stored.seq, seen.stored.record.clone().expect("whole")));
            true
        })
        .expect("read");
    assert_eq!(backlog.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [7, 8, 9, 10]);
    let first = &backlog[0].1;
    assert_eq!((&*first.body, first.request_id), (body(1, 6).as_bytes(), Some(request_id(6))));
}

#[test]
fn the_tool_of_every_operator_opens_its_dead_letters() {
    if !has_tool("sqlite3", "that the tool `sqlite3` opens the dead letters") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let place = place(folder.path());
    // Beside a running server.
    let server = Server::bare(&place);
    let said = Command::new("sqlite3")
        .arg(place.spool_file("dead.db"))
        .arg("SELECT event_id FROM letters WHERE reason = 'rejected'; PRAGMA integrity_check;")
        .stderr(Stdio::inherit())
        .output()
        .expect("it runs");
    assert_eq!(String::from_utf8_lossy(&said.stdout), format!("{}\nok\n", id(1, 2)));
    server.stop();
}
