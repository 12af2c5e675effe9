//! Opens a log: takes the lock, checks the files, recovers the end of the log, and starts the threads.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::dead::{self, DeadLetters, DeadOptions, Expect};
use super::error::LogError;
use super::frame::Frame;
use super::group::GroupHeader;
use super::ids::{Ids, IdsOptions, Opened as OpenedIds};
use super::reader::{Reader, SinkStatus};
use super::recall::recall_ids;
use super::remedy;
use super::segment::{self, Next, Opened, SegmentHeader, SegmentReader};
use super::shared::{Files, Queue, Segment, Shared, lock_path};
use super::source::skipped_to;
use super::state::State;
use super::tail::{FindingKind, Tail};
use super::writer::{Recovered, Writer};
use super::{Log, LogOptions, RECOVERED_TICKET, StoreId, maintenance, path_of_dead_letters};
use crate::disk::{Disk, DiskFile, OpenMode, SystemDisk, create_folders};
use crate::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use crate::sync::{Condvar, Mutex, thread};
use dt_sink::clock::Clock;

/// The longest time that a start waits for a command that holds the lock.
const LOCK_WAIT: Duration = Duration::from_secs(1);
/// The time between two attempts to take the lock.
const LOCK_RETRY: Duration = Duration::from_millis(10);

impl Log {
    /// Opens the log in `folder`, or creates it. All data that the last process wrote is durable when this returns, if there is
    /// room for a segment.
    ///
    /// # Errors
    ///
    /// [`LogError`], with the path and the remedy. No file is removed to make the log open; of the renamed dedup indexes, the
    /// newest three are kept.
    pub fn open(folder: &Path, options: LogOptions, clock: Arc<dyn Clock>) -> Result<Self, LogError> {
        Self::open_on(SystemDisk::shared(), folder, options, clock)
    }

    /// Opens the log like [`open`](Self::open), on the given disk.
    pub(super) fn open_on(
        disk: Arc<dyn Disk>,
        folder: &Path,
        options: LogOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, LogError> {
        refuse_first_edition(&*disk, folder)?;
        create_folders(&*disk, folder, true)
            .map_err(|(path, error)| LogError::io(path, "creating the folder", &error))?;
        let had_lock = matches!(disk.about(&lock_path(folder)), Ok(Some(_)));
        let lock = lock(&*disk, folder)?;
        let found = FolderContent::in_folder(&*disk, folder, &*lock)?;
        let mut findings = Vec::new();
        let end = match found.numbers.last() {
            Some(newest) => {
                found.check_newest(folder, *newest)?;
                read_end(&*disk, folder, *newest, &mut findings)?
            }
            None => found.new_store(folder, had_lock)?,
        };
        let segments = check_segments(&*disk, folder, &found, &end, &mut findings)?;
        let dead = Arc::new(open_dead_letters(folder, &options, &end, &clock)?);
        let ids = open_ids(folder, &options, &end, &clock, &mut findings)?;
        let received_last = end.received_last;
        let recovered_events = end.last.as_ref().map_or(0, |last| last.events);
        let next_seq = end.next_seq;
        let durable_to = next_seq.saturating_sub(i64::from(recovered_events)).saturating_sub(1);
        let skips_to = skipped_by_dead_letters(&dead, &end, &mut findings)?;
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            store: end.store,
            disk,
            clock,
            observer: options.observer,
            gives_way: options.gives_way,
            segment_bytes: options.segment_bytes,
            bounds: Mutex::new(options.bounds),
            queue: Mutex::new(Queue { next_ticket: RECOVERED_TICKET, ..Queue::default() }),
            has_work: Condvar::new(),
            ids_epoch: AtomicU64::new(0),
            lookups_fail: AtomicBool::new(false),
            received_last: AtomicI64::new(received_last),
            lock: Mutex::new(Some(lock)),
            ids,
            dead,
            tail: Arc::new(Tail::new(durable_to)),
            state: Mutex::new(end.state),
            files: Mutex::new(Files {
                segments,
                spares: found
                    .spares
                    .iter()
                    .map(|number| super::shared::spare_path(folder, *number))
                    .collect(),
                last_spare: found.spares.last().copied().unwrap_or(0),
                ..Files::default()
            }),
            files_changed: Condvar::new(),
        });
        drop_short_spares(&shared);
        recall_ids(&shared, durable_to, next_seq.saturating_sub(1))?;
        let mut writer = Writer {
            shared: Arc::clone(&shared),
            current: None,
            next_number: found.numbers.last().map_or(1, |newest| newest.saturating_add(1)),
            next_seq,
            recovered: end.last,
            skips_to,
            buffer: Vec::new(),
            scratch: String::new(),
            reaches_back: false,
            unsealed_since: None,
        };
        let has_spare = !shared.files.lock().spares.is_empty();
        let first = if has_spare { Ok(()) } else { maintenance::make_spare(&shared) };
        match first.and_then(|()| writer.ensure_segment(false)) {
            Ok(()) => {}
            // A new store has nothing to deliver, so this is an error. An old one starts, and accepts events once there is
            // room.
            Err(error) if found.numbers.is_empty() => return Err(error),
            Err(error) => {
                writer.refuse(&error);
                shared.files.lock().no_spare = Some(error);
            }
        }
        if let Some(finding) = summary(&findings) {
            let until = shared.clock.unix_millis().saturating_add(maintenance::REPORTED_FOR);
            shared.tail.report(FindingKind::Start, finding, until);
        }
        findings.iter().for_each(|finding| tracing::warn!("{finding}"));
        let threads = start_threads(&shared, writer)?;
        let (max_queue, max_queue_bytes) = (options.max_queue, options.max_queue_bytes);
        Ok(Self { shared, max_queue, max_queue_bytes, threads: Mutex::new(threads), findings })
    }
}

