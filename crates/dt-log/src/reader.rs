//! Reading a log from outside: beside a running server or without one. It takes no lock and creates nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::dead::{ReadOnly, open_existing};
use super::error::LogError;
use super::frame::EventFrame;
use super::open::{Found, check_segments, read_end, refuse_first_edition};
use super::remedy;
use super::segment::SegmentReader;
use super::shared::{Segment, Shared, first_seq_after, lock_path, number_of, open_at};
use super::source::{Segments, Stored, Walk};
use super::state::{SinkState, State};
use super::{Log, StoreId, path_of_dead_letters};
use crate::disk::{Disk, OpenMode, SystemDisk};

/// How often a folder is looked at again that changes while it is read.
const TRIES: usize = 5;

/// How a log is doing.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// How many events are there.
    pub records: u64,
    /// The sequence number of the last event.
    pub last_seq: i64,
    /// When the oldest event was received, in Unix milliseconds.
    pub oldest_received_at: Option<i64>,
    /// How many bytes segments, spares and dead letters take.
    pub used_bytes: u64,
    /// The dead letters, by the code of their reason.
    pub dead_letters: BTreeMap<String, u64>,
    /// The sinks, by name.
    pub sinks: Vec<SinkStatus>,
    /// What was found wrong.
    pub findings: Vec<String>,
}

/// How far a sink is.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SinkStatus {
    /// Its name.
    pub name: String,
    /// Everything up to this sequence number is done.
    pub cursor: i64,
    /// How many sequence numbers come after that.
    pub backlog: u64,
    /// When the first event after it was received, in Unix milliseconds.
    pub oldest_received_at: Option<i64>,
    /// A replay that is to begin after this sequence number.
    pub replay_after: Option<i64>,
}

/// What a log has of a connector.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConnectorUse {
    /// Whether there is an event of it that some sink has not passed.
    pub undelivered: bool,
    /// When it accepted its last event, in Unix milliseconds.
    pub last_accepted: Option<i64>,
}

/// A log that is read.
#[derive(Debug)]
pub struct Reader {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    store: StoreId,
    segments: Vec<Segment>,
    state: State,
    last_seq: i64,
    /// The bytes of segments and spares.
    bytes: u64,
    findings: Vec<String>,
}

impl Segments for Reader {
    fn segment_of(&self, seq: i64) -> Result<Option<(SegmentReader, u64)>, LogError> {
        let Some(number) = number_of(&self.segments, seq) else { return Ok(None) };
        open_at(&*self.disk, &self.folder, self.store, number, seq).map(Some)
    }

    fn first_seq_after(&self, number: u64) -> i64 {
        first_seq_after(&self.segments, number)
    }
}

impl Reader {
    /// Opens the log in a folder, as it is now.
    ///
    /// # Errors
    ///
    /// [`LogError`], as [`Log::open`] would return it.
    pub fn open(folder: &Path) -> Result<Self, LogError> {
        let mut opened = Self::try_open(folder);
        for _ in 1..TRIES {
            // Segments go while a server runs.
            if !matches!(
                &opened,
                Err(LogError::Io { kind: std::io::ErrorKind::NotFound, .. } | LogError::Missing { .. })
            ) {
                break;
            }
            opened = Self::try_open(folder);
        }
        opened
    }

    fn try_open(folder: &Path) -> Result<Self, LogError> {
        let disk = SystemDisk::shared();
        refuse_first_edition(&*disk, folder)?;
        let path = lock_path(folder);
        let lock =
            disk.open(&path, OpenMode::Read).map_err(|error| LogError::io(&*path, "opening", &error))?;
        let found = Found::in_folder(&*disk, folder, &*lock)?;
        let Some(newest) = found.numbers.last() else {
            return Err(LogError::Missing { folder: folder.to_owned(), first: 1, last: 1 });
        };
        found.check_newest(folder, *newest)?;
        let mut findings = Vec::new();
        let end = read_end(&*disk, folder, *newest, &mut findings)?;
        let segments = check_segments(&*disk, folder, &found, &end, &mut findings)?;
        let files = found.numbers.len().saturating_add(found.spares.len());
        let length =
            disk.about(&super::segment::path(folder, *newest)).ok().flatten().map_or(0, |found| found.length);
        Ok(Self {
            disk,
            folder: folder.to_owned(),
            store: end.store,
            segments,
            last_seq: end.next_seq.saturating_sub(1),
            state: end.state,
            bytes: u64::try_from(files).unwrap_or(u64::MAX).saturating_mul(length),
            findings,
        })
    }

