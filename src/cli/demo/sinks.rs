//! The two sinks of the demo: one writes to the screen, the other can be taken down.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;

use super::screen::{self, EventLine};
use super::values;
use dt_sink::record::Record;
use dt_sink::{OpenError, Outcome, Sink};

/// The ids of the received events, in the order of receipt, and their number.
#[derive(Debug, Default)]
pub struct ReceivedIds {
    ids: Mutex<Vec<String>>,
    count: watch::Sender<usize>,
}

impl ReceivedIds {
    pub fn add(&self, id: &str) {
        self.ids.lock().push(id.to_owned());
        self.count.send_modify(|count| *count = count.saturating_add(1));
    }

    pub fn count(&self) -> usize {
        *self.count.borrow()
    }

    /// Waits until `count` events are received.
    pub async fn reach(&self, count: usize) {
        let mut counts = self.count.subscribe();
        // It fails only if the sender is dropped, which `self` owns.
        let _reached = counts.wait_for(|now| *now >= count).await;
    }

    pub fn ids(&self) -> Vec<String> {
        self.ids.lock().clone()
    }

    /// Returns how many of `ids` were not received.
    pub fn missing(&self, ids: &[String]) -> usize {
        let known = self.ids.lock();
        let known: HashSet<&str> = known.iter().map(String::as_str).collect();
        ids.iter().filter(|id| !known.contains(id.as_str())).count()
    }
}

/// The events of the two sinks, and the state of the archive.
#[derive(Debug, Default)]
pub struct Delivered {
    pub screen: ReceivedIds,
    pub archive: ReceivedIds,
    archive_is_down: AtomicBool,
    /// Whether the archive is behind: from the start of the outage until it has caught up.
    archive_is_behind: AtomicBool,
    /// Whether a delivery to the archive has failed.
    archive_failed: watch::Sender<bool>,
    output_closed: watch::Sender<bool>,
}

impl Delivered {
    pub fn take_archive_down(&self) {
        self.archive_is_behind.store(true, Ordering::SeqCst);
        self.archive_is_down.store(true, Ordering::SeqCst);
    }

    /// Waits until a delivery to the archive has failed.
    pub async fn archive_failed(&self) {
        become_true(&self.archive_failed).await;
    }

    pub fn bring_archive_up(&self) {
        self.archive_is_down.store(false, Ordering::SeqCst);
    }

    pub fn archive_caught_up(&self) {
        self.archive_is_behind.store(false, Ordering::SeqCst);
    }

    /// Waits until standard output is closed, as with `| head`.
    pub async fn output_closed(&self) {
        become_true(&self.output_closed).await;
    }
}

async fn become_true(flag: &watch::Sender<bool>) {
    let mut changes = flag.subscribe();
    // It fails only if the sender is dropped, which the caller owns.
    let _changed = changes.wait_for(|flag| *flag).await;
}

/// A sink that writes a line for each event to the screen.
pub struct Screen(pub Arc<Delivered>);

impl Sink for Screen {
    fn open(&mut self, _checkpoint: Option<&[u8]>) -> Result<(), OpenError> {
        Ok(())
    }

    fn deliver(&mut self, batch: &[Arc<Record>]) -> Outcome {
        let delivered = &self.0;
        for record in batch {
            let count = delivered.screen.count().saturating_add(1);
            let waiting = count.saturating_sub(delivered.archive.count());
            let note = if delivered.archive_is_behind.load(Ordering::SeqCst) && waiting > 0 {
                format!("archive: {waiting} waiting")
            } else {
                String::new()
            };
            if show(record, &note).is_err() {
                delivered.output_closed.send_replace(true);
            }
            delivered.screen.add(&record.event_id);
        }
        Outcome::delivered(batch.len())
    }
}

fn show(record: &Record, note: &str) -> std::io::Result<()> {
    let body: Value = serde_json::from_slice(&record.body).unwrap_or_default();
    let payload = body.pointer("/event/data").and_then(|data| data.get(&*record.event_type));
    screen::event(&EventLine {
        time: &screen::time_of_day(record.received_at),
        device: body.pointer("/labels/name").and_then(Value::as_str).unwrap_or("?"),
        event_type: &record.event_type,
        value: &values::describe(&record.event_type, payload.unwrap_or(&Value::Null)),
        note,
    })
}

/// A sink that stores the ids of events, unless it is down.
pub struct Archive(pub Arc<Delivered>);

impl Sink for Archive {
    fn open(&mut self, _checkpoint: Option<&[u8]>) -> Result<(), OpenError> {
        Ok(())
    }

    fn deliver(&mut self, batch: &[Arc<Record>]) -> Outcome {
        if self.0.archive_is_down.load(Ordering::SeqCst) {
            self.0.archive_failed.send_replace(true);
            return Outcome::retry(batch.len(), "the demo has taken it down");
        }
        for record in batch {
            self.0.archive.add(&record.event_id);
        }
        Outcome::delivered(batch.len())
    }
}
