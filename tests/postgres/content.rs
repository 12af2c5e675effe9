//! What lands in the tables: for each event type, for late and back-filled events, and for labels of all kinds.

use dt_receiver::verify::event::{EventType, Sample};

use crate::server::shared;
use crate::setup::Setup;

/// One event of each type, as DT sends it: equal in each run.
pub(crate) fn samples() -> Vec<(EventType, String)> {
    let types = EventType::KNOWN.iter().enumerate();
    let bodies = types.map(|(number, event_type)| {
        let sample = Sample {
            event_type: event_type.clone(),
            event_id: &format!("sample{number:02}"),
            project: "p",
            device: &format!("emu{number:02}"),
            unix_millis: 1_733_054_400_000,
            seed: 1,
        };
        (event_type.clone(), sample.body())
    });
    bodies.collect()
}

#[test]
fn each_event_type_lands_as_the_docs_say() {
    let Some(server) = shared("what each event type becomes") else { return };
    let database = server.database();
    let setup = Setup::new("", &server.url(&database), "");
    let receiver = setup.start();
    let samples = samples();
    samples.iter().for_each(|(_, body)| receiver.accept(body));
    receiver.drain();
    receiver.stop();
    assert_eq!(server.psql(&database, "SELECT count(*), count(incomplete) FROM dt_events"), "19|0");
    let mut table =
        String::from("| event type | rows of `dt_samples` | rows of `dt_devices` |\n|---|---|---|\n");
    for (number, (event_type, _)) in samples.iter().enumerate() {
        let rows = |table: &str| {
            let sql = format!(
                "SELECT concat_ws(' ', quantity, coalesce(value::text, text), unit), \
                        to_char(time AT TIME ZONE 'UTC', 'HH24:MI:SS') \
                 FROM {table} WHERE device = 'emu{number:02}' ORDER BY quantity COLLATE \"C\", time DESC"
            );
            let rows = server.rows(&database, &sql);
            let rows: Vec<String> = rows.iter().map(|row| row.replace('|', " at ")).collect();
            if rows.is_empty() { "none".to_owned() } else { rows.join("<br>") }
        };
        table += &format!("| `{event_type}` | {} | {} |\n", rows("dt_samples"), rows("dt_devices"));
    }
    let page = include_str!("../../docs/postgres.md");
    assert!(page.contains(&table), "docs/postgres.md must contain:\n{table}");
    let sql = include_str!("../../crates/dt-sink-postgres/src/schema.sql");
    assert!(page.contains(sql), "docs/postgres.md must contain crates/dt-sink-postgres/src/schema.sql");
}

