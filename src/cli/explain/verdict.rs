//! Determines a cause that cannot be reversed from the rejection and from the content of the token.

use super::Cause;
use super::attempt::{Attempt, Scheme};
use super::unverified_token::UnverifiedToken;
use crate::cli::time::in_words;
use dt_verify::Rejection;
use dt_verify::event::rfc3339_seconds;

/// The time after which DT drops an undelivered event, in seconds. No delivery is later.
const RETENTION: u64 = 12 * 3600;

/// The tolerance in seconds when a difference of clocks is compared with whole hours, as between time zones.
const TIME_ZONE_SLACK: u64 = 120;

fn cause(code: &'static str, text: impl Into<String>) -> Cause {
    Cause { code, text: text.into() }
}

/// Returns the cause of a rejection at `now`, in Unix seconds.
pub fn of(rejection: &Rejection, attempt: &Attempt, scheme: Scheme, now: i64) -> Cause {
    let token = UnverifiedToken::parse(attempt.token(scheme).unwrap_or_default());
    match rejection {
        Rejection::Expired { expired_at, .. } => expired(*expired_at, token.issued_at(), now),
        Rejection::NotYetValid { valid_from, .. } => clock_behind(*valid_from, now),
        Rejection::ChecksumMismatch { claim, expected, found } => wrong_body(
            &attempt.body,
            attempt.whole.is_some(),
            &format!("`{claim}` of the token is {expected}, the checksum of this body is {found}"),
        ),
        Rejection::SignatureMissing { .. } => missing(attempt, scheme),
        Rejection::SignatureMismatch { keys, .. } if !token.is_cut_short() => {
            unknown_key(*keys, token.matches_body(&attempt.body), scheme)
        }
        Rejection::KeyUnknown { found, .. } => cause(
            "unknown_key",
            format!(
                "The key set has no key {}. DT rotates its keys: fetch the key set again from the \
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
                "The token names the algorithm \"{found}\". DT signs {} with {expected} only, so this is not a \
                 token of DT, and may be forged.",
                scheme.header()
            ),
        ),
        Rejection::SignatureMalformed { .. } | Rejection::SignatureMismatch { .. }
            if token.is_cut_short() =>
        {
            cause(
                "token_cut_short",
                "The end of the token is missing. Look for a limit of the length of headers, columns or variables, or copy \
             the whole token again.",
            )
        }
        Rejection::ChecksumMissing => cause(
            "checksum_missing",
            "The token is signed, but has no checksum of the body, so it would be valid for any body. DT's tokens have \
             `checksum_sha256`: the program that signs has to add it.",
        ),
        Rejection::ClaimsMissing { claim } => cause(
            "claims_missing",
            format!(
                "The token is signed, but has no `{claim}`, which DT's tokens have: the program that signs has to add it."
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
        _ => cause("token_malformed", format!("{rejection}. It is not a token of DT, or it was changed.")),
    }
}

fn missing(attempt: &Attempt, scheme: Scheme) -> Cause {
    let header = scheme.header();
    let other = scheme.other();
    if !attempt.has_header(other) {
        return cause(
            "header_missing",
            format!("There is no {header}. DT did not send the request, or a proxy removes unknown headers."),
        );
    }
    let remedy = match scheme {
        Scheme::Secret => {
            "set a Signature Secret for the Data Connector, or verify the other one (--key-set, --organization)"
        }
        Scheme::Asymmetric => {
            "verify that one with its secret (--policy secret), or look for a proxy that removes the missing one"
        }
    };
    cause("only_other_header", format!("There is no {header}, only {}: {remedy}.", other.header()))
}

fn in_other_header(attempt: &Attempt, scheme: Scheme, now: i64) -> Cause {
    let other = scheme.other();
    let other_result = if attempt.has_keys(other) {
        let token = attempt.token(scheme).unwrap_or_default().to_vec();
        match attempt.with_token(other, token).verify(other, now) {
            Ok(()) => " It is valid there.".to_owned(),
            Err(rejection) => format!(" It is refused there as well: {}.", rejection.code()),
        }
    } else {
        String::new()
    };
    cause(
        "token_in_other_header",
        format!(
            "This is an {} token, which belongs in {} ({}), not in {} ({}).{other_result}",
            other.algorithm(),
            other.header(),
            other.option(),
            scheme.header(),
            scheme.option()
        ),
    )
}

fn unknown_key(keys: usize, matches_body: Option<bool>, scheme: Scheme) -> Cause {
    let hint = match matches_body {
        Some(true) => "The token has the checksum of this body, so only the key is wrong.",
        Some(false) => {
            "The token does not have the checksum of this body either, so it may be of another request."
        }
        None => "The token has no readable checksum, so it may not be a token of DT.",
    };
    match scheme {
        Scheme::Secret => cause(
            "unknown_secret",
            format!(
                "The signature matches none of the {keys} secret(s), and no usual variation of them. {hint} Copy the \
                 Signature Secret of the Data Connector again; during a rotation, configure both the old and the \
                 new one."
            ),
        ),
        Scheme::Asymmetric => cause(
            "token_altered",
            format!(
                "The signature does not match the key that the token names, which the key set has: the token was \
                 changed, or the key set is of another service. {hint}"
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
                "The body is empty: {checksums}. Another component has read it before, as frameworks do with forms: \
                 read the raw bytes first."
            ),
        );
    }
    if incomplete {
        let limit = if beyond {
            "Content-Length is too small for it"
        } else {
            "Look for a limit of the size of bodies, or copy the whole body again"
        };
        return cause("body_cut_short", format!("The end of the body is missing: {checksums}. {limit}."));
    }
    cause(
        "other_body",
        format!(
            "The token is authentic, but was signed for another body, and reversing the usual changes does not restore it: \
             {checksums}. Use the body and the token of one request, and the received bytes of the body."
        ),
    )
}

fn wrong_organization(rejection: &Rejection, expected: &str, found: Option<&str>) -> Cause {
    let bare = expected.trim().trim_start_matches("organizations/");
    let hint = if found == Some(bare) {
        format!("Use the id only: --organization {bare}")
    } else {
        "DT signs for all of its customers with one key: this event is of another organization, or --organization is wrong".to_owned()
    };
    cause("wrong_organization", format!("{rejection}. {hint}."))
}

fn expired(expired_at: i64, issued_at: Option<i64>, now: i64) -> Cause {
    let late = now.abs_diff(expired_at);
    let since_issue = issued_at.map(|issued_at| now.abs_diff(issued_at));
    let hint = if late > RETENTION {
        "DT drops an event after 12 hours, so this was captured earlier"
    } else {
        "Either DT retried late with the token of its first attempt, or the clock of this machine is ahead: compare it with \
         NTP (`timedatectl`)"
    };
    let zone = since_issue.and_then(time_zone).unwrap_or_default();
    let issue = issued_at.unwrap_or(expired_at);
    cause(
        "expired",
        format!(
            "The token expired {} ({late} s) before {}. {hint}.{zone} To verify it at its own time, use --at {}.",
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
            "The token was issued at {}, {} ({early} s) after {}: the clock of this machine is behind that of DT by at least that \
             time, or --at is wrong. Set it by NTP (`timedatectl`).{zone}",
            rfc3339_seconds(valid_from),
            in_words(early),
            rfc3339_seconds(now)
        ),
    )
}

/// Returns a hint if a difference in seconds looks like a wrong time zone; otherwise `None`.
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
