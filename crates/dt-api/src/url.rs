//! The base URLs of the API and the token endpoint, and the paths below them.

use std::net::IpAddr;

use http::Uri;

use crate::Error;

/// A URL to which credentials may be sent: https, or http on this machine. It has no slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl(String);

/// Why a URL is not accepted. The message does not contain the URL, which may contain a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadUrl {
    /// The text is not an absolute URL with `https` or `http`, or has a query.
    #[error("expected a URL without a query, such as https://api.disruptive-technologies.com/v2")]
    NotAUrl,
    /// The URL contains a user or a password.
    #[error("expected a URL without a user name; credentials are given separately")]
    HasUser,
    /// The URL is not `https`, and its host is not this machine.
    #[error(
        "expected https (http is allowed on this machine only): the credentials would be readable in the network"
    )]
    NotSecure,
}

impl BaseUrl {
    /// Parses a base URL.
    ///
    /// # Errors
    ///
    /// [`BadUrl`] if credentials cannot or must not be sent to the URL.
    pub fn new(text: &str) -> Result<Self, BadUrl> {
        let uri: Uri = text.parse().map_err(|_| BadUrl::NotAUrl)?;
        let authority = uri.authority().ok_or(BadUrl::NotAUrl)?;
        if authority.as_str().contains('@') {
            return Err(BadUrl::HasUser);
        }
        let host = authority.host();
        let has_port = authority.as_str().rsplit(']').next().is_some_and(|rest| rest.contains(':'));
        let is_bad_port = has_port && authority.port_u16().is_none_or(|port| port == 0);
        if host.is_empty() || is_bad_port || uri.query().is_some() || text.contains('#') {
            return Err(BadUrl::NotAUrl);
        }
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if is_this_machine(host) => {}
            Some("http") => return Err(BadUrl::NotSecure),
            _ => return Err(BadUrl::NotAUrl),
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }

    /// Returns the URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Returns an id as a segment of a URL path.
///
/// # Errors
///
/// [`Error::Argument`] if the id is empty, or contains characters other than letters, digits, `-` and `_`.
pub fn segment(name: &'static str, id: &str) -> Result<String, Error> {
    let is_id =
        !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    match is_id {
        true => Ok(id.to_owned()),
        false => Err(Error::Argument {
            name,
            expected: "an id of letters, digits, - and _, without \"projects/\"",
        }),
    }
}

/// Returns the query of a URL with these names and values.
pub fn query<'a>(members: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(members).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_go_to_secure_urls_only() {
        for good in
            ["https://api.example/v2", "http://127.0.0.1:1/v2/", "http://localhost", "http://[::1]:8081/v2"]
        {
            let read = BaseUrl::new(good).map(|url| url.as_str().to_owned());
            assert_eq!(read.as_deref(), Ok(good.trim_end_matches('/')), "{good}");
        }
        for (bad, why) in [
            ("", BadUrl::NotAUrl),
            ("api.example", BadUrl::NotAUrl),
            ("/v2", BadUrl::NotAUrl),
            ("ftp://api.example", BadUrl::NotAUrl),
            ("https://api.example/v2?x=1", BadUrl::NotAUrl),
            ("https://api.example/v2#x", BadUrl::NotAUrl),
            ("https://api.example:0/v2", BadUrl::NotAUrl),
            ("https://api.example:/v2", BadUrl::NotAUrl),
            ("https://user:hunter2@api.example/v2", BadUrl::HasUser),
            ("http://api.example/v2", BadUrl::NotSecure),
            ("http://10.0.0.1/v2", BadUrl::NotSecure),
            ("http://127.0.0.1.example/v2", BadUrl::NotSecure),
        ] {
            assert_eq!(BaseUrl::new(bad), Err(why), "{bad}");
        }
    }

    #[test]
    fn an_id_cannot_change_the_path() {
        assert_eq!(segment("project", "c0md-3_Z").as_deref(), Ok("c0md-3_Z"));
        assert_eq!(segment("project", "-").as_deref(), Ok("-"));
        for bad in ["", ".", "..", "a/b", "projects/p", "a?b", "a b", "ä", "a:sync", "%2e"] {
            assert_eq!(segment("project", bad).map_err(|error| error.code()), Err("argument"), "{bad}");
        }
        assert_eq!(query([("a", "x y&"), ("a", "ä")]), "a=x+y%26&a=%C3%A4");
    }
}
