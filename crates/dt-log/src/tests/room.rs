//! Events that only `retain` keeps make room for new ones. Events that a sink has not got are never removed.

use super::*;

/// Limits with room for `segments` segments and spares, that retain events for a day. All events are received at once.
fn limits(segments: u64) -> Bounds {
    Bounds { max_size: segments * SEGMENT, min_free: 0, retain: Duration::from_secs(24 * 3600) }
}

/// Appends events with these numbers, and sets the cursor of the sink after each, as a worker does. Every event must be stored.
fn deliver(log: &Log, sink: &SinkState, numbers: std::ops::RangeInclusive<i64>) {
    for number in numbers {
        let appended = append(log, &number.to_string(), &SinkSet::new([sink.number]));
        assert!(matches!(appended, Ok(Appended::New(seq)) if seq == number), "{number}: {appended:?}");
        let progress = Progress { sink: sink.number, cursor: number, checkpoint: None, ends_replay: false };
        log.advance(progress, false).expect("stored");
    }
}

fn segments(log: &Log) -> u64 {
    u64::try_from(log.shared.files.lock().segments.len()).expect("few")
}

fn is_reported(log: &Log) -> bool {
    log.tail().damage().iter().any(|finding| finding.contains("`spool.retain`"))
}

#[test]
fn without_room_retained_events_give_way_and_no_event_is_refused() {
    let fixture = Fixture::new(50);
    let log = fixture.open(LogOptions { bounds: limits(8), ..options() }).expect("opens");
    let sink = sink_of(&log, "one");
    deliver(&log, &sink, 1..=200);
    assert!(log.shared.before(0) == 0 && !is_reported(&log), "there is room for all");
    deliver(&log, &sink, 201..=1500);
    assert!(log.used_bytes() <= 8 * SEGMENT, "{}", log.used_bytes());
    until("two spares, and as many events as fit", &log, || {
        log.shared.files.lock().spares.len() == 2 && segments(&log) == 6
    });
    assert!(log.shared.before(0) > 200 && is_reported(&log) && log.shortage().is_none());
    until("the segments before the newest are removable", &log, || log.removable_bytes() == 5 * SEGMENT);
    let last = rest(&log, &SinkState { cursor: log.shared.before(0), ..sink.clone() });
    assert_eq!(last.keys().next_back(), Some(&1500), "the newest are kept");
    // With room for the time `retain`, nothing is short any more.
    log.set_bounds(Bounds { retain: Duration::ZERO, ..limits(8) });
    until("it is withdrawn", &log, || !is_reported(&log));
    log.close();
}

