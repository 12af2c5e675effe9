//! Faults: errors of the network and of DT that a receiver has to handle, and requests that it must reject.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The faults and how often they occur. Shares are from 0 (never) to 1 (always). By default there are no faults.
///
/// # Examples
///
/// ```
/// use dt_emulator::Faults;
///
/// let mut faults = Faults::default();
/// faults.apply("duplicate=0.1,reorder=0.2,stale-tokens").unwrap();
/// assert_eq!((faults.duplicate, faults.stale_tokens), (0.1, true));
/// assert!(faults.apply("smoke=1").is_err());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Faults {
    /// The share of events that are sent twice, from 0 to 1.
    pub duplicate: f64,
    /// The share of events that are delayed by up to 10 s, so that later events overtake them, from 0 to 1.
    pub reorder: f64,
    /// The delay of every event, in milliseconds.
    pub delay_millis: u32,
    /// The share of attempts whose connection is interrupted, from 0 to 1: half of them within the request, half before the
    /// response is read.
    pub drop: f64,
    /// The share of attempts whose body is changed after signing, from 0 to 1.
    pub tamper: f64,
    /// The share of attempts that are signed with another secret, from 0 to 1.
    pub wrong_secret: f64,
    /// Whether a retry uses the tokens of the first attempt, which expire after an hour.
    pub stale_tokens: bool,
    /// Whether DT has an outage: events stay in their queues.
    pub outage: bool,
    /// Whether the identity provider (tokens, discovery, key set) answers 503.
    pub identity_outage: bool,
    /// Whether the REST API answers 503.
    pub api_outage: bool,
    /// The share of calls of the REST API that are answered 429 with `Retry-After`, from 0 to 1.
    pub rate_limit: f64,
    /// Whether `Retry-After` is an HTTP date instead of a number of seconds.
    pub retry_after_date: bool,
    /// The time until an event that is published from now on is in the event history, in milliseconds of the emulated clock. It
    /// is pushed, streamed and `reported` at once.
    pub index_delay_millis: u32,
    /// Whether the event history is sorted by `timestamp` with the oldest event first. By default, the newest is first. DT does
    /// not document the order.
    pub history_oldest_first: bool,
    /// The number of events to publish at once, spread over all devices. They are published when it is set; then it becomes 0.
    pub burst: u32,
}

/// The largest number of events of a burst.
pub const MAX_BURST: u32 = 50_000;

/// Why a fault cannot be set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// No fault has this name.
    #[error(
        "there is no fault \"{0}\"; expected duplicate, reorder, delay, drop, tamper, wrong-secret, stale-tokens, \
         outage, identity-outage, api-outage, rate-limit, retry-after-date, index-delay, history-oldest-first or burst"
    )]
    Unknown(String),
    /// The value of a fault is not valid.
    #[error("{fault}: found \"{found}\"; expected {expected}")]
    BadValue {
        /// The name of the fault.
        fault: &'static str,
        /// The value that was given.
        found: String,
        /// The expected value.
        expected: &'static str,
    },
}

impl FaultError {
    /// Returns a stable name of the error.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "fault_unknown",
            Self::BadValue { .. } => "fault_value",
        }
    }
}

impl Faults {
    /// Sets faults from a text such as `duplicate=0.1,delay=500,outage`.
    ///
    /// # Errors
    ///
    /// Returns [`FaultError`] for the first fault that cannot be set. The faults before it are set.
    pub fn apply(&mut self, text: &str) -> Result<(), FaultError> {
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            match name {
                "duplicate" => self.duplicate = share("duplicate", value)?,
                "reorder" => self.reorder = share("reorder", value)?,
                "delay" => self.delay_millis = number("delay", value, MILLIS)?,
                "drop" => self.drop = share("drop", value)?,
                "tamper" => self.tamper = share("tamper", value)?,
                "wrong-secret" => self.wrong_secret = share("wrong-secret", value)?,
                "stale-tokens" => self.stale_tokens = switch("stale-tokens", value)?,
                "outage" => self.outage = switch("outage", value)?,
                "identity-outage" => self.identity_outage = switch("identity-outage", value)?,
                "api-outage" => self.api_outage = switch("api-outage", value)?,
                "rate-limit" => self.rate_limit = share("rate-limit", value)?,
                "retry-after-date" => self.retry_after_date = switch("retry-after-date", value)?,
                "index-delay" => self.index_delay_millis = number("index-delay", value, MILLIS)?,
                "history-oldest-first" => self.history_oldest_first = switch("history-oldest-first", value)?,
                "burst" => self.burst = number("burst", value, "a number of events")?,
                other => return Err(FaultError::Unknown(other.to_owned())),
            }
        }
        self.check()
    }

    /// Checks the values of faults that were set without [`apply`](Self::apply).
    pub(crate) fn check(&self) -> Result<(), FaultError> {
        let shares = [
            ("duplicate", self.duplicate),
            ("reorder", self.reorder),
            ("drop", self.drop),
            ("tamper", self.tamper),
            ("wrongSecret", self.wrong_secret),
            ("rateLimit", self.rate_limit),
        ];
        for (fault, value) in shares {
            if !(0.0..=1.0).contains(&value) {
                return Err(FaultError::BadValue { fault, found: value.to_string(), expected: SHARE });
            }
        }
        if self.burst > MAX_BURST {
            let found = self.burst.to_string();
            return Err(FaultError::BadValue { fault: "burst", found, expected: "at most 50000" });
        }
        Ok(())
    }
}

const SHARE: &str = "a share from 0 to 1";
const MILLIS: &str = "a number of milliseconds";

fn share(fault: &'static str, text: &str) -> Result<f64, FaultError> {
    let bad = || FaultError::BadValue { fault, found: text.to_owned(), expected: SHARE };
    let value = f64::from_str(text).map_err(|_| bad())?;
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err(bad()) }
}

fn number(fault: &'static str, text: &str, expected: &'static str) -> Result<u32, FaultError> {
    text.parse().map_err(|_| FaultError::BadValue { fault, found: text.to_owned(), expected })
}

fn switch(fault: &'static str, text: &str) -> Result<bool, FaultError> {
    match text {
        "" | "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        _ => Err(FaultError::BadValue { fault, found: text.to_owned(), expected: "on or off" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read() {
        let mut faults = Faults::default();
        faults.apply("duplicate=1, delay=250 ,outage,api-outage=off,burst=10,").unwrap();
        assert_eq!((faults.duplicate, faults.delay_millis, faults.burst), (1.0, 250, 10));
        assert!(faults.outage && !faults.api_outage);
        faults.apply("index-delay=10000,history-oldest-first,retry-after-date").unwrap();
        assert!(
            faults.index_delay_millis == 10_000 && faults.history_oldest_first && faults.retry_after_date
        );
        for (text, code) in [
            ("duplicate", "fault_value"),
            ("duplicate=2", "fault_value"),
            ("duplicate=NaN", "fault_value"),
            ("delay=-1", "fault_value"),
            ("index-delay=1s", "fault_value"),
            ("outage=maybe", "fault_value"),
            ("burst=50001", "fault_value"),
            ("nothing", "fault_unknown"),
        ] {
            assert_eq!(faults.clone().apply(text).unwrap_err().code(), code, "{text}");
        }
    }

    #[test]
    fn shares_from_json_are_checked() {
        let faults: Faults = serde_json::from_str(r#"{"tamper": 1.5}"#).unwrap();
        assert!(faults.check().is_err());
        assert!(serde_json::from_str::<Faults>(r#"{"smoke": 1}"#).is_err());
    }
}
