//! `/v2/projects/{p}/devices:stream`: events as they are published, as lines of JSON or as server-sent events.
//!
//! A `ping` comes when nothing else has come for `pingInterval` (10 s unless asked otherwise, on the machine's clock).
//! It has an `eventId` and a `timestamp`, as in the fixtures of DT's Python client.
//! A client that does not keep up misses events, as one that is not connected does; DT promises no more.

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

/// How many streams there may be at once.
const MAX_STREAMS: usize = 64;

/// How often a `ping` comes unless asked otherwise; how often it may come.
const PING: Duration = Duration::from_secs(10);
const SHORTEST_PING: Duration = Duration::from_secs(1);
const LONGEST_PING: Duration = Duration::from_secs(3_600);

/// How many lines wait for the client.
const WAITING: usize = 64;

/// A stream that is about to begin.
pub(crate) struct Stream {
    events: broadcast::Receiver<Arc<Published>>,
    project: String,
    filter: Filter,
    types: BTreeSet<String>,
    ping: Duration,
    server_sent: bool,
}

pub(super) fn open(cloud: &Cloud, call: &Call, project: &str) -> Answered {
    if call.method != Method::GET {
        return Err(ApiError::method("GET"));
    }
    let query = call.query();
    let ping = match query.last("pingInterval") {
        None => PING,
        Some(text) => {
            let seconds = text.strip_suffix('s').unwrap_or(text).parse::<u64>();
            Duration::from_secs(seconds.map_err(|_| ApiError::bad_request("pingInterval is not like 10s"))?)
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
    pub(super) const fn content_type(&self) -> &'static str {
        if self.server_sent { "text/event-stream" } else { "application/json" }
    }

    /// Starts to write; ends when the client goes or the emulator stops.
    pub(super) fn start(self, cloud: Arc<Cloud>, stop: watch::Receiver<bool>) -> StreamBody {
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

/// The body of the answer: lines until there are no more.
pub(crate) struct StreamBody(mpsc::Receiver<Bytes>);

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
