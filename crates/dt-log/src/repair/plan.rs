//! Plans the steps of a repair.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::dead::{DeadError, repair as dead_repair};
use super::super::error::LogError;
use super::super::frame::Frame;
use super::super::group::{self, Owner};
use super::super::open::{FolderContent, lock, refuse_first_edition};
use super::super::segment::{self, Next, SegmentHeader, SegmentReader};
use super::super::source::skipped_to;
use super::super::sqlite::{ENDINGS, with_ending};
use super::super::state::State;
use super::super::{SEGMENT_BYTES, StoreId, path_of_dead_letters};
use super::{Proposal, Step};
use crate::disk::Disk;

/// The smallest size of an event in a segment, in bytes. It limits the number of events that a lost segment can have had.
const MIN_EVENT_BYTES: u64 = 16;
/// The largest number of consecutive segments that may be missing. A higher number in the lock file, or in the name of a file
/// without content, is ignored.
const MAX_LOST: u64 = 1 << 16;

/// A segment that the repair writes.
#[derive(Debug)]
pub struct NewSegment {
    pub header: SegmentHeader,
    /// The sequence number at which the log continues after lost events: those from the end of the segment before it. `None`
    /// if no events are lost.
    skips_to: Option<i64>,
    state: Arc<State>,
    /// The path of the file whose groups are copied behind the new header; `None` for a segment without events.
    pub copy_of: Option<PathBuf>,
}

impl NewSegment {
    /// Returns the bytes at the beginning of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let SegmentHeader { owner, first_seq, .. } = self.header;
        let mut bytes = self.header.to_bytes();
        let mut frames = Vec::new();
        if self.copy_of.is_none() {
            frames.push(self.state.snapshot());
            frames.extend(self.skips_to.map(|next| Frame::Skipped { next }));
        }
        for frame in frames {
            let mut group = Vec::new();
            group::begin(&mut group);
            frame.write(&mut group);
            group::finish(&mut group, owner, 0, first_seq);
            bytes.extend_from_slice(&group);
        }
        bytes
    }
}

/// A state, the number of the segment with its snapshot, and the ends of the segments that were read for it.
type StateOf = (State, Option<u64>, BTreeMap<u64, EndOf>);

/// A segment that the repair keeps.
struct Kept {
    number: u64,
    reader: SegmentReader,
    header: SegmentHeader,
    /// The new name of the file, if its header must be replaced; otherwise `None`.
    renamed_to: Option<PathBuf>,
}

/// The position and the time at the end of a segment.
#[derive(Clone, Copy)]
struct EndOf {
    next_seq: i64,
    received_last: i64,
}

/// Inspects a folder. See [`Proposal::new`].
pub fn propose(disk: Arc<dyn Disk>, folder: &Path) -> Result<Proposal, LogError> {
    refuse_first_edition(&*disk, folder)?;
    let lock = lock(&*disk, folder)?;
    let found = FolderContent::in_folder(&*disk, folder, &*lock)?;
    let store = store_of(&*disk, folder, &found)?;
    let segment_bytes = segment_bytes(&*disk, folder, &found);
    let (steps, segments) = (Vec::new(), Vec::new());
    let mut planner = Planner { disk: &*disk, folder, store, segment_bytes, steps, segments };
    let newest = if found.is_new(folder) { None } else { planner.plan(&found)? };
    let Planner { steps, segments, .. } = planner;
    Ok(Proposal { folder: folder.to_owned(), store, lock, steps, segments, newest, segment_bytes, disk })
}

