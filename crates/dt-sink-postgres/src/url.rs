//! The address of the server: a URL with a password, so it is read from the environment or from a file, and never shown.

use std::net::IpAddr;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use dt_verify::Secret;

/// The options of libpq that the client library does not support, each with its replacement.
const FOREIGN_OPTIONS: [(&str, &str); 6] = [
    ("sslmode=verify-full", "write `sslmode=require`, which checks chain and host name here"),
    ("sslmode=verify-ca", "write `sslmode=require`, which checks chain and host name here"),
    ("sslmode=allow", "write `sslmode=require` or `sslmode=disable`"),
    ("sslrootcert", "name the file in the key `ca`"),
    ("sslcert", "client certificates are not supported; use a password"),
    ("passfile", "put the password into the URL"),
];

/// The address of the server, the credentials, and whether the connection uses TLS.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    config: Config,
    is_remote: bool,
}

impl std::fmt::Debug for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Url(redacted)")
    }
}

/// Why a text is not the URL of a PostgreSQL server. The message contains no part of the text, which may be a part of the
/// password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAUrl {
    /// The text is not UTF-8, or has another scheme.
    #[error("it does not begin with postgres:// or postgresql://")]
    NoScheme,
    /// The URL has an option of libpq that is not supported. Contains the option and its replacement.
    #[error("the option {0} is not available; {1}")]
    ForeignOption(&'static str, &'static str),
    /// A host, a port or an option is unknown or invalid.
    #[error(
        "a host, port or option is invalid; write postgres://USER:PASSWORD@HOST:PORT/DATABASE, and special characters of \
         the password as %XX (@ is %40, / is %2F, ? is %3F)"
    )]
    Invalid,
    /// The URL contains no host.
    #[error("it names no host")]
    NoHost,
    /// The URL contains no user.
    #[error("it names no user")]
    NoUser,
    /// The URL contains both a socket and a host on the network. Sockets do not use TLS, so one setting cannot apply to both.
    #[error("it names a host beside a socket folder; use one kind")]
    MixedHosts,
}

impl Url {
    /// Parses a URL. Without `sslmode`, the connection uses TLS, unless all hosts are this machine.
    ///
    /// # Errors
    ///
    /// [`NotAUrl`] with the reason.
    pub fn parse(secret: &Secret) -> Result<Self, NotAUrl> {
        let text = std::str::from_utf8(secret.expose()).map_err(|_| NotAUrl::NoScheme)?;
        if !["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) {
            return Err(NotAUrl::NoScheme);
        }
        let options = text.rsplit_once('?').map_or("", |(_, options)| options);
        let is_given = |name: &str| options.split('&').any(|option| option.starts_with(name));
        if let Some((name, instead)) = FOREIGN_OPTIONS.iter().find(|(name, _)| is_given(name)) {
            return Err(NotAUrl::ForeignOption(name, instead));
        }
        let mut config: Config = text.parse().map_err(|_| NotAUrl::Invalid)?;
        if config.get_user().is_none_or(str::is_empty) {
            return Err(NotAUrl::NoUser);
        }
        let (hosts, addresses) = (config.get_hosts(), config.get_hostaddrs());
        let sockets = hosts.iter().filter(|host| matches!(host, Host::Unix(_))).count();
        let names = || {
            hosts.iter().filter_map(|host| match host {
                Host::Tcp(name) => Some(name.as_str()),
                Host::Unix(_) => None,
            })
        };
        if names().any(|name| !is_host(name)) {
            return Err(NotAUrl::Invalid);
        }
        if hosts.is_empty() && addresses.is_empty() {
            return Err(NotAUrl::NoHost);
        }
        if sockets > 0 && (sockets < hosts.len() || !addresses.is_empty()) {
            return Err(NotAUrl::MixedHosts);
        }
        // `hostaddr` is where the connection goes; `host` is then only the name in the certificate.
        let is_remote = match addresses {
            [] => names().any(|name| !is_loopback(name)),
            addresses => addresses.iter().any(|address| !address.is_loopback()),
        };
        if config.get_ssl_mode() == SslMode::Prefer || sockets > 0 {
            // TLS "if available" would let anyone in between turn it off.
            config.ssl_mode(if is_remote { SslMode::Require } else { SslMode::Disable });
        }
        if config.get_application_name().is_none() {
            config.application_name("dt-receiver");
        }
        Ok(Self { config, is_remote })
    }

