//! One file that the sink appends to: its state, and how lines are compared and written.

use std::path::PathBuf;

use super::checkpoint::Listed;
use super::folder::{SinkFolder, open_error};
use super::rotate::Rotation;
use crate::sink::OpenError;
use dt_log::disk::{About, DiskFile};

/// The size of the blocks in which bytes are compared.
const BLOCK: usize = 64 * 1024;

/// A file that the sink appends to, or will create.
#[derive(Debug)]
pub struct Tracked {
    /// The entry of the file in the next checkpoint.
    pub listed: Listed,
    /// The absolute path of the file.
    pub path: PathBuf,
    /// Whether the file may be written to: the stored checkpoint lists it, or the worker stores no checkpoints.
    pub is_durable: bool,
    /// The number of the last call of `deliver` that used the file.
    pub used: u64,
    /// The lines that the current call appends.
    pub lines: Vec<u8>,
    /// The open file; `None` until it is created.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: Box<dyn DiskFile>,
    device: u64,
    /// The file's length at the last check, in bytes. If it exceeds the length in `listed`, which the checkpoint stores, the
    /// bytes after that were probably appended before a crash: they are compared with the lines that are delivered again.
    end: u64,
    /// Whether the byte before the listed length is not a line feed, so that one is written before the next line.
    lacks_newline: bool,
}

impl Tracked {
    /// Creates the entry of a file that is to be created, and that no checkpoint lists.
    pub fn to_be_created(folder: &SinkFolder, path: &str) -> Self {
        Self::new(folder, Listed { path: path.to_owned(), inode: 0, length: 0, since: 0, close_as: None })
    }

    fn new(folder: &SinkFolder, listed: Listed) -> Self {
        let path = folder.root.join(&listed.path);
        Self { listed, path, is_durable: false, used: 0, lines: Vec::new(), open: None }
    }

    /// Opens a file that no checkpoint lists: its content is delivered, or was written by another program. If the file does not
    /// exist, it is to be created.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if the file cannot be opened or synced.
    pub fn find(folder: &SinkFolder, path: &str, rotation: Rotation) -> Result<Self, OpenError> {
        let mut tracked = Self::to_be_created(folder, path);
        if let Some((file, about)) = folder.open(&tracked.path)? {
            tracked.listed.length = about.length;
            tracked.listed.since = rotation.since(about.modified);
            // Power loss must not leave less than the length that the checkpoint stores.
            file.sync_data().map_err(|e| open_error(&tracked.path, "syncing", &e))?;
            tracked.attach(file, about)?;
            folder.sync_folders(&tracked.path)?;
        }
        Ok(tracked)
    }

    /// Opens a file of a stored checkpoint; `None` if the file is missing, is shorter, or was replaced by another file.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if the file cannot be opened.
    pub fn reopen(folder: &SinkFolder, listed: Listed) -> Result<Option<Self>, OpenError> {
        let mut tracked = Self::new(folder, listed);
        tracked.is_durable = true;
        if tracked.listed.close_as.is_some() {
            return Ok(Some(tracked));
        }
        let shown = tracked.path.display();
        match (folder.open(&tracked.path)?, tracked.listed.inode) {
            (None, 0) => {}
            (None, _) => {
                tracing::warn!(path = %shown, "the file was moved away; creating a new one");
                return Ok(None);
            }
            (Some((_, about)), inode) if inode != 0 && inode != about.inode => {
                tracing::warn!(path = %shown, "the file was replaced by another one; appending to that");
                return Ok(None);
            }
            (Some((_, about)), _) if about.length < tracked.listed.length => {
                let (length, was) = (about.length, tracked.listed.length);
                tracing::warn!(path = %shown, length, was, "the file was truncated; lines may be missing or duplicated");
                return Ok(None);
            }
            (Some((file, about)), inode) => {
                tracked.attach(file, about)?;
                if inode == 0 {
                    // A killed process may have created it without syncing its name.
                    folder.sync_folders(&tracked.path)?;
                }
            }
        }
        Ok(Some(tracked))
    }

    /// Sets the open file, and checks whether its last line has a line feed.
    fn attach(&mut self, file: Box<dyn DiskFile>, about: About) -> Result<(), OpenError> {
        let mut last = [b'\n'];
        if let Some(at) = self.listed.length.checked_sub(1) {
            file.read_at(&mut last, at).map_err(|e| open_error(&self.path, "reading its end", &e))?;
        }
        self.listed.inode = about.inode;
        let lacks_newline = last != [b'\n'];
        self.open = Some(Open { file, device: about.device, end: about.length, lacks_newline });
        Ok(())
    }

    /// Returns whether the path still leads to the same file with the same length. Not after `logrotate`, or after another
    /// program has written to the file.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if the metadata of the path cannot be read.
    pub fn is_unchanged(&mut self, folder: &SinkFolder) -> Result<bool, OpenError> {
        let (found, shown) = (folder.about(&self.path)?, self.path.display());
        let Some(open) = &mut self.open else { return Ok(found.is_none()) };
        let is_same = |about: &About| (about.device, about.inode) == (open.device, self.listed.inode);
        let Some(About { length, .. }) = found.filter(is_same) else {
            tracing::warn!(path = %shown, "the file was moved away; opening a new one");
            return Ok(false);
        };
        if open.end > self.listed.length && length >= self.listed.length {
            // All bytes after the listed length are compared.
            open.end = length;
        } else if length < open.end {
            tracing::warn!(path = %shown, length, was = open.end, "the file was truncated");
        } else if length > open.end {
            tracing::warn!(path = %shown, "another program has appended to the file; its lines are kept");
        }
        Ok(length == open.end)
    }