/// Returns the findings of a start as one text for `/readyz`: the first finding, and the number of others. `None` without
/// findings.
fn summary(findings: &[String]) -> Option<String> {
    let (first, others) = findings.split_first()?;
    Some(if others.is_empty() {
        first.clone()
    } else {
        format!("{first}; the log has {} other findings of this start", others.len())
    })
}

fn start_threads(shared: &Arc<Shared>, writer: Writer) -> Result<Vec<thread::JoinHandle<()>>, LogError> {
    let failed = |error: std::io::Error| LogError::io(&*shared.folder, "starting a thread", &error);
    let named = |name: &str| thread::Builder::new().name(name.to_owned());
    let writer = named("log").spawn(move || writer.run()).map_err(failed)?;
    let maintained = Arc::clone(shared);
    let maintenance = named("log-files").spawn(move || maintenance::run(&maintained)).map_err(failed)?;
    shared.maintain();
    Ok(vec![writer, maintenance])
}

/// The files in the folder of a log, as determined by their names.
pub struct FolderContent {
    /// The numbers of the segments, in ascending order.
    pub numbers: Vec<u64>,
    pub spares: Vec<u64>,
    has_dead_letters: bool,
    /// The number of the newest segment according to the lock file; 0 if the file has no number.
    pub marked: u64,
}

impl FolderContent {
    pub fn in_folder(disk: &dyn Disk, folder: &Path, lock: &dyn DiskFile) -> Result<Self, LogError> {
        let failed = |error| LogError::io(folder, "reading the folder", &error);
        let names = disk.list(folder).map_err(failed)?;
        let names: Vec<&str> = names.iter().filter_map(|name| name.to_str()).collect();
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment::number_of(name)).collect();
        let spare = |name: &&str| name.strip_prefix("spare-")?.strip_suffix(".tmp")?.parse().ok();
        let mut spares: Vec<u64> = names.iter().filter_map(spare).collect();
        numbers.sort_unstable();
        spares.sort_unstable();
        let mut text = [0; 20];
        let read =
            lock.read_at(&mut text, 0).map_err(|error| LogError::io(lock_path(folder), "reading", &error))?;
        let text = std::str::from_utf8(text.get(..read).unwrap_or_default()).unwrap_or_default();
        let marked = text.trim().parse().unwrap_or(0);
        Ok(Self { numbers, spares, has_dead_letters: names.contains(&"dead.db"), marked })
    }

    /// Returns whether the folder does not contain a store yet. A start creates the dead letters first, and mode `direct` may
    /// have created them; as long as no store has adopted them, they do not indicate a lost store.
    pub fn is_new(&self, folder: &Path) -> bool {
        let is_lost =
            self.has_dead_letters && !super::dead::repair::is_unclaimed(&path_of_dead_letters(folder));
        self.numbers.is_empty() && self.marked == 0 && !is_lost
    }

    /// Returns the state of a new store.
    fn new_store(&self, folder: &Path, had_lock: bool) -> Result<End, LogError> {
        // A first start creates the lock file, the databases and the first segment in this order, and may be interrupted.
        let highest_id = if self.has_dead_letters {
            dead::highest_id_of_a_store(&path_of_dead_letters(folder))?
        } else {
            None
        };
        let had_segments = highest_id.is_some_and(|highest_id| highest_id > 0 || !had_lock);
        if had_segments || self.marked > 0 {
            return Err(LogError::Missing { folder: folder.to_owned(), first: 1, last: self.marked.max(1) });
        }
        Ok(End {
            store: StoreId::random(),
            is_new: true,
            header: None,
            state: State { oldest: 1, next_sink: 1, ..State::default() },
            next_seq: 1,
            received_last: i64::MIN,
            last: None,
        })
    }

    /// Checks that no segment is missing after the newest one that was found.
    pub fn check_newest(&self, folder: &Path, newest: u64) -> Result<(), LogError> {
        if self.marked > newest {
            let first = newest.saturating_add(1);
            return Err(LogError::Missing { folder: folder.to_owned(), first, last: self.marked });
        }
        Ok(())
    }
}

