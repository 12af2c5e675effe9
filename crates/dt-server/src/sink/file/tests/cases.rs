//! Single cases: changes by other programs, and regressions.

use std::path::Path;

use rustix::io::Errno;

use super::*;
use crate::sink::Compression;
use crate::sink::MAX_CHECKPOINT;
use crate::sink::file::checkpoint::{VERSION, decode};
use crate::sink::file::plan::plan;
use dt_log::disk::fake::{Fault, Operation, Random};

const FILE: &str = "/data/events.ndjson";

#[test]
fn a_fixed_path_costs_one_write_and_one_sync_a_batch() {
    let disk = disk(1);
    let (mut sink, _) = open_sink(&disk, &config(FILE), None).expect("opened");
    deliver(&mut sink, &records(0..1));
    let before = disk.operations();
    for at in 1..11 {
        let outcome = sink.deliver(&records(at..at + 1));
        assert_eq!((outcome.fates, outcome.is_checkpoint_due), (vec![Fate::Delivered], false));
    }
    assert_eq!(disk.operations() - before, 20);
    assert_eq!(text(&disk, FILE), lines(0..11));
}

/// After a restored backup, or a log without its newest part: acknowledged lines stay in the file.
#[test]
fn lines_after_an_old_checkpoint_that_are_not_repeated_are_kept() {
    let disk = disk(1);
    let (mut sink, _) = open_sink(&disk, &config(FILE), None).expect("opened");
    let old = deliver(&mut sink, &records(0..3));
    deliver(&mut sink, &records(3..6));
    drop(sink);
    let (mut sink, _) = open_sink(&disk, &config(FILE), old.as_deref()).expect("opened");
    // Only the first of the lines 3 to 5 is repeated, followed by new ones.
    deliver(&mut sink, &records(3..4));
    for _ in 0..3 {
        let text = retry_error(&mut sink, &records(10..12));
        assert!(text.contains("from byte") && text.contains("Move the file away"), "{text}");
    }
    assert_eq!(text(&disk, FILE), lines(0..6));
    disk.rename(Path::new(FILE), Path::new("/data/away")).expect("moved");
    deliver(&mut sink, &records(10..12));
    assert_eq!((text(&disk, "/data/away"), text(&disk, FILE)), (lines(0..6), lines(10..12)));
}

#[test]
fn a_lost_sector_is_written_again() {
    let disk = disk(1);
    let (mut sink, checkpoint) = open_sink(&disk, &config(FILE), None).expect("opened");
    deliver(&mut sink, &records(0..300));
    drop(sink);
    let file = disk.open(Path::new(FILE), OpenMode::Write).expect("there");
    file.write_all_at(&[0; 512], 512).expect("written");
    drop(file);
    let (mut sink, _) = open_sink(&disk, &config(FILE), Some(&checkpoint)).expect("opened");
    deliver(&mut sink, &records(0..100));
    deliver(&mut sink, &records(100..310));
    assert_eq!(text(&disk, FILE), lines(0..310));
}

/// `serve --sink file:notes.txt`.
#[test]
fn the_last_line_of_a_foreign_file_is_kept() {
    for (content, between) in [("a\nno end", "\n"), ("a\n", ""), ("\0", "\n"), ("", "")] {
        for is_kept in [true, false] {
            let disk = disk(1);
            put(&disk, FILE, content.as_bytes(), true);
            let mut sink = sink(&disk, &config(FILE));
            sink.open(None).expect("opened");
            if is_kept {
                sink.begin();
            }
            deliver(&mut sink, &records(0..2));
            deliver(&mut sink, &records(2..3));
            assert_eq!(text(&disk, FILE), format!("{content}{between}{}", lines(0..3)));
        }
    }
}

