//! Headers of the PROXY protocol.

use crate::Seeds;

/// Headers of both versions, each with the start of a request behind it.
pub fn proxy_headers() -> Seeds {
    let v2 = |command: u8, family: u8, rest: &[u8]| {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, rest].concat()
    };
    let v4 = [192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x67, 0x01, 0xbb];
    let seeds: [(&str, Vec<u8>); 8] = [
        ("v1_tcp4", b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n".to_vec()),
        ("v1_tcp6", b"PROXY TCP6 2001:db8::7 ::1 4711 443\r\n".to_vec()),
        ("v1_unknown", b"PROXY UNKNOWN\r\n".to_vec()),
        ("v2_local", v2(0x20, 0, b"")),
        ("v2_tcp4", v2(0x21, 0x11, &v4)),
        ("v2_tcp4_more", v2(0x21, 0x11, &[&v4[..], &[4, 0, 2, 0, 0]].concat())),
        ("v2_tcp6", v2(0x21, 0x21, &[7; 36])),
        ("v2_unix", v2(0x21, 0x31, &[b'x'; 216])),
    ];
    let with_request = |bytes: Vec<u8>| [bytes, b"POST / HTTP/1.1\r\n".to_vec()].concat();
    seeds.into_iter().map(|(name, bytes)| (name.to_owned(), with_request(bytes))).collect()
}
