//! Stores the last valid key set of each issuer on disk, in one file, as the issuer served it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::fetch::MAX_ANSWER;

/// Returns the path of the file for an issuer's key set.
pub fn file(folder: &Path, issuer: &str) -> PathBuf {
    let hash = Sha256::digest(issuer.as_bytes());
    let name = hex::encode(hash.iter().take(8).copied().collect::<Vec<u8>>());
    folder.join(format!("jwks-{name}.json"))
}

/// Reads a file of at most [`MAX_ANSWER`] bytes; `None` if it cannot be read.
pub fn read(file: &Path) -> Option<Vec<u8>> {
    let mut json = Vec::new();
    let most = u64::try_from(MAX_ANSWER).unwrap_or(u64::MAX);
    File::open(file).and_then(|file| file.take(most).read_to_end(&mut json)).ok()?;
    Some(json)
}

/// Returns when a file was written, in Unix seconds; `None` if that is not known.
pub fn written_at(file: &Path) -> Option<i64> {
    let since = fs::metadata(file).ok()?.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok()
}

/// Replaces the content of a file atomically and durably.
///
/// # Errors
///
/// Returns the error of the operating system. In this case, the old file stays.
pub fn write(file: &Path, json: &[u8]) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let new = file.with_extension("new");
    let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    out.write_all(json)?;
    out.sync_all()?;
    fs::rename(&new, file)?;
    File::open(folder)?.sync_all()
}
