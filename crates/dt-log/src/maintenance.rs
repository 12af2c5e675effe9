//! The maintenance thread: moves the ids of stored events to the index, removes segments that are no longer needed or turns
//! them into spares, and keeps two spares, one of which is reserved for cursors on a full disk.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Bounds;
use super::error::LogError;
use super::ids::{IdsError, Key};
use super::recall::{next_ids, note_lost_ids};
use super::segment;
use super::shared::{Segment, Shared, spare_path};
use super::tail::FindingKind;
use crate::disk::OpenMode;
use dt_verify::event::rfc3339_millis;

/// The number of event ids in memory at which they are moved to the dedup index on the disk.
pub const STORE_IDS_AT: usize = 65_536;
/// The largest number of ids that wait while the index cannot be written; beyond it, the oldest are dropped.
const MAX_UNSTORED: usize = 4 * STORE_IDS_AT;
/// The longest time that an id waits before it is moved to the index.
const STORE_IDS_EVERY: Duration = Duration::from_secs(300);
/// The largest number of segments that are kept only because their ids are not in the index.
const MAX_HELD: u64 = 4;
/// The time after which the thread checks for work, if nothing wakes it earlier.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// How long a finding is reported after no action on it is left, in milliseconds.
pub const REPORTED_FOR: i64 = 24 * 3_600_000;
/// The number of spares to keep.
const SPARES: usize = 2;
/// The number of zero bytes that are written at once (`ZEROS`), and the number of such writes between two syncs (`SYNC_EVERY`),
/// so that other writers to the disk are not delayed.
const ZEROS: usize = 1 << 20;
const SYNC_EVERY: u64 = 4;

/// Runs the maintenance until the log is closed.
pub fn run(shared: &Arc<Shared>) {
    let mut maintenance = Maintenance::new(shared);
    loop {
        let is_stopping = {
            let mut files = shared.files.lock();
            if !files.is_due && !files.is_stopping {
                let until = Instant::now().checked_add(CHECK_EVERY);
                // The check runs in either case.
                until.map(|until| shared.files_changed.wait_until(&mut files, until));
            }
            files.is_due = false;
            files.is_stopping
        };
        if is_stopping {
            maintenance.store_ids();
            maintenance.mark_newest();
            return;
        }
        maintenance.run_once();
    }
}

/// The state of the maintenance thread.
pub struct Maintenance<'a> {
    shared: &'a Shared,
    stored_at: Instant,
    /// The number of the newest segment that was written to the lock file.
    marked: u64,
    ids_failed: bool,
    /// When the newest event was received that was removed before the end of `retain`, in Unix milliseconds; `None` if `retain` has
    /// ended for all removed events.
    short_to: Option<i64>,
}

impl<'a> Maintenance<'a> {
    pub fn new(shared: &'a Shared) -> Self {
        Self { shared, stored_at: Instant::now(), marked: 0, ids_failed: false, short_to: None }
    }

    fn run_once(&mut self) {
        let (waiting, lacks_earlier) = {
            let queue = self.shared.queue.lock();
            (queue.unstored.len(), queue.lacks_earlier)
        };
        let is_time = waiting > 0 && self.stored_at.elapsed() >= STORE_IDS_EVERY;
        if waiting >= STORE_IDS_AT || is_time || lacks_earlier || self.shared.ids.damage().is_some() {
            self.store_ids();
        }
        self.shared.tail.expire_findings(self.shared.clock.unix_millis());
        let are_unneeded = self.propose_oldest();
        self.remove_old();
        // The free space is checked even if all spares exist, so that a full disk is reported before events are refused.
        let made = self.make_spares().and_then(|()| has_free(self.shared));
        let makes_room = are_unneeded || self.can_give_way() > 0;
        let mut files = self.shared.files.lock();
        let has_all = files.spares.len() >= SPARES;
        // Segments that are removed, or can become spares, make room. The writer waits for that instead of refusing events.
        files.no_spare = made.err().filter(|error| !(makes_room && matches!(error, LogError::Full { .. })));
        let refused_for = files.no_spare.clone().filter(|_| files.is_reserve && files.spares.is_empty());
        drop(files);
        self.shared.files_changed.notify_all();
        if let Some(error) = refused_for {
            self.shared.refuse(&error);
        }
        if has_all
            && matches!(
                self.shared.queue.lock().blocked_by,
                Some(LogError::Full { .. } | LogError::Io { .. })
            )
        {
            self.shared.accept_again();
        }
        self.mark_newest();
    }

