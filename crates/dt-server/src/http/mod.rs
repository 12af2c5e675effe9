//! The HTTP side: a listener with limits, what happens to a request, and the one table from outcomes to statuses.
//!
//! A request's way: `server` accepts the connection (`listener`) if there is a slot for it (`connection_limiter`), makes it
//! ready (`handshake`: PROXY header, TLS) and limits it in time (`connection`, `activity`); `ingest` finds out whose it is
//! (`forwarded`), routes it, caps (`body`), verifies and hands it on through the trait [`Intake`], and `reply` makes the
//! answer. This module does not know what is behind the intake, sinks or a log.
//!
//! When there is more than can be served, authentic requests come first: `connection_limiter` decides which connections
//! make room for others, `rejection_budget` and `rejected` how long a refused request is waited for. What each request and
//! connection may take at most, and the sum, is in `docs/limits.md`.

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
