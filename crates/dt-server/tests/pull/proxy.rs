//! A proxy in front of the API, which breaks connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub(crate) struct Proxy {
    address: SocketAddr,
    /// Changes when all connections are broken.
    cuts: watch::Sender<u32>,
    /// Until when new connections are broken at once.
    refused_until: Arc<Mutex<Instant>>,
    broken: Arc<AtomicUsize>,
}

impl Proxy {
    pub(crate) async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let cuts = watch::Sender::new(0);
        let (refused_until, broken) = (Arc::new(Mutex::new(Instant::now())), Arc::new(AtomicUsize::new(0)));
        let proxy = Self {
            address,
            cuts: cuts.clone(),
            refused_until: Arc::clone(&refused_until),
            broken: Arc::clone(&broken),
        };
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                if Instant::now() < *refused_until.lock() {
                    continue;
                }
                let (mut cut, broken) = (cuts.subscribe(), Arc::clone(&broken));
                tokio::spawn(async move {
                    let Ok(mut server) = TcpStream::connect(to).await else { return };
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        _ = cut.changed() => {
                            broken.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        proxy
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks all connections, and new ones for a time.
    pub(crate) fn cut(&self, time: Duration) {
        *self.refused_until.lock() = Instant::now() + time;
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// The number of connections that were broken.
    pub(crate) fn broken(&self) -> usize {
        self.broken.load(Ordering::SeqCst)
    }
}