/// The state at the end of the newest segment.
pub struct End {
    pub store: StoreId,
    is_new: bool,
    header: Option<SegmentHeader>,
    pub state: State,
    pub next_seq: i64,
    received_last: i64,
    /// The last group; `None` if the segment has no group after its snapshot.
    last: Option<Recovered>,
}

/// Reads the newest segment to its end.
pub fn read_end(
    disk: &dyn Disk,
    folder: &Path,
    number: u64,
    findings: &mut Vec<String>,
) -> Result<End, LogError> {
    let Opened { mut reader, header, is_header_damaged } = SegmentReader::open(disk, folder, number, None)?;
    let path = segment::path(folder, number);
    let failed = |error| LogError::io(&*path, "reading", &error);
    let damaged = |text: &str| LogError::Damaged { path: path.clone(), text: text.to_owned() };
    if is_header_damaged {
        findings.push(format!("{}: its header is damaged; {}", path.display(), remedy::NOTHING_LOST));
    }
    let mut state = State::default();
    match reader.next().map_err(failed)? {
        Next::Group(_) => {
            let frames = Frame::read_all(reader.frames())
                .ok_or_else(|| damaged("its snapshot is of another version"))?;
            let [snapshot @ Frame::Snapshot(_)] = &frames[..] else {
                return Err(damaged("it has no snapshot"));
            };
            state.apply(snapshot);
        }
        Next::Damaged | Next::End => return Err(damaged("its snapshot cannot be read")),
    }
    let (mut last, mut next_seq, mut received_last) = (None, header.first_seq, header.received_before);
    let mut is_damaged = false;
    loop {
        match reader.next().map_err(failed)? {
            Next::Group(group) => {
                if group.first_seq > next_seq {
                    findings.push(lost(&path, next_seq, group.first_seq));
                } else if is_damaged {
                    let (path, at) = (path.display(), reader.at());
                    findings.push(format!(
                        "{path}: a group before byte {at} is damaged, with progress of sinks or a change by an operator; {}",
                        remedy::PROGRESS_LOST
                    ));
                }
                is_damaged = false;
                let frames = Frame::read_all(reader.frames())
                    .ok_or_else(|| damaged("a frame is of another version"))?;
                for frame in &frames {
                    if let Frame::Event(event) = frame {
                        received_last = event.received_at();
                    }
                    state.apply(frame);
                }
                next_seq = group.next_seq().unwrap_or(i64::MAX).max(skipped_to(&group, reader.frames()));
                let GroupHeader { events, first_seq, .. } = group;
                last = Some(Recovered { frames: reader.frames().to_vec(), events, first_seq });
            }
            Next::Damaged => is_damaged = true,
            Next::End => break,
        }
    }
    if reader.has_rest().map_err(failed)? {
        findings.push(format!(
            "{}: the group at byte {} is incomplete: an event that was possibly acknowledged, unless power was lost while it \
             was written; it stays there; {}",
            path.display(),
            reader.at(),
            remedy::FETCH_AGAIN
        ));
    }
    let store = header.owner.store;
    Ok(End { store, is_new: false, header: Some(header), state, next_seq, received_last, last })
}

fn lost(path: &Path, first: i64, next: i64) -> String {
    let (path, last) = (path.display(), next.saturating_sub(1));
    let events =
        if first == last { format!("event {first} is") } else { format!("events {first} to {last} are") };
    format!("{path}: {events} damaged; {}", remedy::DAMAGED_EVENTS)
}

