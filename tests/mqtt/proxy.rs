//! A proxy between a receiver and its broker that records every byte of every connection, and a reader of what it recorded.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::events::parse_id;

/// The bytes of one connection.
#[derive(Debug, Default, Clone)]
pub(crate) struct Recorded {
    to_broker: Vec<u8>,
    to_client: Vec<u8>,
}

/// An event in a PUBLISH that passed the proxy, and whether its PUBACK did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) event: (u64, u64),
    pub(crate) is_acknowledged: bool,
}

type Shared = Arc<Mutex<Vec<Arc<Mutex<Recorded>>>>>;

/// What the proxy does about a text in what the client sends.
#[derive(Debug, Default)]
struct Rules {
    /// Ends the connection, and does not pass the text on.
    cut_at: Option<String>,
    /// Passes the text on, and no answer of the broker from then on.
    hold_at: Option<String>,
}

/// A proxy that runs until the process ends.
pub(crate) struct Proxy {
    address: SocketAddr,
    connections: Shared,
    is_open: Arc<AtomicBool>,
    rules: Arc<Mutex<Rules>>,
    is_held: Arc<AtomicBool>,
}

impl Proxy {
    /// Starts a proxy to a port of this machine.
    pub(crate) fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (connections, is_open) = (Shared::default(), Arc::new(AtomicBool::new(true)));
        let proxy = Self {
            address,
            connections: Arc::clone(&connections),
            is_open: Arc::clone(&is_open),
            rules: Arc::default(),
            is_held: Arc::default(),
        };
        let (rules, is_held) = (Arc::clone(&proxy.rules), Arc::clone(&proxy.is_held));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // Without a broker, or while the gate is closed, the client's connection is closed again.
                if !is_open.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(broker) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let recorded = Arc::<Mutex<Recorded>>::default();
                lock(&connections).push(Arc::clone(&recorded));
                let (from_client, from_broker) = (clone(&client), clone(&broker));
                let (other, rules) = (Arc::clone(&recorded), Arc::clone(&rules));
                let (is_held, hold) = (Arc::clone(&is_held), Arc::clone(&is_held));
                std::thread::spawn(move || {
                    let keep = |bytes: &[u8]| {
                        let (text, rules) = (String::from_utf8_lossy(bytes), lock(&rules));
                        let has =
                            |part: &Option<String>| part.as_ref().is_some_and(|part| text.contains(part));
                        hold.fetch_or(has(&rules.hold_at), Ordering::SeqCst);
                        !has(&rules.cut_at)
                    };
                    copy((from_client, broker), &other, |recorded| &mut recorded.to_broker, || (), keep);
                });
                std::thread::spawn(move || {
                    let wait = || {
                        while is_held.load(Ordering::SeqCst) {
                            std::thread::sleep(Duration::from_millis(1));
                        }
                    };
                    copy(
                        (from_broker, client),
                        &recorded,
                        |recorded| &mut recorded.to_client,
                        wait,
                        |_| true,
                    );
                });
            }
        });
        proxy
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Whether new connections reach the broker.
    pub(crate) fn set_open(&self, is_open: bool) {
        self.is_open.store(is_open, Ordering::SeqCst);
    }

    /// Ends each connection on which the client sends this text, before the broker gets it.
    pub(crate) fn cut_at(&self, text: Option<&str>) {
        lock(&self.rules).cut_at = text.map(str::to_owned);
    }

    /// Passes no answer of the broker on once the client has sent this text, until it is [released](Self::release).
    pub(crate) fn hold_at(&self, text: &str) {
        lock(&self.rules).hold_at = Some(text.to_owned());
    }

    /// Passes on what was held.
    pub(crate) fn release(&self) {
        lock(&self.rules).hold_at = None;
        self.is_held.store(false, Ordering::SeqCst);
    }

    /// How many topics each SUBSCRIBE had, of MQTT 5 without properties.
    pub(crate) fn subscribed(&self) -> Vec<usize> {
        let connections = lock(&self.connections);
        let streams = connections.iter().map(|recorded| lock(recorded).to_broker.clone());
        streams
            .flat_map(|stream| packets(&stream).into_iter().filter_map(topics_of).collect::<Vec<_>>())
            .collect()
    }

    /// Waits until the last connection has an event without an acknowledgement, also a moment later.
    pub(crate) fn wait_for_unacknowledged(&self) {
        let begun = Instant::now();
        let is_open =
            || self.published().last().is_some_and(|last| last.iter().any(|one| !one.is_acknowledged));
        loop {
            let was_open = is_open();
            std::thread::sleep(Duration::from_millis(20));
            if was_open && is_open() {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "no event is on its way");
        }
    }

    /// The events of each connection, in the order in which they were published.
    pub(crate) fn published(&self) -> Vec<Vec<Published>> {
        lock(&self.connections).iter().map(|recorded| published(&lock(recorded))).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn clone(stream: &TcpStream) -> TcpStream {
    stream.set_nodelay(true).expect("set");
    stream.try_clone().expect("a handle")
}

/// Copies bytes. They are recorded after `wait` and before they are passed on: what the client was told is never missing. Ends
/// when the recorded bytes are not to be kept.
fn copy(
    (mut from, mut to): (TcpStream, TcpStream),
    recorded: &Mutex<Recorded>,
    side: fn(&mut Recorded) -> &mut Vec<u8>,
    wait: impl Fn(),
    keep: impl Fn(&[u8]) -> bool,
) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        wait();
        let is_kept = {
            let mut recorded = lock(recorded);
            let bytes = side(&mut recorded);
            // A text may be in two parts.
            let start = bytes.len().saturating_sub(64);
            bytes.extend_from_slice(&buffer[..count]);
            keep(&bytes[start..])
        };
        if !is_kept || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _closed = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

/// Splits a stream into its complete packets: the first byte, and what follows the length.
fn packets(mut bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let mut packets = Vec::new();
    loop {
        let (mut length, mut at) = (0, 1);
        loop {
            let Some(byte) = bytes.get(at) else { return packets };
            length |= usize::from(byte & 0x7F) << (7 * (at - 1));
            at += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let Some(body) = bytes.get(at..at + length) else { return packets };
        packets.push((bytes[0], body));
        bytes = &bytes[at + length..];
    }
}

/// The number of topics of a packet, if it is SUBSCRIBE.
fn topics_of((first, body): (u8, &[u8])) -> Option<usize> {
    if first >> 4 != 8 {
        return None;
    }
    // The packet id, and the length of the properties, which is 0.
    let (mut left, mut count) = (body.get(3..)?, 0);
    while !left.is_empty() {
        left = left.get(3 + usize::from(number(left))..)?;
        count += 1;
    }
    Some(count)
}

fn number(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}

fn published(recorded: &Recorded) -> Vec<Published> {
    let mut published: Vec<(u16, Published)> = Vec::new();
    for (first, body) in packets(&recorded.to_broker) {
        if first >> 4 != 3 {
            continue;
        }
        let topic = usize::from(number(body));
        let id = number(&body[2 + topic..]);
        // The status of the sink is no event.
        if let Some(event) = parse_id(&String::from_utf8_lossy(&body[4 + topic..])) {
            published.push((id, Published { event, is_acknowledged: false }));
        }
    }
    for (first, body) in packets(&recorded.to_client) {
        let is_taken = body.get(2).is_none_or(|reason| *reason < 0x80);
        if first >> 4 == 4 && is_taken {
            // Ids are used again, in their order.
            let open = published.iter_mut().find(|(id, one)| *id == number(body) && !one.is_acknowledged);
            if let Some((_, one)) = open {
                one.is_acknowledged = true;
            }
        }
    }
    published.into_iter().map(|(_, one)| one).collect()
}
