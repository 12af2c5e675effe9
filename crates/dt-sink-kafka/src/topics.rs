//! Checks that a topic exists before the first record is sent to it, and creates it if `create_topic` is set. A producer
//! alone would report a missing topic late, and only by failed deliveries.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::Producer as _;

use crate::error::KafkaSinkError;
use crate::failure::{self, Failure};
use crate::producer::{Producer, readable};
use crate::settings::{CreateTopic, KafkaConfig};

/// The time limit for the cluster's metadata.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// The time limit for the creation of a topic.
const CREATE_WAIT: Duration = Duration::from_secs(10);
/// The largest number of topic names that are kept; a template may have many.
const MAX_KNOWN: usize = 10_000;

/// The topics that are known to exist.
#[derive(Debug)]
pub struct Topics {
    config: Arc<KafkaConfig>,
    known: BTreeSet<String>,
}

impl Topics {
    /// Creates an empty list of known topics. The existence of each topic is checked before its first record is sent.
    pub const fn new(config: Arc<KafkaConfig>) -> Self {
        Self { config, known: BTreeSet::new() }
    }

    /// Makes sure that a topic exists. Unless the topic is known, blocks up to 2 s to request the metadata, and up to 10 s to
    /// create the topic.
    ///
    /// # Errors
    ///
    /// [`KafkaSinkError`] if no broker answers, or the topic is missing, unusable or cannot be created.
    pub fn ensure(&mut self, topic: &str, producer: &Producer) -> Result<(), KafkaSinkError> {
        if self.known.contains(topic) {
            return Ok(());
        }
        match self.exists(topic, producer)? {
            true => {}
            false => match self.config.create_topic {
                None => {
                    return Err(KafkaSinkError::MissingTopic(topic.to_owned()));
                }
                Some(how) => create(&self.config, topic, how)?,
            },
        }
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        self.known.insert(topic.to_owned());
        Ok(())
    }

    /// Forgets all topics, so that the existence of each is checked again before its next record is sent.
    pub fn forget(&mut self) {
        self.known.clear();
    }

    /// Checks that the cluster answers and, if the configured topic has no placeholders, that the topic exists.
    ///
    /// # Errors
    ///
    /// As [`ensure`](Self::ensure).
    pub fn check(&mut self, producer: &Producer) -> Result<(), KafkaSinkError> {
        match self.config.topic.fixed() {
            Some(topic) => {
                self.known.remove(&topic);
                self.ensure(&topic, producer)
            }
            None => answers(producer),
        }
    }

    /// Checks that the cluster answers within `limit` and, if the configured topic has no placeholders, that the topic exists or
    /// may be created. Creates nothing. Returns the result in words.
    ///
    /// # Errors
    ///
    /// [`KafkaSinkError`] if no broker answers, or the topic is missing or unusable.
    pub fn probe(&self, producer: &Producer, limit: Duration) -> Result<String, KafkaSinkError> {
        let brokers = &self.config.brokers;
        let started = Instant::now();
        loop {
            let topic = self.config.topic.fixed();
            let probed = match &topic {
                Some(topic) => self.exists(topic, producer).map(Some),
                None => answers(producer).map(|()| None),
            };
            return match (probed, topic) {
                // Without a cause, the cluster may only be slow.
                (Err(KafkaSinkError::Connection(_)), _)
                    if producer.last_error().is_none()
                        && started.elapsed().saturating_add(ANSWER_WAIT) < limit =>
                {
                    continue;
                }
                (Err(error), _) => Err(error),
                (Ok(Some(true)), Some(topic)) => Ok(format!(
                    "{brokers} has the topic {topic}; whether this user may write to it is known with the first event"
                )),
                (Ok(Some(false)), Some(topic)) if self.config.create_topic.is_none() => {
                    Err(KafkaSinkError::MissingTopic(topic))
                }
                (Ok(Some(false)), Some(topic)) => {
                    Ok(format!("{brokers} answers; the topic {topic} does not exist, and will be created"))
                }
                (Ok(_), _) => {
                    Ok(format!("{brokers} answers; `topic` has placeholders, so its topics are not known"))
                }
            };
        }
    }

    /// Requests from the cluster whether a topic exists.
    fn exists(&self, topic: &str, producer: &Producer) -> Result<bool, KafkaSinkError> {
        let metadata =
            producer.inner().client().fetch_metadata(Some(topic), ANSWER_WAIT).map_err(|error| {
                let brokers = &self.config.brokers;
                KafkaSinkError::Connection(
                    producer
                        .last_error()
                        .unwrap_or_else(|| format!("no broker of {brokers} answers: {}", readable(&error))),
                )
            })?;
        producer.answered();
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
            return Ok(false);
        };
        match found.error().map(RDKafkaErrorCode::from) {
            None => Ok(!found.partitions().is_empty()),
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Ok(false),
            // The topic was just created; librdkafka waits until it has leaders.
            Some(RDKafkaErrorCode::LeaderNotAvailable) => Ok(true),
            Some(code) => match failure::of(code, topic) {
                Failure::Destination(text) => Err(KafkaSinkError::UnusableTopic(text)),
                _ => Err(KafkaSinkError::UnusableTopic(format!("topic {topic}: {code}"))),
            },
        }
    }
}

/// Checks that the cluster answers.
fn answers(producer: &Producer) -> Result<(), KafkaSinkError> {
    match producer.inner().client().fetch_cluster_id(ANSWER_WAIT) {
        Some(_) => Ok(()),
        None => Err(KafkaSinkError::Connection(
            producer.last_error().unwrap_or_else(|| "no broker answers".to_owned()),
        )),
    }
}

fn create(config: &KafkaConfig, topic: &str, how: CreateTopic) -> Result<(), KafkaSinkError> {
    let failed = |reason| KafkaSinkError::TopicNotCreated { topic: topic.to_owned(), reason };
    let mut settings = rdkafka::ClientConfig::new();
    for (key, value) in config.settings() {
        settings.set(key, value);
    }
    let admin: AdminClient<DefaultClientContext> =
        AdminClient::from_config(&settings).map_err(|error| failed(readable(&error)))?;
    // -1 selects the brokers' default (KIP-464).
    let replication = TopicReplication::Fixed(how.replication.unwrap_or(-1));
    let new = [NewTopic::new(topic, how.partitions.unwrap_or(-1), replication)];
    let options = AdminOptions::new().request_timeout(Some(CREATE_WAIT)).operation_timeout(Some(CREATE_WAIT));
    let runtime =
        tokio::runtime::Builder::new_current_thread().build().map_err(|error| failed(error.to_string()))?;
    let results =
        runtime.block_on(admin.create_topics(&new, &options)).map_err(|error| failed(readable(&error)))?;
    for result in results {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(failed(code.to_string())),
        }
    }
    tracing::info!(topic, "created a Kafka topic");
    Ok(())
}
