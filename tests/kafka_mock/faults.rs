//! Faults at random.

use dt_receiver::record::Format;
use dt_receiver::sink::Sink;
use dt_sink_kafka::DeliveryTimeout;
use rdkafka::types::RDKafkaApiKey;

use crate::cluster::{Place, deliver_all, must_hold, records};
use crate::errors::{DENIED, INVALID, NOT_LEADER, OUT_OF_ORDER, TIMED_OUT, TOO_LARGE};

/// A small generator of random numbers (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 11) % limit).expect("small")
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

/// Faults at random, each while records are on their way. Only a refusal of a record alone may cost it, so that those are
/// told apart by how often they come.
#[test]
fn whatever_fails_nothing_is_lost_and_devices_keep_their_order() {
    let seed = setting("DT_RECEIVER_TEST_SEED", u64::from(std::process::id()) << 20 | 1);
    println!("DT_RECEIVER_TEST_SEED={seed}");
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let faults = setting("DT_RECEIVER_TEST_KAFKA_FAULTS", 30);
    let place = Place::new(3, 4);
    let mut sink = place.sink(Format::Body, DeliveryTimeout::Unlimited);
    let mut next = 0;
    for _fault in 0..faults {
        let some = 1 + random.below(300);
        let batch = records(next..next + some);
        next += some;
        let down = 1 + i32::try_from(random.below(3)).expect("small");
        match random.below(6) {
            0 => place.cluster.request_errors(RDKafkaApiKey::Produce, &[OUT_OF_ORDER]),
            1 => place.cluster.request_errors(RDKafkaApiKey::Produce, &[TOO_LARGE]),
            2 => place.cluster.request_errors(RDKafkaApiKey::Produce, &[DENIED]),
            3 => place.cluster.request_errors(RDKafkaApiKey::Produce, &[NOT_LEADER, TIMED_OUT]),
            4 => place.cluster.request_errors(RDKafkaApiKey::Produce, &[INVALID]),
            _ => place.cluster.broker_down(down).expect("down"),
        }
        // Some of it is on its way when the brokers come back.
        sink.deliver(&batch);
        (1..=3).for_each(|broker| place.cluster.broker_up(broker).expect("up"));
        let rejected = deliver_all(&mut sink, &batch);
        assert_eq!(rejected, [], "each was refused in company only");
        place.cluster.clear_request_errors(RDKafkaApiKey::Produce);
    }
    must_hold(&place.numbers(), 0..next);
    println!("{faults} faults, {} producers made anew, {next} records", place.renewed());
}
