//! Decides what a batch does to which file, before anything is done.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::journal::Touched;
use super::open_files::OpenFiles;
use super::rotate::{Rotation, free_name};
use crate::record::{Format, PathTemplate, Record};
use crate::sink::OpenError;

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

/// Plans a batch. Files are opened, and made if they are not there, but nothing is written.
pub(super) fn plan(
    rules: &Rules<'_>,
    files: &mut OpenFiles,
    batch: &[Arc<Record>],
) -> Result<Vec<Planned>, OpenError> {
    let mut planned: BTreeMap<String, Planned> = BTreeMap::new();
    let (mut path, mut line) = (String::new(), Vec::new());
    let mut newest = None;
    for record in batch {
        rules.template.render(record, &mut path);
        line.clear();
        rules.format.write_line(record, &mut line);
        let since = rules.rotation.since(record.received_at);
        newest = newest.max(Some((since, record.received_at)));
        if !planned.contains_key(&path) {
            planned.insert(path.clone(), begin(files, &path, rules.rotation)?);
        }
        if let Some(planned) = planned.get_mut(&path) {
            planned.add(files.root(), rules.rotation, &line, since, record.received_at);
        }
    }
    if let (Some(_), Some((since, millis))) = (rules.rotation.every, newest) {
        let over: Vec<String> = files
            .begun_before(since)
            .filter(|path| !planned.contains_key(*path))
            .map(str::to_owned)
            .collect();
        for path in over {
            if !files.is_there(&path) {
                files.forget(&path);
                continue;
            }
            let mut last = begin(files, &path, rules.rotation)?;
            if last.touched.length > 0 {
                last.close(files.root(), since, millis);
                planned.insert(path, last);
            } else {
                files.forget(&path);
            }
        }
    }
    Ok(planned.into_values().collect())
}

fn begin(files: &mut OpenFiles, path: &str, rotation: Rotation) -> Result<Planned, OpenError> {
    let (open, made) = files.open(path, rotation)?;
    let touched = Touched {
        path: path.to_owned(),
        inode: open.inode,
        length: open.length,
        since: open.since,
        made,
        closed_as: Vec::new(),
    };
    let part = Part { lines: Vec::new(), since: open.since };
    Ok(Planned { touched, parts: vec![part] })
}

impl Planned {
    fn add(&mut self, root: &Path, rotation: Rotation, line: &[u8], since: i64, millis: i64) {
        // Only the first part goes to a file that has something in it.
        let before = if self.parts.len() == 1 { self.touched.length } else { 0 };
        if let Some(part) = self.parts.last_mut() {
            let length = before.saturating_add(u64::try_from(part.lines.len()).unwrap_or(u64::MAX));
            if !rotation.is_due(length, part.since, line.len(), since) {
                if length == 0 {
                    part.since = since;
                }
                part.lines.extend_from_slice(line);
                return;
            }
        }
        self.close(root, since, millis);
        if let Some(part) = self.parts.last_mut() {
            part.lines.extend_from_slice(line);
        }
    }

    /// Ends a file; what comes goes to the next one.
    fn close(&mut self, root: &Path, since: i64, millis: i64) {
        let name = free_name(root, &self.touched.path, millis, &self.touched.closed_as);
        self.touched.closed_as.push(name);
        self.parts.push(Part { lines: Vec::new(), since });
    }
}
