//! Finds the client of a request behind trusted proxies, by `X-Forwarded-For` or `Forwarded` (RFC 7239).
//!
//! Each proxy appends the address of its peer. So the addresses are read from the right, past the trusted proxies, to the
//! first one that is not a trusted proxy. The addresses further left were written by that client and prove nothing. The
//! headers of a peer that is no trusted proxy are ignored.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

use crate::config::{ClientHeader, Proxies};

/// The client of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// The address of the client, with port 0 if the proxy does not name the port; the address of the proxy if it names no
    /// client. `None` for a Unix socket.
    pub address: Option<SocketAddr>,
    /// Whether `address` is the address of the client itself.
    is_known: bool,
}

impl Client {
    /// Returns the address of the client itself; `None` if it is not known.
    pub fn known(&self) -> Option<IpAddr> {
        self.address.filter(|_| self.is_known).map(|address| address.ip())
    }
}

/// Finds the client of a request that came from `peer`.
pub fn client_of(proxies: &Proxies, peer: Option<SocketAddr>, headers: &HeaderMap) -> Client {
    if proxies.is_empty() || !proxies.trusts(peer.map(|peer| peer.ip())) {
        return Client { address: peer, is_known: true };
    }
    match named_client(proxies, headers) {
        Some(client) => Client { address: Some(client), is_known: true },
        None => Client { address: peer, is_known: false },
    }
}

/// Returns the client that the trusted proxies name; `None` if they name none, or if the header is malformed.
fn named_client(proxies: &Proxies, headers: &HeaderMap) -> Option<SocketAddr> {
    let (name, read): (_, fn(&str) -> Option<SocketAddr>) = match proxies.header {
        ClientHeader::XForwardedFor => ("x-forwarded-for", address),
        ClientHeader::Forwarded => ("forwarded", forwarded_for),
    };
    let mut client = None;
    let lines: Vec<_> = headers.get_all(name).iter().collect();
    for line in lines.into_iter().rev() {
        // The elements of the trusted proxies are at the right; the client may have sent any bytes left of them.
        for element in line.as_bytes().rsplit(|byte| *byte == b',') {
            let found = std::str::from_utf8(element).ok().and_then(read)?;
            client = Some(found);
            if !proxies.trusts(Some(found.ip())) {
                return client;
            }
        }
    }
    client
}

