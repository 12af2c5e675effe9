//! The file operations of the log and of the file sink, behind a trait. Tests use it to fail a write, fill the disk, or cut
//! the power between two syncs. [`SystemDisk`] is the operating system's disk.

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
    /// Opens an existing file for reading.
    Read,
    /// Opens an existing file for reading and writing.
    Write,
    /// Creates a file, with the permissions that the umask allows.
    Create,
    /// Creates a file that only its owner can access.
    CreatePrivate,
}

/// The metadata of a file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct About {
    /// The length of the file in bytes.
    pub length: u64,
    /// The number of the device on which the file is stored.
    pub device: u64,
    /// The inode number, which is unique on that device.
    pub inode: u64,
    /// Whether it is a regular file.
    pub is_file: bool,
    /// Whether it is a folder.
    pub is_folder: bool,
    /// When the content last changed, in Unix milliseconds.
    pub modified: i64,
}

/// A file system.
///
/// A write is durable once a sync of its file has returned. A created, renamed or removed name is durable once a sync of
/// its folder has returned.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Opens a file.
    ///
    /// # Errors
    ///
    /// The error of the operating system, such as `NotFound` or `AlreadyExists`.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>>;

    /// Renames a file, and replaces any file with the new name.
    ///
    /// # Errors
    ///
    /// The error of the operating system.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// The error of the operating system.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Creates one folder; its parent must exist. With `is_private`, only its owner can access it.
    ///
    /// # Errors
    ///
    /// The error of the operating system; `AlreadyExists` if the folder exists.
    fn create_folder(&self, path: &Path, is_private: bool) -> io::Result<()>;

    /// Syncs the names in a folder.
    ///
    /// # Errors
    ///
    /// The error of the operating system.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// Returns the names in a folder, in any order.
    ///
    /// # Errors
    ///
    /// The error of the operating system.
    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>>;

    /// Returns the metadata of a path; `None` if nothing exists there.
    ///
    /// # Errors
    ///
    /// The error of the operating system.
    fn about(&self, path: &Path) -> io::Result<Option<About>>;

    /// Returns the number of bytes that this process may still write to the file system of a folder.
    ///
    /// # Errors
    ///
    /// The error of the operating system.
    fn free_bytes(&self, folder: &Path) -> io::Result<u64>;
}

/// An open file.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Reads bytes from an offset into the buffer. Returns the number of bytes read, which is less than the length of the buffer
    /// only at the end of the file.
    ///
    /// # Errors
    ///
    /// The error of the operating system.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all bytes at an offset, which may be beyond the end of the file.
    ///
    /// # Errors
    ///
    /// The error of the operating system. Any part of the bytes may have been written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Sets the length of the file. Added bytes are zeros.
    ///
    /// # Errors
    ///
    /// The error of the operating system.
    fn set_length(&self, length: u64) -> io::Result<()>;

    /// Syncs the content and the length of the file.
    ///
    /// # Errors
    ///
    /// The error of the operating system. Which writes since the last sync are durable is then unknown, and a later
    /// successful sync does not change that.
    fn sync_data(&self) -> io::Result<()>;

    /// Returns the metadata of the file.
    ///
    /// # Errors
    ///
    /// The error of the operating system.
    fn about(&self) -> io::Result<About>;

    /// Takes an advisory lock until the file is closed. Returns `false` if another open file holds the lock.
    ///
    /// # Errors
    ///
    /// The error of the operating system.
    fn try_lock(&self) -> io::Result<bool>;
}

/// The file system of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemDisk;

/// A file of the operating system.
#[derive(Debug)]
struct SystemFile(File);

impl SystemDisk {
    /// Returns the disk that the program uses outside of tests: the file system of the operating system.
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

/// Creates `path` and its missing parent folders, and syncs each into its parent.
///
/// # Errors
///
/// The error of the operating system, with the path of the folder that could not be created.
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

/// Returns the parent folder of a path.
#[must_use]
pub fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