/// Returns the id of the store to which most segments belong; on a tie that of the dead letters, then that of the newest segment.
fn store_of(disk: &dyn Disk, folder: &Path, found: &FolderContent) -> Result<StoreId, LogError> {
    let of_dead = dead_repair::store_of(&path_of_dead_letters(folder)).filter(|store| *store != [0; 16]);
    let mut counts: BTreeMap<[u8; 16], (u64, bool, u64)> = BTreeMap::new();
    for number in &found.numbers {
        if let Ok(opened) = SegmentReader::open(disk, folder, *number, None) {
            let store = opened.header.owner.store.0;
            let count = counts.entry(store).or_insert((0, of_dead == Some(store), 0));
            (count.0, count.2) = (count.0.saturating_add(1), *number);
        }
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count).map(|(store, _)| store);
    match (most.or(of_dead), found.numbers.last()) {
        (Some(store), _) => Ok(StoreId(store)),
        (None, None) => Ok(StoreId::random()),
        (None, Some(newest)) => {
            Err(beyond_repair(segment::path(folder, *newest), "no file contains the id of the store"))
        }
    }
}

fn beyond_repair(path: PathBuf, why: &str) -> LogError {
    LogError::Damaged {
        path,
        text: format!("{why}, so nothing can be repaired; restore a backup, or move the folder away"),
    }
}

fn segment_bytes(disk: &dyn Disk, folder: &Path, found: &FolderContent) -> u64 {
    let length =
        |number: &u64| disk.about(&segment::path(folder, *number)).ok().flatten().map(|about| about.length);
    let longest = found.numbers.iter().filter_map(length).max();
    longest.filter(|length| *length > segment::GROUPS_AT).unwrap_or(SEGMENT_BYTES)
}

/// Returns an unused path: the given path, followed by `.ENDING-N`.
pub fn free_name(disk: &dyn Disk, path: &Path, ending: &str) -> Result<PathBuf, LogError> {
    last_and_free_name(disk, path, ending).map(|(_, free)| free)
}

/// Returns the last used and the first unused path of the form `PATH.ENDING-N`. A path also counts as used if there is a file
/// beside it that SQLite would apply to a database of this name: an interrupted repair leaves such files.
fn last_and_free_name(
    disk: &dyn Disk,
    path: &Path,
    ending: &str,
) -> Result<(Option<PathBuf>, PathBuf), LogError> {
    let (mut number, mut last) = (0_u64, None);
    loop {
        number = number.saturating_add(1);
        let name = with_ending(path, &format!(".{ending}-{number}"));
        let mut is_free = true;
        for ending in ENDINGS {
            if is_there(disk, &with_ending(&name, ending))? {
                is_free = false;
                last = if ending.is_empty() { Some(name.clone()) } else { last };
            }
        }
        if is_free {
            return Ok((last, name));
        }
    }
}

fn is_there(disk: &dyn Disk, path: &Path) -> Result<bool, LogError> {
    let found = disk.about(path).map_err(|error| LogError::io(path, "looking for the file", &error))?;
    Ok(found.is_some())
}

struct Planner<'a> {
    disk: &'a dyn Disk,
    folder: &'a Path,
    store: StoreId,
    segment_bytes: u64,
    steps: Vec<Step>,
    segments: Vec<NewSegment>,
}

