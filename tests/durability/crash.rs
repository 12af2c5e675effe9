//! What was acknowledged survives `kill -9`: a sender with a ledger against the real program and its file.
//!
//! It kills 50 times under 10,000 events from 64 connections. `DT_RECEIVER_TEST_KILLS` and `DT_RECEIVER_TEST_EVENTS` set
//! other counts, `DT_RECEIVER_TEST_SEED` repeats a run.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests may fail loudly"
)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use crate::common::Receiver;
use dt_receiver::verify::{Secret, Signer, xid};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::sync::watch;

const CONNECTIONS: usize = 64;
const SECRET: &str = "some-good-secret";

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

/// A small generator of random numbers (xorshift64), so that a seed repeats a run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// What the sender knows: which events are still to be sent, and which were answered 200.
struct Ledger {
    to_send: Mutex<VecDeque<u64>>,
    acknowledged: Mutex<BTreeSet<u64>>,
    count: watch::Sender<u64>,
}

impl Ledger {
    fn acknowledge(&self, event: u64) {
        let mut acknowledged = self.acknowledged.lock();
        acknowledged.insert(event);
        self.count.send_replace(acknowledged.len() as u64);
    }
}

/// The body of an event: each is different, and some are long.
fn body(event: u64) -> String {
    let filler = "x".repeat(usize::try_from(event % 7 * 100).expect("small"));
    format!(
        r#"{{"event":{{"eventId":"event-{event}","eventType":"touch","data":{{"touch":{{}}}}}},"labels":{{"f":"{filler}"}}}}"#
    )
}

/// Sends events on one connection until there are none, or the connection breaks.
async fn send_on_one_connection(address: SocketAddr, ledger: &Ledger) {
    let Ok(stream) = tokio::net::TcpStream::connect(address).await else { return };
    let handshake = hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await;
    let Ok((mut sender, connection)) = handshake else { return };
    let connection = tokio::spawn(connection);
    let signer = Signer::secret(Secret::new(SECRET).expect("not empty"));
    loop {
        let Some(event) = ledger.to_send.lock().pop_front() else { break };
        let body = body(event);
        let now = jiff::Timestamp::now().as_second();
        let token = signer.sign(body.as_bytes(), now, &xid(now, event.to_be_bytes())).expect("signed");
        let request = Request::post("/").header("host", "x").header("X-Dt-Signature", token);
        let answer = match sender.send_request(request.body(Full::from(body)).expect("a request")).await {
            Ok(response) => {
                let status = response.status();
                // 200 counts once it is whole, as for DT.
                response.into_body().collect().await.ok().map(|_| status)
            }
            Err(_) => None,
        };
        match answer {
            Some(StatusCode::OK) => ledger.acknowledge(event),
            other => {
                ledger.to_send.lock().push_back(event);
                if other.is_none() {
                    break;
                }
            }
        }
    }
    drop(sender);
    // However the connection ended, the ledger knows what it brought.
    let _ended = connection.await;
}

/// The events in the file, with how often each is there. Every line must be exactly what was sent; with `may_be_torn`, the
/// beginning of an event may be there as well, on a line of its own: it was not acknowledged.
fn events_in(path: &Path, may_be_torn: bool) -> BTreeMap<u64, u64> {
    let mut content = String::new();
    let mut file = fs::File::open(path).expect("there");
    match path.extension() {
        Some(end) if end == "gz" => flate2::read::GzDecoder::new(file).read_to_string(&mut content),
        _ => file.read_to_string(&mut content),
    }
    .expect("text");
    assert!(content.is_empty() || content.ends_with('\n'), "a torn last line");
    let mut events = BTreeMap::new();
    for line in content.lines() {
        let event = line.split("event-").nth(1).and_then(|rest| rest.split('"').next()?.parse().ok());
        let whole = body(event.unwrap_or(0));
        if may_be_torn && line != whole && whole.starts_with(line) {
            continue;
        }
        let event = event.unwrap_or_else(|| panic!("not a line of ours: {line:?}"));
        assert_eq!(line, body(event), "not exactly as sent");
        *events.entry(event).or_default() += 1;
    }
    events
}

