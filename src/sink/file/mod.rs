//! The sink `file`: newline-delimited JSON, appended and synced.
//!
//! - A batch is appended to its files and is delivered once each has been synced: power may fail after that. One file is
//!   synced once a batch, however many lines it got.
//! - A batch is delivered as a whole or not at all: after a failure everything is taken back before the next try.
//! - A file can be left with a torn last line by others. What was never acknowledged is cut off when it is opened.
//! - Files are locked (advisory): two writers would tear each other's lines.
//! - When a path leads to another file than the one that is open, as after `logrotate`, the new one is opened.
//! - Files are closed by size and time as `rotate.rs` says. A file is closed when the next event comes, not by a timer:
//!   a sink without events closes nothing. With `rotate_every` an event closes all open files of earlier stretches,
//!   also those of other paths.
//!
//! # Neither a lost nor a doubled line
//!
//! The worker stores the checkpoint of batch *k* together with its position, in one transaction, before it delivers
//! batch *k + 1*. After a crash the sink is opened with the checkpoint *k*, and everything after it is delivered again.
//! So all that is needed is that [`open`](Sink::open) can take back what one batch, *k + 1*, did, whatever part of it
//! had reached the disk:
//!
//! 1. **Appended to a file that is in checkpoint *k***, with its length: what lies beyond is cut off.
//! 2. **Anything else** (a file that was made, or closed, or that is not in the checkpoint, which has room for the last
//!    few dozen only): before it touches any file, the batch writes down in the journal (`journal.rs`) what all its files
//!    were and what it will call those it closes, and syncs that. The journal belongs to batch *k + 1* by its life and
//!    generation; a journal of *k* or earlier is stale, since checkpoint *k* is stored. To go back (`undo.rs`), what the
//!    batch made is removed, the file that it closed gets its name again, and files are cut to their lengths.
//! 3. A crash **before the journal is synced**: it is torn or stale, and nothing but empty files was made.
//! 4. A crash **while going back**: each step may be done twice, and the journal is cleared after the last.
//! 5. **Compression** removes a closed file, so it begins only when the batch after the one that closed it is
//!    delivered, or on a start, when what had to be taken back has been.
//! 6. **The first batch** has a checkpoint before it too: [`begin`](Sink::begin), with a new life, so that journals of an
//!    earlier life, whose spool is gone, never take anything back.
//!
//! Most batches are of the first kind and cost one sync a file. A file that is shorter than it has to be, or another
//! one, is reported and not touched until somebody has moved it away. One that is gone was moved away.
//!
//! Without checkpoints (mode `direct`) no journal is written; a crash can leave lines that were not acknowledged.

mod checkpoint;
mod compress;
mod journal;
mod open_file;
mod open_files;
mod plan;
mod rotate;
mod undo;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;

use self::checkpoint::{Checkpoint, Listed};
use self::compress::Compressor;
use self::journal::{Intent, Journal, Touched, short_hash};
use self::open_file::{sync_folder_of, unusable};
use self::open_files::OpenFiles;
use self::plan::{Buffers, Planned, Rules, plan};
use self::rotate::Rotation;
use super::{Format, OpenError, Outcome, Sink};
use crate::config::{Compression, FileConfig};
use crate::record::{PathTemplate, Record};

/// Appends one line an event to files.
#[derive(Debug)]
pub struct FileSink {
    template: PathTemplate,
    /// Identifies the template together with its folder.
    place: String,
    format: Format,
    rotation: Rotation,
    compress: Option<Compression>,
    compressor: Option<Compressor>,
    files: OpenFiles,
    journal: Journal,
    /// There if checkpoints are kept.
    life: Option<Life>,
    /// What the batch that failed has to take back.
    unfinished: Vec<Touched>,
    /// What the last batch closed, to be compressed once its checkpoint is known to be stored.
    closed: Vec<PathBuf>,
    buffers: Buffers,
}