impl Planner<'_> {
    /// Plans all steps. Returns the number of the newest segment that is kept unchanged.
    fn plan(&mut self, found: &FolderContent) -> Result<Option<u64>, LogError> {
        let mut kept = Vec::new();
        for number in &found.numbers {
            kept.extend(self.inspect(*number, found.numbers.last() == Some(number))?);
        }
        let (mut state, state_of, mut ends) = self.state_of(&mut kept)?;
        // Segments below the oldest one that is needed are leftovers.
        if !kept.is_empty() {
            kept.retain(|segment| segment.number >= state.oldest);
            self.steps.retain(|step| step.segment().is_none_or(|number| number >= state.oldest));
        }
        let top = kept.last().map_or(0, |segment| segment.number);
        let is_near = |number: &&u64| top == 0 || number.saturating_sub(top) <= MAX_LOST;
        let found_last = found.numbers.iter().rev().find(is_near).copied().unwrap_or(0);
        let is_believed = found.marked.saturating_sub(found_last) <= MAX_LOST || found_last == 0;
        let last = found_last.max(if is_believed { found.marked } else { 0 });
        let mut is_new_needed = top == 0 || state_of != Some(top) || !is_believed;
        if let Some(first) = kept.first().filter(|first| first.number > state.oldest) {
            self.begin_later(&mut state, first.number, first.header.first_seq);
            is_new_needed = true;
        }
        self.stand_in(&mut kept, &mut ends, last)?;
        if is_new_needed || !self.segments.is_empty() {
            let end = ends.get(&top).copied();
            let state_of = state_of.filter(|of| *of != top);
            let next = last.checked_add(1).ok_or_else(|| self.exhausted())?;
            self.begin(&mut state, next, end, state_of)?;
        }
        self.dead_letters(state.highest_dead_letter)?;
        Ok(kept.last().filter(|kept| kept.renamed_to.is_none()).map(|kept| kept.number))
    }

    /// Inspects one segment; `None` if it is not kept. The newest segment needs a readable header, since a start reads the
    /// store's id from it.
    fn inspect(&mut self, number: u64, is_newest: bool) -> Result<Option<Kept>, LogError> {
        let path = segment::path(self.folder, number);
        let (why, is_damaged) = match SegmentReader::open(self.disk, self.folder, number, Some(self.store)) {
            Ok(opened) if opened.is_header_damaged && is_newest => {
                ("its header cannot be read".to_owned(), true)
            }
            Ok(opened) => {
                let (reader, header) = (opened.reader, opened.header);
                return Ok(Some(Kept { number, reader, header, renamed_to: None }));
            }
            Err(LogError::Newer { found, .. }) => {
                (format!("its format is version {found}, of a newer program"), false)
            }
            Err(LogError::Foreign { .. }) => ("it belongs to another spool".to_owned(), false),
            Err(LogError::Damaged { text, .. }) => (text, true),
            Err(error) => return Err(error),
        };
        let to = free_name(self.disk, &path, "set-aside")?;
        self.steps.push(Step::Rename { path: path.clone(), to: to.clone(), why });
        if !is_damaged {
            return Ok(None);
        }
        let owner = Owner { store: self.store, segment: number };
        let mut reader = SegmentReader::without_header(self.disk, self.folder, owner, i64::MIN)?;
        let first_seq = loop {
            match reader.next().map_err(|error| LogError::io(&*path, "reading", &error))? {
                Next::Group(first) => break first.first_seq,
                Next::Damaged => {}
                Next::End => return Ok(None),
            }
        };
        self.steps.push(Step::Restore { segment: number });
        let header = SegmentHeader { owner, first_seq, received_before: i64::MIN };
        let reader = SegmentReader::without_header(self.disk, self.folder, owner, first_seq)?;
        Ok(Some(Kept { number, reader, header, renamed_to: Some(to) }))
    }

    /// Returns the state after the newest readable snapshot and all later frames, the segment with that snapshot, and the
    /// ends of the segments that were read for it.
    fn state_of(&self, kept: &mut [Kept]) -> Result<StateOf, LogError> {
        let mut state = State { oldest: 1, next_sink: 1, ..State::default() };
        let mut base = None;
        for Kept { number, header, .. } in kept.iter().rev() {
            let mut reader =
                SegmentReader::without_header(self.disk, self.folder, header.owner, header.first_seq)?;
            let first = reader.next().map_err(|error| LogError::io(reader.path(), "reading", &error))?;
            let frames = Frame::read_all(reader.frames()).unwrap_or_default();
            if matches!((first, frames.first()), (Next::Group(_), Some(Frame::Snapshot(_)))) {
                base = Some(*number);
                break;
            }
        }
        // Without a snapshot, the state is only complete if all frames from the first segment on are there.
        if base.is_none()
            && let Some(first) = kept.first().filter(|first| first.number > 1)
        {
            return Err(beyond_repair(
                first.reader.path().to_owned(),
                "no segment has a readable list of the sinks",
            ));
        }
        let mut ends = BTreeMap::new();
        for segment in kept.iter_mut().filter(|segment| segment.number >= base.unwrap_or(0)) {
            ends.insert(segment.number, read_through(segment, Some(&mut state))?);
        }
        Ok((state, base, ends))
    }

    /// Moves the cursors of sinks that need a missing oldest segment to the first kept segment.
    fn begin_later(&mut self, state: &mut State, first_kept: u64, first_seq: i64) {
        let (first, last) = (state.oldest, first_kept.saturating_sub(1));
        self.steps.push(Step::BeginLater { first, last });
        state.oldest = first_kept;
        let before = first_seq.saturating_sub(1);
        for sink in state.sinks.values_mut() {
            if sink.cursor < before {
                let (name, first) = (Arc::clone(&sink.name), sink.cursor.saturating_add(1));
                self.steps.push(Step::MoveCursor { sink: name, first, last: before });
            }
            sink.cursor = sink.cursor.max(before);
            sink.replay_after = sink.replay_after.map(|after| after.max(before));
        }
    }

    /// Plans segments without events for the gaps between and after the kept segments, up to the number `last`.
    fn stand_in(
        &mut self,
        kept: &mut [Kept],
        ends: &mut BTreeMap<u64, EndOf>,
        last: u64,
    ) -> Result<(), LogError> {
        let starts: Vec<(u64, i64)> =
            kept.iter().skip(1).map(|segment| (segment.number, segment.header.first_seq)).collect();
        for (segment, next) in kept.iter_mut().zip(starts.into_iter().map(Some).chain([None])) {
            if let Some(copy_of) = segment.renamed_to.clone() {
                self.add_segment(segment.header, None, Some(copy_of));
            }
            let (first, until) =
                (segment.number.saturating_add(1), next.map_or(last.saturating_add(1), |(number, _)| number));
            if first >= until {
                continue;
            }
            let end = match ends.get(&segment.number) {
                Some(end) => *end,
                None => read_through(segment, None)?,
            };
            if until.saturating_sub(first) > MAX_LOST {
                return Err(self.exhausted());
            }
            let most = self.most_events(until.saturating_sub(first));
            let next_seq = match next {
                Some((_, seq)) => seq.max(end.next_seq),
                None => end.next_seq.checked_add(most).ok_or_else(|| self.exhausted())?,
            };
            let lost = match next {
                None => Some((end.next_seq, None)),
                Some(_) if next_seq > end.next_seq => Some((end.next_seq, Some(next_seq.saturating_sub(1)))),
                Some(_) => None,
            };
            self.steps.push(Step::StandIn { first, last: until.saturating_sub(1), lost });
            for number in first..until {
                let owner = Owner { store: self.store, segment: number };
                let header =
                    SegmentHeader { owner, first_seq: end.next_seq, received_before: end.received_last };
                self.add_segment(header, Some(next_seq), None);
            }
            ends.insert(segment.number, EndOf { next_seq, ..end });
        }
        if kept.is_empty() && last > 0 {
            self.steps.push(Step::StandIn { first: 1, last, lost: Some((1, None)) });
        }
        Ok(())
    }

    /// Returns an upper limit of the number of events in `segments` segments.
    fn most_events(&self, segments: u64) -> i64 {
        let each = self.segment_bytes.checked_div(MIN_EVENT_BYTES).unwrap_or(0);
        i64::try_from(each.saturating_mul(segments)).unwrap_or(i64::MAX)
    }

    /// Plans a segment after all segments that exist or existed. All new segments get its state.
    ///
    /// # Errors
    ///
    /// [`LogError::Damaged`] if no higher sequence number is left.
    fn begin(
        &mut self,
        state: &mut State,
        segment: u64,
        end: Option<EndOf>,
        state_of: Option<u64>,
    ) -> Result<(), LogError> {
        if end.is_none() {
            state.oldest = segment;
        }
        let above = match end {
            Some(end) => Some(end.next_seq),
            None => self.most_events(segment.saturating_sub(1)).checked_add(1),
        };
        let known = state.sinks.values().map(|sink| sink.cursor.saturating_add(1)).max().unwrap_or(1);
        let next_seq = above.ok_or_else(|| self.exhausted())?.max(known);
        self.steps.push(Step::Begin { segment, next_seq, state_of });
        let owner = Owner { store: self.store, segment };
        let received_before = end.map_or(i64::MIN, |end| end.received_last);
        self.add_segment(SegmentHeader { owner, first_seq: next_seq, received_before }, None, None);
        let state = Arc::new(state.clone());
        self.segments.iter_mut().for_each(|segment| segment.state = Arc::clone(&state));
        Ok(())
    }

    /// Returns the error for a log whose numbers are so high that no higher one is left.
    fn exhausted(&self) -> LogError {
        beyond_repair(self.folder.to_owned(), "the number in `spool.lock` or of a segment is too high")
    }

    fn add_segment(&mut self, header: SegmentHeader, skips_to: Option<i64>, copy_of: Option<PathBuf>) {
        self.segments.push(NewSegment { header, skips_to, state: Arc::default(), copy_of });
    }

    fn dead_letters(&mut self, highest: i64) -> Result<(), LogError> {
        let path = path_of_dead_letters(self.folder);
        let Some(error) = dead_repair::problem(&path, self.store.0, highest) else { return Ok(()) };
        if error.is_passing() {
            return Err(error.into());
        }
        if let DeadError::Older { found, .. } = error {
            self.steps.push(Step::OlderDeadLetters { path, found, above: highest });
            return Ok(());
        }
        let (last, free) = last_and_free_name(self.disk, &path, "set-aside")?;
        let is_damaged = matches!(error, DeadError::Damaged { .. });
        // An interrupted repair has renamed it already.
        let renamed = last.filter(|last| {
            matches!(error, DeadError::Missing { .. })
                && matches!(
                    dead_repair::problem(last, self.store.0, highest),
                    None | Some(DeadError::Damaged { .. })
                )
        });
        let damaged = if is_damaged { Some(&path) } else { renamed.as_ref() };
        let above = damaged.map_or(highest, |damaged| highest.max(dead_repair::highest_in(damaged)));
        let why = error.code().replace('_', " ");
        // The write-ahead log is copied first, so that the database never has its new name without it.
        for ending in ["-wal", "", "-shm", "-journal"] {
            let (from, to) = (with_ending(&path, ending), with_ending(&free, ending));
            if is_there(self.disk, &from)? {
                self.steps.push(Step::Rename { path: from, to, why: why.clone() });
            }
        }
        let saved_from = if is_damaged { Some(free) } else { renamed };
        self.steps.push(Step::NewDeadLetters { path, above, saved_from });
        Ok(())
    }
}

