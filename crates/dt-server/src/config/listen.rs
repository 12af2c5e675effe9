//! Where requests arrive, and who may speak for whom: addresses, `[tls]`, `trusted_proxies`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use super::reader::Section;
use super::source::Sources;
use crate::tls::{TlsError, TlsSettings, problems};

/// Where a listener listens.
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
    /// An address.
    Tcp(SocketAddr),
    /// A Unix socket: `unix:PATH`.
    Unix(PathBuf),
    /// A socket that systemd has opened: `systemd` for the first one, `systemd:NAME` for the one of that name
    /// (`FileDescriptorName=`).
    Systemd(Option<String>),
}

impl Listen {
    /// The address, if it is one.
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

/// What may be listened on, for messages.
pub(super) const LISTEN_ALLOWED: &str =
    "an address such as \"127.0.0.1:8080\", \"unix:PATH\", \"systemd\" or \"systemd:NAME\"";

/// Not something to listen on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("allowed is {LISTEN_ALLOWED}")]
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

/// Who may say on behalf of whom a request comes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Proxies {
    /// The networks of our own proxies.
    pub networks: Vec<IpNet>,
    /// Whether whoever connects to our Unix socket is one.
    pub unix: bool,
    /// The header in which they say it.
    pub header: ClientHeader,
    /// Whether every connection begins with a header of the PROXY protocol.
    pub protocol: bool,
}

impl Proxies {
    /// Whether a peer is one of our proxies; none is what connects to a Unix socket.
    #[must_use]
    pub fn trusts(&self, peer: Option<IpAddr>) -> bool {
        let Some(address) = peer else { return self.unix };
        // An IPv4 peer of an IPv6 socket.
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }

    /// Whether there is any.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.unix
    }
}

/// The header in which a proxy names the client. One only: a proxy that writes one passes the other on as it came, so
/// whoever wants could write into it.
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

/// Not a header in which a proxy names the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown header; allowed are X-Forwarded-For, Forwarded")]
pub struct UnknownClientHeader;

impl Proxies {
    pub(super) fn read(root: &mut Section<'_>) -> Self {
        let mut proxies = Self::default();
        for text in root.strings("trusted_proxies").unwrap_or_default() {
            if text == "unix" {
                proxies.unix = true;
            } else if let Ok(network) = text.parse::<IpNet>() {
                proxies.networks.push(network.trunc());
            } else if let Ok(address) = text.parse::<IpAddr>() {
                proxies.networks.push(IpNet::from(address));
            } else {
                let allowed = "a network such as \"10.0.0.0/8\", an address, or \"unix\"";
                root.problem("trusted_proxies", &text, allowed);
            }
        }
        root.choice_into("client_header", &["X-Forwarded-For", "Forwarded"], &mut proxies.header);
        proxies.protocol = root.flag("proxy_protocol").unwrap_or(false);
        if proxies.protocol && proxies.is_empty() {
            let text = "needs `trusted_proxies`: whoever may send a PROXY header says who the client is";
            root.complain("proxy_protocol", text.to_owned());
        }
        proxies
    }
}

/// The mode of a Unix socket, as octal digits.
pub(super) fn read_mode(root: &mut Section<'_>, target: &mut u32) {
    let Some(text) = root.string("socket_mode") else { return };
    match u32::from_str_radix(&text, 8) {
        Ok(mode) if mode <= 0o777 => *target = mode,
        _ => root.problem("socket_mode", &text, "octal digits such as \"0660\""),
    }
}

/// Reads `[tls]`, and looks into the files it names.
pub(super) fn read_tls(mut section: Section<'_>, sources: &dyn Sources) -> Option<TlsSettings> {
    let mut path = |key, what: Option<&str>| match (section.private_string(key), what) {
        // A key itself may stand there by mistake; it is not shown.
        (Some(path), _) if path.is_empty() || path.contains(char::is_control) => {
            section.complain(key, "is no path; allowed is the path of a file in PEM".to_owned());
            None
        }
        (None, Some(_)) if section.has_errors_at(key) => None,
        (None, Some(what)) => {
            section.complain(key, format!("is missing; name the file of {what}, in PEM"));
            None
        }
        (path, _) => path,
    };
    let certificate = path("certificate", Some("the certificate with its chain"));
    let key = path("key", Some("the certificate's private key"));
    let client_ca = path("client_ca", None);
    let is_whole = certificate.is_some() && key.is_some();
    let mut settings = TlsSettings::new(certificate.unwrap_or_default(), key.unwrap_or_default());
    settings.client_ca = client_ca.map(PathBuf::from);
    section.choice_into("min_version", &["1.2", "1.3"], &mut settings.min_version);
    let interval = Duration::from_millis(10)..=Duration::from_secs(3600);
    section.duration_into("check_interval", interval, &mut settings.check_interval);
    if is_whole {
        let (errors, warnings) = look_at(&settings, sources);
        errors.into_iter().for_each(|(key, text)| section.complain(key, text));
        warnings.into_iter().for_each(|(key, text)| section.warn(key, text));
    }
    section.finish();
    is_whole.then_some(settings)
}

/// A key in `[tls]`, and what is wrong with its file.
pub(super) type Finding = (&'static str, String);

/// What is wrong with the files of `[tls]`, and what looks wrong, each with its key there.
pub(super) fn look_at(settings: &TlsSettings, sources: &dyn Sources) -> (Vec<Finding>, Vec<Finding>) {
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
