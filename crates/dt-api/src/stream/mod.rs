//! The device stream: events of a project as they are published (DT docs, "Streaming").
//!
//! A stream has no acknowledgement and no position. Events that are published while no stream is open, or that are lost with a
//! connection, must be read from the event history.

mod lines;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderValue, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use dt_verify::event::Timestamp;

use crate::client::Client;
use crate::connection::causes;
use crate::error::{Error, FailedCall};
use crate::exchange::{Call, Needs, OpenBody, not_understood, of_status};
use crate::history::EventRecord;
use crate::json::{BadAnswer, Object};
use crate::url::{query, segment};
use lines::{Lines, TooLarge};

/// The default time between two pings (DT's Python client).
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// The form in which DT sends the messages of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum StreamFormat {
    /// One JSON object per line.
    #[default]
    JsonLines,
    /// Server-sent events.
    ServerSentEvents,
}

/// The selection of the events of a stream, and how DT sends them.
#[derive(Debug, Clone)]
#[must_use]
pub struct StreamQuery {
    members: Vec<(&'static str, String)>,
    ping: Duration,
    format: StreamFormat,
}

impl Default for StreamQuery {
    fn default() -> Self {
        Self { members: Vec::new(), ping: PING_INTERVAL, format: StreamFormat::default() }
    }
}

impl StreamQuery {
    /// Returns a query for all events, with a ping every 10 s.
    pub fn new() -> Self {
        Self::default()
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.members.push((name, value.into()));
        self
    }

    /// Selects events of an event type. Can be called repeatedly, to select several types.
    pub fn event_type(self, event_type: &dt_verify::event::EventType) -> Self {
        self.with("event_types", event_type.as_str())
    }

    /// Selects events of the device with this id. Can be called repeatedly, to select several devices.
    pub fn device(self, id: impl Into<String>) -> Self {
        self.with("device_ids", id)
    }

    /// Selects events of devices of a device type. Can be called repeatedly, to select several types.
    pub fn device_type(self, device_type: impl Into<String>) -> Self {
        self.with("device_types", device_type)
    }

    /// Selects events of devices with a label. An empty value selects devices with any value of the label.
    pub fn label(self, key: &str, value: &str) -> Self {
        self.with("label_filters", format!("{key}={value}"))
    }

    /// Sets the interval of DT's pings, in whole seconds of at least 1. A stream without any data for two and a half intervals
    /// has failed.
    pub const fn ping_interval(mut self, interval: Duration) -> Self {
        self.ping = interval;
        self
    }

    /// Sets the form in which DT sends the messages of the stream.
    pub const fn format(mut self, format: StreamFormat) -> Self {
        self.format = format;
        self
    }
}

/// A message of a stream.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Message {
    /// An event.
    Event(EventRecord),
    /// A ping, which DT sends to show that the connection works.
    Ping {
        /// The time of DT's clock; `None` if the ping does not contain it.
        timestamp: Option<Timestamp>,
    },
}

/// An open stream. It ends with an error. After a pause, open another stream, and read the missed events from the event history.
pub struct EventStream {
    client: Client,
    body: Incoming,
    /// The value of the header `Authorization` in the request, which an error message must not contain.
    authorization: HeaderValue,
    lines: Lines,
    /// The longest time without any data before the stream counts as failed.
    silence: Duration,
    call: Box<FailedCall>,
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").field("url", &self.call.url).finish_non_exhaustive()
    }
}

