//! Replays a recording on the fake disk, and stops at points of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::fake::{FakeDisk, Random};
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::events::parse_id;
use crate::load::{Book, Found};
use crate::place::{PHASES, Phase, is_volatile, phase_of};
use crate::syscalls::{Action, action, written};
use crate::trace::{Call, calls};

/// What was answered 200 so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    pub(crate) events: Book,
    /// The request ids of what was kept as a dead letter.
    pub(crate) letters: BTreeSet<String>,
    /// How many answers said that an event had been there already.
    pub(crate) duplicates: u64,
}

/// One life of the program, as recorded.
pub(crate) struct Life {
    calls: Vec<Call>,
    actions: Vec<Option<Action>>,
    /// The call that begins (`false`) or returns (`true`), in the order of the trace.
    steps: Vec<(usize, bool)>,
    recorded: Recorded,
}

/// What is known of a life but for its calls.
pub(crate) struct Recorded {
    /// Whether its start is the first after a power loss.
    pub(crate) is_repair: bool,
    /// The files at its end, as they really were.
    pub(crate) end: BTreeMap<PathBuf, Found>,
    /// What the senders had been answered at its end.
    pub(crate) book: Book,
}

/// A moment of a recording: after that step of that life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Point {
    life: usize,
    step: usize,
    pub(crate) phase: Phase,
}

impl Life {
    pub(crate) fn read(trace: &str, recorded: Recorded) -> Self {
        let calls = calls(trace);
        let mut steps: Vec<(usize, (usize, bool))> = Vec::new();
        for (at, call) in calls.iter().enumerate() {
            steps.push((call.began * 2, (at, false)));
            steps.extend(call.returned.map(|line| (line * 2 + 1, (at, true))));
        }
        steps.sort_unstable();
        let actions = calls.iter().map(action).collect();
        Self { actions, calls, steps: steps.into_iter().map(|(_, step)| step).collect(), recorded }
    }

    /// The calls that name a file, to see what went wrong with it.
    fn of_file(&self, path: &Path) -> Vec<&Call> {
        let name = path.file_name().expect("a name").to_string_lossy();
        self.calls.iter().filter(|call| call.arguments.contains(&*name)).collect()
    }

    /// The steps that do something to files below a folder, each with its phase.
    fn phases<'l>(&'l self, root: &'l Path) -> impl Iterator<Item = (usize, Phase)> + 'l {
        let up = self.steps.iter().rposition(|(call, _)| self.actions[*call] == Some(Action::Listen));
        let opening = if self.recorded.is_repair { Phase::Repair } else { Phase::Open };
        let phase = move |(step, (call, _)): (usize, &(usize, bool))| {
            let phase = touched(self.actions[*call].as_ref()?, &self.calls[*call], root)?;
            Some((step, if up.is_none_or(|up| step < up) { opening } else { phase }))
        };
        self.steps.iter().enumerate().filter_map(phase)
    }
}

/// The phase of a call that changes or syncs something below a folder.
fn touched(action: &Action, call: &Call, root: &Path) -> Option<Phase> {
    let within = |path: &Path| path.starts_with(root) && !is_volatile(path);
    let file = || {
        let path = call.arguments.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
        path.map_or_else(PathBuf::new, |(path, _)| PathBuf::from(path))
    };
    let of = |path: &Path, is_write, is_removed| within(path).then(|| phase_of(path, is_write, is_removed));
    match action {
        Action::Open { path, new: true, .. }
        | Action::CreateFolder { path }
        | Action::CreateSocket { path } => of(path, false, false),
        Action::Write { .. } | Action::SetLength { .. } | Action::Sync { .. } => of(&file(), true, false),
        // A spare that becomes a segment.
        Action::Rename { to, .. } if of(to, false, false) == Some(Phase::Roll) => Some(Phase::Roll),
        Action::Rename { from, to } => of(from, false, true).max(of(to, false, false)),
        Action::Remove { path } => of(path, false, true),
        Action::Send => call.arguments.contains("\"HTTP/1.1 200").then_some(Phase::Answer),
        _ => None,
    }
}

