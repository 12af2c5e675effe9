//! Reads the header of the PROXY protocol, with which a TCP proxy names the client at the start of a connection.
//!
//! The header has version 2 (binary) or version 1 (a line of text). Exactly the bytes of the header are read. Its size is limited
//! here, its time by the caller.

use std::io;
use std::net::SocketAddr;

use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The length of the fixed part of version 2 in bytes. It contains the length of the variable part.
const V2_START: usize = 16;
/// The first bytes of version 2.
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The first bytes of version 1.
const V1_SIGNATURE: &[u8] = b"PROXY ";
/// The largest length of a header of version 1 in bytes, with its line end.
const V1_MAX: usize = 107;
/// The largest length of the variable part of version 2 in bytes: the addresses, and details such as those of the proxy's TLS.
const V2_MAX: usize = 4096;

/// Why a PROXY header was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ProxyHeaderError {
    /// The connection ended before the end of the header.
    #[error("the connection ended before the PROXY header: {0}")]
    Ended(#[from] io::Error),
    /// The connection does not begin with a PROXY header.
    #[error("the connection does not begin with a PROXY header; does the proxy send it (`send-proxy-v2`)?")]
    Missing,
    /// The header is malformed or too long.
    #[error("the PROXY header is malformed")]
    Malformed,
}

/// Reads the header and returns the address of the client. `None` for a connection of the proxy itself, such as a health check,
/// or for a client whose address the proxy does not know.
///
/// # Errors
///
/// Returns [`ProxyHeaderError`] if the connection ends, or does not begin with a valid header.
pub async fn read_proxy_header<S>(stream: &mut S) -> Result<Option<SocketAddr>, ProxyHeaderError>
where
    S: AsyncRead + Unpin,
{
    // Byte by byte, since a client that sends no header may send fewer bytes and wait for an answer.
    let mut header = Vec::with_capacity(V2_START);
    loop {
        let at = header.len();
        let byte = stream.read_u8().await?;
        header.push(byte);
        let goes_on = |signature: &[u8]| {
            header.get(..signature.len().min(header.len()))
                == signature.get(..header.len().min(signature.len()))
        };
        if !goes_on(V2_SIGNATURE) && !goes_on(V1_SIGNATURE) {
            return Err(ProxyHeaderError::Missing);
        }
        if header.starts_with(V1_SIGNATURE) {
            if byte == b'\n' {
                break;
            }
            if header.len() >= V1_MAX {
                return Err(ProxyHeaderError::Malformed);
            }
        } else if at.saturating_add(1) == V2_START {
            let length =
                header.get(14..).and_then(|bytes| bytes.try_into().ok()).map_or(0, u16::from_be_bytes);
            if usize::from(length) > V2_MAX {
                return Err(ProxyHeaderError::Malformed);
            }
            header.resize(V2_START.saturating_add(usize::from(length)), 0);
            if let Some(rest) = header.get_mut(V2_START..) {
                stream.read_exact(rest).await?;
            }
            break;
        }
    }
    let config = ParseConfig { include_tlvs: false, allow_v1: true, allow_v2: true };
    match ProxyHeader::parse(&header, config) {
        Ok((parsed, length)) if length == header.len() => {
            Ok(parsed.proxied_address().map(|address| address.source))
        }
        _ => Err(ProxyHeaderError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::runtime::Builder;

    use super::*;

    /// Returns the result of reading the header, and the bytes after it.
    fn read(bytes: &[u8]) -> (Result<Option<SocketAddr>, ProxyHeaderError>, Vec<u8>) {
        let runtime = Builder::new_current_thread().build().expect("a runtime");
        let mut stream = bytes;
        let result = runtime.block_on(read_proxy_header(&mut stream));
        (result, stream.to_vec())
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [V2_SIGNATURE, &[command, family], &length, rest].concat()
    }

    const V4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x67, 0x01, 0xbb];

    #[test]
    fn the_address_is_read_and_nothing_after_it() {
        let long = [&V4[..], &[0x04, 0x00, 0x20], &[0; 32]].concat();
        let v6: Vec<u8> = [
            &"2001:db8::7".parse::<std::net::Ipv6Addr>().expect("an address").octets()[..],
            &[0; 16],
            &[0x12, 0x67, 0, 1],
        ]
        .concat();
        for (header, expected) in [
            (v2(0x21, 0x11, &V4), Some("192.0.2.7:4711")),
            (v2(0x21, 0x11, &long), Some("192.0.2.7:4711")),
            (v2(0x21, 0x21, &v6), Some("[2001:db8::7]:4711")),
            (v2(0x20, 0x00, b""), None),
            (v2(0x20, 0x11, &V4), None),
            (v2(0x21, 0x00, b""), None),
            (v2(0x21, 0x31, &[0; 216]), None),
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n".to_vec(), Some("192.0.2.7:4711")),
            (b"PROXY TCP6 2001:db8::7 ::1 4711 443\r\n".to_vec(), Some("[2001:db8::7]:4711")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
        ] {
            let (result, left) = read(&[&header[..], b"POST / HTTP/1.1"].concat());
            let expected: Option<SocketAddr> = expected.map(|text| text.parse().expect("an address"));
            assert_eq!(result.expect("a header"), expected, "{header:?}");
            assert_eq!(left, b"POST / HTTP/1.1");
        }
    }

    #[test]
    fn what_is_none_is_seen_at_its_first_wrong_byte() {
        for bytes in
            [&b"POST / HTTP/1.1\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00"]
        {
            let (result, left) = read(bytes);
            assert!(matches!(result, Err(ProxyHeaderError::Missing)), "{result:?}");
            assert!(!left.is_empty(), "it does not wait for more");
        }
    }

    #[test]
    fn damaged_ones_are_refused() {
        let too_long = [V2_SIGNATURE, &[0x21, 0x11], &u16::MAX.to_be_bytes()].concat();
        let endless = [b"PROXY ", &[b'x'; 4096][..]].concat();
        for bytes in [
            too_long,
            endless,
            v2(0x11, 0x11, &V4),
            v2(0x21, 0x11, &V4[..4]),
            v2(0x21, 0x77, &V4),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 4711\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 99999\r\n".to_vec(),
            b"PROXY TCP9 192.0.2.7 10.0.0.1 4711 443\r\n".to_vec(),
            b"PROXY \n".to_vec(),
        ] {
            let (result, _) = read(&bytes);
            assert!(matches!(result, Err(ProxyHeaderError::Malformed)), "{result:?} of {bytes:?}");
        }
        assert!(matches!(read(b"PROXY TCP4 1").0, Err(ProxyHeaderError::Ended(_))));
        assert!(matches!(read(&v2(0x21, 0x11, &V4)[..20]).0, Err(ProxyHeaderError::Ended(_))));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_or_are_read_without_end(
            start in prop::sample::select(vec![&b""[..], V1_SIGNATURE, V2_SIGNATURE, b"PROXY TCP4 "]),
            bytes in prop::collection::vec(any::<u8>(), 0..8192),
        ) {
            let all = [start, &bytes].concat();
            let (_, left) = read(&all);
            prop_assert!(all.len() <= left.len().saturating_add(V2_START + V2_MAX));
        }
    }
}
