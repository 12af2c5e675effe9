//! The workers of `send`: each takes a turn, signs, sends, waits for the response and counts it.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, anyhow};
use http::HeaderValue;
use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::client::{Client, SendError, SendErrorKind};
use super::pace::{Turn, Turns};
use super::plan::Plan;
use super::progress;
use super::report::{Report, Tally};
use super::target::Target;
use dt_sink::clock::{Clock, SystemClock};

/// The number of events, their rate and the number of workers.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub count: u64,
    /// The number of events per second; `None` to send each as soon as a worker is free.
    pub rate: Option<f64>,
    pub concurrency: usize,
}

/// The data that all workers share.
#[derive(Debug)]
struct Shared {
    target: Target,
    plan: Plan,
    turns: Turns,
    /// The counts and latencies. All workers share them, since a histogram for each would need more memory.
    tally: Mutex<Tally>,
}

/// Sends all events, or until Ctrl-C, and returns the report.
pub async fn run(load: Load, target: Target, plan: Plan) -> anyhow::Result<Report> {
    let Load { count, rate, concurrency } = load;
    let requested = count.saturating_mul(plan.copies());
    let (fault, shown) = (plan.fault(), target.shown());
    let mut tally = Tally::new().context("allocating the histogram of latencies")?;
    let start = Instant::now();
    // The first connection is opened before the start: if it fails, nothing is sent.
    let first = match connect(&target).await {
        Ok(client) => client,
        Err(failed) => {
            tally.failed(failed);
            return Ok(Report { tally, requested, took: start.elapsed(), fault, target: shown });
        }
    };
    let workers = concurrency.min(usize::try_from(count).unwrap_or(usize::MAX));
    let others: Vec<_> = (1..workers).map(|_| first.another()).collect();
    let start = Instant::now();
    let turns = match rate {
        Some(rate) => Turns::paced(count, rate, workers).context("starting the thread that paces events")?,
        None => Turns::at_once(count),
    };
    let shared = Arc::new(Shared { target, plan, turns, tally: Mutex::new(tally) });
    let mut workers = JoinSet::new();
    for client in std::iter::once(first).chain(others) {
        workers.spawn(work(Arc::clone(&shared), client));
    }
    tokio::select! {
        ended = watch(&mut workers, &shared.turns) => ended?,
        never = progress::show(requested, || shared.tally.lock().sent()) => match never {},
    }
    drop(workers);
    let took = start.elapsed();
    let shared = Arc::into_inner(shared).ok_or_else(|| anyhow!("a worker is still running"))?;
    Ok(Report { tally: shared.tally.into_inner(), requested, took, fault, target: shown })
}

/// Resolves the receiver's host and opens the first connection.
async fn connect(target: &Target) -> Result<Client, SendError> {
    let unreachable = |why: String| SendError::new(SendErrorKind::Unreachable, why);
    let addresses = target.resolve().await.map_err(|error| unreachable(error.to_string()))?;
    if addresses.is_empty() {
        return Err(unreachable("the host has no address".to_owned()));
    }
    let mut client = Client::new(addresses.into(), target.tls().cloned());
    client.connect().await?;
    Ok(client)
}

/// Waits for the workers. After the first Ctrl-C they finish their requests; after the second one they are stopped.
async fn watch(workers: &mut JoinSet<anyhow::Result<()>>, turns: &Turns) -> anyhow::Result<()> {
    let mut interrupts: u32 = 0;
    loop {
        tokio::select! {
            ended = workers.join_next() => match ended {
                Some(ended) => ended.context("a worker failed")??,
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

/// Sends the event of each turn, until there are no more turns.
async fn work(shared: Arc<Shared>, mut client: Client) -> anyhow::Result<()> {
    let Shared { target, plan, turns, tally } = &*shared;
    while let Some(Turn { event, planned }) = turns.next().await {
        let copies = plan.copies();
        let body = plan.body(event, SystemClock.unix_millis());
        for copy in 0..copies {
            let number = event.saturating_mul(copies).saturating_add(copy);
            let prepared = plan.prepare(&body, number, SystemClock.unix_seconds())?;
            let token = prepared.token.map(HeaderValue::try_from).transpose()?;
            let request = target.request(prepared.body, token);
            // A copy is sent after the response to the first one, not at a planned time.
            let since = planned.filter(|_| copy == 0).unwrap_or_else(Instant::now);
            match client.send(request).await {
                Ok(answer) => tally.lock().answered(&answer, since.elapsed(), plan.fault()),
                Err(failed) => tally.lock().failed(failed),
            }
        }
    }
    Ok(())
}
