//! The addresses of the listeners, `[tls]`, and the trusted proxies.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::IpNet;

use crate::tls::{TlsError, TlsSettings, problems};
use dt_sink::config::{Section, Sources, config_keys, custom, flag, word};

/// The address of a listener.
///
/// # Examples
///
/// ```
/// use std::path::PathBuf;
///
/// use dt_server::config::Listen;
///
/// assert_eq!("127.0.0.1:8080".parse(), Ok(Listen::Tcp(([127, 0, 0, 1], 8080).into())));
/// assert_eq!("unix:/run/in.sock".parse(), Ok(Listen::Unix(PathBuf::from("/run/in.sock"))));
/// assert_eq!("systemd:dt-http".parse(), Ok(Listen::Systemd(Some("dt-http".to_owned()))));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// A Unix socket: `unix:PATH`.
    Unix(PathBuf),
    /// A socket that systemd has opened: `systemd` for the first one, `systemd:NAME` for the one with that name
    /// (`FileDescriptorName=`).
    Systemd(Option<String>),
}

impl Listen {
    /// Returns the IP address and port; `None` for a Unix socket or one of systemd.
    #[must_use]
    pub const fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) | Self::Systemd(_) => None,
        }
    }
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Systemd(None) => f.write_str("systemd"),
            Self::Systemd(Some(name)) => write!(f, "systemd:{name}"),
        }
    }
}

/// The valid values of `listen`, for error messages.
pub const LISTEN_EXPECTED: &str =
    "an address such as \"127.0.0.1:8080\", \"unix:PATH\", \"systemd\" or \"systemd:NAME\"";

/// The error for a text that is not the address of a listener.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {LISTEN_EXPECTED}")]
pub struct NotAListener;

impl FromStr for Listen {
    type Err = NotAListener;

    fn from_str(text: &str) -> Result<Self, NotAListener> {
        if text == "systemd" {
            return Ok(Self::Systemd(None));
        }
        match text.split_once(':') {
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(PathBuf::from(path))),
            Some(("systemd", name)) if !name.is_empty() => Ok(Self::Systemd(Some(name.to_owned()))),
            _ => text.parse().map(Self::Tcp).map_err(|_| NotAListener),
        }
    }
}

config_keys! {
    /// The trusted proxies and the header in which they name the client.
    #[derive(Debug, Clone, PartialEq, Eq)]
    #[non_exhaustive]
    pub struct Proxies {
        /// Proxies whose client-address header is trusted. `"unix"` is every client of the receiver's Unix socket. Name your
        /// own proxies only: each address in these networks can claim to be any client, also one of `limits.allow_cidrs`.
        trusted: TrustedProxies = custom("list of networks, addresses, `\"unix\"`", read_trusted)
            .shown_as(|trusted| format!("{:?}", (&trusted.networks, trusted.unix)))
            .or(TrustedProxies::default())
            .key("trusted_proxies")
            .default_words("none")
            .sample("[\"10.0.0.0/8\"]"),
        /// The header in which trusted proxies name the client.
        header: ClientHeader =
            word(&["X-Forwarded-For", "Forwarded"]).or(ClientHeader::default()).key("client_header"),
        /// Expects a header of the PROXY protocol (version 1 or 2) at the start of each connection; connections from
        /// other peers are closed.
        protocol: bool = flag().or(false).key("proxy_protocol"),
    }
}

/// The peers that are trusted as proxies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TrustedProxies {
    /// The networks of the proxies.
    pub networks: Vec<IpNet>,
    /// Whether every client of the Unix socket is a trusted proxy.
    pub unix: bool,
}

impl Proxies {
    /// Returns whether a peer is a trusted proxy. `None` stands for a client of the Unix socket.
    #[must_use]
    pub fn trusts(&self, peer: Option<IpAddr>) -> bool {
        let Some(address) = peer else { return self.trusted.unix };
        // An IPv6 socket reports IPv4 addresses as mapped ones.
        let address = address.to_canonical();
        self.trusted.networks.iter().any(|network| network.contains(&address))
    }

