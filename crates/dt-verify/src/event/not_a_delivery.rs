//! Why an authentic body cannot be read as a delivery: one variant a cause, none of which shows what the body holds.

/// The most bytes that `eventId` and `eventType` may have. DT's ids have 20, its longest type 18.
pub const MAX_NAME_LEN: usize = 256;

/// Why a body is not a delivery.
///
/// It was signed by DT all the same, so a receiver keeps it for a human and answers 2xx: sending it again cannot help.
/// [`code`](Self::code) is stable; the text may change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotADelivery {
    /// The body is not UTF-8, as JSON has to be (RFC 8259, section 8.1).
    #[error("the body is not UTF-8: byte {valid_up_to} begins no character")]
    NotUtf8 {
        /// How many bytes are UTF-8 before the one that is not.
        valid_up_to: usize,
    },
    /// The body is not one JSON value: bad syntax, something after it, more than 127 levels, a byte order mark, a
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
    /// A name is longer than [`MAX_NAME_LEN`].
    #[error("`{member}` has {found} bytes, more than {MAX_NAME_LEN}")]
    TooLong {
        /// `event.eventId` or `event.eventType`.
        member: &'static str,
        /// How many bytes it has.
        found: usize,
    },
    /// A member without which nothing can be done is there more than once: which of them counts would be a guess.
    #[error("`{member}` is there more than once")]
    Repeated {
        /// `event`, `event.eventId` or `event.eventType`.
        member: &'static str,
    },
}

impl NotADelivery {
    /// All codes there are, for tables and metrics.
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

    /// The stable name of the cause.
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
    /// Keeps the place only: the library's text may quote the body.
    fn from(error: serde_json::Error) -> Self {
        Self::NotJson { line: error.line(), column: error.column() }
    }
}
