//! What is done beside the writer, by a thread of its own: the ids of stored events go to the index, segments that nobody
//! needs any more go or become spares, and two spares are kept, one of which is for cursors when the disk is full.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::error::LogError;
use super::segment;
use super::shared::{Segment, Shared, spare_path};
use crate::disk::OpenMode;

/// With so many ids, they go to the index.
pub(super) const STORE_IDS_AT: usize = 65_536;
/// So many at most wait for an index that cannot be written; the oldest are forgotten.
const MAX_UNSTORED: usize = 4 * STORE_IDS_AT;
/// How long ids wait at most.
const STORE_IDS_EVERY: Duration = Duration::from_secs(300);
/// So many segments at most wait for the index alone.
const MAX_HELD: u64 = 4;
/// How often the thread looks although nobody woke it.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How many spares there are to be.
const SPARES: usize = 2;
/// How many zeros are written at once, and how many of those between two syncs: others write to the disk meanwhile.
const ZEROS: usize = 1 << 20;
const SYNC_EVERY: u64 = 4;

/// Works until the log is closed.
pub(super) fn run(shared: &Arc<Shared>) {
    let mut maintenance = Maintenance { shared, stored_at: Instant::now(), marked: 0, ids_failed: false };
    loop {
        let is_stopping = {
            let mut files = shared.files.lock();
            if !files.is_due && !files.is_stopping {
                let until = Instant::now().checked_add(LOOK_EVERY);
                // Whether it timed out does not matter.
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
        maintenance.look();
    }
}

struct Maintenance<'a> {
    shared: &'a Shared,
    stored_at: Instant,
    /// The number of the newest segment that the lock file has.
    marked: u64,
    ids_failed: bool,
}

impl Maintenance<'_> {
    fn look(&mut self) {
        let waiting = self.shared.queue.lock().unstored.len();
        if waiting >= STORE_IDS_AT || (waiting > 0 && self.stored_at.elapsed() >= STORE_IDS_EVERY) {
            self.store_ids();
        }
        self.propose();
        self.remove_old();
        // With all spares there, a disk that fills is reported as well, before events are refused for it.
        let made = self.make_spares().and_then(|()| has_free(self.shared));
        let mut files = self.shared.files.lock();
        let has_all = files.spares.len() >= SPARES;
        files.no_spare = made.err();
        let refused_for = files.no_spare.clone().filter(|_| files.is_reserve && files.spares.is_empty());
        drop(files);
        self.shared.files_changed.notify_all();
        if let Some(error) = refused_for {
            self.shared.refuse(&error);
        }
        if has_all
            && matches!(self.shared.queue.lock().refusal, Some(LogError::Full { .. } | LogError::Io { .. }))
        {
            self.shared.accept_again();
        }
        self.mark_newest();
    }

    /// Brings the ids of durable events to the index.
    fn store_ids(&mut self) {
        self.stored_at = Instant::now();
        let (keys, up_to) = {
            let mut queue = self.shared.queue.lock();
            (std::mem::take(&mut queue.unstored), queue.unstored_to)
        };
        if keys.is_empty() && self.shared.ids.stored_up_to() >= up_to {
            return;
        }
        let now = self.shared.received_last.load(Ordering::Relaxed);
        match self.shared.ids.store(&keys, up_to, now) {
            Ok(()) => {
                self.ids_failed = false;
                self.shared.ids_epoch.fetch_add(1, Ordering::AcqRel);
                let mut queue = self.shared.queue.lock();
                for key in &keys {
                    queue.recent.remove(key);
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.ids_failed, true) {
                    tracing::error!(code = error.code(), %error, "the ids of known events cannot be stored; copies may be accepted as new");
                }
                self.shared.tail.set_damage(Some(error.to_string()));
                if error.is_damage()
                    && let Err(error) = self.shared.ids.reset(self.shared.clock.unix_millis())
                {
                    tracing::error!(%error, "the index of known events cannot be made anew");
                }
                let mut queue = self.shared.queue.lock();
                let newer = std::mem::replace(&mut queue.unstored, keys);
                queue.unstored.extend(newer);
                let excess = queue.unstored.len().saturating_sub(MAX_UNSTORED);
                let forgotten: Vec<_> = queue.unstored.drain(..excess).collect();
                for key in forgotten {
                    queue.recent.remove(&key);
                }
            }
        }
    }

    /// Asks the writer to write down which segments are needed, once that is fewer. They go when that is durable.
    fn propose(&mut self) {
        let few_spares = self.shared.files.lock().spares.len() < SPARES;
        let held = self.oldest_needed(true).saturating_sub(self.oldest_needed(false));
        if held > MAX_HELD || (few_spares && held > 0) {
            self.store_ids();
        }
        let oldest = self.oldest_needed(false);
        if oldest > self.shared.state.lock().oldest {
            let mut queue = self.shared.queue.lock();
            queue.keep_from = Some(oldest);
            queue.cursors_since.get_or_insert_with(Instant::now);
            drop(queue);
            self.shared.has_work.notify_one();
        }
    }

    /// The number of the oldest segment that somebody needs.
    fn oldest_needed(&self, without_ids: bool) -> u64 {
        let passed = self.shared.state.lock().passed().unwrap_or(0);
        let stored = if without_ids || self.ids_failed { i64::MAX } else { self.shared.ids.stored_up_to() };
        let retain = self.shared.bounds.lock().retain;
        let retain = i64::try_from(retain.as_millis()).unwrap_or(i64::MAX);
        let kept_since = self.shared.received_last.load(Ordering::Relaxed).saturating_sub(retain);
        let files = self.shared.files.lock();
        let is_needed = |next: &Segment| {
            let last = next.first_seq.saturating_sub(1);
            last > passed || last > stored || (retain > 0 && next.received_before > kept_since)
        };
        let mut pairs = files.segments.iter().zip(files.segments.iter().skip(1));
        let needed = pairs.find(|(_, next)| is_needed(next)).map(|(segment, _)| segment.number);
        needed.or_else(|| files.segments.last().map(|segment| segment.number)).unwrap_or(0)
    }

    /// Removes segments that nobody needs, or makes them spares: the oldest first, each durably.
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
                tracing::warn!(path = %path.display(), %error, "a segment that nobody needs cannot be removed");
            };
            if let Err(error) = gone {
                return failed(error);
            }
            let mut files = self.shared.files.lock();
            files.segments.retain(|segment| segment.number != number);
            files.spares.extend(spare);
            drop(files);
            self.shared.files_changed.notify_all();
            // It has gone all the same. Should a loss of power bring it back, it is a leftover.
            if let Err(error) = disk.sync_folder(folder) {
                return failed(error);
            }
        }
    }

    /// Makes as many spares as there are to be.
    fn make_spares(&self) -> Result<(), LogError> {
        while self.shared.files.lock().spares.len() < SPARES {
            make_spare(self.shared)?;
            self.shared.files_changed.notify_all();
        }
        Ok(())
    }

    /// Writes the number of the newest segment to the lock file, so that its absence is noticed.
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
            Err(error) => tracing::debug!(%error, "the newest segment's number was not written"),
        }
    }
}

