//! `connectionStatus`: members and trigger from DT's page "Events", values from the tests of its Python client.

use serde_json::{Map, Value, json};

use crate::event::event_type::{KnownType, Others, Sent, When};
use crate::event::members::object;
use crate::event::open_enum::text_member;
use crate::event::reading::Readings;
use crate::event::simulation::Moment;
use crate::event::timestamp::Timestamp;

text_member! {
    /// A connection of a device to DT's cloud, in `connection` and `available` of [`ConnectionStatus`].
    Connection {
        /// DT's radio protocol, which sensors use.
        Sds = "SDS",
        /// Ethernet.
        Ethernet = "ETHERNET",
        /// A cellular network.
        Cellular = "CELLULAR",
        /// No connection: the device is offline.
        Offline = "OFFLINE",
    }
}

object! {
    /// `connectionStatus`: sent when a device goes offline, comes back, or changes its connection.
    ConnectionStatus {
        /// The connection in use.
        required "connection" connection: Connection,
        /// The available connections; empty while the device is offline.
        optional "available" available: Vec<Connection>,
        /// `updateTime`: when the connection changed.
        optional "updateTime" update_time: Option<Timestamp>,
    }
}

impl KnownType for ConnectionStatus {
    const NAME: &'static str = "connectionStatus";
    const SENT: Sent = Sent { by: &["ccon"], others: Others::Published, when: When::StateChange };

    fn sample(moment: &mut Moment<'_>) -> Self {
        use Connection::{Cellular, Ethernet, Offline};
        let connection = moment.rng.pick(Ethernet, &[Cellular, Offline]);
        Self::by(connection, moment.time())
    }

    fn next(_last: Option<&Self>, moment: &mut Moment<'_>) -> Self {
        Self::by(moment.by_state(Connection::Ethernet, Connection::Cellular), moment.time())
    }

    fn report<'a>(&'a self, readings: &mut Readings<'a>) {
        readings.text(Self::NAME, self.connection.as_str());
    }

    fn fill_in(members: &mut Map<String, Value>, _update_time: &str) {
        let connection = members.get("connection").and_then(Value::as_str).unwrap_or_default();
        let is_offline = connection == Connection::Offline.as_str();
        let available = if is_offline { json!([]) } else { json!([connection]) };
        members.entry("available").or_insert(available);
    }
}

impl ConnectionStatus {
    /// Returns the payload for the connection in use. A Cloud Connector with Ethernet has the cellular network as well.
    fn by(connection: Connection, update_time: Option<Timestamp>) -> Self {
        let available = match connection {
            Connection::Offline => Vec::new(),
            Connection::Ethernet => vec![Connection::Ethernet, Connection::Cellular],
            _ => vec![connection.clone()],
        };
        Self { connection, available, update_time, extra: Map::new() }
    }
}
