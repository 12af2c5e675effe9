//! The packets of MQTT 5 and 3.1.1 that a publisher needs.
//!
//! The packets that hold properties are written and read by the codec of `rumqttc`. Acknowledgements and the reason of a
//! disconnection are read here: the codec returns an error for a reason code that it does not know, such as the 0x95
//! (packet too large) of Mosquitto, and then the packet id is lost.

use std::fmt;
use std::str::FromStr;

use bytes::{Bytes, BytesMut};
use dt_verify::Secret;
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::v5;

/// The largest packet that is read, in bytes: retained states are small. A larger one ends the connection.
pub const MAX_INCOMING: u32 = 1 << 20;
/// The largest length of a text in a packet, in bytes: the length is stored in 16 bits.
pub const MAX_TEXT: usize = 65_535;
/// How long a broker keeps the session after the connection ends, in seconds.
const SESSION_EXPIRY: u32 = 3600;
/// How long a broker waits for the sink to connect again before it reports the sink as offline, in seconds (MQTT 5).
const WILL_DELAY: u32 = 5;
/// The payload of the status topic while the sink is connected.
pub const ONLINE: &str = "online";
/// The payload of the status topic while the sink is not connected.
pub const OFFLINE: &str = "offline";

/// The version of the MQTT protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum MqttVersion {
    /// MQTT 5, with reason codes and the limits of the broker.
    #[default]
    V5,
    /// MQTT 3.1.1.
    V311,
}

/// The error for a text that is not a version of MQTT.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown version; expected 5 or 3.1.1")]
pub struct UnknownVersion;

impl FromStr for MqttVersion {
    type Err = UnknownVersion;

    fn from_str(text: &str) -> Result<Self, UnknownVersion> {
        match text {
            "5" => Ok(Self::V5),
            "3.1.1" => Ok(Self::V311),
            _ => Err(UnknownVersion),
        }
    }
}

impl fmt::Display for MqttVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V5 => "5",
            Self::V311 => "3.1.1",
        })
    }
}

/// The content of the packet CONNECT.
#[derive(Debug)]
pub struct Connect<'a> {
    /// The client id. If the same id connects again, a broker continues the session.
    pub client_id: &'a str,
    /// The user name and the password; `None` if the broker does not require them.
    pub login: Option<(&'a str, Option<&'a Secret>)>,
    /// The topic at which the broker reports the end of the connection. With `None`, nothing remains at the broker: there is no
    /// last will, and the session ends with the connection.
    pub status_topic: Option<&'a str>,
    /// The longest time between two packets, in seconds.
    pub keep_alive: u16,
}

/// A message to publish, with QoS 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The topic of the message.
    pub topic: String,
    /// The payload of the message.
    pub payload: Bytes,
    /// Whether the broker retains the message for later subscribers.
    pub is_retained: bool,
    /// The user properties of the message (MQTT 5).
    pub properties: Vec<(String, String)>,
}

impl Message {
    /// Returns a message that the broker retains.
    pub fn retained(topic: String, payload: impl Into<Bytes>) -> Self {
        Self { topic, payload: payload.into(), is_retained: true, properties: Vec::new() }
    }
}

/// The limits that a broker states when it accepts a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokerLimits {
    /// The largest number of packets without an acknowledgement.
    pub receive_maximum: u16,
    /// The largest packet in bytes; `None` if the broker states no limit.
    pub max_packet: Option<u32>,
    /// Whether the broker accepts QoS 1.
    pub has_qos_1: bool,
    /// Whether the broker retains messages for later subscribers.
    pub has_retain: bool,
}

/// A packet that was received from the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// The broker accepts the connection, with these limits.
    Accepted(BrokerLimits),
    /// The broker rejects the connection for this reason.
    Refused(Refused),
    /// The result of a published packet.
    Acknowledged {
        /// The id of the published packet.
        id: u16,
        /// The reason code; less than 0x80 means success.
        reason: u8,
    },
    /// The result of a subscription.
    Subscribed {
        /// The id of the subscription's packet.
        id: u16,
        /// For each topic, whether it was accepted.
        is_accepted: Vec<bool>,
    },
    /// A message that was published to a subscribed topic.
    Published {
        /// The topic of the message.
        topic: String,
        /// The payload of the message.
        payload: Bytes,
    },
    /// The answer to a ping.
    Pong,
    /// The broker ends the connection, with this reason code (MQTT 5).
    Disconnected(u8),
    /// A packet without meaning for a publisher.
    Other,
}

