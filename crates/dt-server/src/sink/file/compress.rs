//! Compresses closed files on a separate thread.
//!
//! The compressed copy is written under a temporary name, synced and renamed; then the original is removed. A crash leaves
//! the original, or both. The next start compresses every original again, so that no content is lost. A compressed file that
//! is there already is never replaced: the original is removed if the content is equal, and kept with a warning if not.
//!
//! zstd is the reference implementation in C (crate `zstd`, BSD). The encoders written in Rust compress worse.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::rotate::{UNFINISHED, read_closed_name, suffix};
use super::settings::Compression;
use dt_log::disk::{Disk, DiskFile, OpenMode, parent};
use dt_sink::record::PathTemplate;

/// The largest number of files in the queue. Further files are compressed after the next start.
const MAX_QUEUE: usize = 1024;

/// The thread that compresses closed files, and its queue.
#[derive(Debug)]
pub struct Compressor {
    queue: Option<SyncSender<PathBuf>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Compressor {
    /// Starts the thread. It first compresses the closed files that an earlier process left uncompressed, except for those in
    /// `except`.
    ///
    /// # Errors
    ///
    /// The error of the operating system if the template's root cannot be read, or the thread cannot be started.
    pub fn start(
        disk: &Arc<dyn Disk>,
        kind: Compression,
        template: &PathTemplate,
        except: &BTreeSet<PathBuf>,
    ) -> io::Result<Self> {
        let mut left = Vec::new();
        find_closed(&**disk, template, "", template.depth(), &mut left)?;
        left.retain(|path| !except.contains(path));
        let (queue, files) = sync_channel(MAX_QUEUE);
        let (stop, disk) = (Arc::new(AtomicBool::new(false)), Arc::clone(disk));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("compress".to_owned())
            .spawn(move || run(&Compress { disk: &*disk, kind, stop: &stopped }, left, &files))?;
        Ok(Self { queue: Some(queue), stop, thread: Some(thread) })
    }

    /// Queues a closed file. If the queue is full, the file is compressed after the next start.
    pub fn add(&self, path: PathBuf) {
        if let Some(Err(error)) = self.queue.as_ref().map(|queue| queue.try_send(path)) {
            tracing::warn!(%error, "a closed file will be compressed after the next start");
        }
    }
}

impl Drop for Compressor {
    /// Stops the thread within one block. The file in progress stays uncompressed.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A panic was logged by the thread, and leaves the originals.
            let _panicked = thread.join();
        }
    }
}

/// The arguments of one compressing thread.
struct Compress<'a> {
    disk: &'a dyn Disk,
    kind: Compression,
    stop: &'a AtomicBool,
}

fn run(compress: &Compress<'_>, left: Vec<PathBuf>, files: &Receiver<PathBuf>) {
    for path in left.into_iter().chain(files.iter()) {
        let compressed = compress.file(&path);
        if compress.stop.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = compressed {
            tracing::warn!(path = %path.display(), %error, "a closed file was not compressed");
        }
    }
}

/// Collects the uncompressed closed files in a folder below the template's root, and removes incomplete compressed files.
/// Leaves out what cannot be read below that folder, so that it does not keep the sink from delivering.
///
/// # Errors
///
/// Collects the uncompressed closed files in a folder below the template's root, and removes incomplete compressed files. Files
/// and folders that cannot be read are skipped, so that they do not prevent the sink from delivering.
fn find_closed(
    disk: &dyn Disk,
    template: &PathTemplate,
    relative: &str,
    depth: usize,
    found: &mut Vec<PathBuf>,
) -> io::Result<()> {
    let folder = template.root().join(relative);
    for name in disk.list(&folder)? {
        let Ok(name) = name.into_string() else { continue };
        let path = folder.join(&name);
        let visited = match disk.about(&path) {
            Ok(Some(about)) if depth > 0 && about.is_folder => {
                find_closed(disk, template, &format!("{relative}{name}/"), depth.saturating_sub(1), found)
            }
            Ok(Some(about)) if depth == 0 && about.is_file => {
                is_uncompressed(disk, template, relative, &name)
                    .map(|is_uncompressed| found.extend(is_uncompressed.then(|| path.clone())))
            }
            other => other.map(drop),
        };
        if let Err(error) = visited {
            tracing::warn!(path = %path.display(), %error, "left out when closed files are compressed");
        }
    }
    found.sort();
    Ok(())
}

/// Returns whether this file is a closed file that is not compressed yet. Removes it if it is an incomplete compressed file.
///
/// # Errors
///
/// The operating system's error if the file cannot be removed.
fn is_uncompressed(disk: &dyn Disk, template: &PathTemplate, relative: &str, name: &str) -> io::Result<bool> {
    let Some(closed) = read_closed_name(name) else { return Ok(false) };
    if !template.matches(&format!("{relative}{}", closed.current)) {
        return Ok(false);
    }
    let folder = template.root().join(relative);
    // It can be created again from the original. Without an original, it is a foreign file.
    if closed.unfinished && disk.about(&folder.join(closed.name))?.is_some() {
        disk.remove_file(&folder.join(name))?;
    }
    Ok(!closed.unfinished && closed.compression.is_none())
}

