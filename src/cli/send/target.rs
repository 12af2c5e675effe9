//! The receiver to which `send` sends: the URL and the headers of every request, which are checked before the first one.

use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    USER_AGENT,
};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body_util::Full;

use super::super::{Failure, usage};
use super::tls::Tls;
use dt_verify::SECRET_HEADER;

const URL_FORM: &str = "http://HOST[:PORT][/PATH], or https";

/// A receiver, and the headers of every request to it.
#[derive(Debug, Clone)]
pub struct Target {
    host: String,
    port: u16,
    path: PathAndQuery,
    headers: HeaderMap,
    tls: Option<Tls>,
}

impl Target {
    /// Reads the options `--url`, `--ca` and `--header`. No message contains a URL that may have a password.
    pub fn read(url: &str, ca: Option<&Path>, headers: &[String]) -> Result<Self, Failure> {
        let found = |why: &str| usage(format!("--url: {why}; expected {URL_FORM}"));
        if url.contains('@') {
            return Err(found("found a user name or password, or another \"@\""));
        }
        let odd = |what: &str| found(&format!("found \"{}\", {what}", url.escape_debug()));
        let uri: Uri = url.parse().map_err(|error| odd(&format!("which is not a URL ({error})")))?;
        let is_https = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            _ => return Err(odd("which does not begin with http:// or https://")),
        };
        if ca.is_some() && !is_https {
            return Err(usage(
                "--ca: the URL begins with http://, so there is no certificate; expected https://",
            ));
        }
        let Some(authority) = uri.authority() else { return Err(odd("which has no host")) };
        let host = authority.host();
        if host.is_empty() {
            return Err(odd("which has no host"));
        }
        let port = match authority.as_str().strip_prefix(host) {
            Some("") if is_https => 443,
            Some("") => 80,
            _ => match authority.port_u16() {
                Some(port) if port > 0 => port,
                _ => return Err(odd("whose port is not from 1 to 65535")),
            },
        };
        let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = if is_https { Some(Tls::new(&host, ca)?) } else { None };
        let mut target = Self { host, port, path, headers: HeaderMap::new(), tls };
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| odd("whose host is not ASCII"))?;
        target.headers.insert(HOST, host);
        target.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let agent = concat!("dt-receiver/", env!("CARGO_PKG_VERSION"));
        target.headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        target.add_headers(headers)?;
        Ok(target)
    }

    /// Adds the headers of the user. A header replaces the default header of the same name. No message contains a value, which
    /// may be secret.
    fn add_headers(&mut self, headers: &[String]) -> Result<(), Failure> {
        let mut own = HeaderMap::new();
        for text in headers {
            let Some((name, value)) = text.split_once('=') else {
                return Err(usage("--header: found one without \"=\"; expected NAME=VALUE"));
            };
            let shown = name.escape_debug();
            let parsed: HeaderName = name.parse().map_err(|_| {
                usage(format!("--header: found the name \"{shown}\"; expected letters, digits and \"-\""))
            })?;
            if parsed.as_str().eq_ignore_ascii_case(SECRET_HEADER) {
                return Err(usage(format!(
                    "--header: found {shown}, which `send` sets itself; use --fault for invalid ones"
                )));
            }
            if [CONNECTION, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING, UPGRADE].contains(&parsed) {
                return Err(usage(format!(
                    "--header: found {shown}, which HTTP itself needs; expected another header"
                )));
            }
            let value = HeaderValue::from_str(value).map_err(|_| {
                usage(format!(
                    "--header: the value of {shown} is not printable ASCII; expected printable ASCII"
                ))
            })?;
            own.append(parsed, value);
        }
        // A header that is given twice is sent twice.
        for name in own.keys() {
            self.headers.remove(name);
        }
        self.headers.extend(own);
        Ok(())
    }

    /// Returns the receiver's host and port, for messages.
    pub fn shown(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// Returns the configuration of TLS; `None` if the URL does not have https.
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// Resolves the addresses of the receiver's host, once for the whole run.
    pub async fn resolve(&self) -> std::io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((self.host.as_str(), self.port)).await?.collect())
    }

    /// Creates a request with the headers that DT sends.
    pub fn request(&self, body: Bytes, token: Option<HeaderValue>) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from(self.path.clone());
        let headers = request.headers_mut();
        headers.clone_from(&self.headers);
        if let Some(token) = token {
            headers.insert(SIGNATURE, token);
        }
        request
    }
}

