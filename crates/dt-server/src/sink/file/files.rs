//! The files that are in use: a few; the one that was not used for longest is let go of when there are too many for the
//! checkpoint.

use std::path::PathBuf;

use super::checkpoint::{Listed, Rules, cost, room};
use super::folder::SinkFolder;
use super::rotate::{Rotation, free_name};
use super::tracked::Tracked;
use crate::sink::OpenError;
use dt_sink::record::Record;

/// How many files are in use at once.
const MAX_FILES: usize = 64;
/// How many files keep their buffers for the next call: page faults for new ones would cost more than all else.
const MAX_BUFFERS: usize = 8;
/// The largest buffer that is kept: several times the lines of a full batch.
const MAX_BUFFER: usize = 1 << 20;

/// All files in use.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) folder: SinkFolder,
    /// Whether checkpoints are kept: then only what the stored one lists is written to or closed.
    pub(super) is_kept: bool,
    list: Vec<Tracked>,
    /// What the checkpoint has room for.
    room: usize,
    /// Counts the calls of `deliver`.
    call: u64,
    evictions: u64,
}

impl Files {
    pub(super) fn new(folder: SinkFolder) -> Self {
        Self { folder, is_kept: false, list: Vec::new(), room: 0, call: 0, evictions: 0 }
    }

    /// Lets go of all files; the next ones are those of these rules.
    pub(super) fn reset(&mut self, rules: &Rules) {
        self.list.clear();
        self.folder.root = rules.template.root().to_owned();
        self.room = room(&rules.template);
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
    }

    pub(super) fn next_call(&mut self) {
        self.call = self.call.saturating_add(1);
    }

    /// Takes up a file of the stored checkpoint again.
    pub(super) fn restore(&mut self, listed: Listed) -> Result<(), OpenError> {
        self.list.extend(Tracked::reopen(&self.folder, listed)?);
        Ok(())
    }

    /// Takes up the file at a path, as it is now; `None` if there are too many for one call.
    pub(super) fn touch(&mut self, path: &str, rotation: Rotation) -> Result<Option<usize>, OpenError> {
        let known = self.list.iter().position(|tracked| tracked.listed.path == path);
        let Some(at) = known.or_else(|| self.make_room(path)) else { return Ok(None) };
        let Some(tracked) = self.list.get_mut(at) else { return Ok(None) };
        if known.is_some() && (tracked.used == self.call || tracked.listed.close_as.is_some()) {
            tracked.used = self.call;
            return Ok(Some(at));
        }
        let is_current = known.is_some()
            && tracked.is_as_known(&self.folder)?
            && (!tracked.is_durable || tracked.make(&self.folder)?);
        if !is_current {
            // Closed before it is opened once more: it is locked.
            let buffer = std::mem::take(&mut tracked.lines);
            tracked.release();
            *tracked = Tracked::find(&self.folder, path, rotation)?;
            tracked.lines = buffer;
            if !self.is_kept {
                tracked.is_durable = tracked.make(&self.folder)?;
            }
        }
        tracked.used = self.call;
        Ok(Some(at))
    }

    /// Room in the list for a new file, in place of others if need be.
    fn make_room(&mut self, path: &str) -> Option<usize> {
        let is_free = |tracked: &Tracked, call: u64| {
            tracked.used != call && tracked.listed.close_as.is_none() && !tracked.has_tail()
        };
        loop {
            let costs = self.list.iter().map(|tracked| cost(&tracked.listed.path));
            let total = costs.fold(cost(path), usize::saturating_add);
            if self.list.len() < MAX_FILES && total <= self.room {
                let at = self.list.len();
                self.list.push(Tracked::to_be_made(&self.folder, path));
                return Some(at);
            }
            let free = self.list.iter().enumerate().filter(|(_, tracked)| is_free(tracked, self.call));
            let (oldest, _) = free.min_by_key(|(_, tracked)| tracked.used)?;
            self.list.remove(oldest);
            self.evictions = self.evictions.saturating_add(1);
        }
    }

    /// How many files were let go of; with each, the places of others change.
    pub(super) const fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Adds a record's line to those of this call. `false` if it has to wait: until the checkpoint that lists the file is
    /// stored, or until the file is closed.
    pub(super) fn add(&mut self, at: usize, rules: &Rules, record: &Record) -> Result<bool, OpenError> {
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

    /// Plans the end of all files of stretches before that of this time; whether there are any.
    pub(super) fn close_older(&mut self, rotation: Rotation, millis: i64) -> Result<bool, OpenError> {
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

    /// Gives the files that are closed the names that the stored checkpoint has for them. Returns their new paths.
    pub(super) fn carry_out_closes(&mut self) -> Result<Vec<PathBuf>, OpenError> {
        let mut closed = Vec::new();
        for tracked in self.list.iter_mut().filter(|tracked| tracked.is_durable) {
            closed.extend(tracked.close(&self.folder)?);
        }
        Ok(closed)
    }

    /// Writes the lines of this call, each file's with one write and one sync.
    pub(super) fn write(&mut self) -> Result<(), OpenError> {
        let keeps_buffers = self.list.len() <= MAX_BUFFERS;
        for tracked in &mut self.list {
            tracked.write()?;
            if tracked.listed.close_as.is_some() && tracked.has_tail() {
                return Err(tracked.foreign(tracked.listed.length));
            }
            if !keeps_buffers || tracked.lines.capacity() > MAX_BUFFER {
                tracked.lines = Vec::new();
            }
        }
        Ok(())
    }

    /// Lets go of files that this call did not make after all.
    pub(super) fn forget_unmade(&mut self) {
        let call = self.call;
        self.list.retain(|tracked| tracked.listed.inode != 0 || tracked.used == call);
    }

    /// Whether a checkpoint has to be stored before the next call can do more.
    pub(super) fn is_checkpoint_due(&self) -> bool {
        self.list.iter().any(|tracked| !tracked.is_durable || tracked.listed.close_as.is_some())
    }

    /// The checkpoint that lists these files is stored before anything else is done.
    pub(super) fn set_durable(&mut self) {
        self.list.iter_mut().for_each(|tracked| tracked.is_durable = true);
    }

    /// A file with something behind its listed length that was not compared yet.
    pub(super) fn tail(&self) -> Option<&Tracked> {
        self.list.iter().find(|tracked| tracked.has_tail())
    }

    /// Looks at the files with tails again: somebody may have moved them away.
    pub(super) fn look_at_tails(&mut self) -> Result<(), OpenError> {
        for tracked in self.list.iter_mut().filter(|tracked| tracked.has_tail()) {
            if !tracked.is_as_known(&self.folder)? {
                *tracked = Tracked::to_be_made(&self.folder, &tracked.listed.path);
            }
        }
        Ok(())
    }

    /// Whether a file is still to be closed.
    pub(super) fn is_closing(&self) -> bool {
        self.closing().next().is_some()
    }

    /// The paths that files get which are to be closed.
    pub(super) fn closing(&self) -> impl Iterator<Item = PathBuf> {
        let names = self.list.iter().filter_map(|tracked| tracked.listed.close_as.as_ref());
        names.map(|name| self.folder.root.join(name))
    }

    /// What a checkpoint says of the files.
    pub(super) fn listed(&self) -> impl Iterator<Item = &Listed> {
        self.list.iter().map(|tracked| &tracked.listed)
    }
}
