//! Checks whether the files of a sink could be written, without creating, opening or locking a file: a receiver may use them.

use std::fs;
use std::io;
use std::path::Path;

use dt_sink::record::PathTemplate;
use rustix::fs::{Access, AtFlags, CWD, accessat};

/// Checks that this user may write the file of a fixed path, or create files in the folder of a template, and returns the result
/// in words. `needs_folder` says that files are renamed, which requires write access to their folder as well.
///
/// # Errors
///
/// A message that names the path, the cause and the remedy.
pub fn probe(template: &PathTemplate, needs_folder: bool) -> Result<String, String> {
    let folder = template.root();
    let path = folder.join(template.relative_text());
    let found = if template.is_fixed() { metadata(&path)? } else { None };
    match &found {
        Some(found) if !found.is_file() => {
            return Err(format!("{}: not a regular file; name another path", path.display()));
        }
        Some(_) => may(&path, Access::WRITE_OK)?,
        None => {}
    }
    if found.is_none() || needs_folder {
        may(folder, Access::WRITE_OK | Access::EXEC_OK)?;
    }
    Ok(match found {
        Some(_) => format!("{} can be written", path.display()),
        None => format!("files can be made in {}", folder.display()),
    })
}

/// Returns the metadata of a path; `None` if nothing exists there.
fn metadata(path: &Path) -> Result<Option<fs::Metadata>, String> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(format!("{}: {error}", path.display())),
        Err(_) if path.is_symlink() => Err(format!(
            "{}: a symbolic link without a target; create the target, or remove the link",
            path.display()
        )),
        Err(_) => Ok(None),
    }
}

/// Checks the permissions of this process's user on a path, and that the file system is not read-only.
fn may(path: &Path, access: Access) -> Result<(), String> {
    accessat(CWD, path, access, AtFlags::EACCESS).map_err(|error| match error {
        rustix::io::Errno::NOENT => format!("{0}: does not exist; make it: mkdir -p {0}", path.display()),
        error => {
            format!("{}: this user may not write there: {error}; check its owner and mode", path.display())
        }
    })
}
