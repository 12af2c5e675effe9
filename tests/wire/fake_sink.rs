//! Sinks that do what a test tells them to, and remember what they were given.

use std::sync::{Arc, mpsc};

use dt_receiver::record::Record;
use dt_receiver::sink::{Fate, OpenError, Outcome, Sink};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::client::within;
use crate::harness::SINK_ERROR;

/// What a sink was given and delivered, as the test sees it.
#[derive(Clone)]
pub(crate) struct Seen {
    records: watch::Receiver<Vec<Arc<Record>>>,
    closed: watch::Receiver<bool>,
}

impl Seen {
    /// The ids of all delivered events, in order.
    pub(crate) fn ids(&self) -> Vec<String> {
        self.records.borrow().iter().map(|record| record.event_id.to_string()).collect()
    }

    pub(crate) fn records(&self) -> Vec<Arc<Record>> {
        self.records.borrow().clone()
    }

    /// Waits until so many were delivered.
    pub(crate) async fn wait_for(&mut self, count: usize) {
        within(self.records.wait_for(|records| records.len() >= count)).await.expect("the sink lives");
    }

    /// Whether the sink was closed.
    pub(crate) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }
}

/// What a sink does with one batch.
type Step = fn(&[Arc<Record>]) -> Outcome;
type Deliver = Box<dyn FnMut(&[Arc<Record>]) -> Outcome + Send>;
type Open = Box<dyn FnMut() -> Result<(), OpenError> + Send>;

/// A sink made of closures.
pub(crate) struct FakeSink {
    deliver: Deliver,
    open: Open,
    records: watch::Sender<Vec<Arc<Record>>>,
    closed: watch::Sender<bool>,
}

impl FakeSink {
    pub(crate) fn new(deliver: impl FnMut(&[Arc<Record>]) -> Outcome + Send + 'static) -> (Self, Seen) {
        Self::opening(|| Ok(()), deliver)
    }

    pub(crate) fn opening(
        open: impl FnMut() -> Result<(), OpenError> + Send + 'static,
        deliver: impl FnMut(&[Arc<Record>]) -> Outcome + Send + 'static,
    ) -> (Self, Seen) {
        let (records, records_seen) = watch::channel(Vec::new());
        let (closed, closed_seen) = watch::channel(false);
        let sink = Self { deliver: Box::new(deliver), open: Box::new(open), records, closed };
        (sink, Seen { records: records_seen, closed: closed_seen })
    }

    /// One that always works.
    pub(crate) fn working() -> (Self, Seen) {
        Self::new(|batch| Outcome::delivered(batch.len()))
    }

    /// One that never does.
    pub(crate) fn failing() -> (Self, Seen) {
        Self::new(|batch| Outcome::retry(batch.len(), SINK_ERROR))
    }

    /// One that rejects all.
    pub(crate) fn rejecting() -> (Self, Seen) {
        Self::new(|batch| {
            let fate = Fate::Rejected { error: SINK_ERROR.to_owned() };
            Outcome { fates: vec![fate; batch.len()], ..Outcome::default() }
        })
    }

    /// One that fails or works as the switch says.
    pub(crate) fn switched() -> (Self, Seen, Switch) {
        let switch = Switch(Arc::new(Mutex::new(true)));
        let is_on = switch.clone();
        let (sink, seen) = Self::new(move |batch| {
            if *is_on.0.lock() {
                Outcome::delivered(batch.len())
            } else {
                Outcome::retry(batch.len(), SINK_ERROR)
            }
        });
        (sink, seen, switch)
    }

    /// One that does as the script says, a step a batch; after that it works.
    pub(crate) fn scripted<const N: usize>(steps: [Step; N]) -> (Self, Seen) {
        let mut steps = steps.into_iter();
        Self::new(move |batch| match steps.next() {
            Some(step) => step(batch),
            None => Outcome::delivered(batch.len()),
        })
    }

    /// One that holds every batch until the test lets it go.
    pub(crate) fn gated() -> (Self, Seen, Gate) {
        let (entered, at_gate) = tokio::sync::mpsc::unbounded_channel();
        let (let_go, gate) = mpsc::channel();
        let (sink, seen) = Self::new(move |batch| {
            let ids = batch.iter().map(|record| record.event_id.to_string()).collect();
            let _gone = entered.send(ids);
            match gate.recv() {
                Ok(true) => Outcome::delivered(batch.len()),
                // The test is over, or wants it so.
                Ok(false) | Err(_) => Outcome::retry(batch.len(), SINK_ERROR),
            }
        });
        (sink, seen, Gate { at_gate, let_go })
    }
}

impl Sink for FakeSink {
    fn open(&mut self, _checkpoint: Option<&[u8]>) -> Result<(), OpenError> {
        (self.open)()
    }

    fn deliver(&mut self, batch: &[Arc<Record>]) -> Outcome {
        let outcome = (self.deliver)(batch);
        let delivered =
            batch.iter().zip(&outcome.fates).filter(|(_, fate)| **fate == Fate::Delivered).map(|(r, _)| r);
        self.records.send_modify(|seen| seen.extend(delivered.cloned()));
        outcome
    }

    fn close(&mut self) {
        self.closed.send_replace(true);
    }
}

/// Turns a sink off and on.
#[derive(Clone)]
pub(crate) struct Switch(Arc<Mutex<bool>>);

impl Switch {
    pub(crate) fn turn(&self, on: bool) {
        *self.0.lock() = on;
    }
}

/// Where a sink waits. Dropping it lets the sink fail whatever it holds.
pub(crate) struct Gate {
    at_gate: tokio::sync::mpsc::UnboundedReceiver<Vec<String>>,
    let_go: mpsc::Sender<bool>,
}

impl Gate {
    /// Waits for the sink to be given a batch; the ids in it.
    pub(crate) async fn entered(&mut self) -> Vec<String> {
        within(self.at_gate.recv()).await.expect("the sink lives")
    }

    /// Lets it deliver one batch, or fail to.
    pub(crate) fn let_go(&self, delivered: bool) {
        self.let_go.send(delivered).expect("the sink lives");
    }
}
