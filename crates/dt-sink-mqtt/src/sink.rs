//! The sink: converts a batch to messages, publishes them, and converts the acknowledgements to results.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dt_sink::record::{Format, Record};
use dt_sink::{Fate, OpenError, Outcome, Sink, SinkContext, SinkError, SinkReporter};
use dt_verify::event::Delivery;
use rustls::ClientConfig;
use tokio::runtime::Runtime;

use crate::connection::{Connection, Limits, Queued, Sent, Target, Window};
use crate::failure::{self, Blame, Failure, MqttSinkError};
use crate::home_assistant::Discovery;
use crate::message;
use crate::metrics;
use crate::order::{device_numbers, hold_back};
use crate::packet::{Connect, Message, OFFLINE, ONLINE};
use crate::settings::MqttConfig;
use crate::state::{RetainedTimes, State};
use crate::suspect::{Rejections, Suspicion, Turn};
use crate::topic::MqttTopic;

/// The largest number of records in a batch.
const MAX_BATCH: usize = 512;
/// The interval at which the broker is pinged while there is nothing to deliver.
const CHECK_EVERY: Duration = Duration::from_secs(2);
/// The longest time between two packets that the broker expects, in seconds. It is longer than the pause between two attempts.
const KEEP_ALIVE: u16 = 120;
/// The time limit for closing a connection.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// A sink that publishes records to an MQTT broker.
pub struct MqttSink {
    /// The runtime that drives the connection while a method waits; `None` only while the sink is dropped.
    runtime: Option<Runtime>,
    publisher: Publisher,
}

impl std::fmt::Debug for MqttSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MqttSink").field("config", &self.publisher.config).finish_non_exhaustive()
    }
}

impl MqttSink {
    /// Creates a sink. It connects when it delivers records or is checked.
    ///
    /// # Errors
    ///
    /// Returns [`OpenError::Unusable`] if the files of `[sink.tls]` cannot be used.
    pub fn new(config: MqttConfig, context: SinkContext) -> Result<Self, OpenError> {
        let unusable = |error: std::io::Error| OpenError::Unusable(format!("starting a runtime: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(unusable)?;
        Ok(Self { runtime: Some(runtime), publisher: Publisher::new(config, context)? })
    }

    /// Checks whether the broker accepts the connection, without a change there, and returns the result in words.
    pub(crate) fn probe(&mut self) -> Result<String, SinkError> {
        match self.run(async |publisher| publisher.probe().await) {
            Some(probed) => probed.map_err(|error| error.to_string().into()),
            None => Err("the sink is closed".into()),
        }
    }

    /// Runs a future of the publisher to its end; `None` without a runtime.
    fn run<T>(&mut self, work: impl AsyncFnOnce(&mut Publisher) -> T) -> Option<T> {
        let (runtime, publisher) = (self.runtime.as_ref()?, &mut self.publisher);
        Some(runtime.block_on(work(publisher)))
    }
}

impl Drop for MqttSink {
    fn drop(&mut self) {
        // A look-up of the broker's name may still run; it must not block the caller.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Sink for MqttSink {
    fn open(&mut self, _checkpoint: Option<&[u8]>) -> Result<(), OpenError> {
        // After a panic the state of the connection is unknown.
        self.publisher.drop_connection();
        Ok(())
    }

    fn deliver(&mut self, batch: &[Arc<Record>]) -> Outcome {
        let fates = self.run(async |publisher| publisher.deliver(batch).await).unwrap_or_default();
        Outcome { fates, ..Outcome::default() }
    }

    fn max_batch(&self) -> usize {
        MAX_BATCH
    }

    fn check_every(&self) -> Option<Duration> {
        Some(CHECK_EVERY)
    }

    fn check(&mut self) -> Result<(), SinkError> {
        let checked = self.run(async |publisher| publisher.check().await);
        checked.unwrap_or(Ok(())).map_err(|error| error.to_string().into())
    }

    fn close(&mut self) {
        let _closed = self.run(async |publisher| publisher.close().await);
    }
}

/// The messages of a record.
struct Prepared<'a> {
    event: Message,
    /// The parsed body; `None` if states are not published, or the body is not a delivery.
    delivery: Option<&'a Delivery>,
    states: Vec<State<'a>>,
}

/// A message of a record.
struct Outgoing {
    message: Message,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Event,
    State,
    Discovery,
}

/// The part of the sink that waits for the network.
struct Publisher {
    config: MqttConfig,
    format: Format,
    give_up_after: Option<Duration>,
    reporter: Arc<dyn SinkReporter>,
    client_id: String,
    status_topic: String,
    state_topic: Option<MqttTopic>,
    tls: Option<Arc<ClientConfig>>,
    connection: Option<Connection>,
    retained: RetainedTimes,
    discovery: Option<Discovery>,
    suspicion: Suspicion,
    /// Why the last connection ended. It is the error of the records that do not have their turn.
    last_end: String,
    rejections: Rejections,
    /// The number of states that were older than the retained ones, since the last report.
    older_states: u64,
}

impl Publisher {
    fn new(config: MqttConfig, context: SinkContext) -> Result<Self, OpenError> {
        let SinkContext { format, give_up_after, reporter, .. } = context;
        let client_id =
            config.client_id.clone().unwrap_or_else(|| format!("dt-receiver-{}", reporter.sink()));
        let status_topic = config
            .status_topic
            .clone()
            .unwrap_or_else(|| format!("dt/receiver/{}", status_level(&client_id)));
        let tls = config.tls.as_ref().map(dt_sink::tls::client_config).transpose();
        let tls = tls.map_err(|error| OpenError::Unusable(error.to_string()))?.map(Arc::new);
        let discovery = config
            .home_assistant
            .then(|| Discovery::new(config.home_assistant_prefix.clone(), status_topic.clone()));
        Ok(Self {
            state_topic: config.states(),
            config,
            format,
            give_up_after,
            reporter,
            client_id,
            status_topic,
            tls,
            connection: None,
            retained: RetainedTimes::default(),
            discovery,
            suspicion: Suspicion::default(),
            last_end: String::new(),
            rejections: Rejections::default(),
            older_states: 0,
        })
    }

    fn limits(&self) -> Limits {
        let until = self.give_up_after.and_then(|after| Instant::now().checked_add(after));
        Limits { timeout: self.config.timeout, until }
    }

    fn drop_connection(&mut self) {
        self.connection = None;
        self.reporter.set(&metrics::CONNECTED, 0.0);
    }

    /// Returns the settings for opening a connection. See [`Connect::status_topic`].
    fn target<'a>(&'a self, client_id: &'a str, status_topic: Option<&'a str>) -> Target<'a> {
        let login = self.config.username.as_deref().map(|user| (user, self.config.password.as_ref()));
        Target {
            broker: &self.config.broker,
            version: self.config.version,
            tls: self.tls.as_ref(),
            connect: Connect { client_id, login, status_topic, keep_alive: KEEP_ALIVE },
        }
    }

