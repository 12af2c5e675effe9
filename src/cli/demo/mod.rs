//! `demo`: what a first look needs, in some ten seconds, on free ports of this machine.
//!
//! It is the real thing: a local DT cloud signs and posts, the receiver verifies both signatures, stores each event
//! durably and passes it to two sinks. Then a request is forged, a sink is down, and with `--kill` a receiver is killed.
//! What it stores is gone afterwards.
//!
//! | file | what it knows |
//! |---|---|
//! | `cloud.rs` | the local DT cloud: devices and connector |
//! | `receiver.rs` | the receiver in this process |
//! | `wire.rs` | the HTTP between them: what was sent and answered |
//! | `sinks.rs` | the two sinks: screen and archive |
//! | `forged.rs`, `outage.rs`, `kill.rs` | what happens |
//! | `summary.rs` | what came of it, and what to do next |
//! | `screen.rs`, `values.rs` | lines, colours, units |
//! | `started.rs` | by which command the program was started |

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
use self::forged::Refusals;
use self::outage::Outage;
use self::receiver::Folder;
use self::sinks::Delivered;
use self::summary::Summary;
use self::wire::Wire;
use super::stop::Stop;
use super::{Ended, logging};
use dt_emulator::Emulator;

/// How often each device sends.
const INTERVAL: Duration = Duration::from_secs(8);

/// See events arrive, a forged request refused, a sink down and catching up
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  dt-receiver demo
  dt-receiver demo --kill

It listens on 127.0.0.1 only, stores in a temporary folder, and removes that at its end. Colours are left out in a pipe
and with the environment variable NO_COLOR. Exit code 70 if an event was lost or a forged one accepted.")]
pub(super) struct Arguments {
    /// Stop after so many events
    #[arg(long, value_name = "N", default_value_t = 16)]
    events: usize,
    /// Kill a receiver by SIGKILL in the middle of a burst, start it again, and count its events
    #[arg(long)]
    kill: bool,
}

pub(super) fn run(arguments: &Arguments) -> Ended {
    logging::start_silent()?;
    let runtime = super::runtime().context("starting the runtime")?;
    let ended = runtime.block_on(demo(arguments));
    runtime.shutdown_background();
    ended
}

/// What has happened; less than everything where the demo was stopped.
#[derive(Debug, Default)]
struct Story {
    refusals: Refusals,
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
        // What is stored is delivered before the receiver stops.
        delivered.bring_archive_up();
        // The emulator ends first: what it sends must find a receiver.
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

/// The local cloud, the receiver's URL and secret, and what is known of both sides.
struct Stage {
    emulator: Emulator,
    url: String,
    secret: String,
    wire: Arc<Wire>,
    delivered: Arc<Delivered>,
}

impl Stage {
    /// Runs until `events` events are delivered to the screen; in between, forges requests and takes a sink down.
    async fn play(&self, events: usize, story: &mut Story) -> Ended {
        let Self { emulator, url, secret, wire, delivered } = self;
        summary::introduce(&emulator.api_url(), url)?;
        Connector { url, secret, events: &values::SHOWN }.create(emulator)?;
        let quarters = |count: usize| events.saturating_mul(count).div_ceil(4).max(1);
        delivered.screen.reach(quarters(1)).await;
        story.refusals = forged::send(wire).await?;
        delivered.screen.reach(quarters(2)).await;
        story.outage = Some(outage::run(delivered, quarters(3)).await?);
        delivered.screen.reach(events).await;
        Ok(())
    }
}
