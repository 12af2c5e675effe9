//! Compresses closed files on a thread of its own.
//!
//! The copy is written under another name, synced, renamed, and only then the original is removed. A crash in between
//! leaves the original, or both; on start whatever original is there is compressed (again), so neither is ever missing.
//!
//! zstd is the reference implementation (crate `zstd`, BSD, built by the C compiler that SQLite needs anyway): the
//! encoder that exists in Rust alone reaches only the ratio of its fastest level.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::open_file::sync_folder_of;
use super::rotate::{UNFINISHED, read_closed_name, suffix};
use crate::config::Compression;
use crate::record::PathTemplate;

/// How many files may wait. Those beyond are compressed after the next start.
const MAX_QUEUE: usize = 1024;

/// The thread, and the way to it.
#[derive(Debug)]
pub(super) struct Compressor {
    queue: Option<SyncSender<PathBuf>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Compressor {
    /// Begins with the closed files that a stop or a crash left uncompressed.
    pub(super) fn start(kind: Compression, template: &PathTemplate) -> io::Result<Self> {
        let mut left = Vec::new();
        find_closed(template, template.root(), "", template.depth(), &mut left)?;
        let (queue, files) = sync_channel(MAX_QUEUE);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("compress".to_owned())
            .spawn(move || run(kind, left, &files, &stopped))?;
        Ok(Self { queue: Some(queue), stop, thread: Some(thread) })
    }

    pub(super) fn add(&self, path: PathBuf) {
        if let Some(Err(error)) = self.queue.as_ref().map(|queue| queue.try_send(path)) {
            tracing::warn!(%error, "a closed file is compressed after the next start");
        }
    }
}

impl Drop for Compressor {
    /// Ends within a block of the file at hand, which stays as it is.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // Its panic, if any, was printed by its thread; the originals are still there.
            let _panicked = thread.join();
        }
    }
}

fn run(kind: Compression, left: Vec<PathBuf>, files: &Receiver<PathBuf>, stop: &AtomicBool) {
    for path in left.into_iter().chain(files.iter()) {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        match compress(kind, &path, stop) {
            Ok(()) => {}
            Err(_) if stop.load(Ordering::Relaxed) => return,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a closed file was not compressed");
            }
        }
    }
}

/// Closed files without compression, below a folder. What was begun of others is removed.
fn find_closed(
    template: &PathTemplate,
    folder: &Path,
    relative: &str,
    depth: usize,
    found: &mut Vec<PathBuf>,
) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let kind = entry.file_type()?;
        if depth > 0 && kind.is_dir() {
            let below = format!("{relative}{name}/");
            find_closed(template, &entry.path(), &below, depth.saturating_sub(1), found)?;
        } else if depth == 0 && kind.is_file() {
            let Some(closed) = read_closed_name(&name) else { continue };
            if !template.matches(&format!("{relative}{}", closed.current)) {
                continue;
            }
            if closed.unfinished {
                fs::remove_file(entry.path())?;
            } else if closed.compression.is_none() {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(())
}

fn compress(kind: Compression, path: &Path, stop: &AtomicBool) -> io::Result<()> {
    let named = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix(kind));
        name.push(end);
        PathBuf::from(name)
    };
    let (unfinished, finished) = (named(UNFINISHED), named(""));
    let written = write_compressed(kind, path, &unfinished, stop);
    if let Err(error) = written {
        // It is no good to anybody; if it cannot be removed now, the next start does it.
        let _left = fs::remove_file(&unfinished);
        return Err(error);
    }
    let folder = |error: crate::sink::OpenError| io::Error::other(error.to_string());
    fs::rename(&unfinished, &finished)?;
    sync_folder_of(&finished).map_err(folder)?;
    fs::remove_file(path)?;
    sync_folder_of(path).map_err(folder)
}

fn write_compressed(kind: Compression, from: &Path, to: &Path, stop: &AtomicBool) -> io::Result<()> {
    let mut from = File::open(from)?;
    let to = File::create(to)?;
    to.set_permissions(from.metadata()?.permissions())?;
    let to = match kind {
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(to, flate2::Compression::default());
            copy(&mut from, &mut encoder, stop)?;
            encoder.finish()?
        }
        Compression::Zstd => {
            let mut encoder = zstd::stream::write::Encoder::new(to, zstd::DEFAULT_COMPRESSION_LEVEL)?;
            encoder.include_checksum(true)?;
            copy(&mut from, &mut encoder, stop)?;
            encoder.finish()?
        }
    };
    to.sync_all()
}

fn copy(from: &mut File, to: &mut impl Write, stop: &AtomicBool) -> io::Result<()> {
    let mut block = vec![0_u8; 64 * 1024];
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("stopped"));
        }
        let len = match from.read(&mut block) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        match block.get(..len) {
            Some(part) if !part.is_empty() => to.write_all(part)?,
            _ => return Ok(()),
        }
    }
}
