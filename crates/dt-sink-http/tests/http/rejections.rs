//! Events that the target rejects, and a target that rejects everything.

use dt_sink::{Fate, Sink};

use crate::driver::{Driver, error_of, id_of, is_rejected, is_retry, record, records};
use crate::target::{Reply, Target};

#[test]
fn a_target_that_rejects_everything_gets_ten_events_rejected_and_no_more() {
    for concurrency in [1, 8] {
        let target = Target::start(|_| Reply::Status(422));
        let mut driver = Driver::new(&target.url(), &format!("concurrency = {concurrency}"));
        let batch = records(50, 2);
        let mut fates = driver.deliver(&batch);
        assert_eq!(fates.iter().filter(|fate| is_rejected(fate)).count(), 10, "{concurrency}");
        fates.retain(|fate| !is_rejected(fate));
        assert!(fates.iter().all(is_retry), "{fates:?}");
        assert!(
            error_of(&fates[0]).contains(": 10 events in a row were rejected, so the target may be at fault"),
            "{fates:?}"
        );
        // However often it is tried, and also when the engine opens the sink anew.
        for _ in 0..3 {
            target.take();
            assert!(driver.deliver(&records(50, 2)).iter().all(is_retry));
            let count = target.take().len();
            assert!((10..=17).contains(&count), "{count}: some devices are tried, for one that is accepted");
            driver.sink.open(None).expect("opens");
        }
    }
}

#[test]
fn an_accepted_event_ends_the_wait() {
    let target = Target::start(|_| Reply::Status(400));
    let mut driver = Driver::new(&target.url(), "concurrency = 1");
    driver.deliver(&records(11, 1));
    // One device is still rejected; the others show that the target works.
    target.set(
        |arrived| {
            if id_of(&arrived.body).starts_with("bad") { Reply::Status(400) } else { Reply::Status(200) }
        },
    );
    let batch = [record("bad", 0), record("good", 0), record("bad", 1)];
    let fates = driver.deliver(&batch);
    assert!(is_retry(&fates[0]) && is_retry(&fates[2]), "{fates:?}");
    assert_eq!(fates[1], Fate::Delivered);
    let fates = driver.deliver(&[record("bad", 0), record("bad", 1)]);
    assert!(fates.iter().all(is_rejected), "{fates:?}");
}

#[test]
fn rejections_that_are_not_in_a_row_never_end() {
    let target = Target::start(|arrived| {
        if id_of(&arrived.body).ends_with('7') { Reply::Status(422) } else { Reply::Status(200) }
    });
    let mut driver = Driver::new(&target.url(), "");
    let batch = records(1, 500);
    let fates = driver.deliver(&batch);
    for (record, fate) in batch.iter().zip(&fates) {
        assert_eq!(is_rejected(fate), record.event_id.ends_with('7'), "{fate:?}");
    }
}

#[test]
fn a_new_sink_may_reject_again() {
    let target = Target::start(|_| Reply::Status(422));
    let mut driver = Driver::new(&target.url(), "");
    driver.deliver(&records(20, 1));
    let mut next = Driver::new(&target.url(), "timeout = '9s'");
    assert_eq!(next.deliver(&records(20, 1)).iter().filter(|fate| is_rejected(fate)).count(), 10);
}

#[test]
fn failures_between_rejections_do_not_count_as_accepted() {
    let target = Target::start(|_| Reply::Status(422));
    let mut driver = Driver::new(&target.url(), "concurrency = 1");
    let mut rejected = 0;
    for number in 0..30 {
        let status = if number % 2 == 0 { 422 } else { 503 };
        target.set(move |_| Reply::Status(status));
        rejected += usize::from(is_rejected(&driver.deliver_one(record("a", number))));
    }
    assert_eq!(rejected, 10);
}