impl EventStream {
    /// Waits for the next message and returns it. The call can be cancelled without losing a message.
    ///
    /// # Errors
    ///
    /// [`Error`] if the stream has ended: the connection broke or was closed ([`Error::Network`]), was silent for too long
    /// ([`Error::Timeout`]), or DT sent an error. Only after [`Error::NotUnderstood`] about a message, a later call continues
    /// with the next message.
    pub async fn next(&mut self) -> Result<Message, Error> {
        loop {
            match self.lines.next() {
                Ok(Some(message)) => return self.read(&message),
                Ok(None) => {}
                Err(TooLarge) => {
                    let (path, found) = ("a message".to_owned(), "more".to_owned());
                    let bad = BadAnswer { path, expected: "at most 1 MiB", found };
                    return Err(not_understood(self.call.clone(), bad));
                }
            }
            let network = |text: String| Error::Network { call: self.call.clone(), text };
            match tokio::time::timeout(self.silence, self.body.frame()).await {
                Err(_) => return Err(Error::Timeout { call: self.call.clone(), limit: self.silence }),
                Ok(None) => return Err(network("DT closed the stream".to_owned())),
                Ok(Some(Err(error))) => return Err(network(causes("the stream broke", &error))),
                Ok(Some(Ok(frame))) => {
                    if let Some(data) = frame.data_ref() {
                        self.lines.push(data);
                    }
                }
            }
        }
    }

    /// Returns the messages as a [`Stream`], which ends after the first error.
    pub fn into_messages(self) -> impl Stream<Item = Result<Message, Error>> + Send {
        futures_util::stream::unfold(Some(self), |stream| async {
            let mut stream = stream?;
            let message = stream.next().await;
            let rest = message.is_ok().then_some(stream);
            Some((message, rest))
        })
    }

    /// Parses a message.
    fn read(&self, message: &Bytes) -> Result<Message, Error> {
        let bad = |bad: BadAnswer| not_understood(self.call.clone(), bad);
        let object = Object::of_body(message).map_err(bad)?;
        if object.raw("error").is_some() {
            return Err(self.error_of(message, &object));
        }
        let result = object.object("result").map_err(bad)?;
        let event = result.object("event").map_err(bad)?;
        if event.text("eventType").map_err(bad)? == "ping" {
            let timestamp = event.optional_text("timestamp").ok().flatten().map(Timestamp::new);
            return Ok(Message::Ping { timestamp });
        }
        let raw = result.raw("event").ok_or_else(|| bad(result.malformed("event", "an object")))?;
        EventRecord::read(raw, result.at("event")).map(Message::Event).map_err(bad)
    }

    /// Returns the error that a message contains: `{"error":{"code":…,"message":…}}`.
    fn error_of(&self, message: &[u8], object: &Object<'_>) -> Error {
        let code = object.object("error").and_then(|error| error.count("code"));
        let status = code.ok().and_then(|code| u16::try_from(code).ok());
        let status = status.and_then(|code| StatusCode::from_u16(code).ok());
        let text = crate::json::reason(message).unwrap_or_default();
        let text = self.client.0.shown(&text, &[], &self.authorization);
        of_status(self.call.clone(), status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), text, None)
    }
}

impl Client {
    /// Opens the device stream of a project; `-` selects all projects.
    ///
    /// # Errors
    ///
    /// [`Error`] if DT does not open the stream.
    pub async fn stream(&self, project: &str, selected: &StreamQuery) -> Result<EventStream, Error> {
        let ping = selected.ping.max(Duration::from_secs(1));
        let interval = ("ping_interval", format!("{}s", ping.as_secs()));
        let members = selected.members.iter().chain(std::iter::once(&interval));
        let call = Call {
            query: query(members.map(|(name, value)| (*name, value.as_str()))),
            needs: Needs::Stream,
            accept: match selected.format {
                StreamFormat::JsonLines => "application/json",
                StreamFormat::ServerSentEvents => "text/event-stream",
            },
            ..Call::get(format!("/projects/{}/devices:stream", segment("project", project)?))
        };
        let answer = self.0.answer(&call).await?;
        let Some(OpenBody { body, content_type, authorization }) = answer.open else {
            let bad = BadAnswer {
                path: "the body".to_owned(),
                expected: "a stream",
                found: "a complete body".to_owned(),
            };
            return Err(not_understood(answer.call, bad));
        };
        let content_type = content_type.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
        let is_sse = content_type.starts_with("text/event-stream");
        let silence = ping.saturating_mul(5).checked_div(2).unwrap_or(ping);
        let (client, lines) = (self.clone(), Lines::new(is_sse));
        Ok(EventStream { client, body, authorization, lines, silence, call: answer.call })
    }
}