/// Why a broker rejects a connection, as far as the remedies differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The user name or the password is wrong, or the user may not connect.
    Login,
    /// The broker does not support the version of the protocol.
    Version,
    /// The broker does not allow the client id.
    ClientId,
    /// Another reason, as the broker states it.
    Other(String),
}

/// The error for received data that is not MQTT.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

impl From<rumqttc::mqttbytes::Error> for Malformed {
    fn from(error: rumqttc::mqttbytes::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<rumqttc::v5::mqttbytes::Error> for Malformed {
    fn from(error: rumqttc::v5::mqttbytes::Error) -> Self {
        Self(error.to_string())
    }
}

impl MqttVersion {
    /// Appends the packet CONNECT. With a status topic, the session continues where the broker has one.
    ///
    /// # Errors
    ///
    /// Returns `Malformed` if the packet cannot be encoded.
    pub fn write_connect(self, connect: &Connect<'_>, out: &mut BytesMut) -> Result<(), Malformed> {
        let password = |secret: Option<&Secret>| {
            secret.map_or_else(String::new, |secret| String::from_utf8_lossy(secret.expose()).into_owned())
        };
        let (topic, offline) = (connect.status_topic, Bytes::from_static(OFFLINE.as_bytes()));
        let is_kept = topic.is_some();
        match self {
            Self::V5 => {
                let mut properties = v5::ConnectProperties::new();
                properties.session_expiry_interval = is_kept.then_some(SESSION_EXPIRY);
                properties.max_packet_size = Some(MAX_INCOMING);
                let packet = v5::Connect {
                    keep_alive: connect.keep_alive,
                    client_id: connect.client_id.to_owned(),
                    clean_start: !is_kept,
                    properties: Some(properties),
                };
                let will = topic.map(|topic| v5::LastWill {
                    topic: Bytes::copy_from_slice(topic.as_bytes()),
                    message: offline,
                    qos: rumqttc::v5::mqttbytes::QoS::AtLeastOnce,
                    retain: true,
                    properties: Some(v5::LastWillProperties {
                        delay_interval: Some(WILL_DELAY),
                        payload_format_indicator: None,
                        message_expiry_interval: None,
                        content_type: None,
                        response_topic: None,
                        correlation_data: None,
                        user_properties: Vec::new(),
                    }),
                });
                let login = connect.login.map(|(user, secret)| v5::Login::new(user, password(secret)));
                v5::Packet::Connect(packet, will, login).write(out, None)?;
            }
            Self::V311 => {
                let mut packet = v4::Connect::new(connect.client_id);
                packet.keep_alive = connect.keep_alive;
                packet.clean_session = !is_kept;
                packet.last_will = topic.map(|topic| v4::LastWill {
                    topic: topic.to_owned(),
                    message: offline,
                    qos: rumqttc::QoS::AtLeastOnce,
                    retain: true,
                });
                packet.login = connect.login.map(|(user, secret)| v4::Login::new(user, password(secret)));
                v4::Packet::Connect(packet).write(out, usize::MAX)?;
            }
        }
        Ok(())
    }

    /// Appends the packet PUBLISH, and returns its size in bytes.
    ///
    /// # Errors
    ///
    /// Returns `Malformed` if the packet cannot be encoded.
    pub fn write_publish(self, id: u16, message: &Message, out: &mut BytesMut) -> Result<(), Malformed> {
        match self {
            Self::V5 => self.publish_5(id, message).write(out, None)?,
            Self::V311 => self.publish_311(id, message).write(out, usize::MAX)?,
        };
        Ok(())
    }

    /// Returns the size of the packet PUBLISH, in bytes.
    pub fn publish_size(self, message: &Message) -> usize {
        match self {
            Self::V5 => self.publish_5(1, message).size(),
            Self::V311 => self.publish_311(1, message).size(),
        }
    }

    fn publish_5(self, id: u16, message: &Message) -> v5::Packet {
        let properties = (!message.properties.is_empty()).then(|| v5::PublishProperties {
            user_properties: message.properties.clone(),
            content_type: Some("application/json".to_owned()),
            ..v5::PublishProperties::default()
        });
        v5::Packet::Publish(v5::Publish {
            dup: false,
            qos: rumqttc::v5::mqttbytes::QoS::AtLeastOnce,
            retain: message.is_retained,
            topic: Bytes::copy_from_slice(message.topic.as_bytes()),
            pkid: id,
            payload: message.payload.clone(),
            properties,
        })
    }

    fn publish_311(self, id: u16, message: &Message) -> v4::Packet {
        v4::Packet::Publish(v4::Publish {
            dup: false,
            qos: rumqttc::QoS::AtLeastOnce,
            retain: message.is_retained,
            topic: message.topic.clone(),
            pkid: id,
            payload: message.payload.clone(),
        })
    }

    /// Appends SUBSCRIBE for these topics, with QoS 0.
    ///
    /// # Errors
    ///
    /// Returns `Malformed` if the packet cannot be encoded.
    pub fn write_subscribe(self, id: u16, topics: &[String], out: &mut BytesMut) -> Result<(), Malformed> {
        match self {
            Self::V5 => {
                let qos = rumqttc::v5::mqttbytes::QoS::AtMostOnce;
                let filters = topics.iter().map(|topic| v5::Filter::new(topic, qos));
                let mut packet = v5::Subscribe::new_many(filters, None);
                packet.pkid = id;
                v5::Packet::Subscribe(packet).write(out, None)?;
            }
            Self::V311 => {
                let qos = rumqttc::QoS::AtMostOnce;
                let filters = topics.iter().map(|topic| v4::SubscribeFilter::new(topic.clone(), qos));
                let mut packet = v4::Subscribe::new_many(filters);
                packet.pkid = id;
                v4::Packet::Subscribe(packet).write(out, usize::MAX)?;
            }
        }
        Ok(())
    }

    /// Appends UNSUBSCRIBE for these topics.
    ///
    /// # Errors
    ///
    /// Returns `Malformed` if the packet cannot be encoded.
    pub fn write_unsubscribe(self, id: u16, topics: &[String], out: &mut BytesMut) -> Result<(), Malformed> {
        match self {
            Self::V5 => {
                let filters = topics.to_vec();
                v5::Packet::Unsubscribe(v5::Unsubscribe { pkid: id, filters, properties: None })
                    .write(out, None)?;
            }
            Self::V311 => {
                v4::Packet::Unsubscribe(v4::Unsubscribe { pkid: id, topics: topics.to_vec() })
                    .write(out, usize::MAX)?;
            }
        }
        Ok(())
    }

    /// Appends PINGREQ, which is the same in both versions.
    pub fn write_ping(self, out: &mut BytesMut) {
        out.extend_from_slice(&[0xC0, 0]);
    }

    /// Appends DISCONNECT without a reason, which is the same in both versions. The broker discards the last will.
    pub fn write_disconnect(self, out: &mut BytesMut) {
        out.extend_from_slice(&[0xE0, 0]);
    }

    /// Removes the next packet from the received data and returns it; `None` if it is not complete.
    ///
    /// # Errors
    ///
    /// Returns `Malformed` if the data is not MQTT, or the packet is larger than `MAX_INCOMING`.
    pub fn read(self, input: &mut BytesMut) -> Result<Option<Incoming>, Malformed> {
        let length = match v5::check(input.iter(), Some(MAX_INCOMING)) {
            Ok(header) => header.frame_length(),
            Err(rumqttc::v5::mqttbytes::Error::InsufficientBytes(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut frame = input.split_to(length);
        let kind = frame.first().map_or(0, |byte| byte >> 4);
        let body = body(&frame);
        let id = |body: &[u8]| match body {
            [high, low, ..] => Ok(u16::from_be_bytes([*high, *low])),
            _ => Err(Malformed("a packet without its id".to_owned())),
        };
        Ok(Some(match kind {
            2 => self.read_connack(&mut frame)?,
            3 => self.read_publish(&mut frame)?,
            4 => Incoming::Acknowledged { id: id(body)?, reason: body.get(2).copied().unwrap_or(0) },
            9 => Incoming::Subscribed {
                id: id(body)?,
                is_accepted: self.codes(body)?.map(|code| code < 0x80).collect(),
            },
            13 => Incoming::Pong,
            14 => Incoming::Disconnected(body.first().copied().unwrap_or(0)),
            _ => Incoming::Other,
        }))
    }

    /// Returns the reason codes of a SUBACK: they follow the packet id, and in MQTT 5 the properties.
    fn codes(self, body: &[u8]) -> Result<impl Iterator<Item = u8> + use<'_>, Malformed> {
        let after_id = body.get(2..).unwrap_or_default();
        let skipped = match self {
            Self::V311 => 0,
            Self::V5 => {
                let (digits, length) = variable_length(after_id);
                digits.saturating_add(length)
            }
        };
        let codes =
            after_id.get(skipped..).ok_or_else(|| Malformed("a SUBACK that ends early".to_owned()))?;
        Ok(codes.iter().copied())
    }

    fn read_publish(self, frame: &mut BytesMut) -> Result<Incoming, Malformed> {
        let (topic, payload) = match self {
            Self::V5 => match v5::Packet::read(frame, Some(MAX_INCOMING))? {
                v5::Packet::Publish(publish) => {
                    (String::from_utf8_lossy(&publish.topic).into_owned(), publish.payload)
                }
                _ => return Ok(Incoming::Other),
            },
            Self::V311 => match v4::Packet::read(frame, usize::MAX)? {
                v4::Packet::Publish(publish) => (publish.topic, publish.payload),
                _ => return Ok(Incoming::Other),
            },
        };
        Ok(Incoming::Published { topic, payload })
    }

    fn read_connack(self, frame: &mut BytesMut) -> Result<Incoming, Malformed> {
        let no_limits =
            BrokerLimits { receive_maximum: u16::MAX, max_packet: None, has_qos_1: true, has_retain: true };
        // A broker that does not know MQTT 5 answers as in 3.1.1: two bytes, of which the second is 1.
        if self == Self::V5 && matches!(body(frame), [_, 1] | [_, 0x84, ..]) {
            return Ok(Incoming::Refused(Refused::Version));
        }
        match self {
            Self::V5 => {
                use v5::ConnectReturnCode as Code;
                let v5::Packet::ConnAck(packet) = v5::Packet::read(frame, Some(MAX_INCOMING))? else {
                    return Ok(Incoming::Other);
                };
                Ok(match packet.code {
                    Code::Success => {
                        Incoming::Accepted(packet.properties.map_or(no_limits, |properties| BrokerLimits {
                            receive_maximum: properties.receive_max.unwrap_or(u16::MAX).max(1),
                            max_packet: properties.max_packet_size,
                            has_qos_1: properties.max_qos != Some(0),
                            has_retain: properties.retain_available != Some(0),
                        }))
                    }
                    Code::BadUserNamePassword | Code::NotAuthorized => Incoming::Refused(Refused::Login),
                    Code::ClientIdentifierNotValid | Code::BadClientId => {
                        Incoming::Refused(Refused::ClientId)
                    }
                    Code::UnsupportedProtocolVersion | Code::RefusedProtocolVersion => {
                        Incoming::Refused(Refused::Version)
                    }
                    code => Incoming::Refused(Refused::Other(format!("{code:?}"))),
                })
            }
            Self::V311 => {
                use v4::ConnectReturnCode as Code;
                let v4::Packet::ConnAck(packet) = v4::Packet::read(frame, usize::MAX)? else {
                    return Ok(Incoming::Other);
                };
                Ok(match packet.code {
                    Code::Success => Incoming::Accepted(no_limits),
                    Code::BadUserNamePassword | Code::NotAuthorized => Incoming::Refused(Refused::Login),
                    Code::BadClientId => Incoming::Refused(Refused::ClientId),
                    Code::RefusedProtocolVersion => Incoming::Refused(Refused::Version),
                    code => Incoming::Refused(Refused::Other(format!("{code:?}"))),
                })
            }
        }
    }
}

/// Returns the part of a complete packet after the first byte and the length.
fn body(frame: &[u8]) -> &[u8] {
    let after_type = frame.get(1..).unwrap_or_default();
    after_type.get(variable_length(after_type).0..).unwrap_or_default()
}

/// Reads a variable byte integer (MQTT 5, section 1.5.5): the number of its digits, and its value.
fn variable_length(bytes: &[u8]) -> (usize, usize) {
    let (mut value, mut digits) = (0_usize, 0_usize);
    for (place, byte) in bytes.iter().take(4).enumerate() {
        digits = place.saturating_add(1);
        value |= usize::from(byte & 0x7F) << place.saturating_mul(7);
        if byte & 0x80 == 0 {
            break;
        }
    }
    (digits, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(version: MqttVersion, bytes: &[u8]) -> Result<Option<Incoming>, Malformed> {
        version.read(&mut BytesMut::from(bytes))
    }

    #[test]
    fn an_acknowledgement_keeps_its_id_whatever_its_reason() {
        for (bytes, reason) in [
            (&[0x40, 2, 0, 10][..], 0),
            (&[0x40, 3, 0, 10, 0x10], 0x10),
            // Mosquitto's answer to a payload above `message_size_limit`, which the standard does not have here.
            (&[0x40, 4, 0, 10, 0x95, 0], 0x95),
            (&[0x40, 9, 0, 10, 0x87, 5, 0x1F, 0, 2, b'n', b'o'], 0x87),
        ] {
            for version in [MqttVersion::V5, MqttVersion::V311] {
                assert_eq!(read(version, bytes), Ok(Some(Incoming::Acknowledged { id: 10, reason })));
            }
        }
    }

    #[test]
    fn a_packet_is_read_once_it_is_complete_and_only_its_own_bytes_are_taken() {
        let mut input = BytesMut::new();
        for byte in [0x40, 2, 1] {
            input.extend_from_slice(&[byte]);
            assert_eq!(MqttVersion::V5.read(&mut input), Ok(None));
        }
        input.extend_from_slice(&[2, 0xD0, 0, 0xE0]);
        let next = |input: &mut BytesMut| MqttVersion::V5.read(input).expect("MQTT");
        assert_eq!(next(&mut input), Some(Incoming::Acknowledged { id: 258, reason: 0 }));
        assert_eq!(next(&mut input), Some(Incoming::Pong));
        assert_eq!(next(&mut input), None);
        assert_eq!(&input[..], [0xE0]);
    }

    #[test]
    fn the_reasons_of_a_rejected_connection_and_of_its_end_are_read() {
        use MqttVersion::{V5, V311};
        let refused = |refused| Ok(Some(Incoming::Refused(refused)));
        assert_eq!(read(V5, &[0x20, 3, 0, 0x86, 0]), refused(Refused::Login));
        assert_eq!(read(V5, &[0x20, 3, 0, 0x87, 0]), refused(Refused::Login));
        assert_eq!(read(V5, &[0x20, 3, 0, 0x85, 0]), refused(Refused::ClientId));
        assert_eq!(read(V5, &[0x20, 2, 0, 1]), refused(Refused::Version));
        assert_eq!(read(V311, &[0x20, 2, 0, 4]), refused(Refused::Login));
        assert_eq!(read(V311, &[0x20, 2, 0, 1]), refused(Refused::Version));
        assert_eq!(read(V5, &[0xE0, 0]), Ok(Some(Incoming::Disconnected(0))));
        assert_eq!(read(V5, &[0xE0, 1, 0x8E]), Ok(Some(Incoming::Disconnected(0x8E))));
        let accepted = read(V5, &[0x20, 11, 0, 0, 8, 0x21, 0, 20, 0x27, 0, 0, 1, 0]);
        let limits =
            BrokerLimits { receive_maximum: 20, max_packet: Some(256), has_qos_1: true, has_retain: true };
        assert_eq!(accepted, Ok(Some(Incoming::Accepted(limits))));
    }

    #[test]
    fn a_subscription_is_accepted_topic_by_topic() {
        let subscribed = Ok(Some(Incoming::Subscribed { id: 7, is_accepted: vec![true, false] }));
        assert_eq!(read(MqttVersion::V311, &[0x90, 4, 0, 7, 0, 0x80]), subscribed);
        assert_eq!(read(MqttVersion::V5, &[0x90, 5, 0, 7, 0, 0, 0x87]), subscribed);
    }

    #[test]
    fn what_is_not_mqtt_is_an_error_and_never_a_panic() {
        assert!(read(MqttVersion::V5, &[0x40, 0xFF, 0xFF, 0xFF, 0xFF, 1]).is_err());
        assert!(read(MqttVersion::V5, &[0x40, 1, 0]).is_err());
        assert!(
            read(MqttVersion::V5, b"HTTP/1.1 400 Bad Request\r\n\r\n").is_ok_and(|packet| packet.is_none())
        );
        let mut random = 0x9e37_79b9_u32;
        for length in (0..4000).map(|length| length % 40) {
            let mut bytes = vec![0; length];
            for byte in &mut bytes {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *byte = random.to_be_bytes()[0];
            }
            for version in [MqttVersion::V5, MqttVersion::V311] {
                let mut input = BytesMut::from(&bytes[..]);
                // A length that fits, so that packets are complete.
                if let Some(byte) = input.get_mut(1) {
                    *byte = u8::try_from(length - 2).expect("small");
                }
                let _read = version.read(&mut input);
            }
        }
    }
}
