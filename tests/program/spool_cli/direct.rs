//! `spool` and `dead` in mode `direct`.

use std::fs;
use std::time::{Duration, Instant};

use super::setup::{OTHER, Place, SECRET, event, metrics, send};

#[test]
fn in_mode_direct_dead_letters_are_listed_and_dropped_and_mode_spool_replays_them() {
    let place = Place::new("", "");
    place.configure_direct();
    let receiver = place.serve();
    assert!(place.refuses_to_serve().contains("another process uses this spool"));
    assert_eq!(send(receiver.listen, SECRET, "no JSON", 0), 200);
    assert_eq!(send(receiver.listen, SECRET, &event("late"), 9000), 401);
    assert_eq!(send(receiver.listen, OTHER, &event("refused"), 0), 401);
    let reasons = || {
        let listed = place.json(&["dead", "list"]).1["letters"].clone();
        let reasons = listed.as_array().into_iter().flatten().map(|letter| letter["reason"].clone());
        reasons.collect::<Vec<_>>()
    };
    assert_eq!(reasons(), ["unreadable", "expired", "refused"]);
    assert!(metrics(&receiver).contains("dt_receiver_spool_dead_letters{reason=\"refused\"} 1"));
    let shown = place.run(&["dead", "show", "--id", "1"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("no JSON"), "{shown:?}");
    let refused = |arguments: &[&str]| {
        let refused = place.run(arguments);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains("mode `direct` has no log") && said.contains("dead replay"), "{said}");
    };
    refused(&["dead", "replay", "--reason", "expired"]);
    refused(&["spool", "status"]);
    let (code, report) = place.json(&["dead", "drop", "--reason", "unreadable"]);
    assert_eq!((code, &report["dropped"]), (0, &1.into()), "{report}");
    assert_eq!(send(receiver.listen, SECRET, "no JSON either", 0), 200);
    receiver.kill();
    refused(&["dead", "replay"]);
    assert_eq!(reasons(), ["expired", "refused", "unreadable"]);
    let (code, report) = place.json(&["dead", "drop", "--id", "4"]);
    assert_eq!((code, &report["dropped"]), (0, &1.into()), "{report}");
    let names = || fs::read_dir(place.path("data/spool")).expect("listed").count();
    assert!(place.segments().is_empty() && names() <= 4, "no tool makes a log");

    place.configure(", { label = 'b', env = 'DT_OTHER' }", "");
    let receiver = place.serve();
    let (code, report) = place.json(&["dead", "replay", "--reverify"]);
    assert_eq!((code, &report["accepted"]), (0, &2.into()), "{report}");
    place.wait_for_lines(2);
    assert_eq!(place.lines(), [event("late"), event("refused")]);
    assert_eq!(send(receiver.listen, SECRET, "no JSON", 0), 200);
    assert!(receiver.stop().status.success());

    // The log that is there now knows of the dead letters.
    place.configure_direct();
    fs::rename(place.path("data/spool/dead.db"), place.path("dead.db")).expect("moved");
    let said = place.refuses_to_serve();
    assert!(said.contains("dead.db: missing, though the log knows of dead letters"), "{said}");
    fs::rename(place.path("dead.db"), place.path("data/spool/dead.db")).expect("moved");
    assert!(place.serve().stop().status.success());
}

#[test]
fn mode_direct_warns_of_undelivered_events_in_the_spool() {
    let place = Place::new("", "");
    let behind = format!(
        "[[sink]]\nname = 'behind'\ntype = 'file'\npath = '{}/{{connector}}'\nformat = 'body'\n",
        place.path("out").display()
    );
    place.configure("", &behind);
    // A folder in the place of its file: the event stays in the spool.
    fs::create_dir_all(place.path("out/default")).expect("made");
    let receiver = place.serve();
    assert_eq!(send(receiver.listen, SECRET, &event("one"), 0), 200);
    place.wait_for_lines(1);
    assert!(receiver.stop().status.success());

    let told = "the spool has events that are not delivered, and mode `direct` does not deliver them";
    place.configure_direct();
    let said = place.serve().stop().stderr;
    assert!(said.contains(told) && said.contains("\"behind\"") && !said.contains("\"file\""), "{said}");
    place.configure("", &behind);
    fs::remove_dir(place.path("out/default")).expect("removed");
    let receiver = place.serve();
    let started = Instant::now();
    while !fs::read_to_string(place.path("out/default")).is_ok_and(|text| text.ends_with('\n')) {
        assert!(started.elapsed() < Duration::from_secs(20), "the event is not delivered");
        std::thread::yield_now();
    }
    assert!(receiver.stop().status.success());
    place.configure_direct();
    let said = place.serve().stop().stderr;
    assert!(!said.contains(told), "{said}");
}
