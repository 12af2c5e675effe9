//! The sink `file`: appends newline-delimited JSON to files, and syncs them.
//!
//! - A batch is appended with one write and one sync per file. It is delivered once all syncs have returned.
//! - The sink never shortens a file, and overwrites only bytes that it has compared with its own lines.
//! - Files are locked (advisory), so that two sinks do not mix parts of lines.
//! - When a path leads to another file than the one that is open, as after `logrotate`, the sink uses the new file.
//!   Content written by other programs is kept; if its last line has no line feed, the sink writes one first.
//! - Files are closed by size and time: see `rotate.rs`. A file is closed when the next event arrives, not by a timer. With
//!   `rotate_every`, an event closes all files of earlier periods, also those of other paths.
//!
//! # No lost and no duplicate lines
//!
//! A checkpoint holds the rules that map records to lines in files (path template, format and its version, rotation), and
//! for each file in use its path, inode, length, and the name that it gets when it is closed. The worker stores the
//! checkpoint and its cursor in one transaction, some time after the batch. After a crash it opens the sink with the stored
//! checkpoint, and delivers all records after the stored cursor again. These rules then suffice:
//!
//! 1. **Only files in the stored checkpoint are changed.** A batch that needs another file, or closes one, is delivered up
//!    to that record. The other records stay pending until the worker has stored the new checkpoint; only then it calls
//!    `deliver` again. Between a stored checkpoint and a crash, the sink has therefore only appended lines to files in the
//!    checkpoint, and given files the names in the checkpoint.
//! 2. **Compare, do not truncate.** Repeated records produce the same lines in the same order. At their position, the file
//!    ends, or has the same bytes, or NUL in sectors that did not reach the disk. The lines are written over that and
//!    synced. Any other byte is foreign: nothing is written, the error is reported, and the sink waits until the operator
//!    moves the file away. A first delivery is the same, on a file that ends at that position.
//! 3. **A failed batch is handled like a crash**: the sink returns to its last checkpoint, and compares. Only a file that
//!    another program changed during the batch is not compared, but opened again: the sink has written nothing to it.
//! 4. **A file to be closed** (`close_as`) holds only delivered lines. Its inode shows whether it was renamed. A file found
//!    at the old path afterwards is the next file, and is compared from its first byte.
//! 5. **The rules of the checkpoint apply until all repeated lines are compared.** Then the rules of the configuration
//!    replace them, in a new checkpoint.
//! 6. **Compression** removes a closed file, so it waits until the stored checkpoint no longer lists the file as to be
//!    closed. Files that a stop left uncompressed are compressed after the first event of the next start.
//!
//! A file that is missing, was replaced, or is shorter than in the checkpoint (`copytruncate`) causes a warning: lines are
//! written to the file at that path, and may be duplicated after a crash.
//!
//! The length of a file is checked directly before each write. Bytes that another program appends in the microseconds between
//! the two are overwritten: no call of the operating system does both in one step.
//!
//! Without checkpoints (mode `direct`) nothing is compared. A crash or a failed batch can leave lines that were not
//! acknowledged, and an incomplete line, which is ended by a line feed before the next line.

mod checkpoint;
mod compress;
mod files;
mod folder;
mod plan;
mod probe;
mod rotate;
mod settings;
#[cfg(test)]
mod tests;
mod tracked;

use std::path::PathBuf;
use std::sync::Arc;

use self::checkpoint::{Checkpoint, Listed, Rules, VERSION, decode, encode};
use self::compress::Compressor;
use self::files::Files;
use self::folder::{SinkFolder, open_error};
use self::plan::plan;
use self::rotate::Rotation;
pub use self::settings::{Compression, FileConfig, UnknownCompression};
use super::{Fate, Format, OpenError, Outcome, Sink};
use dt_log::disk::{Disk, SystemDisk};
use dt_sink::record::{PathTemplate, Record};

