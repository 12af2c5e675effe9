//! The state that requests, workers, the writer's thread and the maintenance thread share.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::dead::DeadLetters;
use super::error::LogError;
use super::frame::{SinkNumber, SinkSet};
use super::ids::{Ids, Key};
use super::segment::SegmentReader;
use super::source::Segments;
use super::state::{SinkState, State};
use super::tail::Tail;
use super::{Appended, Bounds, Log, Observer, StartAt, StoreId};
use crate::disk::{Disk, DiskFile};
use crate::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use crate::sync::{Condvar, Mutex, oneshot};
use dt_sink::clock::Clock;
use dt_sink::record::Record;

/// The names of all files that a log opens, creates, replaces or refuses in its folder. `*` stands for a number.
pub const FILE_NAMES: [&str; 18] = [
    "segment-*.log",
    "spare-*.tmp",
    "spool.lock",
    "control.sock",
    "dead.db",
    "dead.db-journal",
    "dead.db-wal",
    "dead.db-shm",
    "ids.db",
    "ids.db-journal",
    "ids.db-wal",
    "ids.db-shm",
    "ids.db.unfinished",
    "ids.db.unfinished-journal",
    "ids.db.unfinished-wal",
    "ids.db.unfinished-shm",
    // Of the unreleased first edition.
    "spool.db",
    "spool.journal",
];

/// The shared state of an open log. Locks are taken in the order `queue`, `state`, `files`.
#[derive(Debug)]
pub(super) struct Shared {
    pub folder: PathBuf,
    pub store: StoreId,
    pub disk: Arc<dyn Disk>,
    pub clock: Arc<dyn Clock>,
    pub observer: Arc<dyn Observer>,
    /// The name of the sink for which no segment is kept if there is no room.
    pub gives_way: Option<Arc<str>>,
    /// The length of a segment's file in bytes.
    pub segment_bytes: u64,
    pub bounds: Mutex<Bounds>,
    pub queue: Mutex<Queue>,
    /// Wakes the writer, which waits while `queue` is empty.
    pub has_work: Condvar,
    /// Increases whenever ids are moved from [`Queue::recent`] to the index.
    pub ids_epoch: AtomicU64,
    /// Whether a look-up in the index has failed, which is logged once.
    pub lookups_fail: AtomicBool,
    /// When the last event was received, in Unix milliseconds. Its token was valid then, so this time does not depend on
    /// the system clock alone.
    pub received_last: AtomicI64,
    /// The lock on the folder; `None` once the log is closed. The lock file contains the number of the newest segment.
    pub lock: Mutex<Option<Box<dyn DiskFile>>>,
    pub ids: Ids,
    pub dead: Arc<DeadLetters>,
    pub tail: Arc<Tail>,
    /// The durable state of sinks and connectors: a change is applied once the group that contains it is synced.
    pub state: Mutex<State>,
    pub files: Mutex<Files>,
    /// Wakes the maintenance thread, and a writer that waits for a spare.
    pub files_changed: Condvar,
}

/// The requests that wait for the writer.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub appends: Vec<Append>,
    /// The approximate size of `appends` in bytes.
    pub bytes: usize,
    pub cursors: Vec<CursorUpdate>,
    /// When the oldest cursor was queued; `None` if none is queued.
    pub cursors_since: Option<Instant>,
    pub changes: Vec<ChangeRequest>,
    /// The number of the oldest segment to keep: once it is recorded durably, earlier segments can be removed. `None` if there is
    /// nothing to record.
    pub keep_from: Option<u64>,
    /// The events that are not in the index yet, with the ticket under which each was queued.
    pub recent: HashMap<Key, u64>,
    /// The keys of the durable events in `recent`, in order. Unless `lacks_earlier`, the index and these keys cover all events up
    /// to `unstored_to`.
    pub unstored: Vec<Key>,
    pub unstored_to: i64,
    /// Whether the index lacks ids of earlier events, since its file was replaced or too many ids had to wait. Those ids are read
    /// from the log.
    pub lacks_earlier: bool,
    pub next_ticket: u64,
    /// All events with a ticket up to this one are durable.
    pub durable_ticket: u64,
    /// The error with which events are refused; `None` while they are accepted.
    pub blocked_by: Option<LogError>,
    pub is_closed: bool,
}

/// A queued event, or a copy of one.
#[derive(Debug)]
pub(super) struct Append {
    /// The event and its sinks; `None` for a copy of an event that is not durable yet. Such a copy is answered together with the
    /// next group.
    pub event: Option<(Arc<Record>, SinkSet)>,
    pub key: Option<Key>,
    pub ticket: u64,
    pub reply: oneshot::Sender<Result<Appended, LogError>>,
}

