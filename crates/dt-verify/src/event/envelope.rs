//! The envelope of an event: what is needed to forward it, parsed in one pass over the body.

use std::borrow::Cow;
use std::mem;

use serde::de::MapAccess;

use super::fast_path::parse_fast;
use super::json::{self, At, FieldVisitor, OneOf, Skip, Text};
use super::not_a_delivery::{MAX_NAME_LEN, NotADelivery};
use super::target_name;
use crate::Verified;

/// The fields of a delivery that are needed to forward it, borrowed from its body. Only texts that contain escapes are copied.
///
/// `targetName`, `timestamp` and `deviceId` count as absent if they are not strings. Members that decide where an event is stored
/// must not be repeated, since JSON parsers choose different ones. The texts can contain any characters, also control characters.
///
/// # Examples
///
/// ```
/// use dt_verify::event::Envelope;
/// # use dt_verify::{Secret, Signer, Verifier};
/// # let secret = Secret::new("some-good-secret").unwrap();
/// # let verifier = Verifier::builder().secret("primary", secret.clone()).build().unwrap();
/// let body = br#"{"event":{"eventId":"c82gg9catj3vmh4248og","eventType":"touch","targetName":"projects/p/devices/d"}}"#;
/// # let token = Signer::secret(secret).sign(body, 1_700_000_000, "c82gg99hga35jc2afkeg").unwrap();
/// # let headers = [("X-Dt-Signature", token)];
/// let verified = verifier.verify(&headers, body, 1_700_000_001).unwrap();
/// let envelope = Envelope::parse(&verified).unwrap();
/// assert_eq!(envelope.event_id, "c82gg9catj3vmh4248og");
/// assert_eq!((envelope.project(), envelope.device()), (Some("p"), Some("d")));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Envelope<'a> {
    /// `event.eventId`: not empty, at most [`MAX_NAME_LEN`] bytes. Identifies duplicates.
    pub event_id: Cow<'a, str>,
    /// `event.eventType`: not empty, at most [`MAX_NAME_LEN`] bytes.
    pub event_type: Cow<'a, str>,
    /// `event.targetName`, normally `projects/<project>/devices/<device>`.
    pub target_name: Option<Cow<'a, str>>,
    /// `event.timestamp`, normally RFC 3339.
    pub timestamp: Option<Cow<'a, str>>,
    /// `metadata.deviceId`: the id of the device. [`device`](Self::device) uses it if `targetName` names no device.
    pub metadata_device_id: Option<Cow<'a, str>>,
}

impl<'a> Envelope<'a> {
    /// Parses a verified body.
    ///
    /// # Errors
    ///
    /// Returns [`NotADelivery`] for the same bodies as [`Delivery::parse`](super::Delivery::parse).
    pub fn parse<B: AsRef<[u8]>>(verified: &'a Verified<B>) -> Result<Self, NotADelivery> {
        Self::parse_stored(verified.body())
    }

    /// Parses a body that the caller has verified before, such as a stored one, or that comes from DT's API.
    ///
    /// # Errors
    ///
    /// Returns [`NotADelivery`] for the same bodies as [`parse`](Self::parse).
    pub fn parse_stored(body: &'a [u8]) -> Result<Self, NotADelivery> {
        let body = BodyMembers::of(body)?.ok_or(NotADelivery::NotAnObject)?;
        let event = body.event.only("event")?.flatten().ok_or(NotADelivery::EventMissing)?;
        let event_id = event.id.only("event.eventId")?.flatten().unwrap_or_default();
        let event_type = event.event_type.only("event.eventType")?.flatten().unwrap_or_default();
        Ok(Self {
            event_id: name("event.eventId", event_id, NotADelivery::EventIdMissing)?,
            event_type: name("event.eventType", event_type, NotADelivery::EventTypeMissing)?,
            target_name: event.target_name.only("event.targetName")?.flatten(),
            timestamp: event.timestamp,
            metadata_device_id: match body.metadata.only("metadata")?.flatten() {
                Some(device_id) => device_id.only("metadata.deviceId")?.flatten(),
                None => None,
            },
        })
    }

    /// Returns the id of the device's project, from `targetName`; `None` if that names no project.
    #[must_use]
    pub fn project(&self) -> Option<&str> {
        target_name::project(self.target_name.as_deref()?)
    }

    /// Returns the device's id, from `targetName` or else from `metadata.deviceId`; `None` if the event does not belong to a
    /// device.
    #[must_use]
    pub fn device(&self) -> Option<&str> {
        let in_metadata = || self.metadata_device_id.as_deref().filter(|id| !id.is_empty());
        self.target_name.as_deref().and_then(target_name::device).or_else(in_metadata)
    }
}

/// Returns `event.targetName` and `event.timestamp` of a body that was verified and parsed before; `None` for an absent one.
pub fn target_and_time(body: &[u8]) -> (Option<Cow<'_, str>>, Option<Cow<'_, str>>) {
    let event = BodyMembers::of(body).ok().flatten().and_then(|body| body.event.only("event").ok());
    match event.flatten().flatten() {
        Some(event) => (event.target_name.only("event.targetName").ok().flatten().flatten(), event.timestamp),
        None => (None, None),
    }
}

fn name<'a>(
    member: &'static str,
    text: Cow<'a, str>,
    missing: NotADelivery,
) -> Result<Cow<'a, str>, NotADelivery> {
    match text.len() {
        0 => Err(missing),
        1..=MAX_NAME_LEN => Ok(text),
        found => Err(NotADelivery::TooLong { member, found }),
    }
}

/// A member of which at most one occurrence is valid.
enum Member<T> {
    Absent,
    Once(T),
    Repeated,
}

