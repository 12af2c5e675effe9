//! Explains why a request is refused.
//!
//! Most rejections have one of a few dozen causes: a line end after the body, a secret in quotes, a wrong clock. Each is a row
//! of the table in `suspects.rs`: a change that may have been made to the request, and its reversal. The reversed request is
//! verified again, so a cause is reported only if the signature or the checksum proves it. A cause that cannot be reversed is
//! determined by `verdict.rs` from the rejection and the token.
//!
//! The stages are independent: the signature, for any body; then the checksum of the body; then the time. So causes of
//! different stages are found together, and up to two of each stage.

mod attempt;
mod body;
mod json_text;
mod member_order;
mod numbers;
mod secret;
mod suspects;
mod token;
mod unverified_token;
mod verdict;

pub(super) use attempt::{Attempt, TrustedKeys};
use attempt::{Scheme, Stage};
use suspects::SUSPECTS;
use unverified_token::UnverifiedToken;

use dt_verify::Policy;

/// A cause of a rejection, and its remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// The stable name of the cause.
    pub code: &'static str,
    /// The description and the remedy. It never contains a secret.
    pub text: String,
}

/// Returns the causes for which a request was refused at `now`, in Unix seconds.
pub fn explain(attempt: &Attempt, policy: Policy, now: i64) -> Vec<Cause> {
    let mut causes: Vec<Cause> = Vec::new();
    for scheme in schemes(attempt, policy) {
        for cause in explain_scheme(attempt, scheme, now) {
            // A wrong body or time is found for both schemes.
            if !causes.contains(&cause) {
                causes.push(cause);
            }
        }
    }
    causes
}

/// Returns the schemes to explain. If one of the two is sufficient, it is the one whose header was sent.
fn schemes(attempt: &Attempt, policy: Policy) -> Vec<Scheme> {
    let configured: Vec<_> = match policy {
        Policy::Secret => vec![Scheme::Secret],
        Policy::Asymmetric => vec![Scheme::Asymmetric],
        _ => Scheme::ALL.into_iter().filter(|scheme| attempt.has_keys(*scheme)).collect(),
    };
    let sent: Vec<_> = configured.iter().copied().filter(|scheme| attempt.has_header(*scheme)).collect();
    if policy == Policy::Either && !sent.is_empty() { sent } else { configured }
}

fn explain_scheme(attempt: &Attempt, scheme: Scheme, now: i64) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut attempt = attempt.clone();
    for stage in [Stage::Token, Stage::Body] {
        if Stage::of(&attempt.verify(scheme, now)) != stage {
            continue;
        }
        let Some((found, fixed)) = fix(&attempt, scheme, stage, now) else { break };
        causes.extend(found);
        attempt = fixed;
    }
    if let Err(rejection) = attempt.verify(scheme, now) {
        causes.push(verdict::of(&rejection, &attempt, scheme, now));
    }
    causes
}

/// Reverses one or two changes, so that the attempt passes the stage. Returns the causes and the fixed attempt; `None` if no
/// reversal succeeds.
fn fix(attempt: &Attempt, scheme: Scheme, stage: Stage, now: i64) -> Option<(Vec<Cause>, Attempt)> {
    let suspects: Vec<_> = SUSPECTS.iter().filter(|suspect| suspect.stage() == stage).collect();
    let passes = |attempt: &Attempt| Stage::of(&attempt.verify(scheme, now)) > stage;
    let mut first_steps = Vec::new();
    for suspect in &suspects {
        for (cause, fixed) in suspect.reverse(attempt, scheme) {
            if passes(&fixed) {
                return Some((vec![cause], fixed));
            }
            first_steps.push((cause, fixed));
        }
    }
    for (first, half) in first_steps {
        for suspect in &suspects {
            let mut reversed = suspect.reverse(&half, scheme).into_iter();
            if let Some((second, fixed)) = reversed.find(|(_, fixed)| passes(fixed)) {
                return Some((vec![first, second], fixed));
            }
        }
    }
    None
}

/// Returns the algorithm that a token names; `None` if the text is not a token.
pub fn algorithm(token: &str) -> Option<String> {
    UnverifiedToken::parse(token.as_bytes()).alg().map(str::to_owned)
}
