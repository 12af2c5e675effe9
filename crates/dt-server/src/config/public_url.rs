//! The URL at which DT reaches the receiver, and the comparison of URLs of Data Connectors with it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::Uri;

use dt_api::EndpointUrl;

/// The URL at which DT reaches the receiver. The path of a connector is appended to it.
///
/// # Examples
///
/// ```
/// use dt_server::config::PublicUrl;
///
/// let url: PublicUrl = "https://receiver.example.com/".parse()?;
/// assert_eq!(url.at("/plant-1").to_string(), "https://receiver.example.com/plant-1");
/// assert!("receiver.example.com".parse::<PublicUrl>().is_err());
/// # Ok::<(), dt_server::config::NotAPublicUrl>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl(String);

/// The error for a text that is not a public URL. The message does not contain the text, which may contain a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected the URL at which DT reaches the receiver, without user, password and query, such as \
     https://receiver.example.com; the `path` of each connector is appended"
)]
pub struct NotAPublicUrl;

impl NotAPublicUrl {
    /// Returns the stable code of the error.
    #[must_use]
    pub const fn code(self) -> &'static str {
        "public_url"
    }
}

impl FromStr for PublicUrl {
    type Err = NotAPublicUrl;

    fn from_str(url: &str) -> Result<Self, NotAPublicUrl> {
        let uri: Uri = url.parse().map_err(|_| NotAPublicUrl)?;
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        let authority = uri.authority().ok_or(NotAPublicUrl)?.as_str();
        let is_plain = is_http && !authority.contains('@') && !url.contains(['?', '#']);
        is_plain.then(|| Self(url.trim_end_matches('/').to_owned())).ok_or(NotAPublicUrl)
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl PublicUrl {
    /// Returns the Endpoint URL of a connector with this `path`.
    #[must_use]
    pub fn at(&self, path: &str) -> EndpointUrl {
        EndpointUrl::new(format!("{}{path}", self.0))
    }

    /// Returns whether the URL is https, or http on this machine.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        let Ok(uri) = self.0.parse::<Uri>() else { return false };
        let host = uri.host().unwrap_or_default();
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let is_local = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
        uri.scheme_str() == Some("https") || is_local
    }
}

/// Returns whether two URLs are the same, except for the case of the host and the slash of an empty path.
#[must_use]
pub fn is_same_url(a: &EndpointUrl, b: &EndpointUrl) -> bool {
    fn user(uri: &Uri) -> Option<&str> {
        uri.authority()?.as_str().rsplit_once('@').map(|(user, _)| user)
    }
    let (Ok(a_uri), Ok(b_uri)) = (a.expose().parse::<Uri>(), b.expose().parse::<Uri>()) else {
        return a == b;
    };
    // `Uri` itself ignores the case of a password.
    a_uri == b_uri && user(&a_uri) == user(&b_uri)
}

/// Returns a URL without its user and password.
#[must_use]
pub fn without_user(url: &EndpointUrl) -> EndpointUrl {
    let text = url.expose();
    let Some((scheme, rest)) = text.split_once("://") else { return url.clone() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    EndpointUrl::new(format!("{scheme}://{host}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_appended_to_a_plain_url_only() {
        for (url, base) in [
            ("https://receiver.example.com", Some("https://receiver.example.com")),
            ("https://receiver.example.com/", Some("https://receiver.example.com")),
            ("https://example.com:8443/dt/", Some("https://example.com:8443/dt")),
            ("http://127.0.0.1:8080", Some("http://127.0.0.1:8080")),
            ("receiver.example.com", None),
            ("/dt", None),
            ("ftp://example.com", None),
            ("https://user:hunter2@example.com", None),
            ("https://example.com?key=hunter2", None),
            ("https://example.com/#a", None),
            ("", None),
        ] {
            let read = url.parse::<PublicUrl>().map(|url| url.to_string()).ok();
            assert_eq!(read.as_deref(), base, "{url}");
        }
    }

    #[test]
    fn plain_http_is_for_this_machine() {
        let is_secure = |url: &str| url.parse::<PublicUrl>().expect(url).is_secure();
        assert!(
            is_secure("https://example.com")
                && is_secure("http://127.0.0.1:1")
                && is_secure("http://[::1]:1")
        );
        assert!(!is_secure("http://example.com") && !is_secure("http://10.0.0.1"));
    }

    #[test]
    fn urls_are_compared_by_what_they_mean() {
        for (a, b, same) in [
            ("https://example.com", "https://example.com/", true),
            ("https://Example.com/a", "https://example.com/a", true),
            ("https://example.com/a", "https://example.com/A", false),
            ("https://example.com/a", "https://example.com/a/", false),
            ("https://example.com/a", "https://example.com/a?b", false),
            ("https://u:p@example.com/", "https://example.com/", false),
            ("https://u:p@example.com/", "https://u:P@example.com/", false),
            ("https://u:p@Example.com/", "https://u:p@example.com", true),
            ("no url", "no url", true),
            ("no url", "another none", false),
        ] {
            assert_eq!(is_same_url(&EndpointUrl::new(a), &EndpointUrl::new(b)), same, "{a} {b}");
        }
        let stripped = |url: &str| without_user(&EndpointUrl::new(url)).expose().to_owned();
        assert_eq!(stripped("https://u:p@h/a@b"), "https://h/a@b");
        assert_eq!(stripped("https://h/a"), "https://h/a");
    }
}
