//! The light way: records and cursors are noted in the journal, one frame for all that is there, and answered after its
//! sync. The database learns of them later (`upkeep.rs`).

use std::sync::Arc;
use std::time::Instant;

use super::Appended;
use super::command::{Command, Done, answer, fail_appends};
use super::error::SpoolError;
use super::journal::entry::{self, Advanced, Entry};
use super::store;
use super::unsettled::{Pending, Place};
use super::writer::Writer;
use crate::record::Record;
use crate::verify::VerifiedBy;

/// What a frame says, until it is on the disk.
#[derive(Default)]
struct Frame {
    done: Vec<(Command, Done)>,
    records: Vec<Pending>,
    /// The events that became known with it, and since when they had been.
    noted: Vec<(Arc<Record>, Option<i64>)>,
    moved: Vec<(Arc<str>, Place)>,
    last_seq: i64,
}

impl Writer {
    /// Whether a command is a matter of the journal.
    pub(super) fn is_for_journal(&self, command: &Command) -> bool {
        let Some(journal) = &self.journal else { return false };
        match command {
            // With its headers, one is never larger than a frame.
            Command::Append { .. } => most_bytes(command) < journal.most() / 2,
            Command::Advance { progress, .. } => {
                progress.rejected.is_empty()
                    && progress.redelivered.is_empty()
                    && progress.rejected_again.is_empty()
                    && progress.damaged.is_empty()
                    && progress
                        .checkpoint
                        .as_ref()
                        .is_none_or(|checkpoint| checkpoint.len() < journal.most() / 2)
            }
            _ => false,
        }
    }

    /// Notes records without the database, for those who must not wait for it. Gives back what needs it. It may run while
    /// the writer's thread settles; so there has to be room (making some would settle as well), and no cursor moves here
    /// (see [`Journal::release`](super::journal::Journal::release)).
    pub(super) fn append(&mut self, batch: Vec<Command>) -> Vec<Command> {
        let Some(journal) = &self.journal else { return batch };
        let bytes = batch.iter().map(most_bytes).fold(0, usize::saturating_add);
        let is_simple = bytes < journal.most() / 2 && journal.has_room(bytes);
        if !is_simple || self.poisoned.is_some() || self.is_stuck || self.no_room().is_some() {
            return batch;
        }
        self.note(batch)
    }

    /// Whether the journal is to be brought to the database soon, asked once until it is.
    pub(super) fn asks_for_upkeep(&mut self) -> bool {
        let is_due = self.journal.as_ref().is_some_and(|journal| journal.used() > journal.size() / 2);
        is_due && !std::mem::replace(&mut self.has_asked, true)
    }

    /// Notes all commands, in one frame if they fit into one. Gives back what the database may still have room for.
    pub(super) fn note(&mut self, batch: Vec<Command>) -> Vec<Command> {
        let most = self.journal.as_ref().map_or(0, |journal| journal.most() / 2);
        let now = self.clock.unix_millis();
        let mut left = Vec::new();
        let mut frame = self.frame();
        for command in batch {
            if self.entries.len() >= most {
                left.extend(self.write(frame));
                frame = self.frame();
            }
            match self.add(&mut frame, &command, now) {
                Ok(done) => frame.done.push((command, done)),
                Err(error) => command.fail(self.failed(&error)),
            }
        }
        left.extend(self.write(frame));
        left
    }

    fn frame(&mut self) -> Frame {
        self.entries.clear();
        Frame { last_seq: self.counters.last_seq, ..Frame::default() }
    }

