//! A file of the [fake disk](super::fake): its cached and its durable content, and the versions in between.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Random;

/// The number of bytes that a disk writes atomically.
const SECTOR: u64 = 512;

/// The content of a sector; `None` for zeros.
type Sector = Option<Arc<[u8; 512]>>;

#[derive(Debug, Clone, Default)]
struct Content {
    length: u64,
    sectors: BTreeMap<u64, Arc<[u8; 512]>>,
}

/// A file or folder.
#[derive(Debug, Clone)]
pub struct Inode {
    pub is_folder: bool,
    pub modified: i64,
    pub locked_by: Option<u64>,
    cached: Content,
    durable: Content,
    /// The versions of each sector since the last sync, oldest first.
    versions: BTreeMap<u64, Vec<Sector>>,
    /// The lengths since the last sync, oldest first.
    lengths: Vec<u64>,
}

impl Content {
    fn get(&self, number: u64) -> Sector {
        self.sectors.get(&number).cloned()
    }

    fn put(&mut self, number: u64, sector: Sector) {
        match sector {
            Some(sector) => drop(self.sectors.insert(number, sector)),
            None => drop(self.sectors.remove(&number)),
        }
    }

    /// Removes sectors beyond the end of the file.
    fn trim(&mut self) {
        drop(self.sectors.split_off(&self.length.div_ceil(SECTOR)));
        let last = self.length / SECTOR;
        self.put(last, cut(self.get(last), self.length % SECTOR));
    }
}

/// Returns a sector whose bytes are zeros from an offset on.
fn cut(sector: Sector, from: u64) -> Sector {
    let mut bytes = *sector?;
    bytes[usize::try_from(from).unwrap()..].fill(0);
    some(bytes)
}

fn some(bytes: [u8; 512]) -> Sector {
    (bytes != [0; 512]).then(|| Arc::new(bytes))
}

impl Inode {
    pub fn new(is_folder: bool) -> Self {
        Self {
            is_folder,
            modified: 0,
            locked_by: None,
            cached: Content::default(),
            durable: Content::default(),
            versions: BTreeMap::new(),
            lengths: Vec::new(),
        }
    }

    pub fn length(&self) -> u64 {
        self.cached.length
    }

    pub fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        let readable = self.length().saturating_sub(offset).min(buffer.len() as u64);
        let readable = usize::try_from(readable).unwrap();
        let mut done = 0;
        while done < readable {
            let (number, within, length) = piece(offset + done as u64, readable - done);
            let target = &mut buffer[done..done + length];
            match self.cached.sectors.get(&number) {
                Some(sector) => target.copy_from_slice(&sector[within..within + length]),
                None => target.fill(0),
            }
            done += length;
        }
        readable
    }

    pub fn write(&mut self, bytes: &[u8], offset: u64) {
        let mut done = 0;
        while done < bytes.len() {
            let (number, within, length) = piece(offset + done as u64, bytes.len() - done);
            let mut sector = self.cached.get(number).map_or([0; 512], |sector| *sector);
            sector[within..within + length].copy_from_slice(&bytes[done..done + length]);
            self.put(number, some(sector));
            done += length;
        }
        let end = offset + bytes.len() as u64;
        // Also if a failed sync has lost the length: the next sync must make these bytes reachable.
        if !bytes.is_empty() && end > self.cached.length.min(self.durable.length) {
            self.cached.length = self.cached.length.max(end);
            self.lengths.push(self.cached.length);
        }
    }

    fn put(&mut self, number: u64, sector: Sector) {
        self.versions.entry(number).or_default().push(sector.clone());
        self.cached.put(number, sector);
    }

    pub fn set_length(&mut self, length: u64) {
        let last = length / SECTOR;
        let beyond: Vec<u64> = self.cached.sectors.range(last..).map(|(number, _)| *number).collect();
        for number in beyond {
            let kept = if number == last { length % SECTOR } else { 0 };
            let sector = cut(self.cached.get(number), kept);
            self.put(number, sector);
        }
        self.cached.length = length;
        self.lengths.push(length);
    }

    /// Makes all changes durable. Changes that were lost in a failed sync stay lost.
    pub fn sync(&mut self) {
        for (number, _) in std::mem::take(&mut self.versions) {
            self.durable.put(number, self.cached.get(number));
        }
        if !std::mem::take(&mut self.lengths).is_empty() {
            self.durable.length = self.cached.length;
        }
        self.durable.trim();
    }

    /// Simulates an interrupted sync. Each changed sector, and the length, becomes durable with a probability of `share` percent,
    /// in one of its versions since the last sync. The other changes never become durable.
    pub fn sync_part(&mut self, random: &mut Random, share: u64) {
        for (number, mut versions) in std::mem::take(&mut self.versions) {
            if random.below(100) < share {
                let chosen = one_of(random, versions.len());
                self.durable.put(number, versions.swap_remove(chosen));
            }
        }
        let lengths = std::mem::take(&mut self.lengths);
        if !lengths.is_empty() && random.below(100) < share {
            self.durable.length = lengths[one_of(random, lengths.len())];
        }
        self.durable.trim();
    }

    /// Replaces the cached content by the durable one, as a restart of the machine does.
    pub fn forget_cache(&mut self) {
        self.cached = self.durable.clone();
    }
}

/// Returns a random index below `count`, often the last one.
fn one_of(random: &mut Random, count: usize) -> usize {
    if random.below(2) == 0 { count - 1 } else { usize::try_from(random.below(count as u64)).unwrap() }
}

/// Returns the number of the sector at an offset, the offset within it, and how many of `length` bytes it contains.
fn piece(offset: u64, length: usize) -> (u64, usize, usize) {
    let within = usize::try_from(offset % SECTOR).unwrap();
    (offset / SECTOR, within, length.min(512 - within))
}
