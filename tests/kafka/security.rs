//! TLS, passwords and permissions, each right and wrong. What is wrong is named, costs no event, and is over once it is
//! mended.

#[cfg(not(feature = "kafka-tls"))]
#[test]
fn without_tls_in_this_build() {
    use std::io::Write;
    // Not for want of a tool, so it is never a failure.
    let line = "left out in a build without the feature kafka-tls: Kafka with SASL_SSL\n";
    let _said = std::io::stderr().write_all(line.as_bytes());
}

#[cfg(feature = "kafka-tls")]
mod with_tls {
    use std::time::Duration;

    use crate::cluster::{Cluster, three_brokers};
    use crate::common::Receiver;
    use crate::connect::assert_checked;
    use crate::load::{Load, Manner};
    use crate::seen::{Format, Seen};
    use crate::setup::{SINK_SECRET, Setup};

    /// How long until the reason is told.
    const TOLD_WITHIN: Duration = Duration::from_secs(10);

    fn sink(topic: &str, ca: &str) -> String {
        format!("topic = '{topic}'\nformat = 'body'\ntls = {{ ca = '{ca}' }}")
    }

    /// A receiver that is allowed in.
    fn secured(cluster: &Cluster, topic: &str, password: &str) -> Setup {
        let user = [cluster.username(), password];
        Setup::with_password("", cluster.sasl_bootstrap(), &sink(topic, cluster.ca()), user)
    }

    /// It says all of this, accepts events all the same, and sets none aside.
    fn assert_named(setup: &Setup, receiver: &Receiver, parts: &[&str]) -> crate::load::Ledger {
        let before = receiver.wait_for_reason_within(parts, TOLD_WITHIN);
        let ledger = Load::of(receiver.listen, 0..4, 10).send();
        receiver.wait_for_reason_within(parts, TOLD_WITHIN);
        assert_eq!(receiver.backlog(), 40);
        assert!(setup.dead_letters().is_empty());
        println!("{before}");
        ledger
    }

    #[test]
    fn security_a_password_lets_in_and_a_wrong_one_is_named() {
        let Some(cluster) = three_brokers("SASL_SSL") else { return };
        cluster.create_topic("secured", 3);
        let mut setup = secured(&cluster, "secured", "a-wrong-password");
        assert_checked(&setup, "a-wrong-password", false, &["[sink.sasl]", "authentication"]);
        let receiver = setup.start();
        let ledger = assert_named(&setup, &receiver, &["[sink.sasl]", "authentication"]);
        let said = receiver.stop().stderr;
        assert!(!said.contains("a-wrong-password"), "{said}");
        setup.set_sink_secret(cluster.password());
        assert_checked(
            &setup,
            cluster.password(),
            true,
            &["sink kafka (kafka): ok: ", "has the topic secured"],
        );
        let other = secured(&cluster, "none", cluster.password());
        assert_checked(&other, cluster.password(), false, &["topic none does not exist; create it"]);
        let receiver = setup.start();
        receiver.drain();
        receiver.wait_until_ready();
        let said = receiver.stop().stderr;
        assert!(!said.contains(cluster.password()), "a secret was printed");
        Seen::new(&cluster.read("secured"), Format::Body).assert_exact(&ledger);
    }

    #[test]
    fn security_a_permission_that_is_missing_is_named_and_costs_no_record() {
        let Some(cluster) = three_brokers("ACLs") else { return };
        cluster.create_topic("guarded", 3);
        let setup = secured(&cluster, "guarded", cluster.password());
        let receiver = setup.start();
        let load = Load::steady(receiver.listen, 0..16, 300, Manner::Strict);
        let ledger = load.during(|| {
            receiver.drain();
            // Not to write, but to look; then nothing at all.
            for operation in ["WRITE", "ALL"] {
                cluster.admin(["deny", cluster.username(), "guarded", "--operation", operation]);
                cluster.admin(["allow", cluster.username(), "guarded", "--operation", "DESCRIBE"]);
                let reason = ["sink kafka: topic guarded", "ACL: WRITE"];
                println!("{}", receiver.wait_for_reason_within(&reason, TOLD_WITHIN));
                assert!(setup.dead_letters().is_empty());
                cluster.admin(["forget", "guarded"]);
                receiver.wait_until_ready();
            }
        });
        receiver.drain();
        let renewals = receiver.renewals();
        receiver.stop();
        let copies = Seen::new(&cluster.read("guarded"), Format::Body).assert_complete(&ledger);
        assert!(setup.dead_letters().is_empty());
        println!("{} events, {renewals} producers renewed, {copies} copies too many", ledger.count());
    }

