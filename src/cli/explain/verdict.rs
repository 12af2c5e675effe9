//! What is left to say when no suspect can be undone: read from the rejection, and from what the token says of itself.

use super::Cause;
use super::attempt::{Attempt, Scheme};
use super::peek::Peek;
use crate::cli::time::in_words;
use dt_verify::Rejection;
use dt_verify::event::rfc3339_seconds;

/// DT keeps an event for so long, so no delivery is older; in seconds.
const RETENTION: u64 = 12 * 3600;

/// Clocks of which one was set to local time differ by whole hours, give or take this many seconds.
const TIME_ZONE_SLACK: u64 = 120;

fn cause(code: &'static str, text: impl Into<String>) -> Cause {
    Cause { code, text: text.into() }
}

/// The cause that a rejection stands for.
pub(super) fn of(rejection: &Rejection, attempt: &Attempt, scheme: Scheme, now: i64) -> Cause {
    let peek = Peek::into(attempt.token(scheme).unwrap_or_default());
    match rejection {
        Rejection::Expired { expired_at, .. } => expired(*expired_at, peek.issued_at(), now),
        Rejection::NotYetValid { valid_from, .. } => clock_behind(*valid_from, now),
        Rejection::ChecksumMismatch { claim, expected, found } => wrong_body(
            &attempt.body,
            attempt.whole.is_some(),
            &format!("`{claim}` of the token is {expected}, that of this body is {found}"),
        ),
        Rejection::SignatureMissing { .. } => missing(attempt, scheme),
        Rejection::SignatureMismatch { keys, .. } if !peek.is_cut_short() => {
            unknown_key_made_it(*keys, peek.fits(&attempt.body), scheme)
        }
        Rejection::KeyUnknown { found, .. } => cause(
            "unknown_key",
            format!(
                "The key set has no key {}. DT changes its keys from time to time: fetch the key set again from the \
                 `jwks_uri` of the issuer's discovery document.",
                found
                    .as_ref()
                    .map_or_else(|| "for a token without a kid".to_owned(), |kid| format!("\"{kid}\""))
            ),
        ),
        Rejection::AlgorithmNotAllowed { found, .. } if found == scheme.other().algorithm() => {
            in_other_header(attempt, scheme, now)
        }
        Rejection::AlgorithmNotAllowed { found, expected, .. } => cause(
            "algorithm_not_allowed",
            format!(
                "The token says that its algorithm is \"{found}\". DT signs {} with {expected} only, so this is not a \
                 token of DT, and may be a forgery.",
                scheme.header()
            ),
        ),
        Rejection::SignatureMalformed { .. } | Rejection::SignatureMismatch { .. } if peek.is_cut_short() => {
            cause(
                "token_cut_short",
                "The token's end is missing. Look for a limit on the length of headers, of columns or of variables, or \
             copy it again as a whole.",
            )
        }
        Rejection::ChecksumMissing => cause(
            "checksum_missing",
            "The token is signed, but says nothing about the body, so any body would do. DT's tokens have \
             `checksum_sha256`: whatever made this one has to add it.",
        ),
        Rejection::ClaimsMissing { claim } => cause(
            "claims_missing",
            format!(
                "The token is signed, but has no `{claim}`, which DT's tokens have: whatever made it has to add it."
            ),
        ),
        Rejection::IssuerMismatch { .. } => cause(
            "wrong_issuer",
            format!(
                "{rejection}. Is it a token of another service, or is --issuer not the `issuer` of the discovery document?"
            ),
        ),
        Rejection::OrganizationMismatch { expected, found } => {
            wrong_organization(rejection, expected, found.as_deref())
        }
        _ => cause(
            "token_malformed",
            format!("{rejection}. It is no token of DT, or something has changed it."),
        ),
    }
}

fn missing(attempt: &Attempt, scheme: Scheme) -> Cause {
    let header = scheme.header();
    let other = scheme.other();
    if !attempt.has_header(other) {
        return cause(
            "header_missing",
            format!(
                "There is no {header}. It was not sent by DT, or something on the way removes headers that it does not know."
            ),
        );
    }
    let cure = match scheme {
        Scheme::Secret => {
            "set a Signature Secret for the Data Connector, or verify the other one (--key-set, --organization)"
        }
        Scheme::Asymmetric => {
            "verify that one with its secret (--policy secret), or look for what removes this one"
        }
    };
    cause("only_other_header", format!("There is no {header}, only {}: {cure}.", other.header()))
}

fn in_other_header(attempt: &Attempt, scheme: Scheme, now: i64) -> Cause {
    let other = scheme.other();
    let there = if attempt.has_keys(other) {
        let token = attempt.token(scheme).unwrap_or_default().to_vec();
        match attempt.with_token(other, token).verify(other, now) {
            Ok(()) => " There it verifies.".to_owned(),
            Err(rejection) => format!(" There it is refused as well: {}.", rejection.code()),
        }
    } else {
        String::new()
    };
    cause(
        "token_in_other_header",
        format!(
            "This is an {} token, which belongs in {} ({}), not in {} ({}).{there}",
            other.algorithm(),
            other.header(),
            other.option(),
            scheme.header(),
            scheme.option()
        ),
    )
}

