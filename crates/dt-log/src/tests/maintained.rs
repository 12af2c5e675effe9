//! What the maintenance thread makes durable: spares, so that a sync of their later content writes data only; and the number
//! of the newest segment in the lock file, so that a segment that is missing later is noticed.

use super::*;
use crate::disk::OpenMode;

#[test]
fn a_spare_is_zeros_that_outlast_a_power_loss() {
    let fixture = Fixture::new(12);
    let log = fixture.open(options()).expect("opens");
    until("two spares", &log, || log.shared.files.lock().spares.len() == 2);
    log.close();
    let is_spare = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "tmp");
    let spares: Vec<PathBuf> = fixture.disk.names().into_keys().filter(is_spare).collect();
    assert_eq!(spares.len(), 2);
    let mut random = Random::new(12);
    for attempt in 0..20 {
        let disk = fixture.disk.crash(&mut random);
        for spare in &spares {
            let content = disk.content(spare);
            assert!(
                content.is_some_and(|bytes| bytes == vec![0; usize::try_from(SEGMENT).expect("fits")]),
                "attempt {attempt}"
            );
        }
    }
}

#[test]
fn a_newest_segment_that_is_missing_after_a_power_loss_is_noticed() {
    let mut fixture = Fixture::new(11);
    let log = fixture.open(options()).expect("opens");
    let sink = sink_of(&log, "one");
    let set = SinkSet::new([sink.number]);
    for number in 0..300 {
        append(&log, &number.to_string(), &set).expect("stored");
    }
    log.close();
    let newest = |disk: &FakeDisk| {
        let numbers = disk
            .names()
            .into_keys()
            .filter_map(|path| path.file_name().and_then(|name| name.to_str()).and_then(segment::number_of));
        numbers.max().expect("a segment")
    };
    let last = newest(&fixture.disk);
    assert!(last > 3, "there are several segments; {last}");
    let mut random = Random::new(11);
    let after_stop = fixture.disk.clone();
    for attempt in 0..20 {
        let disk = after_stop.crash(&mut random);
        assert_eq!(newest(&disk), last, "segments are durable");
        disk.remove_file(&segment::path(fixture.path(), last)).expect("removed");
        fixture.disk = disk;
        let Err(error) = fixture.open(options()) else { panic!("it opens without its newest segment") };
        assert_eq!(error.code(), "missing", "attempt {attempt}: {error}");
    }
    // The number itself is not what was lost.
    let file = after_stop.open(&crate::shared::lock_path(fixture.path()), OpenMode::Read).expect("opens");
    let mut text = [0; 20];
    file.read_at(&mut text, 0).expect("read");
    assert_eq!(std::str::from_utf8(&text), Ok(&*format!("{last:020}")));
}
