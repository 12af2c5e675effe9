//! Whether a topic exists, and making it if that is asked for: before the first record, since a producer would find out
//! only after a while, and only in a report that fails.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::Producer as _;

use crate::producer::{Producer, readable};
use crate::settings::{CreateTopic, KafkaConfig};

/// How long the cluster may take to answer.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// How long it may take to make a topic.
const CREATE_WAIT: Duration = Duration::from_secs(10);
/// How many topics are known at most; a template may make many.
const MAX_KNOWN: usize = 10_000;

/// The topics that are there.
#[derive(Debug)]
pub(super) struct Topics {
    config: Arc<KafkaConfig>,
    known: BTreeSet<String>,
}

impl Topics {
    pub(super) const fn new(config: Arc<KafkaConfig>) -> Self {
        Self { config, known: BTreeSet::new() }
    }

    /// Makes sure that a topic is there. Blocks while the cluster is asked, for topics that are not known to be.
    pub(super) fn ensure(&mut self, topic: &str, producer: &Producer) -> Result<(), String> {
        if self.known.contains(topic) {
            return Ok(());
        }
        match self.look(topic, producer)? {
            true => {}
            false => match self.config.create_topic {
                None => {
                    return Err(format!("topic {topic} does not exist; create it, or set `create_topic`"));
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

    /// The next record of each topic asks again.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }

    /// Whether the cluster answers and, where all records go to one topic, that is there.
    pub(super) fn check(&mut self, producer: &Producer) -> Result<(), String> {
        match self.config.topic.fixed() {
            Some(topic) => {
                self.known.remove(&topic);
                self.ensure(&topic, producer)
            }
            None => match producer.inner().client().fetch_cluster_id(ANSWER_WAIT) {
                Some(_) => Ok(()),
                None => Err(producer.trouble().unwrap_or_else(|| "no broker answers".to_owned())),
            },
        }
    }

    /// Whether a topic is there.
    fn look(&self, topic: &str, producer: &Producer) -> Result<bool, String> {
        let metadata =
            producer.inner().client().fetch_metadata(Some(topic), ANSWER_WAIT).map_err(|error| {
                let brokers = &self.config.brokers;
                producer
                    .trouble()
                    .unwrap_or_else(|| format!("no broker of {brokers} answers: {}", readable(&error)))
            })?;
        producer.answered();
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
            return Ok(false);
        };
        match found.error().map(RDKafkaErrorCode::from) {
            None => Ok(!found.partitions().is_empty()),
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Ok(false),
            // It is there, or about to be: librdkafka waits for its leaders.
            Some(RDKafkaErrorCode::LeaderNotAvailable) => Ok(true),
            Some(code) => match crate::failure::of(code, topic) {
                crate::failure::Failure::Place(text) => Err(text),
                _ => Err(format!("topic {topic}: {code}")),
            },
        }
    }
}

fn create(config: &KafkaConfig, topic: &str, how: CreateTopic) -> Result<(), String> {
    let failed = |text: String| format!("topic {topic} does not exist, and cannot be created: {text}");
    let mut settings = rdkafka::ClientConfig::new();
    for (key, value) in config.settings() {
        settings.set(key, value);
    }
    let admin: AdminClient<DefaultClientContext> =
        AdminClient::from_config(&settings).map_err(|error| failed(readable(&error)))?;
    // -1: as the brokers have it by default (KIP-464).
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
    tracing::info!(topic, "a topic of Kafka was created");
    Ok(())
}
