//! Senders, each with a connection and a device of its own, and a ledger of what they were answered.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::events::{body, now, token};
use crate::sender::Sender;

/// What a sender does about an answer that is no 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// The test has failed.
    Strict,
    /// It is noted, and the next event is sent.
    Noting,
    /// The event is sent again, as DT does, until it is answered with 200.
    Insisting,
}

/// Events of some devices.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    pub(crate) devices: Range<u64>,
    pub(crate) manner: Manner,
    /// How long after one event the next one of the device is sent.
    pub(crate) every: Duration,
    /// How many events each device sends at most.
    pub(crate) events: u64,
    /// Makes the body of an event of a device.
    pub(crate) body: fn(u64, u64) -> String,
}

/// What became of what was sent.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// The events of each device that were answered with 200.
    pub(crate) accepted: BTreeSet<(u64, u64)>,
    /// How often each status was answered.
    pub(crate) statuses: BTreeMap<u16, u64>,
    /// How many connections broke before there was an answer.
    pub(crate) broken: u64,
    pub(crate) slowest: Duration,
}

impl Ledger {
    pub(crate) fn count(&self) -> usize {
        self.accepted.len()
    }

    /// Adds another one.
    pub(crate) fn add(&mut self, other: Self) {
        self.accepted.extend(other.accepted);
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        self.broken += other.broken;
        self.slowest = self.slowest.max(other.slowest);
    }
}

/// Tells threads to stop, also when what they run beside has failed.
pub(crate) struct StopAtEnd<'a>(pub(crate) &'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Load {
    /// Each device sends this many events, as fast as they are answered.
    pub(crate) const fn of(address: SocketAddr, devices: Range<u64>, events: u64) -> Self {
        Self { address, devices, manner: Manner::Strict, every: Duration::ZERO, events, body }
    }

    /// So many events a second, of all devices together, for as long as something else is going on.
    pub(crate) fn steady(address: SocketAddr, devices: Range<u64>, rate: u64, manner: Manner) -> Self {
        let every = Duration::from_micros((devices.end - devices.start) * 1_000_000 / rate);
        Self { address, devices, manner, every, events: u64::MAX, body }
    }

    /// Sends other bodies.
    #[allow(dead_code, reason = "not each test does")]
    pub(crate) const fn with_body(mut self, body: fn(u64, u64) -> String) -> Self {
        self.body = body;
        self
    }

    /// Sends all of it.
    pub(crate) fn send(&self) -> Ledger {
        self.send_until(&AtomicBool::new(false))
    }

    /// Sends while `act` runs.
    pub(crate) fn during(&self, act: impl FnOnce()) -> Ledger {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| self.send_until(&stop));
            {
                let _stop = StopAtEnd(&stop);
                act();
            }
            sending.join().expect("senders that did not fail")
        })
    }

    fn send_until(&self, stop: &AtomicBool) -> Ledger {
        let mut ledger = Ledger::default();
        std::thread::scope(|scope| {
            let senders: Vec<_> =
                self.devices.clone().map(|device| scope.spawn(move || self.send_of(device, stop))).collect();
            for sender in senders {
                ledger.add(sender.join().expect("a sender that did not fail"));
            }
        });
        ledger
    }

    /// All events of one device, one after the other.
    fn send_of(&self, device: u64, stop: &AtomicBool) -> Ledger {
        let (mut ledger, mut sender) = (Ledger::default(), None);
        let mut due = Instant::now();
        for number in 0..self.events {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            due += self.every;
            if stop.load(Ordering::Relaxed) {
                break;
            }
            // One that insists is not stopped halfway: its event may have arrived.
            while !self.send_one(device, number, &mut sender, &mut ledger) {}
        }
        ledger
    }

    /// Sends an event once. Whether it is done with.
    fn send_one(&self, device: u64, number: u64, sender: &mut Option<Sender>, ledger: &mut Ledger) -> bool {
        let connected = sender.take().or_else(|| Sender::connect(self.address));
        let (sent, body) = (Instant::now(), (self.body)(device, number));
        let token = token(&body, now());
        let answer = connected.and_then(|mut connected| {
            let answer = connected.post("/", &body, &token)?;
            *sender = Some(connected);
            Some(answer)
        });
        ledger.slowest = ledger.slowest.max(sent.elapsed());
        match answer {
            Some(answer) => {
                *ledger.statuses.entry(answer.status).or_default() += 1;
                let is_accepted = answer.status == 200;
                if is_accepted {
                    ledger.accepted.insert((device, number));
                }
                assert!(is_accepted || self.manner != Manner::Strict, "dev{device}, {number}: {answer:?}");
                if !is_accepted && self.manner == Manner::Insisting {
                    std::thread::sleep(Duration::from_millis(50));
                }
                is_accepted || self.manner == Manner::Noting
            }
            None => {
                ledger.broken += 1;
                assert!(self.manner != Manner::Strict, "dev{device}, {number}: no answer");
                std::thread::sleep(Duration::from_millis(50));
                self.manner == Manner::Noting
            }
        }
    }
}
