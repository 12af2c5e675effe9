//! A steady load: some devices, each on a connection of its own that stays open, one event after another.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread::JoinHandle;

use crate::events::body;
use crate::place::{SECRET, token, until};
use crate::sender::Sender;

const DEVICES: u64 = 4;

/// Devices that send until they are told to stop.
pub(crate) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<(u64, u64)>>,
}

struct Shared {
    stop: AtomicBool,
    acknowledged: AtomicU64,
    secret: Mutex<String>,
    failures: Mutex<Vec<String>>,
}

impl Load {
    pub(crate) fn start(address: SocketAddr) -> Self {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            secret: Mutex::new(SECRET.to_owned()),
            failures: Mutex::default(),
        });
        let threads = (0..DEVICES).map(|device| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || send(address, device, &shared))
        });
        let load = Self { threads: threads.collect(), shared };
        load.go_on();
        load
    }

    fn failures(&self) -> MutexGuard<'_, Vec<String>> {
        self.shared.failures.lock().expect("nobody panicked")
    }

    /// Waits until each device was answered a few times more, so that what was changed has had its chance to hurt.
    pub(crate) fn go_on(&self) {
        let goal = self.shared.acknowledged.load(Ordering::SeqCst) + DEVICES * 5;
        until("the load goes on", || {
            assert!(self.failures().is_empty(), "{:?}", self.failures());
            self.shared.acknowledged.load(Ordering::SeqCst) >= goal
        });
    }

    /// Signs with another secret from now on.
    pub(crate) fn sign_with(&self, secret: &str) {
        secret.clone_into(&mut self.shared.secret.lock().expect("nobody panicked"));
    }

    /// Stops; no request may have failed. Gives all that was acknowledged: each device and its number of events.
    pub(crate) fn stop(self) -> Vec<(u64, u64)> {
        self.shared.stop.store(true, Ordering::SeqCst);
        let sent = self.threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
        let failures = self.shared.failures.lock().expect("nobody panicked");
        assert!(failures.is_empty(), "{failures:?}");
        sent
    }
}

fn send(address: SocketAddr, device: u64, shared: &Shared) -> (u64, u64) {
    let mut sender = Sender::connect(address).expect("it listens");
    let mut number = 0;
    while !shared.stop.load(Ordering::SeqCst) {
        let body = body(device, number);
        let secret = shared.secret.lock().expect("nobody panicked").clone();
        match sender.post("/", &body, &token(&body, &secret)) {
            Some(answer) if answer.status == 200 && answer.body.contains("accepted") => {}
            other => {
                shared
                    .failures
                    .lock()
                    .expect("nobody panicked")
                    .push(format!("{device}/{number}: {other:?}"));
                break;
            }
        }
        number += 1;
        shared.acknowledged.fetch_add(1, Ordering::SeqCst);
    }
    (device, number)
}

/// A sink has exactly what was acknowledged, each once, and each device's in order.
pub(crate) fn assert_all_once_in_order(ids: &[(u64, u64)], sent: &[(u64, u64)]) {
    for (device, count) in sent {
        let numbers: Vec<u64> =
            ids.iter().filter(|(of, _)| of == device).map(|(_, number)| *number).collect();
        assert_eq!(numbers, (0..*count).collect::<Vec<_>>(), "device {device}");
    }
    let all: u64 = sent.iter().map(|(_, count)| count).sum();
    assert_eq!(ids.len() as u64, all, "events that nobody sent");
}

/// A sink has a stretch of each device's events: none is missing between the first and the last.
pub(crate) fn assert_stretches(ids: &[(u64, u64)]) {
    for device in 0..DEVICES {
        let numbers: Vec<u64> =
            ids.iter().filter(|(of, _)| *of == device).map(|(_, number)| *number).collect();
        let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else {
            panic!("nothing of device {device}");
        };
        assert_eq!(numbers, (*first..=*last).collect::<Vec<_>>(), "device {device}");
    }
}
