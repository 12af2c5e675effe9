//! Reads a log with or without a running server. It takes no lock and creates no file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::dead::{ReadOnly, open_existing};
use super::error::LogError;
use super::frame::EventFrame;
use super::ids;
use super::open::{FolderContent, check_segments, read_end, refuse_first_edition};
use super::remedy;
use super::segment::SegmentReader;
use super::shared::{Segment, Shared, first_seq_after, lock_path, number_of, open_at};
use super::source::{Segments, StoredEvent, Walk};
use super::state::{SinkState, State};
use super::{Log, StoreId, path_of_dead_letters};
use crate::disk::{Disk, OpenMode, SystemDisk};

/// The number of attempts to open a log while its files change.
const TRIES: usize = 5;

/// The status of a log.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The number of events in the log.
    pub records: u64,
    /// The sequence number of the last event.
    pub last_seq: i64,
    /// When the oldest event was received, in Unix milliseconds; `None` if the log has no readable event.
    pub oldest_received_at: Option<i64>,
    /// The size of segments, spares and dead letters in bytes.
    pub used_bytes: u64,
    /// The number of dead letters, by the code of their reason.
    pub dead_letters: BTreeMap<String, u64>,
    /// The sinks, by name.
    pub sinks: Vec<SinkStatus>,
    /// The time of receipt since which every event is recognised as a duplicate, in Unix milliseconds; `None` if it is unknown.
    pub ids_complete_since: Option<i64>,
    /// The findings, each with its remedy.
    pub findings: Vec<String>,
}

/// The progress of a sink.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SinkStatus {
    /// The name of the sink.
    pub name: String,
    /// All records up to this sequence number are delivered, are dead letters, or are not for the sink.
    pub cursor: i64,
    /// The number of sequence numbers after the cursor.
    pub backlog: u64,
    /// When the first event after the cursor was received, in Unix milliseconds; `None` if there is none.
    pub oldest_received_at: Option<i64>,
    /// The sequence number after which the requested replay begins; `None` if no replay is requested.
    pub replay_after: Option<i64>,
}

/// Whether a connector still has undelivered events, and when it accepted its last one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConnectorUse {
    /// Whether the log has an event of the connector that some sink has not received.
    pub undelivered: bool,
    /// When the connector accepted its last event, in Unix milliseconds; `None` if it has accepted none.
    pub last_accepted: Option<i64>,
}