#[test]
fn without_room_no_event_is_removed_that_a_sink_has_not_got() {
    let fixture = Fixture::new(51);
    let log = fixture.open(LogOptions { bounds: limits(8), ..options() }).expect("opens");
    let (fast, slow) = (sink_of(&log, "fast"), sink_of(&log, "slow"));
    let both = SinkSet::new([fast.number, slow.number]);
    let mut stored = 0;
    let error = loop {
        match append(&log, &(stored + 1).to_string(), &both) {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        let progress = Progress { sink: fast.number, cursor: stored, checkpoint: None, ends_replay: false };
        log.advance(progress, false).expect("stored");
        assert!(stored < 5000, "it is never full");
    };
    assert!(matches!(error, LogError::Full { .. }), "{error}");
    assert_eq!((log.shared.before(0), log.removable_bytes()), (0, 0));
    assert!(!is_reported(&log));
    assert_eq!(i64::try_from(rest(&log, &slow).len()), Ok(stored));
    let progress = Progress { sink: slow.number, cursor: stored, checkpoint: None, ends_replay: false };
    log.advance(progress, true).expect("there is room for cursors");
    until("events are stored again", &log, || append(&log, "later", &both).is_ok());
    assert!(log.shared.before(0) > 0 && is_reported(&log));
}

#[test]
fn retained_events_give_way_to_the_free_space_that_the_disk_needs() {
    let fixture = Fixture::new(52);
    let bounds = Bounds { min_free: 4 * SEGMENT, ..limits(1000) };
    let log = fixture.open(LogOptions { bounds, ..options() }).expect("opens");
    let sink = sink_of(&log, "one");
    deliver(&log, &sink, 1..=800);
    until("two spares", &log, || log.shared.files.lock().spares.len() == 2);
    let before = segments(&log);
    assert!(before > 8 && log.shared.before(0) == 0, "{before} segments");
    let used = |segments: u64| (segments + 2) * SEGMENT + 4096;
    // Another program fills the disk: three segments more than there may be.
    fixture.disk.set_capacity(used(before) + 2 * SEGMENT);
    maintain(&log);
    assert!(log.shared.before(0) == 0 && log.shortage().is_none(), "both spares exist");
    deliver(&log, &sink, 801..=1000);
    until("there is free space again", &log, || segments(&log) == before - 2 && log.shortage().is_none());
    assert!(is_reported(&log));
    assert_eq!(rest(&log, &SinkState { cursor: 800, ..sink }).len(), 200);
}

#[test]
fn retained_events_are_not_removed_in_vain() {
    let fixture = Fixture::new(55);
    let log = fixture.open(LogOptions { bounds: limits(1000), ..options() }).expect("opens");
    let sink = sink_of(&log, "one");
    deliver(&log, &sink, 1..=800);
    until("two spares", &log, || log.shared.files.lock().spares.len() == 2);
    let before = segments(&log);
    // By mistake: the disk is smaller than that.
    log.set_bounds(Bounds { min_free: 1 << 60, ..limits(1000) });
    maintain(&log);
    assert_eq!((segments(&log), log.shared.before(0)), (before, 0));
    deliver(&log, &sink, 801..=1000);
    until("two spares", &log, || log.shared.files.lock().spares.len() == 2);
    // A removed segment became a spare for each new one.
    assert!(segments(&log) == before && log.shared.before(0) > 0, "{} of {before}", segments(&log));
    // The same with a limit of the size that undelivered events exceed.
    let slow = sink_of(&log, "slow");
    let both = SinkSet::new([sink.number, slow.number]);
    for number in 1001..=1400 {
        append(&log, &number.to_string(), &both).expect("stored");
    }
    until("two spares", &log, || log.shared.files.lock().spares.len() == 2);
    let before = segments(&log);
    log.set_bounds(limits(2));
    maintain(&log);
    assert_eq!(segments(&log), before);
}

fn maintain(log: &Log) {
    for _ in 0..2 {
        log.shared.maintain();
        until("the files are maintained", log, || !log.shared.files.lock().is_due);
    }
}

#[test]
fn a_sink_that_gives_way_does_not_stop_the_log() {
    let fixture = Fixture::new(54);
    let bounds = Bounds { retain: Duration::ZERO, ..limits(8) };
    let open = || {
        let gives_way = Some(Arc::from("state"));
        fixture.open(LogOptions { bounds: bounds.clone(), gives_way, ..options() }).expect("opens")
    };
    let log = open();
    let (sink, state) = (sink_of(&log, "one"), sink_of(&log, "state"));
    let both = SinkSet::new([sink.number, state.number]);
    let deliver = |log: &Log, numbers: std::ops::RangeInclusive<i64>| {
        for number in numbers {
            append(log, &number.to_string(), &both).expect("stored");
            let progress =
                Progress { sink: sink.number, cursor: number, checkpoint: None, ends_replay: false };
            log.advance(progress, false).expect("stored");
        }
    };
    deliver(&log, 1..=100);
    log.close();
    drop(log);
    // Nothing is in memory any more, so a segment is open while it is removed.
    let log = open();
    let mut late = log.source(state);
    assert_eq!(late.read(1, i64::MAX).expect("read").len(), 1);
    assert_eq!(log.before_oldest(), 0, "there is room for all");
    deliver(&log, 101..=1500);
    assert!(log.used_bytes() <= 8 * SEGMENT && log.before_oldest() > 100, "{}", log.before_oldest());
    let (mut last, before) = (0, log.before_oldest());
    while late.position() < log.tail().last_seq() {
        for StoredEvent { seq, record } in late.read(7, i64::MAX).expect("read") {
            assert!(record.is_ok() && (seq < 100 || seq > before), "{seq} {record:?}");
            last = seq;
        }
    }
    assert_eq!(last, 1500);
}

#[test]
fn a_tool_without_limits_removes_nothing_from_a_full_disk() {
    let fixture = Fixture::new(53);
    let log = fixture.open(LogOptions { bounds: limits(1000), ..options() }).expect("opens");
    let sink = sink_of(&log, "one");
    deliver(&log, &sink, 1..=400);
    log.close();
    drop(log);
    fixture.disk.set_capacity(0);
    let tool = LogOptions { segment_bytes: SEGMENT, ..LogOptions::for_repair() };
    let log = fixture.open(tool).expect("opens");
    until("the files are maintained", &log, || !log.shared.files.lock().is_due);
    log.shared.maintain();
    until("the files are maintained", &log, || !log.shared.files.lock().is_due);
    assert_eq!(log.shared.before(0), 0);
}