    /// Adds what a command says to a frame.
    fn add(&mut self, frame: &mut Frame, command: &Command, now: i64) -> rusqlite::Result<Done> {
        match command {
            Command::Append { record, dedup, .. } => {
                let seen_at = (*dedup && !self.options.dedup_window.is_zero()).then_some(now);
                if seen_at.is_some() {
                    let at = self.recent.seen_at(&self.database.connection, record)?;
                    if at.is_some_and(|at| store::is_within_window(&self.options, at, now)) {
                        return Ok(Done::Appended(Appended::Duplicate));
                    }
                }
                let seq = frame.last_seq.saturating_add(1);
                entry::write_accepted(&mut self.entries, seq, seen_at, record).map_err(unwritable)?;
                frame.last_seq = seq;
                if let Some(at) = seen_at {
                    let before = self.recent.note(record, at);
                    frame.noted.push((Arc::clone(record), before));
                }
                frame.records.push(Pending { seq, seen_at, record: Arc::clone(record) });
                Ok(Done::Appended(Appended::New(seq)))
            }
            Command::Advance { sink, progress, .. } => {
                let moved = frame.moved.iter().rev().find(|(name, _)| name == sink).map(|(_, place)| place);
                let Some(place) = moved.or_else(|| self.unsettled.places.get(sink)) else {
                    return Ok(Done::Moved(progress.cursor));
                };
                // A cursor that was moved back in the meantime stays there.
                let cursor = if progress.from.is_none_or(|from| from == place.cursor) {
                    progress.cursor
                } else {
                    place.cursor
                };
                let checkpoint = progress.checkpoint.clone().or_else(|| place.checkpoint.clone());
                let advanced = Advanced { sink, cursor, checkpoint: checkpoint.as_deref() };
                entry::write(&mut self.entries, &Entry::Advanced(advanced)).map_err(unwritable)?;
                frame.moved.push((Arc::clone(sink), Place { cursor, checkpoint, is_stored: false }));
                Ok(Done::Moved(cursor))
            }
            _ => Ok(Done::Bound),
        }
    }

    /// Writes and syncs a frame, and answers. Gives back what the database may still have room for.
    fn write(&mut self, frame: Frame) -> Vec<Command> {
        let started = Instant::now();
        let Some(written) = self.write_entries(&frame) else {
            // Copies of what is on the disk already.
            frame.done.into_iter().for_each(|(command, done)| answer(command, done));
            return Vec::new();
        };
        let Frame { done, records, noted, moved, last_seq } = frame;
        if let Err(error) = written {
            for (record, before) in noted.into_iter().rev() {
                self.recent.unnote(&record, before);
            }
            let commands = done.into_iter().map(|(command, _)| command).collect();
            if matches!(error, SpoolError::Full { .. }) {
                return fail_appends(commands, &error);
            }
            commands.into_iter().for_each(|command| command.fail(error.clone()));
            return Vec::new();
        }
        if let Some(pending) = records.last() {
            self.vouched = pending.record.received_at;
            self.unstick();
        }
        self.counters.last_seq = last_seq;
        self.unsettled.places.extend(moved);
        self.tail.noted(records.iter().map(|pending| (pending.seq, Arc::clone(&pending.record))), last_seq);
        self.unsettled.records.extend(records);
        if let Some(telemetry) = &self.options.telemetry {
            telemetry.spool_commit(started.elapsed(), done.len());
        }
        done.into_iter().for_each(|(command, done)| answer(command, done));
        Vec::new()
    }

    /// Writes the entries as a frame, for which room is made if there is none. `None` when there are none.
    fn write_entries(&mut self, frame: &Frame) -> Option<Result<(), SpoolError>> {
        if self.entries.is_empty() {
            return None;
        }
        if let Some(text) = self.poisoned.clone() {
            return Some(Err(SpoolError::Poisoned { path: self.folder.clone(), text }));
        }
        while self.journal.as_ref().is_some_and(|journal| !journal.has_room(self.entries.len())) {
            if let Err(error) = self.settle_oldest() {
                return Some(Err(error));
            }
            // Those of this frame are not in the database, and not among what is kept for that reason either.
            for Pending { seen_at, record, .. } in &frame.records {
                if let Some(at) = seen_at {
                    self.recent.note(record, *at);
                }
            }
        }
        let journal = self.journal.as_mut()?;
        let written = journal.write(&self.entries, frame.last_seq);
        Some(written.map_err(|error| self.not_written(&error)))
    }
}

fn unwritable(error: postcard::Error) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(error.into())
}

/// How many bytes a record takes at most in a frame.
fn most_bytes(command: &Command) -> usize {
    /// Numbers, lengths, and texts of a record that are short by their nature.
    const REST: usize = 256;
    let Command::Append { record, .. } = command else { return 0 };
    let headers = [record.headers.signatures_json().len(), record.headers.names_json().len()];
    let key = match &record.verified_by {
        VerifiedBy::Secret { label } => label,
        VerifiedBy::Asymmetric { kid } => kid,
    };
    let texts = [record.connector.len(), record.event_id.len(), record.event_type.len(), key.len()];
    headers
        .into_iter()
        .chain(texts)
        .chain([&record.project, &record.device].into_iter().flatten().map(|text| text.len()))
        .fold(record.body.len().saturating_add(REST), usize::saturating_add)
}
