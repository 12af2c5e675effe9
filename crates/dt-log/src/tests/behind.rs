//! What a sink that is behind reads from the segments.

use super::*;

/// Each event here is a group of its own, as with one connection.
#[test]
fn a_sink_that_is_behind_gets_full_batches_even_if_reads_fail() {
    let fixture = Fixture::new(3);
    let log = fixture.open(options()).expect("opens");
    let sink = sink_of(&log, "one");
    for number in 0..200 {
        append(&log, &number.to_string(), &SinkSet::new([sink.number])).expect("stored");
    }
    log.close();
    // What it had in memory is gone.
    let log = fixture.open(options()).expect("opens again");
    let sink = sink_of(&log, "one");
    let mut source = log.source(sink.clone());
    let mut lengths = || source.read(70, i64::MAX).expect("read").len();
    assert_eq!([lengths(), lengths(), lengths(), lengths()], [70, 70, 60, 0]);

    let mut stopped_early = 0;
    for after in 0.. {
        fixture.disk.fail(Fault { after, ..Fault::every(Operation::Read, Errno::IO) });
        let (mut source, mut seqs, mut errors) = (log.source(sink.clone()), Vec::new(), 0);
        while source.position() < 200 {
            match source.read(1000, i64::MAX) {
                Ok(found) => seqs.extend(found.iter().map(|stored| stored.seq)),
                Err(_) => {
                    fixture.disk.heal();
                    (errors, stopped_early) = (errors + 1, stopped_early + usize::from(!seqs.is_empty()));
                }
            }
        }
        fixture.disk.heal();
        assert_eq!(seqs, (1..=200).collect::<Vec<i64>>(), "with errors after {after} operations");
        if errors == 0 {
            break;
        }
    }
    assert!(stopped_early > 0, "an error after some events");
}

/// Its worker has to notice a stop, or a sink that replaces its own, before it has read all of the log.
#[test]
fn a_sink_of_few_events_gets_the_first_before_the_whole_log_is_read() {
    let fixture = Fixture::new(4);
    let options = || LogOptions { segment_bytes: 1 << 20, ..options() };
    let log = fixture.open(options()).expect("opens");
    let (rare, other) = (sink_of(&log, "rare"), sink_of(&log, "other"));
    let (both, others) = (SinkSet::new([rare.number, other.number]), SinkSet::new([other.number]));
    const LAST: i64 = 20_000;
    for number in 1..=LAST {
        let sinks = if [1, 2, LAST].contains(&number) { &both } else { &others };
        let event = record(&number.to_string(), 10);
        log.append_blocking(event, sinks.clone(), false).expect("stored");
    }
    log.close();
    let log = fixture.open(options()).expect("opens again");
    let mut source = log.source(sink_of(&log, "rare"));
    let mut read =
        || -> Vec<i64> { source.read(70, i64::MAX).expect("read").iter().map(|stored| stored.seq).collect() };
    assert_eq!([read(), read()], [vec![1, 2], vec![LAST]]);
}
