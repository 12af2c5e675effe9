//! The bounds: of the spool (`[spool]`), and of the HTTP server (`[limits]`) with the memory that follows from them.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::reader::Section;

/// How many connections beyond the limit are told so; the rest are closed without a word.
pub(crate) const MAX_TURNED_AWAY: usize = 64;
/// How many connections may be leaving at once to make room for others.
pub(crate) const MAX_LEAVING: usize = 64;

/// The bounds of the spool.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct SpoolLimits {
    /// How many bytes it may take.
    pub max_size: u64,
    /// How many bytes have to be left on the disk.
    pub min_free: u64,
    /// How long records stay after every sink has them.
    pub retain: Duration,
}

impl Default for SpoolLimits {
    fn default() -> Self {
        Self { max_size: 4 << 30, min_free: 256 << 20, retain: Duration::ZERO }
    }
}

impl SpoolLimits {
    pub(super) fn read(&mut self, mut section: Section<'_>) {
        let mut size = |key, least: usize, target: &mut u64| {
            let mut bytes = usize::try_from(*target).unwrap_or(usize::MAX);
            section.size_into(key, least..=1 << 44, &mut bytes);
            *target = u64::try_from(bytes).unwrap_or(u64::MAX);
        };
        size("max_size", 1 << 20, &mut self.max_size);
        size("min_free", 0, &mut self.min_free);
        section.duration_into(
            "retain",
            Duration::ZERO..=Duration::from_secs(3600 * 24 * 365),
            &mut self.retain,
        );
        section.finish();
    }
}

/// The bounds of the HTTP server.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Limits {
    /// The largest body, in bytes.
    pub max_body: usize,
    /// The largest head of a request, in bytes.
    pub max_head: usize,
    /// How long a head may take to arrive, from its first byte.
    pub header_timeout: Duration,
    /// How long a TLS handshake, and the PROXY header before it, may take.
    pub handshake_timeout: Duration,
    /// How long a request may take to be answered, from its complete head.
    pub deadline: Duration,
    /// How long a connection may stay open without a request.
    pub keep_alive_idle: Duration,
    /// How many connections may be open.
    pub max_connections: usize,
    /// How many requests may be worked on at once.
    pub max_in_flight: usize,
    /// How many bytes of bodies may be held at once.
    pub max_in_flight_bytes: usize,
    /// How many connections one peer may have open on which no signature has held yet: the oldest makes room for a new one.
    /// A peer is an IPv4 address, or the /64 of an IPv6 address.
    pub max_connections_per_peer: usize,
    /// How many refused requests a second are worth waiting for their bodies, of all peers.
    pub max_refused: u32,
    /// The same, of one peer.
    pub max_refused_per_peer: u32,
    /// How many bytes of bodies may be held of one peer before a signature has held; only `quarantine_refused` holds any.
    pub max_unverified_bytes_per_peer: usize,
    /// Who may connect; empty for anybody.
    pub allow_cidrs: Vec<IpNet>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body: 64 * 1024,
            max_head: 16 * 1024,
            header_timeout: Duration::from_millis(1500),
            handshake_timeout: Duration::from_secs(5),
            deadline: Duration::from_secs(8),
            keep_alive_idle: Duration::from_secs(75),
            max_connections: 8192,
            max_in_flight: 4096,
            max_in_flight_bytes: 64 * 1024 * 1024,
            max_connections_per_peer: 4096,
            max_refused: 1000,
            max_refused_per_peer: 100,
            max_unverified_bytes_per_peer: 1024 * 1024,
            allow_cidrs: Vec::new(),
        }
    }
}

impl Limits {
    /// Whether an address is one of [`allow_cidrs`](Self::allow_cidrs). One that is not known is in no network.
    #[must_use]
    pub fn allows(&self, address: Option<IpAddr>) -> bool {
        // An IPv4 address that came through an IPv6 socket is an IPv4 address.
        let address = address.map(|address| address.to_canonical());
        self.allow_cidrs.is_empty()
            || address
                .is_some_and(|address| self.allow_cidrs.iter().any(|network| network.contains(&address)))
    }

    /// How much an HTTP/2 client may send that nobody has read yet, for each connection and each of its streams.
    pub(crate) fn window(&self) -> u32 {
        /// It cannot be smaller: a connection begins with it (RFC 9113, section 6.9.2).
        const MIN: u32 = 65_535;
        /// More does not make bodies of megabytes faster on usual lines.
        const MAX: u32 = 1024 * 1024;
        u32::try_from(self.max_body).unwrap_or(u32::MAX).clamp(MIN, MAX)
    }

