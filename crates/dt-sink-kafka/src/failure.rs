//! Classifies the errors of librdkafka. The class determines whether a record is retried or rejected.

use rdkafka::error::RDKafkaErrorCode as Code;

/// Why a record was not delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The producer was purged, or another record of the batch was rejected. The record is sent again.
    Purged,
    /// The record was not acknowledged before its timeout (mode `direct`).
    TimedOut(String),
    /// The record may be too large, or its whole batch.
    TooLarge(String),
    /// The record may be invalid, or another record of its batch.
    Record(String),
    /// The producer stopped with a fatal error and must be replaced.
    Producer(String),
    /// The record is valid and can be delivered later: a topic is missing, a permission is missing, a password is wrong, or the
    /// cluster is down.
    Destination(String),
}

/// Classifies the error code of a delivery report or of a failed send. An unknown code never rejects a record.
pub fn of(code: Code, topic: &str) -> Failure {
    let text = format!("topic {topic}: {code}");
    match code {
        Code::PurgeQueue | Code::PurgeInflight | Code::InvalidDifferentRecord => Failure::Purged,
        Code::MessageTimedOut | Code::RequestTimedOut | Code::OperationTimedOut => Failure::TimedOut(text),
        Code::MessageSizeTooLarge | Code::InvalidMessageSize | Code::MessageBatchTooLarge => {
            Failure::TooLarge(text)
        }
        Code::InvalidRecord | Code::InvalidMessage | Code::BadMessage => Failure::Record(text),
        Code::Fatal
        | Code::GaplessGuarantee
        | Code::OutOfOrderSequenceNumber
        | Code::DuplicateSequenceNumber
        | Code::UnknownProducerId
        | Code::InvalidProducerEpoch
        | Code::InvalidProducerIdMapping
        | Code::Inconsistent
        | Code::Fenced
        | Code::ProducerFenced => Failure::Producer(text),
        Code::TopicAuthorizationFailed => Failure::Destination(format!(
            "{text}; allow this user to write to the topic (ACL: WRITE and DESCRIBE on topic {topic})"
        )),
        Code::ClusterAuthorizationFailed => Failure::Destination(format!(
            "{text}; allow this user to write idempotently (ACL: IDEMPOTENT_WRITE on the cluster)"
        )),
        Code::SaslAuthenticationFailed | Code::Authentication => {
            Failure::Destination(format!("{text}; check [sink.sasl]: mechanism, username, password"))
        }
        Code::InvalidTimestamp => Failure::Destination(format!(
            "{text}; check this machine's clock; Kafka rejects times in the future"
        )),
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => {
            Failure::Destination(format!("{text}; create the topic, or set `create_topic`"))
        }
        _ => Failure::Destination(text),
    }
}

/// Classifies the fatal error of a producer.
pub fn of_producer(code: Code, text: &str) -> Failure {
    match code {
        Code::ClusterAuthorizationFailed | Code::TransactionalIdAuthorizationFailed => {
            Failure::Destination(format!(
                "{text}; allow this user to write (ACL: WRITE on a topic, before Kafka 2.8 IDEMPOTENT_WRITE on the cluster)"
            ))
        }
        Code::SaslAuthenticationFailed | Code::Authentication => {
            Failure::Destination(format!("{text}; check [sink.sasl]: mechanism, username, password"))
        }
        _ => Failure::Producer(format!("{code}: {text}")),
    }
}