/// The same for all files below a folder. Of a closed file whose compression was cut off by the stop, the original
/// counts.
fn events_below(folder: &Path) -> BTreeMap<u64, u64> {
    let mut events = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let below = if path.is_dir() {
            events_below(&path)
        } else if path.extension().is_some_and(|end| end == "gz") && path.with_extension("").exists() {
            continue;
        } else if path.extension().is_some_and(|end| end == "ndjson" || end == "gz") {
            events_in(&path, false)
        } else {
            continue;
        };
        for (event, count) in below {
            *events.entry(event).or_default() += count;
        }
    }
    events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_that_got_a_200_is_in_the_file_whenever_the_program_is_killed() {
    let (kills, total) = (setting("DT_RECEIVER_TEST_KILLS", 50), setting("DT_RECEIVER_TEST_EVENTS", 10_000));
    kill_under_load(kills, total, "spool", "", Path::new("events.ndjson")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_in_mode_direct() {
    let (kills, total) = (setting("DT_RECEIVER_TEST_KILLS", 50), setting("DT_RECEIVER_TEST_EVENTS", 10_000));
    kill_under_load(kills, total, "direct", "", Path::new("events.ndjson")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_with_a_path_template_rotation_and_compression() {
    let (kills, total) =
        (setting("DT_RECEIVER_TEST_KILLS", 50) / 5, setting("DT_RECEIVER_TEST_EVENTS", 10_000) / 5);
    let rotation = "rotate_size = '64KiB'\nrotate_every = '1h'\ncompress = 'gzip'\n";
    kill_under_load(kills, total, "spool", rotation, Path::new("files/{eventType}/{connector}.ndjson")).await;
}

/// Kills the program so often while so many events are sent, in this mode, with these keys for its sink and this path
/// below the test's folder. In mode `spool` the file has each event once; in mode `direct` a retry may come twice.
async fn kill_under_load(kills: u64, total: u64, mode: &str, keys: &str, path: &Path) {
    let is_one_file = keys.is_empty();
    let seed = setting("DT_RECEIVER_TEST_SEED", u64::from(std::process::id()) << 20 | 1);
    println!("DT_RECEIVER_TEST_SEED={seed}");
    let mut random = Random(seed);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join(path);
    fs::create_dir_all(folder.path().join("files")).expect("made");
    let config = folder.path().join("dt-receiver.toml");
    let text = format!(
        "listen = '127.0.0.1:0'\nadmin = '127.0.0.1:0'\nmode = '{mode}'\ndata = '{}'\n\
         [[connector]]\nname = 'default'\nsecrets = [{{ env = 'DT_SIGNATURE_SECRET' }}]\n\
         [[sink]]\nname = 'file'\ntype = 'file'\npath = '{}'\nformat = 'body'\n{keys}",
        folder.path().join("data").display(),
        file.display()
    );
    fs::write(&config, text).expect("written");
    let ledger = Arc::new(Ledger {
        to_send: Mutex::new((0..total).collect()),
        acknowledged: Mutex::default(),
        count: watch::Sender::new(0),
    });
    let arguments = ["--config", config.to_str().expect("text")];
    let mut torn = 0;
    for round in 0..=kills {
        let receiver = Receiver::start(arguments, &[]);
        let address = receiver.listen;
        let senders: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                let ledger = Arc::clone(&ledger);
                tokio::spawn(async move { send_on_one_connection(address, &ledger).await })
            })
            .collect();
        let last = round == kills;
        if !last {
            // A random moment within this round's share of the events, and within whatever is done for the next one.
            let share = total / (kills + 1);
            let moment = round * share + random.below(share.max(1));
            let mut count = ledger.count.subscribe();
            count.wait_for(|count| *count > moment).await.expect("the ledger is there");
            for _ in 0..random.below(200_000) {
                std::hint::spin_loop();
            }
            receiver.signal("KILL");
        }
        for sender in senders {
            sender.await.expect("a sender ends");
        }
        let stopped = if last { receiver.stop() } else { receiver.wait() };
        assert_eq!(stopped.status.success(), last, "{stopped:?}");
        // A second half behind the first would be on its line: nothing was written in between.
        let is_whole =
            || fs::read(&file).is_ok_and(|content| content.last().is_none_or(|last| *last == b'\n'));
        if is_one_file && !last && random.below(2) == 0 && (mode == "spool" || is_whole()) {
            // Power loss, unlike a kill, can leave sectors that were never written, and in mode `direct`, where nothing is
            // compared and written again, half a line.
            let length = 1 + usize::try_from(random.below(60)).expect("small");
            let left = match mode {
                "direct" => body(total).as_bytes()[..length].to_vec(),
                _ => vec![0; length * 20],
            };
            let appended =
                fs::File::options().append(true).open(&file).and_then(|mut file| file.write_all(&left));
            appended.expect("torn");
            torn += 1;
        }
        let acknowledged = ledger.acknowledged.lock().len();
        println!("round {round}: {acknowledged} of {total} acknowledged");
    }
    let acknowledged = ledger.acknowledged.lock().clone();
    let events = if is_one_file {
        events_in(&file, mode == "direct")
    } else {
        events_below(&folder.path().join("files"))
    };
    let lost: Vec<_> = acknowledged.iter().filter(|event| !events.contains_key(event)).collect();
    let lines: u64 = events.values().sum();
    println!("{kills} kills, {torn} torn ends, {total} events, {lines} lines, {} lost", lost.len());
    let doubled: Vec<_> = events.iter().filter(|(_, count)| **count > 1).collect();
    assert!(
        mode == "direct" || doubled.is_empty(),
        "more than once in the file: {:?}",
        doubled.iter().take(10).collect::<Vec<_>>()
    );
    assert_eq!(acknowledged.len() as u64, total, "the last round runs to the end");
    assert!(
        lost.is_empty(),
        "acknowledged but not in the file: {:?}",
        lost.iter().take(10).collect::<Vec<_>>()
    );
}
