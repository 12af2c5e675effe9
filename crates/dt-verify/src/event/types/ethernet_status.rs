//! `ethernetStatus`: members and trigger from DT's page "Events", values from the tests of its Python client.

use serde_json::{Map, Value, json};

use crate::event::event_type::{KnownType, Others, Sent, When};
use crate::event::members::object;
use crate::event::reading::Readings;
use crate::event::simulation::Moment;
use crate::event::timestamp::Timestamp;

object! {
    /// `ethernetStatus`: sent when the Ethernet of a Cloud Connector changes.
    EthernetStatus {
        /// The MAC address of the Cloud Connector, such as `f0:b5:b7:00:0a:08`.
        required "macAddress" mac_address: String,
        /// The IP address of the Cloud Connector; empty while it has none.
        optional "ipAddress" ip_address: String,
        /// Errors. The list is empty in all examples of DT, so the form of an item is not known.
        optional "errors" errors: Vec<Value>,
        /// `updateTime`: when the Ethernet status changed.
        optional "updateTime" update_time: Option<Timestamp>,
    }
}

impl KnownType for EthernetStatus {
    const NAME: &'static str = "ethernetStatus";
    const SENT: Sent = Sent { by: &["ccon"], others: Others::No, when: When::StateChange };

    fn sample(moment: &mut Moment<'_>) -> Self {
        let ip_address = match moment.rng.below(256) {
            0 => String::new(),
            host => format!("10.0.0.{host}"),
        };
        let mac_address = format!("f0:b5:b7:00:0a:{:02x}", moment.rng.below(256));
        Self { mac_address, ip_address, errors: Vec::new(), update_time: moment.time(), extra: Map::new() }
    }

    fn next(_last: Option<&Self>, moment: &mut Moment<'_>) -> Self {
        Self {
            mac_address: "f0:b5:b7:00:0a:08".to_owned(),
            ip_address: moment.by_state("10.0.0.1", "").to_owned(),
            errors: Vec::new(),
            update_time: moment.time(),
            extra: Map::new(),
        }
    }

    fn report<'a>(&'a self, readings: &mut Readings<'a>) {
        readings.text("ipAddress", &self.ip_address);
    }

    fn fill_in(members: &mut Map<String, Value>, _update_time: &str) {
        members.entry("ipAddress").or_insert("".into());
        members.entry("errors").or_insert(json!([]));
    }
}
