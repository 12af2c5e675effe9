//! How devices are connected: Cloud Connectors by Ethernet or cellular, sensors through Cloud Connectors.

use serde_json::{Map, Value};

use super::fields::{Fields, Unfit};
use crate::event::event_type::open_enum;
use crate::event::timestamp::Timestamp;

open_enum! {
    /// `connection` and `available` of [`ConnectionStatus`].
    Connection {
        /// By DT's radio protocol, as sensors are.
        Sds = "SDS",
        /// By Ethernet.
        Ethernet = "ETHERNET",
        /// By a cellular network.
        Cellular = "CELLULAR",
        /// Not at all.
        Offline = "OFFLINE",
    }
}

/// `connectionStatus`: sent when a device goes offline, comes back, or changes its connection.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ConnectionStatus {
    /// What it is connected by now.
    pub connection: Connection,
    /// What it could be connected by; empty when it is offline.
    pub available: Vec<Connection>,
    /// When it changed.
    pub update_time: Option<Timestamp>,
    /// Members not known here, or not of the documented type.
    pub extra: Map<String, Value>,
}

/// `ethernetStatus`: sent when the Ethernet of a Cloud Connector changes.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct EthernetStatus {
    /// MAC address, such as `f0:b5:b7:00:0a:08`.
    pub mac_address: String,
    /// IP address; empty while there is none.
    pub ip_address: String,
    /// What is wrong. Always empty in the events that DT shows, so the shape of an item is not known.
    pub errors: Vec<Value>,
    /// When it changed.
    pub update_time: Option<Timestamp>,
    /// Members not known here, or not of the documented type.
    pub extra: Map<String, Value>,
}

/// `cellularStatus`: sent when the cellular signal of a Cloud Connector changes.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CellularStatus {
    /// Signal strength in percent.
    pub signal_strength: f64,
    /// What is wrong, as in [`EthernetStatus::errors`].
    pub errors: Vec<Value>,
    /// When it changed.
    pub update_time: Option<Timestamp>,
    /// Members not known here, or not of the documented type.
    pub extra: Map<String, Value>,
}

impl ConnectionStatus {
    pub(super) fn read(mut fields: Fields<'_>) -> Result<Self, Unfit> {
        Ok(Self {
            connection: fields.text("connection")?,
            available: fields.texts("available"),
            update_time: fields.time("updateTime"),
            extra: fields.rest(),
        })
    }
}

impl EthernetStatus {
    pub(super) fn read(mut fields: Fields<'_>) -> Result<Self, Unfit> {
        Ok(Self {
            mac_address: fields.text("macAddress")?,
            ip_address: fields
                .optional("ipAddress", |value| value.as_str().map(str::to_owned))
                .unwrap_or_default(),
            errors: fields.list("errors", |item| Some(item.clone())),
            update_time: fields.time("updateTime"),
            extra: fields.rest(),
        })
    }
}

impl CellularStatus {
    pub(super) fn read(mut fields: Fields<'_>) -> Result<Self, Unfit> {
        Ok(Self {
            signal_strength: fields.number("signalStrength")?,
            errors: fields.list("errors", |item| Some(item.clone())),
            update_time: fields.time("updateTime"),
            extra: fields.rest(),
        })
    }
}
