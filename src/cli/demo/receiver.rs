//! The receiver of the demo, in this process: policy `both`, two sinks, a temporary folder.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use super::cloud::ORGANIZATION;
use super::sinks::{Archive, Delivered, Screen};
use dt_emulator::Emulator;
use dt_server::config::{Config, ConnectorConfig};
use dt_server::service::Service;
use dt_verify::{KeySet, Policy, Secret, Verifier};

/// Starts the receiver. It accepts events once the returned service runs.
pub async fn start(
    emulator: &Emulator,
    secret: &str,
    folder: &Folder,
    delivered: &Arc<Delivered>,
) -> anyhow::Result<Service> {
    let config = configuration(emulator, secret, folder.path()).context("the receiver")?;
    let service = Service::builder(config)
        .sink("screen", Screen(Arc::clone(delivered)))
        .sink("archive", Archive(Arc::clone(delivered)));
    service.start().await.context("the receiver")
}

fn configuration(emulator: &Emulator, secret: &str, folder: &Path) -> anyhow::Result<Config> {
    let keys = KeySet::from_jwks(emulator.jwks().as_bytes())?;
    let verifier = Verifier::builder()
        .secret("demo", Secret::new(secret)?)
        .key_set_of_issuer(keys, ORGANIZATION, emulator.issuer())
        .policy(Policy::Both)
        .build()?;
    let mut config = Config::empty();
    config.listen = SocketAddr::from(([127, 0, 0, 1], 0)).into();
    config.admin = None;
    config.data = folder.join("data");
    // Two sinks in memory need no longer.
    config.drain_timeout = Duration::from_secs(2);
    config.connectors.push(ConnectorConfig::new("demo", "/", verifier));
    Ok(config)
}

/// A temporary folder that is removed when it is dropped.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("dt-receiver-demo-{:016x}", getrandom::u64()?));
        std::fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // After a failure, the system clears its folder for temporary files.
        let _removed = std::fs::remove_dir_all(&self.0);
    }
}
