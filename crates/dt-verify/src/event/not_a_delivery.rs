//! The reasons for which an authentic body is not a delivery: one variant for each. None of them shows content of the body.

/// The largest size of `eventId` and `eventType` in bytes. DT's ids have 20, its longest type has 18.
pub const MAX_NAME_LEN: usize = 256;

/// Why a body is not a delivery.
///
/// DT has signed it, so a receiver should store it for inspection and answer 2xx, since a retry would send the same body.
/// [`code`](Self::code) is stable; the text may change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotADelivery {
    /// The body is not UTF-8, as JSON has to be (RFC 8259, section 8.1).
    #[error("the body is not UTF-8: byte {valid_up_to} begins no character")]
    NotUtf8 {
        /// The number of valid bytes before the first invalid one.
        valid_up_to: usize,
    },
    /// The body is not one JSON value: bad syntax, bytes after it, more than 127 levels, a byte order mark, a
    /// number that no `f64` holds, half of a surrogate pair.
    #[error("the body is not JSON: line {line}, column {column}")]
    NotJson {
        /// Line of the first problem, from 1.
        line: usize,
        /// Column in bytes, from 1, or 0 for the end of the line before.
        column: usize,
    },
    /// The body is JSON, but not an object.
    #[error("the body is not a JSON object")]
    NotAnObject,
    /// There is no `event`, or it is not an object.
    #[error("there is no object `event`")]
    EventMissing,
    /// There is no `event.eventId`, or it is not a string, or empty.
    #[error("there is no text `event.eventId`")]
    EventIdMissing,
    /// There is no `event.eventType`, or it is not a string, or empty.
    #[error("there is no text `event.eventType`")]
    EventTypeMissing,
    /// `eventId` or `eventType` is longer than [`MAX_NAME_LEN`].
    #[error("`{member}` has {found} bytes, more than {MAX_NAME_LEN}")]
    TooLong {
        /// The member that is too long: `event.eventId` or `event.eventType`.
        member: &'static str,
        /// The size of its value, in bytes.
        found: usize,
    },
    /// A required member is repeated. Any choice between the values would be a guess.
    #[error("`{member}` is there more than once")]
    Repeated {
        /// The repeated member: `event`, `event.eventId` or `event.eventType`.
        member: &'static str,
    },
}

impl NotADelivery {
    /// The codes of all variants, for tables and metrics.
    pub const CODES: [&'static str; 8] = [
        "not_utf8",
        "not_json",
        "not_an_object",
        "event_missing",
        "event_id_missing",
        "event_type_missing",
        "too_long",
        "repeated",
    ];

    /// Returns the stable code of this variant.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotUtf8 { .. } => "not_utf8",
            Self::NotJson { .. } => "not_json",
            Self::NotAnObject => "not_an_object",
            Self::EventMissing => "event_missing",
            Self::EventIdMissing => "event_id_missing",
            Self::EventTypeMissing => "event_type_missing",
            Self::TooLong { .. } => "too_long",
            Self::Repeated { .. } => "repeated",
        }
    }
}

impl From<serde_json::Error> for NotADelivery {
    /// Keeps only the position, since the library's text may quote the body.
    fn from(error: serde_json::Error) -> Self {
        Self::NotJson { line: error.line(), column: error.column() }
    }
}
