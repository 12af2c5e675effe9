//! One file that the sink appends to: what is known of it, and how lines get into it.

use std::path::PathBuf;

use super::checkpoint::Listed;
use super::folder::{SinkFolder, open_error};
use super::rotate::Rotation;
use crate::sink::OpenError;
use dt_log::disk::{About, DiskFile};

/// How many bytes are compared at a time.
const BLOCK: usize = 64 * 1024;

/// A file that the sink appends to, or is about to make.
#[derive(Debug)]
pub(super) struct Tracked {
    pub(super) listed: Listed,
    /// The whole path.
    pub(super) path: PathBuf,
    /// Whether the stored checkpoint lists it, or none is kept: only then it may be written to.
    pub(super) is_durable: bool,
    /// The last call of `deliver` that had to do with it.
    pub(super) used: u64,
    /// What this call appends.
    pub(super) lines: Vec<u8>,
    /// `None` until it is made.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: Box<dyn DiskFile>,
    device: u64,
    /// Where the file ended when it was last looked at. What lies beyond the listed length is to be compared.
    end: u64,
    /// The byte before the listed length is no line feed: a line feed goes before the next line.
    lacks_newline: bool,
}

impl Tracked {
    /// A file that is to be made, and that no checkpoint lists.
    pub(super) fn to_be_made(folder: &SinkFolder, path: &str) -> Self {
        Self::new(folder, Listed { path: path.to_owned(), inode: 0, length: 0, since: 0, close_as: None })
    }

    fn new(folder: &SinkFolder, listed: Listed) -> Self {
        let path = folder.root.join(&listed.path);
        Self { listed, path, is_durable: false, used: 0, lines: Vec::new(), open: None }
    }

    /// A file that no checkpoint lists: what is there is not ours, or was delivered. Without one, it is to be made.
    pub(super) fn find(folder: &SinkFolder, path: &str, rotation: Rotation) -> Result<Self, OpenError> {
        let mut tracked = Self::to_be_made(folder, path);
        if let Some((file, about)) = folder.open(&tracked.path)? {
            tracked.listed.length = about.length;
            tracked.listed.since = rotation.since(about.modified);
            // The length that is stored must not be longer than what power loss leaves.
            file.sync_data().map_err(|e| open_error(&tracked.path, "syncing", &e))?;
            tracked.attach(file, about)?;
            folder.sync_folders(&tracked.path)?;
        }
        Ok(tracked)
    }

    /// A file of a stored checkpoint; `None` if it is not the one that is there now.
    pub(super) fn reopen(folder: &SinkFolder, listed: Listed) -> Result<Option<Self>, OpenError> {
        let mut tracked = Self::new(folder, listed);
        tracked.is_durable = true;
        if tracked.listed.close_as.is_some() {
            return Ok(Some(tracked));
        }
        let shown = tracked.path.display();
        match (folder.open(&tracked.path)?, tracked.listed.inode) {
            (None, 0) => {}
            (None, _) => {
                tracing::warn!(path = %shown, "the file was moved away; a new one is begun");
                return Ok(None);
            }
            (Some((_, about)), inode) if inode != 0 && inode != about.inode => {
                tracing::warn!(path = %shown, "another file is in its place; lines are appended to that");
                return Ok(None);
            }
            (Some((_, about)), _) if about.length < tracked.listed.length => {
                let (length, was) = (about.length, tracked.listed.length);
                tracing::warn!(path = %shown, length, was, "the file was cut short; lines may be missing or doubled");
                return Ok(None);
            }
            (Some((file, about)), inode) => {
                tracked.attach(file, about)?;
                if inode == 0 {
                    // A killed process may have made it and not synced its name.
                    folder.sync_folders(&tracked.path)?;
                }
            }
        }
        Ok(Some(tracked))
    }

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

