//! A spool that an earlier program wrote opens, and is delivered from: `tests/spools/v1.db`.
//!
//! `DT_RECEIVER_TEST_WRITE_SPOOL=1` writes it anew; a format that was released must stay as it is.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use dt_receiver::clock::ManualClock;
use dt_receiver::record::{DeadLetter, KeptHeaders, Reason, Record, RequestId};
use dt_receiver::spool::{Progress, Reader, Rejected, Spool, SpoolOptions, StartAt};
use dt_receiver::verify::VerifiedBy;
use hyper::HeaderMap;
use hyper::body::Bytes;
use rusqlite::Connection;

use crate::events::{body, has_tool, id};
use crate::sender::Sender;
use crate::server::{Place, Server, Sinks};

/// When it was written, in Unix milliseconds.
const THEN: i64 = 1_700_000_000_123;

fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join("spools").join("v1.db")
}

/// The id of the request that brought an event.
fn request_id(number: u64) -> RequestId {
    format!("0000000000010000000{number}").parse().expect("an id")
}

/// Ten events, of which the sink `file` has passed six and rejected one, with an unreadable and an expired letter.
fn write(to: &Path) {
    let folder = tempfile::tempdir().expect("a folder");
    let options = SpoolOptions { min_free: 0, ..SpoolOptions::default() };
    let spool = Spool::open(folder.path(), options, Arc::new(ManualClock::at(THEN))).expect("opened");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    spool.register(Arc::from("file"), StartAt::Now, BTreeSet::new()).expect("registered");
    let mut headers = HeaderMap::new();
    headers.insert("x-dt-signature", "header.claims.signature".parse().expect("a value"));
    headers.insert("user-agent", "DT".parse().expect("a value"));
    let record = |number: u64| {
        Arc::new(Record {
            connector: Arc::from("default"),
            received_at: THEN,
            verified_by: VerifiedBy::Secret { label: Arc::from("secret-1") },
            event_id: id(1, number).into(),
            event_type: "touch".into(),
            project: Some("p".into()),
            device: Some("dev1".into()),
            request_id: Some(request_id(number)),
            headers: KeptHeaders::of(&headers),
            body: Bytes::from(body(1, number)),
        })
    };
    for number in 0..10 {
        runtime.block_on(spool.append(record(number), true)).expect("stored");
    }
    for (reason, body) in [(Reason::Unreadable, "not JSON"), (Reason::Expired, "too late")] {
        let (connector, error, body) = (Arc::from("default"), "why".to_owned(), Bytes::from(body));
        let letter = DeadLetter::of_request(connector, reason, error, THEN, &headers, body);
        runtime.block_on(spool.bury(letter)).expect("stored");
    }
    let rejected = vec![Rejected { seq: 3, record: record(2), error: "never".to_owned(), attempts: 2 }];
    spool
        .advance(Arc::from("file"), Progress { cursor: 6, rejected, ..Progress::default() })
        .expect("stored");
    drop(spool);
    assert!(!folder.path().join("spool.db-wal").exists(), "it is one file once it is closed");
    fs::create_dir_all(to.parent().expect("a folder")).expect("made");
    fs::copy(folder.path().join("spool.db"), to).expect("copied");
}

/// A place with the committed spool.
fn place(folder: &Path) -> Place {
    if std::env::var_os("DT_RECEIVER_TEST_WRITE_SPOOL").is_some_and(|value| value == "1") {
        write(&committed());
    }
    let place = Place::new(folder, Sinks::File, "");
    fs::create_dir_all(place.data.join("spool")).expect("made");
    fs::copy(committed(), &place.spool_files()[0]).expect("copied");
    place
}

#[test]
fn a_spool_of_version_1_is_opened_and_delivered_from() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = place(folder.path());
    let server = Server::bare(&place);
    let mut sender = Sender::connect(server.listen).expect("connected");
    assert_eq!(sender.send(2, 0).expect("an answer").status, 200);
    let ended = server.stop();
    assert!(ended.status.success(), "{ended:?}");
    let delivered: Vec<_> = place.events_in_file().into_keys().collect();
    assert_eq!(delivered, [(1, 6), (1, 7), (1, 8), (1, 9), (2, 0)], "the backlog, then what came");
    let database = Connection::open(&place.spool_files()[0]).expect("opened");
    let mut statement = database
        .prepare("SELECT reason || ' ' || attempts || ' ' || error || ' ' || signatures || ' ' || header_names FROM dead ORDER BY id")
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
    let (today, place) = (folder.path().join("today").join("spool.db"), place(folder.path()));
    write(&today);
    let schema = |path: &Path| -> (i64, i64, Vec<String>) {
        let database = Connection::open(path).expect("opened");
        let pragma = |name| database.pragma_query_value(None, name, |row| row.get(0)).expect("read");
        let mut statement =
            database.prepare("SELECT coalesce(sql, name) FROM sqlite_schema").expect("prepared");
        let tables = statement.query_map([], |row| row.get(0)).expect("run").collect::<Result<_, _>>();
        (pragma("user_version"), pragma("application_id"), tables.expect("read"))
    };
    assert_eq!(
        schema(&today),
        schema(&place.spool_files()[0]),
        "the format has changed: give it a new version, or before its release run with DT_RECEIVER_TEST_WRITE_SPOOL=1"
    );
    let reader = Reader::open(&place.data.join("spool")).expect("opened");
    let backlog = reader.after(6, 100).expect("read");
    assert_eq!(backlog.iter().map(|stored| stored.seq).collect::<Vec<_>>(), [7, 8, 9, 10]);
    let first = backlog[0].record.as_ref().expect("whole");
    assert_eq!((&*first.body, first.request_id), (body(1, 6).as_bytes(), Some(request_id(6))));
}

#[test]
fn the_tool_of_every_operator_opens_it() {
    if !has_tool("sqlite3", "that the tool `sqlite3` opens a spool") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let place = place(folder.path());
    // Beside a running server.
    let server = Server::bare(&place);
    let said = Command::new("sqlite3")
        .arg(&place.spool_files()[0])
        .arg("SELECT event_id FROM dead WHERE reason = 'rejected'; SELECT name FROM sinks; PRAGMA integrity_check;")
        .stderr(Stdio::inherit())
        .output()
        .expect("it runs");
    assert_eq!(String::from_utf8_lossy(&said.stdout), format!("{}\nfile\nok\n", id(1, 2)));
    server.stop();
}