/// Checks that no segment is missing, belongs to another store, or has a newer version.
pub fn check_segments(
    disk: &dyn Disk,
    folder: &Path,
    found: &FolderContent,
    end: &End,
    findings: &mut Vec<String>,
) -> Result<Vec<Segment>, LogError> {
    let Some(newest) = found.numbers.last() else { return Ok(Vec::new()) };
    let mut segments = Vec::with_capacity(found.numbers.len());
    let mut expected = end.state.oldest;
    for number in found.numbers.iter().filter(|number| **number < *newest) {
        if *number > expected {
            let (first, last) = (expected, number.saturating_sub(1));
            return Err(LogError::Missing { folder: folder.to_owned(), first, last });
        }
        let opened = SegmentReader::open(disk, folder, *number, Some(end.store));
        let header = match opened {
            Ok(Opened { header, is_header_damaged, reader }) => {
                if is_header_damaged {
                    let path = reader.path().display();
                    findings.push(format!("{path}: its header is damaged; {}", remedy::NOTHING_LOST));
                }
                header
            }
            // A segment below the oldest one that is needed is a leftover, readable or not.
            Err(_) if *number < end.state.oldest => continue,
            Err(error) => return Err(error),
        };
        let SegmentHeader { first_seq, received_before, .. } = header;
        segments.push(Segment { number: *number, first_seq, received_before });
        expected = number.saturating_add(1).max(end.state.oldest);
    }
    if *newest > expected {
        let (first, last) = (expected, newest.saturating_sub(1));
        return Err(LogError::Missing { folder: folder.to_owned(), first, last });
    }
    // All files are created with one length, so a shorter one has lost its end.
    let length = |path: &Path| disk.about(path).ok().flatten().map_or(0, |found| found.length);
    let newest_length = length(&segment::path(folder, *newest));
    let spares = found.spares.iter().map(|number| super::shared::spare_path(folder, *number));
    let others = segments.iter().map(|found| segment::path(folder, found.number)).chain(spares);
    if let Some(longest) = others.map(|path| length(&path)).max().filter(|longest| *longest > newest_length) {
        findings.push(format!(
            "{}: it has {newest_length} bytes, and other segments have {longest}: its end is missing, with events that were \
             possibly acknowledged; {}",
            segment::path(folder, *newest).display(),
            remedy::FETCH_AGAIN
        ));
    }
    segments.extend(end.header.map(|header| {
        let SegmentHeader { owner, first_seq, received_before } = header;
        Segment { number: owner.segment, first_seq, received_before }
    }));
    Ok(segments)
}

/// Removes spares whose creation was interrupted.
fn drop_short_spares(shared: &Shared) {
    let mut files = shared.files.lock();
    files.spares.retain(|path| {
        let found = shared.disk.about(path).ok().flatten();
        let is_whole = found.is_some_and(|found| found.length == shared.segment_bytes);
        if !is_whole {
            // If it cannot be removed, the next start finds it again.
            let _left = shared.disk.remove_file(path);
        }
        is_whole
    });
}

fn open_dead_letters(
    folder: &Path,
    options: &LogOptions,
    end: &End,
    clock: &Arc<dyn Clock>,
) -> Result<DeadLetters, LogError> {
    let store_id = end.store.0;
    let expect = if end.is_new {
        Expect::New { store_id }
    } else {
        Expect::Existing { store_id, highest_id: end.state.highest_dead_letter }
    };
    let LogOptions { max_expired, max_refused, .. } = *options;
    let options = DeadOptions { max_expired, max_refused, expect };
    Ok(DeadLetters::open(path_of_dead_letters(folder), options, Arc::clone(clock))?)
}

/// Returns the next sequence number if dead letters refer to later events than the log contains, since the numbers of these
/// events must not be reused; otherwise `None`.
fn skipped_by_dead_letters(
    dead: &DeadLetters,
    end: &End,
    findings: &mut Vec<String>,
) -> Result<Option<i64>, LogError> {
    let (known, last) = (dead.highest_seq(end.state.highest_dead_letter)?, end.next_seq.saturating_sub(1));
    if known <= last {
        return Ok(None);
    }
    findings.push(format!(
        "dead.db: it has dead letters of events up to {known}, and the log ends with {last}: an older log was put back, or \
         its end is damaged; the log continues after them; {}",
        remedy::PUT_BACK
    ));
    let damaged = || LogError::Damaged {
        path: dead.path().to_owned(),
        text: format!("a dead letter has the sequence number {known}"),
    };
    known.checked_add(1).ok_or_else(damaged).map(Some)
}

