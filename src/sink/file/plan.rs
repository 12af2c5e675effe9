//! Decides what a batch does to which file, before anything is done.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::journal::Touched;
use super::open_files::OpenFiles;
use super::rotate::{Rotation, free_name};
use crate::record::{Format, PathTemplate, Record};
use crate::sink::OpenError;

/// How many kinds of records a batch tells apart without rendering their paths: more than there are event types.
const MAX_KINDS: usize = 32;
/// The largest buffer that is kept for the next batch: several times the lines of a full one.
const MAX_SPARE: usize = 1 << 20;
/// How many buffers are kept.
const MAX_SPARES: usize = 8;

/// What is appended to one file before it is closed or the batch ends.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) lines: Vec<u8>,
    pub(super) since: i64,
}

/// What happens to one path: the first part goes to the file that is there, each other one to a new file.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) touched: Touched,
    pub(super) parts: Vec<Part>,
}

/// How lines become files.
pub(super) struct Rules<'a> {
    pub(super) template: &'a PathTemplate,
    pub(super) format: Format,
    pub(super) rotation: Rotation,
}

/// Buffers of earlier batches. A new one of 100 kB would cost a page fault for each 4 kB of it. With them, with paths
/// that are not rendered for each record, and with lines that are not copied, an event costs the sink 2,361 instructions
/// instead of 8,585 (`benches/guard/run file`).
#[derive(Debug, Default)]
pub(super) struct Buffers(Vec<Vec<u8>>);

impl Buffers {
    fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }

    /// Keeps the buffers of a batch that is done with.
    pub(super) fn keep(&mut self, planned: Vec<Planned>) {
        for Part { mut lines, .. } in planned.into_iter().flat_map(|planned| planned.parts) {
            if self.0.len() < MAX_SPARES && (1..=MAX_SPARE).contains(&lines.capacity()) {
                lines.clear();
                self.0.push(lines);
            }
        }
    }
}

/// Plans a batch. Files are opened, and made if they are not there, but nothing is written.
pub(super) fn plan(
    rules: &Rules<'_>,
    files: &mut OpenFiles,
    buffers: &mut Buffers,
    batch: &[Arc<Record>],
) -> Result<Vec<Planned>, OpenError> {
    let mut planned: Vec<Planned> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    // One record of each kind, with the place that it was given.
    let mut kinds: Vec<(&Record, usize)> = Vec::new();
    let mut path = String::new();
    let mut newest = None;
    for record in batch {
        let since = rules.rotation.since(record.received_at);
        newest = newest.max(Some((since, record.received_at)));
        let known = kinds.iter().find(|(known, _)| rules.template.is_same(known, record));
        let place = if let Some((_, place)) = known {
            *place
        } else {
            rules.template.render(record, &mut path);
            let place = if let Some(place) = places.get(&path) {
                *place
            } else {
                planned.push(begin(files, buffers, &path, rules.rotation)?);
                let place = planned.len().saturating_sub(1);
                places.insert(path.clone(), place);
                place
            };
            if kinds.len() < MAX_KINDS {
                kinds.push((record, place));
            }
            place
        };
        if let Some(planned) = planned.get_mut(place) {
            planned.add(files.root(), rules, record, since);
        }
    }
    if let (Some(_), Some((since, millis))) = (rules.rotation.every, newest) {
        let over: Vec<String> =
            files.begun_before(since).filter(|path| !places.contains_key(*path)).map(str::to_owned).collect();
        for path in over {
            if !files.is_there(&path) {
                files.forget(&path);
                continue;
            }
            let mut last = begin(files, buffers, &path, rules.rotation)?;
            if last.touched.length > 0 {
                last.close(files.root(), since, millis);
                planned.push(last);
            } else {
                files.forget(&path);
            }
        }
    }
    Ok(planned)
}

fn begin(
    files: &mut OpenFiles,
    buffers: &mut Buffers,
    path: &str,
    rotation: Rotation,
) -> Result<Planned, OpenError> {
    let (open, made) = files.open(path, rotation)?;
    let touched = Touched {
        path: path.to_owned(),
        inode: open.inode,
        length: open.length,
        since: open.since,
        made,
        closed_as: Vec::new(),
    };
    let part = Part { lines: buffers.take(), since: open.since };
    Ok(Planned { touched, parts: vec![part] })
}

impl Planned {
    fn add(&mut self, root: &Path, rules: &Rules<'_>, record: &Record, since: i64) {
        // Only the first part goes to a file that has something in it.
        let before = if self.parts.len() == 1 { self.touched.length } else { 0 };
        let Some(part) = self.parts.last_mut() else { return };
        let start = part.lines.len();
        rules.format.write_line(record, &mut part.lines);
        let more = part.lines.len().saturating_sub(start);
        let length = before.saturating_add(u64::try_from(start).unwrap_or(u64::MAX));
        if rules.rotation.is_due(length, part.since, more, since) {
            let line = part.lines.split_off(start);
            self.close(root, since, record.received_at);
            if let Some(part) = self.parts.last_mut() {
                part.lines = line;
            }
        } else if length == 0 {
            part.since = since;
        }
    }

    /// Ends a file; what comes goes to the next one.
    fn close(&mut self, root: &Path, since: i64, millis: i64) {
        let name = free_name(root, &self.touched.path, millis, &self.touched.closed_as);
        self.touched.closed_as.push(name);
        self.parts.push(Part { lines: Vec::new(), since });
    }
}