/// Another program wrote without a sync: after power loss, the sink still distinguishes its lines from that content.
#[test]
fn a_foreign_file_is_synced_before_its_length_is_stored() {
    let mut random = Random::new(1);
    for seed in 0..200 {
        let disk = disk(seed);
        put(&disk, FILE, "note\n".repeat(300).as_bytes(), false);
        let (mut sink, checkpoint) = open_sink(&disk, &config(FILE), None).expect("opened");
        disk.fail(Fault::next(Operation::Sync, Errno::IO));
        assert!(retry_error(&mut sink, &records(0..100)).contains("syncing"));
        drop(sink);
        let disk = disk.crash(&mut random);
        let (mut sink, _) = open_sink(&disk, &config(FILE), Some(&checkpoint)).expect("opened");
        deliver(&mut sink, &records(0..100));
        assert_eq!(text(&disk, FILE), "note\n".repeat(300) + &lines(0..100));
    }
}

#[test]
fn a_changed_template_or_format_after_a_crash_duplicates_no_batch() {
    for is_rest_lost in [false, true] {
        let disk = disk(1);
        let (mut sink, checkpoint) = open_sink(&disk, &config("/data/{eventType}"), None).expect("opened");
        let outcome = sink.deliver(&records(0..4));
        assert!(outcome.is_checkpoint_due);
        let checkpoint = outcome.checkpoint.unwrap_or(checkpoint);
        deliver(&mut sink, &records(0..4));
        drop(sink);
        if is_rest_lost {
            let file = disk.open(Path::new("/data/touch"), OpenMode::Write).expect("there");
            file.set_length(12).expect("cut");
        }
        let config = config("/data/{date}/new");
        let mut sink = FileSink::on(Arc::new(disk.clone()), config, Format::Envelope);
        sink.open(Some(&checkpoint)).expect("opened");
        sink.begin();
        deliver(&mut sink, &records(0..4));
        deliver(&mut sink, &records(4..6));
        assert_eq!(text(&disk, "/data/touch"), lines(0..4));
        let new = text(&disk, "/data/2023-11-14/new");
        assert!(new.lines().count() == 2 && new.starts_with("{\"receivedAt\""), "{new}");
    }
}

#[test]
fn new_folders_are_synced_into_their_parents() {
    let mut random = Random::new(1);
    for seed in 0..50 {
        let disk = disk(seed);
        let (mut sink, _) =
            open_sink(&disk, &config("/data/{date}/{hour}/{eventType}"), None).expect("opened");
        deliver(&mut sink, &records(0..1));
        assert_eq!(text(&disk.crash(&mut random), "/data/2023-11-14/22/touch"), lines(0..1));
    }
}

/// A killed process created the folders and the file without syncing their names.
#[test]
fn names_created_by_a_killed_process_are_synced_too() {
    let mut random = Random::new(1);
    for seed in 0..50 {
        let disk = disk(seed);
        let path = config("/data/{date}/{eventType}");
        let (mut sink, _) = open_sink(&disk, &path, None).expect("opened");
        let checkpoint = sink.deliver(&records(0..1)).checkpoint.expect("one");
        disk.fail(Fault::next(Operation::SyncFolder, Errno::IO));
        retry_error(&mut sink, &records(0..1));
        drop(sink);
        let disk = disk.kill();
        let (mut sink, _) = open_sink(&disk, &path, Some(&checkpoint)).expect("opened");
        deliver(&mut sink, &records(0..1));
        assert_eq!(text(&disk.crash(&mut random), "/data/2023-11-14/touch"), lines(0..1));
    }
}

#[test]
fn a_full_disk_tears_no_line() {
    let disk = disk(1);
    disk.set_capacity(100);
    let (mut sink, _) = open_sink(&disk, &config(FILE), None).expect("opened");
    deliver(&mut sink, &records(0..5));
    for _ in 0..3 {
        assert!(retry_error(&mut sink, &records(5..50)).contains("appending"));
    }
    disk.set_capacity(1 << 20);
    deliver(&mut sink, &records(5..50));
    assert_eq!(text(&disk, FILE), lines(0..50));
}