/// A sink that appends one line per event to files.
#[derive(Debug)]
pub struct FileSink {
    /// The rules of the configuration.
    configured: Rules,
    /// The current rules: those of the checkpoint until all repeated lines are compared, then `configured`.
    rules: Rules,
    files: Files,
    /// The last checkpoint, to which the sink returns after a failed batch; `None` if there is none.
    last: Option<Vec<u8>>,
    is_failed: bool,
    /// The path, below the root, of the file that another program changed during the failed batch; `None` if there is none.
    changed: Option<String>,
    /// Whether the rules have changed since the last checkpoint.
    is_changed: bool,
    compress: Option<Compression>,
    compressor: Option<Compressor>,
    /// The files that were closed after the stored checkpoint.
    closed: Vec<PathBuf>,
    /// The files that are closed in the stored checkpoint, and can be compressed.
    to_compress: Vec<PathBuf>,
}

impl FileSink {
    /// Creates a sink that appends to the file with this path. The file is created if it is missing; its folder must exist.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, format: Format) -> Self {
        Self::with(FileConfig::new(PathTemplate::fixed(&path.into())), format)
    }

    /// Creates a sink with a path template and rotation. Folders below the template's fixed part are created.
    #[must_use]
    pub fn with(config: FileConfig, format: Format) -> Self {
        Self::on(SystemDisk::shared(), config, format)
    }

    /// Creates a sink that writes to the given disk. Tests use a simulated one.
    pub(crate) fn on(disk: Arc<dyn Disk>, config: FileConfig, format: Format) -> Self {
        let FileConfig { path, rotate_size, rotate_every, compress } = config;
        let rotation = Rotation { size: rotate_size, every: rotate_every };
        let configured = Rules { template: path.absolute(), format, rotation };
        Self {
            files: Files::new(SinkFolder { disk, root: configured.template.root().to_owned() }),
            rules: configured.clone(),
            configured,
            last: None,
            is_failed: false,
            changed: None,
            is_changed: false,
            compress,
            compressor: None,
            closed: Vec::new(),
            to_compress: Vec::new(),
        }
    }

    /// Opens the files of the last checkpoint, if there is one.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if a file cannot be opened, or the checkpoint is of another version.
    fn restore(&mut self) -> Result<(), OpenError> {
        self.closed.clear();
        self.is_changed = false;
        let Some(bytes) = &self.last else {
            self.files.reset(&self.rules);
            return Ok(());
        };
        let Some(Checkpoint { version, rules, files }) = decode(bytes, &self.configured) else {
            let path = &self.configured.template;
            return Err(OpenError::Down(format!(
                "{path}: the sink's checkpoint cannot be read; start the version of dt-receiver that wrote it"
            )));
        };
        self.rules = rules;
        self.files.reset(&self.rules);
        // A file to be closed is another one than the file that followed it at its path.
        let is_kept =
            |listed: &Listed| listed.close_as.is_some() || self.changed.as_ref() != Some(&listed.path);
        files.into_iter().filter(is_kept).try_for_each(|listed| self.files.restore(listed))?;
        if let Some(tail) = self.files.tail() {
            let path = tail.path.display();
            if version != VERSION {
                return Err(OpenError::Down(format!(
                    "{path}: its last lines were written by another version and cannot be compared; start that version once, \
                     or move the file away"
                )));
            }
            tracing::info!(%path, "comparing the lines after the last checkpoint with repeated events");
            if self.rules != self.configured {
                tracing::warn!(%path, "the previous configuration applies until the lines are compared");
            }
        }
        self.is_changed = version != VERSION;
        Ok(())
    }

    /// Activates the rules of the configuration, if all lines are compared and all files are closed by the rules of the
    /// checkpoint.
    fn change_rules(&mut self) -> Result<(), OpenError> {
        if self.rules == self.configured {
            return Ok(());
        }
        self.files.check_tails()?;
        if self.files.tail().is_some() || self.files.is_closing() {
            return Ok(());
        }
        if self.rules.template != self.configured.template {
            self.files.reset(&self.configured);
        }
        self.rules = self.configured.clone();
        self.is_changed = true;
        self.open_fixed()
    }

    /// Opens the file of a fixed path, so that the start fails if the file can never be opened.
    fn open_fixed(&mut self) -> Result<(), OpenError> {
        if self.rules.template.is_fixed() {
            self.files.touch(&self.rules.template.relative_text(), self.rules.rotation)?;
        }
        Ok(())
    }

    /// Writes the records of a batch in order, up to the first one whose file must be in a stored checkpoint first. Returns the
    /// number of written records.
    fn try_deliver(&mut self, batch: &[Arc<Record>]) -> Result<usize, OpenError> {
        if self.is_failed {
            self.restore()?;
            (self.is_failed, self.changed) = (false, None);
        }
        self.files.next_call();
        self.compress_closed()?;
        self.closed.extend(self.files.close_planned()?);
        self.change_rules()?;
        if self.is_changed && self.files.is_kept {
            return Ok(0);
        }
        let planned = plan(&mut self.files, &self.rules, batch)?;
        if let Some(changed) = self.files.write()? {
            let path = self.rules.template.root().join(&changed);
            self.changed = Some(changed);
            return Err(OpenError::Down(format!(
                "{}: another program wrote to the file at the same time; its bytes are kept",
                path.display()
            )));
        }
        self.files.forget_uncreated();
        if planned > 0 || self.files.is_checkpoint_due() {
            return Ok(planned);
        }
        Err(match self.files.tail() {
            // The files in use cannot be replaced, because one has bytes that no repeated line matches.
            Some(tail) => tail.foreign(tail.listed.length),
            None => OpenError::Down("the path of a file is too long for a checkpoint".to_owned()),
        })
    }

    fn outcome(&mut self, delivered: usize, count: usize) -> Outcome {
        let mut fates = vec![Fate::Delivered; delivered];
        fates.resize(count, Fate::Pending { last_error: None });
        if !self.files.is_kept {
            self.to_compress.append(&mut self.closed);
            return Outcome { fates, ..Outcome::default() };
        }
        let has_closed = self.compress.is_some() && !self.closed.is_empty();
        let is_checkpoint_due = has_closed || self.is_changed || self.files.is_checkpoint_due();
        let checkpoint = self.checkpoint();
        if is_checkpoint_due {
            self.set_durable();
        }
        Outcome { fates, checkpoint, is_checkpoint_due }
    }

    fn checkpoint(&mut self) -> Option<Vec<u8>> {
        self.last = encode(&self.rules, self.files.listed());
        self.last.clone()
    }

    /// Marks the last checkpoint as durable in advance: the worker stores it before the next call of `deliver`.
    fn set_durable(&mut self) {
        self.is_changed = false;
        self.files.set_durable();
        self.to_compress.append(&mut self.closed);
    }

    fn compress_closed(&mut self) -> Result<(), OpenError> {
        let Some(kind) = self.compress else {
            self.to_compress.clear();
            return Ok(());
        };
        if let Some(compressor) = &self.compressor {
            self.to_compress.drain(..).for_each(|path| compressor.add(path));
            return Ok(());
        }
        let template = &self.configured.template;
        let except = self.files.closing().chain(self.closed.iter().cloned()).collect();
        let started = Compressor::start(&self.files.folder.disk, kind, template, &except);
        let failed = |error| open_error(template.root(), "listing closed files", &error);
        self.compressor = Some(started.map_err(failed)?);
        self.to_compress.clear();
        Ok(())
    }
}

impl Sink for FileSink {
    fn open(&mut self, checkpoint: Option<&[u8]>) -> Result<(), OpenError> {
        self.close();
        self.last = checkpoint.map(<[u8]>::to_vec);
        self.files.is_kept = self.last.is_some();
        self.rules = self.configured.clone();
        self.changed = None;
        self.restore()?;
        self.is_failed = false;
        self.change_rules()?;
        self.open_fixed()
    }

    fn begin(&mut self) -> Option<Vec<u8>> {
        self.files.is_kept = true;
        self.set_durable();
        self.checkpoint()
    }

    fn deliver(&mut self, batch: &[Arc<Record>]) -> Outcome {
        match self.try_deliver(batch) {
            Ok(delivered) => self.outcome(delivered, batch.len()),
            Err(error) => {
                // The next call starts from the last checkpoint, as after a crash.
                self.is_failed = true;
                self.files.clear();
                Outcome::retry(batch.len(), &error.to_string())
            }
        }
    }

    fn close(&mut self) {
        // A running compressor would miss files that are renamed later.
        self.compressor = None;
        self.to_compress.clear();
        self.files.clear();
    }
}
