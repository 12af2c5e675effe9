//! The workers of `send`: each takes a turn, signs, sends, waits for the answer and counts it.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, anyhow};
use http::HeaderValue;
use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::client::{Client, Failed, Kind};
use super::pace::{Turn, Turns};
use super::plan::Plan;
use super::progress;
use super::report::{Report, Tally};
use super::target::Target;
use dt_sink::clock::{Clock, SystemClock};

/// How much is sent, and how fast.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) count: u64,
    /// Events a second; `None` for as fast as they are answered.
    pub(super) rate: Option<f64>,
    pub(super) concurrency: usize,
}

/// What the workers share.
#[derive(Debug)]
struct Shared {
    target: Target,
    plan: Plan,
    turns: Turns,
    /// One for all: a lock for less than a microsecond an answer is no bottleneck, and a histogram a worker is memory.
    tally: Mutex<Tally>,
}

/// Sends everything, or what can be sent until Ctrl-C.
pub(super) async fn run(load: Load, target: Target, plan: Plan) -> anyhow::Result<Report> {
    let Load { count, rate, concurrency } = load;
    let asked = count.saturating_mul(plan.copies());
    let (fault, shown) = (plan.fault(), target.shown());
    let mut tally = Tally::new().context("making room for latencies")?;
    let began = Instant::now();
    // The first connection is made before any planned time: where no one listens, that is all there is to say.
    let first = match connect(&target).await {
        Ok(client) => client,
        Err(failed) => {
            tally.failed(failed);
            return Ok(Report { tally, asked, took: began.elapsed(), fault, target: shown });
        }
    };
    let workers = concurrency.min(usize::try_from(count).unwrap_or(usize::MAX));
    let others: Vec<_> = (1..workers).map(|_| first.another()).collect();
    let began = Instant::now();
    let turns = match rate {
        Some(rate) => Turns::paced(count, rate, workers).context("starting the pacemaker")?,
        None => Turns::at_once(count),
    };
    let shared = Arc::new(Shared { target, plan, turns, tally: Mutex::new(tally) });
    let mut workers = JoinSet::new();
    for client in std::iter::once(first).chain(others) {
        workers.spawn(work(Arc::clone(&shared), client));
    }
    tokio::select! {
        ended = watch(&mut workers, &shared.turns) => ended?,
        never = progress::show(asked, || shared.tally.lock().sent()) => match never {},
    }
    drop(workers);
    let took = began.elapsed();
    let shared = Arc::into_inner(shared).ok_or_else(|| anyhow!("a worker is still at work"))?;
    Ok(Report { tally: shared.tally.into_inner(), asked, took, fault, target: shown })
}

/// Makes a client that is connected.
async fn connect(target: &Target) -> Result<Client, Failed> {
    let unknown = |why: String| Failed::new(Kind::Unreachable, why);
    let addresses = target.resolve().await.map_err(|error| unknown(error.to_string()))?;
    if addresses.is_empty() {
        return Err(unknown("the host has no address".to_owned()));
    }
    let mut client = Client::new(addresses.into(), target.tls().cloned());
    client.connect().await?;
    Ok(client)
}

/// Waits for the workers. The first Ctrl-C lets them finish what they wait for, the second does not.
async fn watch(workers: &mut JoinSet<anyhow::Result<()>>, turns: &Turns) -> anyhow::Result<()> {
    let mut interrupts: u32 = 0;
    loop {
        tokio::select! {
            ended = workers.join_next() => match ended {
                Some(ended) => ended.context("a worker died")??,
                None => return Ok(()),
            },
            pressed = tokio::signal::ctrl_c() => {
                pressed.context("listening for signals")?;
                turns.stop();
                interrupts = interrupts.saturating_add(1);
                if interrupts > 1 {
                    workers.shutdown().await;
                    return Ok(());
                }
            }
        }
    }
}

async fn work(shared: Arc<Shared>, mut client: Client) -> anyhow::Result<()> {
    let Shared { target, plan, turns, tally } = &*shared;
    while let Some(Turn { event, planned }) = turns.next().await {
        let copies = plan.copies();
        let body = plan.body(event, SystemClock.unix_millis());
        for copy in 0..copies {
            let number = event.saturating_mul(copies).saturating_add(copy);
            let shot = plan.shot(&body, number, SystemClock.unix_seconds())?;
            let token = shot.token.map(HeaderValue::try_from).transpose()?;
            let request = target.request(shot.body, token);
            // A second copy is sent when the first is answered, whatever was planned.
            let since = planned.filter(|_| copy == 0).unwrap_or_else(Instant::now);
            match client.send(request).await {
                Ok(answer) => tally.lock().answered(&answer, since.elapsed(), plan.fault()),
                Err(failed) => tally.lock().failed(failed),
            }
        }
    }
    Ok(())
}
