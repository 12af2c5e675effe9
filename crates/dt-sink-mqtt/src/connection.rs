//! A connection to the broker: opens it, publishes messages with a limited number in flight, reads retained messages, and pings.
//! After an error the connection cannot be used any more; the sink drops it and opens a new one.
//!
//! Nothing runs in the background: each function returns when its answer was received, or after a time without progress.

mod retained;

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::failure::{self, Blame, Failure, MqttSinkError};
use crate::packet::{BrokerLimits, Connect, Incoming, Message, MqttVersion};
use crate::settings::Broker;

/// The number of unwritten bytes above which no more messages are encoded.
const MAX_UNWRITTEN: usize = 64 * 1024;
/// How long to wait for the remaining data that the broker sent before the connection failed.
const LAST_READ: Duration = Duration::from_millis(50);
/// The largest number of bytes of this data that are read.
const LAST_BYTES: usize = 64 * 1024;

trait Stream: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

/// The time limits of one call.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The longest time without progress.
    pub timeout: Duration,
    /// The time at which the call must return, in mode `direct`; `None` for no limit.
    pub until: Option<Instant>,
}

impl Limits {
    /// Returns how long the call may still wait, if the last progress was at `since`.
    fn left(self, since: Instant) -> Duration {
        let left = self.timeout.saturating_sub(since.elapsed());
        self.until.map_or(left, |until| left.min(until.saturating_duration_since(Instant::now())))
    }
}

/// A message, with the numbers that determine its place in the order.
#[derive(Debug, Clone, Copy)]
pub struct Queued<'a> {
    /// The message.
    pub message: &'a Message,
    /// The number of the message's record.
    pub record: usize,
    /// The number of the message's device.
    pub device: usize,
}

impl<'a> Queued<'a> {
    /// Returns a queued message that belongs to no record, such as the status.
    pub const fn alone(message: &'a Message) -> Self {
        Self { message, record: 0, device: 0 }
    }
}

/// The number of messages that may be in flight.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// The largest number of messages without an acknowledgement. The broker's limit applies as well.
    pub most: u16,
    /// The number of messages at the start of a batch of which each is sent only after the one before was acknowledged.
    pub alone: usize,
}

impl Window {
    /// The window for a single message.
    pub const ONE: Self = Self { most: 1, alone: 0 };
}

/// The state of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The message was not sent.
    No,
    /// The message was sent, but not acknowledged.
    Unacknowledged,
    /// The message was acknowledged with this reason code.
    Acknowledged(u8),
}

/// The settings for opening a connection.
#[derive(Debug)]
pub struct Target<'a> {
    /// The address of the broker.
    pub broker: &'a Broker,
    /// The version of the MQTT protocol.
    pub version: MqttVersion,
    /// The configuration of TLS; `None` for a connection in plain text.
    pub tls: Option<&'a Arc<ClientConfig>>,
    /// The content of the first packet, CONNECT.
    pub connect: Connect<'a>,
}

