//! Detects a wrong system clock by the times in DT's tokens.
//!
//! Only requests count that are authentic except for their time, so that no other sender can cause a false alarm. Several
//! different tokens have to agree, since DT may send one old token many times. An accepted event ends the suspicion.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::telemetry::{ClockSkewCleared, ClockSkewSuspected, Telemetry};
use dt_verify::{Rejection, TOKEN_LIFETIME};

/// The number of different tokens that have to agree before the clock is suspected.
const NEEDED: usize = 3;

/// The times of the tokens that were rejected since the last accepted event.
#[derive(Debug, Default)]
pub(super) struct ClockDoubt {
    state: Mutex<State>,
    /// Whether `state` has the time of at least one token. This copy is read for each accepted event, without the lock of
    /// `state`.
    is_any: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// The times of up to [`NEEDED`] different tokens, in Unix seconds.
    tokens: Vec<i64>,
    /// The number of seconds by which DT's clock seems to be ahead of the system clock; negative if it is behind.
    offset: i64,
    /// Whether the suspicion was logged.
    is_reported: bool,
}

impl ClockDoubt {
    /// Records the token of a request that was rejected because of its time.
    pub(super) fn refused(&self, rejection: &Rejection, telemetry: &Telemetry) {
        let (token, offset) = match rejection {
            // The token was issued an hour before it expired.
            Rejection::Expired { expired_at, now, .. } => {
                (*expired_at, expired_at.saturating_sub(TOKEN_LIFETIME).saturating_sub(*now))
            }
            Rejection::NotYetValid { valid_from, now, .. } => (*valid_from, valid_from.saturating_sub(*now)),
            _ => return,
        };
        let mut state = self.state.lock();
        if state.offset.signum() != offset.signum() {
            *state = State { tokens: Vec::new(), offset, is_reported: state.is_reported };
        }
        // A request can arrive late, but not early, so the largest offset is the best estimate.
        state.offset = state.offset.max(offset);
        self.is_any.store(true, Ordering::Release);
        if state.tokens.len() < NEEDED && !state.tokens.contains(&token) {
            state.tokens.push(token);
            if state.tokens.len() == NEEDED {
                state.is_reported = true;
                telemetry.emit(&ClockSkewSuspected { seconds: state.offset });
            }
        }
    }

    /// Ends the suspicion, since a request was accepted.
    pub(super) fn accepted(&self, telemetry: &Telemetry) {
        if !self.is_any.load(Ordering::Acquire) {
            return;
        }
        let before = {
            let mut state = self.state.lock();
            self.is_any.store(false, Ordering::Release);
            std::mem::take(&mut *state)
        };
        if before.is_reported {
            telemetry.emit(&ClockSkewCleared);
        }
    }

    /// Returns a message with the supposed error of the system clock; `None` if the clock is not suspected.
    pub(super) fn problem(&self) -> Option<String> {
        let state = self.state.lock();
        if state.tokens.len() < NEEDED {
            return None;
        }
        let (minutes, side) =
            (state.offset.unsigned_abs() / 60, if state.offset > 0 { "behind" } else { "ahead of" });
        Some(format!(
            "this machine's clock seems to be {minutes} min {side} DT's: authentic events are refused for their time alone"
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use dt_sink::clock::SystemClock;

    fn expired(expired_at: i64, now: i64) -> Rejection {
        Rejection::Expired { expired_at, now, leeway: 60 }
    }

    #[test]
    fn several_tokens_have_to_agree_and_one_valid_request_ends_it() {
        let (doubt, telemetry) = (ClockDoubt::default(), Telemetry::new(Arc::new(SystemClock)));
        // One token that comes again and again says nothing: DT tries for twelve hours.
        for now in 0..10 {
            doubt.refused(&expired(3600, 30_000 + now), &telemetry);
        }
        assert_eq!(doubt.problem(), None);
        // Six hours ahead, and the last request was not late.
        for token in 3601..3604 {
            doubt.refused(&expired(token, token - 3600 + 6 * 3600), &telemetry);
        }
        let said = doubt.problem().expect("a problem");
        assert!(said.starts_with("this machine's clock seems to be 360 min ahead of DT's"), "{said}");
        assert!(telemetry.render().contains("dt_receiver_clock_suspected_skew_seconds -21600"));
        doubt.accepted(&telemetry);
        assert_eq!(doubt.problem(), None);
        assert!(telemetry.render().contains("dt_receiver_clock_suspected_skew_seconds 0"));
    }

    #[test]
    fn tokens_of_both_sides_do_not_add_up() {
        let (doubt, telemetry) = (ClockDoubt::default(), Telemetry::new(Arc::new(SystemClock)));
        let early = |valid_from: i64| Rejection::NotYetValid { claim: "iat", valid_from, now: 0, leeway: 60 };
        for token in 1..3 {
            doubt.refused(&early(token * 1000), &telemetry);
            doubt.refused(&expired(token, 90_000), &telemetry);
        }
        assert_eq!(doubt.problem(), None);
        for token in 1..4 {
            doubt.refused(&early(3600 + token), &telemetry);
        }
        let said = doubt.problem().expect("a problem");
        assert!(said.starts_with("this machine's clock seems to be 60 min behind DT's"), "{said}");
        doubt.refused(&Rejection::ChecksumMissing, &telemetry);
        assert!(doubt.problem().is_some());
    }

    #[test]
    fn a_reported_doubt_ends_even_after_one_of_the_other_side() {
        let (doubt, telemetry) = (ClockDoubt::default(), Telemetry::new(Arc::new(SystemClock)));
        for token in 0..3 {
            doubt.refused(&expired(token, token + 90_000), &telemetry);
        }
        assert!(telemetry.render().contains("dt_receiver_clock_suspected_skew_seconds -93600"));
        let early = Rejection::NotYetValid { claim: "iat", valid_from: 1000, now: 0, leeway: 60 };
        doubt.refused(&early, &telemetry);
        doubt.accepted(&telemetry);
        assert!(telemetry.render().contains("dt_receiver_clock_suspected_skew_seconds 0"));
    }

    #[test]
    fn no_numbers_overflow() {
        let (doubt, telemetry) = (ClockDoubt::default(), Telemetry::new(Arc::new(SystemClock)));
        for (token, now) in [(i64::MIN, i64::MAX), (i64::MAX, i64::MIN), (i64::MIN, i64::MIN), (0, i64::MIN)]
        {
            doubt.refused(&expired(token, now), &telemetry);
            let valid_from = token;
            doubt.refused(&Rejection::NotYetValid { claim: "iat", valid_from, now, leeway: 60 }, &telemetry);
            let _said = doubt.problem();
        }
    }
}
