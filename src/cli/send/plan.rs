//! What `send` sends: the bodies, their tokens, the faults that can be put into them, and which answers they ask for.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use clap::ValueEnum;
use http::StatusCode;
use sha2::{Digest, Sha256};

use dt_verify::event::{EventType, Sample};
use dt_verify::{Secret, Signer, SignerError, xid};

/// The project that made-up events come from, unless set.
pub(super) const PROJECT: &str = "s3nd0pr0ject00000000";

/// How many devices there are of each event type, so that receivers that work per device have some to work on.
const DEVICES: u64 = 10;

/// How old the token of `expired` is: two hours, where DT's tokens are good for one.
const EXPIRED_AGE: i64 = 7_200;

/// What is wrong with the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Fault {
    /// Nothing: as DT sends it
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
    /// Random text for a token
    Garbage,
}

impl Fault {
    /// Whether a receiver has to accept such requests.
    pub(super) const fn is_acceptable(self) -> bool {
        matches!(self, Self::None | Self::Duplicate)
    }

    /// Whether an answer is the right one. DT takes any 2xx for "accepted".
    pub(super) fn expects(self, status: StatusCode) -> bool {
        if self.is_acceptable() { status.is_success() } else { status == StatusCode::UNAUTHORIZED }
    }

    /// The right answer in words.
    pub(super) const fn expected(self) -> &'static str {
        if self.is_acceptable() { "2xx" } else { "401" }
    }

    /// Whether the receiver's own secret is needed to make such requests.
    pub(super) const fn needs_secret(self) -> bool {
        !matches!(self, Self::WrongSecret | Self::Unsigned | Self::Garbage)
    }
}

/// Where bodies come from.
#[derive(Debug)]
pub(super) enum Bodies {
    /// Made up, of these types in turn.
    Samples { types: Vec<EventType>, project: String },
    /// These bytes, every time.
    Exactly(Bytes),
}

/// What makes the ids and secrets of this run differ from those of any other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    events: u64,
    tokens: u64,
}

impl Run {
    /// A run of its own. There is no more randomness in a run than this; the rest is counting.
    pub(super) fn random() -> Result<Self, getrandom::Error> {
        Ok(Self { events: getrandom::u64()?, tokens: getrandom::u64()? })
    }

    /// A secret that no one else has.
    pub(super) fn other_secret(self) -> String {
        format!("{:016x}{:016x}", self.events, self.tokens)
    }
}

/// What one run sends.
#[derive(Debug)]
pub(super) struct Plan {
    bodies: Bodies,
    fault: Fault,
    signer: Option<Signer>,
    run: Run,
}

/// One request's own part.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shot {
    pub(super) body: Bytes,
    pub(super) token: Option<String>,
}

impl Plan {
    /// Brings together what is sent. Faults that do not sign need no secret.
    pub(super) fn new(bodies: Bodies, fault: Fault, secret: Option<Secret>, run: Run) -> Self {
        Self { bodies, fault, signer: secret.map(Signer::secret), run }
    }

    pub(super) const fn fault(&self) -> Fault {
        self.fault
    }

    /// How often each event is sent.
    pub(super) const fn copies(&self) -> u64 {
        if matches!(self.fault, Fault::Duplicate) { 2 } else { 1 }
    }

    /// The body of the event of this number, as it happens now.
    pub(super) fn body(&self, event: u64, unix_millis: i64) -> Bytes {
        let (types, project) = match &self.bodies {
            Bodies::Exactly(body) => return body.clone(),
            Bodies::Samples { types, project } => (types, project),
        };
        let count = u64::try_from(types.len()).unwrap_or(u64::MAX);
        let (round, place) = (
            event.checked_div(count).unwrap_or(0),
            event.checked_rem(count).and_then(|place| usize::try_from(place).ok()).unwrap_or(0),
        );
        let event_type = types.get(place).cloned().unwrap_or(EventType::Touch);
        // A device has one type for good, so each event type has devices of its own.
        let of_type = EventType::KNOWN.iter().position(|known| *known == event_type);
        let of_type = u64::try_from(of_type.unwrap_or(EventType::KNOWN.len())).unwrap_or(0);
        let device = of_type.saturating_mul(DEVICES).saturating_add(round % DEVICES);
        let unique = self.run.events.wrapping_add(event);
        let sample = Sample {
            event_type,
            event_id: &xid(unix_millis.div_euclid(1000), unique.to_be_bytes()),
            project,
            device: &format!("emu{}", xid(0, device.to_be_bytes())),
            unix_millis,
            seed: unique,
        };
        Bytes::from(sample.body())
    }

