//! The requests of `send`: their bodies, tokens and faults, and the expected responses.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use clap::ValueEnum;
use http::StatusCode;
use sha2::{Digest, Sha256};

use crate::cli::ids::Run;
use crate::cli::samples::Samples;
use dt_verify::{Secret, Signer, SignerError};

/// The default project of sample events.
pub const PROJECT: &str = "s3nd0pr0ject00000000";

/// The age of the token of `expired`, in seconds: two hours. DT's tokens are valid for one hour.
const EXPIRED_AGE: i64 = 7_200;

/// The fault of the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// No fault, as DT sends it
    None,
    /// One byte of the body is changed after signing
    Tampered,
    /// Signed with another, random secret
    WrongSecret,
    /// Issued two hours ago
    Expired,
    /// No signature header
    Unsigned,
    /// Each event is sent twice, the second time after the first answer
    Duplicate,
    /// Random text instead of a token
    Garbage,
}

impl Fault {
    /// Returns whether a receiver has to accept requests with this fault.
    pub const fn is_acceptable(self) -> bool {
        matches!(self, Self::None | Self::Duplicate)
    }

    /// Returns whether a status is the expected one for this fault. For DT, any 2xx means "accepted".
    pub fn expects(self, status: StatusCode) -> bool {
        if self.is_acceptable() { status.is_success() } else { status == StatusCode::UNAUTHORIZED }
    }

    /// Returns the expected status for this fault, in words.
    pub const fn expected(self) -> &'static str {
        if self.is_acceptable() { "2xx" } else { "401" }
    }

    /// Returns whether requests with this fault need the receiver's secret.
    pub const fn needs_secret(self) -> bool {
        !matches!(self, Self::WrongSecret | Self::Unsigned | Self::Garbage)
    }
}

/// The source of the bodies of events.
#[derive(Debug)]
pub enum Bodies {
    /// Sample events.
    Samples(Samples),
    /// The same bytes for every event.
    Exactly(Bytes),
}

/// The plan of the requests of a run: bodies, fault and keys.
#[derive(Debug)]
pub struct Plan {
    bodies: Bodies,
    fault: Fault,
    signer: Option<Signer>,
    run: Run,
}

/// The body and token of one request.
#[derive(Debug, PartialEq, Eq)]
pub struct PreparedRequest {
    pub body: Bytes,
    pub token: Option<String>,
}

impl Plan {
    /// Creates a plan. `secret` may be `None` for faults that do not need it ([`Fault::needs_secret`]).
    pub fn new(bodies: Bodies, fault: Fault, secret: Option<Secret>, run: Run) -> Self {
        Self { bodies, fault, signer: secret.map(Signer::secret), run }
    }

    pub const fn fault(&self) -> Fault {
        self.fault
    }

    /// Returns the number of times that each event is sent.
    pub const fn copies(&self) -> u64 {
        if matches!(self.fault, Fault::Duplicate) { 2 } else { 1 }
    }

    /// Returns the body of the event with this number, at a time in Unix milliseconds.
    pub fn body(&self, event: u64, unix_millis: i64) -> Bytes {
        match &self.bodies {
            Bodies::Exactly(body) => body.clone(),
            Bodies::Samples(samples) => Bytes::from(samples.body(event, unix_millis)),
        }
    }

    /// Signs a body and applies the fault. `request` is the number of the request, which makes the id of its token unique.
    pub fn prepare(&self, body: &Bytes, request: u64, unix_seconds: i64) -> Result<PreparedRequest, SignerError> {
        let issued_at = match self.fault {
            Fault::Expired => unix_seconds.saturating_sub(EXPIRED_AGE),
            _ => unix_seconds,
        };
        let unique = self.run.unique(request);
        let token = match (self.fault, &self.signer) {
            (Fault::Garbage, _) => Some(garbage(unique)),
            (Fault::Unsigned, _) | (_, None) => None,
            (_, Some(signer)) => {
                Some(signer.sign(body, issued_at, &self.run.token_id(request, issued_at))?)
            }
        };
        let body = if self.fault == Fault::Tampered { changed(body, unique) } else { body.clone() };
        Ok(PreparedRequest { body, token })
    }
}