impl Append {
    /// Returns the approximate size of the event in a group, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.event.as_ref().map_or(0, |(record, _)| record.body.len().saturating_add(super::EVENT_BYTES))
    }
}

impl Queue {
    /// Removes the next events from the queue: up to `max_group` bytes, but at least one event.
    pub(super) fn take_appends(&mut self, max_group: usize) -> Vec<Append> {
        if self.bytes <= max_group {
            self.bytes = 0;
            return std::mem::take(&mut self.appends);
        }
        let mut taken = 0_usize;
        let is_within = |append: &&Append| {
            let before = taken;
            taken = taken.saturating_add(append.bytes());
            before == 0 || taken <= max_group
        };
        let count = self.appends.iter().take_while(is_within).count();
        let rest = self.appends.split_off(count);
        let first = std::mem::replace(&mut self.appends, rest);
        self.bytes = self.bytes.saturating_sub(first.iter().map(Append::bytes).sum());
        first
    }
}

/// A queued update of a sink's progress. A later update of the same sink replaces it.
#[derive(Debug)]
pub(super) struct CursorUpdate {
    pub sink: SinkNumber,
    pub cursor: i64,
    pub checkpoint: Option<Vec<u8>>,
    pub ends_replay: bool,
    /// The callers that wait until the progress is durable.
    pub replies: Vec<oneshot::Sender<Result<(), LogError>>>,
}

/// A queued change whose caller waits for it.
#[derive(Debug)]
pub(super) struct ChangeRequest {
    pub change: Change,
    /// Receives the state of the sink after the change, if the sink exists.
    pub reply: oneshot::Sender<Result<Option<SinkState>, LogError>>,
}

/// A change of the log's state, other than a cursor.
#[derive(Debug)]
pub(super) enum Change {
    /// Registers a sink, unless it is known.
    Register {
        name: Arc<str>,
        start: StartAt,
        connectors: Vec<Arc<str>>,
    },
    Forget {
        name: Arc<str>,
    },
    Replay {
        name: Arc<str>,
        after: i64,
    },
}

/// The segments and spares of the log.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// The segments, oldest first. Their numbers have no gaps.
    pub segments: Vec<Segment>,
    pub spares: Vec<PathBuf>,
    /// Whether the last spare became the newest segment: it is reserved for cursors and changes, so that old events can be
    /// removed.
    pub is_reserve: bool,
    /// The highest number that was used in the name of a spare.
    pub last_spare: u64,
    /// Why no further spare can be created; `None` if one can.
    pub no_spare: Option<LogError>,
    /// Whether the maintenance thread has work.
    pub is_due: bool,
    pub is_stopping: bool,
}

/// A segment, with the values of its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub number: u64,
    pub first_seq: i64,
    /// When the last event before this segment was received, in Unix milliseconds.
    pub received_before: i64,
}

impl Shared {
    /// Wakes the maintenance thread.
    pub(super) fn maintain(&self) {
        self.files.lock().is_due = true;
        self.files_changed.notify_all();
    }

    /// Refuses events with this error until [`accept_again`](Self::accept_again).
    pub(super) fn refuse(&self, error: &LogError) {
        let mut queue = self.queue.lock();
        if queue.blocked_by.is_none() {
            tracing::error!(code = error.code(), %error, "no events can be stored; DT keeps them, and retries for 12 hours");
        }
        queue.blocked_by = Some(error.clone());
        drop(queue);
        self.tail.set_last_error(Some(error.to_string()));
    }

    /// Accepts events again, if they were refused.
    pub(super) fn accept_again(&self) {
        let was_refused = self.queue.lock().blocked_by.take().is_some();
        if was_refused {
            self.tail.set_last_error(None);
            tracing::info!("events are stored again");
        }
    }

    /// Takes the proposed number of the oldest segment to keep, for the writer. A sink may have begun to need an older segment
    /// since the proposal; the one that gives way never begins to.
    pub(super) fn take_keep_from(&self, queue: &mut Queue) -> Option<u64> {
        let proposed = queue.keep_from.take()?;
        let passed = self.state.lock().passed(self.gives_way.as_deref()).unwrap_or(0);
        number_of(&self.files.lock().segments, passed.saturating_add(1)).map(|needed| needed.min(proposed))
    }