    /// The dead letters that the log knows.
    pub(super) fn dead_letters(&self) -> Result<ReadOnly, LogError> {
        let path = path_of_dead_letters(&self.folder);
        Ok(open_existing(&path, self.store.0, self.state.highest_dead_letter)?)
    }

    /// The sinks.
    #[must_use]
    pub fn sink(&self, name: &str) -> Option<&SinkState> {
        self.state.named(name)
    }

    /// The sequence number of the last event.
    #[must_use]
    pub const fn last_seq(&self) -> i64 {
        self.last_seq
    }

    /// The sequence number before the first event.
    #[must_use]
    pub fn before_oldest(&self) -> i64 {
        let first = self.segments.iter().find(|segment| segment.number >= self.state.oldest);
        first.map_or(self.last_seq, |segment| segment.first_seq.saturating_sub(1))
    }

    /// What was found wrong on opening.
    #[must_use]
    pub fn findings(&self) -> &[String] {
        &self.findings
    }

    /// How the log is doing. The time it takes does not grow with the log.
    ///
    /// # Errors
    ///
    /// [`LogError`] when it cannot be read.
    pub fn status(&self) -> Result<Status, LogError> {
        let counts = self.dead_letters()?.counts()?;
        let before = self.before_oldest();
        Ok(Status {
            records: u64::try_from(self.last_seq.saturating_sub(before)).unwrap_or(0),
            last_seq: self.last_seq,
            oldest_received_at: received_after(self, before, self.last_seq)?,
            used_bytes: self.bytes.saturating_add(counts.iter().map(|count| count.bytes).sum()),
            dead_letters: counts.into_iter().map(|count| (count.reason, count.letters)).collect(),
            sinks: statuses(self, self.state.sinks.values(), self.last_seq)?,
            findings: self.findings.clone(),
        })
    }

    /// What is wrong with the log; it reads all of it. `step` is told what is looked at next.
    ///
    /// # Errors
    ///
    /// [`LogError`] when it cannot be read at all.
    pub fn check(&self, mut step: impl FnMut(&str)) -> Result<Vec<String>, LogError> {
        const MAX_NAMED: usize = 20;
        let mut findings = self.findings.clone();
        let mut damaged = 0_usize;
        let mut walk = Walk::new(self.before_oldest());
        while walk.position < self.last_seq {
            step(&format!("event {} of {}", walk.position, self.last_seq));
            walk.step(self, self.last_seq, |_, event| {
                if let Err(letter) = event {
                    damaged = damaged.saturating_add(1);
                    if damaged <= MAX_NAMED {
                        findings.push(format!("{}; {}", letter.error, remedy::DAMAGED_EVENTS));
                    }
                }
            })?;
        }
        if damaged > MAX_NAMED {
            findings.push(format!("{damaged} events are damaged in all; {}", remedy::DAMAGED_EVENTS));
        }
        step("dead letters");
        findings.extend(self.dead_letters()?.check()?);
        Ok(findings)
    }

    /// Shows the events after a sequence number, in order, with what is left of damaged ones. `show` returns whether to go
    /// on.
    ///
    /// # Errors
    ///
    /// [`LogError`] when a segment cannot be read.
    pub fn events(&self, after: i64, mut show: impl FnMut(&Seen<'_>) -> bool) -> Result<(), LogError> {
        let mut walk = Walk::new(after.max(self.before_oldest()));
        let mut goes_on = true;
        while goes_on && walk.position < self.last_seq {
            walk.step(self, self.last_seq, |seq, event| {
                let (event, record) = match event {
                    Ok(event) => (Some(event), Ok(Arc::new(event.record()))),
                    Err(letter) => (None, Err(letter)),
                };
                goes_on = goes_on && show(&Seen { stored: Stored { seq, record }, event });
            })?;
        }
        Ok(())
    }

    /// The sequence number of the first event that was received at or after `since`, in Unix milliseconds.
    ///
    /// # Errors
    ///
    /// [`LogError`] when a segment cannot be read.
    pub fn first_since(&self, since: i64) -> Result<Option<i64>, LogError> {
        // Those that ended before need not be read.
        let later = self.segments.iter().skip(1).take_while(|segment| segment.received_before < since).last();
        let after = later.map_or(i64::MIN, |segment| segment.first_seq.saturating_sub(1));
        let mut found = None;
        self.events(after, |seen| {
            let is_later = seen.stored.record.as_ref().is_ok_and(|record| record.received_at >= since);
            found = found.or(is_later.then_some(seen.stored.seq));
            found.is_none()
        })?;
        Ok(found)
    }
}

/// An event that [`Reader::events`] shows.
#[derive(Debug)]
pub struct Seen<'a> {
    /// The event.
    pub stored: Stored,
    event: Option<&'a EventFrame<'a>>,
}