/// A reader of a log, with or without a running server.
#[derive(Debug)]
pub struct Reader {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    store: StoreId,
    segments: Vec<Segment>,
    state: State,
    last_seq: i64,
    /// The size of segments and spares in bytes.
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
    /// Reads the current state of an existing log. Takes no lock and creates no file. Makes up to `TRIES` attempts, since a
    /// running server may remove files meanwhile.
    ///
    /// # Errors
    ///
    /// [`LogError`] if there is no log, or it is damaged; but never [`LogError::Locked`].
    pub fn open(folder: &Path) -> Result<Self, LogError> {
        let mut opened = Self::try_open(folder);
        for _ in 1..TRIES {
            // A running server removes segments.
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
        let found = FolderContent::in_folder(&*disk, folder, &*lock)?;
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

    /// Opens the dead letters that the log has recorded.
    pub(super) fn dead_letters(&self) -> Result<ReadOnly, LogError> {
        let path = path_of_dead_letters(&self.folder);
        Ok(open_existing(&path, self.store.0, self.state.highest_dead_letter)?)
    }

    /// Returns the state of the sink with this name; `None` if the log knows no such sink.
    #[must_use]
    pub fn sink(&self, name: &str) -> Option<&SinkState> {
        self.state.named(name)
    }

    /// Returns the sequence number of the last event.
    #[must_use]
    pub const fn last_seq(&self) -> i64 {
        self.last_seq
    }

    /// Returns the last sequence number before the first event in the log.
    #[must_use]
    pub fn before_oldest(&self) -> i64 {
        let first = self.segments.iter().find(|segment| segment.number >= self.state.oldest);
        first.map_or(self.last_seq, |segment| segment.first_seq.saturating_sub(1))
    }

    /// Returns the findings when the log was opened.
    #[must_use]
    pub fn findings(&self) -> &[String] {
        &self.findings
    }

    /// Returns the status of the log. The time for this does not depend on the size of the log.
    ///
    /// # Errors
    ///
    /// [`LogError`] if the log cannot be read.
    pub fn status(&self) -> Result<Status, LogError> {
        let counts = self.dead_letters()?.counts()?;
        let before = self.before_oldest();
        Ok(Status {
            records: u64::try_from(self.last_seq.saturating_sub(before)).unwrap_or(0),
            last_seq: self.last_seq,
            oldest_received_at: received_after(self, before, self.last_seq)?,
            used_bytes: self.bytes.saturating_add(counts.iter().map(|count| count.bytes).sum()),
            dead_letters: counts.into_iter().map(|count| (count.reason, count.dead_letters)).collect(),
            sinks: statuses(self, self.state.sinks.values(), self.last_seq)?,
            ids_complete_since: ids::complete_since(&self.folder.join("ids.db"), self.store.0),
            findings: self.findings.clone(),
        })
    }

    /// Reads and checks the whole log. Returns the findings, each with its remedy. `step` is called with the name of each step
    /// before it begins, for display.
    ///
    /// # Errors
    ///
    /// [`LogError`] if the log is unreadable.
    pub fn check(&self, mut step: impl FnMut(&str)) -> Result<Vec<String>, LogError> {
        const MAX_NAMED: usize = 20;
        let mut findings = self.findings.clone();
        let mut damaged = 0_usize;
        let mut walk = Walk::new(self.before_oldest());
        while walk.position < self.last_seq {
            step(&format!("event {} of {}", walk.position, self.last_seq));
            walk.step(self, self.last_seq, |_, event| {
                if let Err(dead_letter) = event {
                    damaged = damaged.saturating_add(1);
                    if damaged <= MAX_NAMED {
                        findings.push(format!("{}; {}", dead_letter.error, remedy::DAMAGED_EVENTS));
                    }
                }
            })?;
        }
        if damaged > MAX_NAMED {
            findings.push(format!("{damaged} events are damaged in all; {}", remedy::DAMAGED_EVENTS));
        }
        step("dead letters");
        findings.extend(self.dead_letters()?.check()?);
        step("ids");
        let path = self.folder.join("ids.db");
        // What the log has is known by now, whatever becomes of the index.
        let checked = ids::check(&path, self.store.0);
        findings.extend(checked.unwrap_or_else(|error| Some(format!("ids.db: cannot be checked: {error}"))));
        Ok(findings)
    }

    /// Calls `show` for each event after a sequence number, in order, until it returns `false`. For a damaged event, it gets the
    /// recovered parts as a dead letter.
    ///
    /// # Errors
    ///
    /// [`LogError`] if a segment cannot be read.
    pub fn events(&self, after: i64, mut show: impl FnMut(&EventEntry<'_>) -> bool) -> Result<(), LogError> {
        let mut walk = Walk::new(after.max(self.before_oldest()));
        let mut goes_on = true;
        while goes_on && walk.position < self.last_seq {
            walk.step(self, self.last_seq, |seq, event| {
                let (event, record) = match event {
                    Ok(event) => (Some(event), Ok(Arc::new(event.record()))),
                    Err(dead_letter) => (None, Err(dead_letter)),
                };
                goes_on = goes_on && show(&EventEntry { stored: StoredEvent { seq, record }, event });
            })?;
        }
        Ok(())
    }

    /// Returns the sequence number of the first event that was received at or after `since`, in Unix milliseconds; `None` if
    /// there is none. Damaged events are skipped.
    ///
    /// # Errors
    ///
    /// [`LogError`] if a segment cannot be read.
    pub fn first_since(&self, since: i64) -> Result<Option<i64>, LogError> {
        // Segments that ended before `since` are skipped.
        let later = self.segments.iter().skip(1).take_while(|segment| segment.received_before < since).last();
        let after = later.map_or(i64::MIN, |segment| segment.first_seq.saturating_sub(1));
        let mut found = None;
        self.events(after, |entry| {
            let is_later = entry.stored.record.as_ref().is_ok_and(|record| record.received_at >= since);
            found = found.or(is_later.then_some(entry.stored.seq));
            found.is_none()
        })?;
        Ok(found)
    }
}

/// An event that [`Reader::events`] passes to its caller.
#[derive(Debug)]
pub struct EventEntry<'a> {
    /// The event as it was read; for a damaged event, its recovered parts.
    pub stored: StoredEvent,
    event: Option<&'a EventFrame<'a>>,
}

impl EventEntry<'_> {
    /// Returns whether the event is for a sink. A damaged event counts as one for every sink, since its sinks are unknown.
    #[must_use]
    pub fn is_for(&self, sink: &SinkState) -> bool {
        self.event.is_none_or(|event| {
            event.is_for(sink.number) || sink.earlier.has(self.stored.seq, event.connector())
        })
    }
}

/// Returns when the first undamaged event after a sequence number was received, in Unix milliseconds; `None` if there is none.
pub fn received_after(segments: &impl Segments, after: i64, last_seq: i64) -> Result<Option<i64>, LogError> {
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
    /// Returns the progress of all sinks.
    ///
    /// # Errors
    ///
    /// [`LogError`] if a segment cannot be read.
    pub fn sink_statuses(&self) -> Result<Vec<SinkStatus>, LogError> {
        let shared: &Shared = &self.shared;
        statuses(shared, self.sinks().iter(), shared.tail.last_seq())
    }

    /// Returns the number of events that a sink has not received yet. Reads all of them.
    ///
    /// # Errors
    ///
    /// [`LogError`] if a segment cannot be read.
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

    /// Returns whether a connector has undelivered events, and when it accepted its last one. May read every event that some sink
    /// has not received.
    ///
    /// # Errors
    ///
    /// [`LogError`] if a segment cannot be read.
    pub fn connector_use(&self, connector: &str) -> Result<ConnectorUse, LogError> {
        let (passed, last_accepted) = {
            let state = self.shared.state.lock();
            (state.passed(self.shared.gives_way.as_deref()), state.connectors.get(connector).copied())
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
