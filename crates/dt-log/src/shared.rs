//! What requests, workers, the writer's thread and the maintenance thread share.

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
use super::{Appended, Bounds, Observer, StartAt, StoreId};
use crate::disk::{Disk, DiskFile};
use crate::sync::atomic::{AtomicI64, AtomicU64};
use crate::sync::{Condvar, Mutex, oneshot};
use dt_sink::clock::Clock;
use dt_sink::record::Record;

/// Everything that more than one thread needs. Locks are taken in the order `queue`, `state`, `files`.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) folder: PathBuf,
    pub(super) store: StoreId,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) observer: Arc<dyn Observer>,
    /// The length of a segment's file in bytes.
    pub(super) segment_bytes: u64,
    pub(super) bounds: Mutex<Bounds>,
    pub(super) queue: Mutex<Queue>,
    /// Wakes the writer.
    pub(super) has_work: Condvar,
    /// Grows whenever ids leave [`Queue::recent`] for the index.
    pub(super) ids_epoch: AtomicU64,
    /// When the last event was received, in Unix milliseconds: its token was valid then, so DT's clock vouches for this time.
    pub(super) received_last: AtomicI64,
    /// The lock on the folder, until the log is closed; its content is the number of the newest segment.
    pub(super) lock: Mutex<Option<Box<dyn DiskFile>>>,
    pub(super) ids: Ids,
    pub(super) dead: Arc<DeadLetters>,
    pub(super) tail: Arc<Tail>,
    /// What is durable.
    pub(super) state: Mutex<State>,
    pub(super) files: Mutex<Files>,
    /// Wakes the maintenance thread, and the writer that waits for a spare.
    pub(super) files_changed: Condvar,
}

/// What waits for the writer.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) appends: Vec<Append>,
    /// How many bytes of bodies they have.
    pub(super) bytes: usize,
    pub(super) cursors: Vec<CursorUpdate>,
    /// Since when a cursor waits to be written.
    pub(super) cursors_since: Option<Instant>,
    pub(super) changes: Vec<ChangeRequest>,
    /// The segments before this one are to go, once that is durable.
    pub(super) keep_from: Option<u64>,
    /// The events that the index does not have yet, with the ticket under which each was queued.
    pub(super) recent: HashMap<Key, u64>,
    /// Those among them that are durable, in order, and the sequence number up to which they are all there.
    pub(super) unstored: Vec<Key>,
    pub(super) unstored_to: i64,
    pub(super) next_ticket: u64,
    /// Events up to this ticket are durable.
    pub(super) durable_ticket: u64,
    /// Why events are not taken, if they are not.
    pub(super) refusal: Option<LogError>,
    pub(super) is_closed: bool,
}

/// An event that waits, or a copy of one.
#[derive(Debug)]
pub(super) struct Append {
    /// `None`: a copy of an event that is not durable yet. It is answered with the next group.
    pub(super) event: Option<(Arc<Record>, SinkSet)>,
    pub(super) key: Option<Key>,
    pub(super) ticket: u64,
    pub(super) reply: oneshot::Sender<Result<Appended, LogError>>,
}

impl Append {
    /// What it takes in a group, about.
    pub(super) fn bytes(&self) -> usize {
        self.event.as_ref().map_or(0, |(record, _)| record.body.len().saturating_add(super::EVENT_BYTES))
    }
}

impl Queue {
    /// Takes events until they are too many bytes for one group.
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

/// How far a sink is; a later one takes the place of an earlier one that still waits.
#[derive(Debug)]
pub(super) struct CursorUpdate {
    pub(super) sink: SinkNumber,
    pub(super) cursor: i64,
    pub(super) checkpoint: Option<Vec<u8>>,
    pub(super) ends_replay: bool,
    /// Whoever waits until it is durable.
    pub(super) replies: Vec<oneshot::Sender<Result<(), LogError>>>,
}

/// A change that somebody waits for.
#[derive(Debug)]
pub(super) struct ChangeRequest {
    pub(super) change: Change,
    /// Told the sink after the change, if there is one.
    pub(super) reply: oneshot::Sender<Result<Option<SinkState>, LogError>>,
}

/// What changes the state, beside cursors.
#[derive(Debug)]
pub(super) enum Change {
    /// A sink is known from now on, unless it is.
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

/// The segments and spares that there are.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Oldest first; their numbers have no gaps.
    pub(super) segments: Vec<Segment>,
    pub(super) spares: Vec<PathBuf>,
    /// Whether the newest segment was the last spare: it is for cursors and changes, so that events can leave.
    pub(super) is_reserve: bool,
    /// The number of the last spare that was named.
    pub(super) last_spare: u64,
    /// Why no further spare can be made, if it cannot.
    pub(super) no_spare: Option<LogError>,
    /// The maintenance thread has something to do.
    pub(super) is_due: bool,
    pub(super) is_stopping: bool,
}

/// What is known of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) first_seq: i64,
    /// When the last event before it was received, in Unix milliseconds.
    pub(super) received_before: i64,
}

impl Shared {
    /// Wakes the maintenance thread.
    pub(super) fn maintain(&self) {
        self.files.lock().is_due = true;
        self.files_changed.notify_all();
    }

    /// Takes no events until that is over.
    pub(super) fn refuse(&self, error: &LogError) {
        let mut queue = self.queue.lock();
        if queue.refusal.is_none() {
            tracing::error!(code = error.code(), %error, "no events can be stored; DT keeps them, and tries again for 12 hours");
        }
        queue.refusal = Some(error.clone());
        drop(queue);
        self.tail.set_trouble(Some(error.to_string()));
    }

    /// Events are taken again, if they were not.
    pub(super) fn accept_again(&self) {
        let was_refused = self.queue.lock().refusal.take().is_some();
        if was_refused {
            self.tail.set_trouble(None);
            tracing::info!("events are stored again");
        }
    }

    /// The sequence number before the first event of the segments from `oldest` on.
    pub(super) fn before(&self, oldest: u64) -> i64 {
        let files = self.files.lock();
        let first = files.segments.iter().find(|segment| segment.number >= oldest);
        first.map_or(0, |segment| segment.first_seq.saturating_sub(1))
    }

    /// How many bytes the segments, the spares and the dead letters take.
    pub(super) fn used_bytes(&self) -> u64 {
        let files = self.files.lock();
        let count =
            u64::try_from(files.segments.len().saturating_add(files.spares.len())).unwrap_or(u64::MAX);
        drop(files);
        count.saturating_mul(self.segment_bytes).saturating_add(self.dead.size_bytes())
    }

    /// Has something changed, and waits until that is durable. It blocks.
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

/// The number of the segment that holds a sequence number.
pub(super) fn number_of(segments: &[Segment], seq: i64) -> Option<u64> {
    let place = segments.partition_point(|segment| segment.first_seq <= seq);
    place.checked_sub(1).and_then(|place| segments.get(place)).map(|segment| segment.number)
}

/// The sequence number that the segment after this one begins with.
pub(super) fn first_seq_after(segments: &[Segment], number: u64) -> i64 {
    let place = segments.partition_point(|segment| segment.number <= number);
    segments.get(place).map_or(i64::MAX, |segment| segment.first_seq)
}

/// Opens a segment at the group that holds a sequence number.
pub(super) fn open_at(
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

/// The file that tells a running process from others, and has the number of the newest segment.
pub(super) fn lock_path(folder: &Path) -> PathBuf {
    folder.join("spool.lock")
}

/// The file of a spare: a segment to be.
pub(super) fn spare_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("spare-{number}.tmp"))
}
