//! What the benchmarks work on: deliveries as DT sends them, made by the library itself, and an endpoint whose intake
//! stores nothing. The same number always gives the same delivery.

#![allow(dead_code, reason = "each benchmark uses a part")]

use std::sync::Arc;

use bytes::Bytes;
use dt_receiver::clock::{Clock, ManualClock};
use dt_receiver::config::{ConnectorConfig, Limits};
use dt_receiver::event::{EventType, Sample};
use dt_receiver::http::{Accepted, Endpoint, Intake, IntakeFuture, Readiness, Routing};
use dt_receiver::record::{DeadLetter, Record, RequestIds};
use dt_receiver::telemetry::Telemetry;
use dt_receiver::verify::{Secret, Signer, Verified, Verifier, xid};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use http_body_util::Full;

/// What everything is signed with.
pub(crate) const SECRET: &str = "some-good-secret";
/// The time at which everything happens, in Unix seconds.
pub(crate) const NOW: i64 = 1_700_000_000;

/// The event types that are sent, in turn: what a building with sensors sends most.
const EVENT_TYPES: [EventType; 8] = [
    EventType::Temperature,
    EventType::NetworkStatus,
    EventType::Humidity,
    EventType::Touch,
    EventType::Temperature,
    EventType::Motion,
    EventType::ObjectPresent,
    EventType::Co2,
];

/// One delivery on its way in.
pub(crate) struct Delivered {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Delivered {
    /// The delivery of this number, of the type whose turn it is.
    pub(crate) fn number(number: usize, signer: &Signer) -> Self {
        let event_type = EVENT_TYPES[number % EVENT_TYPES.len()].clone();
        Self::of_type(event_type, number, signer)
    }

    pub(crate) fn of_type(event_type: EventType, number: usize, signer: &Signer) -> Self {
        let seed = u64::try_from(number).expect("a small number");
        let (event_id, token_id) = (event_id(number), xid(NOW, [7; 8]));
        let (project, device) = ("c0md3mm0c7pet3vico8g", "emuc1ul5qf2ghkeoq4nj7d0");
        let sample =
            Sample { event_type, event_id: &event_id, project, device, unix_millis: NOW * 1000, seed };
        let body = Bytes::from(sample.body());
        let token = signer.sign(&body, NOW, &token_id).expect("signed");
        let header = |name: &str, value: &str| {
            let name: HeaderName = name.parse().expect("a name");
            (name, HeaderValue::from_str(value).expect("a value"))
        };
        let headers = HeaderMap::from_iter([
            header("host", "receiver.example.com"),
            header("user-agent", "Go-http-client/1.1"),
            header("content-length", &body.len().to_string()),
            header("content-type", "application/json"),
            header(signer.header_name(), &token),
            header("accept-encoding", "gzip"),
        ]);
        Self { headers, body }
    }

    /// Verified as the server does it: first the token, then the body.
    pub(crate) fn verify(&self, verifier: &Verifier) -> Verified<Bytes> {
        let authenticated = verifier.authenticate(&self.headers).expect("authentic");
        authenticated.verify_body(self.body.clone(), NOW).expect("verified")
    }

    /// As the spool and the sinks get it.
    pub(crate) fn record(&self, verifier: &Verifier) -> Record {
        let verified = self.verify(verifier);
        let record = Record::read(&verified, "default".into(), NOW * 1000).expect("a delivery");
        record.with_headers(&self.headers).with_request_id(Some(RequestIds::new(0).next()))
    }

    pub(crate) fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::post("/").body(Full::new(self.body.clone())).expect("a request");
        *request.headers_mut() = self.headers.clone();
        request
    }

    /// As it comes over the wire.
    pub(crate) fn http1(&self) -> Vec<u8> {
        let mut bytes = b"POST / HTTP/1.1\r\n".to_vec();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// An event's id; of one length, and growing.
pub(crate) fn event_id(number: usize) -> String {
    let number = u64::try_from(number).expect("a small number");
    xid(NOW, number.to_be_bytes())
}

fn secret() -> Secret {
    Secret::new(SECRET).expect("not empty")
}

pub(crate) fn signer() -> Signer {
    Signer::secret(secret())
}

pub(crate) fn verifier() -> Verifier {
    Verifier::builder().secret("primary", secret()).build().expect("a verifier")
}

/// The first `count` deliveries, signed with the secret.
pub(crate) fn deliveries(count: usize) -> Vec<Delivered> {
    let signer = signer();
    (0..count).map(|number| Delivered::number(number, &signer)).collect()
}

/// Records with different event ids. Only the first 64 differ in more than that: making each takes longer than storing it.
pub(crate) fn records(count: usize) -> Vec<Arc<Record>> {
    let verifier = verifier();
    let some: Vec<Record> = deliveries(count.min(64)).iter().map(|one| one.record(&verifier)).collect();
    let record = |number| Record { event_id: event_id(number).into(), ..some[number % some.len()].clone() };
    (0..count).map(|number| Arc::new(record(number))).collect()
}

/// An endpoint with one connector, whose intake accepts at once.
pub(crate) fn endpoint() -> Endpoint {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(NOW * 1000));
    let connectors = [ConnectorConfig::new("default", "/", verifier())];
    let routing = Routing::new(&connectors, Limits::default(), Arc::new(AcceptsAtOnce));
    Endpoint::new(routing, Arc::new(Telemetry::new(Arc::clone(&clock))), clock)
}

struct AcceptsAtOnce;

impl Intake for AcceptsAtOnce {
    fn accept(&self, _connector: usize, _record: Record) -> IntakeFuture<'_, Accepted> {
        IntakeFuture::Ready(Ok(Accepted::New))
    }

    fn dead_letter(&self, _letter: DeadLetter) -> IntakeFuture<'_, ()> {
        IntakeFuture::Ready(Ok(()))
    }

    fn readiness(&self) -> Readiness {
        Readiness { ready: true, problems: Vec::new() }
    }
}