#[test]
fn changes_by_other_programs_are_kept() {
    let disk = disk(1);
    let (mut sink, _) = open_sink(&disk, &config(FILE), None).expect("opened");
    deliver(&mut sink, &records(0..1));
    let length = lines(0..1).len() as u64;
    let file = disk.open(Path::new(FILE), OpenMode::Write).expect("there");
    file.write_all_at(b"a mark", length).expect("written");
    let checkpoint = sink.deliver(&records(1..2)).checkpoint;
    deliver(&mut sink, &records(1..2));
    drop(sink);
    // The checkpoint before the line includes the mark.
    let (mut sink, _) = open_sink(&disk, &config(FILE), checkpoint.as_deref()).expect("opened");
    deliver(&mut sink, &records(1..2));
    let expected = format!("{}a mark\n{}", lines(0..1), lines(1..2));
    assert_eq!(text(&disk, FILE), expected);
    // As `copytruncate` does.
    file.set_length(0).expect("cut");
    deliver(&mut sink, &records(2..3));
    assert_eq!(text(&disk, FILE), lines(2..3));
    // As `create` does.
    disk.rename(Path::new(FILE), Path::new("/data/events.1")).expect("moved");
    put(&disk, FILE, b"# header\n", true);
    deliver(&mut sink, &records(3..4));
    assert_eq!(text(&disk, "/data/events.1"), lines(2..3));
    assert_eq!(text(&disk, FILE), format!("# header\n{}", lines(3..4)));
}

#[test]
fn the_sink_continues_after_a_file_was_truncated_or_moved() {
    let disk = disk(1);
    let (mut sink, _) = open_sink(&disk, &config(FILE), None).expect("opened");
    let checkpoint = deliver(&mut sink, &records(0..3));
    drop(sink);
    let file = disk.open(Path::new(FILE), OpenMode::Write).expect("there");
    file.set_length(lines(0..1).len() as u64).expect("cut");
    drop(file);
    let (mut sink, _) = open_sink(&disk, &config(FILE), checkpoint.as_deref()).expect("opened");
    deliver(&mut sink, &records(3..4));
    drop(sink);
    assert_eq!(text(&disk, FILE), lines(0..1) + &lines(3..4));
    disk.rename(Path::new(FILE), Path::new("/data/events.1")).expect("moved");
    let (mut sink, _) = open_sink(&disk, &config(FILE), checkpoint.as_deref()).expect("opened");
    deliver(&mut sink, &records(3..4));
    assert_eq!(text(&disk, FILE), lines(3..4));
}

#[test]
fn a_file_is_closed_only_by_the_name_that_is_stored_and_never_over_another() {
    let disk = disk(1);
    let small = rotated(FILE, Some(1024), None);
    let (mut sink, _) = open_sink(&disk, &small, None).expect("opened");
    let outcome = sink.deliver(&records(0..200));
    let delivered = outcome.fates.iter().filter(|fate| **fate == Fate::Delivered).count();
    assert!(outcome.is_checkpoint_due && (1..200).contains(&delivered));
    assert_eq!(disk.count(Operation::Rename), 0);
    let checkpoint = outcome.checkpoint.expect("one");
    let rules = sink.configured.clone();
    let name = decode(&checkpoint, &rules).expect("read").files[0].close_as.clone().expect("a name");
    assert_eq!(name, "events.20231114T221320Z-0000.ndjson");
    put(&disk, &format!("/data/{name}"), b"somebody's", true);
    assert!(retry_error(&mut sink, &records(delivered..200)).contains("in the way"));
    disk.rename(Path::new(&format!("/data/{name}")), Path::new("/data/away")).expect("moved");
    deliver(&mut sink, &records(delivered..200));
    assert_eq!(text(&disk, &format!("/data/{name}")), lines(0..delivered));
    assert_eq!(text(&disk, "/data/away"), "somebody's");
}