/// Chooses points: so many of each phase, and others anywhere, in the order of the recording.
pub(crate) fn choose(lives: &[Life], root: &Path, random: &mut Random, count: u64, each: u64) -> Vec<Point> {
    let all: Vec<Point> = lives
        .iter()
        .enumerate()
        .flat_map(|(life, recorded)| {
            recorded.phases(root).map(move |(step, phase)| Point { life, step, phase })
        })
        .collect();
    let mut pick = |from: &[Point]| from[usize::try_from(random.below(from.len() as u64)).unwrap()];
    let mut points = Vec::new();
    for phase in PHASES {
        let inside: Vec<Point> = all.iter().copied().filter(|point| point.phase == phase).collect();
        if !inside.is_empty() {
            points.extend((0..each).map(|_| pick(&inside)));
        }
    }
    while (points.len() as u64) < count {
        points.push(pick(&all));
    }
    points.sort_unstable();
    points
}

/// An open file of the recording.
#[derive(Clone)]
struct Open {
    /// `None` for a folder.
    file: Option<Arc<dyn DiskFile>>,
    path: PathBuf,
    append: bool,
    position: u64,
}

/// The fake disk on which the program's calls are repeated.
pub(crate) struct Replay<'r> {
    pub(crate) disk: FakeDisk,
    pub(crate) ledger: Ledger,
    root: &'r Path,
    open: BTreeMap<u64, Open>,
    /// The files and folders whose syncs are left out, by the end of their path: to see that the tests notice.
    forgotten: Option<String>,
    /// Per inode the calls since the last sync that wrote to it.
    unsynced: BTreeMap<u64, Vec<(usize, u64)>>,
}

impl<'r> Replay<'r> {
    pub(crate) fn new(disk: FakeDisk, ledger: Ledger, root: &'r Path) -> Self {
        let forgotten = std::env::var("DT_RECEIVER_TEST_POWER_FORGET").ok();
        Self { disk, ledger, root, open: BTreeMap::new(), forgotten, unsynced: BTreeMap::new() }
    }

    /// Replays all lives, and calls `at` at each point.
    pub(crate) fn run(&mut self, lives: &[Life], points: &[Point], mut at: impl FnMut(Point, &Self)) {
        let mut points = points.iter().copied().peekable();
        for (number, life) in lives.iter().enumerate() {
            self.open.clear();
            for (step, (call, returned)) in life.steps.iter().enumerate() {
                if let Some(action) = &life.actions[*call] {
                    self.apply(life, *call, action, *returned);
                }
                while let Some(point) = points.next_if(|point| (point.life, point.step) == (number, step)) {
                    at(point, self);
                }
            }
            self.unsynced.clear();
            self.adopt(life);
            // The trace does not say whether an answer left that was being sent when the program was killed.
            for (device, count) in &life.recorded.book {
                let known = self.ledger.events.entry(*device).or_default();
                *known = (*known).max(*count);
            }
        }
    }

    fn within(&self, path: &Path) -> Option<PathBuf> {
        path.strip_prefix(self.root).ok().map(|rest| Path::new("/").join(rest))
    }