    /// Makes a request of a body, with the fault in it. `request` is its number: no other has the same token id.
    pub(super) fn shot(&self, body: &Bytes, request: u64, unix_seconds: i64) -> Result<Shot, SignerError> {
        let issued_at = match self.fault {
            Fault::Expired => unix_seconds.saturating_sub(EXPIRED_AGE),
            _ => unix_seconds,
        };
        let unique = self.run.tokens.wrapping_add(request);
        let token = match (self.fault, &self.signer) {
            (Fault::Garbage, _) => Some(garbage(unique)),
            (Fault::Unsigned, _) | (_, None) => None,
            (_, Some(signer)) => Some(signer.sign(body, issued_at, &xid(issued_at, unique.to_be_bytes()))?),
        };
        let body = if self.fault == Fault::Tampered { changed(body, unique) } else { body.clone() };
        Ok(Shot { body, token })
    }
}

/// Three pieces of base64url that are nothing else.
fn garbage(seed: u64) -> String {
    let piece = |part: u8| {
        let hash = Sha256::new().chain_update(seed.to_be_bytes()).chain_update([part]).finalize();
        URL_SAFE_NO_PAD.encode(hash)
    };
    format!("{}.{}.{}", piece(0), piece(1), piece(2))
}

/// The same with one bit of one byte flipped, somewhere else in each request.
fn changed(body: &Bytes, seed: u64) -> Bytes {
    let mut bytes = body.to_vec();
    let place = u64::try_from(bytes.len()).ok().and_then(|len| seed.checked_rem(len));
    let place = place.and_then(|place| usize::try_from(place).ok());
    if let Some(byte) = place.and_then(|place| bytes.get_mut(place)) {
        *byte ^= 1;
    }
    Bytes::from(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use dt_verify::{SECRET_HEADER, Verifier};

    const NOW: i64 = 1_700_000_000;
    const RUN: Run = Run { events: u64::MAX - 1, tokens: 7 };

    fn secret() -> Secret {
        Secret::new("some-good-secret").unwrap()
    }

    fn plan(fault: Fault) -> Plan {
        let types = EventType::KNOWN.to_vec();
        let secret = match fault {
            Fault::WrongSecret => Secret::new(RUN.other_secret()).unwrap(),
            _ => secret(),
        };
        Plan::new(Bodies::Samples { types, project: PROJECT.to_owned() }, fault, Some(secret), RUN)
    }

    fn verdict(fault: Fault, event: u64) -> &'static str {
        let plan = plan(fault);
        let shot = plan.shot(&plan.body(event, NOW * 1000), event, NOW).unwrap();
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
            let shown = plan(*fault).shot(&Bytes::from_static(b"{}"), 0, NOW).unwrap().token;
            assert_ne!(shown, plan(Fault::None).shot(&Bytes::from_static(b"{}"), 0, NOW).unwrap().token);
        }
    }

    #[test]
    fn types_take_turns_and_ids_differ() {
        let (plan, mut ids, mut types) = (plan(Fault::None), BTreeSet::new(), BTreeSet::new());
        let mut device_types = BTreeSet::new();
        for event in 0..190 {
            let body: serde_json::Value = serde_json::from_slice(&plan.body(event, NOW * 1000)).unwrap();
            assert!(ids.insert(body["event"]["eventId"].to_string()));
            types.insert(body["event"]["eventType"].to_string());
            device_types.insert((
                body["metadata"]["deviceId"].to_string(),
                body["metadata"]["deviceType"].to_string(),
            ));
        }
        assert_eq!(types.len(), EventType::KNOWN.len());
        let devices: BTreeSet<_> = device_types.iter().map(|(device, _)| device).collect();
        assert_eq!((devices.len(), device_types.len()), (190, 190), "a device keeps its type");
    }

    #[test]
    fn given_bytes_are_sent_as_they_are() {
        let exact = Bytes::from_static(b" {}\n");
        let plan = Plan::new(Bodies::Exactly(exact.clone()), Fault::None, Some(secret()), RUN);
        for event in 0..3 {
            let shot = plan.shot(&plan.body(event, NOW), event, NOW).unwrap();
            assert_eq!(shot.body, exact);
        }
    }

    #[test]
    fn tokens_of_one_body_differ_by_their_id() {
        let plan = plan(Fault::Duplicate);
        let body = plan.body(0, NOW);
        assert_eq!(plan.copies(), 2);
        assert_ne!(plan.shot(&body, 0, NOW), plan.shot(&body, 1, NOW));
    }
}
