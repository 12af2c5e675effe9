//! A network in this process that can lose its connections: they stay open, and no byte passes any more.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Passes bytes on to a target until the process ends.
pub(crate) struct Network {
    pub(crate) address: SocketAddr,
    made: Arc<AtomicUsize>,
    /// How many of the first connections are lost.
    lost: Arc<AtomicUsize>,
}

impl Network {
    pub(crate) fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (made, lost) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (count, limit) = (Arc::clone(&made), Arc::clone(&lost));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let number = count.fetch_add(1, Ordering::SeqCst);
                let target = TcpStream::connect(target).expect("the target listens");
                let ways = [(handle(&client), handle(&target)), (target, client)];
                for (from, to) in ways {
                    let limit = Arc::clone(&limit);
                    thread::spawn(move || pass(from, to, || number < limit.load(Ordering::SeqCst)));
                }
            }
        });
        Self { address, made, lost }
    }

    /// Loses all connections that there are.
    pub(crate) fn lose_connections(&self) {
        self.lost.store(self.made.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

fn handle(stream: &TcpStream) -> TcpStream {
    stream.set_nodelay(true).expect("set");
    stream.try_clone().expect("a handle")
}

/// Passes bytes on, or drops them once the connection is lost.
fn pass(mut from: TcpStream, mut to: TcpStream, is_lost: impl Fn() -> bool) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if !is_lost() && to.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}