/// A connection that the broker has accepted.
pub struct Connection {
    /// The address of the broker as HOST:PORT, for errors.
    broker: String,
    client_id: String,
    version: MqttVersion,
    limits: BrokerLimits,
    reader: ReadHalf<Pin<Box<dyn Stream>>>,
    writer: WriteHalf<Pin<Box<dyn Stream>>>,
    input: BytesMut,
    output: BytesMut,
    /// Whether written bytes may still be in the buffer of the TLS layer.
    needs_flush: bool,
    /// The packet id that was used last.
    last_id: u16,
    /// Why the connection ended; `None` while it is open.
    ended: Option<String>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("broker", &self.broker).finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects, and waits until the broker accepts the connection.
    ///
    /// # Errors
    ///
    /// Returns [`MqttSinkError`] if the broker cannot be reached, or does not accept the connection.
    pub async fn open(target: &Target<'_>, limits: Limits) -> Result<Self, MqttSinkError> {
        let Target { broker, version, tls, connect } = target;
        let name = broker.to_string();
        let started = Instant::now();
        let stream = async {
            let tcp = TcpStream::connect((&*broker.host, broker.port)).await?;
            tcp.set_nodelay(true)?;
            let stream: Pin<Box<dyn Stream>> = match tls {
                None => Box::pin(tcp),
                Some(config) => {
                    let name = ServerName::try_from(broker.host.clone()).map_err(io::Error::other)?;
                    Box::pin(TlsConnector::from(Arc::clone(config)).connect(name, tcp).await?)
                }
            };
            Ok(stream)
        };
        let stream = match tokio::time::timeout(limits.left(started), stream).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                return Err(MqttSinkError::Connect { broker: name, error: failure::of_connect(&error) });
            }
            Err(_) => return Err(silent(&name, "connection", limits)),
        };
        let (reader, writer) = tokio::io::split(stream);
        let mut connection = Self {
            broker: name,
            client_id: connect.client_id.to_owned(),
            version: *version,
            limits: BrokerLimits { receive_maximum: 1, max_packet: None, has_qos_1: true, has_retain: true },
            reader,
            writer,
            input: BytesMut::new(),
            output: BytesMut::new(),
            needs_flush: false,
            last_id: 0,
            ended: None,
        };
        connection.encode(|version, out| version.write_connect(connect, out))?;
        let answer = match connection.next("CONNACK", limits, started).await {
            // A listener for TLS closes a connection in plain text without a word.
            Err(MqttSinkError::Lost { broker, reason, .. }) if tls.is_none() => {
                let error = format!("{reason}; does the broker require TLS? Check [sink.tls]");
                return Err(MqttSinkError::Connect { broker, error });
            }
            answer => answer?,
        };
        match answer {
            Incoming::Accepted(accepted) => connection.limits = accepted,
            Incoming::Refused(refused) => {
                let reason = failure::of_refused(&refused, connect.client_id);
                return Err(MqttSinkError::Refused { broker: connection.broker, reason });
            }
            _ => return Err(connection.not_mqtt("its first packet is no CONNACK")),
        }
        if !connection.limits.has_qos_1 || !connection.limits.has_retain {
            let missing = if connection.limits.has_qos_1 { "retained messages" } else { "QoS 1" };
            let reason = format!("it does not support {missing}, which the sink needs");
            return Err(MqttSinkError::Refused { broker: connection.broker, reason });
        }
        Ok(connection)
    }

    /// Returns why a message exceeds the largest packet of the broker; `None` if it does not.
    pub fn too_large(&self, message: &Message) -> Option<String> {
        let most = usize::try_from(self.limits.max_packet?).unwrap_or(usize::MAX);
        let size = self.version.publish_size(message);
        (size > most).then(|| {
            format!("topic {}: the packet has {size} bytes, and the broker allows {most}", message.topic)
        })
    }

    /// Publishes messages in order, with at most `window.most` of them unacknowledged, and waits for all acknowledgements. `sent`
    /// has the state of each message, also after an error. After the broker has not accepted a message, no more are sent.
    ///
    /// Only one record of each device is in flight: if the broker does not accept it, it cannot have accepted a later one.
    ///
    /// # Errors
    ///
    /// Returns [`MqttSinkError`] if the connection ends, or the broker does not respond.
    pub async fn publish(
        &mut self,
        messages: &[Queued<'_>],
        window: Window,
        limits: Limits,
        sent: &mut Vec<Sent>,
    ) -> Result<(), MqttSinkError> {
        sent.clear();
        sent.resize(messages.len(), Sent::No);
        let most = usize::from(window.most.min(self.limits.receive_maximum));
        let (mut in_flight, mut progress) = (HashMap::new(), Instant::now());
        let mut stops = false;
        loop {
            while !stops && in_flight.len() < most && self.output.len() < MAX_UNWRITTEN {
                let Some(number) = next_in_order(messages, sent) else { break };
                if number < window.alone && !in_flight.is_empty() {
                    break;
                }
                let (Some(queued), Some(state)) = (messages.get(number), sent.get_mut(number)) else { break };
                let id = self.new_id(|id| in_flight.contains_key(&id));
                self.encode(|version, out| version.write_publish(id, queued.message, out))?;
                *state = Sent::Unacknowledged;
                in_flight.insert(id, number);
                if number < window.alone {
                    break;
                }
            }
            if in_flight.is_empty() {
                return Ok(());
            }
            if let Incoming::Acknowledged { id, reason } = self.next("PUBACK", limits, progress).await?
                && let Some(number) = in_flight.remove(&id)
            {
                progress = Instant::now();
                let topic = messages.get(number).map_or("", |queued| &*queued.message.topic);
                stops |= matches!(failure::of_acknowledgement(reason, topic), Some(Failure::Broker(_)));
                if let Some(state) = sent.get_mut(number) {
                    *state = Sent::Acknowledged(reason);
                }
            }
        }
    }

    /// Waits for the answer to a ping.
    ///
    /// # Errors
    ///
    /// Returns [`MqttSinkError`] if the connection has ended, or the broker does not respond.
    pub async fn ping(&mut self, limits: Limits) -> Result<(), MqttSinkError> {
        self.version.write_ping(&mut self.output);
        let started = Instant::now();
        while self.next("PINGRESP", limits, started).await? != Incoming::Pong {}
        Ok(())
    }

    /// Ends the session, so that the broker does not publish the last will.
    ///
    /// # Errors
    ///
    /// Returns [`MqttSinkError`] if the bytes cannot be written.
    pub async fn close(mut self, limits: Limits) -> Result<(), MqttSinkError> {
        self.version.write_disconnect(&mut self.output);
        let bytes = self.output.split();
        let written = async {
            self.writer.write_all(&bytes).await?;
            self.writer.shutdown().await
        };
        match tokio::time::timeout(limits.timeout, written).await {
            Ok(written) => written.map_err(|error| lost(&self.broker, error.to_string(), Blame::Unknown)),
            Err(_) => Err(silent(&self.broker, "end of the connection", limits)),
        }
    }

    /// Returns the next packet, and writes unwritten bytes meanwhile. Packets that were received before the end of the connection
    /// are returned before its error.
    async fn next(
        &mut self,
        expected: &'static str,
        limits: Limits,
        since: Instant,
    ) -> Result<Incoming, MqttSinkError> {
        loop {
            match self.version.read(&mut self.input) {
                Ok(None) => {}
                Ok(Some(Incoming::Disconnected(reason))) => {
                    let (reason, blame) = failure::of_disconnect(reason, &self.client_id);
                    return Err(lost(&self.broker, reason, blame));
                }
                Ok(Some(packet)) => return Ok(packet),
                Err(malformed) => return Err(self.not_mqtt(&malformed.to_string())),
            }
            if let Some(ended) = &self.ended {
                return Err(lost(&self.broker, ended.clone(), Blame::Unknown));
            }
            let wait = limits.left(since);
            // Also if the broker keeps sending other packets.
            if wait.is_zero() {
                return Err(silent(&self.broker, expected, limits));
            }
            match tokio::time::timeout(wait, self.exchange()).await {
                Ok(Ok(true)) => {}
                // Some brokers do not report that another client took the client id over.
                Ok(Ok(false)) => {
                    self.ended = Some(format!(
                        "the broker closed it; if that repeats, check that no other client has the client id {}",
                        self.client_id
                    ));
                }
                Ok(Err(error)) => {
                    self.ended = Some(failure::of_io(&error));
                    // Of a failed write, the reason and some acknowledgements may be there to be read.
                    while self.input.len() < LAST_BYTES
                        && matches!(
                            tokio::time::timeout(LAST_READ, self.reader.read_buf(&mut self.input)).await,
                            Ok(Ok(1..))
                        )
                    {}
                }
                Err(_) => return Err(silent(&self.broker, expected, limits)),
            }
        }
    }

    /// Reads or writes bytes, whichever is possible first. Returns `false` at the end of the stream.
    async fn exchange(&mut self) -> io::Result<bool> {
        let Self { reader, writer, input, output, needs_flush, .. } = self;
        let has_output = !output.is_empty() || *needs_flush;
        let write = async {
            if !output.is_empty() {
                *needs_flush = true;
                writer.write_buf(output).await?;
            }
            if output.is_empty() {
                writer.flush().await?;
                *needs_flush = false;
            }
            Ok::<_, io::Error>(())
        };
        tokio::select! {
            biased;
            read = reader.read_buf(input) => Ok(read? > 0),
            written = write, if has_output => written.map(|()| true),
        }
    }

    fn encode(
        &mut self,
        write: impl FnOnce(MqttVersion, &mut BytesMut) -> Result<(), crate::packet::Malformed>,
    ) -> Result<(), MqttSinkError> {
        write(self.version, &mut self.output)
            .map_err(|error| MqttSinkError::NotTaken(format!("a packet cannot be encoded: {error}")))
    }

    /// Returns the next packet id that is not in use. 0 is not an id.
    fn new_id(&mut self, is_used: impl Fn(u16) -> bool) -> u16 {
        // Fewer are in use than there are.
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if !is_used(self.last_id) {
                return self.last_id;
            }
        }
    }

    fn not_mqtt(&self, why: &str) -> MqttSinkError {
        let error =
            format!("the peer is not an MQTT broker, or requires TLS; check `broker` and [sink.tls]: {why}");
        MqttSinkError::Connect { broker: self.broker.clone(), error }
    }
}