impl Compress<'_> {
    fn file(&self, path: &Path) -> io::Result<()> {
        let named = |end: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix(self.kind));
            name.push(end);
            PathBuf::from(name)
        };
        let (unfinished, finished) = (named(UNFINISHED), named(""));
        if self.disk.about(&finished)?.is_some() {
            self.compare(path, &finished).map_err(|error| {
                let text = format!("{} is there already: {error}; both files are kept", finished.display());
                io::Error::new(error.kind(), text)
            })?;
        } else if let Err(error) = self.write(path, &unfinished) {
            // An incomplete copy is useless. If it cannot be removed now, the next start removes it.
            let _left = self.disk.remove_file(&unfinished);
            return Err(error);
        } else {
            self.disk.rename(&unfinished, &finished)?;
        }
        self.disk.sync_folder(parent(path))?;
        // Not synced: an original that is there again after a power loss is compared and removed by the next start.
        self.disk.remove_file(path)
    }

    /// Checks that a compressed file, which any program may have written, has the content of the original, and syncs it.
    ///
    /// # Errors
    ///
    /// An error if the content differs, or a file cannot be read or synced.
    fn compare(&self, original: &Path, compressed: &Path) -> io::Result<()> {
        let source = self.disk.open(original, OpenMode::Read)?;
        let target = self.disk.open(compressed, OpenMode::Read)?;
        let reader = At { file: &*target, at: 0 };
        let mut expected = Expected(match self.kind {
            Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(reader)),
            Compression::Zstd => Box::new(zstd::stream::read::Decoder::new(reader)?),
        });
        self.copy(&*source, &mut expected)?;
        if expected.0.read(&mut [0])? > 0 {
            return Err(differs());
        }
        target.sync_data()
    }

    fn write(&self, from: &Path, to: &Path) -> io::Result<()> {
        let source = self.disk.open(from, OpenMode::Read)?;
        let target = self.disk.open(to, OpenMode::Create)?;
        // `Disk` has no modes: simulated faults do not depend on them.
        fs::metadata(from)
            .and_then(|found| fs::set_permissions(to, found.permissions()))
            .or_else(ignore_missing)?;
        let mut writer = At { file: &*target, at: 0 };
        match self.kind {
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(writer, flate2::Compression::default());
                self.copy(&*source, &mut encoder)?;
                encoder.finish()?;
            }
            Compression::Zstd => {
                let mut encoder =
                    zstd::stream::write::Encoder::new(&mut writer, zstd::DEFAULT_COMPRESSION_LEVEL)?;
                encoder.include_checksum(true)?;
                self.copy(&*source, &mut encoder)?;
                encoder.finish()?;
            }
        }
        target.sync_data()
    }

    fn copy(&self, from: &dyn DiskFile, to: &mut impl Write) -> io::Result<()> {
        let mut block = vec![0_u8; 64 * 1024];
        let mut at = 0_u64;
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(io::Error::other("stopped"));
            }
            let read = from.read_at(&mut block, at)?;
            match block.get(..read) {
                Some(part) if !part.is_empty() => to.write_all(part)?,
                _ => return Ok(()),
            }
            at = at.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        }
    }
}

/// Reads or writes a file sequentially, starting at an offset.
struct At<'a> {
    file: &'a dyn DiskFile,
    at: u64,
}

impl Write for At<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all_at(bytes, self.at)?;
        self.at = self.at.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at = self.at.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        Ok(read)
    }
}

/// A writer that compares the written bytes with those of a reader.
struct Expected<'a>(Box<dyn Read + 'a>);

