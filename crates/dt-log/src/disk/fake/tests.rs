//! Tests of the [fake disk](super::fake): what it may lose, and what it must keep.

#![allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails")]

use std::collections::BTreeSet;
use std::path::Path;

use rustix::io::Errno;

use super::{FakeDisk, Fault, Operation, Random};
use crate::disk::{Disk, DiskFile, OpenMode, create_folders};

const FILE: &str = "/data/file";

fn disk() -> FakeDisk {
    let disk = FakeDisk::new(1);
    create_folders(&disk, Path::new("/data"), true).unwrap();
    disk
}

fn make(disk: &FakeDisk, path: &str) -> Box<dyn DiskFile> {
    disk.open(Path::new(path), OpenMode::Create).unwrap()
}

/// Creates a durable file with these bytes.
fn made(disk: &FakeDisk, path: &str, bytes: &[u8]) -> Box<dyn DiskFile> {
    let file = make(disk, path);
    file.write_all_at(bytes, 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_folder(Path::new("/data")).unwrap();
    file
}

/// Returns the contents of a file after 500 power losses.
fn outcomes(disk: &FakeDisk, path: &str) -> BTreeSet<Option<Vec<u8>>> {
    let mut random = Random::new(7);
    (0..500).map(|_| disk.crash(&mut random).content(path)).collect()
}

#[test]
fn what_is_synced_survives_every_power_loss() {
    let disk = disk();
    let _file = made(&disk, FILE, &[7; 1500]);
    assert_eq!(outcomes(&disk, FILE), BTreeSet::from([Some(vec![7; 1500])]));
}

#[test]
fn each_unsynced_sector_and_the_length_is_old_or_new_on_its_own() {
    let disk = disk();
    let file = made(&disk, FILE, &[1; 1024]);
    file.write_all_at(&[2; 1024], 512).unwrap();
    let seen = outcomes(&disk, FILE);
    let shape = |old: u8, new: Option<u8>| {
        let end = new.map_or(Vec::new(), |byte| vec![byte; 512]);
        Some([vec![1; 512], vec![old; 512], end].concat())
    };
    let allowed = [None, Some(0), Some(2)].map(|new| [shape(1, new), shape(2, new)]).concat();
    assert_eq!(seen, allowed.into_iter().collect());
    // A read from the cache returns all of it.
    assert_eq!(disk.content(FILE), shape(2, Some(2)));
}

#[test]
fn a_sector_holds_any_of_its_versions_since_the_last_sync() {
    let disk = disk();
    let file = made(&disk, FILE, b"a");
    for byte in *b"bcd" {
        file.write_all_at(&[byte], 0).unwrap();
    }
    let allowed = ["a", "b", "c", "d"].map(|text| Some(text.as_bytes().to_vec()));
    assert_eq!(outcomes(&disk, FILE), BTreeSet::from(allowed));
}

#[test]
fn a_shortened_file_grows_again_with_zeros() {
    let disk = disk();
    let file = made(&disk, FILE, &[1; 1000]);
    file.set_length(100).unwrap();
    file.set_length(600).unwrap();
    file.sync_data().unwrap();
    let expected = [vec![1; 100], vec![0; 500]].concat();
    assert_eq!(outcomes(&disk, FILE), BTreeSet::from([Some(expected)]));
}

#[test]
fn what_lay_beyond_a_lost_length_does_not_come_back() {
    let disk = disk();
    let file = made(&disk, FILE, &[1; 512]);
    file.write_all_at(&[2; 1024], 256).unwrap();
    let mut random = Random::new(5);
    let mut short = 0;
    for _ in 0..100 {
        let after = disk.crash(&mut random);
        if after.content(FILE).unwrap().len() == 512 {
            short += 1;
            after.open(Path::new(FILE), OpenMode::Write).unwrap().set_length(1024).unwrap();
            assert_eq!(after.content(FILE).unwrap()[512..], [0; 512]);
        }
    }
    assert!(short > 10, "{short}");
}

#[test]
fn a_name_is_durable_only_once_its_folder_is_synced() {
    let disk = disk();
    let file = make(&disk, FILE);
    file.write_all_at(b"x", 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(outcomes(&disk, FILE), BTreeSet::from([None, Some(b"x".to_vec())]));
    disk.sync_folder(Path::new("/")).unwrap();
    assert!(outcomes(&disk, FILE).contains(&None), "the sync of another folder does not do it");
    disk.sync_folder(Path::new("/data")).unwrap();
    assert_eq!(outcomes(&disk, FILE), BTreeSet::from([Some(b"x".to_vec())]));
    // A file in a folder whose name is lost is lost.
    disk.create_folder(Path::new("/data/new"), true).unwrap();
    make(&disk, "/data/new/file");
    disk.sync_folder(Path::new("/data/new")).unwrap();
    assert_eq!(outcomes(&disk, "/data/new/file"), BTreeSet::from([None, Some(Vec::new())]));
}

#[test]
fn a_rename_is_atomic() {
    let disk = disk();
    made(&disk, FILE, b"old");
    made(&disk, "/data/new", b"new");
    disk.rename(Path::new("/data/new"), Path::new(FILE)).unwrap();
    let mut random = Random::new(3);
    let mut seen = BTreeSet::new();
    for _ in 0..100 {
        let after = disk.crash(&mut random);
        seen.insert((after.content(FILE).unwrap(), after.content("/data/new")));
    }
    let allowed = [(b"old".to_vec(), Some(b"new".to_vec())), (b"new".to_vec(), None)];
    assert_eq!(seen, BTreeSet::from(allowed));
}

#[test]
fn a_killed_process_leaves_all_it_wrote_as_unsynced_as_before() {
    let disk = disk();
    let file = made(&disk, FILE, b"a");
    assert!(file.try_lock().unwrap());
    file.write_all_at(b"b", 0).unwrap();
    let next = disk.kill();
    file.write_all_at(b"late", 0).unwrap();
    assert_eq!(next.content(FILE).unwrap(), b"b");
    assert!(next.open(Path::new(FILE), OpenMode::Read).unwrap().try_lock().unwrap(), "the lock ended");
    assert_eq!(outcomes(&next, FILE).len(), 2);
    // A sync by the next process makes durable what the killed one wrote.
    next.open(Path::new(FILE), OpenMode::Write).unwrap().sync_data().unwrap();
    assert_eq!(outcomes(&next, FILE), BTreeSet::from([Some(b"b".to_vec())]));
}

#[test]
fn after_a_failed_sync_no_later_sync_brings_back_what_was_lost() {
    let mut lost = 0;
    for seed in 0..50 {
        let disk = FakeDisk::new(seed);
        let file = make(&disk, "/file");
        disk.sync_folder(Path::new("/")).unwrap();
        file.write_all_at(&[1; 512], 0).unwrap();
        file.sync_data().unwrap();
        file.write_all_at(&[2; 512], 0).unwrap();
        disk.fail(Fault::next(Operation::Sync, Errno::IO));
        assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(Errno::IO.raw_os_error()));
        file.sync_data().unwrap();
        assert_eq!(disk.content("/file").unwrap(), [2; 512], "the cache has it");
        let seen = outcomes(&disk, "/file");
        assert_eq!(seen.len(), 1, "nothing is open any more");
        lost += usize::from(seen.contains(&Some(vec![1; 512])));
    }
    assert!((10..40).contains(&lost), "{lost} of 50");
}

#[test]
fn faults_hit_the_chosen_operations() {
    let disk = disk();
    let file = make(&disk, FILE);
    let fault = Fault { after: 1, times: 2, ..Fault::every(Operation::Write, Errno::IO) };
    disk.fail(Fault { path: "file".into(), ..fault });
    let other = make(&disk, "/data/other");
    let results: Vec<bool> = (0..5).map(|at| file.write_all_at(b"x", at).is_ok()).collect();
    assert_eq!(results, [true, false, false, true, true]);
    disk.fail(Fault::every(Operation::Write, Errno::IO));
    assert!(other.write_all_at(b"x", 0).is_err());
    disk.heal();
    assert!(other.write_all_at(b"x", 0).is_ok());
    assert_eq!((disk.count(Operation::Write), disk.count(Operation::Create)), (7, 2));
}

#[test]
fn a_full_disk_takes_what_fits() {
    let disk = disk();
    disk.set_capacity(1000);
    let file = make(&disk, FILE);
    let error = file.write_all_at(&[1; 1200], 0).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(disk.content(FILE).unwrap(), [1; 1000]);
    assert_eq!(disk.free_bytes(Path::new("/data")).unwrap(), 0);
    file.write_all_at(&[2; 10], 0).unwrap();
    disk.remove_file(Path::new(FILE)).unwrap();
    assert_eq!(disk.free_bytes(Path::new("/data")).unwrap(), 1000);
}

#[test]
fn a_stopped_disk_does_nothing_more() {
    let disk = disk();
    let file = made(&disk, FILE, b"a");
    file.write_all_at(b"b", 0).unwrap();
    disk.stop_after(disk.operations());
    assert!(file.sync_data().is_err());
    assert!(disk.sync_folder(Path::new("/data")).is_err());
    assert!(file.write_all_at(b"c", 0).is_err());
    assert!(file.read_at(&mut [0], 0).is_err());
    let allowed = ["a", "b"].map(|text| Some(text.as_bytes().to_vec()));
    assert_eq!(outcomes(&disk, FILE), BTreeSet::from(allowed));
}

#[test]
fn a_lock_is_held_by_one_open_file() {
    let disk = disk();
    let file = made(&disk, FILE, b"");
    let other = disk.open(Path::new(FILE), OpenMode::Read).unwrap();
    assert!(file.try_lock().unwrap());
    assert!(!other.try_lock().unwrap());
    drop(file);
    assert!(other.try_lock().unwrap());
}

#[test]
fn names_are_made_listed_and_removed_as_on_a_real_disk() {
    let disk = disk();
    let file = made(&disk, FILE, b"abc");
    let open = |mode| disk.open(Path::new(FILE), mode).map(drop).map_err(|error| error.kind());
    assert_eq!(open(OpenMode::CreatePrivate), Err(std::io::ErrorKind::AlreadyExists));
    assert!(disk.open(Path::new("/none/file"), OpenMode::Create).is_err());
    assert_eq!(disk.list(Path::new("/data")).unwrap(), ["file"]);
    let about = disk.about(Path::new(FILE)).unwrap().unwrap();
    assert_eq!((about.length, about.is_file), (3, true));
    assert_eq!(about, file.about().unwrap());
    disk.remove_file(Path::new(FILE)).unwrap();
    assert_eq!(disk.about(Path::new(FILE)).unwrap(), None);
    assert_eq!(open(OpenMode::Read), Err(std::io::ErrorKind::NotFound));
    // An open file outlives its name.
    let mut buffer = [0; 8];
    assert_eq!(file.read_at(&mut buffer, 1).unwrap(), 2);
    assert!(disk.open(Path::new("/data"), OpenMode::Read).unwrap().write_all_at(b"x", 0).is_err());
}

#[test]
fn a_file_that_is_renamed_twice_has_one_name() {
    let disk = disk();
    made(&disk, FILE, b"x");
    disk.rename(Path::new(FILE), Path::new("/data/b")).unwrap();
    disk.rename(Path::new("/data/b"), Path::new("/data/c")).unwrap();
    let mut random = Random::new(3);
    for _ in 0..100 {
        let after = disk.crash(&mut random);
        let found = [FILE, "/data/b", "/data/c"].map(|path| after.content(path));
        assert_eq!(found.iter().flatten().count(), 1, "{found:?}");
    }
}
