//! Listening sockets: a TCP address, a Unix socket, or a socket that systemd passes to the process.

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use tokio::net::{TcpListener, TcpSocket, UnixListener};

use super::stream::Stream;
use crate::config::Listen;

/// The largest number of connections that wait to be accepted. If the queue is full, the system drops the client's SYN, and the
/// client repeats it a second later.
const BACKLOG: u32 = 4096;

/// The sockets that systemd has passed to this process. Each socket can be taken once.
pub struct Inherited {
    sockets: ListenFd,
    names: Vec<String>,
}

impl fmt::Debug for Inherited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inherited").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Inherited {
    /// Takes the sockets that the environment announces (`LISTEN_FDS`, `LISTEN_PID`, `LISTEN_FDNAMES`), if they are intended for
    /// this process. This changes the environment, so call it before threads are started.
    #[must_use]
    pub fn from_env() -> Self {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names = names.split(':').map(str::to_owned).collect();
        Self { sockets: ListenFd::from_env(), names }
    }

    /// Returns an empty set.
    #[must_use]
    pub fn none() -> Self {
        Self { sockets: ListenFd::empty(), names: Vec::new() }
    }

    /// Takes the first remaining socket, or the one with this name.
    ///
    /// # Errors
    ///
    /// Returns an error of the kind `NotFound` if there is no such socket.
    fn take(&mut self, name: Option<&str>) -> io::Result<Listener> {
        let wanted = |index: &usize| match name {
            None => true,
            Some(name) => self.names.get(*index).is_some_and(|known| known == name),
        };
        for index in (0..self.sockets.len()).filter(wanted).collect::<Vec<_>>() {
            // A socket of another kind is an error and stays; `None` is one that was taken before.
            if let Ok(Some(socket)) = self.sockets.take_tcp_listener(index) {
                socket.set_nonblocking(true)?;
                return Ok(Listener::Tcp(TcpListener::from_std(socket)?));
            }
            if let Some(socket) = self.sockets.take_unix_listener(index)? {
                socket.set_nonblocking(true)?;
                return Ok(Listener::Unix(UnixListener::from_std(socket)?, None));
            }
        }
        let text = match name {
            None => "systemd has passed no socket to this process; is there a .socket unit?".to_owned(),
            Some(name) => format!(
                "systemd has passed no socket of the name \"{name}\" (FileDescriptorName= in the .socket unit)"
            ),
        };
        Err(io::Error::new(io::ErrorKind::NotFound, text))
    }
}

/// A listening socket.
#[derive(Debug)]
pub enum Listener {
    /// A socket with a TCP address.
    Tcp(TcpListener),
    /// A Unix socket, with its file if this process has created the file.
    Unix(UnixListener, Option<SocketFile>),
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl Listener {
    /// Starts to listen. A new socket file gets the mode `socket_mode`. An existing socket file on which no process listens is
    /// replaced.
    ///
    /// # Errors
    ///
    /// Returns the error of the operating system; `AlreadyExists` if the path is a file of another kind; `AddrInUse` if another
    /// process listens on it.
    pub fn bind(listen: &Listen, socket_mode: u32, inherited: &mut Inherited) -> io::Result<Self> {
        match listen {
            Listen::Tcp(address) => Ok(Self::Tcp(listen_at(*address)?)),
            Listen::Systemd(name) => inherited.take(name.as_deref()),
            Listen::Unix(path) => {
                remove_stale(path)?;
                let listener = UnixListener::bind(path)?;
                let file = SocketFile::at(path)?;
                fs::set_permissions(path, fs::Permissions::from_mode(socket_mode))?;
                Ok(Self::Unix(listener, Some(file)))
            }
        }
    }

    /// Returns the TCP address; `None` for a Unix socket.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }

    /// Returns whether the listener has a loopback address, which only this machine can reach.
    pub(super) fn is_loopback(&self) -> bool {
        self.address().is_some_and(|address| address.ip().to_canonical().is_loopback())
    }

    /// Waits for the next connection. Returns its stream, and for TCP the address of the peer.
    pub(super) async fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Nagle's algorithm would only delay the small answers. If this fails, the connection still works.
                let _delayed = stream.set_nodelay(true);
                Ok((Stream::Tcp(stream), Some(peer)))
            }
            Self::Unix(listener, _) => Ok((Stream::Unix(listener.accept().await?.0), None)),
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => address.fmt(f),
                Err(_) => f.write_str("an unknown address"),
            },
            Self::Unix(listener, _) => match listener.local_addr() {
                Ok(address) => match address.as_pathname() {
                    Some(path) => write!(f, "unix:{}", path.display()),
                    None => f.write_str("unix:"),
                },
                Err(_) => f.write_str("unix:"),
            },
        }
    }
}

/// The file of a Unix socket. It is removed on drop, unless another process has replaced it.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// The device and the inode of the file that this process created.
    identity: (u64, u64),
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            // If this fails, the next start replaces the file.
            let _removed = fs::remove_file(&self.path);
        }
    }
}

/// Returns the device and the inode of a file.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Starts to listen at an address.
fn listen_at(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections in the state TIME_WAIT must not prevent a restart.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Removes a socket file on which no process listens.
///
/// # Errors
///
/// Returns `AlreadyExists` if the path is a file of another kind, or `AddrInUse` if a process listens on it.
fn remove_stale(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is a file of this name that is no socket",
        ));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        // Any other error, such as a missing permission, shows that a process has the socket.
        _ => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(path: &Path) -> io::Result<Listener> {
        Listener::bind(&Listen::Unix(path.to_owned()), 0o600, &mut Inherited::none())
    }

    #[tokio::test]
    async fn only_the_socket_of_a_dead_process_is_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s");
        let first = bind(&path).expect("nothing is there");
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
        assert_eq!(bind(&path).expect_err("somebody answers").kind(), io::ErrorKind::AddrInUse);
        assert_eq!(first.to_string(), format!("unix:{}", path.display()));
        drop(first);
        assert!(!path.exists(), "it goes with its listener");
        // A process that is killed leaves its file.
        drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
        assert!(path.exists());
        let second = bind(&path).expect("the stale one is replaced");
        // What took our place is not ours.
        fs::remove_file(&path).expect("removed");
        fs::write(&path, "x").expect("written");
        drop(second);
        assert_eq!(fs::read(&path).expect("still there"), b"x");
        assert_eq!(bind(&path).expect_err("a file").kind(), io::ErrorKind::AlreadyExists);
    }

    #[tokio::test]
    async fn what_systemd_did_not_pass_cannot_be_taken() {
        for name in [None, Some("admin".to_owned())] {
            let error = Listener::bind(&Listen::Systemd(name), 0o600, &mut Inherited::none());
            assert!(error.expect_err("nothing was passed").to_string().contains("systemd has passed no"));
        }
    }
}