/// [`SECRET_HEADER`] in lower case, as HTTP libraries require; the client capitalises it.
const SIGNATURE: HeaderName = HeaderName::from_static("x-dt-signature");

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str, headers: &[&str]) -> String {
        let headers: Vec<String> = headers.iter().map(ToString::to_string).collect();
        match Target::read(url, None, &headers) {
            Err(Failure::Usage(text)) => text,
            other => panic!("{url} {headers:?} gave {other:?}"),
        }
    }

    #[test]
    fn host_port_and_path_are_found() {
        for (url, shown, path) in [
            ("http://127.0.0.1:8080/", "127.0.0.1:8080", "/"),
            ("http://example.com", "example.com:80", "/"),
            ("http://[::1]:81/dt?a=b", "[::1]:81", "/dt?a=b"),
            ("http://[::1]", "[::1]:80", "/"),
            ("https://example.com/dt", "example.com:443", "/dt"),
            ("https://[::1]:8443/", "[::1]:8443", "/"),
        ] {
            let target = Target::read(url, None, &[]).unwrap();
            assert_eq!(target.shown(), shown);
            let request = target.request(Bytes::new(), None);
            assert_eq!(request.uri().to_string(), path);
            assert_eq!(request.method(), Method::POST);
        }
    }

    #[test]
    fn a_bad_url_is_reported_with_the_expected_form() {
        for (url, why) in [
            ("ftp://example.com/", "does not begin with http://"),
            ("127.0.0.1:8080", "does not begin with http://"),
            ("/dt", "does not begin with http://"),
            ("http://example.com:0/", "port"),
            ("http://example.com:70000/", "port"),
            ("http://example.com:/", "port"),
            ("http://:80/", "no"),
            ("", "not a URL"),
        ] {
            let text = refused(url, &[]);
            assert!(text.starts_with("--url: ") && text.contains(why), "{url}: {text}");
            assert!(text.contains("expected http://"), "{url}: {text}");
        }
    }

    #[test]
    fn no_message_repeats_what_may_be_a_password() {
        for (url, headers) in [
            ("http://me:hunter2@example.com/", &[] as &[&str]),
            ("http://a/", &["hunter2"]),
            ("http://a/", &["X-A=hunter2\n"]),
            ("http://a/", &["Content-Length=hunter2"]),
            ("http://a/", &["a b=hunter2"]),
            ("http://a/", &["x-dt-signature=hunter2"]),
        ] {
            let text = refused(url, headers);
            assert!(!text.contains("hunter2"), "{text}");
            assert!(text.starts_with("--url: ") || text.starts_with("--header: "), "{text}");
        }
    }

    #[test]
    fn a_given_header_replaces_ours_and_others_are_added() {
        let given = ["Content-Type=text/plain", "X-A=1", "x-a=2=3"].map(String::from);
        let target = Target::read("http://a/", None, &given).unwrap();
        let request = target.request(Bytes::new(), Some(HeaderValue::from_static("a.b.c")));
        let all = |name: &str| -> Vec<_> { request.headers().get_all(name).iter().cloned().collect() };
        assert_eq!(all("content-type"), ["text/plain"]);
        assert_eq!(all("x-a"), ["1", "2=3"]);
        assert_eq!(all("host"), ["a"]);
        assert_eq!(all(SECRET_HEADER), ["a.b.c"]);
    }
}
