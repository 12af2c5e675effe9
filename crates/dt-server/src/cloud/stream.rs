//! Reads the events of a `[[source]]`: the stream of a project, and from the history what the stream missed.
//!
//! A stream has no acknowledgement and no position. So whenever one is opened, the time since the newest stored event, less 10 s,
//! becomes a window that is fetched from the history, before the first event is read. Both give the same event the same id, and
//! the log stores it once. The window is durable in `cloud.db`, and the newest stored event is known there by the internal sink of
//! the log, so a process that is killed loses nothing either.
//!
//! Events are stored in batches: what has arrived is stored and synced, and only then more is read. While the log stores nothing,
//! such as on a full disk, the same batch is tried again, nothing is read, and DT closes the stream at some time; then the window
//! covers what it lost.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backfill::{Fill, INDEXING_DELAY_MILLIS};
use super::context::{Context, MonitorError};
use super::store::NewWindow;
use crate::config::SourceConfig;
use crate::spool_admin::record::{DeviceFacts, delivery};
use crate::spool_admin::{FillReport, FillRequest, MAX_DELIVERY, MAX_FILL_EVENTS};
use crate::telemetry::{StreamBroken, StreamEventRefused, StreamNotStored, StreamOpened};
use dt_api::{DeviceQuery, Error, EventRecord, EventStream, Message, StreamQuery};
use dt_verify::event::EventType;

/// The cause of the windows after which a stream was opened.
const CAUSE: &str = "stream";
/// The shortest and the longest pause before a stream is opened again.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// The pause before a batch is tried again that could not be stored.
const RETRY: Duration = Duration::from_secs(1);
/// The largest number of devices that are remembered.
const MAX_DEVICES: usize = 100_000;
/// The number of devices that are requested at once.
const PAGE: u32 = 100;
/// The shortest time between two reports of events that are not stored.
const REPORT_EVERY: Duration = Duration::from_secs(60);
/// The name under which `/readyz` shows the problems of sources.
const PART: &str = "source";

/// The task of one source.
pub struct Stream {
    context: Arc<Context>,
    fill: Arc<dyn Fill>,
    source: SourceConfig,
    /// What deliveries say about the devices of the project, by id.
    devices: HashMap<String, DeviceFacts>,
    /// Whether the devices were listed.
    are_listed: bool,
    /// The `timestamp` of the newest event that this process has stored, in Unix milliseconds; `None` before the first.
    newest: Option<i64>,
    /// The `timestamp` of an event that arrived and was not stored, in Unix milliseconds. The next window contains it.
    lost_at: Option<i64>,
    /// The number of attempts since the last event or ping.
    failures: u32,
    /// When an event was last reported that is not stored; `None` before the first.
    refused_at: Option<Instant>,
}

impl Stream {
    pub fn new(context: Arc<Context>, fill: Arc<dyn Fill>, source: SourceConfig) -> Self {
        Self {
            context,
            fill,
            source,
            devices: HashMap::new(),
            are_listed: false,
            newest: None,
            lost_at: None,
            failures: 0,
            refused_at: None,
        }
    }

    /// Reads the stream for ever.
    pub async fn run(mut self) {
        let up = self.context.telemetry.metrics.stream_up.with_label_values(&[&*self.source.name]);
        loop {
            let error = match self.open().await {
                Ok(mut stream) => {
                    up.set(1.0);
                    self.context.telemetry.emit(&StreamOpened { source: &self.source.name });
                    self.set_problem(None);
                    self.read(&mut stream).await
                }
                Err(error) => error,
            };
            up.set(0.0);
            let pause = pause(self.failures);
            // A connection that breaks now and then is usual; the window covers it.
            if self.failures > 0 {
                if self.failures == 1 {
                    let error = error.to_string();
                    self.context.telemetry.emit(&StreamBroken { source: &self.source.name, error: &error });
                }
                self.set_problem(Some(format!("the stream cannot be read: {error}")));
            } else {
                tracing::debug!(source = &*self.source.name, %error, "the stream ended");
            }
            self.failures = self.failures.saturating_add(1);
            self.context.pause(pause).await;
        }
    }

