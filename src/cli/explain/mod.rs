//! Why a request is refused, in a user's words.
//!
//! Most refusals have one of a few dozen causes: a line end at the end of the body, a secret in quotes, a clock that is
//! off. Each is a row of the table in `suspects.rs`: what might have been done to the request, and how to undo it. What
//! is undone is verified again, so a suspect is named only when its signature or checksum proves it; what cannot be
//! undone is told by `verdict.rs` from the rejection and the token.
//!
//! The proof comes in steps that do not depend on each other: first the signature, whatever the body; then the checksum
//! of the body; then the time. So causes of different steps are found together, and two of one step as well.

mod attempt;
mod body;
mod json_text;
mod member_order;
mod numbers;
mod peek;
mod secret;
mod suspects;
mod token;
mod verdict;

pub(super) use attempt::{Attempt, TrustedKeys};
use attempt::{Scheme, Stage};
use suspects::SUSPECTS;

use dt_verify::Policy;

/// One thing that is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cause {
    /// The stable name.
    pub(super) code: &'static str,
    /// What it is and what helps. Never holds a secret.
    pub(super) text: String,
}

/// Finds out why a request that was refused was refused.
pub(super) fn explain(attempt: &Attempt, policy: Policy, now: i64) -> Vec<Cause> {
    let mut causes: Vec<Cause> = Vec::new();
    for scheme in schemes(attempt, policy) {
        for cause in explain_scheme(attempt, scheme, now) {
            // With two schemes, the body and the time are wrong for both in the same way.
            if !causes.contains(&cause) {
                causes.push(cause);
            }
        }
    }
    causes
}

/// The schemes to explain. Where one of two is enough, that is the one that was sent.
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
        let Some((found, mended)) = mend(&attempt, scheme, stage, now) else { break };
        causes.extend(found);
        attempt = mended;
    }
    if let Err(rejection) = attempt.verify(scheme, now) {
        causes.push(verdict::of(&rejection, &attempt, scheme, now));
    }
    causes
}

/// Undoes one or two things, so that the attempt gets past the stage.
fn mend(attempt: &Attempt, scheme: Scheme, stage: Stage, now: i64) -> Option<(Vec<Cause>, Attempt)> {
    let suspects: Vec<_> = SUSPECTS.iter().filter(|suspect| suspect.stage() == stage).collect();
    let past = |attempt: &Attempt| Stage::of(&attempt.verify(scheme, now)) > stage;
    let mut first_steps = Vec::new();
    for suspect in &suspects {
        for (cause, mended) in suspect.undo(attempt, scheme) {
            if past(&mended) {
                return Some((vec![cause], mended));
            }
            first_steps.push((cause, mended));
        }
    }
    for (first, half) in first_steps {
        for suspect in &suspects {
            let mut undone = suspect.undo(&half, scheme).into_iter();
            if let Some((second, mended)) = undone.find(|(_, mended)| past(mended)) {
                return Some((vec![first, second], mended));
            }
        }
    }
    None
}

/// The algorithm that a token names, if it is a token.
pub(super) fn algorithm(token: &str) -> Option<String> {
    peek::Peek::into(token.as_bytes()).alg().map(str::to_owned)
}