#[test]
fn lines_of_another_version_are_not_compared_with() {
    let disk = disk(1);
    let (mut sink, checkpoint) = open_sink(&disk, &config(FILE), None).expect("opened");
    let newer = deliver(&mut sink, &records(0..1)).expect("one");
    drop(sink);
    let other = |checkpoint: Vec<u8>| {
        let text = String::from_utf8(checkpoint).expect("JSON");
        text.replace(&format!("\"version\":{VERSION}"), "\"version\":77").into_bytes()
    };
    let Err(OpenError::Down(text)) = open_sink(&disk, &config(FILE), Some(&other(checkpoint))) else {
        panic!("opened")
    };
    assert!(text.contains("another version"), "{text}");
    // After a clean stop there is nothing to compare.
    let (mut sink, checkpoint) = open_sink(&disk, &config(FILE), Some(&other(newer))).expect("opened");
    assert!(!String::from_utf8(checkpoint).expect("JSON").contains("77"));
    deliver(&mut sink, &records(1..2));
    let Err(OpenError::Down(_)) = open_sink(&disk, &config(FILE), Some(b"{}")) else { panic!("opened") };
}

#[test]
fn paths_of_any_length_fit_in_a_checkpoint() {
    let disk = disk(1);
    let folder = "\u{1}".repeat(1200);
    let path = format!("/data/{{eventType}}/{folder}");
    let (mut sink, _) = open_sink(&disk, &config(&path), None).expect("opened");
    let batch: Vec<_> = (0..20)
        .map(|number| {
            let record =
                Record { event_type: format!("type-{number}").into(), ..Record::clone(&record(number)) };
            Arc::new(record)
        })
        .collect();
    let checkpoint = deliver(&mut sink, &batch).expect("one");
    assert!((MAX_CHECKPOINT / 4..=MAX_CHECKPOINT).contains(&checkpoint.len()), "{}", checkpoint.len());
    let path = format!("/data/{{date}}/{}", "\u{1}".repeat(9_000));
    let (mut sink, _) = open_sink(&disk, &config(&path), None).expect("opened");
    assert!(retry_error(&mut sink, &records(0..1)).contains("too long"));
}

fn typed(number: usize, event_type: &str, received_at: i64) -> Arc<Record> {
    Arc::new(Record { event_type: event_type.into(), ..Record::clone(&record_at(number, received_at)) })
}

/// The process was killed before it synced the name of the file of a fixed path.
#[test]
fn the_name_of_a_file_that_is_there_is_synced_too() {
    let mut random = Random::new(1);
    for seed in 0..50 {
        let disk = disk(seed);
        disk.fail(Fault::next(Operation::SyncFolder, Errno::IO));
        sink(&disk, &config(FILE)).open(None).expect_err("not synced");
        let disk = disk.kill();
        let (mut sink, _) = open_sink(&disk, &config(FILE), None).expect("opened");
        deliver(&mut sink, &records(0..1));
        assert_eq!(text(&disk.crash(&mut random), FILE), lines(0..1));
    }
}

#[test]
fn bytes_appended_by_others_before_the_comparison_ends_are_compared() {
    let disk = disk(1);
    let (mut sink, checkpoint) = open_sink(&disk, &config(FILE), None).expect("opened");
    deliver(&mut sink, &records(0..3));
    drop(sink);
    let (mut sink, _) = open_sink(&disk, &config(FILE), Some(&checkpoint)).expect("opened");
    deliver(&mut sink, &records(0..1));
    let file = disk.open(Path::new(FILE), OpenMode::Write).expect("there");
    file.write_all_at(b"a mark\n", lines(0..3).len() as u64).expect("written");
    deliver(&mut sink, &records(1..3));
    assert!(retry_error(&mut sink, &records(3..4)).contains("differs from the lines"));
    assert_eq!(text(&disk, FILE), lines(0..3) + "a mark\n");
}

#[test]
fn without_checkpoints_too_each_line_goes_to_its_own_file() {
    let disk = disk(1);
    let mut sink = sink(&disk, &config("/data/{eventType}"));
    sink.open(None).expect("opened");
    // More paths than files can be in use, and repeated kinds.
    let kind =
        |number: usize| format!("type-{}", if number.is_multiple_of(3) { number % 7 } else { number % 100 });
    let batch: Vec<_> = (0..900).map(|number| typed(number, &kind(number), START)).collect();
    batch.chunks(300).for_each(|batch| drop(deliver(&mut sink, batch)));
    for name in (0..100).map(|number| format!("type-{number}")) {
        let own = (0..900).filter(|number| kind(*number) == name);
        let expected: String = own.map(|number| lines(number..number + 1)).collect();
        let path = format!("/data/{name}");
        assert_eq!(disk.content(&path).unwrap_or_default(), expected.as_bytes(), "{path}");
    }
}

