//! The HTTP server: listeners with limits, the processing of requests, and the table of answers.
//!
//! `server` accepts a connection (`listener`) if there is a slot for it (`connection_limiter`), prepares it (`handshake`: PROXY
//! header and TLS) and limits its time (`connection`, `activity`). `ingest` finds the client of a request (`forwarded`), routes
//! the request, limits its body (`body`), verifies it and stores its event through the trait [`Intake`]; `reply` makes the
//! answer. This module knows neither sinks nor the log, which are behind the intake.
//!
//! Under overload, authentic requests have priority: `connection_limiter` decides which connections are closed for others,
//! `rejection_budget` and `rejected` how much time a rejected request may take. The limits of each request and connection, and
//! their sum, are in `docs/limits.md`.

mod activity;
mod admin;
mod body;
mod clock_doubt;
mod connection;
mod connection_limiter;
mod endpoint;
mod forwarded;
mod handshake;
mod ingest;
mod intake;
mod listener;
mod peer;
mod proxy_header;
mod rejected;
mod rejection_budget;
mod reply;
mod server;
mod stream;

pub use connection::serve_connection;
pub use endpoint::{Connector, Endpoint, Routing};
pub use intake::{Accepted, Intake, IntakeFuture, Readiness, Unavailable};
pub use listener::{Inherited, Listener, SocketFile};
pub use proxy_header::{ProxyHeaderError, read_proxy_header};
pub use server::{AdminServer, Server};

/// Returns the status and the reason of every possible answer to a request.
pub(crate) fn outcomes() -> Vec<(::http::StatusCode, &'static str)> {
    reply::Reply::outcomes()
}