/// Returns the index of the next message to send: the first unsent one whose device has no earlier record without an
/// acknowledgement. `None` if there is none.
fn next_in_order(messages: &[Queued<'_>], sent: &[Sent]) -> Option<usize> {
    let mut first_of_device: HashMap<usize, usize> = HashMap::new();
    let open =
        messages.iter().zip(sent).enumerate().filter(|(_, (_, sent))| !matches!(sent, Sent::Acknowledged(_)));
    for (number, (queued, sent)) in open {
        let first = *first_of_device.entry(queued.device).or_insert(queued.record);
        if *sent == Sent::No && first == queued.record {
            return Some(number);
        }
    }
    None
}

fn lost(broker: &str, reason: String, blame: Blame) -> MqttSinkError {
    MqttSinkError::Lost { broker: broker.to_owned(), reason, blame }
}

fn silent(broker: &str, expected: &'static str, limits: Limits) -> MqttSinkError {
    MqttSinkError::Silent { broker: broker.to_owned(), expected, seconds: limits.timeout.as_secs() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_record_of_a_device_is_in_flight_with_all_its_messages() {
        let message = Message::retained("t".to_owned(), "");
        // Two messages of the first record of device 0, one of its second, and one of another device.
        let queued = [(0, 0), (0, 0), (1, 0), (2, 1)];
        let queued = queued.map(|(record, device)| Queued { message: &message, record, device });
        let mut sent = [Sent::No; 4];
        let mut order = Vec::new();
        while let Some(number) = next_in_order(&queued, &sent) {
            sent[number] = Sent::Unacknowledged;
            order.push(number);
        }
        assert_eq!(order, [0, 1, 3]);
        sent[0] = Sent::Acknowledged(0);
        assert_eq!(next_in_order(&queued, &sent), None);
        sent[1] = Sent::Acknowledged(0);
        assert_eq!(next_in_order(&queued, &sent), Some(2));
    }
}
