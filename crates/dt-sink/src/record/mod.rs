//! The data that the stages of the service exchange: a [`Record`] is an event for the sinks, a [`DeadLetter`] a delivery
//! that no sink takes. A [`Format`] is the representation of a record in line-based output; [`PathTemplate`] and
//! [`TopicTemplate`] determine its file or topic.

mod cloud_event;
mod format;
mod json_parts;
mod json_text;
mod kept_headers;
pub mod line_protocol;
mod path_template;
mod request_id;
mod template;
mod topic_template;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use http::HeaderMap;

pub use cloud_event::CloudEvent;
pub use format::{Format, UnknownFormat};
pub use json_parts::JsonParts;
pub use json_text::{escaped, json_number, write_on_one_line};
pub use kept_headers::KeptHeaders;
pub use path_template::PathTemplate;
pub use request_id::{NotARequestId, RequestId, RequestIds};
pub use template::{BadTemplate, NotATemplate, Part, Placeholder, Template};
pub use topic_template::TopicTemplate;

use dt_verify::event::{Delivery, Envelope, NotADelivery};
use dt_verify::{Verified, VerifiedBy};

/// A verified delivery, with its exact bytes and the fields that routing needs.
#[derive(Debug, Clone)]
pub struct Record {
    /// The name of the connector that received it.
    pub connector: Arc<str>,
    /// When it was received, in Unix milliseconds.
    pub received_at: i64,
    /// The key that verified it.
    pub verified_by: VerifiedBy,
    /// `event.eventId`: equal for every copy of the event. This and the following texts share the memory of the body.
    pub event_id: ByteString,
    /// `event.eventType`, such as `touch`.
    pub event_type: ByteString,
    /// The project in `event.targetName`; `None` if it names none.
    pub project: Option<ByteString>,
    /// The device in `event.targetName`, else `metadata.deviceId`; `None` if neither names one.
    pub device: Option<ByteString>,
    /// The id of the request in which it arrived.
    pub request_id: Option<RequestId>,
    /// The parts of the request's headers that are kept for dead letters.
    pub headers: KeptHeaders,
    /// The body as received.
    pub body: Bytes,
}

/// Returns a text that was read from a body: as a part of the body that shares its memory, or as a copy if it was
/// unescaped.
fn part(body: &Bytes, text: &str) -> ByteString {
    let start = text.as_ptr().addr().checked_sub(body.as_ptr().addr());
    let range = start.and_then(|start| Some(start..start.checked_add(text.len())?));
    let shared = range.filter(|range| range.end <= body.len()).map(|range| body.slice(range));
    shared.and_then(|part| ByteString::try_from(part).ok()).unwrap_or_else(|| ByteString::from(text))
}

impl Record {
    /// Reads the fields that routing needs from a verified body. [`with_headers`](Self::with_headers) adds the headers.
    ///
    /// # Errors
    ///
    /// [`NotADelivery`] if the authentic body is no delivery.
    pub fn read(
        verified: &Verified<Bytes>,
        connector: Arc<str>,
        received_at: i64,
    ) -> Result<Self, NotADelivery> {
        let (envelope, body) = (Envelope::parse(verified)?, verified.inner());
        Ok(Self {
            connector,
            received_at,
            verified_by: verified.by().clone(),
            event_id: part(body, &envelope.event_id),
            event_type: part(body, &envelope.event_type),
            project: envelope.project().map(|project| part(body, project)),
            device: envelope.device().map(|device| part(body, device)),
            request_id: None,
            headers: KeptHeaders::default(),
            body: body.clone(),
        })
    }

    /// Parses the body: the typed payload with its [readings](Delivery::readings), the labels and the metadata. It builds a JSON
    /// tree, so that a sink calls it only if it needs more than the fields of the record.
    ///
    /// # Errors
    ///
    /// [`NotADelivery`] if the body is no delivery, which [`read`](Self::read) excludes.
    pub fn delivery(&self) -> Result<Delivery, NotADelivery> {
        Delivery::parse_stored(&self.body)
    }

    /// Returns a record of a made-up event with this id, for tests of sinks.
    #[must_use]
    pub fn sample(event_id: &str) -> Self {
        Self {
            connector: Arc::from("default"),
            received_at: 1000,
            verified_by: VerifiedBy::Secret { label: Arc::from("a") },
            event_id: event_id.into(),
            event_type: "touch".into(),
            project: None,
            device: None,
            request_id: None,
            headers: KeptHeaders::default(),
            body: Bytes::from_static(b"{}"),
        }
    }

    /// Returns the record with what [`KeptHeaders`] keeps of the headers of its request.
    #[must_use]
    pub fn with_headers(mut self, headers: &HeaderMap) -> Self {
        self.headers = KeptHeaders::of(headers);
        self
    }