    /// Whether the path leads to the file that is known, as it is known; not so after `logrotate`, or when somebody else
    /// has written to it.
    pub(super) fn is_as_known(&mut self, folder: &SinkFolder) -> Result<bool, OpenError> {
        let (found, shown) = (folder.about(&self.path)?, self.path.display());
        let Some(open) = &mut self.open else { return Ok(found.is_none()) };
        let is_it = |about: &About| (about.device, about.inode) == (open.device, self.listed.inode);
        let Some(About { length, .. }) = found.filter(is_it) else {
            tracing::warn!(path = %shown, "the file was moved away; a new one is opened");
            return Ok(false);
        };
        if open.end > self.listed.length && length >= self.listed.length {
            // What follows is compared, whatever it has become.
            open.end = length;
        } else if length < open.end {
            tracing::warn!(path = %shown, length, was = open.end, "the file was cut short");
        } else if length > open.end {
            tracing::warn!(path = %shown, "somebody else has appended to the file; that stays");
        }
        Ok(length == open.end)
    }

    /// Makes the file durably, if it is still to be made; `false` if somebody else has.
    pub(super) fn make(&mut self, folder: &SinkFolder) -> Result<bool, OpenError> {
        if self.open.is_some() {
            return Ok(true);
        }
        let Some((file, about)) = folder.create(&self.path)? else { return Ok(false) };
        self.attach(file, about)?;
        folder.sync_folders(&self.path)?;
        Ok(true)
    }

    /// Lets go of the file, which is locked.
    pub(super) fn release(&mut self) {
        self.open = None;
    }

    /// Gives the file its closed name, if it has not got it yet. Returns the path of the closed file, if there is one.
    /// The path is free for the next file, or leads to what a killed process wrote to it.
    pub(super) fn close(&mut self, folder: &SinkFolder) -> Result<Option<PathBuf>, OpenError> {
        let Some(name) = self.listed.close_as.clone() else { return Ok(None) };
        let closed = folder.root.join(name);
        let is_it = |about: Option<About>| about.is_some_and(|about| about.inode == self.listed.inode);
        let listed = Listed { inode: 0, length: 0, since: 0, close_as: None, ..self.listed.clone() };
        self.open = None;
        let next = if is_it(folder.about(&self.path)?) {
            folder.rename(&self.path, &closed)?;
            Some(Self { is_durable: true, ..Self::new(folder, listed) })
        } else if is_it(folder.about(&closed)?) {
            Self::reopen(folder, listed)?
        } else {
            tracing::warn!(path = %self.path.display(), "the file was moved away before it was closed");
            *self = Self { is_durable: false, ..Self::new(folder, listed) };
            return Ok(None);
        };
        // Before its successor is made, and also where a killed process has renamed it.
        folder.sync_folders(&closed)?;
        if let Some(next) = next {
            *self = Self { used: self.used, ..next };
        }
        Ok(Some(closed))
    }

    /// How long it will be after this call.
    pub(super) fn next_length(&self) -> u64 {
        self.listed.length.saturating_add(u64::try_from(self.lines.len()).unwrap_or(u64::MAX))
    }

    /// Whether its last line has no end, so that a line feed goes before the next one.
    pub(super) fn lacks_newline(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.lacks_newline)
    }

    /// Whether something follows the listed length that was not compared yet.
    pub(super) fn has_tail(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.end > self.listed.length)
    }

    /// What is wrong where bytes follow that this sink does not write there.
    pub(super) fn foreign(&self, at: u64) -> OpenError {
        OpenError::Down(format!(
            "{}: from byte {at} on it holds something else than the lines that belong there; nothing was overwritten. \
             Move the file away, and a new one is begun",
            self.path.display()
        ))
    }

    /// Writes the lines of this call behind the listed length, over the same lines or parts of them, and syncs.
    pub(super) fn write(&mut self) -> Result<(), OpenError> {
        if self.lines.is_empty() {
            return Ok(());
        }
        self.compare()?;
        let (at, next) = (self.listed.length, self.next_length());
        if let Some(open) = &mut self.open {
            open.file.write_all_at(&self.lines, at).map_err(|e| open_error(&self.path, "appending", &e))?;
            open.file.sync_data().map_err(|e| open_error(&self.path, "syncing", &e))?;
            open.end = open.end.max(next);
            open.lacks_newline = false;
        }
        self.listed.length = next;
        self.lines.clear();
        Ok(())
    }

    /// Checks that what is there already is what is to be written, or NUL where a sector was lost.
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