    /// Returns whether no proxy is trusted.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.trusted.networks.is_empty() && !self.trusted.unix
    }

    pub(super) fn check(&mut self, root: &Section<'_>) {
        if self.protocol && self.is_empty() {
            let text = "needs `trusted_proxies`: a peer that may send a PROXY header names the client";
            root.complain("proxy_protocol", text);
        }
    }
}

/// The header in which a proxy names the client. There is only one: a proxy that sets one of them forwards the other
/// unchanged, so that any client could set it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientHeader {
    /// `X-Forwarded-For`.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

impl FromStr for ClientHeader {
    type Err = UnknownClientHeader;

    fn from_str(text: &str) -> Result<Self, UnknownClientHeader> {
        match text.to_ascii_lowercase().as_str() {
            "x-forwarded-for" => Ok(Self::XForwardedFor),
            "forwarded" => Ok(Self::Forwarded),
            _ => Err(UnknownClientHeader),
        }
    }
}

/// The error for a text that is not the name of a client-address header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown header; expected X-Forwarded-For or Forwarded")]
pub struct UnknownClientHeader;

impl fmt::Display for ClientHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::XForwardedFor => "X-Forwarded-For",
            Self::Forwarded => "Forwarded",
        })
    }
}

fn read_trusted(root: &mut Section<'_>, key: &'static str) -> Option<TrustedProxies> {
    let mut trusted = TrustedProxies::default();
    for text in root.strings(key)? {
        if text == "unix" {
            trusted.unix = true;
        } else if let Ok(network) = text.parse::<IpNet>() {
            trusted.networks.push(network.trunc());
        } else if let Ok(address) = text.parse::<IpAddr>() {
            trusted.networks.push(IpNet::from(address));
        } else {
            root.problem(key, &text, "a network such as \"10.0.0.0/8\", an address, or \"unix\"");
        }
    }
    Some(trusted)
}

/// Reads the address of `/healthz`, `/readyz` and `/metrics`. The inner `None` means "off"; the outer `None` means that the key
/// is absent or invalid.
pub fn read_admin(root: &mut Section<'_>, key: &'static str) -> Option<Option<Listen>> {
    let text = root.string(key)?;
    if text == "off" {
        return Some(None);
    }
    let address = text.parse().ok();
    if address.is_none() {
        root.problem(key, &text, "an address such as \"127.0.0.1:9464\", or \"off\"");
    }
    address.map(Some)
}

/// Reads the file mode of Unix sockets, as octal digits.
pub fn read_mode(root: &mut Section<'_>, key: &'static str) -> Option<u32> {
    let text = root.string(key)?;
    let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o777);
    if mode.is_none() {
        root.problem(key, &text, "octal digits such as \"0660\"");
    }
    mode
}

/// Checks the files of the table `[tls]`, and reports their problems.
pub fn check_tls(settings: &mut TlsSettings, section: &Section<'_>) {
    let (errors, warnings) = check_files(settings, section.sources());
    errors.into_iter().for_each(|(key, text)| section.complain(key, text));
    warnings.into_iter().for_each(|(key, text)| section.warn(key, text));
}

/// A key of `[tls]`, and the problem of the file that it names.
pub type Finding = (&'static str, String);

/// Checks the files of `[tls]`. Returns the errors, and then the warnings.
pub fn check_files(settings: &TlsSettings, sources: &dyn Sources) -> (Vec<Finding>, Vec<Finding>) {
    if !sources.looks_at_certificates() {
        return Default::default();
    }
    let (errors, warnings) = problems(settings, &|path| sources.certificate(path), sources.unix_seconds());
    let named = |error: TlsError| (error.key(), error.to_string());
    let mut warnings: Vec<_> = warnings.into_iter().map(named).collect();
    if sources.is_world_readable(&settings.key) {
        let path = settings.key.display();
        warnings.push(("key", format!("{path}: everybody on this machine can read it; chmod 0640 or less")));
    }
    (errors.into_iter().map(named).collect(), warnings)
}