#[test]
fn a_file_with_bytes_to_compare_is_not_dropped() {
    let disk = disk(1);
    let template = config("/data/{eventType}");
    let (mut sink, _) = open_sink(&disk, &template, None).expect("opened");
    let checkpoint = deliver(&mut sink, &[typed(0, "a", START)]);
    drop(sink);
    let file = disk.open(Path::new("/data/a"), OpenMode::Write).expect("there");
    file.write_all_at(b"a mark\n", lines(0..1).len() as u64).expect("written");
    drop(file);
    let (mut sink, _) = open_sink(&disk, &template, checkpoint.as_deref()).expect("opened");
    for number in 1..200 {
        deliver(&mut sink, &[typed(number, &format!("type-{number}"), START)]);
    }
    assert!(retry_error(&mut sink, &[typed(200, "a", START)]).contains("differs from the lines"));
}

#[test]
fn the_path_of_a_closed_file_is_free_for_others() {
    let disk = disk(1);
    let template = rotated("/data/{eventType}", None, Some(1));
    let (mut sink, _) = open_sink(&disk, &template, None).expect("opened");
    deliver(&mut sink, &[typed(0, "a", START), typed(1, "b", START)]);
    let checkpoint = deliver(&mut sink, &[typed(2, "a", START + 3_600_000)]);
    drop(sink);
    assert_eq!(text(&disk, "/data/b.20231114T231320Z-0000"), lines(1..2));
    put(&disk, "/data/b", b"somebody's\n", true);
    let (mut sink, _) =
        open_sink(&disk, &rotated("/data/{eventType}", None, None), checkpoint.as_deref()).expect("opened");
    deliver(&mut sink, &[typed(3, "b", START + 3_600_000)]);
    assert_eq!(text(&disk, "/data/b"), "somebody's\n".to_owned() + &lines(3..4));
}

#[test]
fn a_closed_file_is_compressed_once_the_stored_checkpoint_says_closed() {
    let disk = disk(1);
    let small = FileConfig { compress: Some(Compression::Gzip), ..rotated(FILE, Some(1024), None) };
    let (mut sink, _) = open_sink(&disk, &small, None).expect("opened");
    let delivered = |outcome: &Outcome| outcome.fates.iter().filter(|fate| **fate == Fate::Delivered).count();
    let first = sink.deliver(&records(0..200));
    let end = delivered(&first);
    assert!(first.is_checkpoint_due && end < 200);
    // The file is renamed; the next checkpoint has to be stored first.
    let second = sink.deliver(&records(end..end + 1));
    assert!(second.is_checkpoint_due && delivered(&second) == 1);
    let closed = "/data/events.20231114T221320Z-0000.ndjson";
    assert_eq!(text(&disk, closed), lines(0..end));
    deliver(&mut sink, &records(end + 1..end + 2));
    while disk.content(closed).is_some() {
        std::thread::yield_now();
    }
    let mut content = String::new();
    let compressed = disk.content(format!("{closed}.gz")).expect("compressed");
    let read = std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&*compressed), &mut content);
    read.expect("gzip");
    assert_eq!(content, lines(0..end));
}

/// Its target is on a file system that is not mounted, or was removed while the sink was running. The fake disk has no
/// links.
#[test]
fn a_symbolic_link_without_a_target_is_an_error_until_the_target_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let (link, target) = (folder.path().join("events.ndjson"), folder.path().join("target"));
    std::os::unix::fs::symlink(&target, &link).expect("linked");
    let mut sink = FileSink::new(&link, Format::Body);
    let Err(OpenError::Down(text)) = sink.open(None) else { panic!("opened") };
    assert!(text.contains("a symbolic link without a target"), "{text}");

    for is_kept in [true, false] {
        std::fs::write(&target, "").expect("made");
        sink.open(None).expect("opened");
        if is_kept {
            sink.begin();
        }
        deliver(&mut sink, &records(0..1));
        std::fs::remove_file(&target).expect("removed");
        if is_kept {
            assert!(sink.deliver(&records(1..2)).is_checkpoint_due, "the new file is to be listed first");
        }
        for _ in 0..3 {
            assert!(retry_error(&mut sink, &records(1..2)).contains("a symbolic link without a target"));
        }
        std::fs::write(&target, "").expect("made");
        deliver(&mut sink, &records(1..2));
        assert_eq!(std::fs::read_to_string(&target).expect("read"), lines(1..2));
        sink.close();
    }
}