/// Makes one spare, if it is within the bounds: a file of zeros that is synced, so that a sync of what is written to it
/// later has no length to write.
pub(super) fn make_spare(shared: &Shared) -> Result<(), LogError> {
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
            if pieces.is_multiple_of(SYNC_EVERY) {
                file.sync_data()?;
            }
        }
        file.sync_data()?;
        disk.sync_folder(folder)
    };
    match make() {
        Ok(()) => {
            shared.files.lock().spares.push(path);
            Ok(())
        }
        Err(error) => {
            // A file that cannot be removed either is found on the next start.
            let _left = disk.remove_file(&path);
            if matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) {
                return Err(LogError::Full { path: folder.clone(), text: error.to_string() });
            }
            Err(LogError::io(path, "making a segment", &error))
        }
    }
}

/// Whether one more segment is within the bounds.
fn has_room(shared: &Shared) -> Result<(), LogError> {
    let full = |text: String| LogError::Full { path: shared.folder.clone(), text };
    let max_size = shared.bounds.lock().max_size;
    let used = shared.used_bytes().saturating_add(shared.segment_bytes);
    if used > max_size {
        return Err(full(format!(
            "with one more segment it would have {used} bytes, and `spool.max_size` is {max_size}"
        )));
    }
    has_free(shared)
}

/// Whether the disk has room for one more segment.
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
