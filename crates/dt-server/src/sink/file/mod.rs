//! The sink `file`: newline-delimited JSON, appended and synced.
//!
//! - A batch is appended to its files, with one write and one sync for each, and is delivered once these have returned.
//! - The sink only appends. It never shortens a file, and overwrites only what it has proved to be its own lines.
//! - Files are locked (advisory): two writers would tear each other's lines.
//! - When a path leads to another file than the one that is open, as after `logrotate`, the new one is used. What others
//!   have written to a file stays; if its last line has no end, a line feed is written first.
//! - Files are closed by size and time as `rotate.rs` says. A file is closed when the next event comes, not by a timer:
//!   a sink without events closes nothing. With `rotate_every` an event closes all files in use of earlier stretches,
//!   also those of other paths.
//!
//! # Neither a lost nor a doubled line
//!
//! A checkpoint holds the rules by which records become lines in files (path template, format and its version, rotation),
//! and of each file in use the path, inode, length, and the name that it gets if it is to be closed. The worker stores it
//! in one piece with its cursor, some time after the batch. After a crash it opens the sink with the stored checkpoint,
//! and gives it all records behind the stored cursor again. Then these rules suffice:
//!
//! 1. **Only what the stored checkpoint lists is changed.** A batch that needs a file that it does not list, or closes
//!    one, is delivered up to there; the other records stay pending, with a checkpoint that is due. The next call
//!    of `deliver` comes when that is stored. So between a stored checkpoint and the crash, lines were appended to files
//!    that it lists, and files got the names that it has for them: nothing else.
//! 2. **Compare, do not cut.** The records that come again make the same lines in the same order. Where these go, the file
//!    ends, or has the same bytes, or NUL in sectors that did not reach the disk. The lines are written over that and
//!    synced. Any other byte is foreign: nothing is written, the trouble is reported, and the sink waits until somebody
//!    moves the file away. Delivering for the first time is the same, on a file that ends where the lines go.
//! 3. **A failed batch is a crash**: the sink goes back to its last checkpoint, and compares.
//! 4. **A file to be closed** (`close_as`) holds nothing that is not delivered. Its inode says which of its two names it
//!    has. What is found at its path afterwards is the next file, and is compared from its first byte on.
//! 5. **The rules of the checkpoint stay in force until all has been compared**; then those of the configuration are
//!    stored, and take their folder.
//! 6. **Compression** removes a closed file, so it waits until the stored checkpoint does not have it to be closed. What a
//!    stop left uncompressed is compressed after the first event that follows.
//!
//! A file that is shorter than the checkpoint says (`copytruncate`), gone, or another one, is a warning: lines go to what
//! is there now, and may be doubled after a crash.
//!
//! Without checkpoints (mode `direct`) nothing is compared; a crash or a failed batch can leave lines that were not
//! acknowledged, and a part of one, which gets a line feed before the next line.

mod checkpoint;
mod compress;
mod files;
mod folder;
mod plan;
mod rotate;
mod settings;
#[cfg(test)]
mod tests;
mod tracked;

use std::path::PathBuf;
use std::sync::Arc;

use self::checkpoint::{Checkpoint, Rules, VERSION, decode, encode};
use self::compress::Compressor;
use self::files::Files;
use self::folder::{SinkFolder, open_error};
use self::plan::plan;
use self::rotate::Rotation;
pub use self::settings::{Compression, FileConfig, UnknownCompression};
use super::{Fate, Format, OpenError, Outcome, Sink};
use dt_log::disk::{Disk, SystemDisk};
use dt_sink::record::{PathTemplate, Record};

/// Appends one line an event to files.
#[derive(Debug)]
pub struct FileSink {
    /// The configuration.
    configured: Rules,
    /// What is in force: the same, or those of the checkpoint until all that it covers has been compared.
    rules: Rules,
    files: Files,
    /// The last checkpoint, to go back to after a failure.
    last: Option<Vec<u8>>,
    is_failed: bool,
    /// Whether the rules have changed since the last checkpoint.
    is_changed: bool,
    compress: Option<Compression>,
    compressor: Option<Compressor>,
    /// What was closed since a stored checkpoint.
    closed: Vec<PathBuf>,
    /// What a stored checkpoint says is closed, and can be compressed.
    to_compress: Vec<PathBuf>,
}

impl FileSink {
    /// A sink that appends to exactly this path. The file is made if it is not there; its folder has to be.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, format: Format) -> Self {
        Self::with(FileConfig::new(PathTemplate::fixed(&path.into())), format)
    }

    /// A sink with a path template and rotation. Folders below the template's fixed part are made.
    #[must_use]
    pub fn with(config: FileConfig, format: Format) -> Self {
        Self::on(SystemDisk::shared(), config, format)
    }

    /// The same on another disk.
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
            is_changed: false,
            compress,
            compressor: None,
            closed: Vec::new(),
            to_compress: Vec::new(),
        }
    }

    /// Takes up the files of the last checkpoint; without one, none.
    fn go_back(&mut self) -> Result<(), OpenError> {
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
        files.into_iter().try_for_each(|listed| self.files.restore(listed))?;
        if let Some(tail) = self.files.tail() {
            let path = tail.path.display();
            if version != VERSION {
                return Err(OpenError::Down(format!(
                    "{path}: its last lines are of another version and cannot be compared; start that version once, or \
                     move the file away"
                )));
            }
            tracing::info!(%path, "the lines that follow the last checkpoint are compared with those that come again");
            if self.rules != self.configured {
                tracing::warn!(%path, "the earlier configuration stays in force until that is done");
            }
        }
        self.is_changed = version != VERSION;
        Ok(())
    }

    /// Puts the configuration in force, once all is done by the rules of the checkpoint.
    fn change_rules(&mut self) -> Result<(), OpenError> {
        if self.rules == self.configured {
            return Ok(());
        }
        self.files.look_at_tails()?;
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

    /// Opens the one file of a fixed path, so that what can never be opened shows at the start.
    fn open_fixed(&mut self) -> Result<(), OpenError> {
        if self.rules.template.is_fixed() {
            self.files.touch(&self.rules.template.relative_text(), self.rules.rotation)?;
        }
        Ok(())
    }

    /// Returns how many records of the batch were delivered.
    fn try_deliver(&mut self, batch: &[Arc<Record>]) -> Result<usize, OpenError> {
        if self.is_failed {
            self.go_back()?;
            self.is_failed = false;
        }
        self.files.next_call();
        self.compress_closed()?;
        self.closed.extend(self.files.carry_out_closes()?);
        self.change_rules()?;
        if self.is_changed && self.files.is_kept {
            return Ok(0);
        }
        let planned = plan(&mut self.files, &self.rules, batch)?;
        self.files.write()?;
        self.files.forget_unmade();
        if planned > 0 || self.files.is_checkpoint_due() {
            return Ok(planned);
        }
        Err(match self.files.tail() {
            // It is kept for a line that does not come.
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

    /// The last checkpoint is stored before the next call of `deliver`.
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
        let failed = |error| open_error(template.root(), "looking for closed files", &error);
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
        self.go_back()?;
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
                // As after a crash.
                self.is_failed = true;
                self.files.clear();
                Outcome::retry(batch.len(), &error.to_string())
            }
        }
    }

    fn close(&mut self) {
        // One that is at work would not see what is renamed.
        self.compressor = None;
        self.to_compress.clear();
        self.files.clear();
    }
}
