//! How requests get their records to the disk: those that come together are committed together, by one of them.
//!
//! The first that finds nobody waiting leads: it lets all others run that are ready, whose records come with it then, and
//! writes the frame itself if the writer is free. Handing the records to the writer's thread and being woken by it costs
//! two changes of threads for every batch, and more where processors are short. Whoever cannot commit by itself, because
//! the database is needed, leaves it to the thread.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::TrySendError;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::Appended;
use super::Commands;
use super::command::{Command, Room};
use super::error::SpoolError;
use super::writer::Writer;
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
    pub(super) fn with_writer(&self, work: impl FnOnce(&mut Writer)) {
        if let Some(writer) = &mut *self.writer.lock() {
            work(writer);
        }
        self.is_free.notify_one();
    }

    /// The thread has ended, and nothing is stored any more.
    pub(super) fn close(&self) {
        let writer = self.writer.lock().take();
        drop(writer);
        // Whoever waits still is told.
        self.take().into_iter().for_each(|command| command.fail(SpoolError::Closed));
        self.is_free.notify_waiters();
    }

    /// Takes the records that wait.
    pub(super) fn take(&self) -> Vec<Command> {
        std::mem::take(&mut *self.waiting.lock())
    }

    /// Stores a record; see [`Spool::append`](super::Spool::append).
    pub(super) async fn append(
        &self,
        record: Arc<Record>,
        dedup: bool,
        room: Room,
    ) -> Result<Appended, SpoolError> {
        let (reply, mut answer) = oneshot::channel();
        let leads = {
            let mut waiting = self.waiting.lock();
            if waiting.len() >= self.max_waiting {
                return Err(SpoolError::Overloaded);
            }
            waiting.push(Command::Append { record, dedup, room, reply });
            waiting.len() == 1
        };
        if leads {
            let mut lead = Lead { appends: self, is_over: false };
            // Comes back when nothing else is ready.
            tokio::task::yield_now().await;
            loop {
                if self.commit() {
                    break;
                }
                tokio::select! {
                    biased;
                    // Somebody else took them along.
                    answered = &mut answer => {
                        lead.is_over = true;
                        return answered.map_err(|_| SpoolError::Closed)?;
                    }
                    () = self.is_free.notified() => {}
                }
            }
            lead.is_over = true;
        }
        answer.await.map_err(|_| SpoolError::Closed)?
    }

    /// Commits what waits, if the writer is free.
    fn commit(&self) -> bool {
        let Some(mut place) = self.writer.try_lock() else { return false };
        let Some(writer) = &mut *place else {
            self.take().into_iter().for_each(|command| command.fail(SpoolError::Closed));
            return true;
        };
        let left = writer.append(self.take());
        let needs_upkeep = writer.asks_for_upkeep();
        drop(place);
        self.is_free.notify_one();
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
            Err(TrySendError::Disconnected(command)) => command.fail(SpoolError::Closed),
        }
    }
}

/// A leader that is given up, as its client has gone, leaves those that came with it to the thread.
struct Lead<'a> {
    appends: &'a Appends,
    is_over: bool,
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.appends.leave(Command::Upkeep);
        }
    }
}
