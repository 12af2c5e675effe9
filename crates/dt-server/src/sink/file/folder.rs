//! Opens, creates and renames files below a sink's folder, durably.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::sink::OpenError;
use dt_log::disk::{About, Disk, DiskFile, OpenMode, parent};

/// A folder on a disk, which contains all files of a sink.
#[derive(Debug, Clone)]
pub struct SinkFolder {
    pub disk: Arc<dyn Disk>,
    pub root: PathBuf,
}

/// An open and locked file, with its metadata after locking.
pub type Locked = (Box<dyn DiskFile>, About);

/// Returns [`OpenError::Unusable`], which prevents the start, for errors that a wrong configuration causes. Returns
/// [`OpenError::Down`] for other errors, such as a full or failing disk: events can be stored without the sink.
pub fn open_error(path: &Path, doing: &str, error: &io::Error) -> OpenError {
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
    /// Returns the metadata of a path; `None` if nothing exists there.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if the metadata cannot be read.
    pub fn about(&self, path: &Path) -> Result<Option<About>, OpenError> {
        match self.disk.about(path) {
            // A parent of the path is a file, so the path does not exist.
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(None),
            found => found.map_err(|e| open_error(path, "reading its length", &e)),
        }
    }

    /// Opens and locks a file; `None` if it does not exist. The lock is advisory.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if the file cannot be opened, is locked by another sink, or is not a regular file.
    pub fn open(&self, path: &Path) -> Result<Option<Locked>, OpenError> {
        match self.disk.open(path, OpenMode::Write) {
            Ok(file) => Self::lock(path, file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(open_error(path, "opening", &error)),
        }
    }

    /// Creates and locks a file, with the folders between it and the root; `None` if the file exists. The root must exist.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if a folder or the file cannot be created or locked, or if the path is a symbolic link without a target,
    /// which can neither be opened nor created.
    pub fn create(&self, path: &Path) -> Result<Option<Locked>, OpenError> {
        for folder in self.folders(path).into_iter().rev().skip(1) {
            match self.disk.create_folder(folder, false) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made.map_err(|e| open_error(folder, "creating the folder", &e))?,
            }
        }
        match self.disk.open(path, OpenMode::Create) {
            Ok(file) => Self::lock(path, file).map(Some),
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(open_error(path, "opening", &error))
            }
            Err(_) if self.about(path)?.is_some() => Ok(None),
            Err(_) => Err(OpenError::Down(format!(
                "{}: a symbolic link without a target; mount the target's file system, create the target, or remove the link",
                path.display()
            ))),
        }
    }

    fn lock(path: &Path, file: Box<dyn DiskFile>) -> Result<Locked, OpenError> {
        if !file.try_lock().map_err(|e| open_error(path, "locking", &e))? {
            let text = format!("{}: another process or sink writes to it", path.display());
            return Err(OpenError::Unusable(text));
        }
        // Read after locking: the previous owner may have written until it released the lock.
        let about = file.about().map_err(|e| open_error(path, "reading its type", &e))?;
        if about.is_file {
            Ok((file, about))
        } else {
            Err(OpenError::Unusable(format!("{}: not a regular file", path.display())))
        }
    }

    /// Makes the name of a file durable, and the names of its parent folders up to the root: a killed process may have
    /// created them without a sync.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if a folder cannot be synced.
    pub fn sync_folders(&self, path: &Path) -> Result<(), OpenError> {
        let synced =
            |folder| self.disk.sync_folder(folder).map_err(|e| open_error(folder, "syncing the folder", &e));
        self.folders(path).into_iter().try_for_each(synced)
    }

    /// Renames a closed file. It never replaces another file.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if a file with the new name exists, or the rename fails.
    pub fn rename(&self, from: &Path, to: &Path) -> Result<(), OpenError> {
        if self.about(to)?.is_some() {
            let (from, to) = (from.display(), to.display());
            return Err(OpenError::Down(format!(
                "{to}: the file is in the way of {from}, which is to be closed; move it away"
            )));
        }
        self.disk.rename(from, to).map_err(|e| open_error(from, "renaming", &e))
    }

    /// Returns the folders from the file's parent up to the root.
    fn folders<'a>(&self, path: &'a Path) -> Vec<&'a Path> {
        let below = parent(path).ancestors().take_while(|folder| folder.starts_with(&self.root));
        below.collect()
    }
}
