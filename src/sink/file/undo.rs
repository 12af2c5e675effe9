//! Takes back what a batch did to its files: after a failure, and after a crash. It may be done twice.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::journal::Touched;
use super::open_file::{OpenFile, sync_folder_of, unusable};
use crate::sink::OpenError;

const CURE: &str = "move it away, and a new one is begun";

/// Makes one file what it was before the batch, and leaves it open if it is there.
pub(super) fn undo(root: &Path, touched: &Touched) -> Result<Option<OpenFile>, OpenError> {
    let path = root.join(&touched.path);
    rename_back(root, touched, &path)?;
    let Some(mut open) = OpenFile::open_existing(&path)? else {
        if !touched.made {
            tracing::warn!(path = %path.display(), "the file is gone; a new one is begun when it is needed");
        }
        return Ok(None);
    };
    let shown = path.display();
    if open.inode != touched.inode {
        if touched.made {
            // Somebody has put another one in its place.
            return Ok(None);
        }
        return Err(OpenError::Down(format!("{shown}: it is not the file that was written to; {CURE}")));
    }
    if touched.made {
        fs::remove_file(&path).map_err(|e| unusable(&path, "removing", &e))?;
        sync_folder_of(&path)?;
        return Ok(None);
    }
    if open.length < touched.length {
        let (length, was) = (open.length, touched.length);
        return Err(OpenError::Down(format!("{shown}: it has {length} bytes and had {was}; {CURE}")));
    }
    open.cut_to(&path, touched.length)?;
    open.since = touched.since;
    Ok(Some(open))
}

/// The batch's own files go first, so that the one from before it can take its place again.
fn rename_back(root: &Path, touched: &Touched, path: &Path) -> Result<(), OpenError> {
    let Some((first, later)) = touched.closed_as.split_first() else { return Ok(()) };
    for name in later {
        let closed = root.join(name);
        match fs::remove_file(&closed) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unusable(&closed, "removing", &error)),
        }
    }
    let first = root.join(first);
    if fs::metadata(&first).is_ok_and(|found| found.ino() == touched.inode) {
        fs::rename(&first, path).map_err(|e| unusable(&first, "renaming it back", &e))?;
    }
    // The folder may be gone with all that was in it.
    if path.parent().is_none_or(Path::exists) { sync_folder_of(path) } else { Ok(()) }
}
