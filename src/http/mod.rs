//! The HTTP side: a listener with limits, what happens to a request, and the one table from outcomes to statuses.
//!
//! A request's way: `server` accepts the connection and bounds it in time (`connection`), `ingest` routes it,
//! caps, verifies and hands it on through the trait [`Intake`], and `reply` makes the answer. What is behind the
//! intake, sinks or a spool, this module does not know.

mod activity;
mod admin;
mod clock_doubt;
mod connection;
mod endpoint;
mod ingest;
mod intake;
mod reply;
mod server;

pub use connection::serve_connection;
pub use endpoint::{Connector, Endpoint, Routing};
pub use intake::{Accepted, Intake, IntakeFuture, Readiness, Unavailable};
pub use server::{AdminServer, Server};
