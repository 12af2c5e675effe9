//! What a sink may still need is not removed, whenever it began to need it.

use super::*;
use crate::maintenance::make_spare;
use crate::shared::ChangeRequest;
use crate::writer::Writer;

/// A log with many segments that `retain` keeps, and a sink that has received all events.
fn delivered(fixture: &Fixture) -> (Arc<Log>, SinkState) {
    let bounds = Bounds { retain: Duration::MAX, ..options().bounds };
    let log = fixture.open(LogOptions { bounds, ..options() }).expect("opens");
    let sink = sink_of(&log, "one");
    for number in 1..=EVENTS {
        append(&log, &number.to_string(), &SinkSet::new([sink.number])).expect("stored");
    }
    let progress = Progress { sink: sink.number, cursor: EVENTS, checkpoint: None, ends_replay: false };
    log.advance(progress, true).expect("stored");
    (log, sink)
}

const EVENTS: i64 = 200;

fn newest(log: &Log) -> u64 {
    log.shared.files.lock().segments.last().expect("a segment").number
}

fn assert_can_replay_all(log: &Log) {
    let oldest = log.shared.state.lock().oldest;
    let sink = log.sink("one").expect("known");
    assert_eq!(
        (sink.replay_after, log.shared.before(oldest)),
        (Some(0), 0),
        "segment {oldest} is the oldest"
    );
}

/// The maintenance thread reads the cursors, and the writer makes a replay durable before it gets the result.
#[test]
fn a_segment_that_a_replay_needs_by_now_is_kept() {
    let fixture = Fixture::new(20);
    let (log, sink) = delivered(&fixture);
    log.replay("one", 0).expect("stored");
    log.shared.queue.lock().keep_from = Some(newest(&log));
    log.register(&Arc::from("two"), StartAt::Now, Vec::new()).expect("stored with the proposal");
    assert_can_replay_all(&log);
    let progress = Progress { sink: sink.number, cursor: 0, checkpoint: None, ends_replay: true };
    log.advance(progress, true).expect("stored");
    assert_eq!(rest(&log, &log.sink("one").expect("known")).len(), 200);
}

/// The writer has decided where a replay begins, and needs a new segment to write that.
#[test]
fn a_segment_is_kept_that_the_replay_in_hand_needs() {
    let fixture = Fixture::new(21);
    let (log, sink) = delivered(&fixture);
    // Without the maintenance thread, the test decides when there are spares.
    log.close();
    let shared = Arc::clone(&log.shared);
    while shared.files.lock().spares.len() < 4 {
        make_spare(&shared).expect("made");
    }
    shared.queue.lock().is_closed = false;
    shared.files.lock().is_stopping = false;
    let writer = Writer {
        shared: Arc::clone(&shared),
        current: None,
        next_number: newest(&log) + 1,
        next_seq: EVENTS + 1,
        recovered: None,
        skips_to: None,
        buffer: Vec::new(),
        scratch: String::new(),
        reaches_back: false,
        unsealed_since: None,
    };
    let writer = std::thread::spawn(move || writer.run());
    let set = SinkSet::new([sink.number]);
    let large = usize::try_from(SEGMENT / 2 + 1024).expect("small");
    log.append_blocking(record("large", large), set.clone(), true).expect("stored");
    let spares = {
        let mut files = shared.files.lock();
        files.is_due = false;
        std::mem::take(&mut files.spares)
    };
    // Together they do not fit.
    let (reply, _) = oneshot::channel();
    let (change_reply, changed) = oneshot::channel();
    {
        let mut queue = shared.queue.lock();
        let event = Some((record("larger", large), set));
        let ticket = queue.next_ticket;
        queue.appends.push(Append { event, key: None, ticket, reply });
        let change = Change::Replay { name: Arc::from("one"), after: 0 };
        queue.changes.push(ChangeRequest { change, reply: change_reply });
    }
    shared.has_work.notify_one();
    let mut files = shared.files.lock();
    while !files.is_due {
        shared.files_changed.wait(&mut files);
    }
    drop(files);
    shared.queue.lock().keep_from = Some(newest(&log));
    shared.files.lock().spares = spares;
    shared.files_changed.notify_all();
    changed.blocking_recv().expect("an answer").expect("stored");
    assert_can_replay_all(&log);
    shared.queue.lock().is_closed = true;
    shared.has_work.notify_one();
    writer.join().expect("no panic");
    assert_can_replay_all(&log);
}