    /// Returns the record with the id of its request.
    #[must_use]
    pub const fn with_request_id(mut self, id: Option<RequestId>) -> Self {
        self.request_id = id;
        self
    }
}

/// Why a delivery became a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// A sink rejected the event for good.
    Rejected {
        /// The name of the sink.
        sink: Arc<str>,
    },
    /// The request is authentic, but its body is no delivery that this program can read.
    Unreadable,
    /// The request is authentic, but its token has expired.
    Expired,
    /// The request could not be verified. Kept only if configured, since a wrong secret in this receiver looks the same.
    Refused,
    /// The event was accepted, but is damaged on the disk.
    Damaged,
}

impl Reason {
    /// The codes of all reasons, for tables and metrics.
    pub const CODES: [&'static str; 5] = ["rejected", "unreadable", "expired", "refused", "damaged"];

    /// Returns the stable code, for metrics, files and the command line.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Rejected { .. } => "rejected",
            Self::Unreadable => "unreadable",
            Self::Expired => "expired",
            Self::Refused => "refused",
            Self::Damaged => "damaged",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// A delivery that no sink takes, with everything that is needed to try it again.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// The name of the connector that received it.
    pub connector: Arc<str>,
    /// Why no sink takes it.
    pub reason: Reason,
    /// What was wrong, in words: `reason` is the code for it.
    pub error: String,
    /// The number of delivery attempts.
    pub attempts: u32,
    /// When it was received, in Unix milliseconds.
    pub received_at: i64,
    /// The id of the request in which it arrived.
    pub request_id: Option<RequestId>,
    /// `event.eventId`, if it could be read.
    pub event_id: Option<ByteString>,
    /// The sequence number of the record that was rejected or damaged.
    pub seq: Option<i64>,
    /// The other fields of the record, from which it can be restored; `None` if it was no record.
    pub routing: Option<Routing>,
    /// The two signature headers, as received.
    pub signatures: Vec<(&'static str, String)>,
    /// The names of all other headers; their values may be credentials and are not kept.
    pub header_names: Vec<String>,
    /// The body as received.
    pub body: Bytes,
}

/// The fields that a [`Record`] has and a request has not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routing {
    /// The key that verified it.
    pub verified_by: VerifiedBy,
    /// `event.eventType`, such as `touch`.
    pub event_type: ByteString,
    /// The project in `event.targetName`; `None` if it names none.
    pub project: Option<ByteString>,
    /// The device, as in [`Record::device`].
    pub device: Option<ByteString>,
}

impl DeadLetter {
    /// Returns the dead letter of a request that became no record. [`with_headers`](Self::with_headers) adds the headers.
    #[must_use]
    pub fn of_request(
        connector: Arc<str>,
        reason: Reason,
        error: String,
        received_at: i64,
        body: Bytes,
    ) -> Self {
        Self {
            connector,
            reason,
            error,
            attempts: 0,
            received_at,
            request_id: None,
            event_id: None,
            seq: None,
            routing: None,
            signatures: Vec::new(),
            header_names: Vec::new(),
            body,
        }
    }

    /// Returns the dead letter with what [`KeptHeaders`] keeps of the headers of its request.
    #[must_use]
    pub fn with_headers(mut self, headers: &HeaderMap) -> Self {
        let kept = KeptHeaders::of(headers);
        (self.signatures, self.header_names) = (kept.signatures(), kept.names());
        self
    }

    /// Returns the dead letter with the id of its request.
    #[must_use]
    pub const fn with_request_id(mut self, id: Option<RequestId>) -> Self {
        self.request_id = id;
        self
    }

    /// Returns the dead letter with the sequence number of its record.
    #[must_use]
    pub const fn with_seq(mut self, seq: i64) -> Self {
        self.seq = Some(seq);
        self
    }

    /// Returns the dead letter of a record that a sink rejected, after `attempts` attempts.
    #[must_use]
    pub fn of_record(record: &Record, sink: Arc<str>, error: String, attempts: u32) -> Self {
        Self {
            connector: Arc::clone(&record.connector),
            reason: Reason::Rejected { sink },
            error,
            attempts,
            received_at: record.received_at,
            request_id: record.request_id,
            event_id: Some(record.event_id.clone()),
            seq: None,
            routing: Some(Routing {
                verified_by: record.verified_by.clone(),
                event_type: record.event_type.clone(),
                project: record.project.clone(),
                device: record.device.clone(),
            }),
            signatures: record.headers.signatures(),
            header_names: record.headers.names(),
            body: record.body.clone(),
        }
    }
}
