//! Tests the hand-over between requests, the writer and the workers in thousands of schedules: shuttle runs the real writer
//! and the real maintenance thread on a disk in memory. The databases are real files, and not part of the schedules.

use super::*;
use crate::sync::{in_many_orders, thread};

/// Returns a fixture in memory if possible: each schedule creates the databases anew.
fn fixture() -> Fixture {
    let in_memory = Path::new("/dev/shm");
    let parent = if in_memory.is_dir() { in_memory.to_owned() } else { std::env::temp_dir() };
    let folder = tempfile::tempdir_in(parent).expect("a folder");
    let disk = FakeDisk::new(1);
    crate::disk::create_folders(&disk, folder.path(), true).expect("made");
    Fixture { disk, folder }
}

fn small() -> LogOptions {
    LogOptions { segment_bytes: 4096, ..options() }
}

/// Asserts that no power loss now loses the event. Unsynced data may survive one by chance, so several are tried.
fn assert_durable(disk: &FakeDisk, id: &str) {
    for seed in 0..3 {
        let left = disk.crash(&mut Random::new(seed));
        let is_there = left.names().into_keys().any(|path| {
            let content = left.content(&path).unwrap_or_default();
            content.windows(id.len()).any(|window| window == id.as_bytes())
        });
        assert!(is_there, "{id} was answered, and is not durable");
    }
}

#[test]
fn what_is_answered_is_durable_and_each_worker_gets_it_once() {
    in_many_orders(400, || {
        let fixture = fixture();
        let log = fixture.open(small()).expect("opens");
        let sink = sink_of(&log, "one");
        let sinks = SinkSet::new([sink.number]);
        let worker = {
            let (log, disk) = (Arc::clone(&log), fixture.disk.clone());
            thread::spawn(move || {
                let (mut source, mut ids) = (log.source(sink), Vec::new());
                while ids.len() < 3 {
                    log.tail().wait(source.position(), 0, None).expect("it does not stop");
                    for StoredEvent { seq, record } in source.read(2, i64::MAX).expect("read") {
                        let id = record.expect("intact").event_id.to_string();
                        assert_durable(&disk, &id);
                        ids.push((seq, id));
                    }
                }
                ids
            })
        };
        let senders = [["event-a", "event-b"], ["event-b", "event-a"], ["event-c", "event-c"]].map(|ids| {
            let (log, disk, sinks) = (Arc::clone(&log), fixture.disk.clone(), sinks.clone());
            thread::spawn(move || {
                let appended = ids.map(|id| {
                    let appended = append(&log, id, &sinks).expect("stored");
                    assert_durable(&disk, id);
                    (appended, id.to_owned())
                });
                appended.to_vec()
            })
        });
        let answers: Vec<_> =
            senders.into_iter().flat_map(|sender| sender.join().expect("no panic")).collect();
        let mut new: Vec<_> = answers
            .into_iter()
            .filter_map(|(appended, id)| match appended {
                Appended::New(seq) => Some((seq, id)),
                Appended::Duplicate => None,
            })
            .collect();
        new.sort_unstable();
        assert_eq!(new.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(worker.join().expect("no panic"), new);
        log.close();
    });
}

#[test]
fn copies_of_what_fails_fail_and_what_is_answered_is_durable() {
    in_many_orders(200, || {
        let fixture = fixture();
        let log = fixture.open(small()).expect("opens");
        let sinks = SinkSet::new([1]);
        // The first write fails, and the second one, to a new segment, may fail.
        fixture.disk.fail(Fault::next(Operation::Write, Errno::IO));
        let senders = [["event-a", "event-b"], ["event-a", "event-c"]].map(|ids| {
            let (log, disk, sinks) = (Arc::clone(&log), fixture.disk.clone(), sinks.clone());
            thread::spawn(move || {
                for id in ids {
                    if append(&log, id, &sinks).is_ok() {
                        assert_durable(&disk, id);
                    }
                    disk.fail(Fault::next(Operation::Sync, Errno::IO));
                }
            })
        });
        senders.into_iter().for_each(|sender| sender.join().expect("no panic"));
        fixture.disk.heal();
        log.close();
    });
}

#[test]
fn a_close_leaves_no_caller_waiting() {
    in_many_orders(200, || {
        let fixture = fixture();
        let log = fixture.open(small()).expect("opens");
        let sink = sink_of(&log, "one");
        let sinks = SinkSet::new([sink.number]);
        let senders = ["event-a", "event-b"].map(|id| {
            let (log, disk, sinks) = (Arc::clone(&log), fixture.disk.clone(), sinks.clone());
            thread::spawn(move || match append(&log, id, &sinks) {
                Ok(_) => assert_durable(&disk, id),
                Err(error) => assert!(matches!(error, LogError::Closed), "{error}"),
            })
        });
        let worker = {
            let (log, number) = (Arc::clone(&log), sink.number);
            thread::spawn(move || {
                let progress = Progress { sink: number, cursor: 0, checkpoint: None, ends_replay: false };
                match log.advance(progress.clone(), true).and_then(|()| log.advance(progress, false)) {
                    Ok(()) | Err(LogError::Closed) => {}
                    Err(error) => panic!("{error}"),
                }
                // Until the service stops, below.
                while log.tail().wait(i64::MAX, 0, None).is_some() {}
            })
        };
        log.tail().stop(Instant::now());
        log.close();
        senders.into_iter().for_each(|sender| sender.join().expect("no panic"));
        worker.join().expect("no panic");
    });
}

#[test]
fn those_who_rest_are_woken_when_there_is_enough() {
    in_many_orders(4000, || {
        let long = Instant::now().checked_add(Duration::from_secs(3600)).expect("a time");
        let tail = Arc::new(Tail::new(0));
        let resting = [2, 3].map(|enough_at| {
            let tail = Arc::clone(&tail);
            thread::spawn(move || {
                tail.rest(enough_at, 0, long);
                assert!(tail.last_seq() >= enough_at);
            })
        });
        let waiting = {
            let tail = Arc::clone(&tail);
            thread::spawn(move || {
                let mut seen = 0;
                while seen < 3 {
                    tail.wait(seen, 0, None).expect("it does not stop");
                    let groups = tail.after(seen).expect("few are all in memory");
                    seen += i64::try_from(groups.len()).expect("few");
                }
            })
        };
        // Each worker is woken by the event that it waits for, before there are later ones.
        let mut resting = resting.into_iter();
        for seq in 1..=3 {
            tail.publish(seq, vec![(record("x", 1), SinkSet::new([1]))]);
            if seq >= 2 {
                resting.next().expect("two").join().expect("no panic");
            }
        }
        waiting.join().expect("no panic");
    });
}
