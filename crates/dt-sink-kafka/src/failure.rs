//! What a failure means: who is at fault, and so what becomes of the record.

use rdkafka::error::RDKafkaErrorCode as Code;

/// Why a record has no delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// It was taken back, or refused for the sake of another one.
    Purged,
    /// It took longer than it may in mode `direct`.
    TimedOut(String),
    /// This record may be too large, or all of its batch together.
    TooLarge(String),
    /// This record may be at fault, or another one of its batch.
    Record(String),
    /// The producer is of no more use.
    Producer(String),
    /// The record is not at fault, and may be delivered later: a topic, a permission, a password, the cluster.
    Place(String),
}

/// Decides by the code of a delivery report, or of a refusal to send. A code that is not known here never costs a record.
pub(super) fn of(code: Code, topic: &str) -> Failure {
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
        Code::TopicAuthorizationFailed => Failure::Place(format!(
            "{text}; allow this user to write to the topic (ACL: WRITE and DESCRIBE on topic {topic})"
        )),
        Code::ClusterAuthorizationFailed => Failure::Place(format!(
            "{text}; allow this user to write idempotently (ACL: IDEMPOTENT_WRITE on the cluster)"
        )),
        Code::SaslAuthenticationFailed | Code::Authentication => {
            Failure::Place(format!("{text}; check [sink.sasl]: mechanism, username, password"))
        }
        Code::InvalidTimestamp => Failure::Place(format!(
            "{text}; is this machine's clock right? Kafka refuses times that lie in the future"
        )),
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => {
            Failure::Place(format!("{text}; create the topic, or set `create_topic`"))
        }
        _ => Failure::Place(text),
    }
}

/// Decides by the error that ended a producer.
pub(super) fn of_producer(code: Code, text: &str) -> Failure {
    match code {
        Code::ClusterAuthorizationFailed | Code::TransactionalIdAuthorizationFailed => {
            Failure::Place(format!(
                "{text}; allow this user to write (ACL: WRITE on a topic, before Kafka 2.8 IDEMPOTENT_WRITE on the cluster)"
            ))
        }
        Code::SaslAuthenticationFailed | Code::Authentication => {
            Failure::Place(format!("{text}; check [sink.sasl]: mechanism, username, password"))
        }
        _ => Failure::Producer(format!("{code}: {text}")),
    }
}

/// What librdkafka says about its connections, with what can be done about it. The same trouble always reads the same.
pub(super) fn of_connection(code: Option<Code>, reason: &str) -> String {
    // Times and counts change with every attempt.
    let reason = reason.split(" (after ").next().unwrap_or(reason);
    let up_to = |end: &str| reason.split(end).next().unwrap_or(reason);
    match code {
        Some(Code::Authentication | Code::SaslAuthenticationFailed) => {
            format!("authentication failed; check [sink.sasl]: {reason}")
        }
        Some(Code::Resolve) => format!("a broker's name cannot be resolved; check `brokers`: {reason}"),
        // An answer that is not Kafka's reads as one that is far too large.
        _ if reason.contains("Invalid response size") => format!(
            "what answers there is no Kafka broker, or one that wants TLS; check `brokers`, [sink.tls]: {}",
            up_to(": increase receive.message.max.bytes")
        ),
        // OpenSSL knows which of these it is, and librdkafka does not ask.
        _ if reason.contains("certificate verify failed") => format!(
            "TLS failed; the broker's certificate has expired, or is for another name, or its authority is not among those \
             of `ca` in [sink.tls]: {}",
            up_to(": broker certificate could not be verified")
        ),
        // A listener for TLS hangs up without a word, and librdkafka does not tell; its own text counts brokers wrongly.
        Some(Code::AllBrokersDown) => {
            "all brokers are down; check `brokers`, and whether they want TLS ([sink.tls]) or a password ([sink.sasl])"
                .to_owned()
        }
        Some(Code::SSL) => format!("TLS failed; check [sink.tls]: {reason}"),
        _ if reason.contains("SSL") => format!("TLS failed; check [sink.tls]: {reason}"),
        _ => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_record_that_is_at_fault_can_be_rejected() {
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
    fn what_is_wrong_with_a_connection_names_the_option_and_stays_the_same() {
        for (code, reason, said) in [
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
            assert!(text.ends_with(said), "{text}");
        }
    }

    #[test]
    fn what_an_operator_can_mend_names_the_cure() {
        for (code, cure) in [
            (Code::TopicAuthorizationFailed, "ACL: WRITE"),
            (Code::ClusterAuthorizationFailed, "IDEMPOTENT_WRITE"),
            (Code::SaslAuthenticationFailed, "[sink.sasl]"),
            (Code::UnknownTopicOrPartition, "`create_topic`"),
            (Code::InvalidTimestamp, "clock"),
        ] {
            let Failure::Place(text) = of(code, "dt.events") else { panic!("{code}") };
            assert!(text.contains(cure) && text.contains("dt.events"), "{text}");
        }
    }
}
