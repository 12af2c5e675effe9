//! The errors of the producer and of topics, in words for operators.

use crate::failure::Failure;
use dt_sink::{OpenError, SinkError};

/// Why records or dead letters cannot be written to Kafka now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KafkaSinkError {
    /// librdkafka rejects the configuration.
    #[error("{0}")]
    Configuration(String),
    /// No broker answers, or the connection fails.
    #[error("{0}")]
    Connection(String),
    /// The topic does not exist, and `create_topic` is not set.
    #[error("topic {0} does not exist; create it, or set `create_topic`")]
    MissingTopic(String),
    /// The topic does not exist, and the attempt to create it failed.
    #[error("topic {topic} does not exist, and cannot be created: {reason}")]
    TopicNotCreated {
        /// The name of the topic.
        topic: String,
        /// Why the topic was not created.
        reason: String,
    },
    /// The cluster denies the sink the use of the topic.
    #[error("{0}")]
    UnusableTopic(String),
    /// The producer's queue is full.
    #[error("the producer's queue is full")]
    QueueFull,
    /// The dead letter was not acknowledged before the timeout.
    #[error("not acknowledged in time")]
    NotAcknowledged,
    /// The dead letter was rejected, or the producer stopped.
    #[error("{0}")]
    NotDelivered(String),
}

impl From<Failure> for KafkaSinkError {
    fn from(failure: Failure) -> Self {
        Self::NotDelivered(match failure {
            Failure::Purged => "the producer was purged".to_owned(),
            Failure::TimedOut(text)
            | Failure::TooLarge(text)
            | Failure::Record(text)
            | Failure::Producer(text)
            | Failure::Destination(text) => text,
        })
    }
}

impl From<KafkaSinkError> for SinkError {
    fn from(error: KafkaSinkError) -> Self {
        error.to_string().into()
    }
}

impl From<KafkaSinkError> for OpenError {
    fn from(error: KafkaSinkError) -> Self {
        Self::Unusable(error.to_string())
    }
}