    /// Moves the ids of durable events to the index.
    pub fn store_ids(&mut self) {
        self.stored_at = Instant::now();
        let (keys, up_to) = {
            let mut queue = self.shared.queue.lock();
            (std::mem::take(&mut queue.unstored), queue.unstored_to)
        };
        let Shared { ids, tail, .. } = self.shared;
        if keys.is_empty() && ids.stored_up_to() >= up_to && ids.damage().is_none() {
            return;
        }
        let mut stored_to = self.store_some(&keys, up_to);
        if stored_to.as_ref().is_err_and(IdsError::is_damage) {
            // No event is lost: the keys are those of events in the log.
            stored_to = self.store_some(&keys, up_to);
        }
        let stored_to = stored_to.inspect_err(|error| self.report(error)).ok();
        self.ids_failed = stored_to.is_none();
        let mut queue = self.shared.queue.lock();
        if stored_to.is_some_and(|stored_to| stored_to >= up_to) {
            queue.lacks_earlier = false;
            self.shared.ids_epoch.fetch_add(1, Ordering::AcqRel);
            for key in &keys {
                queue.recent.remove(key);
            }
            drop(queue);
            self.shared.lookups_fail.store(false, Ordering::Relaxed);
            if tail.set_ids_error(None) {
                tracing::info!("the index of event ids has all retained events");
            }
            return;
        }
        let newer = std::mem::replace(&mut queue.unstored, keys);
        queue.unstored.extend(newer);
        let excess = queue.unstored.len().saturating_sub(MAX_UNSTORED);
        queue.lacks_earlier |= excess > 0;
        let forgotten: Vec<_> = queue.unstored.drain(..excess).collect();
        for key in forgotten {
            queue.recent.remove(&key);
        }
        drop(queue);
        if stored_to.is_some() {
            self.shared.maintain();
        }
    }

    /// Stores the ids up to a sequence number; if the index lacks earlier ones, as many of them as a segment has. Replaces a
    /// damaged index first. Returns the sequence number up to which the index is complete then.
    ///
    /// This thread also makes room, and its work there must not wait until an index is complete again. A reset takes a few
    /// small writes and renames, however large the index and the log are: it waits for one look-up and for one filter that is
    /// being loaded, and removes older files. After it, each call reads one segment, and stores no more ids than that
    /// has. In between, [`run_once`](Self::run_once) sees to segments, spares and free space; it calls this at most four
    /// times, twice in each of two calls of [`store_ids`](Self::store_ids).
    fn store_some(&mut self, keys: &[Key], up_to: i64) -> Result<i64, IdsError> {
        let Shared { ids, queue, tail, .. } = self.shared;
        if let Some(damage) = ids.damage() {
            self.report(&damage);
            let now = self.shared.clock.unix_millis();
            let rebuilt = ids.reset(now)?.to_string();
            tracing::warn!("{rebuilt}");
            tail.report(FindingKind::NewIndex, rebuilt, now.saturating_add(REPORTED_FOR));
            queue.lock().lacks_earlier = true;
        }
        let now = self.shared.received_last.load(Ordering::Relaxed);
        if !queue.lock().lacks_earlier {
            return ids.store(keys, up_to, now).map(|()| up_to);
        }
        let read =
            note_lost_ids(self.shared, up_to).and_then(|()| next_ids(self.shared, ids.stored_up_to(), up_to));
        let (keys, up_to) = read.map_err(|error| {
            let (path, text) = (ids.path().to_owned(), error.to_string());
            IdsError::Failed { path, doing: "reading the ids of events", text }
        })?;
        ids.store(&keys, up_to, now).map(|()| up_to)
    }

    /// Reports why ids are not stored. The log line is written only once.
    fn report(&self, error: &IdsError) {
        if !self.ids_failed {
            tracing::error!(code = error.code(), %error, "event ids cannot be stored; copies may be accepted as new");
        }
        self.shared.tail.set_ids_error(Some(error.to_string()));
    }

    /// Requests that the writer records the oldest segment that is needed, if earlier ones are no longer needed. They are removed
    /// after the record is durable. Returns whether there are such segments.
    fn propose_oldest(&mut self) -> bool {
        let few_spares = self.shared.files.lock().spares.len() < SPARES;
        let wanted = self.segments_short();
        let held = self.oldest_needed(true, wanted).saturating_sub(self.oldest_needed(false, wanted));
        if held > MAX_HELD || (held > 0 && (few_spares || wanted > 0)) {
            self.store_ids();
        }
        let oldest = self.oldest_needed(false, wanted);
        self.note_retention(oldest);
        let are_unneeded = oldest > self.shared.state.lock().oldest;
        if are_unneeded {
            let mut queue = self.shared.queue.lock();
            queue.keep_from = Some(oldest);
            queue.cursors_since.get_or_insert_with(Instant::now);
            drop(queue);
            self.shared.has_work.notify_one();
        }
        are_unneeded
    }