impl Seen<'_> {
    /// Whether the event is for a sink. Of a damaged one nobody knows.
    #[must_use]
    pub fn is_for(&self, sink: &SinkState) -> bool {
        self.event.is_none_or(|event| {
            event.is_for(sink.number) || sink.earlier.has(self.stored.seq, event.connector())
        })
    }
}

/// When the first event after a sequence number was received, in Unix milliseconds.
fn received_after(segments: &impl Segments, after: i64, last_seq: i64) -> Result<Option<i64>, LogError> {
    let (mut walk, mut found) = (Walk::new(after), None);
    while found.is_none() && walk.position < last_seq {
        walk.step(segments, last_seq, |_, event| {
            if let Ok(event) = event {
                found = found.or(Some(event.received_at()));
            }
        })?;
    }
    Ok(found)
}

fn statuses<'a>(
    segments: &impl Segments,
    sinks: impl Iterator<Item = &'a SinkState>,
    last_seq: i64,
) -> Result<Vec<SinkStatus>, LogError> {
    let status = |sink: &SinkState| {
        Ok(SinkStatus {
            name: sink.name.to_string(),
            cursor: sink.cursor,
            backlog: u64::try_from(last_seq.saturating_sub(sink.cursor)).unwrap_or(0),
            oldest_received_at: received_after(segments, sink.cursor, last_seq)?,
            replay_after: sink.replay_after,
        })
    };
    let mut statuses: Vec<SinkStatus> = sinks.map(status).collect::<Result<_, LogError>>()?;
    statuses.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(statuses)
}

impl Log {
    /// How far the sinks are.
    ///
    /// # Errors
    ///
    /// [`LogError`] when a segment cannot be read.
    pub fn sink_statuses(&self) -> Result<Vec<SinkStatus>, LogError> {
        let shared: &Shared = &self.shared;
        statuses(shared, self.sinks().iter(), shared.tail.last_seq())
    }

    /// How many events a sink has yet to get. It reads all of them.
    ///
    /// # Errors
    ///
    /// [`LogError`] when a segment cannot be read.
    pub fn owed(&self, sink: &SinkState) -> Result<u64, LogError> {
        let (last_seq, mut count) = (self.shared.tail.last_seq(), 0_u64);
        let mut walk = Walk::new(sink.cursor);
        while walk.position < last_seq {
            walk.step(&*self.shared, last_seq, |seq, event| {
                let is_owed = match event {
                    Ok(event) => event.is_for(sink.number) || sink.earlier.has(seq, event.connector()),
                    Err(_) => true,
                };
                count = count.saturating_add(u64::from(is_owed));
            })?;
        }
        Ok(count)
    }

    /// What there is of a connector. It may read all that some sink has not passed.
    ///
    /// # Errors
    ///
    /// [`LogError`] when a segment cannot be read.
    pub fn connector_use(&self, connector: &str) -> Result<ConnectorUse, LogError> {
        let (passed, last_accepted) = {
            let state = self.shared.state.lock();
            (state.passed(), state.connectors.get(connector).copied())
        };
        let last_seq = self.shared.tail.last_seq();
        let mut undelivered = false;
        let mut walk = Walk::new(passed.unwrap_or(last_seq));
        while !undelivered && walk.position < last_seq {
            walk.step(&*self.shared, last_seq, |_, event| {
                undelivered |= event.is_ok_and(|event| event.connector() == connector);
            })?;
        }
        Ok(ConnectorUse { undelivered, last_accepted })
    }
}