    /// How many bytes of bodies may be held at once that are not authentic, or have an old token.
    pub(crate) fn unauthenticated_bytes(&self) -> usize {
        (self.max_in_flight_bytes / 4).max(self.max_body)
    }

    /// How many connections there can be at once, with those that have no place.
    pub(super) fn connections_in_memory(&self) -> u64 {
        let without_place = MAX_LEAVING.saturating_add(MAX_TURNED_AWAY);
        u64::try_from(self.max_connections.saturating_add(without_place)).unwrap_or(u64::MAX)
    }

    /// The most memory, in bytes, that the program takes with these limits, whatever clients do; how it is made up is in
    /// `docs/limits.md`. Sinks that hold records of their own, such as `kafka`, come on top.
    ///
    /// # Examples
    ///
    /// ```
    /// let limits = dt_server::config::Limits::default();
    /// assert_eq!(limits.max_memory() / (1 << 20), 1148);
    /// ```
    #[must_use]
    pub fn max_memory(&self) -> u64 {
        /// The program, the caches of the spool, batches on their way to the sinks.
        const BASE: u64 = 64 << 20;
        /// A connection's task, its socket's state and its HTTP machine.
        const CONNECTION: u64 = 16 << 10;
        /// A request's task and its answer.
        const REQUEST: u64 = 8 << 10;
        let size = |size: usize| u64::try_from(size).unwrap_or(u64::MAX);
        let head = size(self.max_head);
        let connection = u64::from(self.window()).saturating_add(head).saturating_add(CONNECTION);
        // Half as many again may be refused ones.
        let requests = size(self.max_in_flight).saturating_add(size(self.max_in_flight.div_ceil(2)));
        // A body that comes in pieces is in its pieces, then in one; the last piece is held twice.
        let bodies = self.max_in_flight_bytes.saturating_add(self.unauthenticated_bytes());
        let bodies = size(bodies).saturating_mul(2);
        BASE.saturating_add(self.connections_in_memory().saturating_mul(connection))
            .saturating_add(requests.saturating_mul(head.saturating_add(REQUEST)))
            .saturating_add(bodies)
    }

    pub(super) fn read(&mut self, mut section: Section<'_>) {
        let seconds = Duration::from_secs;
        section.size_into("max_body", 1024..=64 * 1024 * 1024, &mut self.max_body);
        section.size_into("max_head", 8192..=1024 * 1024, &mut self.max_head);
        section.duration_into(
            "header_timeout",
            Duration::from_millis(10)..=seconds(9),
            &mut self.header_timeout,
        );
        section.duration_into(
            "handshake_timeout",
            Duration::from_millis(10)..=seconds(60),
            &mut self.handshake_timeout,
        );
        section.duration_into("deadline", Duration::from_millis(10)..=seconds(9), &mut self.deadline);
        section.duration_into("keep_alive_idle", seconds(1)..=seconds(3600), &mut self.keep_alive_idle);
        section.count_into("max_connections", 1..=1_000_000, &mut self.max_connections);
        section.count_into("max_in_flight", 1..=1_000_000, &mut self.max_in_flight);
        section.size_into(
            "max_in_flight_bytes",
            64 * 1024..=64 * 1024 * 1024 * 1024,
            &mut self.max_in_flight_bytes,
        );
        section.count_into("max_connections_per_peer", 1..=1_000_000, &mut self.max_connections_per_peer);
        for (key, target) in
            [("max_refused", &mut self.max_refused), ("max_refused_per_peer", &mut self.max_refused_per_peer)]
        {
            let mut count = usize::try_from(*target).unwrap_or(usize::MAX);
            section.count_into(key, 1..=1_000_000, &mut count);
            *target = u32::try_from(count).unwrap_or(u32::MAX);
        }
        section.size_into(
            "max_unverified_bytes_per_peer",
            0..=64 * 1024 * 1024 * 1024,
            &mut self.max_unverified_bytes_per_peer,
        );
        self.allow_cidrs = networks(&mut section, "allow_cidrs");
        section.finish();
        if self.max_in_flight_bytes < self.max_body {
            self.max_in_flight_bytes = self.max_body;
        }
    }
}

/// A list of networks, such as `"192.0.2.0/24"`; an address alone is one as well.
fn networks(section: &mut Section<'_>, key: &'static str) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for text in section.strings(key).unwrap_or_default() {
        match text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
            Ok(network) => networks.push(network),
            Err(_) => section.problem(key, &text, "networks such as \"192.0.2.0/24\" or \"2001:db8::/32\""),
        }
    }
    networks
}
