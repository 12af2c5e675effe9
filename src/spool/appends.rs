//! How requests get their records to the disk: those that come together are committed together, by one of them.
//!
//! The first that finds nobody waiting starts a task, which lets all others run that are ready, and writes the frame with
//! the records of all of them if the writer is free. Handing them to the writer's thread and being woken by it would cost
//! two changes of threads for every batch, and more where processors are short. What needs the database is left to the
//! thread; so is all where the runtime has only one thread, which must not wait for a disk.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::TrySendError;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};

use super::Appended;
use super::Commands;
use super::command::{Command, Room};
use super::error::SpoolError;
use super::writer::{Writer, guarded};
use crate::record::Record;

/// The records that wait, and the writer.
pub(super) struct Appends {
    waiting: Mutex<Vec<Command>>,
    /// `None` once the spool is closed.
    writer: Mutex<Option<Writer>>,
    /// Whoever had the writer is done with it.
    is_free: Notify,
    commands: Commands,
    max_waiting: usize,
}

/// Tells the next one that the writer is free, once it is, even after a panic.
struct Tells<'a>(&'a Notify);

impl Drop for Tells<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl fmt::Debug for Appends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Appends").finish_non_exhaustive()
    }
}

impl Appends {
    pub(super) fn new(writer: Writer, commands: Commands, max_waiting: usize) -> Self {
        let (waiting, writer) = (Mutex::default(), Mutex::new(Some(writer)));
        Self { waiting, writer, is_free: Notify::new(), commands, max_waiting }
    }

    /// Does something with the writer, for its thread; waits for it.
    pub(super) fn with_writer<T>(&self, work: impl FnOnce(&mut Writer) -> T) -> Option<T> {
        // Declared first, so that it is dropped last: whoever is told must find the writer free.
        let _tells = Tells(&self.is_free);
        let mut place = self.writer.lock();
        place.as_mut().map(|writer| guarded(writer, work))
    }

    /// The thread has ended, and nothing is stored any more.
    pub(super) fn close(&self) {
        let writer = self.writer.lock().take();
        drop(writer);
        // Whoever waits still is told. The first leader that is told tells the next.
        self.take().into_iter().for_each(|command| command.fail(SpoolError::Closed));
        self.is_free.notify_one();
    }

    /// Takes the records that wait.
    pub(super) fn take(&self) -> Vec<Command> {
        std::mem::take(&mut *self.waiting.lock())
    }

    /// Stores a record; see [`Spool::append`](super::Spool::append).
    pub(super) async fn append(
        self: &Arc<Self>,
        record: Arc<Record>,
        dedup: bool,
        room: Room,
    ) -> Result<Appended, SpoolError> {
        let (reply, answer) = oneshot::channel();
        let leads = {
            let mut waiting = self.waiting.lock();
            if waiting.len() >= self.max_waiting {
                return Err(SpoolError::Overloaded);
            }
            waiting.push(Command::Append { record, dedup, room, reply });
            waiting.len() == 1
        };
        if leads {
            match Handle::try_current() {
                // A task of its own: it goes on when the request is given up, and while it waits for the disk, another
                // thread answers the request that is late.
                Ok(runtime) if runtime.metrics().num_workers() > 1 => {
                    drop(runtime.spawn(Arc::clone(self).lead()));
                }
                _ => self.leave(Command::Upkeep),
            }
        }
        answer.await.map_err(|_| SpoolError::Closed)?
    }

    /// Commits what waits by then once nothing else is ready, and the writer is free.
    async fn lead(self: Arc<Self>) {
        tokio::task::yield_now().await;
        while !self.commit() {
            self.is_free.notified().await;
            // Whoever was answered just now may have the next one ready.
            tokio::task::yield_now().await;
        }
    }

    /// Commits what waits, if the writer is free.
    fn commit(&self) -> bool {
        // As above, also after a panic; only whoever had the writer tells.
        let mut tells = None;
        let Some(mut place) = self.writer.try_lock() else { return false };
        tells.replace(Tells(&self.is_free));
        let Some(writer) = &mut *place else {
            drop(place);
            self.take().into_iter().for_each(|command| command.fail(SpoolError::Closed));
            return true;
        };
        let (left, needs_upkeep) =
            guarded(writer, |writer| (writer.append(self.take()), writer.asks_for_upkeep()));
        drop((place, tells));
        for command in left {
            self.leave(command);
        }
        if needs_upkeep {
            self.leave(Command::Upkeep);
        }
        true
    }

    /// Leaves a command to the writer's thread.
    fn leave(&self, command: Command) {
        let sent = match &*self.commands.lock() {
            Some(commands) => commands.try_send(command),
            None => Err(TrySendError::Disconnected(command)),
        };
        match sent {
            Ok(()) => {}
            Err(TrySendError::Full(command)) => command.fail(SpoolError::Overloaded),
            Err(TrySendError::Disconnected(command)) => {
                command.fail(SpoolError::Closed);
                // Nobody comes for those that wait.
                self.take().into_iter().for_each(|command| command.fail(SpoolError::Closed));
            }
        }
    }
}
