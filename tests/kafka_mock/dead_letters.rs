//! Dead letters in a topic.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dt_receiver::record::{DeadLetter, Reason};
use dt_receiver::sink::DeadLetterSink;
use dt_sink_kafka::KafkaDeadLetters;
use rdkafka::types::RDKafkaApiKey;

use crate::cluster::{Place, TOPIC, record};
use crate::errors::{CLUSTER_DENIED, DENIED};

#[test]
fn a_dead_letter_is_in_the_topic_once_it_is_buried() {
    let place = Place::new(1, 1);
    let letters =
        KafkaDeadLetters::new(&place.config(), TOPIC.to_owned(), Duration::from_secs(5), place.reporter())
            .expect("made");
    let letter = DeadLetter::of_record(&record(7), Arc::from("archive"), "never".to_owned(), 3);
    letters.store(&letter).expect("stored");
    assert_eq!(letters.last_error(), None);
    let message = &place.messages()[0][0];
    assert_eq!((&*message.value, message.key.as_deref()), ("7", Some("id7")));
    for (name, value) in
        [("dt-reason", "rejected"), ("dt-sink", "archive"), ("dt-error", "never"), ("dt-attempts", "3")]
    {
        assert_eq!(message.headers.get(name).map(String::as_str), Some(value), "{name}");
    }
    place.cluster.request_errors(RDKafkaApiKey::Produce, &[DENIED; 20]);
    let letter = DeadLetter { reason: Reason::Unreadable, ..letter };
    let error = letters.store(&letter).expect_err("refused").to_string();
    assert!(error.contains("kafka:dt.events") && error.contains("ACL"), "{error}");
    assert_eq!(letters.last_error(), Some(error));
    place.cluster.clear_request_errors(RDKafkaApiKey::Produce);
    letters.store(&letter).expect("stored, now that it may be");
    assert_eq!(letters.last_error(), None);
    // A producer that ended does not end the letters.
    let letters =
        KafkaDeadLetters::new(&place.config(), TOPIC.to_owned(), Duration::from_secs(2), place.reporter());
    let letters = letters.expect("made");
    place.cluster.request_errors(RDKafkaApiKey::InitProducerId, &[CLUSTER_DENIED; 50]);
    letters.store(&letter).expect_err("it may not write");
    place.cluster.clear_request_errors(RDKafkaApiKey::InitProducerId);
    let begun = Instant::now();
    while letters.store(&letter).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", letters.last_error());
    }
}
