//! What DT sends: deliveries, their events, and the typed payload of each event type.
//!
//! Everything here is made from a [`Verified`](crate::Verified) body and from nothing else, so that nobody
//! reads what nobody signed. Nothing here does I/O, reads a clock or panics on any input.
//!
//! | what | for whom | cost |
//! |---|---|---|
//! | [`Envelope`] | whoever passes events on: id, type, target, time, device, project | one pass, nothing copied |
//! | [`Delivery`] | whoever uses events: all of the above, labels, metadata, a typed [`Payload`] | a tree is built |
//!
//! Both accept the same bodies. [`NotADelivery`] is kept for bodies that are not JSON or lack the two members without
//! which nothing can be done, `event.eventId` and `event.eventType`. All else is tolerated, as DT adds event types,
//! fields and values over the years: an unknown event type is [`Payload::Unknown`], a payload of another shape
//! [`Payload::Unreadable`], an unknown value such as a new `state` is that enum's `Other`, and members that are not
//! known here, or not of the documented type, are in the `extra` beside those that are.
//!
//! All about an event type is in its file below `types/`, and in its line of the table there.
//!
//! The shapes are those of DT's documentation, "Receiving Events" and "Events" on
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
pub use sample::Sample;
pub use timestamp::Timestamp;
pub use types::{EventType, Payload, payload};
