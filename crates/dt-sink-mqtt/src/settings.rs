//! The settings of the sink `mqtt`: broker, security, topics, states and Home Assistant.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use dt_sink::config::{
    ClientTls, SecretEntry, Section, config_keys, custom, duration, flag, number, parsed, word,
};
use dt_sink::record::Format;
use dt_sink::{BadPlace, Metric, OpenError, Sink, SinkContext, SinkError, SinkSettings, tls};
use dt_verify::Secret;

use crate::metrics;
use crate::packet::{MAX_TEXT, MqttVersion};
use crate::sink::MqttSink;
use crate::topic::{MqttTopic, check_topic, is_forbidden};

/// The default topic of an event.
const TOPIC: &str = "dt/{project}/{device}/{eventType}";
/// The default topic of a state with `home_assistant`.
const STATE_TOPIC: &str = "dt/{project}/{device}/state/{quantity}";
/// The largest length of a client id in bytes. It is below the limit of every broker, except for that of MQTT 3.1 (23).
const MAX_CLIENT_ID: usize = 256;

config_keys! {
    /// The settings of a sink of type `mqtt`.
    #[derive(Debug, Clone, PartialEq)]
    #[non_exhaustive]
    pub struct MqttConfig {
        needed {
            /// The broker.
            broker: Broker = parsed("`HOST:PORT`", "HOST:PORT such as \"mqtt.example.com:8883\"")
                .needed("is missing; give \"HOST:PORT\"")
                .sample("\"127.0.0.1:1883\""),
        }
        /// The topic of each event.
        topic: MqttTopic = custom("topic with `{connector}`, `{project}`, `{device}`, `{eventType}`", read_topic)
            .shown_as(|topic| format!("{:?}", topic.to_string()))
            .or(default_topic(TOPIC))
            .default_shown("\"dt/{project}/{device}/{eventType}\""),
        /// The version of MQTT. With 3.1.1, a broker cannot report why it does not take a message.
        version: MqttVersion = word(&["5", "3.1.1"]).or(MqttVersion::V5),
        /// The client id. Each client of a broker needs its own.
        client_id: Option<String> = custom("text", read_client_id)
            .or_none("`dt-receiver-` and the sink's name")
            .sample("\"dt-receiver-plant-1\""),
        /// The user name.
        username: Option<String> = custom("text", read_username)
            .shown_as(|_| "(not shown)".to_owned())
            .or_none("")
            .sample("\"dt-receiver\""),
        /// Of a sink of type `mqtt`: the password of the user.
        password: Option<Secret> = SecretEntry { variable: "MQTT_PASSWORD", path: "/etc/dt-receiver/mqtt-password" },
        /// Of a sink of type `mqtt`: TLS to the broker. With an empty table, the certificate authorities are those of Mozilla.
        tls: Option<ClientTls> = tls::entry("the broker's certificate", "mqtt"),
        /// The largest number of messages that the broker has not acknowledged. The broker's own limit applies as well.
        max_in_flight: u16 = number(1..=65_535).or(100),
        /// How long to wait for a connection or an acknowledgement. Then the sink connects again.
        timeout: Duration = duration(SECOND..=MINUTE).or(TEN_SECONDS),
        /// The topic of the latest state of each device and quantity, which the broker retains. A late event does not replace
        /// a newer state.
        state_topic: Option<MqttTopic> = custom(
            "topic with `{device}` and `{quantity}`, and the placeholders of `topic`", read_topic)
            .shown_as(|topic| format!("{:?}", topic.to_string()))
            .or_none("no states; with `home_assistant`, `\"dt/{project}/{device}/state/{quantity}\"`")
            .sample("\"dt/{project}/{device}/state/{quantity}\""),
        /// The topic at which the broker retains `online` while the sink is connected, and otherwise `offline`.
        status_topic: Option<String> = custom("topic", read_plain_topic)
            .or_none("`dt/receiver/` and the client id")
            .sample("\"dt/receiver/plant-1\""),
        /// Whether Home Assistant finds the devices by itself (MQTT discovery).
        home_assistant: bool = flag().or(false),
        /// The discovery prefix of Home Assistant.
        home_assistant_prefix: String = custom("topic", read_plain_topic)
            .or("homeassistant".to_owned())
            .default_shown("\"homeassistant\""),
    }
}

