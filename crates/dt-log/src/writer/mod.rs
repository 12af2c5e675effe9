//! The writer: one thread that makes all queued requests durable, with one write and one sync.
//!
//! Only the writer appends to the newest segment and changes the state. A group that cannot be written or synced is written
//! once more to a new segment, whose header makes the remains of the first copy void. If that fails too, every waiting
//! caller gets the error, and a new segment is tried every second.

mod roll;

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Appended;
use super::StartAt;
use super::error::LogError;
use super::frame::{CursorFrame, Frame, SinkFrame, write_event};
use super::group::{self, Owner};
use super::segment::{self, SegmentHeader};
use super::shared::{Append, Change, ChangeRequest, CursorUpdate, Segment, Shared};
use super::state::State;
use crate::disk::{DiskFile, OpenMode};
use crate::sync::atomic::Ordering;
use dt_sink::record::Record;

/// The size limit of one group in bytes, unless a single body is larger.
const MAX_GROUP_BYTES: usize = 4 << 20;
/// The longest time that a cursor waits so that it can be written together with an event.
const CURSOR_WAIT: Duration = Duration::from_millis(50);
/// The time without a group after which an empty group is written, which proves that the group before it was durable.
const SEAL_AFTER: Duration = Duration::from_millis(50);
/// The time between two attempts to create a segment while there is none.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The longest time that the writer waits for a spare that is being created.
const SPARE_WAIT: Duration = Duration::from_secs(5);
/// The divisor of a segment's length: if less than this fraction of a segment is free, the next segment is created early, while
/// no caller waits.
const NEARLY_FULL: u64 = 256;

/// The state of the writer's thread.
pub struct Writer {
    pub shared: Arc<Shared>,
    pub current: Option<Current>,
    /// The number of the next segment.
    pub next_number: u64,
    /// The sequence number of the next event.
    pub next_seq: i64,
    /// The last group of the previous process; `None` once it is durable in a new segment.
    pub recovered: Option<Recovered>,
    /// The next sequence number after a gap; `None` once the gap is durable, or if there is none.
    pub skips_to: Option<i64>,
    /// The buffer in which a group is built.
    pub buffer: Vec<u8>,
    pub scratch: String,
    /// Whether the group in the buffer registers a sink, or requests a replay, that begins with the oldest event. Until this is
    /// applied to the state, no old segment may be removed.
    pub reaches_back: bool,
    /// When the last group was written; `None` if an empty group follows it.
    pub unsealed_since: Option<Instant>,
}

/// The segment to which groups are appended.
#[derive(Debug)]
pub struct Current {
    file: Box<dyn DiskFile>,
    owner: Owner,
    /// The offset in the file at which the next group is written, in bytes.
    at: u64,
}

/// The last group of the previous process, as it was read at the start.
#[derive(Debug)]
pub struct Recovered {
    pub frames: Vec<u8>,
    pub events: u32,
    pub first_seq: i64,
}

/// The requests that are made durable by one group.
#[derive(Debug, Default)]
struct Batch {
    appends: Vec<Append>,
    cursors: Vec<CursorUpdate>,
    changes: Vec<ChangeRequest>,
    keep_from: Option<u64>,
}

enum Turn {
    Batch(Batch),
    Seal,
    Retry,
    End,
}

