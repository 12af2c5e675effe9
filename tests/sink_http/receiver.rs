//! The configuration of a receiver with a sink `http`.

use std::fs;

use crate::common::SECRET;
use crate::setup::Setup;

impl Setup {
    /// `url` is that of the target; `sink` are the other keys of the sink.
    pub(crate) fn new(url: &str, sink: &str) -> Self {
        Self::forwarding(&format!("[[sink]]\nname = 'http'\ntype = 'http'\nurl = '{url}'\n{sink}\n"))
    }

    /// `sinks` are the sections of all sinks. The secrets are in files: DT's, and one that forwarded events are signed with.
    pub(crate) fn forwarding(sinks: &str) -> Self {
        let setup = Self::of_text(&format!(
            "data = 'FOLDER/data'\n\
             [[connector]]\nname = 'default'\nsecrets = [{{ label = 'dt', file = 'FOLDER/dt' }}, {{ label = 'ours', file = 'FOLDER/ours' }}]\n{sinks}\n"
        ));
        fs::write(setup.folder().join("dt"), SECRET).expect("written");
        fs::write(setup.folder().join("ours"), "a-secret-of-our-own").expect("written");
        setup
    }
}
