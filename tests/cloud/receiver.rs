//! One run of the receiver: a service in a runtime of its own, so that it is over when it is stopped.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use dt_receiver::clock::Clock;
use dt_receiver::config::{Config, Sources};
use dt_receiver::service::Service;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// The signature secret of the connector, and the secret of the service account's key.
pub(crate) const SECRET: &str = "some-good-secret";

/// How long a start or a stop may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct OneSecret;

impl Sources for OneSecret {
    fn env(&self, _name: &str) -> Option<OsString> {
        Some(OsString::from(SECRET))
    }

    fn file(&self, _path: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// A running receiver. Dropping it stops it without waiting.
pub(crate) struct Receiver {
    /// The address of `/readyz` and `/metrics`.
    pub(crate) admin: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
}

impl Receiver {
    /// Starts a receiver with the configuration in `text`, and waits until it listens. `clock` is `scale` times as fast as the
    /// machine's.
    pub(crate) async fn start(text: &str, clock: Arc<dyn Clock>, scale: u32) -> Self {
        let config = Config::from_toml(text, &OneSecret, &dt_receiver::sink_types());
        let config = config.unwrap_or_else(|error| panic!("{error}\n{text}"));
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, listens) = oneshot::channel();
        let (over, ended) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            let runtime = runtime.worker_threads(1).enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let service = Service::builder(config).clock(clock).time_scale(scale);
                let service = service.start().await.expect("it starts");
                ready.send(service.admin_address().expect("an address")).expect("the test waits");
                service
                    .run_until(async {
                        let _told_or_dropped = stopped.await;
                    })
                    .await;
            });
            // Waits for tasks that block.
            drop(runtime);
            let _dropped = over.send(());
        });
        let admin = timeout(PATIENCE, listens).await.expect("it starts in time").expect("it starts");
        Self { admin, stop, ended, thread }
    }

    /// Stops it, waits until nothing of it runs, and checks that `data`, its folder, is free for the next one.
    pub(crate) async fn stop(self, data: &Path) {
        let Self { admin: _, stop, ended, thread } = self;
        stop.send(()).expect("it runs");
        timeout(PATIENCE, ended).await.expect("it stops in time").expect("no panic");
        thread.join().expect("no panic");
        let lock = File::open(data.join("spool/spool.lock")).expect("a lock file");
        lock.try_lock().expect("the folder is released");
    }
}
