//! The operator's own statement: each event by parameters, in a table of any shape; a row that the table does not take is
//! dead-lettered alone.

use crate::events::body;
use crate::server::{Server, shared};
use crate::setup::Setup;

const TABLE: &str = "CREATE TABLE mine (n serial, id text PRIMARY KEY, connector varchar(64), project text, device text, \
                     kind text, at timestamp, received timestamptz, labels json, data jsonb, raw bytea, doc jsonb, \
                     CONSTRAINT cold CHECK ((data #>> '{temperature,value}')::float8 < 100))";
const INSERT: &str = "insert = '''INSERT INTO mine (id, connector, project, device, kind, at, received, labels, data, raw, doc)
VALUES (:event_id, :connector, :project, :device, :type, :timestamp, :received_at, :labels, :data, :body,
convert_from(:body, 'UTF8')::jsonb) -- :not_a_parameter
ON CONFLICT (id) DO NOTHING'''";

fn temperature(id: &str, value: f64) -> String {
    format!(
        r#"{{"event":{{"eventId":"{id}","targetName":"projects/p/devices/d","eventType":"temperature","data":{{"temperature":{{"value":{value},"updateTime":"2024-12-01T12:00:00.123456Z"}}}},"timestamp":"2024-12-01T12:00:00.5Z"}},"labels":{{"name":"it's"}}}}"#
    )
}

fn ids(server: &Server, database: &str) -> String {
    server.rows(database, "SELECT id FROM mine ORDER BY n").join(",")
}

#[test]
fn a_table_of_ones_own_gets_each_value_and_a_bad_row_is_dead_lettered_alone() {
    let Some(server) = shared("a table of one's own") else { return };
    let database = server.database();
    // The session's time zone must not move a `timestamp` without one.
    server.psql("postgres", &format!("ALTER DATABASE {database} SET timezone = 'Asia/Tokyo'"));
    let setup = Setup::new("", &server.url(&database), INSERT);
    let receiver = setup.start();
    for (number, value) in [1.5, 2.5, 300.5, 3.5].into_iter().enumerate() {
        receiver.accept(&temperature(&format!("t{number}"), value));
    }
    let said = receiver.wait_for_reason(&[
        "sink pg",
        "relation \"mine\" does not exist",
        "42P01",
        "create the table",
    ]);
    assert!(setup.dead_letters().is_empty(), "{said}");
    server.psql(&database, TABLE);
    receiver.drain();
    assert_eq!(ids(server, &database), "t0,t1,t3", "in order, without the row that the table does not take");
    let letters = setup.dead_letters();
    assert_eq!(letters.len(), 1, "{letters:?}");
    let letter = letters[0].to_string();
    assert!(letter.contains("t2") && letter.contains("cold") && letter.contains("23514"), "{letter}");
    let row = "SELECT connector, project, device, kind, at, received > '2020-01-01', labels->>'name', \
               data#>>'{temperature,value}', doc->'event'->>'eventId' FROM mine WHERE id = 't0'";
    let row = server.psql(&database, row);
    assert_eq!(row, "default|p|d|temperature|2024-12-01 12:00:00.5|t|it's|1.5|t0");
    let raw = server.psql(&database, "SELECT convert_from(raw, 'UTF8') FROM mine WHERE id = 't0'");
    assert_eq!(raw, temperature("t0", 1.5));
    receiver.stop();
}

#[test]
fn rows_are_inserted_in_the_order_of_the_events() {
    let Some(server) = shared("the order of a table of one's own") else { return };
    let database = server.database();
    let setup = Setup::new("", &server.url(&database), INSERT);
    let receiver = setup.start();
    // They wait for the table, and are then one batch.
    let ids: Vec<String> = (0..300).map(|number| format!("t{number}")).collect();
    ids.iter().for_each(|id| receiver.accept(&temperature(id, 1.5)));
    server.psql(&database, TABLE);
    receiver.drain();
    assert_eq!(self::ids(server, &database), ids.join(","));
    receiver.stop();
}

#[test]
fn a_statement_that_does_not_fit_waits_and_says_so() {
    let Some(server) = shared("a statement that does not fit") else { return };
    for (insert, table, reasons) in [
        (
            "INSERT INTO mine (id) VALUES (:event_id)",
            "CREATE TABLE mine (id uuid)",
            ["42804", ":event_id::uuid"],
        ),
        (
            "INSERT INTO mine (nr) VALUES (:event_id)",
            "CREATE TABLE mine (id text)",
            ["42703", "correct `insert`"],
        ),
    ] {
        let database = server.database();
        server.psql(&database, table);
        let setup = Setup::new("", &server.url(&database), &format!("insert = '{insert}'"));
        let receiver = setup.start();
        receiver.accept(&temperature("t0", 1.5));
        receiver.wait_for_reason(&["sink pg", reasons[0], reasons[1]]);
        assert!(setup.dead_letters().is_empty());
        receiver.stop();
    }
}

#[test]
fn a_statement_that_no_event_fits_dead_letters_at_most_a_hundred() {
    let Some(server) = shared("a statement that no event fits") else { return };
    let database = server.database();
    server.psql(&database, "CREATE TABLE mine (n serial, id int)");
    let sink = "insert = 'INSERT INTO mine (id) VALUES (:event_id::int)'";
    let setup = Setup::new("", &server.url(&database), sink);
    let receiver = setup.start();
    for number in 0..120 {
        receiver.accept(&body(1, number));
    }
    receiver.wait_for_reason(&["sink pg", "22P02", "100 records in a row failed like this"]);
    assert_eq!(setup.dead_letters().len(), 100);
    receiver.drain_to(20);
    receiver.stop();
    assert_eq!(server.psql(&database, "SELECT count(*) FROM mine"), "0");
}
