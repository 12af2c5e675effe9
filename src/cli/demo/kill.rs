//! `--kill`: starts a receiver as a process, kills it with SIGKILL in the middle of a burst, starts it again, and counts its
//! events.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use serde_json::Value;
use tokio::sync::oneshot;

use super::cloud::{self, Connector};
use super::screen::{self, Tone, grouped};
use super::wire::Wire;
use crate::cli::Failure;
use crate::cli::secrets::DEFAULT_VARIABLE;
use dt_emulator::Faults;

/// The number of events of the burst.
const BURST: u32 = 3_000;

/// The number of acknowledged events after which the receiver is killed.
const KILL_AFTER: usize = 300;

/// The time limit of each step.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The numbers of events in this scene.
#[derive(Debug)]
pub struct Counted {
    pub sent: usize,
    pub acknowledged_before: usize,
    /// The number of events in the sink.
    pub delivered: usize,
    /// The number of acknowledged events that are not in the sink.
    pub lost: usize,
    /// The number of events that are in the sink more than once.
    pub repeated: usize,
}

/// Kills a receiver during a burst, restarts it, and counts its events. The receiver stores its data in `folder`.
///
/// # Errors
///
/// [`Failure::Internal`] if a process cannot be started, or a step takes longer than 60 s.
pub async fn run(folder: &Path) -> Result<Counted, Failure> {
    let secret = cloud::random_secret()?;
    let wire = Wire::new();
    let emulator = cloud::start(Arc::clone(&wire), Duration::from_secs(3_600)).await?;
    let receiver = Receiver { data: folder.join("kill"), sink: folder.join("kill.ndjson"), secret };
    let began = receiver.start(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let address = began.address;
    let url = format!("http://{address}/");
    Connector { url: &url, secret: &receiver.secret, events: &[] }.create(&emulator)?;
    let sent = usize::try_from(BURST).unwrap_or(usize::MAX);
    let text = format!("process {} receives {} events at once", began.child.0.id(), grouped(sent));
    screen::report(Tone::Plain, "serve", &text, "")?;

    let mut faults = Faults::default();
    faults.apply(&format!("burst={BURST}")).context("the burst")?;
    emulator.set_faults(faults).context("the burst")?;
    in_time("the burst", wire.acknowledged.reach(KILL_AFTER)).await?;
    began.child.kill()?;
    let before = wire.acknowledged.ids();
    let text = format!("{} of them were answered 200; the others were not", grouped(before.len()));
    screen::report(Tone::Bad, "kill -9", &text, "")?;

    let restarted = Instant::now();
    let again = receiver.start(address).await?;
    let text = format!(
        "process {} reads what is stored, ready after {} ms",
        again.child.0.id(),
        restarted.elapsed().as_millis()
    );
    screen::report(Tone::Plain, "serve", &text, "")?;
    in_time("the second attempts", wire.acknowledged.reach(sent)).await?;
    emulator.shutdown().await.context("the emulator")?;
    again.child.stop().await?;

    let counted = count(&receiver.sink, &before, &wire.acknowledged.ids())?;
    let text = format!("{} of {} events are in the sink's file", grouped(counted.delivered), grouped(sent));
    let (tone, outcome) = match (counted.lost, counted.repeated) {
        (0, 0) => (Tone::Good, "each once, 0 lost".to_owned()),
        (lost, repeated) => (Tone::Bad, format!("{lost} lost, {repeated} twice")),
    };
    screen::report(tone, "counted", &text, &outcome)?;
    Ok(counted)
}

async fn in_time(what: &str, step: impl Future<Output = ()>) -> anyhow::Result<()> {
    let late = || anyhow!("{what} took longer than {} s", TIMEOUT.as_secs());
    tokio::time::timeout(TIMEOUT, step).await.map_err(|_| late())
}

/// Counts the events in the sink's file.
fn count(file: &Path, before: &[String], acknowledged: &[String]) -> anyhow::Result<Counted> {
    let lines = std::fs::File::open(file).with_context(|| file.display().to_string())?;
    let mut times: HashMap<String, usize> = HashMap::new();
    for line in BufReader::new(lines).lines() {
        let event: Value = serde_json::from_str(&line?).context("a line of the sink's file")?;
        let id = event.pointer("/event/eventId").and_then(Value::as_str).unwrap_or_default();
        let seen = times.entry(id.to_owned()).or_default();
        *seen = seen.saturating_add(1);
    }
    Ok(Counted {
        sent: acknowledged.len(),
        acknowledged_before: before.len(),
        delivered: times.len(),
        lost: acknowledged.iter().filter(|id| !times.contains_key(id.as_str())).count(),
        repeated: times.values().filter(|count| **count > 1).count(),
    })
}

/// The settings that both processes share: the folder of the spool, the sink's file, the secret.
struct Receiver {
    data: PathBuf,
    sink: PathBuf,
    secret: String,
}

/// A running receiver and its address.
struct Listening {
    child: Owned,
    address: SocketAddr,
}

impl Receiver {
    /// Starts this program as `serve`, and waits until it listens.
    async fn start(&self, listen: SocketAddr) -> anyhow::Result<Listening> {
        let program = std::env::current_exe().context("the program's own path")?;
        let sink = format!("file:{}", self.sink.display());
        let mut command = Command::new(program);
        command.args(["serve", "--listen", &listen.to_string(), "--admin", "127.0.0.1:0", "--sink", &sink]);
        command.arg("--data").arg(&self.data);
        command.env(DEFAULT_VARIABLE, &self.secret).env("RUST_LOG", "info");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = Owned(command.spawn().context("starting `serve`")?);
        let log = child.0.stderr.take().context("the receiver's log")?;
        let (found, address) = oneshot::channel();
        std::thread::spawn(move || read_log(BufReader::new(log), found));
        match tokio::time::timeout(TIMEOUT, address).await {
            Ok(Ok(address)) => Ok(Listening { child, address }),
            Ok(Err(_)) => bail!("`serve` ended before it listened"),
            Err(_) => bail!("`serve` does not listen"),
        }
    }
}

/// Reads the log to its end, so that the receiver never blocks on a full pipe. Sends the address of the message `listening`.
fn read_log(log: impl BufRead, found: oneshot::Sender<SocketAddr>) {
    let mut found = Some(found);
    for line in log.lines().map_while(Result::ok) {
        let line: Value = serde_json::from_str(&line).unwrap_or_default();
        let listens = line.get("message").is_some_and(|message| message == "listening");
        let address = line.get("listen").and_then(Value::as_str).and_then(|address| address.parse().ok());
        if let (true, Some(address)) = (listens, address)
            && let Some(found) = found.take()
        {
            // It fails only if the demo was stopped.
            let _sent = found.send(address);
        }
    }
}

/// A child process that is killed when it is dropped.
struct Owned(Child);

impl Owned {
    /// Kills the process with SIGKILL.
    fn kill(mut self) -> anyhow::Result<()> {
        self.0.kill().context("kill -9")?;
        self.0.wait().context("the killed receiver")?;
        Ok(())
    }

    /// Stops the process with SIGTERM, so that it delivers its events first.
    async fn stop(mut self) -> anyhow::Result<()> {
        let process = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(process, rustix::process::Signal::TERM).context("SIGTERM")?;
        let wait = tokio::task::spawn_blocking(move || self.0.wait());
        let ended: ExitStatus = tokio::time::timeout(TIMEOUT, wait).await.context("stopping")???;
        if ended.success() { Ok(()) } else { bail!("`serve` ended with {ended}") }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // Both fail only if the process has ended and was waited for.
        let _killed = self.0.kill();
        let _ended = self.0.wait();
    }
}