    /// Opens the stream, and then the window of the time before.
    async fn open(&mut self) -> Result<EventStream, MonitorError> {
        let client = self.context.account.client();
        if !self.are_listed {
            // Before the stream is opened: nothing is read meanwhile.
            let mut pages = client.devices(&self.source.project, &DeviceQuery::new().page_size(PAGE))?;
            while let Some(devices) = pages.next().await? {
                devices.iter().for_each(|device| self.remember(DeviceFacts::of(device, None)));
            }
            self.are_listed = true;
        }
        let stream = client.stream(&self.source.project, &self.query()).await?;
        self.context.telemetry.metrics.stream_opened.with_label_values(&[&*self.source.name]).inc();
        let (project, now) = (self.source.project.clone(), self.context.now());
        let (known, lost_at) = (self.newest, self.lost_at);
        let since = self.context.stored(move |store| {
            let baseline = store.baseline(&project, now)?;
            let since = known.or(store.newest_time(&project)?).unwrap_or(baseline).min(now);
            Ok(lost_at.map_or(since, |at| at.min(since)))
        });
        let from = since.await?.saturating_sub(INDEXING_DELAY_MILLIS);
        // The clocks of this machine and of DT differ a little.
        let until = now.saturating_add(INDEXING_DELAY_MILLIS);
        let (project, cause) = (self.source.project.clone(), CAUSE.to_owned());
        let window = NewWindow { project, from, until, cause, devices: None };
        // A window is walked 10 s after its end at the earliest. With connections that break often, they become one.
        let longer = window.clone();
        if !self.context.stored(move |store| store.extend_window(&longer, now)).await? {
            self.context.open_window(window).await?;
        }
        self.lost_at = None;
        Ok(stream)
    }

    fn query(&self) -> StreamQuery {
        let select = |query: StreamQuery, name: &str| query.event_type(&EventType::from(name));
        let query = self.source.events.iter().fold(StreamQuery::new(), |query, name| select(query, name));
        // The labels of devices are remembered.
        let changes = EventType::LabelsChanged;
        match self.source.events.is_empty() || self.source.events.contains(changes.as_str()) {
            true => query,
            false => query.event_type(&changes),
        }
    }

    /// Reads and stores events until the stream ends, and returns why.
    async fn read(&mut self, stream: &mut EventStream) -> MonitorError {
        loop {
            // After the first message, only those that have arrived.
            let (mut batch, mut bytes, mut wait) = (Vec::new(), 0_usize, Duration::MAX);
            let ended = loop {
                let message = match tokio::time::timeout(wait, stream.next()).await {
                    Err(_) => break None,
                    Ok(Err(error @ Error::NotUnderstood { .. })) => {
                        self.refuse(&error.to_string());
                        continue;
                    }
                    Ok(Err(error)) => break Some(error.into()),
                    Ok(Ok(message)) => message,
                };
                self.failures = 0;
                let Message::Event(event) = message else { continue };
                match self.delivery(&event).await {
                    Ok(delivery) => {
                        bytes = bytes.saturating_add(delivery.len());
                        batch.push((event, delivery));
                    }
                    Err(error) => {
                        self.lost_at = millis(&event);
                        break Some(error);
                    }
                }
                if batch.len() >= MAX_FILL_EVENTS || bytes >= MAX_DELIVERY / 2 {
                    break None;
                }
                wait = Duration::ZERO;
            };
            if !batch.is_empty() {
                self.store(batch).await;
            }
            if let Some(error) = ended {
                return error;
            }
        }
    }

