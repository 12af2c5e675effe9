//! `check --connect` at a real cluster: it looks up the topic, and creates none.

use crate::cluster::one_broker;
use crate::common;
use crate::setup::{SINK_SECRET, Setup};

/// Runs it with this password for Kafka. It says all of this, and whether the sink can deliver.
pub(crate) fn assert_checked(setup: &Setup, password: &str, can_deliver: bool, parts: &[&str]) {
    let mut command = common::program();
    command.args(["check", "--connect", "--config"]).arg(setup.config());
    command.env(SINK_SECRET, password);
    let ended = common::run_command(command, b"");
    let said = format!("{}{}", ended.stdout, ended.stderr);
    assert_eq!(ended.code(), i32::from(!can_deliver), "{said}");
    assert!(parts.iter().all(|part| said.contains(part)), "not {parts:?}: {said}");
    assert!(!said.contains("a-wrong-password"), "a password was printed");
    println!("{said}");
}

#[test]
fn a_topic_is_looked_up_and_not_created() {
    let Some(cluster) = one_broker("a check that connects") else { return };
    cluster.create_topic("looked.up", 2);
    let checked = |sink: &str, can_deliver, parts: &[&str]| {
        assert_checked(&Setup::new("", cluster.bootstrap(), sink), "", can_deliver, parts);
    };
    checked("topic = 'looked.up'", true, &["sink kafka (kafka): ok: ", "has the topic looked.up"]);
    checked("topic = '{eventType}'", true, &["sink kafka (kafka): ok: ", "placeholders"]);
    let missing = ["sink kafka (kafka): topic never.made does not exist; create it"];
    checked("topic = 'never.made'", false, &missing);
    checked("topic = 'never.made'\ncreate_topic = true", true, &["never.made", "will be created"]);
    // Neither of the two has created it.
    checked("topic = 'never.made'", false, &missing);
    assert_eq!(cluster.count("looked.up"), 0);
}
