//! The folder that a sink's files are in: opens, makes and renames files there, durably.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::sink::OpenError;
use dt_log::disk::{About, Disk, DiskFile, OpenMode, parent};

/// A folder on a disk.
#[derive(Debug, Clone)]
pub(super) struct SinkFolder {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) root: PathBuf,
}

/// A file that is open and locked, and what was known of it then.
pub(super) type Locked = (Box<dyn DiskFile>, About);

/// A mistake in the configuration is [`OpenError::Unusable`] and stops the start. A disk that is full or fails is
/// [`OpenError::Down`]: events can be stored without it.
pub(super) fn open_error(path: &Path, doing: &str, error: &io::Error) -> OpenError {
    use io::ErrorKind::{InvalidFilename, IsADirectory, NotADirectory, NotFound, PermissionDenied};
    let text = format!("{}: {doing}: {error}", path.display());
    match error.kind() {
        IsADirectory | NotADirectory | InvalidFilename | NotFound | PermissionDenied => {
            OpenError::Unusable(text)
        }
        _ => OpenError::Down(text),
    }
}

impl SinkFolder {
    /// What a path leads to.
    pub(super) fn about(&self, path: &Path) -> Result<Option<About>, OpenError> {
        match self.disk.about(path) {
            // A file in place of a folder: the path leads nowhere.
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(None),
            found => found.map_err(|e| open_error(path, "reading its length", &e)),
        }
    }

    /// Opens and locks a file (advisory: two writers would tear each other's lines); `None` where there is none.
    pub(super) fn open(&self, path: &Path) -> Result<Option<Locked>, OpenError> {
        match self.disk.open(path, OpenMode::Write) {
            Ok(file) => Self::lock(path, file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(open_error(path, "opening", &error)),
        }
    }

    /// Makes a file, with the folders between the root and it, and locks it; `None` where there is one already. The root
    /// has to be there.
    pub(super) fn create(&self, path: &Path) -> Result<Option<Locked>, OpenError> {
        for folder in self.folders(path).into_iter().rev().skip(1) {
            match self.disk.create_folder(folder, false) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made.map_err(|e| open_error(folder, "making the folder", &e))?,
            }
        }
        match self.disk.open(path, OpenMode::Create) {
            Ok(file) => Self::lock(path, file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            Err(error) => Err(open_error(path, "opening", &error)),
        }
    }

    fn lock(path: &Path, file: Box<dyn DiskFile>) -> Result<Locked, OpenError> {
        if !file.try_lock().map_err(|e| open_error(path, "locking", &e))? {
            let text = format!("{}: another process or sink writes to it", path.display());
            return Err(OpenError::Unusable(text));
        }
        // After the lock: its last owner may have written until then.
        let about = file.about().map_err(|e| open_error(path, "reading its type", &e))?;
        if about.is_file {
            Ok((file, about))
        } else {
            Err(OpenError::Unusable(format!("{}: not a regular file", path.display())))
        }
    }

    /// Makes a file's name durable, and those of all folders on the way to it, whoever made them: a killed process may
    /// have made them and not synced them.
    pub(super) fn sync_folders(&self, path: &Path) -> Result<(), OpenError> {
        let synced =
            |folder| self.disk.sync_folder(folder).map_err(|e| open_error(folder, "syncing the folder", &e));
        self.folders(path).into_iter().try_for_each(synced)
    }

    /// Renames a closed file durably, and never over another one.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> Result<(), OpenError> {
        if self.about(to)?.is_some() {
            let (from, to) = (from.display(), to.display());
            return Err(OpenError::Down(format!(
                "{to}: it is in the way of {from}, which is closed; move it away"
            )));
        }
        self.disk.rename(from, to).map_err(|e| open_error(from, "renaming", &e))
    }

    /// The folders from the file's up to the root.
    fn folders<'a>(&self, path: &'a Path) -> Vec<&'a Path> {
        let below = parent(path).ancestors().take_while(|folder| folder.starts_with(&self.root));
        below.collect()
    }
}