    /// Returns the delivery of an event, with the labels that its device has now.
    async fn delivery(&mut self, event: &EventRecord) -> Result<String, MonitorError> {
        let id = event.device().unwrap_or_default();
        if event.event_type == EventType::LabelsChanged {
            self.devices.remove(id);
        }
        if !id.is_empty() && !self.devices.contains_key(id) {
            match self.context.account.client().device(&self.source.project, id).await {
                Ok(device) => self.remember(DeviceFacts::of(&device, None)),
                // It was moved or removed meanwhile. Its event is stored all the same.
                Err(Error::NotFound { .. } | Error::Forbidden { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let unknown = || DeviceFacts {
            id: id.to_owned(),
            project: self.source.project.clone(),
            device_type: String::new(),
            product_number: String::new(),
            labels: Default::default(),
        };
        Ok(match self.devices.get(id) {
            Some(facts) => delivery(event, facts),
            None => delivery(event, &unknown()),
        })
    }

    fn remember(&mut self, facts: DeviceFacts) {
        if self.devices.len() >= MAX_DEVICES {
            self.devices.clear();
        }
        self.devices.insert(facts.id.clone(), facts);
    }

    /// Stores events, and returns after they are durable. Tries again until they are.
    async fn store(&mut self, batch: Vec<(EventRecord, String)>) {
        let now = self.context.now();
        let newest = batch.iter().filter_map(|(event, _)| millis(event)).map(|at| at.min(now)).max();
        let deliveries = batch.into_iter().map(|(_, delivery)| delivery).collect();
        let request = FillRequest { is_streamed: true, ..FillRequest::new(deliveries) };
        let mut is_first = true;
        let report = loop {
            let (fill, request) = (Arc::clone(&self.fill), request.clone());
            let why = match tokio::task::spawn_blocking(move || fill.fill(request)).await {
                Ok(Ok(FillReport { busy: Some(why), .. })) => why,
                Ok(Ok(report)) => break report,
                Ok(Err(error)) => error.to_string(),
                Err(panicked) => panicked.to_string(),
            };
            if std::mem::take(&mut is_first) {
                self.context.telemetry.emit(&StreamNotStored { source: &self.source.name, error: &why });
            }
            self.set_problem(Some(format!("events cannot be stored, so none are read: {why}")));
            self.context.pause(RETRY).await;
        };
        if !is_first {
            self.set_problem(None);
        }
        self.newest = self.newest.max(newest);
        let stored = self.context.telemetry.metrics.stream_events.with_label_values(&[&*self.source.name]);
        stored.inc_by(report.filled);
        report.notes.iter().for_each(|note| self.refuse(note));
    }

    /// Reports an event that is not stored, at most once a minute.
    fn refuse(&mut self, why: &str) {
        let now = Instant::now();
        if self.refused_at.is_some_and(|at| now.saturating_duration_since(at) < REPORT_EVERY) {
            return;
        }
        self.refused_at = Some(now);
        self.context.telemetry.emit(&StreamEventRefused { source: &self.source.name, why });
    }

    /// Sets the problem of this source that `/readyz` shows.
    fn set_problem(&self, problem: Option<String>) {
        let mut problems = self.context.stream_problems.lock();
        match problem {
            // One line, also if an answer of another server is part of it.
            Some(text) => problems.insert(Arc::clone(&self.source.name), text.replace(['\r', '\n'], " ")),
            None => problems.remove(&self.source.name),
        };
        let shown = problems.iter().map(|(name, text)| format!("{name}: {text}")).collect();
        self.context.endpoint.set_cloud_problems(PART, shown);
    }
}

/// Returns the `timestamp` of an event, in Unix milliseconds; `None` if it has none.
fn millis(event: &EventRecord) -> Option<i64> {
    Some(event.timestamp.as_ref()?.instant()?.as_millisecond())
}

/// Returns the pause before the next attempt, after this number of failed ones.
fn pause(failures: u32) -> Duration {
    let (shortest, longest) = PAUSES;
    shortest.saturating_mul(2_u32.saturating_pow(failures)).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_become_longer_up_to_a_minute() {
        let seconds = [0, 1, 2, 5, 6, 40, u32::MAX].map(|failures| pause(failures).as_secs());
        assert_eq!(seconds, [1, 2, 4, 32, 60, 60, 60]);
    }
}
