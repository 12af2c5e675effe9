//! The configuration of a receiver with a sink `postgres`.

use crate::common::Receiver;
use crate::setup::{SINK_SECRET, Setup};

impl Setup {
    /// `top` stands before the sections; `sink` is the rest of the sink's.
    pub(crate) fn new(top: &str, url: &str, sink: &str) -> Self {
        let head = format!("[[sink]]\nname = 'pg'\ntype = 'postgres'\nurl = {{ env = '{SINK_SECRET}' }}");
        Self::with_sink_secret(top, &format!("{head}\n{sink}\n"), url)
    }
}

impl Receiver {
    /// How many events the sinks found to be there already.
    pub(crate) fn duplicates(&self) -> u64 {
        self.count("dt_receiver_postgres_duplicates_total", "")
    }
}