    /// Returns the settings for the client library.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Returns whether the connection uses TLS.
    pub fn has_tls(&self) -> bool {
        self.config.get_ssl_mode() != SslMode::Disable
    }

    /// Returns whether the password and the events are sent over a network in plain text.
    pub fn is_plain_on_network(&self) -> bool {
        self.is_remote && !self.has_tls()
    }

    /// Returns whether the URL requires a read-only server.
    pub fn is_read_only(&self) -> bool {
        self.config.get_target_session_attrs() == TargetSessionAttrs::ReadOnly
    }
}

fn is_host(name: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty()
            && name.len() <= 253
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
    };
    is_name(name) || name.parse::<IpAddr>().is_ok()
}

fn is_loopback(name: &str) -> bool {
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Url, NotAUrl> {
        Url::parse(&Secret::new(text).expect("not empty"))
    }

    #[test]
    fn tls_is_the_default_except_on_this_machine() {
        for (url, has_tls, is_plain) in [
            ("postgres://u:p@db.example.com/d", true, false),
            ("postgresql://u:p@db.example.com:5433/d?sslmode=require", true, false),
            ("postgres://u:p@db.example.com/d?sslmode=prefer", true, false),
            ("postgres://u:p@db.example.com/d?sslmode=disable", false, true),
            ("postgres://u:p@127.0.0.1/d", false, false),
            ("postgres://u:p@localhost/d", false, false),
            ("postgres://u:p@[::1]/d", false, false),
            ("postgres://u:p@localhost/d?sslmode=require", true, false),
            ("postgres://u:p@localhost,db-2/d", true, false),
            ("postgres://u:p@localhost/d?hostaddr=10.0.0.1&sslmode=disable", false, true),
            ("postgres://u:p@db/d?hostaddr=127.0.0.1", false, false),
            ("postgres://u@%2Fvar%2Frun%2Fpostgresql/d", false, false),
            ("postgres:///d?user=u&host=/var/run/postgresql", false, false),
        ] {
            let parsed = parse(url).expect(url);
            assert_eq!((parsed.has_tls(), parsed.is_plain_on_network()), (has_tls, is_plain), "{url}");
            assert_eq!(format!("{parsed:?}"), "Url(redacted)");
        }
    }

    #[test]
    fn what_is_no_url_is_named_without_its_text() {
        for (url, error) in [
            ("host=db user=u", NotAUrl::NoScheme),
            ("mysql://u:p@db/d", NotAUrl::NoScheme),
            ("postgres://u:p@ss@db/d", NotAUrl::Invalid),
            ("postgres://u:p@db:port/d", NotAUrl::Invalid),
            ("postgres://u:p@db/d?hunter2=1", NotAUrl::Invalid),
            ("postgres://u:p@db/d?sslmode=hunter2", NotAUrl::Invalid),
            ("postgres://u:p@/d", NotAUrl::NoHost),
            ("postgres://db/d", NotAUrl::NoUser),
            ("postgres://u:p@db/d?host=/tmp", NotAUrl::MixedHosts),
        ] {
            assert_eq!(parse(url), Err(error), "{url}");
            assert!(!error.to_string().contains("hunter2") && !error.to_string().contains("ss@"));
        }
        for option in ["sslmode=verify-full", "sslrootcert=/ca.pem", "sslcert=x"] {
            let error = parse(&format!("postgres://u:p@db/d?connect_timeout=3&{option}")).expect_err(option);
            assert!(matches!(error, NotAUrl::ForeignOption(..)), "{option}: {error}");
        }
    }
}
