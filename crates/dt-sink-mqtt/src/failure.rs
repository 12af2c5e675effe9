//! The meaning of the broker's reason codes for a record, and the errors in words for operators.

use crate::packet::Refused;

/// Why a message was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The record can never be published, whatever the state of the broker is.
    Record(String),
    /// The broker rejects the message because of the message itself, and will never accept it.
    Message(String),
    /// The broker does not accept the message now: a permission is missing, or a quota is reached. A later attempt can succeed.
    Broker(String),
}

/// Whether the end of a connection may have been caused by the message that was sent last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// No: the broker states another reason, such as a shutdown.
    Broker,
    /// Yes: the broker states that a packet is at fault.
    Message,
    /// Unknown: the broker closed the connection without a reason, or the network failed.
    Unknown,
}

/// Why there is no connection to the broker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MqttSinkError {
    /// The broker cannot be reached, or TLS failed.
    #[error("{broker}: {error}")]
    Connect {
        /// The address of the broker, as HOST:PORT.
        broker: String,
        /// The cause, with its remedy if one is known.
        error: String,
    },
    /// The broker rejects the connection.
    #[error("{broker}: the broker rejects the connection: {reason}")]
    Refused {
        /// The address of the broker, as HOST:PORT.
        broker: String,
        /// The cause, with its remedy.
        reason: String,
    },
    /// The connection ended.
    #[error("{broker}: the connection ended: {reason}")]
    Lost {
        /// The address of the broker, as HOST:PORT.
        broker: String,
        /// The cause.
        reason: String,
        /// Whether a message may be the cause.
        blame: Blame,
    },
    /// The broker does not respond.
    #[error("{broker}: the broker does not answer: no {expected} within {seconds} s")]
    Silent {
        /// The address of the broker, as HOST:PORT.
        broker: String,
        /// The name of the packet that was not received.
        expected: &'static str,
        /// How long the sink waited, in seconds.
        seconds: u64,
    },
    /// The broker does not accept a message of the sink itself, such as its status.
    #[error("{0}")]
    NotTaken(String),
}

/// Classifies the reason code of a PUBACK (MQTT 5, section 3.4.2.1); `None` for success.
///
/// 0x95 is not among the codes of a PUBACK, but Mosquitto uses it for a payload above `message_size_limit`.
pub fn of_acknowledgement(reason: u8, topic: &str) -> Option<Failure> {
    let text = match reason {
        0..0x80 => return None,
        0x80 => "unspecified error",
        0x83 => "implementation specific error",
        0x87 => {
            return Some(Failure::Broker(format!(
                "topic {topic}: not authorized (0x87); allow this user to write to the topic"
            )));
        }
        0x90 => "the topic name is invalid",
        0x91 => return Some(Failure::Broker(format!("topic {topic}: the packet id is in use (0x91)"))),
        0x95 => "the packet is too large",
        0x97 => {
            return Some(Failure::Broker(format!(
                "topic {topic}: quota exceeded (0x97); the broker takes more messages later"
            )));
        }
        0x99 => "the payload format is invalid",
        _ => return Some(Failure::Broker(format!("topic {topic}: reason code {reason:#04x}"))),
    };
    Some(Failure::Message(format!("topic {topic}: the broker rejects the message: {text} ({reason:#04x})")))
}

/// Returns the message for a rejected connection, with its remedy.
pub fn of_refused(refused: &Refused, client_id: &str) -> String {
    match refused {
        Refused::Login => "not authorized; check `username` and [sink.password]".to_owned(),
        Refused::Version => "it does not support this version of MQTT; set `version`".to_owned(),
        Refused::ClientId => format!("it does not allow the client id {client_id}; set `client_id`"),
        Refused::Other(code) => code.clone(),
    }
}

/// Returns why the broker ended a connection, and whether a message may be the cause (MQTT 5, section 3.14.2.1).
pub fn of_disconnect(reason: u8, client_id: &str) -> (String, Blame) {
    let text = match reason {
        0x81 => "malformed packet".to_owned(),
        0x82 => "protocol error".to_owned(),
        0x87 => "not authorized; check the permissions of this user".to_owned(),
        0x89 => "the broker is busy".to_owned(),
        0x8B => "the broker shuts down".to_owned(),
        0x8E => format!(
            "another client uses the client id {client_id}; set `client_id` to a different one for each receiver"
        ),
        0x90 => "the topic name is invalid".to_owned(),
        0x95 => "the packet is too large".to_owned(),
        0x97 => "quota exceeded".to_owned(),
        0x98 => "by an administrator".to_owned(),
        0x99 => "the payload format is invalid".to_owned(),
        _ => return (format!("reason code {reason:#04x}"), Blame::Broker),
    };
    let is_message = matches!(reason, 0x81 | 0x82 | 0x90 | 0x95 | 0x99);
    (format!("{text} ({reason:#04x})"), if is_message { Blame::Message } else { Blame::Broker })
}

/// Returns why a connection could not be opened, with the remedy.
pub fn of_connect(error: &std::io::Error) -> String {
    of_tls(error).unwrap_or_else(|| format!("{error}; check `broker`"))
}

/// Returns why a connection ended.
pub fn of_io(error: &std::io::Error) -> String {
    of_tls(error).unwrap_or_else(|| error.to_string())
}

/// Returns the message for a TLS error, with its remedy; `None` for any other error.
fn of_tls(error: &std::io::Error) -> Option<String> {
    let is_tls = error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
    if !is_tls && error.kind() != std::io::ErrorKind::InvalidData {
        return None;
    }
    // The text of an expired certificate has the current time; without it, the log has equal errors once.
    let text = error.to_string();
    let text = text.split(": verification time").next().unwrap_or(&text);
    Some(format!("TLS failed; check [sink.tls]: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_fault_of_the_message_rejects_it() {
        for reason in 0..0x80 {
            assert_eq!(of_acknowledgement(reason, "t"), None);
        }
        for reason in 0x80..=0xFF {
            let failure = of_acknowledgement(reason, "t/1").expect("a failure");
            let is_message = [0x80, 0x83, 0x90, 0x95, 0x99].contains(&reason);
            assert_eq!(matches!(failure, Failure::Message(_)), is_message, "{reason:#x}");
            let (Failure::Record(text) | Failure::Message(text) | Failure::Broker(text)) = failure;
            assert!(text.contains("t/1"), "{text}");
        }
    }

    #[test]
    fn a_broker_that_stops_or_lacks_room_is_no_fault_of_the_message() {
        for reason in 0..=0xFF {
            let (_, blame) = of_disconnect(reason, "id");
            let expected = [0x81, 0x82, 0x90, 0x95, 0x99].contains(&reason);
            assert_eq!(blame == Blame::Message, expected, "{reason:#x}");
        }
        assert!(of_disconnect(0x8E, "plant").0.contains("plant"));
    }
}
