//! The header of the PROXY protocol. The bytes are what a proxy, or somebody who takes its place, sends first.
//!
//! What is accepted is exactly a header: what follows it is left for HTTP, and the address is the one that stands in it.
#![no_main]

use std::net::SocketAddr;

use dt_server::http::read_proxy_header;
use libfuzzer_sys::fuzz_target;

/// The longest header: the start of version 2, and the longest rest that is read.
const LONGEST: usize = 16 + 4096;

fuzz_target!(|bytes: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut left = bytes;
    let result = runtime.block_on(read_proxy_header(&mut left));
    let read = &bytes[..bytes.len() - left.len()];
    assert!(read.len() <= LONGEST, "{} bytes were read", read.len());
    let Ok(address) = result else { return };
    if let Some(line) = read.strip_prefix(b"PROXY ") {
        assert!(line.ends_with(b"\r\n"));
        if let Some(address) = address {
            // The address as it stands there may have other spellings, so it is parsed again.
            let mut words = std::str::from_utf8(line).expect("it was text").split(' ');
            let (ip, port) = (words.nth(1).expect("an address"), words.nth(1).expect("a port"));
            let read_again = SocketAddr::new(ip.parse().expect("an address"), port.parse().expect("a port"));
            assert_eq!(address, read_again);
        }
    } else {
        let length = u16::from_be_bytes([read[14], read[15]]);
        assert_eq!(read.len(), 16 + usize::from(length));
        match address {
            Some(SocketAddr::V4(address)) => {
                assert_eq!(address.ip().octets(), read[16..20]);
                assert_eq!(address.port().to_be_bytes(), read[24..26]);
            }
            Some(SocketAddr::V6(address)) => {
                assert_eq!(address.ip().octets(), read[16..32]);
                assert_eq!(address.port().to_be_bytes(), read[48..50]);
            }
            None => {}
        }
    }
});