    #[test]
    fn security_certificates_that_are_wrong_are_named() {
        let Some(expired) = Cluster::start(3, "expired", "an expired certificate") else { return };
        let setup = secured(&expired, "expired", expired.password());
        assert_checked(&setup, expired.password(), false, &["[sink.tls]", "certificate", "expired"]);
        let receiver = setup.start();
        assert_named(&setup, &receiver, &["sink kafka", "[sink.tls]", "certificate", "expired"]);
        receiver.stop();
        let Some(cluster) = three_brokers("a wrong authority") else { return };
        let user = [cluster.username(), cluster.password()];
        let sink = sink("wrong-ca", expired.ca());
        let setup = Setup::with_password("", cluster.sasl_bootstrap(), &sink, user);
        assert_checked(&setup, cluster.password(), false, &["[sink.tls]", "certificate"]);
        let receiver = setup.start();
        assert_named(&setup, &receiver, &["sink kafka", "[sink.tls]", "certificate"]);
        receiver.stop();
    }

    #[test]
    fn security_a_listener_of_another_kind_is_named() {
        let Some(cluster) = three_brokers("listeners of another kind") else { return };
        let user = [cluster.username(), cluster.password()];
        let tls = sink("other", cluster.ca());
        let setup = Setup::with_password("", cluster.bootstrap(), &tls, user);
        let receiver = setup.start();
        assert_named(&setup, &receiver, &["sink kafka", "TLS"]);
        receiver.stop();
        let setup = Setup::new("", cluster.sasl_bootstrap(), "topic = 'other'");
        let receiver = setup.start();
        assert_named(&setup, &receiver, &["sink kafka", "brokers are down", "[sink.tls]"]);
        receiver.stop();
    }

    /// The configuration of the page for Azure Event Hubs, at our brokers and with their authority.
    fn event_hubs(cluster: &Cluster) -> String {
        let page = include_str!("../../docs/kafka.md");
        let part = page.split_once("## Azure Event Hubs").expect("a part of the page").1;
        let text =
            part.split_once("```toml\n").and_then(|(_, text)| text.split_once("```")).expect("a block").0;
        let mut text = text.to_owned();
        for (of_page, ours) in [
            ("NAMESPACE.servicebus.windows.net:9093", cluster.sasl_bootstrap()),
            ("[sink.tls]", &format!("[sink.tls]\nca = '{}'", cluster.ca())),
            ("DT_EVENT_HUBS_CONNECTION", SINK_SECRET),
            ("DT_SECRET_2026", crate::common::SECRET_VARIABLE),
            // The connector that the records are compared with.
            ("plant-1", "default"),
        ] {
            assert_eq!(text.matches(of_page).count(), 1, "{of_page}");
            text = text.replace(of_page, ours);
        }
        format!("data = 'FOLDER/data'\n{text}")
    }

    #[test]
    fn security_the_configuration_for_azure_event_hubs_is_taken_by_a_broker_with_plain_over_tls() {
        let Some(cluster) = three_brokers("SASL_SSL with PLAIN") else { return };
        cluster.create_topic("dt-events", 3);
        let mut setup = Setup::of_text(&event_hubs(&cluster));
        // A key that was regenerated.
        let wrong = cluster.connection_string().replace("SharedAccessKey=", "SharedAccessKey=0ld");
        setup.set_sink_secret(&wrong);
        let receiver = setup.start();
        let parts = ["sink event-hubs", "[sink.sasl]", "authentication"];
        let ledger = assert_named(&setup, &receiver, &parts);
        assert!(!receiver.readiness().contains("SharedAccessKey"), "a secret was shown");
        let said = receiver.stop().stderr;
        assert!(!said.contains("SharedAccessKey"), "a secret was printed");
        setup.set_sink_secret(cluster.connection_string());
        let receiver = setup.start();
        receiver.drain();
        receiver.wait_until_ready();
        let said = receiver.stop().stderr;
        assert!(!said.contains("SharedAccessKey"), "a secret was printed");
        Seen::new(&cluster.read("dt-events"), Format::Body).assert_exact(&ledger);
    }
}