    /// Connects with another client id, so that a running receiver keeps its connection, and disconnects.
    async fn probe(&self) -> Result<String, MqttSinkError> {
        let (limits, client_id) = (self.limits(), format!("{}-check", self.client_id));
        let connection = Connection::open(&self.target(&client_id, None), limits).await?;
        connection.close(limits).await?;
        Ok(format!(
            "{} accepts the connection; whether this user may publish is known with the first event",
            self.config.broker
        ))
    }

    /// Opens a connection unless one is open, and publishes the status of the sink as online.
    async fn connect(&mut self, limits: Limits) -> Result<(), MqttSinkError> {
        if self.connection.is_some() {
            return Ok(());
        }
        let target = self.target(&self.client_id, Some(&self.status_topic));
        let mut connection = Connection::open(&target, limits).await?;
        let online = Message::retained(self.status_topic.clone(), ONLINE);
        let mut sent = Vec::new();
        connection.publish(&[Queued::alone(&online)], Window::ONE, limits, &mut sent).await?;
        if let [Sent::Acknowledged(reason)] = sent[..]
            && let Some(failure) = failure::of_acknowledgement(reason, &self.status_topic)
        {
            let (Failure::Record(error) | Failure::Message(error) | Failure::Broker(error)) = failure;
            return Err(MqttSinkError::NotTaken(format!("{error}, or set `status_topic`")));
        }
        // What the broker retains now decides, also after it lost something.
        self.retained.clear();
        if let Some(discovery) = &mut self.discovery {
            discovery.clear();
        }
        self.connection = Some(connection);
        self.reporter.set(&metrics::CONNECTED, 1.0);
        self.reporter.add(&metrics::CONNECTIONS, 1);
        Ok(())
    }

    async fn check(&mut self) -> Result<(), MqttSinkError> {
        let limits = self.limits();
        let checked = match &mut self.connection {
            None => self.connect(limits).await,
            Some(connection) => connection.ping(limits).await,
        };
        if checked.is_err() {
            self.drop_connection();
        }
        checked
    }

