//! `demo`: shows the receiver in about ten seconds, on free ports of this machine.
//!
//! A local DT cloud signs and sends events. The receiver verifies both signatures, stores each event durably and forwards it
//! to two sinks. Then the demo forges requests, takes a sink down, and with `--kill` kills a receiver. It removes all stored
//! data at its end.
//!
//! | file | purpose |
//! |---|---|
//! | `cloud.rs` | the local DT cloud: devices and connector |
//! | `receiver.rs` | the receiver in this process |
//! | `wire.rs` | the HTTP requests between them, and their answers |
//! | `sinks.rs` | the two sinks: screen and archive |
//! | `forged.rs`, `outage.rs`, `kill.rs` | the scenes |
//! | `summary.rs` | the results, and the next steps |
//! | `screen.rs`, `values.rs` | lines, colours, units |
//! | `started.rs` | the command that started the program |

mod cloud;
mod forged;
mod kill;
mod outage;
mod receiver;
mod screen;
mod sinks;
mod started;
mod summary;
mod values;
mod wire;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use self::cloud::Connector;
use self::forged::Rejections;
use self::outage::Outage;
use self::receiver::Folder;
use self::sinks::Delivered;
use self::summary::Summary;
use self::wire::Wire;
use super::stop::Stop;
use super::{Ended, logging};
use dt_emulator::Emulator;

/// The interval between two events of a device.
const INTERVAL: Duration = Duration::from_secs(8);

/// See events arrive, a forged request refused, a sink down and catching up
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  dt-receiver demo
  dt-receiver demo --kill

It listens on 127.0.0.1 only, stores in a temporary folder, and removes that at its end. Colours are left out in a pipe
and with the environment variable NO_COLOR. Exit code 70 if an event was lost or a forged one accepted.")]
pub struct Arguments {
    /// Stop after so many events
    #[arg(long, value_name = "N", default_value_t = 16)]
    events: usize,
    /// Kill a receiver by SIGKILL in the middle of a burst, start it again, and count its events
    #[arg(long)]
    kill: bool,
}

pub fn run(arguments: &Arguments) -> Ended {
    logging::start_silent()?;
    let runtime = super::runtime().context("starting the runtime")?;
    let ended = runtime.block_on(demo(arguments));
    runtime.shutdown_background();
    ended
}

/// The results of the scenes; incomplete if the demo was stopped early.
#[derive(Debug, Default)]
struct Story {
    rejections: Rejections,
    outage: Option<Outage>,
}

async fn demo(arguments: &Arguments) -> Ended {
    let stop = Stop::listen().context("listening for signals")?;
    let mut stopped = pin!(stop.wait());
    let folder = Folder::new().context("a temporary folder")?;
    let (wire, delivered) = (Wire::new(), Arc::new(Delivered::default()));
    let emulator = cloud::start(Arc::clone(&wire), INTERVAL).await?;
    let secret = cloud::random_secret()?;
    let service = receiver::start(&emulator, &secret, &folder, &delivered).await?;
    let url = format!("http://{}/", service.address().context("the receiver's address")?);
    let stage = Stage { emulator, url, secret, wire: Arc::clone(&wire), delivered: Arc::clone(&delivered) };

    let mut story = Story::default();
    let (mut ended, mut is_complete) = (Ok(()), false);
    let done = async {
        tokio::select! {
            played = stage.play(arguments.events, &mut story) => (ended, is_complete) = (played, true),
            () = &mut stopped => {}
            () = delivered.output_closed() => {}
        }
        // The archive receives its backlog before the receiver stops.
        delivered.bring_archive_up();
        // Otherwise an event could be delivered whose answer is not counted.
        let _paused = wire.pause().await;
        // The emulator ends first: it needs a running receiver.
        if let Err(error) = stage.emulator.shutdown().await.context("the emulator") {
            ended = Err(error.into());
        }
    };
    service.run_until(done).await;
    ended?;

    let mut killed = None;
    if arguments.kill && is_complete {
        screen::heading("kill -9")?;
        tokio::select! {
            counted = kill::run(folder.path()) => killed = Some(counted?),
            () = &mut stopped => {}
        }
    }
    let summary = Summary { wire: &wire, delivered: &delivered, story: &story, killed: killed.as_ref() };
    summary.show()?;
    summary::suggest(&started::command(), killed.is_some())?;
    summary.verdict()
}

/// The parts of the running demo: the local cloud, the receiver's URL and secret, and the records of both sides.
struct Stage {
    emulator: Emulator,
    url: String,
    secret: String,
    wire: Arc<Wire>,
    delivered: Arc<Delivered>,
}

impl Stage {
    /// Plays the scenes until the screen has shown `events` events: meanwhile, sends forged requests and takes a sink down.
    async fn play(&self, events: usize, story: &mut Story) -> Ended {
        let Self { emulator, url, secret, wire, delivered } = self;
        summary::introduce(&emulator.api_url(), url)?;
        Connector { url, secret, events: &values::SHOWN }.create(emulator)?;
        let quarters = |count: usize| events.saturating_mul(count).div_ceil(4).max(1);
        delivered.screen.reach(quarters(1)).await;
        story.rejections = forged::send(wire).await?;
        delivered.screen.reach(quarters(2)).await;
        story.outage = Some(outage::run(delivered, quarters(3)).await?);
        delivered.screen.reach(events).await;
        Ok(())
    }
}
