//! Creates the writer's next segment from a spare, whose content is synced before it gets the name of a segment.

use super::super::dead::repair::MAX_HIGHEST;
use super::*;

impl Writer {
    /// Creates the next segment. If it is for events (`for_events`), another spare must remain.
    pub fn roll(&mut self, for_events: bool) -> Result<(), LogError> {
        let after = self.next_number.checked_add(1).ok_or(LogError::Exhausted { what: "segment numbers" })?;
        let has_two = self.shared.files.lock().spares.len() >= 2;
        let spare = self.take_spare(if for_events { 2 } else { 1 })?;
        let result = self.begin(&spare);
        if let Err(error) = &result {
            tracing::error!(%error, "a segment cannot be created");
            self.current = None;
            // The content of the file is unknown.
            let _gone = self.shared.disk.remove_file(&spare);
            let _gone = self.shared.disk.remove_file(&segment::path(&self.shared.folder, self.next_number));
            self.shared.maintain();
            return result;
        }
        self.next_number = after;
        let is_reserve = !for_events && !has_two;
        self.shared.files.lock().is_reserve = is_reserve;
        if !is_reserve {
            self.shared.accept_again();
        }
        self.shared.maintain();
        result
    }

    /// Ends the reservation of the newest segment for cursors and changes, once there is another spare.
    pub fn end_reserve(&mut self) -> Result<(), LogError> {
        self.wait_for_spares(1)?;
        self.shared.files.lock().is_reserve = false;
        Ok(())
    }

    /// Takes a spare, if at least `needed` spares exist.
    pub fn take_spare(&mut self, needed: usize) -> Result<PathBuf, LogError> {
        self.wait_for_spares(needed)?;
        // The maintenance thread only adds spares.
        self.shared.files.lock().spares.pop().ok_or(LogError::Closed)
    }

    /// Waits until `needed` spares exist. The maintenance thread creates them.
    pub fn wait_for_spares(&mut self, needed: usize) -> Result<(), LogError> {
        let until = Instant::now().checked_add(SPARE_WAIT);
        loop {
            // The maintenance thread may need this to turn an old segment into a spare.
            self.write_keep_from();
            let mut files = self.shared.files.lock();
            if files.spares.len() >= needed {
                return Ok(());
            }
            if let Some(error) = &files.no_spare {
                return Err(error.clone());
            }
            files.is_due = true;
            self.shared.files_changed.notify_all();
            let timed_out = match until {
                Some(until) => self.shared.files_changed.wait_until(&mut files, until).timed_out(),
                None => true,
            };
            if timed_out || files.is_stopping {
                let text = "no segment could be created in time".to_owned();
                return Err(LogError::Full { path: self.shared.folder.clone(), text });
            }
        }
    }

    /// Writes a frame that says which segments are no longer needed, if there is room for it.
    pub fn write_keep_from(&mut self) {
        if self.reaches_back {
            return;
        }
        let Some(oldest) = self.shared.take_keep_from(&mut self.shared.queue.lock()) else { return };
        let mut group = Vec::new();
        group::begin(&mut group);
        let frame = Frame::Kept { oldest };
        frame.write(&mut group);
        let length = u64::try_from(group.len()).unwrap_or(u64::MAX);
        if self.recovered.is_none()
            && self.current.as_ref().is_some_and(|current| self.room(current) >= length)
        {
            std::mem::swap(&mut group, &mut self.buffer);
            let written = self.put(0, self.next_seq);
            std::mem::swap(&mut group, &mut self.buffer);
            if written.is_ok() {
                self.shared.state.lock().apply(&frame);
                return self.shared.maintain();
            }
            self.current = None;
        }
        self.shared.queue.lock().keep_from = Some(oldest);
    }

    /// Turns a spare into the next segment. Its content, which includes the recovered group, is synced before the rename: from
    /// then on, the original of that group in the older segment is void.
    pub fn begin(&mut self, spare: &std::path::Path) -> Result<(), LogError> {
        let Shared { disk, folder, store, .. } = &*self.shared;
        let owner = Owner { store: *store, segment: self.next_number };
        let first_seq = self.recovered.as_ref().map_or(self.next_seq, |recovered| recovered.first_seq);
        let received_before = self.shared.received_last.load(Ordering::Relaxed);
        let header = SegmentHeader { owner, first_seq, received_before };
        let snapshot = {
            let mut state = self.shared.state.lock();
            // A damaged number is not recorded: the file that replaces the damaged one has a lower number.
            let highest = Some(self.shared.dead.highest_id()).filter(|highest| *highest <= MAX_HIGHEST);
            state.highest_dead_letter = highest.unwrap_or(state.highest_dead_letter);
            let mut group = Vec::new();
            group::begin(&mut group);
            state.snapshot().write(&mut group);
            group::finish(&mut group, owner, 0, first_seq);
            group
        };
        let mut bytes = header.to_bytes();
        bytes.extend_from_slice(&snapshot);
        if let Some(Recovered { frames, events, first_seq }) = &self.recovered {
            let mut group = Vec::new();
            group::begin(&mut group);
            group.extend_from_slice(frames);
            group::finish(&mut group, owner, *events, *first_seq);
            bytes.extend_from_slice(&group);
        }
        if let Some(next) = self.skips_to {
            let mut group = Vec::new();
            group::begin(&mut group);
            Frame::Skipped { next }.write(&mut group);
            group::finish(&mut group, owner, 0, self.next_seq);
            bytes.extend_from_slice(&group);
        }
        let at = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        bytes.resize(bytes.len().saturating_add(group::HEADER), 0);
        let failed = |path: &std::path::Path, doing| {
            let path = path.to_owned();
            move |error: std::io::Error| LogError::io(path, doing, &error)
        };
        let file = disk.open(spare, OpenMode::Write).map_err(failed(spare, "opening"))?;
        file.write_all_at(&bytes, 0).map_err(failed(spare, "writing"))?;
        file.sync_data().map_err(failed(spare, "syncing"))?;
        let path = segment::path(folder, self.next_number);
        disk.rename(spare, &path).map_err(failed(spare, "renaming"))?;
        disk.sync_folder(folder).map_err(failed(folder, "syncing the folder"))?;
        self.current = Some(Current { file, owner, at });
        self.shared.files.lock().segments.push(Segment { number: owner.segment, first_seq, received_before });
        if self.recovered.take().is_some() {
            self.unsealed_since = Some(Instant::now());
            self.end_recovery();
        }
        self.next_seq = self.skips_to.take().unwrap_or(self.next_seq);
        Ok(())
    }
}