    /// Returns the number of the oldest segment that a sink, the index or `retain` needs. `retain`, and the sink that gives way, do
    /// not apply to the oldest `wanted` segments.
    fn oldest_needed(&self, without_ids: bool, wanted: usize) -> u64 {
        let stored = if without_ids || self.ids_failed { i64::MAX } else { self.shared.ids.stored_up_to() };
        let by_all = self.shared.passed_segments(stored, None);
        let passed = self.shared.passed_segments(stored, self.shared.gives_way.as_deref());
        let kept_since = self.kept_since();
        let files = self.shared.files.lock();
        let is_expired = |next: &Segment| kept_since.is_none_or(|since| next.received_before <= since);
        let later = files.segments.iter().skip(1).take(passed).enumerate();
        let unneeded =
            later.take_while(|(place, next)| *place < wanted || (*place < by_all && is_expired(next)));
        let unneeded = unneeded.count();
        files.segments.get(unneeded).map_or(0, |segment| segment.number)
    }

    /// Returns the time of receipt since which `retain` keeps events, in Unix milliseconds; `None` if it keeps none.
    fn kept_since(&self) -> Option<i64> {
        let retain = self.shared.bounds.lock().retain;
        let millis = i64::try_from(retain.as_millis()).unwrap_or(i64::MAX);
        let last = self.shared.received_last.load(Ordering::Relaxed);
        (millis > 0).then(|| last.saturating_sub(millis))
    }

    /// Returns how many of the oldest segments can be removed before the end of `retain`, or without the sink that gives way.
    fn can_give_way(&self) -> usize {
        if self.shared.bounds.lock().retain == Duration::MAX {
            return 0;
        }
        self.shared.passed_segments(i64::MAX, self.shared.gives_way.as_deref())
    }

    /// Returns how many segments must be removed so that the missing spares are within `max_size`, and leave the free space on the
    /// disk that new segments must leave. If there are not as many to remove, only those are that become the missing spares: the
    /// others would be lost in vain.
    fn segments_short(&self) -> usize {
        let Bounds { max_size, min_free, .. } = self.shared.bounds.lock().clone();
        let missing = SPARES.saturating_sub(self.shared.files.lock().spares.len());
        let bytes_of = |segments: usize| {
            self.shared.segment_bytes.saturating_mul(u64::try_from(segments).unwrap_or(u64::MAX))
        };
        let excess = self.shared.used_bytes().saturating_add(bytes_of(missing)).saturating_sub(max_size);
        // Without a known free space, no segment is created.
        let free = self.shared.disk.free_bytes(&self.shared.folder).unwrap_or(u64::MAX);
        let too_little = match missing {
            0 => 0,
            _ => min_free.saturating_add(bytes_of(missing)).saturating_sub(free),
        };
        let segments = excess.max(too_little).div_ceil(self.shared.segment_bytes.max(1));
        let segments = usize::try_from(segments).unwrap_or(usize::MAX);
        let most = self.can_give_way();
        if segments <= most { segments } else { missing.min(most) }
    }

    /// Reports that segments before `oldest` are removed earlier than `retain` says: once, until `retain` alone would have removed
    /// all of them.
    fn note_retention(&mut self, oldest: u64) {
        let kept_since = self.kept_since();
        let removed_to = {
            let files = self.shared.files.lock();
            let kept = files.segments.iter().find(|segment| segment.number == oldest);
            kept.filter(|_| oldest > files.segments.first().map_or(0, |first| first.number))
                .map(|segment| segment.received_before)
        };
        let is_early = |received: &i64| kept_since.is_some_and(|since| *received > since);
        let was_short = self.short_to.is_some();
        self.short_to = removed_to.max(self.short_to).filter(is_early);
        let Some(short_to) = self.short_to else {
            if was_short {
                self.shared.tail.withdraw(FindingKind::ShortRetention);
            }
            return;
        };
        if was_short {
            return;
        }
        let removed =
            "delivered events are removed before the end of `spool.retain`, since there is no room for them";
        let remedy = "raise `spool.max_size`, free space on the disk, or shorten `spool.retain`";
        let received_to = rfc3339_millis(short_to);
        tracing::warn!(%received_to, "{removed}; {remedy}");
        self.shared.tail.report(FindingKind::ShortRetention, format!("{removed}; {remedy}"), i64::MAX);
    }

