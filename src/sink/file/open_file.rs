//! One file: opened and locked, appended to and synced, cut back.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use crate::sink::OpenError;

/// The longest tail without a line feed that is taken for a torn line of ours; a longer one means that the file is
/// something else, and nothing is touched.
const MAX_TORN: u64 = 16 * 1024 * 1024;

/// A file that is open and locked.
#[derive(Debug)]
pub(super) struct OpenFile {
    file: File,
    device: u64,
    pub(super) inode: u64,
    /// Length up to which everything is synced.
    pub(super) length: u64,
    /// When the stretch of `rotate_every` began that it holds, in Unix milliseconds.
    pub(super) since: i64,
    /// Grows with each use: the smallest is closed first.
    pub(super) used: u64,
}

/// What looks like a mistake in the configuration stops the start; a disk that is full or fails does not, since events
/// can be stored without it.
pub(super) fn unusable(path: &Path, doing: &str, error: &io::Error) -> OpenError {
    use io::ErrorKind::{InvalidFilename, IsADirectory, NotADirectory, NotFound, PermissionDenied};
    let text = format!("{}: {doing}: {error}", path.display());
    match error.kind() {
        IsADirectory | NotADirectory | InvalidFilename | NotFound | PermissionDenied => {
            OpenError::Unusable(text)
        }
        _ => OpenError::Down(text),
    }
}

impl OpenFile {
    /// Opens a file and locks it (advisory): two writers would tear each other's lines. One that is not there is made;
    /// the second value says so.
    pub(super) fn open(path: &Path) -> Result<(Self, bool), OpenError> {
        match Self::open_existing(path)? {
            Some(open) => Ok((open, false)),
            None => {
                let made = OpenOptions::new().read(true).append(true).create(true).open(path);
                let open = Self::take(path, made.map_err(|e| unusable(path, "opening", &e))?)?;
                // A new file is durable only once the folder that names it is.
                sync_folder_of(path)?;
                Ok((open, true))
            }
        }
    }

    /// The same for a file that is there.
    pub(super) fn open_existing(path: &Path) -> Result<Option<Self>, OpenError> {
        match OpenOptions::new().read(true).append(true).open(path) {
            Ok(file) => Self::take(path, file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unusable(path, "opening", &error)),
        }
    }

    fn take(path: &Path, file: File) -> Result<Self, OpenError> {
        let found = file.metadata().map_err(|e| unusable(path, "reading its type", &e))?;
        if !found.is_file() {
            return Err(OpenError::Unusable(format!("{}: not a regular file", path.display())));
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let text = format!("{}: another process or sink writes to it", path.display());
                return Err(OpenError::Unusable(text));
            }
            Err(TryLockError::Error(error)) => return Err(unusable(path, "locking", &error)),
        }
        // Once more: its last owner may have cut it before letting go.
        let found = file.metadata().map_err(|e| unusable(path, "reading its length", &e))?;
        let since = modified_millis(&found);
        Ok(Self { device: found.dev(), inode: found.ino(), length: found.len(), since, used: 0, file })
    }

    /// Cuts off what follows the last line feed: never acknowledged.
    pub(super) fn cut_torn_line(&mut self, path: &Path) -> Result<(), OpenError> {
        let torn = torn_tail(&mut self.file).map_err(|e| unusable(path, "reading its end", &e))?;
        if torn >= MAX_TORN {
            let path = path.display();
            let text = format!("{path}: its last {MAX_TORN} bytes hold no line end; not ours?");
            return Err(OpenError::Unusable(text));
        }
        if torn > 0 {
            self.cut_to(path, self.length.saturating_sub(torn))?;
        }
        Ok(())
    }

    /// Cuts off what lies beyond a length; never makes the file longer, which would fill it with zeros.
    pub(super) fn cut_to(&mut self, path: &Path, length: u64) -> Result<(), OpenError> {
        let found = self.file.metadata().map_err(|e| unusable(path, "reading its length", &e))?.len();
        if found > length {
            let bytes = found.saturating_sub(length);
            tracing::warn!(path = %path.display(), bytes, "what was not acknowledged was cut off");
            self.file
                .set_len(length)
                .map_err(|e| unusable(path, "cutting off what was not acknowledged", &e))?;
        }
        self.file.sync_all().map_err(|e| unusable(path, "syncing", &e))?;
        self.length = found.min(length);
        Ok(())
    }

    /// Appends and syncs.
    pub(super) fn append(&mut self, path: &Path, lines: &[u8]) -> Result<(), OpenError> {
        self.file.write_all(lines).map_err(|e| unusable(path, "appending", &e))?;
        self.file.sync_data().map_err(|e| unusable(path, "syncing", &e))?;
        // Somebody may have cut it meanwhile.
        self.length = self.file.metadata().map_err(|e| unusable(path, "reading its length", &e))?.len();
        Ok(())
    }

    /// Whether the path still leads to this file; not so after `logrotate`. Takes its length over, since somebody may
    /// have cut it.
    pub(super) fn look_at(&mut self, path: &Path) -> bool {
        let found = std::fs::metadata(path).ok();
        let found = found.filter(|found| (found.dev(), found.ino()) == (self.device, self.inode));
        self.length = found.as_ref().map_or(self.length, Metadata::len);
        found.is_some()
    }
}

/// Makes the folders between `root` and the file durably. The root itself has to be there.
pub(super) fn make_folders(root: &Path, relative: &str) -> Result<(), OpenError> {
    let mut folder = root.to_owned();
    let mut components: Vec<&str> = relative.split('/').collect();
    components.pop();
    for component in components {
        folder.push(component);
        match std::fs::create_dir(&folder) {
            Ok(()) => sync_folder_of(&folder)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(unusable(&folder, "making the folder", &error)),
        }
    }
    Ok(())
}

/// What was made, renamed or removed in a folder is durable only once the folder is.
pub(super) fn sync_folder_of(path: &Path) -> Result<(), OpenError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|e| unusable(folder, "syncing the folder", &e))
}

fn modified_millis(found: &Metadata) -> i64 {
    let since = found.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or(0)
}

/// How many bytes follow the last line feed.
fn torn_tail(file: &mut File) -> io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut torn = 0_u64;
    let mut block = [0_u8; 8192];
    while end > 0 && torn < MAX_TORN {
        let start = end.saturating_sub(8192);
        let len = usize::try_from(end.saturating_sub(start)).unwrap_or(0);
        let Some(part) = block.get_mut(..len) else { break };
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        match part.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => {
                let after = len.saturating_sub(at).saturating_sub(1);
                return Ok(torn.saturating_add(u64::try_from(after).unwrap_or(u64::MAX)));
            }
            None => torn = torn.saturating_add(u64::try_from(len).unwrap_or(u64::MAX)),
        }
        end = start;
    }
    Ok(torn)
}
