//! The writer: a thread that commits everything in its queues as one transaction.
//!
//! Copies of expired and refused requests wait in a separate queue of limited size. Between two commits of other changes
//! there is at most one commit of a limited number of copies, so unauthenticated senders neither delay nor displace a dead
//! letter that an answer or a cursor depends on. The dead letters of other requests are limited too, since a request that
//! gives up leaves its dead letter in the queue. Those of sinks are not: a sink waits for each batch of them.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rusqlite::{Connection, TransactionBehavior};

use super::super::sqlite::{self, Identity};
use super::DeadOptions;
use super::change::{Change, Changed, Dropped, make};
use super::error::DeadError;
use super::open::open_writer;
use super::read::{self, Count};
use dt_sink::clock::Clock;
use dt_sink::record::{DeadLetter, Reason};

/// The size limit of the queued copies, and also that of the other queued dead letters of requests, in bytes.
const MAX_WAITING: usize = 16 << 20;
/// The largest number of changes in one transaction.
const MAX_CHANGES: usize = 1024;
/// The size of a transaction in bytes at which no further change is added; the last added change may exceed it.
const MAX_BYTES: usize = 4 << 20;
/// The largest number of copies in one transaction.
const MAX_COPIES: usize = 64;
/// The time between two test writes after an error.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// A queued change, and the function that receives its result.
pub struct Job {
    pub change: Change,
    pub reply: Box<dyn FnOnce(Result<Changed, DeadError>) + Send>,
}

/// The state that callers share with the writer's thread.
#[derive(Debug)]
pub struct WriterShared {
    pub path: PathBuf,
    pub options: DeadOptions,
    pub clock: Arc<dyn Clock>,
    queues: Mutex<Queues>,
    wake: Condvar,
    pub state: Mutex<WriterState>,
    pub highest_id: AtomicI64,
}

/// The state that callers can read without opening the file.
#[derive(Debug, Default)]
pub struct WriterState {
    /// Why the last write failed; `None` if it succeeded.
    pub last_error: Option<String>,
    pub counts: Vec<Count>,
    pub dropped: Dropped,
}

#[derive(Default)]
struct Queues {
    changes: VecDeque<Job>,
    copies: VecDeque<Job>,
    copies_bytes: usize,
    /// The size of the dead letters of unreadable requests in `changes`, in bytes.
    unreadable_bytes: usize,
    is_closed: bool,
}

impl std::fmt::Debug for Queues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queues")
            .field("changes", &self.changes.len())
            .field("copies", &self.copies.len())
            .finish()
    }
}

/// An open connection, with the identity of its file.
struct Open {
    connection: Connection,
    identity: Identity,
}

impl Job {
    fn bytes(&self) -> usize {
        match &self.change {
            Change::Add(dead_letters) => {
                dead_letters.iter().map(dead_letter_bytes).fold(0, usize::saturating_add)
            }
            Change::Remove(_) | Change::StillDead { .. } | Change::Probe => 0,
        }
    }

    fn is_copy(&self) -> bool {
        self.is_all(|reason| matches!(reason, Reason::Expired | Reason::Refused))
    }

    fn is_unreadable(&self) -> bool {
        self.is_all(|reason| matches!(reason, Reason::Unreadable))
    }

    fn is_all(&self, is: impl Fn(&Reason) -> bool) -> bool {
        matches!(&self.change, Change::Add(dead_letters) if dead_letters.iter().all(|dead| is(&dead.reason)))
    }
}

fn dead_letter_bytes(dead_letter: &DeadLetter) -> usize {
    let headers = dead_letter.signatures.iter().map(|(name, value)| name.len().saturating_add(value.len()));
    let headers =
        headers.chain(dead_letter.header_names.iter().map(String::len)).fold(0, usize::saturating_add);
    dead_letter.body.len().saturating_add(headers).saturating_add(200)
}

impl WriterShared {
    pub fn new(path: PathBuf, options: DeadOptions, clock: Arc<dyn Clock>) -> Self {
        Self {
            path,
            options,
            clock,
            queues: Mutex::default(),
            wake: Condvar::new(),
            state: Mutex::default(),
            highest_id: AtomicI64::new(0),
        }
    }

    /// Queues a change. The reply function is called in any case, also if the queue is full or closed.
    pub fn submit(&self, job: Job) {
        let (bytes, is_copy) = (job.bytes(), job.is_copy());
        let mut queues = self.queues.lock();
        let is_closed = queues.is_closed;
        let mut waiting = if is_copy {
            Some(&mut queues.copies_bytes)
        } else if job.is_unreadable() {
            Some(&mut queues.unreadable_bytes)
        } else {
            None
        };
        let refused = if is_closed {
            Some(DeadError::Closed)
        } else if waiting.as_ref().is_some_and(|waiting| waiting.saturating_add(bytes) > MAX_WAITING) {
            Some(DeadError::Overloaded)
        } else {
            None
        };
        if let Some(error) = refused {
            drop(queues);
            (job.reply)(Err(error));
            return;
        }
        if let Some(waiting) = &mut waiting {
            **waiting = waiting.saturating_add(bytes);
        }
        if is_copy {
            queues.copies.push_back(job);
        } else {
            queues.changes.push_back(job);
        }
        drop(queues);
        self.wake.notify_one();
    }

