//! The files that are open: a few, by their paths below the template's root; the one not used for longest is closed
//! when there are too many.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::checkpoint::Listed;
use super::open_file::{OpenFile, make_folders};
use super::rotate::Rotation;
use crate::sink::OpenError;

/// How many files are open at once.
pub(super) const MAX_OPEN: usize = 64;

/// All open files.
#[derive(Debug)]
pub(super) struct OpenFiles {
    root: PathBuf,
    files: BTreeMap<String, OpenFile>,
    uses: u64,
}

impl OpenFiles {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, files: BTreeMap::new(), uses: 0 }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The file at a path, as it is now. One that is not there is made, with its folders; the second value says so.
    pub(super) fn open(
        &mut self,
        path: &str,
        rotation: Rotation,
    ) -> Result<(&mut OpenFile, bool), OpenError> {
        let full = self.root.join(path);
        let mut made = false;
        if !self.files.get_mut(path).is_some_and(|open| open.look_at(&full)) {
            // Closed before another is opened: it is locked.
            if self.files.remove(path).is_some() {
                tracing::warn!(path = %full.display(), "the file was moved away; a new one is opened");
            }
            make_folders(&self.root, path)?;
            let (mut open, is_new) = OpenFile::open(&full)?;
            open.cut_torn_line(&full)?;
            open.since = rotation.since(open.since);
            self.put(path, open);
            made = is_new;
        }
        self.uses = self.uses.saturating_add(1);
        match self.files.get_mut(path) {
            Some(open) => {
                open.used = self.uses;
                Ok((open, made))
            }
            // It was put there just now.
            None => Err(OpenError::Down(format!("{}: it is not open", full.display()))),
        }
    }

    /// Keeps a file open, in place of another if need be.
    pub(super) fn put(&mut self, path: &str, mut open: OpenFile) {
        while self.files.len() >= MAX_OPEN {
            let oldest = self.files.iter().min_by_key(|(_, open)| open.used).map(|(path, _)| path.clone());
            let Some(oldest) = oldest else { break };
            self.files.remove(&oldest);
        }
        self.uses = self.uses.saturating_add(1);
        open.used = self.uses;
        self.files.insert(path.to_owned(), open);
    }

    /// Whether the path still leads to the file that is open.
    pub(super) fn is_there(&mut self, path: &str) -> bool {
        let full = self.root.join(path);
        self.files.get_mut(path).is_some_and(|open| open.look_at(&full))
    }

    pub(super) fn forget(&mut self, path: &str) {
        self.files.remove(path);
    }

    pub(super) fn clear(&mut self) {
        self.files.clear();
    }

    /// The files whose stretch of time is over.
    pub(super) fn begun_before(&self, since: i64) -> impl Iterator<Item = &str> {
        self.files.iter().filter(move |(_, open)| open.since < since).map(|(path, _)| &**path)
    }

    /// What a checkpoint says of them, the last used first.
    pub(super) fn listed(&self) -> Vec<Listed> {
        let mut files: Vec<_> = self.files.iter().collect();
        files.sort_by_key(|(_, open)| std::cmp::Reverse(open.used));
        files
            .iter()
            .map(|(path, open)| Listed((*path).clone(), open.inode, open.length, open.since))
            .collect()
    }
}
