//! The files that a sink has in use. If there are too many for the checkpoint, the least recently used one is removed from the
//! list.

use std::path::PathBuf;

use super::checkpoint::{Listed, Rules, cost, room};
use super::folder::SinkFolder;
use super::rotate::{Rotation, free_name};
use super::tracked::Tracked;
use crate::sink::OpenError;
use dt_sink::record::Record;

/// The largest number of files in use.
const MAX_FILES: usize = 64;
/// The number of files in use up to which their buffers are kept for the next call, which avoids page faults.
const MAX_BUFFERS: usize = 8;
/// The largest size of a buffer that is kept, in bytes: several times the lines of a full batch.
const MAX_BUFFER: usize = 1 << 20;

/// All files that a sink has in use.
#[derive(Debug)]
pub struct Files {
    pub folder: SinkFolder,
    /// Whether the worker stores checkpoints. If so, only files in the stored checkpoint are written to or closed.
    pub is_kept: bool,
    list: Vec<Tracked>,
    /// The number of bytes that the stored checkpoint, whose size is limited, leaves for the entries of files.
    room: usize,
    /// The number of calls of `deliver`.
    call: u64,
    evictions: u64,
}

impl Files {
    /// Creates an empty list of files in a folder.
    pub fn new(folder: SinkFolder) -> Self {
        Self { folder, is_kept: false, list: Vec::new(), room: 0, call: 0, evictions: 0 }
    }

    /// Closes all files, and uses the root and the room for entries of these rules from now on.
    pub fn reset(&mut self, rules: &Rules) {
        self.list.clear();
        self.folder.root = rules.template.root().to_owned();
        self.room = room(&rules.template);
    }

    /// Closes all files.
    pub fn clear(&mut self) {
        self.list.clear();
    }

    /// Begins a call of `deliver`.
    pub fn next_call(&mut self) {
        self.call = self.call.saturating_add(1);
    }

    /// Opens a file of the stored checkpoint.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if the file cannot be opened.
    pub fn restore(&mut self, listed: Listed) -> Result<(), OpenError> {
        self.list.extend(Tracked::reopen(&self.folder, listed)?);
        Ok(())
    }

    /// Returns the index of the file at a path, and opens the file; it is opened again if the path leads to another file. `None`
    /// if one call uses too many files.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if the file cannot be opened or created.
    pub fn touch(&mut self, path: &str, rotation: Rotation) -> Result<Option<usize>, OpenError> {
        let known = self.list.iter().position(|tracked| tracked.listed.path == path);
        let Some(at) = known.or_else(|| self.make_room(path)) else { return Ok(None) };
        let Some(tracked) = self.list.get_mut(at) else { return Ok(None) };
        if known.is_some() && (tracked.used == self.call || tracked.listed.close_as.is_some()) {
            tracked.used = self.call;
            return Ok(Some(at));
        }
        let is_current = known.is_some()
            && tracked.is_unchanged(&self.folder)?
            && (!tracked.is_durable || tracked.create(&self.folder)?);
        if !is_current {
            // Releases the lock before the file is opened again.
            let buffer = std::mem::take(&mut tracked.lines);
            tracked.release();
            *tracked = Tracked::find(&self.folder, path, rotation)?;
            tracked.lines = buffer;
            if !self.is_kept {
                tracked.is_durable = tracked.create(&self.folder)?;
            }
        }
        tracked.used = self.call;
        Ok(Some(at))
    }

    /// Adds a file to the list, and removes unused files if there is no room. Returns the file's index; `None` if no room can be
    /// made.
    fn make_room(&mut self, path: &str) -> Option<usize> {
        let is_free = |tracked: &Tracked, call: u64| {
            tracked.used != call && tracked.listed.close_as.is_none() && !tracked.has_tail()
        };
        loop {
            let costs = self.list.iter().map(|tracked| cost(&tracked.listed.path));
            let total = costs.fold(cost(path), usize::saturating_add);
            if self.list.len() < MAX_FILES && total <= self.room {
                let at = self.list.len();
                self.list.push(Tracked::to_be_created(&self.folder, path));
                return Some(at);
            }
            let free = self.list.iter().enumerate().filter(|(_, tracked)| is_free(tracked, self.call));
            let (oldest, _) = free.min_by_key(|(_, tracked)| tracked.used)?;
            self.list.remove(oldest);
            self.evictions = self.evictions.saturating_add(1);
        }
    }