    /// Creates the file durably, if it is still to be created. Returns `false` if another program has created it meanwhile.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if the file cannot be created or synced.
    pub fn create(&mut self, folder: &SinkFolder) -> Result<bool, OpenError> {
        if self.open.is_some() {
            return Ok(true);
        }
        let Some((file, about)) = folder.create(&self.path)? else { return Ok(false) };
        self.attach(file, about)?;
        folder.sync_folders(&self.path)?;
        Ok(true)
    }

    /// Closes the file, which releases its lock.
    pub fn release(&mut self) {
        self.open = None;
    }

    /// Renames the file to its closed name, unless that is already done. Returns the path of the closed file; `None` if it is not
    /// to be closed, or was moved away. After that, the old path is free, or leads to a file that a killed process wrote.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if the file cannot be renamed or synced.
    pub fn close(&mut self, folder: &SinkFolder) -> Result<Option<PathBuf>, OpenError> {
        let Some(name) = self.listed.close_as.clone() else { return Ok(None) };
        let closed = folder.root.join(name);
        let is_same = |about: Option<About>| about.is_some_and(|about| about.inode == self.listed.inode);
        let listed = Listed { inode: 0, length: 0, since: 0, close_as: None, ..self.listed.clone() };
        self.open = None;
        let next = if is_same(folder.about(&self.path)?) {
            folder.rename(&self.path, &closed)?;
            Some(Self { is_durable: true, ..Self::new(folder, listed) })
        } else if is_same(folder.about(&closed)?) {
            Self::reopen(folder, listed)?
        } else {
            tracing::warn!(path = %self.path.display(), "the file was moved away before it was closed");
            *self = Self { is_durable: false, ..Self::new(folder, listed) };
            return Ok(None);
        };
        // Synced before the next file is created, also if a killed process has renamed this one.
        folder.sync_folders(&closed)?;
        if let Some(next) = next {
            *self = Self { used: self.used, ..next };
        }
        Ok(Some(closed))
    }

    /// Returns the length of the file for the checkpoint after the buffered lines are written, in bytes.
    pub fn next_length(&self) -> u64 {
        self.listed.length.saturating_add(u64::try_from(self.lines.len()).unwrap_or(u64::MAX))
    }

    /// Returns whether a line feed must be written before the next line.
    pub fn lacks_newline(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.lacks_newline)
    }

    /// Returns whether the file has bytes after its length in the checkpoint that are not compared yet.
    pub fn has_tail(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.end > self.listed.length)
    }

    /// Returns the error for bytes of another program at this offset.
    pub fn foreign(&self, at: u64) -> OpenError {
        OpenError::Down(format!(
            "{}: the content from byte {at} differs from the lines that belong there; nothing was overwritten. \
             Move the file away to start a new one",
            self.path.display()
        ))
    }

    /// Writes the lines of this call after the listed length, over equal lines or parts of them, and syncs. Returns `false`, and
    /// writes nothing, if another program has appended to the file or truncated it since this call checked it.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if the existing bytes are foreign, or the write or sync fails.
    pub fn write(&mut self) -> Result<bool, OpenError> {
        if self.lines.is_empty() {
            return Ok(true);
        }
        let (at, next) = (self.listed.length, self.next_length());
        let Some(open) = &self.open else { return Ok(false) };
        let length = open.file.about().map_err(|e| open_error(&self.path, "reading its length", &e))?.length;
        if length < at || (length > at && !self.has_tail()) {
            return Ok(false);
        }
        self.compare()?;
        open.file.write_all_at(&self.lines, at).map_err(|e| open_error(&self.path, "appending", &e))?;
        open.file.sync_data().map_err(|e| open_error(&self.path, "syncing", &e))?;
        if let Some(open) = &mut self.open {
            open.end = open.end.max(next);
            open.lacks_newline = false;
        }
        self.listed.length = next;
        self.lines.clear();
        Ok(true)
    }

    /// Checks that the existing bytes equal the lines, or are NUL where a sector did not reach the disk.
    fn compare(&self) -> Result<(), OpenError> {
        let Some(open) = self.open.as_ref().filter(|open| open.end > self.listed.length) else {
            return Ok(());
        };
        let mut block = vec![0_u8; BLOCK.min(self.lines.len())];
        let mut at = self.listed.length;
        for lines in self.lines.chunks(BLOCK) {
            let part = block.get_mut(..lines.len()).unwrap_or_default();
            let read =
                open.file.read_at(part, at).map_err(|e| open_error(&self.path, "reading its end", &e))?;
            let there = part.iter().take(read).zip(lines);
            let differs = |(found, line): (&u8, &u8)| *found != *line && *found != 0;
            if let Some(offset) = { there }.position(differs) {
                return Err(self.foreign(at.saturating_add(u64::try_from(offset).unwrap_or(u64::MAX))));
            }
            at = at.saturating_add(u64::try_from(lines.len()).unwrap_or(u64::MAX));
        }
        Ok(())
    }
}
