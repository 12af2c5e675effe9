//! The files of earlier indexes, which were renamed before a new index was created: their names, and how many of them are kept.

use std::io;
use std::path::{Path, PathBuf};

use super::super::sqlite::{self, DatabaseHeader, ENDINGS, with_ending};
use super::table::{self, FORMAT};
use super::{IdsError, IndexShared};

/// The infix in the name of a renamed index. A number follows, which is higher for later files.
const REPLACED: &str = ".damaged-";
/// A file with a higher number is not a renamed index: the number would be a time after the year 30,000.
const MAX_NUMBER: i64 = 1 << 40;
/// The number of renamed indexes that are kept: enough to investigate a faulty disk. A file can have hundreds of megabytes.
const KEPT: usize = 3;

impl IndexShared {
    /// Renames the file of the index, and the files that SQLite keeps beside it, to unused names. Returns the new path of the
    /// file; `None` if it did not exist. `now` is in Unix milliseconds.
    pub fn rename_away(&self, now: i64) -> Result<Option<PathBuf>, IdsError> {
        let failed = |error: io::Error| IdsError::failed(&self.path, "renaming", &error);
        let last = self.replaced().map_err(failed)?.first().map(|(number, _)| number.saturating_add(1));
        let mut number = now.div_euclid(1000).max(last.unwrap_or(i64::MIN));
        let to = loop {
            let to = with_ending(&self.path, &format!("{REPLACED}{number}"));
            let mut is_free = true;
            for ending in ENDINGS {
                is_free &= !with_ending(&to, ending).try_exists().map_err(failed)?;
            }
            if is_free {
                break to;
            }
            number = number.checked_add(1).ok_or_else(|| failed(io::ErrorKind::AlreadyExists.into()))?;
        };
        let mut renamed_to = None;
        for ending in ENDINGS {
            match std::fs::rename(with_ending(&self.path, ending), with_ending(&to, ending)) {
                Ok(()) if ending.is_empty() => renamed_to = Some(to.clone()),
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
        Ok(renamed_to)
    }

    /// Removes renamed indexes, except the newest [`KEPT`], and except files that are not certainly an index of this store, since
    /// they may contain other data. Called after the new index was created. A failure is only logged.
    pub fn remove_replaced(&self) {
        let failed = |path: &Path, error: io::Error| {
            tracing::warn!(path = %path.display(), %error, "an older index of event ids cannot be removed");
        };
        let replaced = match self.replaced() {
            Ok(replaced) => replaced,
            Err(error) => return failed(&self.path, error),
        };
        for (_, path) in replaced.iter().skip(KEPT).filter(|(_, path)| self.is_own(path)) {
            // The database last: without it, the others would not be found again.
            for ending in ENDINGS.iter().rev() {
                match std::fs::remove_file(with_ending(path, ending)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return failed(path, error),
                    _ => {}
                }
            }
            tracing::info!(path = %path.display(), "removed an older index of event ids; the newest {KEPT} are kept");
        }
    }

    /// Returns the numbers and the paths of the renamed indexes, newest first.
    fn replaced(&self) -> io::Result<Vec<(i64, PathBuf)>> {
        let (Some(folder), Some(name)) = (self.path.parent(), self.path.file_name()) else {
            return Ok(Vec::new());
        };
        let mut replaced = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let found = entry?.file_name();
            let number = found.to_str().zip(name.to_str()).and_then(|(found, name)| {
                let number = found.strip_prefix(name)?.strip_prefix(REPLACED)?.parse::<i64>().ok()?;
                (number < MAX_NUMBER).then_some(number)
            });
            replaced.extend(number.map(|number| (number, folder.join(&found))));
        }
        replaced.sort_unstable_by(|one, other| other.cmp(one));
        Ok(replaced)
    }

    /// Returns whether a file is certainly an index of this store. Only its header and its store id are read: other pages may be
    /// damaged.
    fn is_own(&self, path: &Path) -> bool {
        let read = || -> rusqlite::Result<bool> {
            let connection = sqlite::open_read_only(path, true)?;
            let is_index = FORMAT.header_of(&connection)? == DatabaseHeader::Current;
            Ok(is_index && table::store_id(&connection)? == self.options.store_id)
        };
        read().unwrap_or(false)
    }
}