    /// Returns the number of files that were removed from the list. Each removal changes the indexes of other files.
    pub const fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Adds the line of a record to those that this call writes. Returns `false` if the record has to wait until the file is in
    /// the stored checkpoint, or is closed.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if no name for closing the file can be determined.
    pub fn add(&mut self, at: usize, rules: &Rules, record: &Record) -> Result<bool, OpenError> {
        let Some(tracked) = self.list.get_mut(at) else { return Ok(false) };
        if !tracked.is_durable || tracked.listed.close_as.is_some() {
            return Ok(false);
        }
        let (length, before) = (tracked.next_length(), tracked.lines.len());
        if before == 0 && tracked.lacks_newline() {
            tracked.lines.push(b'\n');
        }
        let start = tracked.lines.len();
        rules.format.write_line(record, &mut tracked.lines);
        let more = tracked.lines.len().saturating_sub(start);
        let since = rules.rotation.since(record.received_at);
        if rules.rotation.is_due(length, tracked.listed.since, more, since) {
            tracked.lines.truncate(before);
            self.close(at, record.received_at)?;
            return Ok(false);
        }
        if length == 0 {
            tracked.listed.since = since;
        }
        Ok(true)
    }

    /// Plans to close all files of periods before that of `millis` (Unix milliseconds). Returns whether any files are to be
    /// closed.
    pub fn close_older(&mut self, rotation: Rotation, millis: i64) -> Result<bool, OpenError> {
        let since = rotation.since(millis);
        let is_older = |tracked: &Tracked| tracked.next_length() > 0 && tracked.listed.since < since;
        let older: Vec<usize> =
            (0..self.list.len()).filter(|at| self.list.get(*at).is_some_and(is_older)).collect();
        for at in &older {
            self.close(*at, millis)?;
        }
        Ok(!older.is_empty())
    }

    fn close(&mut self, at: usize, millis: i64) -> Result<(), OpenError> {
        let taken: Vec<&String> =
            self.list.iter().filter_map(|tracked| tracked.listed.close_as.as_ref()).collect();
        let Some(tracked) = self.list.get(at).filter(|tracked| tracked.listed.close_as.is_none()) else {
            return Ok(());
        };
        let name = free_name(&self.folder, &tracked.listed.path, millis, &taken)?;
        if let Some(tracked) = self.list.get_mut(at) {
            tracked.listed.close_as = Some(name);
        }
        Ok(())
    }

    /// Renames the files that are to be closed to the names in the stored checkpoint. Returns their new paths.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if a file cannot be renamed.
    pub fn close_planned(&mut self) -> Result<Vec<PathBuf>, OpenError> {
        let mut closed = Vec::new();
        for tracked in self.list.iter_mut().filter(|tracked| tracked.is_durable) {
            closed.extend(tracked.close(&self.folder)?);
        }
        Ok(closed)
    }

    /// Writes the lines of this call, with one write and one sync per file. Returns the path of a file that another program has
    /// changed during the call, if there is one: neither this file nor later ones are written then.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if a write or sync fails, or a file has foreign bytes.
    pub fn write(&mut self) -> Result<Option<String>, OpenError> {
        let keeps_buffers = self.list.len() <= MAX_BUFFERS;
        for tracked in &mut self.list {
            if !tracked.write()? {
                return Ok(Some(tracked.listed.path.clone()));
            }
            if tracked.listed.close_as.is_some() && tracked.has_tail() {
                return Err(tracked.foreign(tracked.listed.length));
            }
            if !keeps_buffers || tracked.lines.capacity() > MAX_BUFFER {
                tracked.lines = Vec::new();
            }
        }
        Ok(None)
    }

    /// Removes files from the list that were neither created nor used in this call.
    pub fn forget_uncreated(&mut self) {
        let call = self.call;
        self.list.retain(|tracked| tracked.listed.inode != 0 || tracked.used == call);
    }

    /// Returns whether a checkpoint must be stored before the next call can continue.
    pub fn is_checkpoint_due(&self) -> bool {
        self.list.iter().any(|tracked| !tracked.is_durable || tracked.listed.close_as.is_some())
    }

    /// Marks all files as listed in the stored checkpoint.
    pub fn set_durable(&mut self) {
        self.list.iter_mut().for_each(|tracked| tracked.is_durable = true);
    }

    /// Returns a file with bytes after its length in the checkpoint that are not compared yet; `None` if there is none.
    pub fn tail(&self) -> Option<&Tracked> {
        self.list.iter().find(|tracked| tracked.has_tail())
    }

    /// Removes files with uncompared bytes from the list, if they were moved away meanwhile.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if the metadata of a file cannot be read.
    pub fn check_tails(&mut self) -> Result<(), OpenError> {
        for tracked in self.list.iter_mut().filter(|tracked| tracked.has_tail()) {
            if !tracked.is_unchanged(&self.folder)? {
                *tracked = Tracked::to_be_created(&self.folder, &tracked.listed.path);
            }
        }
        Ok(())
    }

    /// Returns whether a file is still to be closed.
    pub fn is_closing(&self) -> bool {
        self.closing().next().is_some()
    }

    /// Returns the new paths of the files to be closed.
    pub fn closing(&self) -> impl Iterator<Item = PathBuf> {
        let names = self.list.iter().filter_map(|tracked| tracked.listed.close_as.as_ref());
        names.map(|name| self.folder.root.join(name))
    }

    /// Returns the entries of all files, for a checkpoint.
    pub fn listed(&self) -> impl Iterator<Item = &Listed> {
        self.list.iter().map(|tracked| &tracked.listed)
    }
}