    /// A call takes effect when it begins, unless it makes something durable or returns a descriptor.
    fn apply(&mut self, life: &Life, at: usize, action: &Action, returned: bool) {
        let call = &life.calls[at];
        let late = matches!(
            action,
            Action::Sync { .. } | Action::Open { .. } | Action::Duplicate { .. } | Action::Look { .. }
        );
        if late != returned {
            return;
        }
        match action {
            Action::Open { path, new, append, truncate, fd } => {
                let Some(path) = self.within(path) else { return drop(self.open.remove(fd)) };
                self.opened(path, *new, *truncate, |open| Open { append: *append, ..open }, *fd);
            }
            Action::Close { fd } => drop(self.open.remove(fd)),
            Action::Duplicate { fd, copy } => {
                if let Some(open) = self.open.get(fd).cloned() {
                    self.open.insert(*copy, open);
                }
            }
            Action::Seek { fd, to } => {
                if let Some(open) = self.open.get_mut(fd) {
                    open.position = *to;
                }
            }
            Action::Write { fd, offset } => self.write(at, call, *fd, *offset),
            Action::SetLength { fd, length } => {
                if let Some(file) = self.open.get(fd).and_then(|open| open.file.clone()) {
                    file.set_length(*length).expect("set");
                }
            }
            Action::Sync { fd } => self.sync(life, call, *fd),
            Action::Rename { from, to } => {
                if let (Some(from), Some(to)) = (self.within(from), self.within(to)) {
                    self.disk.rename(&from, &to).unwrap_or_else(|error| panic!("{call:?}: {error}"));
                }
            }
            Action::Remove { path } => {
                if let Some(path) = self.within(path) {
                    self.disk.remove_file(&path).unwrap_or_else(|error| panic!("{call:?}: {error}"));
                }
            }
            Action::CreateFolder { path } => {
                if let Some(path) = self.within(path) {
                    self.disk.create_folder(&path, true).unwrap_or_else(|error| panic!("{call:?}: {error}"));
                }
            }
            Action::CreateSocket { path } => {
                if let Some(path) = self.within(path) {
                    self.disk
                        .open(&path, OpenMode::Create)
                        .unwrap_or_else(|error| panic!("{call:?}: {error}"));
                }
            }
            Action::Look { fd, inode } => {
                let open = self.open.get(fd).map(|open| open.path.clone());
                if let Some(path) = open {
                    self.renumber(&path, *inode);
                }
            }
            Action::Send => self.answered(&written(call)),
            Action::Listen => {}
        }
    }

    /// Two files that were made at the same time may have got their inode numbers in the other order than the calls are
    /// recorded. The sink's checkpoints hold the numbers that the program saw.
    fn renumber(&mut self, path: &Path, found: u64) {
        let number = found - 1;
        if self.disk.names().get(path).is_none_or(|known| *known == number) {
            return;
        }
        let Some(before) = self.disk.renumber(path, number) else { return };
        let [one, other] = [before, number].map(|inode| self.unsynced.remove(&inode));
        self.unsynced.extend(one.map(|writes| (number, writes)));
        self.unsynced.extend(other.map(|writes| (before, writes)));
    }

    fn opened(&mut self, path: PathBuf, new: bool, truncate: bool, with: impl Fn(Open) -> Open, fd: u64) {
        let about = self.disk.about(&path).expect("it answers");
        let mode = if about.is_none() && new { OpenMode::Create } else { OpenMode::Write };
        let is_folder = about.is_some_and(|about| about.is_folder);
        let file: Option<Arc<dyn DiskFile>> = (!is_folder).then(|| {
            self.disk.open(&path, mode).unwrap_or_else(|error| panic!("{}: {error}", path.display())).into()
        });
        if let Some(file) = file.as_ref().filter(|_| truncate) {
            file.set_length(0).expect("set");
        }
        self.open.insert(fd, with(Open { file, path, append: false, position: 0 }));
    }

    fn write(&mut self, at: usize, call: &Call, fd: u64, offset: Option<u64>) {
        let Some(open) = self.open.get_mut(&fd) else { return };
        let Some(file) = &open.file else { return };
        let about = file.about().expect("it answers");
        let bytes = written(call);
        let from = offset.unwrap_or(if open.append { about.length } else { open.position });
        if offset.is_none() {
            open.position = from + bytes.len() as u64;
        }
        file.write_all_at(&bytes, from).expect("written");
        self.unsynced.entry(about.inode).or_default().push((at, from));
    }

