//! `/v2/projects/{p}/devices:stream`: events as they are published, as lines of JSON or as server-sent events.
//!
//! A `ping` is sent after `pingInterval` without an event (by default 10 s, on the machine's clock). It has an `eventId` and a
//! `timestamp`, as in the fixtures of DT's Python client. A client that reads too slowly misses events, as a client that is not
//! connected does; DT's documentation promises no more.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::header::ACCEPT;
use http_body::{Body, Frame};
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, watch};

use super::filter::Filter;
use super::{Answer, Answered, ApiError, Call};
use crate::cloud::Cloud;
use crate::state::Published;
use dt_verify::event::rfc3339_micros;

/// The largest number of streams.
const MAX_STREAMS: usize = 64;

/// The default interval of pings.
const PING: Duration = Duration::from_secs(10);

/// The shortest interval of pings.
const SHORTEST_PING: Duration = Duration::from_secs(1);

/// The longest interval of pings.
const LONGEST_PING: Duration = Duration::from_secs(3_600);

/// The largest number of lines that wait to be sent to the client.
const WAITING: usize = 64;

/// A stream that has not sent a line yet.
pub struct Stream {
    events: broadcast::Receiver<Arc<Published>>,
    project: String,
    filter: Filter,
    types: BTreeSet<String>,
    ping: Duration,
    server_sent: bool,
}

pub fn open(cloud: &Cloud, call: &Call, project: &str) -> Answered {
    if call.method != Method::GET {
        return Err(ApiError::method("GET"));
    }
    let query = call.query();
    let ping = match query.last("pingInterval") {
        None => PING,
        Some(text) => {
            let seconds = text.strip_suffix('s').unwrap_or(text).parse::<u64>();
            Duration::from_secs(
                seconds.map_err(|_| ApiError::bad_request("pingInterval: expected seconds such as 10s"))?,
            )
        }
    };
    if cloud.listeners() >= MAX_STREAMS {
        return Err(ApiError::too_many("there are too many streams"));
    }
    let accept = call.headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    Ok(Answer::Stream(Box::new(Stream {
        events: cloud.listen(),
        project: project.to_owned(),
        filter: Filter::read(&query, true),
        types: query.all("eventTypes").map(str::to_owned).collect(),
        ping: ping.clamp(SHORTEST_PING, LONGEST_PING),
        server_sent: accept.contains("text/event-stream"),
    })))
}

impl Stream {
    pub const fn content_type(&self) -> &'static str {
        if self.server_sent { "text/event-stream" } else { "application/json" }
    }

    /// Starts writing lines, until the client closes the connection or the emulator stops.
    pub fn start(self, cloud: Arc<Cloud>, stop: watch::Receiver<bool>) -> StreamBody {
        let (lines, waiting) = mpsc::channel(WAITING);
        tokio::spawn(self.write(cloud, lines, stop));
        StreamBody(waiting)
    }

    async fn write(mut self, cloud: Arc<Cloud>, lines: mpsc::Sender<Bytes>, mut stop: watch::Receiver<bool>) {
        let mut last = tokio::time::Instant::now();
        loop {
            let line = tokio::select! {
                event = self.events.recv() => match event {
                    Ok(event) if self.wants(&event) => self.line(&format!(r#"{{"result":{{"event":{}}}}}"#, event.event.json)),
                    Ok(_) | Err(RecvError::Lagged(_)) => continue,
                    Err(RecvError::Closed) => return,
                },
                () = tokio::time::sleep_until(last.checked_add(self.ping).unwrap_or(last)) => self.line(&self.ping_event(&cloud).to_string()),
                _ = stop.wait_for(|stop| *stop) => return,
                () = lines.closed() => return,
            };
            last = tokio::time::Instant::now();
            if lines.send(line).await.is_err() {
                return;
            }
        }
    }

    fn wants(&self, published: &Published) -> bool {
        let Published { event, device_type, labels } = published;
        (self.project == "-" || *self.project == *event.project)
            && (self.types.is_empty() || self.types.contains(&*event.event_type))
            && self.filter.wants(&event.device, device_type, labels)
    }

    fn line(&self, json: &str) -> Bytes {
        Bytes::from(if self.server_sent { format!("data: {json}\n\n") } else { format!("{json}\n") })
    }

    fn ping_event(&self, cloud: &Cloud) -> Value {
        let (id, time) = cloud.with_state(|state, now| (state.ping_id(now), rfc3339_micros(now.micros())));
        json!({"result": {"event": {
            "eventId": id,
            "targetName": format!("projects/{}", self.project),
            "eventType": "ping",
            "data": null,
            "timestamp": time,
        }}})
    }
}

/// The body of a stream's response.
pub struct StreamBody(mpsc::Receiver<Bytes>);

impl Body for StreamBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(cx).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}
