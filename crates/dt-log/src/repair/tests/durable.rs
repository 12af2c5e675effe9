//! What a repair has done is durable: a power loss right after it changes nothing.

use super::*;
use crate::disk::fake::{FakeDisk, Random};

const EVENTS: i64 = 200;

fn open(disk: &FakeDisk, folder: &Path) -> Result<Log, LogError> {
    let bounds = Bounds { max_size: 1 << 40, min_free: 0, retain: Duration::ZERO };
    let options = LogOptions { bounds, segment_bytes: SEGMENT, ..LogOptions::default() };
    Log::open_on(Arc::new(disk.clone()), folder, options, Arc::new(ManualClock::at(1_000_000)))
}

/// Leaves the last group with events in the page cache only, as a process does that is killed before it syncs the group.
fn unsync_last_group(disk: &FakeDisk, path: &Path) {
    let bytes = disk.content(path).expect("a segment");
    let has_events = |at: &usize| bytes[at + 12..at + 16] != [0; 4];
    let groups = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"DTgr"));
    let last = groups.rev().find(has_events).expect("a group");
    let length = u32::from_le_bytes(bytes[last + 8..last + 12].try_into().expect("four bytes"));
    let end = last + 24 + usize::try_from(length).expect("fits");
    let file = disk.open(path, OpenMode::Write).expect("opens");
    let at = u64::try_from(last).expect("fits");
    file.write_all_at(&vec![0; bytes.len() - last], at).expect("written");
    file.sync_data().expect("synced");
    file.write_all_at(&bytes[last..end], at).expect("written");
}

#[test]
fn a_power_loss_after_a_repair_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let disk = FakeDisk::new(21);
    crate::disk::create_folders(&disk, folder, true).expect("made");
    let log = open(&disk, folder).expect("opens");
    let sink = log.register(&Arc::from("one"), StartAt::Now, Vec::new()).expect("known");
    let sinks = SinkSet::new([sink.number]);
    for number in 1..=EVENTS {
        append(&log, &number.to_string(), &sinks);
    }
    log.close();
    let disk = disk.kill();
    let newest = |disk: &FakeDisk| {
        let names = disk.names().into_keys();
        names.filter_map(|path| segment::number_of(path.file_name()?.to_str()?)).max().expect("a segment")
    };
    unsync_last_group(&disk, &segment::path(folder, newest(&disk)));
    // A number that is not believed, so that the repair begins a segment and corrects the number.
    let lock = disk.open(&crate::shared::lock_path(folder), OpenMode::Write).expect("opens");
    lock.write_all_at(b"00099999999999999999\n", 0).and_then(|()| lock.sync_data()).expect("written");
    drop(lock);
    assert!(open(&disk, folder).is_err(), "it needs a repair");
    let before = newest(&disk);
    plan::propose(Arc::new(disk.clone()), folder).expect("proposed").carry_out().expect("done");
    let mut random = Random::new(21);
    for attempt in 0..20 {
        let disk = disk.crash(&mut random);
        let log = open(&disk, folder).unwrap_or_else(|error| panic!("attempt {attempt}: {error}"));
        assert!(newest(&disk) > before, "attempt {attempt}");
        let all = given(&log, "one");
        assert_eq!(
            all.keys().copied().collect::<Vec<_>>(),
            (1..=EVENTS).collect::<Vec<_>>(),
            "attempt {attempt}"
        );
        log.close();
    }
}