    /// Returns the last sequence number before the first event of the segments from `oldest` on.
    pub(super) fn before(&self, oldest: u64) -> i64 {
        let files = self.files.lock();
        let first = files.segments.iter().find(|segment| segment.number >= oldest);
        first.map_or(0, |segment| segment.first_seq.saturating_sub(1))
    }

    /// Returns how many of the oldest segments every sink but `except` has passed, and have no events after the sequence number
    /// `stored`. The newest segment is never one of them.
    pub(super) fn passed_segments(&self, stored: i64, except: Option<&str>) -> usize {
        let passed = self.state.lock().passed(except).unwrap_or(0);
        let files = self.files.lock();
        let is_passed = |next: &&Segment| {
            let last = next.first_seq.saturating_sub(1);
            last <= passed && last <= stored
        };
        files.segments.iter().skip(1).take_while(is_passed).count()
    }

    /// Returns the size of the segments that every sink has passed, in bytes. Their ids are stored when they have to be removed.
    pub(super) fn removable_bytes(&self) -> u64 {
        let passed = self.passed_segments(i64::MAX, None);
        u64::try_from(passed).unwrap_or(u64::MAX).saturating_mul(self.segment_bytes)
    }

    /// Returns the size of segments, spares and dead letters, in bytes.
    pub(super) fn used_bytes(&self) -> u64 {
        let files = self.files.lock();
        let count =
            u64::try_from(files.segments.len().saturating_add(files.spares.len())).unwrap_or(u64::MAX);
        drop(files);
        count.saturating_mul(self.segment_bytes).saturating_add(self.dead.size_bytes())
    }

    /// Queues a change, and blocks until it is durable. Returns the state of its sink after it; `None` if the sink is unknown or
    /// was forgotten.
    pub(super) fn change(&self, change: Change) -> Result<Option<SinkState>, LogError> {
        let (reply, answer) = oneshot::channel();
        {
            let mut queue = self.queue.lock();
            if queue.is_closed {
                return Err(LogError::Closed);
            }
            queue.changes.push(ChangeRequest { change, reply });
        }
        self.has_work.notify_one();
        answer.blocking_recv().map_err(|_| LogError::Closed)?
    }
}

impl Log {
    /// Returns the size of the log without the dedup index, in bytes.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.shared.used_bytes()
    }

    /// Returns the size of the segments that every sink has passed, in bytes: a part of [`used_bytes`](Self::used_bytes) that only
    /// [`Bounds::retain`] keeps, and that is removed when there is no room.
    #[must_use]
    pub fn removable_bytes(&self) -> u64 {
        self.shared.removable_bytes()
    }
}

impl Segments for Shared {
    fn segment_of(&self, seq: i64) -> Result<Option<(SegmentReader, u64)>, LogError> {
        let number = number_of(&self.files.lock().segments, seq);
        let Some(number) = number else { return Ok(None) };
        open_at(&*self.disk, &self.folder, self.store, number, seq).map(Some)
    }

    fn first_seq_after(&self, number: u64) -> i64 {
        first_seq_after(&self.files.lock().segments, number)
    }
}

/// Returns the number of the segment to which an event with this sequence number belongs; `None` if all segments are later.
pub fn number_of(segments: &[Segment], seq: i64) -> Option<u64> {
    let place = segments.partition_point(|segment| segment.first_seq <= seq);
    place.checked_sub(1).and_then(|place| segments.get(place)).map(|segment| segment.number)
}

/// Returns the first sequence number of the segment after `number`; `i64::MAX` if this is the newest segment.
pub fn first_seq_after(segments: &[Segment], number: u64) -> i64 {
    let place = segments.partition_point(|segment| segment.number <= number);
    segments.get(place).map_or(i64::MAX, |segment| segment.first_seq)
}

/// Opens the segment with a sequence number, at the group that contains it. The second value is the segment's number.
pub fn open_at(
    disk: &dyn Disk,
    folder: &Path,
    store: StoreId,
    number: u64,
    seq: i64,
) -> Result<(SegmentReader, u64), LogError> {
    let mut reader = SegmentReader::open(disk, folder, number, Some(store))?.reader;
    reader.skip_to(seq).map_err(|error| LogError::io(reader.path(), "reading", &error))?;
    Ok((reader, number))
}

/// Returns the path of the lock file. It contains the number of the newest segment.
pub fn lock_path(folder: &Path) -> PathBuf {
    folder.join("spool.lock")
}

/// Returns the path of a spare: a file that is prepared to become a segment.
pub fn spare_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("spare-{number}.tmp"))
}
