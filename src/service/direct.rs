//! Mode `direct`: a request waits for its sinks; dead letters go to a folder.

use std::sync::Arc;
use std::time::Duration;

use super::routes::Routes;
use super::{Parts, StartError, Store};
use crate::config::{Config, DeadLetterPlace};
use crate::deliver::{DeadLetterError, DeadLetters, Direct, Lane, LaneOptions, Stored, Undelivered};
use crate::http::{Accepted, Intake, IntakeFuture, Readiness, Unavailable};
use crate::record::{DeadLetter, Record};
#[cfg(feature = "kafka")]
use crate::sink::KafkaLetters;
use crate::telemetry::Telemetry;

/// How many records may wait for a sink, beyond those that requests in flight wait for.
const QUEUE_SPARE: usize = 4096;
/// How many records a sink is given at once.
const MAX_BATCH: usize = 4096;
/// How long before the deadline a record's fate has to be known.
#[cfg(feature = "kafka")]
const MARGIN: Duration = Duration::from_millis(1500);

/// The sinks themselves, and the folder of dead letters.
#[derive(Debug)]
pub(super) struct DirectStore {
    direct: Direct,
    routes: Routes,
    dead_letters: Arc<DeadLetters>,
    telemetry: Arc<Telemetry>,
}

impl DirectStore {
    pub(super) fn open(parts: Parts) -> Result<Self, StartError> {
        let Parts { config, clock, telemetry, routes, sinks, .. } = parts;
        let dead_letters = Arc::new(open_letters(&config, &telemetry)?);
        let options = LaneOptions {
            max_queue: config.limits.max_in_flight.saturating_add(QUEUE_SPARE),
            max_batch: MAX_BATCH,
            window_ids: config.dedup_ids(),
            window_age: config.dedup_window,
        };
        let mut lanes = Vec::with_capacity(sinks.len());
        for (name, sink) in sinks {
            let parts = (Arc::clone(&clock), Arc::clone(&telemetry), Arc::clone(&dead_letters));
            let lane = Lane::start(Arc::clone(&name), sink, options, parts.0, parts.1, parts.2)
                .map_err(|source| StartError::Sink { name, source })?;
            lanes.push(lane);
        }
        Ok(Self { direct: Direct::new(lanes), routes, dead_letters, telemetry })
    }
}

/// How long a sink of Kafka may try: its answer has to come before the request's deadline.
#[cfg(feature = "kafka")]
pub(super) fn patience(config: &Config) -> Duration {
    config.limits.deadline.saturating_sub(MARGIN).max(Duration::from_millis(500))
}

fn open_letters(config: &Config, telemetry: &Arc<Telemetry>) -> Result<DeadLetters, StartError> {
    match config.dead_letter_place() {
        DeadLetterPlace::Folder(folder) => Ok(DeadLetters::open(folder, Arc::clone(telemetry))?),
        #[cfg(feature = "kafka")]
        DeadLetterPlace::Kafka(topic) => {
            let failed = |text: String| StartError::DeadLetters(DeadLetterError::Elsewhere(text));
            let kafka = config.kafka().ok_or_else(|| {
                failed("\"kafka:TOPIC\" needs a sink of type \"kafka\", whose brokers it uses".to_owned())
            })?;
            // A letter comes after its sink has tried; both have to fit in the deadline.
            let patience = patience(config).checked_div(2).unwrap_or_default();
            let letters = KafkaLetters::new(kafka, topic, patience, telemetry).map_err(failed)?;
            Ok(DeadLetters::elsewhere(Box::new(letters), Arc::clone(telemetry)))
        }
        #[cfg(not(feature = "kafka"))]
        DeadLetterPlace::Kafka(_) => Err(StartError::DeadLetters(DeadLetterError::Elsewhere(
            "this build has no Kafka; build with the feature `kafka`".to_owned(),
        ))),
    }
}

impl Intake for DirectStore {
    fn accept(&self, connector: usize, record: Arc<Record>) -> IntakeFuture<'_, Accepted> {
        Box::pin(async move {
            let Some(route) = self.routes.get(connector) else { return Err(Unavailable::Storage) };
            match self.direct.submit(&record, &route.sinks, route.dedup).await {
                Ok(Stored::Now) => Ok(Accepted::New),
                Ok(Stored::Before) => Ok(Accepted::Duplicate),
                Err(Undelivered::Overloaded) => Err(Unavailable::Overloaded),
                Err(Undelivered::SinkUnavailable { .. }) => Err(Unavailable::Sink),
                Err(Undelivered::StorageUnavailable { .. }) => Err(Unavailable::Storage),
            }
        })
    }

    fn bury(&self, letter: DeadLetter) -> IntakeFuture<'_, ()> {
        let dead_letters = Arc::clone(&self.dead_letters);
        let work = tokio::task::spawn_blocking(move || dead_letters.bury(&letter));
        Box::pin(async move {
            match work.await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) | Err(_) => Err(Unavailable::Storage),
            }
        })
    }

    fn readiness(&self) -> Readiness {
        let sinks = self.direct.lanes().iter();
        let sinks =
            sinks.filter_map(|lane| lane.trouble().map(|trouble| format!("sink {}: {trouble}", lane.name())));
        let letters = self.dead_letters.trouble().map(|trouble| format!("dead letters: {trouble}"));
        let troubles: Vec<String> = sinks.chain(letters).collect();
        Readiness { ready: troubles.is_empty(), troubles }
    }

    fn measure(&self) {
        for lane in self.direct.lanes() {
            self.telemetry.window_len(lane.name(), lane.window_len());
        }
    }
}

impl Store for DirectStore {
    fn close(&self, _drain: Duration) {
        for lane in self.direct.lanes() {
            lane.close();
        }
        for lane in self.direct.lanes() {
            lane.join();
        }
    }

    fn into_intake(self: Arc<Self>) -> Arc<dyn Intake> {
        self
    }
}
