//! Checks the claims of an authenticated token against the body and the time.

use sha1::{Digest, Sha1};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::rejection::{Rejection, safe_to_show};
use super::token::{Claimed, Claims, NumericDate};

/// The tolerated difference between DT's clock and the receiver's, in seconds, in both directions.
pub const LEEWAY: i64 = 60;

/// The lifetime of DT's tokens, in seconds. It applies to an ES256 token without `exp`.
pub const TOKEN_LIFETIME: i64 = 3600;

/// Checks the checksums of the body. Each claim that is present must match, and `checksum_sha256` must be present. With
/// `sha1_is_enough`, `checksum` (SHA-1) may be present instead: DT's HS256 tokens had it alone before February 2022. Its ES256
/// tokens always had SHA-256.
///
/// # Errors
///
/// Returns [`Rejection::ChecksumMissing`] or [`Rejection::ChecksumMismatch`].
pub fn checksums(claims: &Claims, body: &[u8], sha1_is_enough: bool) -> Result<(), Rejection> {
    if claims.checksum_sha256.is_none() && !(sha1_is_enough && claims.checksum.is_some()) {
        return Err(Rejection::ChecksumMissing);
    }
    if let Some(claimed) = &claims.checksum_sha256 {
        compare("checksum_sha256", claimed, &Sha256::digest(body))?;
    }
    if let Some(claimed) = &claims.checksum {
        compare("checksum", claimed, &Sha1::digest(body))?;
    }
    Ok(())
}

fn compare<const DIGITS: usize>(
    claim: &'static str,
    claimed: &Claimed<DIGITS>,
    computed: &[u8],
) -> Result<(), Rejection> {
    if let Claimed::Digits(digits) = claimed {
        let mut hex_digits = [0; DIGITS];
        let is_encoded = hex::encode_to_slice(computed, &mut hex_digits).is_ok();
        // The fast path is lower-case hex, as DT writes it; upper-case hex is valid too.
        if is_encoded && are_equal(digits, &hex_digits)
            || hex::decode(digits).is_ok_and(|claimed| claimed.ct_eq(computed).into())
        {
            return Ok(());
        }
    }
    let (expected, found) = (safe_to_show(&claimed.text()), hex::encode(computed));
    Err(Rejection::ChecksumMismatch { claim, expected, found })
}

/// Compares two checksums in constant time, eight bytes at once: `subtle` takes as long for eight bytes as for one. Together with
/// claims that are read without copies, this reduces a verification from 26,800 instructions to 15,400 (`benches/guard`,
/// `verify`).
fn are_equal<const DIGITS: usize>(one: &[u8; DIGITS], other: &[u8; DIGITS]) -> bool {
    let ((ones, one), (others, other)) = (one.as_chunks::<8>(), other.as_chunks::<8>());
    let words = ones.iter().zip(others);
    let equal = words.fold(one.ct_eq(other), |equal, (one, other)| {
        equal & u64::from_ne_bytes(*one).ct_eq(&u64::from_ne_bytes(*other))
    });
    equal.into()
}

/// Returns when the token expires, in Unix seconds.
///
/// # Errors
///
/// Returns [`Rejection::ClaimsMissing`] if the token has no `exp` and the scheme requires it, or no `iat` either.
pub fn expiry(claims: &Claims, exp_required: bool) -> Result<i64, Rejection> {
    match (claims.exp, claims.iat) {
        (Some(NumericDate(exp)), _) => Ok(exp),
        (None, Some(NumericDate(iat))) if !exp_required => Ok(iat.saturating_add(TOKEN_LIFETIME)),
        (None, _) => Err(Rejection::ClaimsMissing { claim: "exp" }),
    }
}

/// Checks that the token is valid at `now`: that it has not expired (`expired_at`), and that `iat` and `nbf` have passed. All
/// times are in Unix seconds.
///
/// # Errors
///
/// Returns [`Rejection::Expired`] or [`Rejection::NotYetValid`].
pub fn time(claims: &Claims, expired_at: i64, now: i64) -> Result<(), Rejection> {
    if now >= expired_at.saturating_add(LEEWAY) {
        return Err(Rejection::Expired { expired_at, now, leeway: LEEWAY });
    }
    for (claim, date) in [("iat", claims.iat), ("nbf", claims.nbf)] {
        if let Some(NumericDate(valid_from)) = date
            && valid_from > now.saturating_add(LEEWAY)
        {
            return Err(Rejection::NotYetValid { claim, valid_from, now, leeway: LEEWAY });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn claims(exp: Option<i64>, iat: Option<i64>, nbf: Option<i64>) -> Claims {
        let date = |seconds: Option<i64>| seconds.map(NumericDate);
        Claims { exp: date(exp), iat: date(iat), nbf: date(nbf), ..Claims::default() }
    }

    #[test]
    fn the_leeway_ends_to_the_second() {
        let now = 1_700_000_000;
        let check = |exp, iat| time(&claims(None, iat, None), exp, now).map_err(|r| r.code());
        assert_eq!(check(now - 59, None), Ok(()));
        assert_eq!(check(now - 60, None), Err("expired"));
        assert_eq!(check(now + 10, Some(now + 60)), Ok(()));
        assert_eq!(check(now + 10, Some(now + 61)), Err("not_yet_valid"));
        assert_eq!(check(i64::MIN, None), Err("expired"));
        assert_eq!(check(i64::MAX, None), Ok(()));
    }

    proptest! {
        #[test]
        fn no_numbers_overflow(exp: Option<i64>, iat: Option<i64>, nbf: Option<i64>, now: i64, required: bool) {
            let claims = claims(exp, iat, nbf);
            if let Ok(end) = expiry(&claims, required) {
                let result = time(&claims, end, now);
                let (end, now) = (i128::from(end), i128::from(now));
                // The same rule in numbers that cannot overflow, but for the saturated edges.
                let leeway = i128::from(LEEWAY);
                let ends = end.checked_add(leeway).expect("fits");
                if ends <= i128::from(i64::MAX) && now.checked_add(leeway).expect("fits") <= i128::from(i64::MAX) {
                    prop_assert_eq!(result.as_ref().is_err_and(Rejection::is_expired), now >= ends);
                }
            }
        }
    }
}
