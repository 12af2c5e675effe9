//! The configuration of a receiver with a sink `mqtt`.

use crate::setup::{SINK_SECRET, Setup, with_connector};

fn section(broker: &str, sink: &str) -> String {
    format!("[[sink]]\nname = 'mqtt'\ntype = 'mqtt'\nbroker = '{broker}'\n{sink}\n")
}

impl Setup {
    /// `sink` is the rest of the sink's section.
    pub(crate) fn new(broker: &str, sink: &str) -> Self {
        Self::with_sinks("", &section(broker, sink))
    }

    /// The same in mode `direct`.
    pub(crate) fn direct(broker: &str, sink: &str) -> Self {
        Self::with_sinks("mode = 'direct'", &section(broker, sink))
    }

    /// Writes another section of the sink.
    pub(crate) fn configure(&self, broker: &str, sink: &str) {
        self.write_config(&with_connector("", &section(broker, sink)));
    }

    /// The same as [`new`](Self::new) as a user with a password.
    pub(crate) fn with_password(broker: &str, sink: &str, [username, password]: [&str; 2]) -> Self {
        let login = format!("username = '{username}'\npassword = {{ env = '{SINK_SECRET}' }}\n{sink}");
        Self::with_sink_secret("", &section(broker, &login), password)
    }
}