impl DeadLetters {
    /// Opens `dead.db` in `folder` for a server without a log (mode `direct`), and locks the folder. Creates the file if it is
    /// missing. If the folder contains a log nevertheless, its dead letters are checked as in [`Log::open`].
    ///
    /// # Errors
    ///
    /// [`LogError`], with the path and the remedy.
    pub fn open_without_log(folder: &Path, clock: &Arc<dyn Clock>) -> Result<Self, LogError> {
        let disk = SystemDisk::shared();
        refuse_first_edition(&*disk, folder)?;
        create_folders(&*disk, folder, true)
            .map_err(|(path, error)| LogError::io(path, "creating the folder", &error))?;
        let lock = lock(&*disk, folder)?;
        let found = FolderContent::in_folder(&*disk, folder, &*lock)?;
        if !found.numbers.is_empty() || found.marked > 0 {
            let reader = Reader::open(folder)?;
            reader.dead_letters()?;
            for SinkStatus { name, backlog, .. } in reader.status()?.sinks {
                if backlog > 0 {
                    tracing::warn!(
                        sink = name,
                        events = backlog,
                        folder = %folder.display(),
                        "the spool has events that are not delivered, and mode `direct` does not deliver them; \
                         start with mode `spool` until `dt-receiver spool status` shows none"
                    );
                }
            }
        }
        let options = DeadOptions::new(Expect::Anything);
        Ok(Self::open(path_of_dead_letters(folder), options, Arc::clone(clock))?.with_lock(lock))
    }
}

/// Returns whether a folder contains only the dead letters of mode `direct`: it has no log, and never had one.
///
/// # Errors
///
/// [`LogError`] if the folder cannot be read.
pub fn is_without_log(folder: &Path) -> Result<bool, LogError> {
    let (disk, path) = (SystemDisk::shared(), lock_path(folder));
    refuse_first_edition(&*disk, folder)?;
    let lock = disk.open(&path, OpenMode::Read).map_err(|error| LogError::io(path, "opening", &error))?;
    Ok(FolderContent::in_folder(&*disk, folder, &*lock)?.is_new(folder))
}

fn open_ids(
    folder: &Path,
    options: &LogOptions,
    end: &End,
    clock: &Arc<dyn Clock>,
    findings: &mut Vec<String>,
) -> Result<Ids, LogError> {
    let window = i64::try_from(options.dedup_window.as_millis()).unwrap_or(i64::MAX);
    let ids = IdsOptions { store_id: end.store.0, window, max_ids: options.dedup_max };
    let path = folder.join("ids.db");
    let opened = Ids::open(&path, ids, end.next_seq.saturating_sub(1), clock.unix_millis());
    let OpenedIds { ids, rebuilt } =
        opened.map_err(|error| LogError::Damaged { path, text: error.to_string() })?;
    findings.extend(rebuilt.filter(|_| !end.is_new).map(|rebuilt| rebuilt.to_string()));
    Ok(ids)
}

/// Returns an error if the folder is that of the first edition, which kept its events in a SQLite database.
pub fn refuse_first_edition(disk: &dyn Disk, folder: &Path) -> Result<(), LogError> {
    for name in ["spool.db", "spool.journal"] {
        let path = folder.join(name);
        if matches!(disk.about(&path), Ok(Some(_))) {
            return Err(LogError::FirstEdition { path });
        }
    }
    Ok(())
}

/// Locks the folder. Waits up to [`LOCK_WAIT`] if another process holds the lock.
pub fn lock(disk: &dyn Disk, folder: &Path) -> Result<Box<dyn DiskFile>, LogError> {
    let path = lock_path(folder);
    let failed = |doing| {
        let path = path.clone();
        move |error: std::io::Error| LogError::io(path, doing, &error)
    };
    let file = match disk.open(&path, OpenMode::Write) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            disk.open(&path, OpenMode::CreatePrivate)
        }
        opened => opened,
    };
    let file = file.map_err(failed("opening"))?;
    let started = Instant::now();
    loop {
        if file.try_lock().map_err(failed("locking"))? {
            return Ok(file);
        }
        if started.elapsed() >= LOCK_WAIT {
            return Err(LogError::Locked { path: folder.to_owned() });
        }
        std::thread::sleep(LOCK_RETRY);
    }
}
