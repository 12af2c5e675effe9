//! The configuration of a receiver with a sink `kafka`.

use crate::common::Receiver;
use crate::setup::Setup;

fn section(brokers: &str, sink: &str) -> String {
    format!("[[sink]]\nname = 'kafka'\ntype = 'kafka'\nbrokers = '{brokers}'\n{sink}\n")
}

impl Setup {
    /// `top` stands before the sections; `sink` is the rest of the sink's.
    pub(crate) fn new(top: &str, brokers: &str, sink: &str) -> Self {
        Self::with_sinks(top, &section(brokers, sink))
    }
}

#[cfg(feature = "kafka-tls")]
impl Setup {
    /// The same as a user with a password.
    pub(crate) fn with_password(
        top: &str,
        brokers: &str,
        sink: &str,
        [username, password]: [&str; 2],
    ) -> Self {
        let variable = crate::setup::SINK_SECRET;
        let sasl = format!("[sink.sasl]\nusername = '{username}'\npassword = {{ env = '{variable}' }}");
        Self::with_sink_secret(top, &section(brokers, &format!("{sink}\n{sasl}")), password)
    }
}

impl Receiver {
    /// How often the producer was made anew.
    pub(crate) fn renewals(&self) -> u64 {
        self.count("dt_receiver_kafka_producers_renewed_total", "sink=\"kafka\"")
    }
}