    /// Closes the queues. The writer ends once all queued changes are committed.
    pub fn close(&self) {
        self.queues.lock().is_closed = true;
        self.wake.notify_one();
    }

    /// Commits queued changes until the queues are closed and empty.
    pub fn serve(&self) {
        let (mut open, mut copies_next) = (None, false);
        while let Some(jobs) = self.wait(&mut copies_next) {
            let done = self.commit(&mut open, &jobs);
            match done {
                Ok(changed) => {
                    self.state.lock().last_error = None;
                    for (job, changed) in jobs.into_iter().zip(changed) {
                        (job.reply)(Ok(changed));
                    }
                }
                Err(error) => {
                    // The state of the connection is unknown.
                    open = None;
                    self.state.lock().last_error = Some(error.to_string());
                    for job in jobs {
                        (job.reply)(Err(error.clone()));
                    }
                }
            }
        }
    }

    /// Waits for changes, and returns the jobs of the next transaction; `None` once the queues are closed and empty.
    fn wait(&self, copies_next: &mut bool) -> Option<Vec<Job>> {
        let mut queues = self.queues.lock();
        loop {
            let Queues { changes, copies, copies_bytes, unreadable_bytes, is_closed } = &mut *queues;
            let bytes_of = |jobs: &[Job], counts: fn(&Job) -> bool| {
                jobs.iter().filter(|job| counts(job)).map(Job::bytes).fold(0, usize::saturating_add)
            };
            if !changes.is_empty() && (!*copies_next || copies.is_empty()) {
                *copies_next = true;
                let jobs = take(changes, MAX_CHANGES);
                *unreadable_bytes = unreadable_bytes.saturating_sub(bytes_of(&jobs, Job::is_unreadable));
                return Some(jobs);
            }
            if !copies.is_empty() {
                *copies_next = false;
                let jobs = take(copies, MAX_COPIES);
                *copies_bytes = copies_bytes.saturating_sub(bytes_of(&jobs, Job::is_copy));
                return Some(jobs);
            }
            if *is_closed {
                return None;
            }
            if self.state.lock().last_error.is_none() {
                self.wake.wait(&mut queues);
            } else if self.wake.wait_for(&mut queues, PROBE_EVERY).timed_out() {
                return Some(vec![Job { change: Change::Probe, reply: Box::new(drop) }]);
            }
        }
    }

    /// Applies the changes in one transaction, either all or none.
    fn commit(&self, open: &mut Option<Open>, jobs: &[Job]) -> Result<Vec<Changed>, DeadError> {
        let identity = sqlite::identity(&self.path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => DeadError::Missing {
                path: self.path.clone(),
                expected: self.highest_id.load(Ordering::Acquire),
            },
            _ => DeadError::io(&self.path, "looking for the file", &error),
        })?;
        // A write to a removed or replaced file would be lost.
        let connection = match open {
            Some(open) if open.identity == identity => &mut open.connection,
            _ => &mut open.insert(self.reopen(identity)?).connection,
        };
        let mut dropped = Dropped::default();
        let mut run = || -> rusqlite::Result<_> {
            let now = self.clock.unix_millis();
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut changed = Vec::with_capacity(jobs.len());
            for job in jobs {
                changed.push(make(&transaction, &self.options, &job.change, now, &mut dropped)?);
            }
            let (highest_id, counts) = (read::highest_id(&transaction)?, read::counts(&transaction)?);
            transaction.commit()?;
            Ok((changed, highest_id, counts))
        };
        let (changed, highest_id, counts) =
            run().map_err(|error| DeadError::sqlite(&self.path, "storing", &error))?;
        self.highest_id.store(highest_id, Ordering::Release);
        let mut state = self.state.lock();
        state.counts = counts;
        state.dropped.expired = state.dropped.expired.saturating_add(dropped.expired);
        state.dropped.refused = state.dropped.refused.saturating_add(dropped.refused);
        Ok(changed)
    }

    /// Opens the file again. An older copy that has replaced the file is an error.
    fn reopen(&self, identity: Identity) -> Result<Open, DeadError> {
        let connection = open_writer(&self.path)?;
        let found = read::highest_id(&connection)
            .map_err(|error| DeadError::sqlite(&self.path, "reading the highest id", &error))?;
        let expected = self.highest_id.load(Ordering::Acquire);
        if found < expected {
            return Err(DeadError::Older { path: self.path.clone(), expected, found });
        }
        Ok(Open { connection, identity })
    }
}

/// Removes the jobs of one transaction from the front of a queue: at most `limit` jobs, and none after [`MAX_BYTES`] is reached.
fn take(queue: &mut VecDeque<Job>, limit: usize) -> Vec<Job> {
    let (mut jobs, mut bytes) = (Vec::new(), 0_usize);
    while jobs.len() < limit && bytes < MAX_BYTES {
        let Some(job) = queue.pop_front() else { break };
        bytes = bytes.saturating_add(job.bytes());
        jobs.push(job);
    }
    jobs
}
