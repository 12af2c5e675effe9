//! A client that speaks TLS as DT does: it verifies the server, and keeps its connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::authority::{Authority, Pair};
use crate::events::{body, now, token};

/// What a client trusts, and shows of itself.
pub(crate) fn trusting(authority: &Authority, own: Option<&Pair>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der.clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    Arc::new(match own {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key");
            builder.with_client_auth_cert(vec![pair.der.clone()], key).expect("a pair")
        }
    })
}

/// A connection.
pub(crate) struct Client {
    stream: BufReader<StreamOwned<ClientConnection, TcpStream>>,
}

impl Client {
    /// Connects and shakes hands, after these bytes.
    pub(crate) fn connect_after(
        address: SocketAddr,
        config: &Arc<ClientConfig>,
        first: &[u8],
    ) -> Result<Self, String> {
        let mut stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
        stream.set_nodelay(true).expect("no delay");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        stream.write_all(first).map_err(|error| error.to_string())?;
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        let mut connection = ClientConnection::new(Arc::clone(config), name).expect("a connection");
        while connection.is_handshaking() {
            connection.complete_io(&mut stream).map_err(|error| error.to_string())?;
        }
        Ok(Self { stream: BufReader::new(StreamOwned::new(connection, stream)) })
    }

    pub(crate) fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> Result<Self, String> {
        Self::connect_after(address, config, b"")
    }

    /// The server's certificate.
    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        let chain = self.stream.get_ref().conn.peer_certificates().expect("a chain");
        chain.first().expect("a certificate").clone().into_owned()
    }

    pub(crate) fn local_address(&self) -> SocketAddr {
        self.stream.get_ref().sock.local_addr().expect("an address")
    }

    /// Sends an event and gives the status of the answer.
    pub(crate) fn send(&mut self, device: u64, number: u64) -> Result<u16, String> {
        let body = body(device, number);
        let token = token(&body, now());
        self.request(&format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nX-Dt-Signature: {token}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    pub(crate) fn request(&mut self, request: &str) -> Result<u16, String> {
        let text = |error: std::io::Error| error.to_string();
        self.stream.get_mut().write_all(request.as_bytes()).map_err(text)?;
        let mut line = String::new();
        self.stream.read_line(&mut line).map_err(text)?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("no status")?;
        let mut length = 0;
        loop {
            line.clear();
            if self.stream.read_line(&mut line).map_err(text)? == 0 {
                return Err("ended in the head".to_owned());
            }
            let header = line.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).map_err(text)?;
        Ok(status)
    }

    /// Waits for the end of the connection: `Ok` if the server said so (`close_notify`), an error if it just went.
    pub(crate) fn end(&mut self) -> std::io::Result<usize> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest)
    }
}