    async fn close(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        self.reporter.set(&metrics::CONNECTED, 0.0);
        let limits = Limits { timeout: CLOSE_WAIT, until: Instant::now().checked_add(CLOSE_WAIT) };
        let offline = Message::retained(self.status_topic.clone(), OFFLINE);
        let published =
            connection.publish(&[Queued::alone(&offline)], Window::ONE, limits, &mut Vec::new()).await;
        let closed = match published {
            // Without a DISCONNECT the broker reports the sink as offline itself.
            Err(error) => Err(error),
            Ok(()) => connection.close(limits).await,
        };
        if let Err(error) = closed {
            tracing::debug!(sink = self.reporter.sink(), %error, "the connection did not end in order");
        }
    }

    async fn deliver(&mut self, batch: &[Arc<Record>]) -> Vec<Fate> {
        let limits = self.limits();
        let mut fates: Vec<Option<Fate>> = vec![None; batch.len()];
        // Each turn takes at least one record.
        loop {
            let left = batch.iter().zip(&fates).filter(|(_, fate)| fate.is_none());
            let left: Vec<Arc<Record>> = left.map(|(record, _)| Arc::clone(record)).collect();
            if left.is_empty() {
                break;
            }
            let turn = self.suspicion.turn(&left);
            let has_turn: Vec<bool> = left
                .iter()
                .enumerate()
                .map(|(position, record)| self.suspicion.has_turn(turn, position, record))
                .collect();
            let chosen = left.iter().zip(&has_turn).filter(|(_, has_turn)| **has_turn);
            let chosen: Vec<Arc<Record>> = chosen.map(|(record, _)| Arc::clone(record)).collect();
            let mut results = self.deliver_some(&chosen, turn, limits).await;
            results.resize_with(chosen.len(), || Fate::Retry { error: self.last_end.clone() });
            let is_failed = results.iter().any(|fate| matches!(fate, Fate::Retry { .. }));
            let mut results = results.into_iter();
            let open = fates.iter_mut().filter(|fate| fate.is_none()).zip(has_turn);
            for (fate, _) in open.filter(|(_, has_turn)| *has_turn) {
                *fate = results.next();
            }
            if is_failed {
                break;
            }
        }
        let waits = || Fate::Retry { error: self.last_end.clone() };
        let mut fates: Vec<Fate> = fates.into_iter().map(|fate| fate.unwrap_or_else(waits)).collect();
        hold_back(batch, &mut fates);
        fates
    }

    /// Delivers the records of a batch that have their turn.
    async fn deliver_some(&mut self, batch: &[Arc<Record>], turn: Turn, limits: Limits) -> Vec<Fate> {
        if matches!(turn, Turn::Suspect(_)) {
            self.drop_connection();
        }
        if let Err(error) = self.connect(limits).await {
            return retry(batch.len(), &error);
        }
        let deliveries: Vec<Option<Delivery>> = batch.iter().map(|record| self.parsed(record)).collect();
        let prepared: Vec<Result<Prepared<'_>, String>> = batch
            .iter()
            .zip(&deliveries)
            .map(|(record, delivery)| self.prepare(record, delivery.as_ref()))
            .collect();
        if let Err(error) = self.read_retained(&prepared, limits).await {
            if !matches!(error, MqttSinkError::NotTaken(_)) {
                self.drop_connection();
            }
            return retry(batch.len(), &error);
        }
        self.publish(batch, &prepared, limits).await
    }

    /// Parses the body of a record; `None` if states are not published, or the body is not a delivery.
    fn parsed(&self, record: &Record) -> Option<Delivery> {
        self.state_topic.as_ref()?;
        record.delivery().ok()
    }