    fn sync(&mut self, life: &Life, call: &Call, fd: u64) {
        let Some(open) = self.open.get(&fd) else { return };
        if self.forgotten.as_ref().is_some_and(|part| open.path.to_string_lossy().ends_with(part)) {
            return;
        }
        let Some(file) = &open.file else {
            return self.disk.sync_folder(&open.path).expect("synced");
        };
        file.sync_data().expect("synced");
        // A write that was not over when the sync began may not be part of it.
        let writes = self.unsynced.remove(&file.about().expect("it answers").inode).unwrap_or_default();
        for (write, offset) in writes {
            let write = &life.calls[write];
            if write.returned.is_none_or(|returned| returned > call.began) {
                file.write_all_at(&written(write), offset).expect("written");
            }
        }
    }

    fn answered(&mut self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        if !text.starts_with("HTTP/1.1 200") {
            return;
        }
        let header = |line: &str| line.to_ascii_lowercase().strip_prefix("x-request-id: ").map(str::to_owned);
        if let Some((device, number)) = text.find("\"eventId\"").and_then(|at| parse_id(&text[at..])) {
            let count = self.ledger.events.entry(device).or_default();
            assert!(number <= *count, "dev{device}: {number} was answered after {count} events");
            *count = (*count).max(number + 1);
            self.ledger.duplicates += u64::from(text.contains("\"duplicate\""));
        } else if let Some(id) = text.lines().find_map(header) {
            self.ledger.letters.insert(id);
        }
    }

    /// Compares the disk with what there really was at the end of a life. Only what a killed program was just doing may
    /// differ, and is taken over.
    fn adopt(&mut self, life: &Life) {
        let is_cut = life.calls.iter().any(|call| call.returned.is_none());
        for (path, found) in &life.recorded.end {
            if self.disk.content(path).as_ref() == Some(&found.content) {
                self.renumber(path, found.inode);
            }
        }
        let mut names = self.disk.names();
        let mut ends: Vec<_> = life.recorded.end.iter().filter(|(path, _)| !is_volatile(path)).collect();
        // In the order in which they were made.
        ends.sort_unstable_by_key(|(_, found)| found.inode);
        for (path, found) in ends {
            let content = self.disk.content(path);
            let same =
                names.get(path) == Some(&(found.inode - 1)) && content.as_ref() == Some(&found.content);
            assert!(same || is_cut, "{}: the recording missed something", path.display());
            if !same {
                self.take_over(life, path, found, &names);
            }
            names.remove(path);
        }
        for path in names.keys().filter(|path| !life.recorded.end.contains_key(*path)) {
            let is_file = self.disk.about(path).expect("it answers").is_some_and(|about| about.is_file);
            if is_file {
                assert!(is_cut, "{}: its end was missed", path.display());
                self.disk.remove_file(path).expect("removed");
            }
        }
    }

    fn take_over(&self, life: &Life, path: &Path, found: &Found, names: &BTreeMap<PathBuf, u64>) {
        let elsewhere = names.iter().find(|(_, inode)| **inode == found.inode - 1);
        let mode = match elsewhere {
            Some((name, _)) if name == path => OpenMode::Write,
            Some((name, _)) => {
                self.disk.rename(name, path).expect("renamed");
                OpenMode::Write
            }
            None => {
                self.disk.skip_inodes(found.inode - 1);
                OpenMode::Create
            }
        };
        let file = self.disk.open(path, mode).expect("opened");
        let inode = file.about().expect("it answers").inode;
        assert_eq!(inode, found.inode - 1, "{}: {:#?}", path.display(), life.of_file(path));
        let before = self.disk.content(path).expect("it is there");
        if before.len() != found.content.len() {
            file.set_length(found.content.len() as u64).expect("set");
        }
        let before = self.disk.content(path).expect("it is there");
        for (number, (old, new)) in before.chunks(512).zip(found.content.chunks(512)).enumerate() {
            if old != new {
                file.write_all_at(new, number as u64 * 512).expect("written");
            }
        }
    }
}
