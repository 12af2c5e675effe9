//! What the writer is asked for, and how it answers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use tokio::sync::oneshot;

use super::change::{Change, Changed};
use super::error::SpoolError;
use super::{Appended, Bounds, Progress, Registered, StartAt};
use crate::record::{DeadLetter, Record};

/// Whom an answer goes to.
pub(super) type Reply<T> = oneshot::Sender<Result<T, SpoolError>>;

/// The bytes of a body that waits for the writer, as long as it does.
#[derive(Debug)]
pub(super) struct Room {
    queued: Arc<AtomicUsize>,
    bytes: usize,
}

impl Room {
    /// Takes so many of `most` bytes, if they are there. One body that is larger than all still has its turn.
    pub(super) fn take(queued: &Arc<AtomicUsize>, bytes: usize, most: usize) -> Option<Self> {
        let before = queued.fetch_add(bytes, Ordering::Relaxed);
        let room = Self { queued: Arc::clone(queued), bytes };
        (before == 0 || before.saturating_add(bytes) <= most).then_some(room)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.queued.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What the writer can be asked for.
#[derive(Debug)]
pub(super) enum Command {
    Append {
        record: Arc<Record>,
        dedup: bool,
        room: Room,
        reply: Reply<Appended>,
    },
    Bury {
        letter: Box<DeadLetter>,
        room: Room,
        reply: Reply<bool>,
    },
    Advance {
        sink: Arc<str>,
        progress: Box<Progress>,
        reply: Reply<i64>,
    },
    Change {
        changes: Vec<Change>,
        reply: Reply<Vec<Changed>>,
    },
    Register {
        sink: Arc<str>,
        start: StartAt,
        skipped: BTreeSet<Arc<str>>,
        reply: Reply<Registered>,
    },
    /// Everything is to be in the database, for somebody who reads it.
    Settle {
        reply: mpsc::SyncSender<Result<(), SpoolError>>,
    },
    /// The journal is to have room, and what waits is to be committed.
    Upkeep,
    /// Other bounds from now on. It writes nothing.
    Bound {
        bounds: Bounds,
    },
}

impl Command {
    /// Whether it stores a record, for which there has to be room.
    pub(super) fn appends(&self) -> bool {
        match self {
            Self::Append { .. } => true,
            Self::Change { changes, .. } => changes.iter().any(Change::appends),
            Self::Bury { .. }
            | Self::Advance { .. }
            | Self::Register { .. }
            | Self::Settle { .. }
            | Self::Upkeep
            | Self::Bound { .. } => false,
        }
    }

    pub(super) fn fail(self, error: SpoolError) {
        // Whoever has given up waiting is not an error.
        match self {
            Self::Append { reply, room, .. } => {
                drop(room);
                drop(reply.send(Err(error)));
            }
            Self::Bury { reply, room, .. } => {
                drop(room);
                drop(reply.send(Err(error)));
            }
            Self::Advance { reply, .. } => drop(reply.send(Err(error))),
            Self::Change { reply, .. } => drop(reply.send(Err(error))),
            Self::Register { reply, .. } => drop(reply.send(Err(error))),
            Self::Settle { reply } => drop(reply.try_send(Err(error))),
            Self::Upkeep | Self::Bound { .. } => {}
        }
    }
}

/// What a command gave, to be told once it is durable.
pub(super) enum Done {
    Appended(Appended),
    Buried(bool),
    Moved(i64),
    Changed(Vec<Changed>),
    Registered(Registered),
    Settled,
    Bound,
}

/// Tells those who wanted to append that there is no room, and gives back the other commands.
pub(super) fn fail_appends(batch: Vec<Command>, full: &SpoolError) -> Vec<Command> {
    let (appends, rest): (Vec<_>, Vec<_>) = batch.into_iter().partition(Command::appends);
    appends.into_iter().for_each(|command| command.fail(full.clone()));
    rest
}

pub(super) fn concerns_workers(command: &Command) -> bool {
    matches!(command, Command::Change { changes, .. } if changes.iter().any(Change::concerns_workers))
}

pub(super) fn answer(command: Command, done: Done) {
    // Whoever has given up waiting is not an error.
    match (command, done) {
        (Command::Append { reply, room, .. }, Done::Appended(appended)) => {
            // Before the answer: whoever hears it finds the room.
            drop(room);
            drop(reply.send(Ok(appended)));
        }
        (Command::Bury { reply, room, .. }, Done::Buried(is_new)) => {
            drop(room);
            drop(reply.send(Ok(is_new)));
        }
        (Command::Advance { reply, .. }, Done::Moved(cursor)) => drop(reply.send(Ok(cursor))),
        (Command::Change { reply, .. }, Done::Changed(changed)) => drop(reply.send(Ok(changed))),
        (Command::Register { reply, .. }, Done::Registered(place)) => drop(reply.send(Ok(place))),
        (Command::Settle { reply }, Done::Settled) => drop(reply.try_send(Ok(()))),
        (command, _) => command.fail(SpoolError::Closed),
    }
}