    /// Removes segments that are no longer needed, or turns them into spares: the oldest first, each one durably.
    fn remove_old(&self) {
        let Shared { disk, folder, .. } = self.shared;
        let oldest = self.shared.state.lock().oldest;
        loop {
            let (number, spare) = {
                let mut files = self.shared.files.lock();
                let Some(first) = files.segments.first().filter(|first| first.number < oldest) else {
                    return;
                };
                let number = first.number;
                let is_wanted = files.spares.len() < SPARES;
                files.last_spare = files.last_spare.saturating_add(u64::from(is_wanted));
                (number, is_wanted.then(|| spare_path(folder, files.last_spare)))
            };
            let path = segment::path(folder, number);
            let has_length = || {
                let found = disk.about(&path).ok().flatten();
                found.is_some_and(|found| found.length == self.shared.segment_bytes)
            };
            let spare = spare.filter(|_| has_length());
            let gone = match &spare {
                Some(spare) => disk.rename(&path, spare),
                None => disk.remove_file(&path),
            };
            let failed = |error: std::io::Error| {
                tracing::warn!(path = %path.display(), %error, "a segment that is no longer needed cannot be removed");
            };
            if let Err(error) = gone {
                return failed(error);
            }
            let mut files = self.shared.files.lock();
            files.segments.retain(|segment| segment.number != number);
            files.spares.extend(spare);
            drop(files);
            self.shared.files_changed.notify_all();
            // The segment is removed in either case. If a power loss restores it, it is a leftover.
            if let Err(error) = disk.sync_folder(folder) {
                return failed(error);
            }
        }
    }

    /// Creates spares until their number is [`SPARES`].
    fn make_spares(&self) -> Result<(), LogError> {
        while self.shared.files.lock().spares.len() < SPARES {
            make_spare(self.shared)?;
            self.shared.files_changed.notify_all();
        }
        Ok(())
    }

    /// Writes the number of the newest segment to the lock file, so that a missing newest segment is detected.
    fn mark_newest(&mut self) {
        let newest = self.shared.files.lock().segments.last().map_or(0, |segment| segment.number);
        if newest <= self.marked {
            return;
        }
        let text = format!("{newest:020}\n");
        let lock = self.shared.lock.lock();
        let Some(lock) = &*lock else { return };
        match lock.write_all_at(text.as_bytes(), 0).and_then(|()| lock.sync_data()) {
            Ok(()) => self.marked = newest,
            Err(error) => tracing::debug!(%error, "the number of the newest segment was not written"),
        }
    }
}

/// Creates one spare within the limits: a file of zeros, which is synced, so that a later sync of its content need not write its
/// length.
pub fn make_spare(shared: &Shared) -> Result<(), LogError> {
    let Shared { disk, folder, segment_bytes, .. } = shared;
    has_room(shared)?;
    let path = {
        let mut files = shared.files.lock();
        files.last_spare = files.last_spare.saturating_add(1);
        spare_path(folder, files.last_spare)
    };
    let make = || {
        let file = disk.open(&path, OpenMode::CreatePrivate)?;
        let zeros = vec![0; ZEROS];
        let (mut at, mut pieces) = (0_u64, 0_u64);
        while at < *segment_bytes {
            let left = usize::try_from(segment_bytes.saturating_sub(at)).unwrap_or(ZEROS);
            let piece = zeros.get(..left.min(ZEROS)).unwrap_or_default();
            file.write_all_at(piece, at)?;
            at = at.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
            pieces = pieces.saturating_add(1);
            if pieces.is_multiple_of(SYNC_EVERY) || at == *segment_bytes {
                file.sync_data()?;
            }
        }
        disk.sync_folder(folder)
    };
    match make() {
        Ok(()) => {
            shared.files.lock().spares.push(path);
            Ok(())
        }
        Err(error) => {
            // If the file cannot be removed, the next start finds it.
            let _left = disk.remove_file(&path);
            if matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) {
                return Err(LogError::Full { path: folder.clone(), text: error.to_string() });
            }
            Err(LogError::io(path, "creating a segment", &error))
        }
    }
}

/// Checks whether one more segment is within the limits.
fn has_room(shared: &Shared) -> Result<(), LogError> {
    let full = |text: String| LogError::Full { path: shared.folder.clone(), text };
    let max_size = shared.bounds.lock().max_size;
    let used = shared.used_bytes().saturating_add(shared.segment_bytes);
    if used > max_size {
        return Err(full(format!(
            "with another segment it would take {used} bytes, and `spool.max_size` is {max_size}"
        )));
    }
    has_free(shared)
}

/// Checks that the disk has room for one more segment.
fn has_free(shared: &Shared) -> Result<(), LogError> {
    let full = |text: String| LogError::Full { path: shared.folder.clone(), text };
    let min_free = shared.bounds.lock().min_free;
    let free = shared.disk.free_bytes(&shared.folder);
    let free = free.map_err(|error| LogError::io(&shared.folder, "looking for free space", &error))?;
    if free < min_free.saturating_add(shared.segment_bytes) {
        return Err(full(format!(
            "{free} bytes are free on the disk; a segment takes {}, and `spool.min_free` is {min_free}",
            shared.segment_bytes
        )));
    }
    Ok(())
}
