//! A configuration that changes while a sink has a backlog: what was accepted for the sink is delivered to it all the same.

use std::fs;

use crate::sender::Sender;
use crate::server::{Place, Server};

const EVENTS: u64 = 20;

#[test]
fn a_sink_that_a_connector_no_longer_names_still_gets_what_was_accepted_for_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place::with_backlog(folder.path(), EVENTS);
    // From now on the connector's events go to another sink.
    let other = folder.path().join("other.ndjson");
    let text =
        fs::read_to_string(&place.config).expect("read").replace("[[sink]]", "sinks = ['other']\n[[sink]]");
    let text = format!("{text}\n[[sink]]\nname = 'other'\ntype = 'file'\npath = '{}'\n", other.display());
    fs::write(&place.config, text).expect("written");
    let server = Server::bare(&place);
    let mut sender = Sender::connect(server.listen).expect("connected");
    for number in 0..EVENTS {
        assert_eq!(sender.send(2, number).expect("an answer").status, 200);
    }
    server.stop();
    let delivered: Vec<_> = place.events_in_file().into_keys().collect();
    assert_eq!(delivered, (0..EVENTS).map(|number| (1, number)).collect::<Vec<_>>());
    let lines = fs::read_to_string(&other).expect("read").lines().count() as u64;
    assert_eq!(lines, EVENTS, "the new sink gets what came since");
}
