//! The sink `mqtt`: publishes records to a broker, with MQTT 5 or 3.1.1. A record is delivered once the broker has
//! acknowledged its packet.
//!
//! # Delivery
//!
//! All messages have QoS 1. `deliver` publishes a batch over one connection, with a bounded number of messages in flight, and
//! waits for the acknowledgement (PUBACK) of each packet id. The sink owns the packet ids and the connection (`connection.rs`);
//! the client of `rumqttc` hides both, so only its packet codec is used (`packet.rs`). When the connection ends, it is dropped
//! with everything in flight, and the records without an acknowledgement are returned for another attempt, in their order.
//!
//! # When a record fails
//!
//! - A reason code of MQTT 5 that is the message's own fault rejects the record; any other one is reported, and the record is
//!   retried (`failure.rs`).
//! - Some brokers close the connection instead, and a network that fails looks the same. The records that were in flight are
//!   then published one message at a time. A record is rejected if three connections end at it alone while events of other
//!   devices go through on the connections in between, or if the broker states each time that the packet is at fault (MQTT 5).
//!   Until then the sink retries it, and its device waits (`suspect.rs`).
//! - After ten consecutive rejections, the broker is assumed to be the cause, and no more records are rejected.
//! - One record of each device is in flight, and a record is retried as long as an earlier record of its device is. So the order
//!   of a device's events is kept, whichever messages the broker accepts.
//!
//! # States
//!
//! With a state topic, the newest value of each device and quantity is published as a retained message (`state.rs`), and
//! described for Home Assistant (`home_assistant.rs`). A record is delivered when its states are acknowledged, too.

mod connection;
mod failure;
mod home_assistant;
mod message;
mod metrics;
mod order;
mod packet;
mod settings;
mod sink;
mod state;
mod suspect;
mod topic;

pub use failure::MqttSinkError;
pub use packet::{MqttVersion, UnknownVersion};
pub use settings::{Broker, MqttConfig, NotABroker};
pub use sink::MqttSink;
pub use topic::{BadTopic, MqttTopic};

/// The number of connections that may end because of the same record before the record is rejected.
const MAX_STRIKES: u32 = 3;
/// The number of consecutive rejected records after which the broker is assumed to be the cause.
const MAX_REJECTED: u32 = 10;
