//! The URL of a target. Its path may be a secret, as for webhooks of chat services, so only its origin is ever shown.

use std::fmt;
use std::net::IpAddr;

use http::Uri;
use http::uri::Scheme;

/// The URL to which a sink sends requests. `Debug` and `Display` show only its origin.
#[derive(Clone, PartialEq, Eq)]
pub struct TargetUrl(Uri);

/// Why a text is not the URL of a target. The message does not contain the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadUrl {
    /// The text is not an absolute http or https URL.
    #[error("is no URL; expected one such as \"https://example.com/events\"")]
    NotAUrl,
    /// The URL contains a user or a password.
    #[error("contains a user name; give user and password in [sink.auth]")]
    HasUser,
    /// The URL contains a fragment, which is never sent.
    #[error("contains a `#`, and what follows it is never sent; delete it")]
    HasFragment,
}

impl TargetUrl {
    /// Parses a URL.
    ///
    /// # Errors
    ///
    /// [`BadUrl`] if the text is not a valid URL of a target.
    pub fn new(text: &str) -> Result<Self, BadUrl> {
        if text.contains('#') {
            return Err(BadUrl::HasFragment);
        }
        let uri: Uri = text.parse().map_err(|_| BadUrl::NotAUrl)?;
        let is_known = uri.scheme() == Some(&Scheme::HTTP) || uri.scheme() == Some(&Scheme::HTTPS);
        let authority = uri.authority().filter(|_| is_known).ok_or(BadUrl::NotAUrl)?;
        if authority.as_str().contains('@') {
            return Err(BadUrl::HasUser);
        }
        // `https://host:/` has a port that is no number.
        let has_port =
            authority.as_str().rsplit_once(']').map_or(authority.as_str(), |(_, rest)| rest).contains(':');
        if authority.host().is_empty() || (has_port && authority.port_u16().is_none_or(|port| port == 0)) {
            return Err(BadUrl::NotAUrl);
        }
        Ok(Self(uri))
    }

    /// Returns the complete URL, for a request.
    #[must_use]
    pub const fn expose(&self) -> &Uri {
        &self.0
    }

    /// Returns the path and the query, which may be a secret; `None` if they are only `/`.
    #[must_use]
    pub fn expose_path(&self) -> Option<&str> {
        self.0.path_and_query().map(http::uri::PathAndQuery::as_str).filter(|path| path.len() > 1)
    }

    /// Returns whether the connection is secured by TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.0.scheme() == Some(&Scheme::HTTPS)
    }

    /// Returns whether the host is this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let host = self.0.host().unwrap_or_default();
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.0.authority().map_or("", http::uri::Authority::as_str);
        write!(f, "{}://{authority}", self.0.scheme_str().unwrap_or_default())
    }
}

impl fmt::Debug for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TargetUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_origin_is_shown() {
        let url = TargetUrl::new("https://hooks.example:8443/services/T0/secret?key=secret").expect("a URL");
        assert_eq!(url.to_string(), "https://hooks.example:8443");
        assert!(!format!("{url:?}").contains("secret"));
        assert_eq!(url.expose_path(), Some("/services/T0/secret?key=secret"));
        assert_eq!(TargetUrl::new("https://hooks.example").expect("a URL").expose_path(), None);
    }

    #[test]
    fn what_is_no_url_of_a_target_is_refused() {
        for bad in [
            "",
            "example.com",
            "/events",
            "ftp://example.com",
            "https://",
            "http:///x",
            "https://a b/",
            "https://h:x/",
            "https://h:/",
            "https://h:0/",
            "https://h:70000/",
            "https://[::1/",
        ] {
            assert_eq!(TargetUrl::new(bad), Err(BadUrl::NotAUrl), "{bad}");
        }
        assert_eq!(TargetUrl::new("https://user:password@h/"), Err(BadUrl::HasUser));
        assert_eq!(TargetUrl::new("https://h/#part"), Err(BadUrl::HasFragment));
    }

    #[test]
    fn loopback_is_this_machine_alone() {
        for (url, is_loopback) in [
            ("http://localhost:1/", true),
            ("http://127.0.0.1/", true),
            ("http://127.9.9.9/", true),
            ("http://[::1]:8080/x", true),
            ("http://127.0.0.1.example/", false),
            ("http://10.0.0.1/", false),
            ("http://[::2]/", false),
        ] {
            assert_eq!(TargetUrl::new(url).expect(url).is_loopback(), is_loopback, "{url}");
        }
    }
}