impl<T> Member<T> {
    /// Adds an occurrence of the member.
    fn add(&mut self, value: T) {
        *self = match mem::replace(self, Self::Repeated) {
            Self::Absent => Self::Once(value),
            Self::Once(_) | Self::Repeated => Self::Repeated,
        };
    }

    /// Returns the only value, or `None` if the member is absent.
    ///
    /// # Errors
    ///
    /// Returns [`NotADelivery::Repeated`] if there are several.
    fn only(self, member: &'static str) -> Result<Option<T>, NotADelivery> {
        match self {
            Self::Absent => Ok(None),
            Self::Once(value) => Ok(Some(value)),
            Self::Repeated => Err(NotADelivery::Repeated { member }),
        }
    }
}

/// Visits the members of the body: reads `event` and `metadata`, and skips all others.
struct Body;

/// The member `deviceId` of `metadata`; an occurrence is `None` if its value is not a string.
type DeviceId<'de> = Member<Option<Cow<'de, str>>>;

struct BodyMembers<'de> {
    event: Member<Option<EventMembers<'de>>>,
    metadata: Member<Option<DeviceId<'de>>>,
}

impl<'de> BodyMembers<'de> {
    /// Parses a body. Returns `None` if it is JSON, but not an object.
    fn of(body: &'de [u8]) -> Result<Option<Self>, NotADelivery> {
        let usual = std::str::from_utf8(body).ok().and_then(parse_fast);
        let Some(usual) = usual else { return json::visit(body, Body) };
        let event = EventMembers {
            id: Member::Once(usual.event_id.map(Cow::Borrowed)),
            event_type: Member::Once(usual.event_type.map(Cow::Borrowed)),
            target_name: Member::Once(usual.target_name.map(Cow::Borrowed)),
            timestamp: usual.timestamp.map(Cow::Borrowed),
        };
        let device_id = Member::Once(usual.device_id.map(Cow::Borrowed));
        Ok(Some(Self { event: Member::Once(Some(event)), metadata: Member::Once(Some(device_id)) }))
    }
}

/// Returns `eventId`, `eventType`, `targetName`, `timestamp` and `deviceId` as the general JSON parser reads them.
#[cfg(test)]
pub fn read_by_the_parser(body: &[u8]) -> Result<[Option<Cow<'_, str>>; 5], NotADelivery> {
    let body = json::visit(body, Body)?.ok_or(NotADelivery::NotAnObject)?;
    let event = body.event.only("event")?.flatten().ok_or(NotADelivery::EventMissing)?;
    let (id, event_type) = (event.id.only("event.eventId")?, event.event_type.only("event.eventType")?);
    let target_name = event.target_name.only("event.targetName")?.flatten();
    let device_id = match body.metadata.only("metadata")?.flatten() {
        Some(device_id) => device_id.only("metadata.deviceId")?.flatten(),
        None => None,
    };
    Ok([id.flatten(), event_type.flatten(), target_name, event.timestamp, device_id])
}

impl<'de> FieldVisitor<'de> for Body {
    type Found = Option<BodyMembers<'de>>;

    fn otherwise(self) -> Self::Found {
        None
    }

    fn object<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Found, A::Error> {
        let mut found = BodyMembers { event: Member::Absent, metadata: Member::Absent };
        while let Some(key) = members.next_key_seed(At(OneOf(&["event", "metadata"])))? {
            match key {
                Some("event") => found.event.add(members.next_value_seed(At(EventObject))?),
                Some("metadata") => found.metadata.add(members.next_value_seed(At(MetadataObject))?),
                _ => members.next_value_seed(At(Skip))?,
            }
        }
        Ok(Some(found))
    }
}

/// Reads the members of `event` that an envelope has; `None` if `event` is not an object.
struct EventObject;

struct EventMembers<'de> {
    id: Member<Option<Cow<'de, str>>>,
    event_type: Member<Option<Cow<'de, str>>>,
    target_name: Member<Option<Cow<'de, str>>>,
    timestamp: Option<Cow<'de, str>>,
}

impl<'de> FieldVisitor<'de> for EventObject {
    type Found = Option<EventMembers<'de>>;

    fn otherwise(self) -> Self::Found {
        None
    }

    fn object<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Found, A::Error> {
        const NAMES: &[&str] = &["eventId", "eventType", "targetName", "timestamp"];
        let mut found = EventMembers {
            id: Member::Absent,
            event_type: Member::Absent,
            target_name: Member::Absent,
            timestamp: None,
        };
        while let Some(key) = members.next_key_seed(At(OneOf(NAMES)))? {
            match key {
                Some("eventId") => found.id.add(members.next_value_seed(At(Text))?),
                Some("eventType") => found.event_type.add(members.next_value_seed(At(Text))?),
                Some("targetName") => found.target_name.add(members.next_value_seed(At(Text))?),
                Some("timestamp") => found.timestamp = members.next_value_seed(At(Text))?,
                _ => members.next_value_seed(At(Skip))?,
            }
        }
        Ok(Some(found))
    }
}

/// Reads `deviceId` from the member `metadata`.
struct MetadataObject;

impl<'de> FieldVisitor<'de> for MetadataObject {
    type Found = Option<DeviceId<'de>>;

    fn otherwise(self) -> Self::Found {
        None
    }

    fn object<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Found, A::Error> {
        let mut device_id = Member::Absent;
        while let Some(key) = members.next_key_seed(At(OneOf(&["deviceId"])))? {
            match key {
                Some(_) => device_id.add(members.next_value_seed(At(Text))?),
                None => members.next_value_seed(At(Skip))?,
            }
        }
        Ok(Some(device_id))
    }
}