/// Returns the message for a connection error, with its remedy. Repeated errors have the same message, so that it is logged once.
pub fn of_connection(code: Option<Code>, reason: &str) -> String {
    // The part in brackets holds times and counts, which change with every attempt.
    let reason = reason.split(" (after ").next().unwrap_or(reason);
    let up_to = |end: &str| reason.split(end).next().unwrap_or(reason);
    match code {
        Some(Code::Authentication | Code::SaslAuthenticationFailed) => {
            format!("authentication failed; check [sink.sasl]: {reason}")
        }
        Some(Code::Resolve) => format!("a broker's name cannot be resolved; check `brokers`: {reason}"),
        // The first bytes of another protocol, read as a length, are far too large.
        _ if reason.contains("Invalid response size") => format!(
            "the peer is not a Kafka broker, or requires TLS; check `brokers`, [sink.tls]: {}",
            up_to(": increase receive.message.max.bytes")
        ),
        // librdkafka does not report OpenSSL's reason.
        _ if reason.contains("certificate verify failed") => format!(
            "TLS failed; the broker's certificate expired, is for another name, or is not signed by an authority in `ca` \
             of [sink.tls]: {}",
            up_to(": broker certificate could not be verified")
        ),
        // A TLS listener closes a plain-text connection without an error, and librdkafka's own text miscounts the brokers.
        Some(Code::AllBrokersDown) => {
            "all brokers are down; check `brokers`, and whether they require TLS ([sink.tls]) or a password ([sink.sasl])"
                .to_owned()
        }
        Some(Code::SSL) => format!("TLS failed; check [sink.tls]: {reason}"),
        _ if reason.contains("SSL") => format!("TLS failed; check [sink.tls]: {reason}"),
        _ if reason.contains("Connect to ") => {
            format!("cannot connect; check `brokers`, and that they run: {reason}")
        }
        _ => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_invalid_record_is_rejected() {
        let record = |code| matches!(of(code, "t"), Failure::Record(_) | Failure::TooLarge(_));
        for code in [Code::MessageSizeTooLarge, Code::InvalidRecord, Code::MessageBatchTooLarge] {
            assert!(record(code), "{code}");
        }
        for code in [
            Code::TopicAuthorizationFailed,
            Code::ClusterAuthorizationFailed,
            Code::SaslAuthenticationFailed,
            Code::UnknownTopicOrPartition,
            Code::NotEnoughReplicas,
            Code::PolicyViolation,
            Code::InvalidTimestamp,
            Code::UnsupportedForMessageFormat,
            Code::InvalidRequiredAcks,
            Code::BrokerTransportFailure,
            Code::KafkaStorageError,
            Code::Unknown,
            Code::Fatal,
            Code::PurgeQueue,
            Code::InvalidDifferentRecord,
            Code::MessageTimedOut,
        ] {
            assert!(!record(code), "{code}");
        }
    }

    #[test]
    fn connection_errors_name_the_option_and_have_a_stable_text() {
        for (code, reason, end) in [
            (Code::Authentication, "a: denied (after 5ms in state AUTH_REQ)", "[sink.sasl]: a: denied"),
            (Code::Resolve, "a: unknown", "`brokers`: a: unknown"),
            (
                Code::BrokerTransportFailure,
                "a: Invalid response size 9 (0..1): increase receive.message.max.bytes",
                "9 (0..1)",
            ),
            (Code::BrokerTransportFailure, "a: SSL closed", "[sink.tls]: a: SSL closed"),
            (
                Code::SSL,
                "a: certificate verify failed: broker certificate could not be verified, x",
                "verify failed",
            ),
            (Code::BrokerTransportFailure, "a: refused (after 0ms in state CONNECT)", "a: refused"),
        ] {
            let text = of_connection(Some(code), reason);
            assert!(text.ends_with(end), "{text}");
        }
    }

    #[test]
    fn errors_name_the_remedy() {
        for (code, remedy) in [
            (Code::TopicAuthorizationFailed, "ACL: WRITE"),
            (Code::ClusterAuthorizationFailed, "IDEMPOTENT_WRITE"),
            (Code::SaslAuthenticationFailed, "[sink.sasl]"),
            (Code::UnknownTopicOrPartition, "`create_topic`"),
            (Code::InvalidTimestamp, "clock"),
        ] {
            let Failure::Destination(text) = of(code, "dt.events") else { panic!("{code}") };
            assert!(text.contains(remedy) && text.contains("dt.events"), "{text}");
        }
    }
}
