//! The deliveries that DT sends: their events, and the typed payload of each event type.
//!
//! They are parsed from a [`Verified`](crate::Verified) body, so that no unverified body is used by mistake; only
//! [`Delivery::parse_stored`] and [`target_and_time`] take the bytes of a body that was verified before it was stored. This
//! module does no I/O, reads no clock and panics on no input.
//!
//! | type | for programs that | cost |
//! |---|---|---|
//! | [`Envelope`] | forward events: id, type, target, time, device, project | one pass without copies |
//! | [`Delivery`] | use events: all of the above, labels, metadata, a typed [`Payload`] | builds a JSON tree |
//! | [`Reading`] | store events: the values of a [`Delivery`] as rows, whatever their type | one list of borrowed values |
//!
//! The first two accept the same bodies. They return [`NotADelivery`] only for a body that is not JSON, or that lacks one of the two
//! required members, `event.eventId` and `event.eventType`. Everything else is accepted, since DT adds event types, fields and
//! values: an unknown event type is [`Payload::Unknown`], a payload of another form [`Payload::Unreadable`], an unknown value such
//! as a new `state` the variant `Other` of its enum; unknown members, and members of another type than documented, are in `extra`.
//!
//! Each event type has a file below `types/`, and a line in the table there.
//!
//! The forms are those of DT's documentation, "Receiving Events" and "Events" on
//! <https://docs.developer.disruptive-technologies.com>, and of the events in the tests of DT's Python clients.
//!
//! # Examples
//!
//! ```
//! use dt_verify::event::{Delivery, EventType, Payload, Sample};
//! # use dt_verify::{Secret, Signer, Verifier};
//! # let secret = Secret::new("some-good-secret").unwrap();
//! # let verifier = Verifier::builder().secret("primary", secret.clone()).build().unwrap();
//! # let sample = Sample { event_type: EventType::Temperature, event_id: "c82gg9catj3vmh4248og", project: "c0md3mm0c7pet3vico8g",
//! #     device: "emuc1ul5qf2ghkeoq4nj7d0", unix_millis: 1_700_000_000_000, seed: 1 };
//! # let body = sample.body();
//! # let token = Signer::secret(secret).sign(body.as_bytes(), 1_700_000_000, "c82gg99hga35jc2afkeg").unwrap();
//! let verified = verifier.verify(&[("X-Dt-Signature", token)], &body, 1_700_000_001).unwrap();
//! let delivery = Delivery::parse(&verified).unwrap();
//! if let Payload::Temperature(temperature) = &delivery.event.data {
//!     println!("{}: {} °C", delivery.device().unwrap_or("?"), temperature.value);
//! }
//! # assert!(matches!(delivery.event.data, Payload::Temperature(_)));
//! ```

mod delivery;
mod envelope;
mod event_type;
mod fast_path;
mod json;
mod members;
mod not_a_delivery;
mod open_enum;
mod reading;
mod rng;
mod sample;
pub mod simulation;
mod target_name;
#[cfg(test)]
mod tests;
mod timestamp;
mod types;

pub use crate::rfc3339::{append_rfc3339_millis, rfc3339_micros, rfc3339_millis, rfc3339_seconds};
pub use delivery::{Delivery, Event, Metadata};
pub use envelope::{Envelope, target_and_time};
pub use not_a_delivery::{MAX_NAME_LEN, NotADelivery};
pub use reading::{Reading, ReadingValue};
pub use sample::Sample;
pub use timestamp::Timestamp;
pub use types::{EventType, Payload, payload};
