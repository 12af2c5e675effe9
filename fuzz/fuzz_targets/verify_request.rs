//! The whole verification of a request, with every kind of verifier. See `src/request.rs` for how bytes become one.
//!
//! What is accepted must hold for a second implementation too, and must be refused once its body, its token or the
//! time changes; what is refused must have a reason that is fit to be shown. A token that means the same, spelled so that
//! no fast path of the verifier takes it, must have the same answer.
#![no_main]

use std::borrow::Cow;

use dt_receiver_fuzz::oracle::assert_signed_for;
use dt_receiver_fuzz::request::{Request, Spelling};
use dt_verify::{LEEWAY, MAX_TOKEN_LEN, Policy, Rejection, SECRET_HEADER, Verified, VerifiedBy};
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|text: &[u8]| -> Corpus {
    let Some(request) = Request::read(text, Spelling::Given) else { return Corpus::Reject };
    let Request { setup, now, headers, body } = &request;
    let answer = setup.verifier.verify(headers, *body, *now);
    assert_eq!(answer, setup.verifier.verify(headers, *body, *now), "two answers to one request");
    the_spelling_makes_no_difference(text, &answer);
    match answer {
        Ok(verified) => accepted(&request, &verified),
        Err(rejection) => refused(&request, &rejection),
    }
    Corpus::Keep
});

fn the_spelling_makes_no_difference(text: &[u8], answer: &Result<Verified<&[u8]>, Rejection>) {
    let other = Request::read(text, Spelling::Unusual).expect("it was read before");
    // The other spelling is a few characters longer, which may be too long.
    if other.headers.iter().any(|(_, value)| value.len() > MAX_TOKEN_LEN) {
        return;
    }
    let other = other.setup.verifier.verify(&other.headers, other.body, other.now);
    let about = |answer: &Result<Verified<&[u8]>, Rejection>| match answer {
        Ok(verified) => Ok((verified.by().clone(), verified.expires_at())),
        Err(rejection) => Err(rejection.code()),
    };
    assert_eq!(about(answer), about(&other), "another answer to another spelling");
}

fn code(request: &Request<'_>, body: &[u8], now: i64) -> Result<(), &'static str> {
    request.setup.verifier.verify(&request.headers, body, now).map(|_| ()).map_err(|r| r.code())
}

fn accepted(request: &Request<'_>, verified: &Verified<&[u8]>) {
    let Request { setup, now, headers, body } = request;
    assert_eq!(verified.body(), *body);
    assert!(verified.other_scheme().is_none() || setup.policy == Policy::Either);
    assert!(verified.expires_at().saturating_add(LEEWAY) > *now || *now == i64::MAX);
    match (setup.policy, verified.by()) {
        (Policy::Secret | Policy::Either | Policy::Both, VerifiedBy::Secret { label }) => {
            let mut tokens = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(SECRET_HEADER));
            let (_, token) = tokens.next().expect("an accepted request has a token");
            assert!(tokens.next().is_none(), "one of two tokens was accepted");
            let (_, secret) =
                setup.secrets.iter().find(|(known, _)| **known == **label).expect("a known label");
            assert_signed_for(token, secret, body, Some(*now));
        }
        (Policy::Asymmetric | Policy::Either, VerifiedBy::Asymmetric { kid }) => {
            let known = setup.key_set.as_ref().expect("a key set").to_string();
            assert!(kid.is_empty() || known.contains(&**kid), "an unknown key {kid}");
        }
        (policy, by) => panic!("{by} was accepted by the policy {policy}"),
    }

    // No other body fits the token.
    let mut longer = body.to_vec();
    longer.push(b' ');
    let mut shorter = body.to_vec();
    let mut changed = body.to_vec();
    if shorter.pop().is_some() {
        let at = usize::try_from(now.rem_euclid(1 << 30)).unwrap_or(0) % changed.len();
        changed[at] ^= 1;
        other_body_is_refused(request, &shorter);
        other_body_is_refused(request, &changed);
    }
    other_body_is_refused(request, &longer);

    // The time ends it, and nothing else does.
    let end = verified.expires_at().saturating_add(LEEWAY);
    if matches!(setup.policy, Policy::Secret | Policy::Asymmetric) {
        assert_eq!(code(request, body, end), Err("expired"));
    }

    // No letter of a token is without meaning.
    if setup.policy != Policy::Either {
        for at in 0..headers.len() {
            let (name, value) = &headers[at];
            let own = match verified.by() {
                VerifiedBy::Secret { .. } => SECRET_HEADER,
                _ => dt_verify::ASYMMETRIC_HEADER,
            };
            let token = value.trim_ascii();
            if !name.eq_ignore_ascii_case(own) || token.is_empty() {
                continue;
            }
            let mut other = token.to_vec();
            let place = body.len().wrapping_mul(31) % other.len();
            other[place] = if other[place] == b'A' { b'B' } else { b'A' };
            let mut headers = headers.clone();
            headers[at].1 = Cow::Owned(other);
            assert!(setup.verifier.verify(&headers, *body, *now).is_err(), "a changed token was accepted");
            headers.remove(at);
            assert_eq!(
                setup.verifier.verify(&headers, *body, *now).map_err(|r| r.code()).err(),
                Some("signature_missing")
            );
        }
    }
}

/// Another body than the accepted one must be refused because it is another.
fn other_body_is_refused(request: &Request<'_>, body: &[u8]) {
    let refused = code(request, body, request.now);
    // With `either`, the reason may be that of the other scheme.
    if request.setup.policy == Policy::Either {
        assert!(refused.is_err(), "a changed body was accepted");
    } else {
        assert_eq!(refused, Err("checksum_mismatch"));
    }
}

fn refused(request: &Request<'_>, rejection: &Rejection) {
    assert!(Rejection::CODES.contains(&rejection.code()));
    let _fault = rejection.fault();
    let shown = rejection.to_string();
    assert!(!shown.chars().any(char::is_control), "{shown:?} is not fit for a log");
    assert!(shown.len() < 1024, "{} bytes are too long for a log", shown.len());
    assert!(!format!("{rejection:?}").is_empty());
    let Rejection::Expired { expired_at, now, .. } = rejection else { return };
    assert_eq!(*now, request.now);
    // Expired promises that all else holds: a moment before, nothing but the time may stand against it.
    match code(request, request.body, expired_at.saturating_add(LEEWAY - 1)) {
        Ok(()) | Err("not_yet_valid") => {}
        // Two tokens may have two ends.
        Err("expired") if request.setup.policy == Policy::Both => {}
        // A token that ends before it begins is not yet valid then, and the other scheme's reason may come first.
        Err(_) if request.setup.policy == Policy::Either => {}
        Err(other) => panic!("the token was called expired, but then it was {other}"),
    }
}