/// Returns the address in the parameter `for=` of one element of `Forwarded`; `None` if there is no valid one.
fn forwarded_for(element: &str) -> Option<SocketAddr> {
    let mut pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    let value = value.trim();
    address(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
}

/// Parses an IP address, with or without a port and brackets; `None` for any other text. Without a port, the result has port 0.
fn address(text: &str) -> Option<SocketAddr> {
    let text = text.trim();
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(SocketAddr::new(address.ip().to_canonical(), address.port()));
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address.to_canonical(), 0))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    const PROXY: &str = "10.0.0.1:999";

    fn proxies(header: ClientHeader) -> Proxies {
        let networks = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().expect("a network"));
        let mut proxies = Proxies { header, ..Proxies::default() };
        proxies.trusted.networks = networks.to_vec();
        proxies
    }

    #[test]
    fn a_proxy_in_place_of_its_client_is_not_a_known_client() {
        let known = |peer: &str, value: &'static str| {
            let headers = HeaderMap::from_iter([(
                HeaderName::from_static("x-forwarded-for"),
                HeaderValue::from_static(value),
            )]);
            let client = client_of(&proxies(ClientHeader::XForwardedFor), peer.parse().ok(), &headers);
            client.known().map(|address| address.to_string())
        };
        assert_eq!(known(PROXY, "192.0.2.7").as_deref(), Some("192.0.2.7"));
        assert_eq!(known(PROXY, "unknown"), None);
        assert_eq!(known("203.0.113.5:1", "unknown").as_deref(), Some("203.0.113.5"));
    }

    fn client(header: ClientHeader, peer: &str, lines: &[(&'static str, &[u8])]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let value = HeaderValue::from_bytes(value).expect("a value");
            headers.append(HeaderName::from_static(name), value);
        }
        let peer = peer.parse().expect("an address");
        client_of(&proxies(header), Some(peer), &headers).address.expect("an address").to_string()
    }

    fn x_forwarded_for(value: &str) -> String {
        client(ClientHeader::XForwardedFor, PROXY, &[("x-forwarded-for", value.as_bytes())])
    }

    fn forwarded(value: &str) -> String {
        client(ClientHeader::Forwarded, PROXY, &[("forwarded", value.as_bytes())])
    }

    #[test]
    fn the_client_is_the_rightmost_that_is_no_proxy() {
        for (value, expected) in [
            ("192.0.2.7", "192.0.2.7:0"),
            ("192.0.2.7:4711", "192.0.2.7:4711"),
            ("2001:db8::7", "[2001:db8::7]:0"),
            ("[2001:db8::7]", "[2001:db8::7]:0"),
            ("[2001:db8::7]:4711", "[2001:db8::7]:4711"),
            ("::ffff:192.0.2.7", "192.0.2.7:0"),
            // The left part is the client's own invention.
            ("198.51.100.1, 192.0.2.7", "192.0.2.7:0"),
            ("\"garbage, 192.0.2.7", "192.0.2.7:0"),
            ("198.51.100.1, 192.0.2.7, 10.1.1.1,fd00::1", "192.0.2.7:0"),
            // Only trusted proxies: the farthest one.
            ("10.1.1.1, 10.2.2.2", "10.1.1.1:0"),
        ] {
            assert_eq!(x_forwarded_for(value), expected, "{value}");
        }
        for (value, expected) in [
            ("for=192.0.2.7", "192.0.2.7:0"),
            ("For=\"192.0.2.7:4711\";proto=https;by=10.0.0.1", "192.0.2.7:4711"),
            ("proto=https; for=\"[2001:db8::7]:4711\"", "[2001:db8::7]:4711"),
            ("for=198.51.100.1, for=192.0.2.7, for=10.1.1.1", "192.0.2.7:0"),
            ("for=\"198.51.100.1, for=192.0.2.7", "192.0.2.7:0"),
        ] {
            assert_eq!(forwarded(value), expected, "{value}");
        }
    }

    #[test]
    fn lines_are_one_list() {
        let lines: [(&str, &[u8]); 2] =
            [("x-forwarded-for", b"198.51.100.1, 192.0.2.7"), ("x-forwarded-for", b"10.1.1.1")];
        assert_eq!(client(ClientHeader::XForwardedFor, PROXY, &lines), "192.0.2.7:0");
    }

    #[test]
    fn what_cannot_be_understood_leaves_the_proxy() {
        for value in ["", "unknown", "_hidden", "192.0.2", "192.0.2.7, ", "192.0.2.7, x", "192.0.2.7:99999"] {
            assert_eq!(x_forwarded_for(value), PROXY, "{value}");
        }
        for value in ["", "192.0.2.7", "by=192.0.2.7", "for=unknown", "for=", "for=192.0.2.7, proto=https"] {
            assert_eq!(forwarded(value), PROXY, "{value}");
        }
        let lines: [(&str, &[u8]); 1] = [("x-forwarded-for", b"192.0.2.7, \xff")];
        assert_eq!(client(ClientHeader::XForwardedFor, PROXY, &lines), PROXY);
    }

    #[test]
    fn untrusted_peers_and_the_other_header_are_ignored() {
        let both: [(&str, &[u8]); 2] = [("x-forwarded-for", b"192.0.2.7"), ("forwarded", b"for=192.0.2.8")];
        for header in [ClientHeader::XForwardedFor, ClientHeader::Forwarded] {
            assert_eq!(client(header, "203.0.113.5:1", &both), "203.0.113.5:1");
        }
        assert_eq!(client(ClientHeader::XForwardedFor, PROXY, &both[1..]), PROXY);
        assert_eq!(client(ClientHeader::Forwarded, PROXY, &both[..1]), PROXY);
        // A proxy that is reached through an IPv6 socket.
        assert_eq!(client(ClientHeader::Forwarded, "[::ffff:10.0.0.1]:9", &both), "192.0.2.8:0");
    }

    #[test]
    fn who_comes_by_the_unix_socket_is_a_proxy_if_we_say_so() {
        let headers = HeaderMap::from_iter([(
            HeaderName::from_static("x-forwarded-for"),
            HeaderValue::from_static("192.0.2.7"),
        )]);
        assert_eq!(client_of(&proxies(ClientHeader::XForwardedFor), None, &headers).known(), None);
        let mut unix = Proxies::default();
        unix.trusted.unix = true;
        assert_eq!(client_of(&unix, None, &headers).known(), "192.0.2.7".parse().ok());
        assert_eq!(client_of(&unix, None, &HeaderMap::new()).known(), None);
    }

    proptest! {
        #[test]
        fn a_client_cannot_choose_its_address(forged in "[ -~\t]{0,80}") {
            prop_assert_eq!(x_forwarded_for(&format!("{forged}, 192.0.2.7")), "192.0.2.7:0");
            prop_assert_eq!(forwarded(&format!("{forged}, for=192.0.2.7, for=10.9.9.9")), "192.0.2.7:0");
        }
    }
}