/// The last checkpoint.
#[derive(Debug)]
struct Life {
    id: String,
    generation: u64,
    /// Its files: inode and length by path.
    listed: BTreeMap<String, (u64, u64)>,
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
        let FileConfig { path, rotate_size, rotate_every, compress } = config;
        let template = path.absolute();
        let template_hash = short_hash(&template.relative_text());
        let root = template.root().to_owned();
        Self {
            journal: Journal::new(&root, &template_hash),
            files: OpenFiles::new(root),
            rotation: Rotation { size: rotate_size, every: rotate_every },
            place: short_hash(&template.to_string()),
            template,
            format,
            compress,
            compressor: None,
            life: None,
            unfinished: Vec::new(),
            closed: Vec::new(),
            buffers: Buffers::default(),
        }
    }

    /// Takes back what the last batch did, if it failed.
    fn undo_unfinished(&mut self) -> Result<(), OpenError> {
        if !self.unfinished.is_empty() {
            // Closed first: each is locked.
            self.files.clear();
            for touched in &self.unfinished {
                if let Some(open) = undo::undo(self.files.root(), touched)? {
                    self.files.put(&touched.path, open);
                }
            }
            self.unfinished.clear();
        }
        Ok(())
    }

    /// Makes all files what they were at the checkpoint.
    fn go_back_to(&mut self, checkpoint: Checkpoint) -> Result<(), OpenError> {
        let Checkpoint { life, generation, files, .. } = checkpoint;
        let next = generation.saturating_add(1);
        let intent = self.journal.read()?.filter(|intent| intent.life == life);
        if let Some(intent) = intent.as_ref().filter(|intent| intent.generation > next) {
            let (path, at) = (self.journal.path().display(), intent.generation);
            return Err(OpenError::Down(format!(
                "{path}: it is of batch {at}, and the spool's last is {generation}: was an old spool put back? \
                 Move its files away, and this one"
            )));
        }
        let intent = intent.filter(|intent| intent.generation == next);
        let mut to_undo = intent.map(|intent| intent.files).unwrap_or_default();
        let known: BTreeSet<String> = to_undo.iter().map(|touched| touched.path.clone()).collect();
        let mut listed = BTreeMap::new();
        // The last used comes first in the list, and is to be the last used again.
        for Listed(path, inode, length, since) in files.into_iter().rev() {
            listed.insert(path.clone(), (inode, length));
            // The journal is younger: somebody may have cut the file between the two batches.
            if !known.contains(&path) {
                to_undo.push(Touched { path, inode, length, since, made: false, closed_as: Vec::new() });
            }
        }
        for touched in &to_undo {
            if let Some(open) = undo::undo(self.files.root(), touched)? {
                self.files.put(&touched.path, open);
            }
        }
        self.journal.clear()?;
        self.life = Some(Life { id: life, generation, listed });
        Ok(())
    }

    fn reopen(&mut self, checkpoint: Option<&[u8]>) -> Result<(), OpenError> {
        // One that is at work would not see what is renamed back.
        self.compressor = None;
        self.closed.clear();
        self.life = None;
        self.journal.close();
        self.undo_unfinished()?;
        self.files.clear();
        if let Some(bytes) = checkpoint {
            let Some(checkpoint) = Checkpoint::decode(bytes) else {
                let path = &self.template;
                return Err(OpenError::Down(format!(
                    "{path}: its stored checkpoint cannot be read; is it of another version?"
                )));
            };
            if checkpoint.template == self.place {
                self.go_back_to(checkpoint)?;
            } else {
                tracing::warn!(path = %self.template, "it was another path before; files are begun anew");
            }
        }
        if self.template.is_fixed() {
            // What can never be opened shows at the start.
            self.files.open(&self.template.relative_text(), self.rotation)?;
        }
        if let Some(kind) = self.compress {
            let root = self.template.root();
            let started = Compressor::start(kind, &self.template);
            self.compressor = Some(started.map_err(|e| unusable(root, "looking for closed files", &e))?);
        }
        Ok(())
    }

    /// Writes the batch down first, if its checkpoint does not suffice to take it back.
    fn write_down(&mut self, planned: &[Planned]) -> Result<(), OpenError> {
        let Some(life) = &self.life else { return Ok(()) };
        let is_covered = |touched: &Touched| {
            !touched.made
                && touched.closed_as.is_empty()
                && life.listed.get(&touched.path) == Some(&(touched.inode, touched.length))
        };
        if planned.iter().all(|planned| is_covered(&planned.touched)) {
            return Ok(());
        }
        let files = planned.iter().map(|planned| planned.touched.clone()).collect();
        let generation = life.generation.saturating_add(1);
        self.journal.write(&Intent { life: life.id.clone(), generation, files })
    }

    fn carry_out(&mut self, planned: &Planned) -> Result<(), OpenError> {
        let Planned { touched, parts } = planned;
        let path = self.files.root().join(&touched.path);
        for (at, part) in parts.iter().enumerate() {
            let before = at.checked_sub(1).and_then(|at| touched.closed_as.get(at));
            if let Some(name) = before {
                let closed = self.files.root().join(name);
                std::fs::rename(&path, &closed).map_err(|e| unusable(&path, "renaming", &e))?;
                // Before its successor is made: without it, there could be no telling whose that is.
                sync_folder_of(&closed)?;
                self.files.forget(&touched.path);
                self.closed.push(closed);
            }
            if part.lines.is_empty() {
                continue;
            }
            let (open, made) = self.files.open(&touched.path, self.rotation)?;
            let expected = if before.is_some() {
                made
            } else {
                (open.inode, open.length) == (touched.inode, touched.length)
            };
            if !expected {
                let path = path.display();
                return Err(OpenError::Down(format!("{path}: somebody else has changed it just now")));
            }
            open.append(&path, &part.lines)?;
            open.since = part.since;
        }
        Ok(())
    }

    fn try_deliver(&mut self, batch: &[Arc<Record>]) -> Result<(), OpenError> {
        self.undo_unfinished()?;
        self.compress_closed();
        let rules = Rules { template: &self.template, format: self.format, rotation: self.rotation };
        let planned = plan(&rules, &mut self.files, &mut self.buffers, batch)?;
        self.write_down(&planned)?;
        self.unfinished = planned.iter().map(|planned| planned.touched.clone()).collect();
        let carried_out = planned.iter().try_for_each(|planned| self.carry_out(planned));
        if carried_out.is_err() {
            self.closed.clear();
            return carried_out;
        }
        self.unfinished.clear();
        self.buffers.keep(planned);
        if self.life.is_none() {
            self.compress_closed();
        }
        Ok(())
    }

    fn compress_closed(&mut self) {
        for closed in self.closed.drain(..) {
            if let Some(compressor) = &self.compressor {
                compressor.add(closed);
            }
        }
    }

    /// Where the sink stands, which from now on counts as stored.
    fn checkpoint(&mut self) -> Option<Vec<u8>> {
        let life = self.life.as_mut()?;
        let mut checkpoint = Checkpoint {
            life: life.id.clone(),
            generation: life.generation,
            template: self.place.clone(),
            files: self.files.listed(),
        };
        let bytes = checkpoint.encode();
        life.listed = checkpoint
            .files
            .into_iter()
            .map(|Listed(path, inode, length, _)| (path, (inode, length)))
            .collect();
        bytes
    }
}

impl Sink for FileSink {
    fn open(&mut self, checkpoint: Option<&[u8]>) -> Result<(), OpenError> {
        self.reopen(checkpoint)
    }

    fn begin(&mut self) -> Option<Vec<u8>> {
        if self.life.is_some() {
            return None;
        }
        // Not secret, only different each time.
        let id = format!("{:016x}", RandomState::new().hash_one(std::process::id()));
        self.life = Some(Life { id, generation: 0, listed: BTreeMap::new() });
        self.checkpoint()
    }

    fn deliver(&mut self, batch: &[Arc<Record>]) -> Outcome {
        match self.try_deliver(batch) {
            Ok(()) => {
                if let Some(life) = &mut self.life {
                    life.generation = life.generation.saturating_add(1);
                }
                Outcome { checkpoint: self.checkpoint(), ..Outcome::delivered(batch.len()) }
            }
            Err(error) => Outcome::retry(batch.len(), &error.to_string()),
        }
    }

    fn close(&mut self) {
        self.compressor = None;
        self.journal.close();
        self.files.clear();
    }
}
