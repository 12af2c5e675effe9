//! The file operations of the log and of the file sink, behind a trait, so that tests can fail a write, fill the disk, or
//! take the power away between two syncs. [`SystemDisk`] is the operating system's.

pub mod fake;

use std::ffi::OsString;
use std::fmt;
use std::fs::{DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// It exists, and is only read.
    Read,
    /// It exists, and is read and written.
    Write,
    /// It does not exist yet. Made for everybody that the umask allows.
    Create,
    /// The same, readable and writable for its owner only.
    CreatePrivate,
}

/// What is known of a file or folder without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct About {
    /// Length in bytes.
    pub length: u64,
    /// The device that it is on.
    pub device: u64,
    /// Its number on that device; another file has another one.
    pub inode: u64,
    /// Whether it is a regular file.
    pub is_file: bool,
    /// Whether it is a folder.
    pub is_folder: bool,
    /// When its content last changed, in Unix milliseconds.
    pub modified: i64,
}

/// A file system.
///
/// A write is durable once a sync of its file has returned; a made, renamed or removed name once a sync of its folder has.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Opens a file.
    ///
    /// # Errors
    ///
    /// What the system says: `NotFound`, `AlreadyExists` and so on.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>>;

    /// Gives a file another name, in place of whatever has that name.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Makes one folder; its parent exists. `is_private`: for its owner only.
    ///
    /// # Errors
    ///
    /// What the system says; `AlreadyExists` where there is one.
    fn create_folder(&self, path: &Path, is_private: bool) -> io::Result<()>;

    /// Syncs a folder: the names in it.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// The names in a folder, in no order.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>>;

    /// What a path leads to; `None` where there is nothing.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn about(&self, path: &Path) -> io::Result<Option<About>>;

    /// How many bytes this process may still write to the file system of a folder.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn free_bytes(&self, folder: &Path) -> io::Result<u64>;
}

/// An open file.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Reads from an offset; fewer bytes than the buffer has only at the end of the file.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all bytes at an offset, beyond the end too.
    ///
    /// # Errors
    ///
    /// What the system says; then any part of the bytes may have been written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes the file shorter, or longer by zeros.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn set_length(&self, length: u64) -> io::Result<()>;

    /// Syncs content and length.
    ///
    /// # Errors
    ///
    /// What the system says; then nobody knows which of the writes since the last sync are durable, and a later sync that
    /// succeeds does not say either.
    fn sync_data(&self) -> io::Result<()>;

    /// What is known of it.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn about(&self) -> io::Result<About>;

    /// Locks it (advisory) until it is closed; `false` where another open file has the lock.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn try_lock(&self) -> io::Result<bool>;
}

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemDisk;

/// A file of the operating system.
#[derive(Debug)]
struct SystemFile(File);

impl SystemDisk {
    /// The disk that everything but a test uses.
    #[must_use]
    pub fn shared() -> Arc<dyn Disk> {
        Arc::new(Self)
    }
}

impl Disk for SystemDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(mode != OpenMode::Read);
        match mode {
            OpenMode::Read | OpenMode::Write => {}
            OpenMode::Create => {
                options.create_new(true);
            }
            OpenMode::CreatePrivate => {
                options.create_new(true).mode(0o600);
            }
        }
        Ok(Box::new(SystemFile(options.open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn create_folder(&self, path: &Path, is_private: bool) -> io::Result<()> {
        DirBuilder::new().mode(if is_private { 0o700 } else { 0o777 }).create(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.file_name())).collect()
    }

    fn about(&self, path: &Path) -> io::Result<Option<About>> {
        match std::fs::metadata(path) {
            Ok(found) => Ok(Some(about(&found))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        let found = rustix::fs::statvfs(folder)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }
}

impl DiskFile for SystemFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0_usize;
        while let Some(rest) = buffer.get_mut(read..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
            match self.0.read_at(rest, at) {
                Ok(0) => break,
                Ok(more) => read = read.saturating_add(more),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn about(&self) -> io::Result<About> {
        self.0.metadata().map(|found| about(&found))
    }

    fn try_lock(&self) -> io::Result<bool> {
        match self.0.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

fn about(found: &Metadata) -> About {
    let modified = found.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    About {
        length: found.len(),
        device: found.dev(),
        inode: found.ino(),
        is_file: found.is_file(),
        is_folder: found.is_dir(),
        modified: modified.and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or(0),
    }
}

/// Makes the missing folders on the way to `path`, and syncs each into its parent.
///
/// # Errors
///
/// What the system says, with the folder.
pub fn create_folders(disk: &dyn Disk, path: &Path, is_private: bool) -> Result<(), (PathBuf, io::Error)> {
    let missing: Vec<&Path> =
        path.ancestors().take_while(|folder| !matches!(disk.about(folder), Ok(Some(_)))).collect();
    for folder in missing.into_iter().rev().filter(|folder| !folder.as_os_str().is_empty()) {
        let failed = |error| (folder.to_owned(), error);
        match disk.create_folder(folder, is_private) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.map_err(failed)?,
        }
        disk.sync_folder(parent(folder)).map_err(failed)?;
    }
    Ok(())
}

/// The folder that a path lies in.
#[must_use]
pub fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
