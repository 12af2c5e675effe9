//! `demo`: emulator and receiver in one process, 25 devices, and their events on the screen: what a first look needs.
//!
//! It is the real thing, on two free ports: the emulator signs and posts, the receiver verifies both signatures, stores
//! each event durably and passes it to a sink that writes to the screen. All it stores is gone afterwards.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::stop::Stop;
use super::{Ended, Failure, logging, say};
use dt_server::config::{Config, ConnectorConfig};
use dt_emulator::{Emulator, Population};
use dt_sink::record::Record;
use dt_server::service::Service;
use dt_server::sink::{OpenError, Outcome, Sink};
use dt_verify::{KeySet, Policy, Secret, Verifier};

/// What lives in the demo: 25 devices.
const DEVICES: &str = "temperature:8,humidity:4,co2:2,proximity:2,contact:3,motion:3,touch:2,ccon:1";

/// How often each sends.
const INTERVAL: Duration = Duration::from_secs(10);

const PROJECT: &str = "demo";
const ORGANIZATION: &str = "demo-organization";

/// See events arrive: emulator and receiver in one process
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  dt-receiver demo --events 10")]
pub(super) struct Arguments {
    /// Stop after so many events; without it, Ctrl-C stops
    #[arg(long, value_name = "N")]
    events: Option<u64>,
}

pub(super) fn run(arguments: &Arguments) -> Ended {
    logging::start_quiet()?;
    let runtime = super::runtime().context("starting the runtime")?;
    let ended = runtime.block_on(demo(arguments));
    runtime.shutdown_background();
    ended
}

async fn demo(arguments: &Arguments) -> Ended {
    let stop = Stop::listen().context("listening for signals")?;
    let folder = Folder::new().context("a folder for the spool")?;
    let population: Population = DEVICES.parse().context("the devices")?;
    let emulator = Emulator::builder().devices(PROJECT, population, INTERVAL).organization(ORGANIZATION);
    let emulator = emulator.start().await.context("the emulator")?;

    let (seen, mut enough) = mpsc::channel(1);
    let secret = random_secret()?;
    let config = configuration(&emulator, &secret, &folder.0).context("the receiver")?;
    let screen = Screen { left: arguments.events, enough: seen };
    let service = Service::builder(config).sink("screen", screen).start().await.context("the receiver")?;
    let address = service.address().context("the receiver's address")?;
    say(format!("emulator   {}   25 devices in project {PROJECT}", emulator.api_url()))?;
    say(format!(
        "receiver   http://{address}/   both signatures are verified, each event is stored before it is answered"
    ))?;
    say(format!("try        curl -u any:secret {}/projects/{PROJECT}/devices", emulator.api_url()))?;
    say("next       DT_SIGNATURE_SECRET=some-good-secret dt-receiver serve      Ctrl-C ends the demo")?;
    say("")?;
    connect(&emulator, &format!("http://{address}/"), &secret)?;

    // The emulator ends first: what it sends must find a receiver.
    let mut ended = Ok(());
    let done = async {
        tokio::select! {
            () = stop.wait() => {}
            _ = enough.recv() => {}
        }
        ended = emulator.shutdown().await;
    };
    service.run_until(done).await;
    ended.context("the emulator")?;
    Ok(())
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
    config.data = folder.to_owned();
    // Nothing is kept, so nothing has to be waited for.
    config.drain_timeout = Duration::from_millis(500);
    config.connectors.push(ConnectorConfig::new("demo", "/", verifier));
    Ok(config)
}

fn connect(emulator: &Emulator, url: &str, secret: &str) -> Ended {
    let body = json!({
        "type": "HTTP_PUSH",
        "displayName": "demo",
        "labels": ["name"],
        "httpConfig": {"url": url, "signatureSecret": secret},
    });
    let path = format!("/v2/projects/{PROJECT}/dataconnectors");
    let made = emulator.call("POST", &path, &body).context("the connector")?;
    // What the devices have sent before there was a connector.
    let name = made.get("name").and_then(Value::as_str).unwrap_or_default();
    emulator.call("POST", &format!("/v2/{name}:sync"), &json!(null)).context("the connector")?;
    Ok(())
}

fn random_secret() -> Result<String, Failure> {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).context("random numbers")?;
    Ok(hex::encode(bytes))
}

/// A folder of our own, which goes when the demo ends.
struct Folder(PathBuf);

impl Folder {
    fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("dt-receiver-demo-{:016x}", getrandom::u64()?));
        std::fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is the system's to clear: it is in the folder for temporary files.
        let _removed = std::fs::remove_dir_all(&self.0);
    }
}

/// Writes a line for each event.
struct Screen {
    left: Option<u64>,
    enough: mpsc::Sender<()>,
}

impl Sink for Screen {
    fn open(&mut self, _checkpoint: Option<&[u8]>) -> Result<(), OpenError> {
        Ok(())
    }

    fn deliver(&mut self, batch: &[Arc<Record>]) -> Outcome {
        for record in batch {
            // What comes while the demo ends is not shown any more. A closed pipe means that nobody looks.
            if self.left != Some(0) {
                let shown = writeln!(std::io::stdout(), "{}", line(record));
                self.left =
                    if shown.is_ok() { self.left.map(|left| left.saturating_sub(1)) } else { Some(0) };
            }
        }
        if self.left == Some(0) {
            // It was told before if there is no room.
            let _told = self.enough.try_send(());
        }
        Outcome::delivered(batch.len())
    }
}

/// `12:34:56.789  temperature 3   temperature   {"value":21.3}`.
fn line(record: &Record) -> String {
    let body: Value = serde_json::from_slice(&record.body).unwrap_or_default();
    let time = dt_verify::event::rfc3339_millis(record.received_at);
    let time = time.get(11..23).unwrap_or_default();
    let name = body.pointer("/labels/name").and_then(Value::as_str).unwrap_or("?");
    let data = body.pointer("/event/data").and_then(|data| data.get(&*record.event_type));
    let mut values = data.and_then(Value::as_object).cloned().unwrap_or_default();
    for long in
        ["updateTime", "samples", "isBackfilled", "cloudConnectors", "transmissionMode", "errors", "remarks"]
    {
        values.remove(long);
    }
    let values = values.iter().map(|(name, value)| format!("{name} {}", plain(value))).collect::<Vec<_>>();
    format!("{time}  {name:<16} {:<18} {}", record.event_type, values.join(", "))
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
