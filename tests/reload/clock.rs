//! A clock that jumps by hours, either way: nothing is lost, what was known of duplicates stays known, and the reason can
//! be seen.

use crate::embedded::{Embedded, NOW};
use crate::sender::readiness;

const HOURS: i64 = 6 * 3600;

/// DT's clock is right all the time; ours jumps.
fn jumps(mode: &str, jump: i64, code: &str, said: &str) {
    // Shorter than the jump: by the wrong clock, everything known would be too old.
    let embedded = Embedded::new(mode, "dedup_window = '2h'");
    let (before, after) = (0..5, 5..10);
    embedded.live(|running| {
        for number in before.clone() {
            assert_eq!(running.send("/", number, NOW), (200, "accepted".to_owned()));
        }
        running.clock.set((NOW + jump) * 1000);
        for number in after.clone() {
            let at = NOW + i64::try_from(number).expect("small");
            assert_eq!(running.send("/", number, at), (401, code.to_owned()));
        }
        let ready = readiness(running.admin);
        assert!(ready.starts_with("ready, but: ") && ready.contains(said), "{ready}");
        let metrics = running.metrics();
        let skew = metrics.lines().find(|line| line.starts_with("dt_receiver_clock_suspected_skew_seconds "));
        let skew: i64 =
            skew.expect("a gauge").rsplit(' ').next().expect("a value").parse().expect("a number");
        assert!((skew + jump).abs() <= 10, "{skew}");
        // Ages do not go below 0, whatever the clock says.
        assert!(
            !metrics.lines().any(|line| line.contains("oldest_seconds") && line.contains(" -")),
            "{metrics}"
        );
    });
    // What a stop cleans up was measured by the wrong clock no more than what is cleaned up while idle.
    embedded.live(|running| {
        running.clock.set((NOW + 60) * 1000);
        if mode == "spool" {
            for number in before.clone() {
                assert_eq!(running.send("/", number, NOW), (200, "duplicate".to_owned()));
            }
        }
        // DT kept what was refused, and sends it again.
        for number in after.clone() {
            assert_eq!(running.send("/", number, NOW), (200, "accepted".to_owned()));
            running.clock.set((NOW + jump) * 1000);
            running.clock.set((NOW + 60) * 1000);
            assert_eq!(running.send("/", number, NOW), (200, "duplicate".to_owned()));
        }
        assert_eq!(readiness(running.admin), "ready\n");
    });
    assert_eq!(embedded.delivered(), (0..10).collect::<Vec<_>>(), "each once, in order");
}

#[test]
fn a_clock_that_is_hours_ahead_loses_nothing() {
    jumps("spool", HOURS, "expired", "this machine's clock seems to be 359 min ahead of DT's");
}

#[test]
fn a_clock_that_is_hours_behind_loses_nothing() {
    jumps("spool", -HOURS, "not_yet_valid", "this machine's clock seems to be 360 min behind DT's");
}

#[test]
fn a_clock_that_jumps_does_no_harm_in_mode_direct() {
    jumps("direct", HOURS, "expired", "359 min ahead of DT's");
    jumps("direct", -HOURS, "not_yet_valid", "360 min behind DT's");
}