fn unknown_key_made_it(keys: usize, fits: Option<bool>, scheme: Scheme) -> Cause {
    let fits = match fits {
        Some(true) => {
            "The token does carry the checksum of this body, so the two belong together and only the key is wrong."
        }
        Some(false) => {
            "The token does not carry the checksum of this body either, so it may be another request's."
        }
        None => "The token carries no readable checksum, so it may not be DT's.",
    };
    match scheme {
        Scheme::Secret => cause(
            "unknown_secret",
            format!(
                "None of the {keys} secret(s) made this signature, nor any usual variation of them. {fits} Copy the \
                 Signature Secret of the Data Connector again; while it is being changed, give both the old and the \
                 new one."
            ),
        ),
        Scheme::Asymmetric => cause(
            "token_altered",
            format!(
                "The key set has the key that the token names, but it did not make this signature: the token was \
                 changed, or the key set is of another service. {fits}"
            ),
        ),
    }
}

fn wrong_body(body: &[u8], beyond: bool, checksums: &str) -> Cause {
    let incomplete = serde_json::from_slice::<serde::de::IgnoredAny>(body).is_err_and(|error| error.is_eof());
    if body.trim_ascii().is_empty() {
        return cause(
            "body_empty",
            format!(
                "The body is empty: {checksums}. Something has read it before, as frameworks do with forms: take the \
                 raw bytes first."
            ),
        );
    }
    if incomplete {
        let limit = if beyond {
            "The Content-Length is too small for it"
        } else {
            "Look for a limit on the size of bodies, or copy it again as a whole"
        };
        return cause("body_cut_short", format!("The end of the body is missing: {checksums}. {limit}."));
    }
    cause(
        "other_body",
        format!(
            "The token is authentic, but was made for another body, and no usual change to this one makes it that: \
             {checksums}. Take body and token from one request, and the body as the bytes that came."
        ),
    )
}

fn wrong_organization(rejection: &Rejection, expected: &str, found: Option<&str>) -> Cause {
    let bare = expected.trim().trim_start_matches("organizations/");
    let hint = if found == Some(bare) {
        format!("Give the bare id, --organization {bare}")
    } else {
        "DT signs for all of its customers with one key: this event is of another organization, or --organization is wrong".to_owned()
    };
    cause("wrong_organization", format!("{rejection}. {hint}."))
}

fn expired(expired_at: i64, issued_at: Option<i64>, now: i64) -> Cause {
    let late = now.abs_diff(expired_at);
    let since_issue = issued_at.map(|issued_at| now.abs_diff(issued_at));
    let hint = if late > RETENTION {
        "DT gives an event up after 12 hours, so this was captured earlier"
    } else {
        "Either DT tried again late with the token of its first attempt, or the clock here is ahead: compare it with \
         NTP (`timedatectl`)"
    };
    let zone = since_issue.and_then(time_zone).unwrap_or_default();
    let issue = issued_at.unwrap_or(expired_at);
    cause(
        "expired",
        format!(
            "The token expired {} ({late} s) before {}. {hint}.{zone} To verify it as of its own time, use --at {}.",
            in_words(late),
            rfc3339_seconds(now),
            rfc3339_seconds(issue)
        ),
    )
}

fn clock_behind(valid_from: i64, now: i64) -> Cause {
    let early = valid_from.abs_diff(now);
    let zone = time_zone(early).unwrap_or_default();
    cause(
        "clock_behind",
        format!(
            "The token is of {}, {} ({early} s) after {}: the clock here is behind that of DT by at least that much, \
             or --at is wrong. Set it by NTP (`timedatectl`).{zone}",
            rfc3339_seconds(valid_from),
            in_words(early),
            rfc3339_seconds(now)
        ),
    )
}

/// Says that a difference looks like a time zone's.
fn time_zone(seconds: u64) -> Option<String> {
    let hours = seconds.saturating_add(TIME_ZONE_SLACK).checked_div(3600)?;
    let off = hours.saturating_mul(3600).abs_diff(seconds);
    ((1..=14).contains(&hours) && off <= TIME_ZONE_SLACK).then(|| {
        format!(
            " The difference is almost exactly {}, as between time zones: is the clock set to local time?",
            in_words(hours.saturating_mul(3600))
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_differences_near_whole_hours_look_like_time_zones() {
        for seconds in [3500, 3600, 3700, 2 * 3600, 14 * 3600 - 100] {
            assert!(time_zone(seconds).is_some(), "{seconds}");
        }
        for seconds in [0, 60, 1800, 3900, 15 * 3600, u64::MAX] {
            assert!(time_zone(seconds).is_none(), "{seconds}");
        }
    }

    #[test]
    fn no_time_overflows() {
        for (a, b) in [(i64::MIN, i64::MAX), (i64::MAX, i64::MIN), (0, 0)] {
            assert_eq!(expired(a, Some(a), b).code, "expired");
            assert_eq!(clock_behind(a, b).code, "clock_behind");
        }
    }
}
