//! The HTTP side: a listener with limits, what happens to a request, and the one table from outcomes to statuses.
//!
//! A request's way: `server` accepts the connection (`listener`), makes it ready (`arrival`: PROXY header, TLS) and bounds
//! it in time (`connection`); `ingest` finds out whose it is (`forwarded`), routes it,
//! caps, verifies and hands it on through the trait [`Intake`], and `reply` makes the answer. What is behind the
//! intake, sinks or a spool, this module does not know.
//!
//! When there is more than can be served, those whose signatures hold come first: `crowd` says which connections make room
//! for others, `refusals` how much strangers are worth waiting for. What each request and connection may take at most, and
//! the sum, is in `docs/limits.md`.

// Nothing that a request does is done by name or under a lock where a number will do (`activity`, `permits`, the connector's
// series), nor is a timer set (`until`) or a lasting condition asked (`known_waker`) for each. Together, with an answer that
// is written without a tree: 50.8 thousand instructions a request instead of 65.1, and 34.8 instead of 46.0 without
// hyper (`benches/guard`, `request` and `answer`).
mod activity;
mod admin;
mod arrival;
mod clock_doubt;
mod connection;
mod crowd;
mod endpoint;
mod forwarded;
mod ingest;
mod intake;
mod known_waker;
mod listener;
mod peer;
mod permits;
mod proxy_header;
mod refusals;
mod reply;
mod server;
mod stream;
mod until;

pub use connection::serve_connection;
pub use endpoint::{Connector, Endpoint, Routing};
pub use intake::{Accepted, Intake, IntakeFuture, Readiness, Unavailable};
pub use listener::{Inherited, Listener, SocketFile};
pub use proxy_header::{ProxyHeaderError, read_proxy_header};
pub use server::{AdminServer, Server};