/// Such as `lost+found`, or a symbolic link to itself, beside the files.
#[test]
fn a_folder_that_cannot_be_read_stops_neither_the_sink_nor_the_compression_of_other_files() {
    // The first operation reads its metadata, the second one lists it.
    for after in [0, 1] {
        let disk = disk(1);
        for folder in ["/data/2023-11-13", "/data/lost+found"] {
            create_folders(&disk, Path::new(folder), false).expect("made");
        }
        let closed = "/data/2023-11-13/events.20231113T221320Z-0000.ndjson";
        put(&disk, closed, b"{}\n", true);
        let path = "lost+found".to_owned();
        disk.fail(Fault { path, after, ..Fault::every(Operation::Read, Errno::ACCESS) });
        let rotated = rotated("/data/{date}/events.ndjson", Some(1024), None);
        let packed = FileConfig { compress: Some(Compression::Gzip), ..rotated };
        let (mut sink, _) = open_sink(&disk, &packed, None).expect("opened");
        deliver(&mut sink, &records(0..1));
        while disk.content(closed).is_some() {
            std::thread::yield_now();
        }
        assert!(disk.content(format!("{closed}.gz")).is_some());
    }
}

/// Between the check at the start of a call and a write there are the writes and syncs of other files.
#[test]
fn what_another_program_appends_during_a_call_is_kept_and_the_sink_goes_on() {
    for is_kept in [true, false] {
        let disk = disk(1);
        let mut sink = sink(&disk, &config("/data/{eventType}"));
        sink.open(None).expect("opened");
        if is_kept {
            sink.begin();
        }
        deliver(&mut sink, &[typed(0, "a", START), typed(1, "b", START)]);
        let batch = [typed(2, "a", START), typed(3, "b", START)];
        disk.append_before(Operation::Sync, "/data/a", "/data/b", b"a mark");
        let error = retry_error(&mut sink, &batch);
        assert!(error.contains("/data/b") && error.contains("another program"), "{error}");
        let checkpoint = deliver(&mut sink, &batch);
        let b = format!("{}a mark\n{}", lines(1..2), lines(3..4));
        assert_eq!(text(&disk, "/data/b"), b);
        if is_kept {
            let a = lines(0..1) + &lines(2..3);
            assert_eq!(text(&disk, "/data/a"), a);
            drop(sink);
            let (mut sink, _) =
                open_sink(&disk, &config("/data/{eventType}"), checkpoint.as_deref()).expect("opened");
            deliver(&mut sink, &[typed(4, "a", START), typed(5, "b", START)]);
            assert_eq!(text(&disk, "/data/a"), a + &lines(4..5));
            assert_eq!(text(&disk, "/data/b"), b + &lines(5..6));
        }
    }
}

/// As `copytruncate` does, between the check at the start of a call and the write.
#[test]
fn a_file_that_is_truncated_during_a_call_gets_no_gap() {
    let disk = disk(1);
    let (mut sink, _) = open_sink(&disk, &config(FILE), None).expect("opened");
    deliver(&mut sink, &records(0..2));
    sink.files.next_call();
    assert_eq!(plan(&mut sink.files, &sink.rules, &records(2..3)).expect("planned"), 1);
    let file = disk.open(Path::new(FILE), OpenMode::Write).expect("there");
    file.set_length(0).expect("cut");
    assert_eq!(sink.files.write().expect("not written").as_deref(), Some("events.ndjson"));
    assert_eq!(text(&disk, FILE), "");
}