/// Returns a text that has the form of a token but is not one: three random parts in base64url, joined by dots.
fn garbage(seed: u64) -> String {
    let piece = |part: u8| {
        let hash = Sha256::new().chain_update(seed.to_be_bytes()).chain_update([part]).finalize();
        URL_SAFE_NO_PAD.encode(hash)
    };
    format!("{}.{}.{}", piece(0), piece(1), piece(2))
}

/// Returns the body with one bit flipped, at a different position for each request.
fn changed(body: &Bytes, seed: u64) -> Bytes {
    let mut bytes = body.to_vec();
    let index = u64::try_from(bytes.len()).ok().and_then(|len| seed.checked_rem(len));
    let index = index.and_then(|index| usize::try_from(index).ok());
    if let Some(byte) = index.and_then(|index| bytes.get_mut(index)) {
        *byte ^= 1;
    }
    Bytes::from(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dt_verify::event::EventType;
    use dt_verify::{SECRET_HEADER, Verifier};

    const NOW: i64 = 1_700_000_000;
    const RUN: Run = Run::known(u64::MAX - 1, 7);

    fn secret() -> Secret {
        Secret::new("some-good-secret").unwrap()
    }

    fn plan(fault: Fault) -> Plan {
        let samples = Samples::new(EventType::KNOWN.to_vec(), PROJECT.to_owned(), RUN);
        let secret = match fault {
            Fault::WrongSecret => Secret::new(RUN.other_secret()).unwrap(),
            _ => secret(),
        };
        Plan::new(Bodies::Samples(samples), fault, Some(secret), RUN)
    }

    fn verdict(fault: Fault, event: u64) -> &'static str {
        let plan = plan(fault);
        let shot = plan.prepare(&plan.body(event, NOW * 1000), event, NOW).unwrap();
        let verifier = Verifier::builder().secret("a", secret()).build().unwrap();
        let headers: Vec<_> = shot.token.iter().map(|token| (SECRET_HEADER, token)).collect();
        verifier.verify(&headers, &shot.body, NOW).map_or_else(|rejection| rejection.code(), |_| "ok")
    }

    #[test]
    fn each_fault_is_what_its_name_says() {
        for event in 0..40 {
            for (fault, expected) in [
                (Fault::None, "ok"),
                (Fault::Duplicate, "ok"),
                (Fault::Tampered, "checksum_mismatch"),
                (Fault::WrongSecret, "signature_mismatch"),
                (Fault::Expired, "expired"),
                (Fault::Unsigned, "signature_missing"),
                (Fault::Garbage, "signature_malformed"),
            ] {
                assert_eq!(verdict(fault, event), expected, "{fault:?} {event}");
                let status = if expected == "ok" { StatusCode::NO_CONTENT } else { StatusCode::UNAUTHORIZED };
                assert!(fault.expects(status));
                assert!(!fault.expects(StatusCode::SERVICE_UNAVAILABLE));
            }
        }
    }

    #[test]
    fn faults_that_need_no_secret_do_without() {
        for fault in Fault::value_variants().iter().filter(|fault| !fault.needs_secret()) {
            let shown = plan(*fault).prepare(&Bytes::from_static(b"{}"), 0, NOW).unwrap().token;
            assert_ne!(shown, plan(Fault::None).prepare(&Bytes::from_static(b"{}"), 0, NOW).unwrap().token);
        }
    }

    #[test]
    fn given_bytes_are_sent_as_they_are() {
        let exact = Bytes::from_static(b" {}\n");
        let plan = Plan::new(Bodies::Exactly(exact.clone()), Fault::None, Some(secret()), RUN);
        for event in 0..3 {
            let shot = plan.prepare(&plan.body(event, NOW), event, NOW).unwrap();
            assert_eq!(shot.body, exact);
        }
    }

    #[test]
    fn tokens_of_one_body_differ_by_their_id() {
        let plan = plan(Fault::Duplicate);
        let body = plan.body(0, NOW);
        assert_eq!(plan.copies(), 2);
        assert_ne!(plan.prepare(&body, 0, NOW), plan.prepare(&body, 1, NOW));
    }
}