impl Writer {
    /// Serves requests until the log is closed.
    pub fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        if std::panic::catch_unwind(AssertUnwindSafe(|| self.work())).is_err() {
            // An event may be in `recent` without being stored, so nothing is accepted any more.
            let text = "a panic in the writer; restart the receiver".to_owned();
            let error = LogError::Unwritable { path: shared.folder.clone(), text };
            shared.tail.set_last_error(Some(error.to_string()));
            let mut queue = shared.queue.lock();
            queue.is_closed = true;
            queue.blocked_by = Some(error);
            let (appends, changes) = (std::mem::take(&mut queue.appends), std::mem::take(&mut queue.changes));
            let cursors = std::mem::take(&mut queue.cursors);
            drop((queue, appends, changes, cursors));
        }
    }

    fn work(&mut self) {
        loop {
            match self.next_turn() {
                Turn::Batch(batch) => self.commit(batch),
                Turn::Seal => self.seal(),
                Turn::Retry => self.retry(),
                Turn::End => break,
            }
            let nearly_full = self.shared.segment_bytes.checked_div(NEARLY_FULL).unwrap_or(0);
            if self.current.as_ref().is_some_and(|current| self.room(current) < nearly_full)
                && let Err(error) = self.roll(true)
            {
                self.refuse(&error);
            }
        }
        self.seal();
    }

    /// Tries to accept events again. A failure is already logged, and is tried again later.
    fn retry(&mut self) {
        if self.current.is_none() {
            drop(self.ensure_segment(false));
        } else if self.end_reserve().is_ok() {
            self.shared.accept_again();
        }
    }

    /// Waits until there is something to do, and returns it.
    fn next_turn(&self) -> Turn {
        let mut queue = self.shared.queue.lock();
        // Cursors are written to the last spare, and no event has tested the disk since.
        let is_held_up = self.is_reserve() && matches!(queue.blocked_by, Some(LogError::Unwritable { .. }));
        let retries = self.current.is_none() || is_held_up;
        let retry_at = retries.then(Instant::now).and_then(|now| now.checked_add(RETRY_AFTER));
        loop {
            let now = Instant::now();
            let cursors_at = queue.cursors_since.and_then(|since| since.checked_add(CURSOR_WAIT));
            let is_due = queue.is_closed
                || cursors_at.is_some_and(|at| at <= now)
                || queue.cursors.iter().any(|cursor| !cursor.replies.is_empty());
            let has_small = !queue.cursors.is_empty() || queue.keep_from.is_some();
            if !queue.appends.is_empty() || !queue.changes.is_empty() || (is_due && has_small) {
                queue.cursors_since = None;
                let appends = queue.take_appends(self.max_group());
                let cursors = std::mem::take(&mut queue.cursors);
                let changes = std::mem::take(&mut queue.changes);
                let keep_from = self.shared.take_keep_from(&mut queue);
                return Turn::Batch(Batch { appends, cursors, changes, keep_from });
            }
            if queue.is_closed {
                return Turn::End;
            }
            let seal_at = self.unsealed_since.and_then(|since| since.checked_add(SEAL_AFTER));
            if seal_at.is_some_and(|at| at <= now) {
                return Turn::Seal;
            }
            if retry_at.is_some_and(|at| at <= now) {
                return Turn::Retry;
            }
            match [cursors_at, seal_at, retry_at].into_iter().flatten().min() {
                Some(until) => drop(self.shared.has_work.wait_until(&mut queue, until)),
                None => self.shared.has_work.wait(&mut queue),
            }
        }
    }

    /// Makes a batch of requests durable, and answers every caller in it.
    fn commit(&mut self, batch: Batch) {
        let started = Instant::now();
        let state = (!batch.changes.is_empty()).then(|| self.shared.state.lock().clone());
        let frames = self.frames_of(&batch, state.as_ref());
        group::begin(&mut self.buffer);
        for frame in &frames {
            frame.write(&mut self.buffer);
        }
        let mut events = 0_u32;
        for (record, sinks) in batch.appends.iter().filter_map(|append| append.event.as_ref()) {
            write_event(record, sinks, &mut self.scratch, &mut self.buffer);
            events = events.saturating_add(1);
        }
        let has_frames = events > 0 || !frames.is_empty();
        let reaches_back = |frame: &Frame<'_>| matches!(frame, Frame::Registered(_) | Frame::Replay { .. });
        self.reaches_back = frames.iter().any(reaches_back);
        let written = if has_frames {
            self.write_group(events)
        } else if self.recovered.is_some() {
            // A copy of a recovered event is answered only once that event is durable.
            self.ensure_segment(false)
        } else {
            Ok(())
        };
        self.reaches_back = false;
        match written {
            Ok(()) => {
                if !frames.is_empty() {
                    let mut state = self.shared.state.lock();
                    frames.iter().for_each(|frame| state.apply(frame));
                }
                drop(frames);
                self.answer(batch, events, started);
            }
            Err(error) => {
                drop(frames);
                self.fail(batch, &error);
            }
        }
    }

    /// Returns the frames of a batch, without its events.
    fn frames_of<'a>(&self, batch: &'a Batch, state: Option<&'a State>) -> Vec<Frame<'a>> {
        let mut frames = Vec::new();
        for CursorUpdate { sink, cursor, checkpoint, ends_replay, .. } in &batch.cursors {
            let (checkpoint, ends_replay) = (checkpoint.as_deref(), *ends_replay);
            frames.push(Frame::Cursor(CursorFrame { sink: *sink, cursor: *cursor, checkpoint, ends_replay }));
        }
        frames.extend(batch.keep_from.map(|oldest| Frame::Kept { oldest }));
        let Some(state) = state else { return frames };
        let (mut next_sink, mut named) = (state.next_sink, Vec::new());
        let before_oldest = self.shared.before(batch.keep_from.unwrap_or(0).max(state.oldest));
        for ChangeRequest { change, .. } in &batch.changes {
            match change {
                Change::Register { name, start, connectors } => {
                    if state.named(name).is_some() || named.contains(&name) {
                        continue;
                    }
                    // Without a number left, the caller gets no sink, which it reports.
                    let Some(following) = next_sink.checked_add(1) else { continue };
                    named.push(name);
                    let last = self.next_seq.saturating_sub(1);
                    let (cursor, earlier_of) = match start {
                        StartAt::Now => (last, Vec::new()),
                        StartAt::Retained => (before_oldest, connectors.iter().map(|name| &**name).collect()),
                    };
                    frames.push(Frame::Registered(SinkFrame {
                        sink: next_sink,
                        name,
                        cursor,
                        checkpoint: None,
                        replay_after: None,
                        earlier_to: last,
                        earlier_of,
                    }));
                    next_sink = following;
                }
                Change::Forget { name } => {
                    frames.extend(state.named(name).map(|sink| Frame::Forgotten { sink: sink.number }));
                }
                Change::Replay { name, after } => {
                    let Some(sink) = state.named(name) else { continue };
                    // Removed events cannot be replayed.
                    let after = (*after).max(before_oldest).min(sink.cursor);
                    frames.push(Frame::Replay { sink: sink.number, after });
                }
            }
        }
        frames
    }

    /// Answers the callers of a durable batch.
    #[expect(
        clippy::arithmetic_side_effects,
        reason = "`write_group` has checked the sum of `next_seq` and the number of events"
    )]
    fn answer(&mut self, batch: Batch, events: u32, started: Instant) {
        let Batch { appends, cursors, changes, keep_from } = batch;
        let first_seq = self.next_seq;
        self.next_seq += i64::from(events);
        let (mut accepted, mut replies, mut keys) =
            (Vec::new(), Vec::with_capacity(appends.len()), Vec::new());
        let (mut seq, mut last_ticket, mut received_last) = (first_seq, None, None);
        for Append { event, key, ticket, reply } in appends {
            let appended = match event {
                Some(event) => {
                    received_last = Some(event.0.received_at);
                    accepted.push(event);
                    keys.extend(key);
                    seq += 1;
                    Appended::New(seq - 1)
                }
                None => Appended::Duplicate,
            };
            last_ticket = Some(ticket);
            replies.push((reply, appended));
        }
        if let Some(received_last) = received_last {
            self.shared.received_last.store(received_last, Ordering::Relaxed);
            let mut state = self.shared.state.lock();
            let mut newest: Option<&Record> = None;
            // Consecutive events mostly have the same connector.
            for (record, _) in &accepted {
                if let Some(before) =
                    newest.filter(|before| !Arc::ptr_eq(&before.connector, &record.connector))
                {
                    state.accepted(&before.connector, before.received_at);
                }
                newest = Some(record);
            }
            newest.inspect(|last| state.accepted(&last.connector, last.received_at));
        }
        let is_flush_due = {
            let mut queue = self.shared.queue.lock();
            queue.durable_ticket = last_ticket.unwrap_or(queue.durable_ticket);
            queue.unstored.append(&mut keys);
            queue.unstored_to = self.next_seq.saturating_sub(1);
            queue.unstored.len() >= super::maintenance::STORE_IDS_AT
        };
        if !accepted.is_empty() {
            self.shared.tail.publish(first_seq, accepted);
        }
        // A caller that gave up waiting is no error, here and below.
        for (reply, appended) in replies {
            let _gone = reply.send(Ok(appended));
        }
        for reply in cursors.into_iter().flat_map(|cursor| cursor.replies) {
            let _gone = reply.send(Ok(()));
        }
        if !changes.is_empty() {
            let concerns_workers = |request: &ChangeRequest| {
                matches!(request.change, Change::Forget { .. } | Change::Replay { .. })
            };
            let is_for_workers = changes.iter().any(concerns_workers);
            for ChangeRequest { change, reply } in changes {
                let sink = match &change {
                    Change::Register { name, .. } | Change::Replay { name, .. } => {
                        self.shared.state.lock().named(name).cloned()
                    }
                    Change::Forget { .. } => None,
                };
                let _gone = reply.send(Ok(sink));
            }
            if is_for_workers {
                self.shared.tail.wake();
            }
        }
        if is_flush_due || keep_from.is_some() {
            self.shared.maintain();
        }
        self.shared.observer.committed(started.elapsed(), events);
    }

    /// Answers the callers of a batch that could not be stored with the error. The rest of the batch is tried again without its
    /// events, since it may still fit.
    fn fail(&mut self, batch: Batch, error: &LogError) {
        let Batch { appends, cursors, changes, keep_from } = batch;
        // An event that is too large does not stop the others.
        if !matches!(error, LogError::TooLarge { .. }) {
            self.refuse(error);
        }
        let has_events = appends.iter().any(|append| append.event.is_some());
        let mut queue = self.shared.queue.lock();
        let waiting = std::mem::take(&mut queue.appends);
        queue.bytes = 0;
        let mut replies = Vec::new();
        // Queued events may be copies of events that are not stored, so they fail as well.
        for Append { event, key, reply, .. } in appends.into_iter().chain(waiting) {
            if let (Some(_), Some(key)) = (event, key) {
                queue.recent.remove(&key);
            }
            replies.push(reply);
        }
        drop(queue);
        for reply in replies {
            let _gone = reply.send(Err(error.clone()));
        }
        if has_events && !(cursors.is_empty() && changes.is_empty() && keep_from.is_none()) {
            return self.commit(Batch { appends: Vec::new(), cursors, changes, keep_from });
        }
        self.keep_for_later(cursors, keep_from, error);
        for ChangeRequest { reply, .. } in changes {
            let _gone = reply.send(Err(error.clone()));
        }
    }

    /// Queues cursors again for which no caller waits, unless the log is closed.
    fn keep_for_later(&self, cursors: Vec<CursorUpdate>, keep_from: Option<u64>, error: &LogError) {
        let mut queue = self.shared.queue.lock();
        let is_closed = queue.is_closed;
        for mut cursor in cursors {
            for reply in cursor.replies.drain(..) {
                let _gone = reply.send(Err(error.clone()));
            }
            // Its worker received the error, did not move back, and repeats the request.
            if cursor.ends_replay {
                continue;
            }
            let newer = queue.cursors.iter_mut().find(|newer| newer.sink == cursor.sink);
            match newer {
                Some(newer) => newer.checkpoint = newer.checkpoint.take().or(cursor.checkpoint),
                None if is_closed => {}
                None => queue.cursors.push(cursor),
            }
        }
        if !is_closed {
            queue.keep_from = queue.keep_from.or(keep_from);
            queue.cursors_since = (!queue.cursors.is_empty()).then(Instant::now);
        }
    }

    /// Refuses events with this error, and wakes the maintenance thread.
    pub fn refuse(&self, error: &LogError) {
        self.shared.refuse(error);
        self.shared.maintain();
    }

    fn is_reserve(&self) -> bool {
        self.shared.files.lock().is_reserve
    }

    /// Returns the size limit of one group in bytes.
    fn max_group(&self) -> usize {
        let quarter = self.shared.segment_bytes.checked_div(4).unwrap_or(0);
        usize::try_from(quarter).unwrap_or(MAX_GROUP_BYTES).min(MAX_GROUP_BYTES)
    }

    fn room(&self, current: &Current) -> u64 {
        let end = current.at.saturating_add(u64::try_from(group::HEADER).unwrap_or(u64::MAX));
        self.shared.segment_bytes.saturating_sub(end)
    }

    /// Writes and syncs the group in the buffer. After a failure, tries once more in a new segment.
    fn write_group(&mut self, events: u32) -> Result<(), LogError> {
        // Checked before anything is written, so that `answer` cannot overflow. `i64::MAX` means after all events.
        let following =
            self.next_seq.checked_add(i64::from(events)).filter(|next| events == 0 || *next < i64::MAX);
        following.ok_or(LogError::Exhausted { what: "sequence numbers" })?;
        let length = u64::try_from(self.buffer.len()).unwrap_or(u64::MAX);
        self.ensure_segment(events > 0)?;
        if self.current.as_ref().is_none_or(|current| self.room(current) < length) {
            self.roll(events > 0)?;
            if self.current.as_ref().is_none_or(|current| self.room(current) < length) {
                return Err(LogError::TooLarge { bytes: self.buffer.len() });
            }
        }
        if events > 0 && self.is_reserve() {
            self.end_reserve()?;
        }
        let Err(error) = self.put(events, self.next_seq) else { return Ok(()) };
        tracing::error!(%error, "a group was not written; it is written to a new segment");
        self.current = None;
        self.roll(events > 0)?;
        let second = self.put(events, self.next_seq);
        if second.is_err() {
            self.current = None;
        }
        second
    }

    /// Writes the group in the buffer to the current segment, and syncs it.
    fn put(&mut self, events: u32, first_seq: i64) -> Result<(), LogError> {
        let path = self.shared.folder.clone();
        let failed = |error: std::io::Error| LogError::Unwritable { path, text: error.to_string() };
        let Some(current) = &mut self.current else {
            return Err(failed(std::io::ErrorKind::NotFound.into()));
        };
        let length = self.buffer.len();
        group::finish(&mut self.buffer, current.owner, events, first_seq);
        // The place of the next header is zero until a group is written there.
        self.buffer.resize(length.saturating_add(group::HEADER), 0);
        let written = current.file.write_all_at(&self.buffer, current.at);
        self.buffer.truncate(length);
        written.and_then(|()| current.file.sync_data()).map_err(failed)?;
        current.at = current.at.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        self.unsealed_since = Some(Instant::now());
        Ok(())
    }

    /// Creates a segment if there is none, with the recovered group.
    pub fn ensure_segment(&mut self, for_events: bool) -> Result<(), LogError> {
        if self.current.is_none() { self.roll(for_events) } else { Ok(()) }
    }

    /// Publishes the recovered group, which is durable now: copies of its events are duplicates, and workers may read it.
    fn end_recovery(&self) {
        let mut queue = self.shared.queue.lock();
        let recovered = queue.recent.iter().filter(|(_, ticket)| **ticket == super::RECOVERED_TICKET);
        let keys: Vec<_> = recovered.map(|(key, _)| *key).collect();
        queue.unstored.extend(keys);
        queue.unstored_to = self.next_seq.saturating_sub(1);
        queue.durable_ticket = queue.durable_ticket.max(super::RECOVERED_TICKET);
        drop(queue);
        self.shared.tail.recovered(self.next_seq.saturating_sub(1));
    }

    /// Writes a group without frames. If a later start can read it, the group before it was durable.
    fn seal(&mut self) {
        if self.unsealed_since.is_none() || self.current.is_none() {
            return;
        }
        group::begin(&mut self.buffer);
        let length = u64::try_from(self.buffer.len()).unwrap_or(u64::MAX);
        if self.current.as_ref().is_some_and(|current| self.room(current) >= length)
            && let Err(error) = self.put(0, self.next_seq)
        {
            tracing::error!(%error, "the end of the segment cannot be written; creating a new one");
            self.current = None;
        }
        self.unsealed_since = None;
    }
}
