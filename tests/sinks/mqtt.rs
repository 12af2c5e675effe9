//! The sink `mqtt` under the contract that all sinks keep, with Mosquitto as its target and an independent subscriber.

use crate::contract::UnderTest;
use dt_receiver::record::Format;

#[cfg(not(feature = "mqtt"))]
pub(crate) fn under_test(_: Format) -> Option<UnderTest> {
    None
}

#[cfg(feature = "mqtt")]
pub(crate) fn under_test(format: Format) -> Option<UnderTest> {
    use std::sync::Arc;

    use dt_receiver::clock::SystemClock;
    use dt_receiver::sink::SinkContext;
    use dt_receiver::sink_types;
    use dt_receiver::telemetry::Telemetry;
    use parking_lot::Mutex;

    use crate::mqtt_broker::{Broker, Subscriber};

    let left_out = "the sink mqtt under the contract";
    let broker = Broker::start(left_out)?;
    let subscriber = Subscriber::start(&broker, "dt/#", left_out)?;
    let settings = sink_types().parse(&format!("mqtt:{}/dt/events", broker.address())).expect("a sink");
    let telemetry = Arc::new(Telemetry::new(Arc::new(SystemClock)));
    let reporter = telemetry.sink_reporter("mqtt", settings.metrics());
    let sink = settings.sink(SinkContext::new(format, reporter)).expect("made");
    let broker = Mutex::new(broker);
    let set_broken = move |is_broken: bool| {
        if is_broken {
            broker.lock().stop();
        } else {
            broker.lock().start_again();
        }
    };
    let count = Mutex::new(0);
    let lines = move || {
        // What was acknowledged reaches a subscriber at some time; so does a message that follows it, which ends the wait.
        let mut count = count.lock();
        *count += 1;
        let end = format!("end {count}");
        subscriber.send(&end);
        let messages =
            subscriber.wait_for("the end", |messages| messages.iter().any(|one| one.text() == end));
        let mut lines: Vec<String> = Vec::new();
        for message in messages.iter().filter(|message| message.topic == "dt/events") {
            // A restarted broker sends again what its subscriber has, but had not acknowledged.
            if !message.is_again || !lines.iter().any(|line| line == message.text()) {
                lines.push(message.text().to_owned());
            }
        }
        lines
    };
    Some(UnderTest {
        name: "mqtt",
        sink,
        lines: Box::new(lines),
        set_broken: Box::new(set_broken),
        is_lines: false,
    })
}