const SECOND: Duration = Duration::from_secs(1);
const TEN_SECONDS: Duration = Duration::from_secs(10);
const MINUTE: Duration = Duration::from_secs(60);

/// The address of a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Broker {
    /// The name or address of the host; an IPv6 address without brackets.
    pub host: String,
    /// The port of the broker.
    pub port: u16,
}

/// The error for a text that is not `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not HOST:PORT")]
pub struct NotABroker;

impl FromStr for Broker {
    type Err = NotABroker;

    fn from_str(text: &str) -> Result<Self, NotABroker> {
        let (host, port) = text.rsplit_once(':').ok_or(NotABroker)?;
        let port = port.parse::<u16>().ok().filter(|port| *port > 0).ok_or(NotABroker)?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) if address.parse::<std::net::Ipv6Addr>().is_ok() => address,
            Some(_) => return Err(NotABroker),
            None => host,
        };
        let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let is_address = host.parse::<IpAddr>().is_ok();
        if host.is_empty()
            || !(is_address || host.bytes().all(is_name))
            || (text.starts_with(host) && host.contains(':'))
        {
            return Err(NotABroker);
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl Broker {
    /// Returns whether the broker's host is `localhost` or a loopback address, so that connections do not leave this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl MqttConfig {
    /// Returns the topic template of states; `None` if states are not published.
    #[must_use]
    pub fn states(&self) -> Option<MqttTopic> {
        self.state_topic.clone().or_else(|| self.home_assistant.then(|| default_topic(STATE_TOPIC)))
    }
}

impl SinkSettings for MqttConfig {
    const NAME: &'static str = "mqtt";
    const PLACE: Option<&'static str> = Some("HOST:PORT[/TOPIC]");
    const ABOUT: &'static str =
        "Topics of an MQTT broker, and states for Home Assistant. Details: [mqtt.md](mqtt.md).";
    const METRICS: &'static [Metric] = metrics::ALL;
    const FORMATS: &'static [Format] = &[Format::Body, Format::Envelope, Format::CloudEvents];

    fn from_place(place: &str) -> Result<Self, BadPlace> {
        let (broker, topic) =
            place.split_once('/').map_or((place, None), |(broker, topic)| (broker, Some(topic)));
        // The text may contain a password.
        let wrong = |_| BadPlace::private("the text is not HOST:PORT[/TOPIC]");
        let mut config = Self::with_defaults(broker.parse().map_err(wrong)?);
        if let Some(topic) = topic {
            let wrong =
                |error| BadPlace::new(format_args!("the topic \"{}\": {error}", topic.escape_debug()));
            config.topic = topic.parse().map_err(wrong)?;
            if config.topic.has_quantity() {
                return Err(BadPlace::new(NO_QUANTITY));
            }
        }
        Ok(config)
    }

    fn check(&self, section: &Section<'_>) {
        if self.topic.has_quantity() {
            section.complain("topic", NO_QUANTITY);
        }
        if self.state_topic.as_ref().is_some_and(|topic| !topic.tells_states_apart()) {
            section
                .complain("state_topic", "needs `{device}` and `{quantity}`, or states replace each other");
        }
        if let Some(password) = &self.password {
            if self.username.is_none() {
                section.complain("username", "is missing; a password needs a user name");
            }
            // The password of MQTT is binary, but the codec takes a text.
            if std::str::from_utf8(password.expose()).is_err() || password.expose().len() > MAX_TEXT {
                section.complain("password", "the password must be UTF-8, and at most 65,535 bytes");
            }
        }
        if self.tls.is_none() && !self.broker.is_local() {
            let what = if self.password.is_some() { "events and the password" } else { "events" };
            section.warn(
                "broker",
                format!("{what} cross the network unencrypted; add [sink.tls], or connect to a broker on this machine"),
            );
        }
    }

    fn sink(&self, context: SinkContext) -> Result<Box<dyn Sink>, OpenError> {
        Ok(Box::new(MqttSink::new(self.clone(), context)?))
    }

    fn probe(&self, context: SinkContext) -> Option<Result<String, SinkError>> {
        let sink = MqttSink::new(self.clone(), context).map_err(|error| SinkError::from(error.to_string()));
        Some(sink.and_then(|mut sink| sink.probe()))
    }
}

/// The error message for `{quantity}` in `topic`.
const NO_QUANTITY: &str = "`{quantity}` is for `state_topic`; an event may report several";

/// Returns a default topic of this file. A test checks that each is valid.
fn default_topic(text: &str) -> MqttTopic {
    text.parse().unwrap_or_else(|_| MqttTopic::plain(text))
}

fn read_topic(section: &mut Section<'_>, key: &'static str) -> Option<MqttTopic> {
    let text = section.string(key)?;
    let wrong = |error| section.complain(key, format!("found \"{}\": {error}", text.escape_debug()));
    text.parse().map_err(wrong).ok()
}

fn read_plain_topic(section: &mut Section<'_>, key: &'static str) -> Option<String> {
    let text = section.string(key)?;
    let wrong = |error| section.complain(key, format!("found \"{}\": {error}", text.escape_debug()));
    check_topic(&text).map_err(wrong).ok().map(|()| text)
}

fn read_client_id(section: &mut Section<'_>, key: &'static str) -> Option<String> {
    let text = section.string(key)?;
    if text.is_empty() || text.len() > MAX_CLIENT_ID || text.contains(is_forbidden) {
        section.problem(key, &text, "1 to 256 bytes without control characters");
        return None;
    }
    Some(text)
}

fn read_username(section: &mut Section<'_>, key: &'static str) -> Option<String> {
    let text = section.private_string(key)?;
    if text.is_empty() || text.len() > MAX_CLIENT_ID || text.contains(is_forbidden) {
        section.complain(key, "expected 1 to 256 bytes without control characters");
        return None;
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_a_host_and_a_port() {
        for (text, host, is_local) in [
            ("localhost:1883", "localhost", true),
            ("127.0.0.1:1", "127.0.0.1", true),
            ("[::1]:1883", "::1", true),
            ("[2001:db8::1]:8883", "2001:db8::1", false),
            ("mqtt.example.com:8883", "mqtt.example.com", false),
        ] {
            let broker: Broker = text.parse().expect(text);
            assert_eq!((&*broker.host, broker.is_local(), &*broker.to_string()), (host, is_local, text));
        }
        for text in
            ["", "host", ":1883", "host:0", "host:65536", "::1:1883", "[host]:1", "mqtt://host:1883", "a b:1"]
        {
            assert_eq!(text.parse::<Broker>(), Err(NotABroker), "{text}");
        }
    }

    #[test]
    fn the_place_of_the_command_line_has_a_broker_and_may_have_a_topic() {
        let config = MqttConfig::from_place("127.0.0.1:1883").expect("a place");
        assert_eq!(config.topic.to_string(), TOPIC);
        assert_eq!(config.states(), None);
        let config = MqttConfig::from_place("[::1]:1883/dt/{eventType}").expect("a place");
        assert_eq!((&*config.broker.host, &*config.topic.to_string()), ("::1", "dt/{eventType}"));
        for place in ["", "host", "host:1/#", "host:1/", "host:1/{date}", "host:1/{quantity}"] {
            assert!(MqttConfig::from_place(place).is_err(), "{place}");
        }
    }

    #[test]
    fn the_default_topics_are_valid() {
        for text in [TOPIC, STATE_TOPIC] {
            assert_eq!(text.parse::<MqttTopic>().expect(text), default_topic(text));
        }
        let mut config = MqttConfig::from_place("127.0.0.1:1883").expect("a place");
        config.home_assistant = true;
        assert!(config.states().is_some_and(|topic| topic.tells_states_apart()));
    }
}