    /// Returns the messages of a record; `Err` with the reason if it can never be published.
    fn prepare<'a>(&self, record: &Record, delivery: Option<&'a Delivery>) -> Result<Prepared<'a>, String> {
        let event = message::of(record, &self.config.topic, self.config.version, self.format)?;
        let states = match (&self.state_topic, delivery) {
            (Some(topic), Some(delivery)) => {
                State::of(record, delivery, topic).map_err(|error| error.to_string())?
            }
            _ => Vec::new(),
        };
        Ok(Prepared { event, delivery, states })
    }

    /// Reads the retained messages for the states whose time is not known.
    async fn read_retained(
        &mut self,
        prepared: &[Result<Prepared<'_>, String>],
        limits: Limits,
    ) -> Result<(), MqttSinkError> {
        let topics = prepared.iter().flatten().flat_map(|record| &record.states).map(|state| &*state.topic);
        let unknown = self.retained.unknown(topics);
        if let Some(connection) = self.connection.as_mut().filter(|_| !unknown.is_empty()) {
            let found = connection.retained(&unknown, limits).await?;
            self.retained.learn(unknown, found);
        }
        Ok(())
    }

    /// Publishes the messages of a batch, and returns the result of each record.
    async fn publish(
        &mut self,
        records: &[Arc<Record>],
        prepared: &[Result<Prepared<'_>, String>],
        limits: Limits,
    ) -> Vec<Fate> {
        let mut outgoing: Vec<Outgoing> = Vec::new();
        let mut ranges: Vec<Result<Range<usize>, Failure>> = Vec::with_capacity(records.len());
        // The first records, and their messages, that are published one at a time.
        let (alone_records, mut alone) = (self.suspicion.alone(records), 0);
        for (position, (record, prepared)) in records.iter().zip(prepared).enumerate() {
            let start = outgoing.len();
            let prepared = prepared.as_ref().map_err(|error| Failure::Record(error.clone()));
            // A small limit of the broker may concern all records, and is no error of this one then.
            let added = prepared.and_then(|prepared| {
                self.add_messages(record, prepared, &mut outgoing).map_err(Failure::Message)
            });
            if added.is_err() {
                for Outgoing { message, kind } in outgoing.drain(start..) {
                    self.forget(&message, kind);
                }
            }
            if position < alone_records {
                alone = outgoing.len();
            }
            ranges.push(added.map(|()| start..outgoing.len()));
        }
        let Some(connection) = &mut self.connection else { return Vec::new() };
        let devices = device_numbers(records);
        let mut messages: Vec<Queued<'_>> = Vec::with_capacity(outgoing.len());
        for (record, (range, device)) in ranges.iter().zip(devices).enumerate() {
            let outgoing =
                range.as_ref().ok().and_then(|range| outgoing.get(range.clone())).unwrap_or_default();
            messages.extend(outgoing.iter().map(|Outgoing { message, .. }| Queued {
                message,
                record,
                device,
            }));
        }
        let (mut sent, window) = (Vec::new(), Window { most: self.config.max_in_flight, alone });
        let ended = connection.publish(&messages, window, limits, &mut sent).await;
        self.count(&outgoing, &sent);
        let mut results: Vec<Result<(), Option<Failure>>> = Vec::with_capacity(records.len());
        for range in ranges {
            results.push(range.map_err(Some).and_then(|range| {
                result(outgoing.get(range.clone()).unwrap_or_default(), sent.get(range).unwrap_or_default())
            }));
        }
        let error = match &ended {
            Ok(()) => {
                // A connection on which nothing fits is renewed: the broker may have another limit by now.
                if outgoing.is_empty() {
                    self.drop_connection();
                } else {
                    for (record, result) in records.iter().zip(&results) {
                        self.suspicion.published(record, result.is_ok());
                    }
                }
                "an earlier message was not taken".to_owned()
            }
            Err(error) => {
                self.drop_connection();
                self.find_cause(records, &mut results, (alone_records, error))
            }
        };
        records.iter().zip(results).map(|(record, result)| self.fate(record, result, &error)).collect()
    }

    /// Determines whether the connection ended because of a record, and sets that record's failure. The first `alone` records
    /// were published one message at a time. Returns the error of the other records.
    fn find_cause(
        &mut self,
        records: &[Arc<Record>],
        results: &mut [Result<(), Option<Failure>>],
        (alone, error): (usize, &MqttSinkError),
    ) -> String {
        let text = error.to_string();
        let MqttSinkError::Lost { blame: blame @ (Blame::Message | Blame::Unknown), .. } = error else {
            return text;
        };
        let is_open = |result: &Result<(), Option<Failure>>| *result == Err(None);
        let open = records.iter().zip(&*results).filter(|(_, result)| is_open(result));
        let in_flight: Vec<_> =
            open.map(|(record, _)| record).take(usize::from(self.config.max_in_flight)).collect();
        let first = results.iter_mut().zip(records).enumerate().find(|(_, (result, _))| is_open(result));
        let Some((position, (result, record))) = first else { return text };
        let was_alone = position < alone;
        if self.suspicion.ended_at(&in_flight, was_alone, *blame) {
            let text = format!("the broker closes the connection because of this record: {error}");
            *result = Err(Some(Failure::Message(text)));
        }
        self.last_end = if was_alone {
            format!("{text}; only the event {} was in flight", record.event_id)
        } else {
            text
        };
        self.last_end.clone()
    }

    /// Converts the result of a record's messages to its fate.
    fn fate(&mut self, record: &Record, result: Result<(), Option<Failure>>, error: &str) -> Fate {
        let fate = match result {
            Ok(()) => Fate::Delivered,
            Err(Some(Failure::Record(error))) => Fate::Rejected { error },
            Err(Some(Failure::Message(error))) => self.rejections.rejected(error),
            Err(Some(Failure::Broker(error))) => Fate::Retry { error },
            Err(None) => Fate::Retry { error: error.to_owned() },
        };
        if matches!(fate, Fate::Delivered) {
            self.rejections.delivered();
        }
        if !matches!(fate, Fate::Retry { .. }) {
            self.suspicion.done(record);
        }
        fate
    }

    /// Adds the messages of a record: the event, the discovery messages of new entities, and newer states.
    fn add_messages(
        &mut self,
        record: &Record,
        prepared: &Prepared<'_>,
        outgoing: &mut Vec<Outgoing>,
    ) -> Result<(), String> {
        let Some(connection) = &self.connection else { return Ok(()) };
        let mut add = |message: Message, kind| {
            let too_large = connection.too_large(&message);
            outgoing.push(Outgoing { message, kind });
            too_large.map_or(Ok(()), Err)
        };
        add(prepared.event.clone(), Kind::Event)?;
        for state in &prepared.states {
            if let (Some(discovery), Some(delivery), Some(device)) =
                (&mut self.discovery, prepared.delivery, &record.device)
                && let Some(message) = discovery.message(state, delivery, device)
            {
                add(message, Kind::Discovery)?;
            }
            if self.retained.is_newer(state) {
                add(Message::retained(state.topic.clone(), state.payload(&record.event_id)), Kind::State)?;
            } else {
                self.older_states = self.older_states.saturating_add(1);
            }
        }
        Ok(())
    }

    /// Forgets that a message was published, so that it is published again.
    fn forget(&mut self, message: &Message, kind: Kind) {
        match (kind, &mut self.discovery) {
            (Kind::State, _) => self.retained.forget(&message.topic),
            (Kind::Discovery, Some(discovery)) => discovery.forget(&message.topic),
            _ => {}
        }
    }

    /// Counts the published messages, and forgets the others.
    fn count(&mut self, outgoing: &[Outgoing], sent: &[Sent]) {
        let (mut states, mut rejected) = (0_u64, 0_u64);
        for (Outgoing { message, kind }, sent) in outgoing.iter().zip(sent) {
            match sent {
                Sent::Acknowledged(reason) if *reason < 0x80 => {
                    states = states.saturating_add(u64::from(*kind == Kind::State));
                    continue;
                }
                Sent::Acknowledged(_) => rejected = rejected.saturating_add(1),
                Sent::No | Sent::Unacknowledged => {}
            }
            self.forget(message, *kind);
        }
        let older = std::mem::take(&mut self.older_states);
        for (metric, count) in
            [(&metrics::STATES, states), (&metrics::REJECTED, rejected), (&metrics::OLDER_STATES, older)]
        {
            if count > 0 {
                self.reporter.add(metric, count);
            }
        }
    }
}

/// Returns the result of a record's messages: `Err` with the first failure, or with `None` if a message was not acknowledged.
fn result(messages: &[Outgoing], sent: &[Sent]) -> Result<(), Option<Failure>> {
    let mut is_open = false;
    for (Outgoing { message, .. }, sent) in messages.iter().zip(sent) {
        match sent {
            Sent::Acknowledged(reason) => {
                if let Some(failure) = failure::of_acknowledgement(*reason, &message.topic) {
                    return Err(Some(failure));
                }
            }
            Sent::No | Sent::Unacknowledged => is_open = true,
        }
    }
    if is_open { Err(None) } else { Ok(()) }
}

fn retry(count: usize, error: &MqttSinkError) -> Vec<Fate> {
    vec![Fate::Retry { error: error.to_string() }; count]
}

/// Returns a client id as one level of a topic.
fn status_level(client_id: &str) -> String {
    client_id.chars().map(|c| if matches!(c, '/' | '+' | '#') { '_' } else { c }).collect()
}
