//! What a batch is about to do to its files, kept beside them until the batch after: the way back.
//!
//! One file in the template's root, `.dt-receiver-HASH.journal`, with the hash of the template: a line with the SHA-256
//! of the next one, and a line of JSON. It is written in place and synced before the batch begins; a torn one does not
//! match its hash, and means that the batch had not begun.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::open_file::{sync_folder_of, unusable};
use crate::sink::OpenError;

/// What a batch does to one file, and what the file was before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Touched {
    /// Below the template's root.
    pub(super) path: String,
    pub(super) inode: u64,
    pub(super) length: u64,
    pub(super) since: i64,
    /// The batch made it.
    pub(super) made: bool,
    /// The names that it, and then its successors, get when they are closed.
    pub(super) closed_as: Vec<String>,
}

/// A batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Intent {
    pub(super) life: String,
    pub(super) generation: u64,
    pub(super) files: Vec<Touched>,
}

/// The file. It is made by the first batch that needs it.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: Option<File>,
}

/// The first half of a SHA-256, in hexadecimal.
pub(super) fn short_hash(text: &str) -> String {
    hex::encode(Sha256::digest(text)).chars().take(16).collect()
}

impl Journal {
    pub(super) fn new(root: &Path, template_hash: &str) -> Self {
        Self { path: root.join(format!(".dt-receiver-{template_hash}.journal")), file: None }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn open(&mut self, make: bool) -> Result<Option<&mut File>, OpenError> {
        if self.file.is_none() {
            let opened =
                OpenOptions::new().read(true).write(true).create(make).truncate(false).open(&self.path);
            let file = match opened {
                Err(error) if error.kind() == io::ErrorKind::NotFound && !make => return Ok(None),
                opened => opened.map_err(|e| unusable(&self.path, "opening", &e))?,
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let text = format!("{}: another process or sink writes to it", self.path.display());
                    return Err(OpenError::Unusable(text));
                }
                Err(TryLockError::Error(error)) => return Err(unusable(&self.path, "locking", &error)),
            }
            if make {
                sync_folder_of(&self.path)?;
            }
            self.file = Some(file);
        }
        Ok(self.file.as_mut())
    }

    /// Lets another process have it.
    pub(super) fn close(&mut self) {
        self.file = None;
    }

    /// The last batch that was written down.
    pub(super) fn read(&mut self) -> Result<Option<Intent>, OpenError> {
        let mut text = String::new();
        let Some(file) = self.open(false)? else { return Ok(None) };
        let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_string(&mut text));
        match read {
            Ok(_) => {}
            // Torn.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(None),
            Err(error) => return Err(unusable(&self.path, "reading", &error)),
        }
        let (Some((hash, intent)), true) = (text.split_once('\n'), text.ends_with('\n')) else {
            return Ok(None);
        };
        let intent = intent.trim_end();
        if hex::encode(Sha256::digest(intent)) != hash {
            return Ok(None);
        }
        serde_json::from_str(intent).map(Some).map_err(|error| {
            let path = self.path.display();
            OpenError::Down(format!("{path}: of another version ({error}); start that one once, and stop it"))
        })
    }

    pub(super) fn write(&mut self, intent: &Intent) -> Result<(), OpenError> {
        let json = serde_json::to_string(intent).map_err(|e| OpenError::Unusable(e.to_string()))?;
        self.put(&format!("{}\n{json}\n", hex::encode(Sha256::digest(&json))))
    }

    /// Forgets the batch, once it has been undone.
    pub(super) fn clear(&mut self) -> Result<(), OpenError> {
        if self.open(false)?.is_some() { self.put("") } else { Ok(()) }
    }

    fn put(&mut self, text: &str) -> Result<(), OpenError> {
        let Some(file) = self.open(true)? else { return Ok(()) };
        let put = file
            .seek(SeekFrom::Start(0))
            .and_then(|_| file.set_len(0))
            .and_then(|()| file.write_all(text.as_bytes()))
            .and_then(|()| file.sync_data());
        put.map_err(|e| unusable(&self.path, "writing", &e))
    }
}
