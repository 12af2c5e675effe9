//! The limits of the spool (`[spool]`) and of the HTTP server (`[limits]`), and the memory that they allow.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use dt_sink::config::{Section, config_keys, custom, duration, number, size};

/// The number of connections beyond the limit that get a response before they are closed.
pub const MAX_TURNED_AWAY: usize = 64;
/// The number of connections that may be closing at once to free slots for others.
pub const MAX_LEAVING: usize = 64;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;
const HOUR: Duration = Duration::from_secs(3600);
const YEAR: Duration = Duration::from_secs(3600 * 24 * 365);

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

config_keys! {
    /// The limits of the spool.
    #[derive(Debug, Clone, Copy)]
    #[non_exhaustive]
    pub struct SpoolLimits {
        /// The largest size of records and dead letters together. Remembered event ids come on top, about 30 bytes
        /// each. The log grows by segments of 16 MiB, and has two spare ones, which count too. Without room for another
        /// segment, the oldest events that only `retain` keeps are removed; then events are answered 503.
        max_size: u64 = size(64 << 20..=1 << 44).or(4 << 30),
        /// The space on the disk that must stay free when the log grows by a segment. Below it, sinks still receive what the
        /// log has.
        min_free: u64 = size(0..=1 << 44).or(256 << 20),
        /// How long events are kept after they were received, even if every sink has acknowledged them, as long as
        /// `max_size` and `min_free` have room for them. `spool replay` can go back as far. Undelivered events are kept
        /// in any case. Both count towards `max_size`.
        retain: Duration = duration(Duration::ZERO..=YEAR).or(Duration::ZERO),
    }
}

config_keys! {
    /// The limits of the HTTP server.
    #[derive(Debug, Clone)]
    #[non_exhaustive]
    pub struct Limits {
        /// The largest body; a larger one is answered 413.
        max_body: usize = size(KIB..=8 * MIB).or(64 * KIB),
        /// The largest head of a request; a larger one is answered 431.
        max_head: usize = size(8 * KIB..=MIB).or(16 * KIB),
        /// How long the head of a request may take, from its first byte; then the connection is closed.
        header_timeout: Duration = duration(millis(10)..=secs(9)).or(millis(1500)),
        /// How long a TLS handshake may take, with the PROXY header before it.
        handshake_timeout: Duration = duration(millis(10)..=secs(60)).or(secs(5)),
        /// How long a request may take, from its complete head to the response.
        deadline: Duration = duration(millis(10)..=secs(9)).or(secs(8)).restart_in_direct(),
        /// How long a connection may stay open without a request. Keep it above the value of a proxy in front.
        keep_alive_idle: Duration = duration(secs(1)..=HOUR).or(secs(75)).default_shown("\"75s\""),
        /// The largest number of open connections; each is a file descriptor. `serve` lowers it to what the limit of
        /// open files allows.
        max_connections: usize = number(1..=1_000_000).or(8192).restart(),
        /// The largest number of authentic requests in progress; half as many refused requests may wait beside them.
        max_in_flight: usize = number(1..=1_000_000).or(4096).restart(),
        /// The largest size of all bodies in memory; never less than `max_body`.
        max_in_flight_bytes: usize = size(64 * KIB..=64 * GIB).or(64 * MIB).restart(),
        /// The largest number of unauthenticated connections of one peer; beyond it, its oldest one is closed. A peer
        /// is an IPv4 address, or the /64 of an IPv6 address.
        max_connections_per_peer: usize = number(1..=1_000_000).or(4096).restart(),
        /// The largest number of refused requests per second whose bodies are read, of all peers; beyond it, the 401
        /// does not wait for the body.
        max_refused: u32 = number(1..=1_000_000).or(1000).restart(),
        /// The largest number of refused requests per second whose bodies are read, of one peer.
        max_refused_per_peer: u32 = number(1..=1_000_000).or(100).restart(),
        /// The largest size of unverified bodies in memory, of one peer. Only `quarantine_refused` keeps any.
        max_unverified_bytes_per_peer: usize = size(0..=64 * GIB).or(MIB).restart(),
        /// The networks that may connect; a client whose address is not known may not. DT publishes no list of its
        /// addresses: a wrong list cuts DT off.
        allow_cidrs: Vec<IpNet> = custom("list of networks and addresses", networks)
            .or(Vec::new())
            .default_words("everybody")
            .sample("[\"192.0.2.0/24\"]"),
    }
}

