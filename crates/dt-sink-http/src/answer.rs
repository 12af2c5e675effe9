//! Classifies the responses of a target: determines the result of the records of a request by the HTTP status.

use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};

/// The largest value of `Retry-After` that is accepted; a larger one is reduced to it.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// The meaning of an HTTP status for the records of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The target has stored the records.
    Accepted,
    /// The target will never accept a record of the request.
    Rejected,
    /// The target may accept the records later. It may accept other records now.
    Busy,
    /// The target accepts no records now, and requests a pause.
    Pause,
    /// The target is not the expected one, or denies access to the sink: an operator has to fix this.
    Misconfigured,
}

impl Verdict {
    /// Returns the verdict for a status.
    #[must_use]
    pub const fn of(status: StatusCode) -> Self {
        match status.as_u16() {
            200..=299 => Self::Accepted,
            400 | 413 | 415 | 422 => Self::Rejected,
            429 => Self::Pause,
            408 | 425 | 500..=599 => Self::Busy,
            _ => Self::Misconfigured,
        }
    }
}

/// Returns the remedy for a status that does not pass by itself.
#[must_use]
pub const fn advice(status: StatusCode) -> &'static str {
    match status.as_u16() {
        300..=399 => "redirects are not followed; set `url` to the final address",
        401 | 403 | 407 => "check `auth`, `headers` and `secret_headers`",
        404 | 410 => "check `url`",
        405 => "check `url`; it has to take POST",
        _ => "check `url`, `headers` and `format`",
    }
}

/// Returns how long the target requests to wait (`Retry-After`, RFC 9110, section 10.2.3: seconds or a date), at most an hour.
/// `None` without a valid `Retry-After`. `now` is the time in Unix milliseconds.
#[must_use]
pub fn retry_after(headers: &HeaderMap, now: i64) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = httpdate::parse_http_date(text).ok()?;
            let now = Duration::from_millis(u64::try_from(now).ok()?);
            at.duration_since(SystemTime::UNIX_EPOCH).ok()?.saturating_sub(now)
        }
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_the_verdict_of_the_page() {
        let of = |status: u16| Verdict::of(StatusCode::from_u16(status).expect("a status"));
        for status in 200..300 {
            assert_eq!(of(status), Verdict::Accepted, "{status}");
        }
        for status in [400, 413, 415, 422] {
            assert_eq!(of(status), Verdict::Rejected, "{status}");
        }
        for status in [408, 425].into_iter().chain(500..600) {
            assert_eq!(of(status), Verdict::Busy, "{status}");
        }
        assert_eq!(of(429), Verdict::Pause);
        let others =
            (300..400).chain(401..500).filter(|status| ![408, 413, 415, 422, 425, 429].contains(status));
        for status in others.chain([101]) {
            assert_eq!(of(status), Verdict::Misconfigured, "{status}");
        }
    }

    #[test]
    fn a_retry_after_is_seconds_or_a_date_and_at_most_an_hour() {
        // Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110.
        let now = 784_111_777_000;
        for (text, wait) in [
            ("0", Some(0)),
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("99999999999", Some(3600)),
            ("Sun, 06 Nov 1994 08:50:00 GMT", Some(23)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("Mon, 07 Nov 1994 08:49:37 GMT", Some(3600)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            let headers = [(RETRY_AFTER, text.parse().expect("a value"))].into_iter().collect();
            assert_eq!(retry_after(&headers, now), wait.map(Duration::from_secs), "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