/// A temperature event with samples, each a value and the minute of its time.
fn temperature(id: &str, samples: &[(f64, u32)], is_backfilled: bool) -> String {
    let list: Vec<String> = samples
        .iter()
        .map(|(value, minute)| format!(r#"{{"value":{value},"sampleTime":"2024-12-01T12:{minute:02}:00Z"}}"#))
        .collect();
    let (value, minute) = samples[0];
    format!(
        r#"{{"event":{{"eventId":"{id}","targetName":"projects/p/devices/d","eventType":"temperature","data":{{"temperature":{{"value":{value},"updateTime":"2024-12-01T12:{minute:02}:00Z","samples":[{}],"isBackfilled":{is_backfilled}}}}},"timestamp":"2024-12-01T12:{minute:02}:00Z"}},"labels":{{}}}}"#,
        list.join(",")
    )
}

#[test]
fn late_and_back_filled_events_do_not_overwrite_newer_states() {
    let Some(server) = shared("late and back-filled events") else { return };
    let database = server.database();
    let setup = Setup::new("", &server.url(&database), "");
    let receiver = setup.start();
    let state = "SELECT value, to_char(time AT TIME ZONE 'UTC', 'HH24:MI'), event_id FROM dt_devices";
    for (id, samples, is_backfilled, expected) in [
        ("a", &[(20.0, 30), (19.0, 25)][..], false, "20|12:30|a"),
        // Late: measured before what is known.
        ("b", &[(10.0, 20)], false, "20|12:30|a"),
        ("c", &[(9.0, 10), (8.0, 5)], true, "20|12:30|a"),
        // Of the same moment: the first one stays.
        ("d", &[(21.0, 30)], false, "20|12:30|a"),
        // The newest sample counts, wherever it is in the list.
        ("e", &[(22.0, 35), (23.0, 40)], true, "23|12:40|e"),
    ] {
        receiver.accept(&temperature(id, samples, is_backfilled));
        receiver.drain();
        assert_eq!(server.psql(&database, state), expected, "{id}");
    }
    receiver.stop();
    let all = "SELECT string_agg(value::text, ' ' ORDER BY time, value) FROM dt_samples";
    assert_eq!(server.psql(&database, all), "8 9 10 19 20 21 22 23", "all samples are there");
}

#[test]
fn labels_of_all_kinds_are_stored_or_their_reason_is() {
    let Some(server) = shared("labels of all kinds") else { return };
    let database = server.database();
    // What an operator may have set must not move times, nor confirm what is not on the disk.
    server.psql("postgres", &format!("ALTER DATABASE {database} SET timezone = 'Asia/Tokyo'"));
    let setup = Setup::new("limits = { max_body = '256KiB' }", &server.url(&database), "");
    let receiver = setup.start();
    let long = "é".repeat(32 * 1024);
    let labels = [
        ("quotes", r#"it's \"a\"; DROP TABLE dt_events; -- \\"#, r#"it's "a"; DROP TABLE dt_events; -- \"#),
        ("dollar", "$$ $1 :body {}", "$$ $1 :body {}"),
        ("control", r"\u0001\t\u007f", "\u{1}\t\u{7f}"),
        ("unicode", r"\u00e6 \ud83d\ude00 \\u0000", "æ 😀 \\u0000"),
        ("long", &long, &long),
    ];
    let event = |id: &str, labels: &str| {
        format!(
            r#"{{"event":{{"eventId":"{id}","targetName":"projects/p/devices/d","eventType":"touch","data":{{"touch":{{"updateTime":"2024-12-01T12:00:00Z"}}}},"timestamp":"2024-12-01T12:00:00Z"}},"labels":{labels}}}"#
        )
    };
    for (id, json, _) in &labels {
        receiver.accept(&event(id, &format!(r#"{{"name":"{json}"}}"#)));
    }
    let nul = event("nul", r#"{"name":"a\u0000b","other":"c"}"#);
    receiver.accept(&nul);
    receiver.accept(&event("list", "[1,2]"));
    receiver.accept(&event("null", "null"));
    // JSON has this number, and `numeric` has not.
    receiver.accept(&event("tiny", r#"{"n":1e-20000}"#));
    receiver.accept(&event("time", "{}").replace("2024-12-01T12", "noon"));
    receiver.accept(&event("year", "{}").replace("2024-", "0000-"));
    // An id that no column can hold is dead-lettered alone.
    receiver.accept(&event(r"id\u0000", "{}"));
    receiver.drain();
    for (id, _, text) in &labels {
        let hex = format!(
            "SELECT encode(convert_to(labels->>'name', 'UTF8'), 'hex') FROM dt_events WHERE event_id = '{id}'"
        );
        let stored = hex::decode(server.psql(&database, &hex).replace('\n', "")).expect("hex");
        assert!(stored == text.as_bytes(), "{id}: {}", String::from_utf8_lossy(&stored));
    }
    let of = |id: &str| {
        let sql = "SELECT labels, incomplete, timestamp IS NULL, extract(epoch FROM timestamp)::bigint, \
                   (SELECT count(*) FROM dt_samples s WHERE s.event_id = e.event_id) FROM dt_events e WHERE event_id = ";
        server.psql(&database, &format!("{sql}'{id}'"))
    };
    assert_eq!(of("nul"), "|labels: PostgreSQL cannot store the character U+0000|f|1733054400|1");
    assert_eq!(of("list"), "[1, 2]||f|1733054400|1");
    assert_eq!(of("null"), "||f|1733054400|1");
    assert_eq!(of("time"), "{}|timestamp: no valid time; touch: no valid time|t||0");
    assert_eq!(of("year"), "{}||f|-62138232000|1");
    let body =
        server.psql(&database, "SELECT convert_from(body, 'UTF8') FROM dt_events WHERE event_id = 'nul'");
    assert_eq!(body, nul, "the body is exact");
    assert_eq!(receiver.count("dt_receiver_postgres_incomplete_total", ""), 3);
    receiver.stop();
    let letters = setup.dead_letters();
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert!(letters[0].to_string().contains("U+0000"), "{letters:?}");
}