impl Write for Expected<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut found = vec![0; bytes.len()];
        match self.0.read_exact(&mut found) {
            Ok(()) if found == bytes => Ok(bytes.len()),
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error),
            _ => Err(differs()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn differs() -> io::Error {
    io::Error::new(io::ErrorKind::AlreadyExists, "its content differs")
}

/// Ignores an error that says that the file is missing in the file system: the simulated disks of tests have no file modes.
fn ignore_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::arithmetic_side_effects, reason = "tests may fail loudly")]

    use super::*;
    use dt_log::disk::create_folders;
    use dt_log::disk::fake::{FakeDisk, Random};

    const CLOSED: &str = "/data/events.20231114T221320Z-0000.ndjson";

    fn unpacked(disk: &FakeDisk, kind: Compression) -> Option<Vec<u8>> {
        let packed = disk.content(format!("{CLOSED}{}", suffix(kind)))?;
        let mut content = Vec::new();
        let read = match kind {
            Compression::Gzip => {
                io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&*packed), &mut content)
            }
            Compression::Zstd => zstd::stream::copy_decode(&*packed, &mut content).map(|()| 0),
        };
        read.expect("whole");
        Some(content)
    }

    /// Creates a synced file.
    fn put(disk: &FakeDisk, path: &str, content: &[u8]) {
        let file = disk.open(Path::new(path), OpenMode::Create).expect("made");
        file.write_all_at(content, 0).expect("written");
        file.sync_data().expect("synced");
        disk.sync_folder(Path::new("/data")).expect("synced");
    }

    /// Returns the content in two parts, as `cat a.gz b.gz` makes it.
    fn packed(content: &[u8], kind: Compression) -> Vec<u8> {
        let (first, second) = content.split_at(content.len() / 2);
        let parts = [first, second].map(|part| match kind {
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(part).and_then(|()| encoder.finish()).expect("packed")
            }
            Compression::Zstd => zstd::stream::encode_all(part, 0).expect("packed"),
        });
        parts.concat()
    }

    fn compress(disk: &FakeDisk, kind: Compression) -> io::Result<()> {
        Compress { disk, kind, stop: &AtomicBool::new(false) }.file(Path::new(CLOSED))
    }

    /// An operator has unpacked a part of it, or all of it with another tool.
    #[test]
    fn a_compressed_file_that_is_there_is_never_replaced() {
        for kind in [Compression::Gzip, Compression::Zstd] {
            let whole = b"0123456789\n".repeat(10_000);
            let archive = packed(&whole, kind);
            let path = format!("{CLOSED}{}", suffix(kind));
            let part = whole[..50_000].to_vec();
            let more = [&*whole, b"more"].concat();
            let other = [&whole[..whole.len() - 1], b"x"].concat();
            for original in [part, more, other] {
                let disk = FakeDisk::new(1);
                create_folders(&disk, Path::new("/data"), false).expect("made");
                put(&disk, CLOSED, &original);
                put(&disk, &path, &archive);
                let error = compress(&disk, kind).expect_err("kept").to_string();
                assert!(error.contains(&path) && error.contains("its content differs"), "{error}");
                assert_eq!(disk.content(&path).as_ref(), Some(&archive));
                assert_eq!(disk.content(CLOSED), Some(original));
            }
            let disk = FakeDisk::new(1);
            create_folders(&disk, Path::new("/data"), false).expect("made");
            put(&disk, CLOSED, &whole);
            put(&disk, &path, &archive[..archive.len() / 2 + 20]);
            compress(&disk, kind).expect_err("it is damaged");
            assert_eq!(disk.content(CLOSED), Some(whole));
        }
    }

    /// Another tool has compressed it, without a sync.
    #[test]
    fn an_equal_compressed_file_is_synced_before_the_original_is_removed() {
        let mut random = Random::new(1);
        for (seed, kind) in (0..50).flat_map(|seed| [(seed, Compression::Gzip), (seed, Compression::Zstd)]) {
            let disk = FakeDisk::new(seed);
            create_folders(&disk, Path::new("/data"), false).expect("made");
            let whole: Vec<u8> = (0..20_000_u64).flat_map(|number| (number * seed).to_le_bytes()).collect();
            put(&disk, CLOSED, &whole);
            let archive = packed(&whole, kind);
            let file = disk.open(Path::new(&format!("{CLOSED}{}", suffix(kind))), OpenMode::Create);
            file.expect("made").write_all_at(&archive, 0).expect("written");
            compress(&disk, kind).expect("equal");
            assert_eq!(disk.content(CLOSED), None);
            let disk = disk.crash(&mut random);
            assert_eq!(disk.content(format!("{CLOSED}{}", suffix(kind))), Some(archive));
        }
    }

    #[test]
    fn power_loss_at_any_operation_leaves_the_original_or_the_whole_copy() {
        let mut random = Random::new(1);
        for (seed, kind) in (0..300).flat_map(|seed| [(seed, Compression::Gzip), (seed, Compression::Zstd)]) {
            let disk = FakeDisk::new(seed);
            create_folders(&disk, Path::new("/data"), false).expect("made");
            let content: Vec<u8> = (0..20_000_u64).flat_map(|number| (number * seed).to_le_bytes()).collect();
            let file = disk.open(Path::new(CLOSED), OpenMode::Create).expect("made");
            file.write_all_at(&content, 0).expect("written");
            file.sync_data().expect("synced");
            disk.sync_folder(Path::new("/data")).expect("synced");
            disk.stop_after(disk.operations() + seed % 40);
            let stop = AtomicBool::new(false);
            let _stopped = Compress { disk: &disk, kind, stop: &stop }.file(Path::new(CLOSED));
            let disk = disk.crash(&mut random);
            if let Some(original) = disk.content(CLOSED) {
                assert_eq!(original, content);
                // The next start finds the original, and removes the incomplete copy.
                let (template, mut found) = ("/data/events.ndjson".parse().expect("a template"), Vec::new());
                find_closed(&disk, &template, "", 0, &mut found).expect("found");
                assert_eq!(found, [PathBuf::from(CLOSED)]);
                Compress { disk: &disk, kind, stop: &stop }.file(Path::new(CLOSED)).expect("compressed");
            }
            assert_eq!(unpacked(&disk, kind), Some(content));
        }
    }
}
