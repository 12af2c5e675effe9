//! `health`: queries the status of a running receiver, for container engines and scripts without an HTTP client.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;

use super::spool_access::read_config;
use super::{Ended, Failure, complain, say, usage};
use dt_server::config::{DEFAULT_ADMIN, Listen};

/// The largest size of a response, in bytes. The receiver sends one line; a larger response is of another server.
const MAX_RESPONSE: u64 = 16 * 1024;

/// Ask a running receiver whether it is ready
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit code 0: ready; 1: not ready, or no response.

Examples:
  dt-receiver health
  dt-receiver health --config /etc/dt-receiver/config.toml --json
  dt-receiver health --admin 127.0.0.1:9464 --live")]
pub struct Arguments {
    /// The admin address
    #[arg(long, value_name = "ADDRESS", help = format!("The admin address [default: that of --config, else {DEFAULT_ADMIN}]"))]
    admin: Option<Listen>,
    /// The configuration that names the admin address
    #[arg(long, value_name = "FILE", conflicts_with = "admin")]
    config: Option<PathBuf>,
    /// Ask only whether it runs (/healthz), not whether it can store events (/readyz)
    #[arg(long)]
    live: bool,
    /// The timeout of the response, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Ended {
    let address = admin_address(arguments)?;
    let path = if arguments.live { "/healthz" } else { "/readyz" };
    let answer = ask(&address, path, Duration::from_secs(arguments.timeout));
    let (status, text) = match &answer {
        Ok((status, text)) => (Some(*status), text.trim().to_owned()),
        Err(error) => (None, format!("{address}: {error}")),
    };
    let ok = status == Some(200);
    if arguments.json {
        say(json!({"ok": ok, "status": status, "text": text}))?;
    } else if ok {
        say(&text)?;
    } else {
        complain(&text);
    }
    if ok { Ok(()) } else { Err(Failure::Refused) }
}

fn admin_address(arguments: &Arguments) -> Result<Listen, Failure> {
    if let Some(address) = &arguments.admin {
        return Ok(address.clone());
    }
    match &arguments.config {
        Some(path) => read_config(path)?.admin.ok_or_else(|| {
            usage(format!("{}: `admin` is off, so the receiver has no health endpoint", path.display()))
        }),
        None => DEFAULT_ADMIN.parse().map_err(usage),
    }
}

/// A connection to the receiver.
enum Connection {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Connection {
    fn open(address: &Listen, limit: Duration) -> io::Result<Self> {
        match address {
            Listen::Tcp(address) => TcpStream::connect_timeout(address, limit).map(Self::Tcp),
            Listen::Unix(path) => UnixStream::connect(path).map(Self::Unix),
            Listen::Systemd(_) => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "only systemd knows the address; name it with --admin",
            )),
        }
    }

    fn limit(&self, limit: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => {
                stream.set_read_timeout(Some(limit)).and_then(|()| stream.set_write_timeout(Some(limit)))
            }
            Self::Unix(stream) => {
                stream.set_read_timeout(Some(limit)).and_then(|()| stream.set_write_timeout(Some(limit)))
            }
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes),
            Self::Unix(stream) => stream.write_all(bytes),
        }
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(into),
            Self::Unix(stream) => stream.read(into),
        }
    }
}

/// Sends a GET and returns the status and the body of the response.
///
/// # Errors
///
/// Returns an error if there is no response within `limit`.
fn ask(address: &Listen, path: &str, limit: Duration) -> io::Result<(u16, String)> {
    let start = Instant::now();
    let left = || {
        let left = limit.saturating_sub(start.elapsed());
        if left.is_zero() { Err(io::Error::from(io::ErrorKind::TimedOut)) } else { Ok(left) }
    };
    let mut stream = Connection::open(address, limit)?;
    stream.limit(left()?)?;
    let host = address.address().map_or_else(|| "localhost".to_owned(), |address| address.to_string());
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut part = [0_u8; 1024];
    loop {
        stream.limit(left()?)?;
        let count = match stream.read(&mut part) {
            Ok(count) => count,
            // The error of a read timeout differs between systems.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(error) => return Err(error),
        };
        let Some(read) = part.get(..count).filter(|read| !read.is_empty()) else { break };
        answer.extend_from_slice(read);
        if u64::try_from(answer.len()).is_ok_and(|len| len > MAX_RESPONSE) {
            break;
        }
    }
    let no_response = || io::Error::new(io::ErrorKind::InvalidData, "no HTTP response");
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(&answer) {
        Ok(httparse::Status::Complete(head)) => head,
        _ => return Err(no_response()),
    };
    let body = answer.get(head..).unwrap_or_default();
    Ok((response.code.ok_or_else(no_response)?, String::from_utf8_lossy(body).into_owned()))
}