impl Step {
    /// Returns the number of the segment that this step renames or restores; `None` for steps of another kind.
    fn segment(&self) -> Option<u64> {
        match self {
            Self::Rename { path, .. } => path.file_name()?.to_str().and_then(segment::number_of),
            Self::Restore { segment } => Some(*segment),
            _ => None,
        }
    }
}

/// Reads a segment to its end.
fn read_through(segment: &mut Kept, mut state: Option<&mut State>) -> Result<EndOf, LogError> {
    let SegmentHeader { first_seq, received_before, .. } = segment.header;
    // A derived header does not contain the time.
    let received_last = if received_before == i64::MAX { i64::MIN } else { received_before };
    let mut end = EndOf { next_seq: first_seq, received_last };
    loop {
        match segment.reader.next() {
            Ok(Next::Group(group)) => {
                let frames = segment.reader.frames();
                end.next_seq = group.next_seq().unwrap_or(i64::MAX).max(skipped_to(&group, frames));
                for frame in Frame::read_all(frames).unwrap_or_default() {
                    if let Frame::Event(event) = &frame {
                        end.received_last = event.received_at();
                    }
                    if let Some(state) = &mut state {
                        state.apply(&frame);
                    }
                }
            }
            Ok(Next::Damaged) => {}
            Ok(Next::End) => return Ok(end),
            Err(error) => return Err(LogError::io(segment.reader.path(), "reading", &error)),
        }
    }
}
