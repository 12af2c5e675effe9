//! The sink `postgres` under the contract that all sinks keep, with a server of its own.

use crate::contract::UnderTest;
use dt_receiver::record::Format;

#[cfg(not(feature = "postgres"))]
pub(crate) fn under_test(_: Format) -> Option<UnderTest> {
    None
}

/// The rows hold the received body whatever the format is, so the sink is under test with the format `body` only.
#[cfg(feature = "postgres")]
pub(crate) fn under_test(format: Format) -> Option<UnderTest> {
    use std::sync::Arc;

    use dt_receiver::clock::SystemClock;
    use dt_receiver::sink::{SinkContext, SinkSettings};
    use dt_receiver::telemetry::Telemetry;
    use dt_receiver::verify::Secret;
    use dt_sink_postgres::{PostgresConfig, PostgresSink};

    if format != Format::Body {
        return None;
    }
    let server = crate::server::shared("the sink postgres under the contract")?;
    let database = server.database();
    let config = PostgresConfig::new(Secret::new(server.url(&database)).expect("not empty"));
    let telemetry = Arc::new(Telemetry::new(Arc::new(SystemClock)));
    let reporter = telemetry.sink_reporter("postgres", PostgresSink::METRICS);
    let sink = config.sink(SinkContext::new(format, reporter)).expect("made");
    let (of_lines, of_broken) = (database.clone(), database);
    Some(UnderTest {
        name: "postgres",
        sink,
        lines: Box::new(move || {
            // In the order of their numbers; in hexadecimal digits, since a body may contain line feeds.
            let sql =
                "SELECT encode(body, 'hex') FROM dt_events ORDER BY nullif(substr(event_id, 3), '')::int";
            let rows = server.rows(&of_lines, sql);
            rows.iter().map(|row| String::from_utf8(hex::decode(row).expect("hex")).expect("text")).collect()
        }),
        set_broken: Box::new(move |is_broken| {
            let (from, to) = if is_broken { ("dt_events", "gone") } else { ("gone", "dt_events") };
            server.psql(&of_broken, &format!("ALTER TABLE {from} RENAME TO {to}"));
        }),
        is_lines: false,
    })
}
