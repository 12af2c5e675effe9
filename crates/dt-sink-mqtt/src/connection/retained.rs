//! Reads retained messages, which the broker sends to each new subscription.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Connection, Limits};
use crate::failure::MqttSinkError;
use crate::packet::Incoming;

/// The largest number of topics in a SUBSCRIBE. AWS IoT Core allows 8 (quotas of its message broker).
const MAX_FILTERS: usize = 8;
/// The largest number of topics that are subscribed to at the same time. AWS IoT Core allows 50 for each connection.
const MAX_SUBSCRIBED: usize = 48;
/// The largest size of the topics in a SUBSCRIBE in bytes, unless it has one topic.
const MAX_SUBSCRIBE: usize = 32 * 1024;
/// The size of a SUBSCRIBE without its topics in bytes, rounded up.
const PACKET_HEAD: usize = 64;
/// How long to wait for each retained message after the broker has answered a later ping: it may send them from another thread.
const RETAINED_WAIT: Duration = Duration::from_millis(100);

impl Connection {
    /// Returns the retained messages of these topics, by topic. A topic without one is left out.
    ///
    /// # Errors
    ///
    /// Returns [`MqttSinkError`] if the connection ends, or the user has no permission to read a topic.
    pub async fn retained(
        &mut self,
        topics: &[String],
        limits: Limits,
    ) -> Result<HashMap<String, Bytes>, MqttSinkError> {
        let mut found = HashMap::new();
        for topics in topics.chunks(MAX_SUBSCRIBED) {
            self.read_retained(topics, limits, &mut found).await?;
        }
        Ok(found)
    }

    async fn read_retained(
        &mut self,
        topics: &[String],
        limits: Limits,
        found: &mut HashMap<String, Bytes>,
    ) -> Result<(), MqttSinkError> {
        let packet = self.limits.max_packet.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
        let groups = groups(topics, MAX_SUBSCRIBE.min(packet.saturating_sub(PACKET_HEAD)));
        let mut open = HashMap::new();
        for group in &groups {
            let id = self.new_id(|id| open.contains_key(&id));
            self.encode(|version, out| version.write_subscribe(id, group, out))?;
            open.insert(id, *group);
        }
        self.version.write_ping(&mut self.output);
        let started = Instant::now();
        let (mut progress, mut is_answered, mut missing) = (started, false, topics.len());
        while missing > 0 || !open.is_empty() || !is_answered {
            let is_last = open.is_empty() && is_answered;
            if is_last && limits.left(started).is_zero() {
                break;
            }
            let timeout = if is_last { RETAINED_WAIT } else { limits.timeout };
            match self.next("SUBACK", Limits { timeout, ..limits }, progress).await {
                Err(MqttSinkError::Silent { .. }) if is_last => break,
                Err(error) => return Err(error),
                Ok(Incoming::Published { topic, payload }) => {
                    // Others than retained messages may follow for as long as the subscription lasts.
                    if topics.contains(&topic) && found.insert(topic, payload).is_none() {
                        (progress, missing) = (Instant::now(), missing.saturating_sub(1));
                    }
                }
                Ok(Incoming::Subscribed { id, is_accepted }) => {
                    let Some(group) = open.remove(&id) else { continue };
                    if let Some((topic, _)) = group.iter().zip(is_accepted).find(|(_, accepted)| !accepted) {
                        return Err(MqttSinkError::NotTaken(format!(
                            "topic {topic}: not authorized to read; allow this user to read the topics of `state_topic`, so that an \
                             older state does not replace a newer one"
                        )));
                    }
                    progress = Instant::now();
                }
                Ok(Incoming::Pong) => (progress, is_answered) = (Instant::now(), true),
                Ok(_) => {}
            }
        }
        for group in groups {
            let id = self.new_id(|_| false);
            self.encode(|version, out| version.write_unsubscribe(id, group, out))?;
        }
        Ok(())
    }
}

/// Splits topics into groups of at most [`MAX_FILTERS`] topics and `most` bytes, or of a single topic.
fn groups(topics: &[String], most: usize) -> Vec<&[String]> {
    let mut groups = Vec::new();
    let mut left = topics;
    while !left.is_empty() {
        let mut bytes = 0_usize;
        let fits = |topic: &&String| {
            // Beside its text, a topic has its length and the options of the subscription.
            bytes = bytes.saturating_add(topic.len()).saturating_add(3);
            bytes <= most
        };
        let count = left.iter().take(MAX_FILTERS).take_while(fits).count().max(1);
        let (group, later) = left.split_at_checked(count).unwrap_or((left, &[]));
        groups.push(group);
        left = later;
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use crate::connection::Target;
    use crate::packet::{Connect, MqttVersion};

    #[test]
    fn no_packet_has_more_than_eight_topics_or_too_many_bytes() {
        let topics: Vec<String> = (0..20).map(|number| format!("t{number:02}")).collect();
        let sizes = |most| groups(&topics, most).iter().map(|group| group.len()).collect::<Vec<_>>();
        assert_eq!(sizes(1000), [8, 8, 4]);
        assert_eq!(sizes(30), [5, 5, 5, 5]);
        assert_eq!(sizes(1), [1; 20]);
        assert_eq!(groups(&topics, 30).concat(), topics);
    }

    /// A broker that answers each packet, and then publishes to the topic that was subscribed to without an end.
    async fn babbler(listener: TcpListener) -> std::io::Result<()> {
        let (mut client, _) = listener.accept().await?;
        // CONNACK; SUBACK of packet 1; PINGRESP.
        client.write_all(&[0x20, 3, 0, 0, 0, 0x90, 5, 0, 1, 0, 0, 0, 0xD0, 0]).await?;
        loop {
            // PUBLISH of an empty payload to the topic `t`.
            client.write_all(&[0x30, 4, 0, 1, b't', 0]).await?;
            let mut buffer = [0; 1024];
            let _read = tokio::time::timeout(Duration::from_millis(20), client.read(&mut buffer)).await;
        }
    }

    #[tokio::test]
    async fn a_topic_with_messages_without_an_end_does_not_hold_the_sink_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let broker = listener.local_addr().expect("an address").to_string().parse().expect("a broker");
        let broker_task = tokio::spawn(babbler(listener));
        let connect = Connect { client_id: "c", login: None, status_topic: Some("s"), keep_alive: 60 };
        let target = Target { broker: &broker, version: MqttVersion::V5, tls: None, connect };
        let limits = Limits { timeout: Duration::from_secs(60), until: None };
        let mut connection = Connection::open(&target, limits).await.expect("accepted");
        let topics = ["t".to_owned(), "u".to_owned()];
        let read = tokio::time::timeout(Duration::from_secs(30), connection.retained(&topics, limits));
        let found = read.await.expect("an end").expect("an answer");
        assert_eq!(found.into_keys().collect::<Vec<_>>(), ["t"]);
        broker_task.abort();
    }
}
