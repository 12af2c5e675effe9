//! The load of a recording: lives of the program that end by `kill -9`, and a last one that is stopped.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::disk::fake::Random;
use crate::events::{id, now, token};
use crate::place::Place;
use crate::sender::Sender;
use crate::server::Server;

const CONNECTIONS: u64 = 12;
const DEVICES_PER_CONNECTION: u64 = 3;

/// What a sender knows: of each device the next number; all before it were answered 200.
pub(crate) type Book = BTreeMap<u64, u64>;

/// A file as it really is at the end of a life.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) inode: u64,
    pub(crate) content: Vec<u8>,
}

/// The files below a folder. Their names begin with `/`, which is the folder.
pub(crate) fn files(root: &Path) -> BTreeMap<PathBuf, Found> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let about = path.symlink_metadata().expect("it is there");
            if about.is_dir() {
                folders.push(path);
                continue;
            }
            let name = Path::new("/").join(path.strip_prefix(root).expect("below it"));
            let content = if about.is_file() { fs::read(&path).expect("readable") } else { Vec::new() };
            found.insert(name, Found { inode: about.ino(), content });
        }
    }
    found
}

/// The body of an event. Some are long, so that a segment of 16 MiB fills up with some 1,100 events.
pub(crate) fn body(device: u64, number: u64) -> String {
    let length = if (device * 5 + number).is_multiple_of(4) { 60_000 } else { number % 16 * 40 };
    let (id, project, filler) =
        (id(device, number), device % 3, "x".repeat(usize::try_from(length).unwrap()));
    format!(
        r#"{{"event":{{"eventId":"{id}","targetName":"projects/p{project}/devices/dev{device}","eventType":"touch","data":{{"touch":{{}}}}}},"labels":{{"f":"{filler}"}}}}"#
    )
}

/// Sends one event; its answer's body if it was 200.
pub(crate) fn send(sender: &mut Sender, device: u64, number: u64) -> Option<String> {
    let body = body(device, number);
    let answer = sender.post("/", &body, &token(&body, now()))?;
    assert!(matches!(answer.status, 200 | 503), "{answer:?}");
    (answer.status == 200).then_some(answer.body)
}

/// A life of the program.
pub(crate) struct Plan {
    /// Its number in the recording.
    pub(crate) life: usize,
    /// How many events are sent before its end.
    pub(crate) events: u64,
    /// Whether it is killed then, in the midst of others, or stopped.
    pub(crate) killed: bool,
    /// Decides what is sent; different for each life.
    pub(crate) seed: u64,
}

/// Lets the program live, and end.
pub(crate) fn live(place: &Place, plan: &Plan, book: &mut Book) {
    let Plan { life, events, killed, seed } = *plan;
    let server = Server::start(place.recorded(life), Stdio::null());
    let server = server.unwrap_or_else(|ended| panic!("life {life} did not start: {ended:?}"));
    let (answered, address) = (AtomicU64::new(0), server.listen);
    let devices = |connection| connection * DEVICES_PER_CONNECTION..(connection + 1) * DEVICES_PER_CONNECTION;
    let books: Vec<Book> = std::thread::scope(|scope| {
        let send = |connection| {
            let mut book: Book =
                devices(connection).map(|device| (device, book.get(&device).copied().unwrap_or(0))).collect();
            let (answered, server) = (&answered, &server);
            scope.spawn(move || {
                let mut random = Random::new(seed + connection);
                let Some(mut sender) = Sender::connect(address) else { return book };
                while answered.load(Ordering::Relaxed) < events {
                    if random.below(60) == 0 {
                        // Authentic, and no delivery: kept as a dead letter.
                        let odd = format!("{{\"odd\":{}}}", random.below(u64::MAX));
                        let Some(_) = sender.post("/", &odd, &token(&odd, now())) else { break };
                    }
                    let device = connection * DEVICES_PER_CONNECTION + random.below(DEVICES_PER_CONNECTION);
                    let next = book.get_mut(&device).unwrap();
                    if send(&mut sender, device, *next).is_none() {
                        break;
                    }
                    *next += 1;
                    if answered.fetch_add(1, Ordering::Relaxed) + 1 == events && killed {
                        server.kill();
                    }
                }
                book
            })
        };
        let senders: Vec<_> = (0..CONNECTIONS).map(send).collect();
        senders.into_iter().map(|sender| sender.join().expect("it sent")).collect()
    });
    book.extend(books.into_iter().flatten());
    let ended = if killed { server.wait() } else { server.stop() };
    assert!(killed || ended.status.success(), "{ended:?}");
}
