//! More signals than reloads: they are one after another, the last one counts, and no request waits for them.

use crate::load::{Load, assert_all_once_in_order};
use crate::place::{Place, signal_often, until};

const SIGNALS: u32 = 1000;

#[test]
fn a_thousand_signals_hold_up_nothing_and_the_last_one_counts() {
    for mode in ["spool", "direct"] {
        let place = Place::new(mode);
        let served = place.serve(&place.plain());
        let load = Load::start(served.receiver.listen);
        signal_often(served.receiver.pid(), "HUP", SIGNALS / 2);
        let second = place.text(
            "",
            &[
                place.connector("default", "/", ""),
                place.sink("file", "events.ndjson"),
                place.sink("second", "second.ndjson"),
            ],
        );
        place.write("dt-receiver.toml", &second);
        signal_often(served.receiver.pid(), "HUP", SIGNALS / 2);
        until("the change is taken", || served.reloads("applied") == 1);
        load.go_on();
        let reloads = served.reloads("applied") + served.reloads("unchanged");
        assert!(reloads <= u64::from(SIGNALS), "{reloads}");
        let sent = load.stop();
        let ended = served.receiver.stop();
        assert_all_once_in_order(&place.ids(&["events.ndjson"]), &sent);
        let lines = ended.stderr.lines().filter(|line| line.contains("configuration")).count();
        assert!(lines < 200, "{lines} lines");
    }
}
