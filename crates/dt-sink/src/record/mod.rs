//! The data that the stages of the service exchange: a [`Record`] is an event for the sinks; a [`DeadLetter`] is a delivery that
//! a sink rejected, or that could not be accepted or read. A [`Format`] is the representation of a record in line-based output;
//! [`PathTemplate`] and [`TopicTemplate`] determine its file or topic.

mod cloud_event;
mod format;
mod json_parts;
mod json_text;
mod kept_headers;
pub mod line_protocol;
mod path_template;
mod provenance;
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
pub use provenance::{ApiSource, Provenance};
pub use request_id::{NotARequestId, RequestId, RequestIds};
pub use template::{BadTemplate, NotATemplate, Part, Placeholder, Template};
pub use topic_template::TopicTemplate;

use dt_verify::event::{Delivery, Envelope, NotADelivery};
use dt_verify::{Verified, VerifiedBy};

/// A verified delivery, or an event of DT's API in the form of one, with its exact bytes and the fields that routing needs.
#[derive(Debug, Clone)]
pub struct Record {
    /// The name of the connector that received the event.
    pub connector: Arc<str>,
    /// When the event was received, in Unix milliseconds.
    pub received_at: i64,
    /// How the event reached this receiver: the key with which its request was verified, or DT's API.
    pub provenance: Provenance,
    /// `event.eventId`: equal for every copy of the event. This field and the following texts share the memory of the body.
    pub event_id: ByteString,
    /// `event.eventType`, such as `touch`.
    pub event_type: ByteString,
    /// The id of the project in `event.targetName`; `None` if it names no project.
    pub project: Option<ByteString>,
    /// The id of the device in `event.targetName`, else `metadata.deviceId`; `None` if neither names a device.
    pub device: Option<ByteString>,
    /// The id of the request in which the event was received; `None` if it is not known, or the event is of DT's API.
    pub request_id: Option<RequestId>,
    /// The parts of the request's headers that are stored for dead letters; empty for an event of DT's API.
    pub headers: KeptHeaders,
    /// The body of the request, as received. For an event of DT's API, a body of the same form that contains the event as received.
    pub body: Bytes,
}

/// Returns a text that was read from a body: a slice that shares the memory of the body, or a copy if escapes were removed.
fn part(body: &Bytes, text: &str) -> ByteString {
    let start = text.as_ptr().addr().checked_sub(body.as_ptr().addr());
    let range = start.and_then(|start| Some(start..start.checked_add(text.len())?));
    let shared = range.filter(|range| range.end <= body.len()).map(|range| body.slice(range));
    shared.and_then(|part| ByteString::try_from(part).ok()).unwrap_or_else(|| ByteString::from(text))
}

impl Record {
    /// Reads the fields that routing needs from a verified body. Add the headers with [`with_headers`](Self::with_headers).
    ///
    /// # Errors
    ///
    /// [`NotADelivery`] if the authentic body is not a delivery.
    pub fn read(
        verified: &Verified<Bytes>,
        connector: Arc<str>,
        received_at: i64,
    ) -> Result<Self, NotADelivery> {
        let (envelope, body) = (Envelope::parse(verified)?, verified.inner());
        Ok(Self {
            connector,
            received_at,
            provenance: verified.by().clone().into(),
            event_id: part(body, &envelope.event_id),
            event_type: part(body, &envelope.event_type),
            project: envelope.project().map(|project| part(body, project)),
            device: envelope.device().map(|device| part(body, device)),
            request_id: None,
            headers: KeptHeaders::default(),
            body: body.clone(),
        })
    }

    /// Parses the body: the typed payload with its [readings](Delivery::readings), the labels and the metadata. This builds a
    /// JSON tree, so a sink should call it only if it needs more than the fields of the record.
    ///
    /// # Errors
    ///
    /// [`NotADelivery`] if the body is not a delivery, which [`read`](Self::read) excludes.
    pub fn delivery(&self) -> Result<Delivery, NotADelivery> {
        Delivery::parse_stored(&self.body)
    }

    /// Returns a record of a fictitious event with this id, for tests of sinks.
    #[must_use]
    pub fn sample(event_id: &str) -> Self {
        Self {
            connector: Arc::from("default"),
            received_at: 1000,
            provenance: VerifiedBy::Secret { label: Arc::from("a") }.into(),
            event_id: event_id.into(),
            event_type: "touch".into(),
            project: None,
            device: None,
            request_id: None,
            headers: KeptHeaders::default(),
            body: Bytes::from_static(b"{}"),
        }
    }

    /// Returns the record with the parts of its request's headers that are stored ([`KeptHeaders`]).
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

/// Why a delivery was dead-lettered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// A sink rejected the event for good.
    Rejected {
        /// The name of the sink that rejected the event.
        sink: Arc<str>,
    },
    /// The request is authentic, but its body is not a delivery that this program can read.
    Unreadable,
    /// The request is authentic, but its token has expired.
    Expired,
    /// The request could not be verified. Stored only if configured: a wrong secret in the configuration of this receiver causes
    /// the same error.
    Refused,
    /// The event was accepted, but its stored data is damaged.
    Damaged,
}

impl Reason {
    /// The codes of all reasons, for tables and metrics.
    pub const CODES: [&'static str; 5] = ["rejected", "unreadable", "expired", "refused", "damaged"];

    /// Returns the stable code of the reason, for metrics, files and the command line.
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

/// A delivery that a sink rejected, or that could not be accepted or read, with everything that is needed to retry it.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// The name of the connector that received the delivery.
    pub connector: Arc<str>,
    /// Why the delivery was dead-lettered.
    pub reason: Reason,
    /// A description of the error in words; `reason` is its code.
    pub error: String,
    /// The number of delivery attempts by the sink.
    pub attempts: u32,
    /// When the delivery was received, in Unix milliseconds.
    pub received_at: i64,
    /// The id of the request in which the delivery was received; `None` if it is not known.
    pub request_id: Option<RequestId>,
    /// `event.eventId`; `None` if it could not be read.
    pub event_id: Option<ByteString>,
    /// The sequence number of the rejected or damaged record in the log; `None` if the delivery is not in the log.
    pub seq: Option<i64>,
    /// The other fields of the record, from which the record can be restored; `None` if the delivery did not become a record.
    pub routing: Option<Routing>,
    /// The two signature headers, as received.
    pub signatures: Vec<(&'static str, String)>,
    /// The names of all other headers. Their values may be credentials and are not stored.
    pub header_names: Vec<String>,
    /// The body of the request, as received.
    pub body: Bytes,
}

/// The fields that a [`Record`] has in addition to those of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routing {
    /// How the event reached this receiver.
    pub provenance: Provenance,
    /// `event.eventType`, such as `touch`.
    pub event_type: ByteString,
    /// The id of the project in `event.targetName`; `None` if it names no project.
    pub project: Option<ByteString>,
    /// The id of the device, as in [`Record::device`].
    pub device: Option<ByteString>,
}

impl DeadLetter {
    /// Returns the dead letter of a request that did not become a record. Add the headers with
    /// [`with_headers`](Self::with_headers).
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

    /// Returns the dead letter with the parts of its request's headers that are stored ([`KeptHeaders`]).
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

    /// Returns the dead letter of a record that a sink rejected after `attempts` delivery attempts.
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
                provenance: record.provenance.clone(),
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