impl Limits {
    /// Returns whether [`allow_cidrs`](Self::allow_cidrs) is empty or contains the address. An unknown address (`None`) is in no
    /// network.
    #[must_use]
    pub fn allows(&self, address: Option<IpAddr>) -> bool {
        // An IPv6 socket reports IPv4 addresses as mapped ones.
        let address = address.map(|address| address.to_canonical());
        self.allow_cidrs.is_empty()
            || address
                .is_some_and(|address| self.allow_cidrs.iter().any(|network| network.contains(&address)))
    }

    /// Returns the size of the HTTP/2 flow-control window of a connection, and of each of its streams, in bytes.
    pub(crate) fn window(&self) -> u32 {
        /// The initial window of a connection in bytes, which cannot be reduced (RFC 9113, section 6.9.2).
        const MIN: u32 = 65_535;
        /// The largest useful window in bytes: on usual networks, a larger one does not make the transfer of bodies of megabytes
        /// faster.
        const MAX: u32 = 1024 * 1024;
        u32::try_from(self.max_body).unwrap_or(u32::MAX).clamp(MIN, MAX)
    }

    /// Returns the size limit of all bodies in memory whose requests are unauthenticated or have an old token, in bytes.
    pub(crate) fn unauthenticated_bytes(&self) -> usize {
        (self.max_in_flight_bytes / 4).max(self.max_body)
    }

    /// Returns the largest number of open connections, including those without a slot.
    pub(super) fn connections_in_memory(&self) -> u64 {
        let without_slot = MAX_LEAVING.saturating_add(MAX_TURNED_AWAY);
        u64::try_from(self.max_connections.saturating_add(without_slot)).unwrap_or(u64::MAX)
    }

    /// Returns the largest amount of memory, in bytes, that the program uses with these limits, whatever clients do;
    /// `docs/limits.md` lists the parts. Sinks with queues of their own, such as `kafka`, need more.
    ///
    /// # Examples
    ///
    /// ```
    /// let limits = dt_server::config::Limits::default();
    /// assert_eq!(limits.max_memory() / (1 << 20), 1148);
    /// ```
    #[must_use]
    pub fn max_memory(&self) -> u64 {
        /// The memory of the program, the caches of the spool, and batches in delivery, in bytes.
        const BASE: u64 = 64 << 20;
        /// The memory of a connection's task, socket state and HTTP state, in bytes.
        const CONNECTION: u64 = 16 << 10;
        /// The memory of a request's task and answer, in bytes.
        const REQUEST: u64 = 8 << 10;
        let size = |size: usize| u64::try_from(size).unwrap_or(u64::MAX);
        let head = size(self.max_head);
        let connection = u64::from(self.window()).saturating_add(head).saturating_add(CONNECTION);
        // Half as many refused requests may wait in addition.
        let requests = size(self.max_in_flight).saturating_add(size(self.max_in_flight.div_ceil(2)));
        // A body is received in pieces and then copied into one buffer, so that it is in memory twice for a moment.
        let bodies = self.max_in_flight_bytes.saturating_add(self.unauthenticated_bytes());
        let bodies = size(bodies).saturating_mul(2);
        BASE.saturating_add(self.connections_in_memory().saturating_mul(connection))
            .saturating_add(requests.saturating_mul(head.saturating_add(REQUEST)))
            .saturating_add(bodies)
    }

    /// Raises `max_in_flight_bytes` to at least `max_body`.
    pub(super) fn check(&mut self, _: &Section<'_>) {
        self.max_in_flight_bytes = self.max_in_flight_bytes.max(self.max_body);
    }
}

/// Reads a list of IP addresses and of networks such as `"192.0.2.0/24"`.
fn networks(section: &mut Section<'_>, key: &'static str) -> Option<Vec<IpNet>> {
    let mut networks = Vec::new();
    for text in section.strings(key)? {
        match text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
            Ok(network) => networks.push(network),
            Err(_) => section.problem(key, &text, "networks such as \"192.0.2.0/24\" or \"2001:db8::/32\""),
        }
    }
    Some(networks)
}
