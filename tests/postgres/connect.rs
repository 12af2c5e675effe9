//! `check --connect` at a real server: it says whether events could be stored, names what is wrong with its remedy, and leaves
//! the server as it was.

use std::time::Instant;

use crate::events::body;
use crate::server::{Server, shared};
use crate::setup::Setup;

/// Runs it. Returns the exit code, and what it prints.
pub(crate) fn check(setup: &Setup) -> (i32, String) {
    let begun = Instant::now();
    let ended = setup.run(&["check", "--connect"]);
    assert!(begun.elapsed().as_secs() < 30, "it took {:?}", begun.elapsed());
    (ended.code(), format!("{}{}", ended.stdout, ended.stderr))
}

/// It can deliver.
pub(crate) fn assert_ok(setup: &Setup, part: &str) {
    let (code, said) = check(setup);
    assert!(code == 0 && said.contains("sink pg (postgres): ok: ") && said.contains(part), "{code}: {said}");
}

/// It cannot deliver, and it says all of this.
pub(crate) fn assert_named(setup: &Setup, parts: &[&str]) {
    let (code, said) = check(setup);
    assert!(code == 1 && said.contains("sink pg (postgres): "), "{code}: {said}");
    assert!(parts.iter().all(|part| said.contains(part)), "not {parts:?}: {said}");
    assert!(!said.contains("wr0ng") && !said.contains(crate::server::PASSWORD), "a password was printed");
    println!("{said}");
}

/// All rows of all tables, and how many transactions have changed something.
fn content(server: &Server, database: &str) -> String {
    let tables = "SELECT relname, n_tup_ins, n_tup_upd FROM pg_stat_user_tables ORDER BY 1";
    let written = "SELECT pg_snapshot_xmax(pg_current_snapshot())";
    format!("{} {}", server.psql(database, tables), server.psql(database, written))
}

#[test]
fn a_server_that_works_is_left_as_it_was() {
    let Some(server) = Server::start("a check that connects") else { return };
    let database = server.database();
    let setup = Setup::new("", &server.url(&database), "");
    let before = content(&server, &database);
    assert_ok(&setup, "PostgreSQL 15");
    assert_ok(&setup, "the tables will be created in schema public");
    assert_eq!(content(&server, &database), before, "it created something");
    let receiver = setup.start();
    receiver.accept(&body(1, 1));
    receiver.drain();
    // A trigger of the operator, which must not see the check.
    server.psql(
        &database,
        "CREATE TABLE seen (at int); CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN INSERT INTO seen VALUES (1); RETURN NULL; END $$;
         CREATE TRIGGER see AFTER INSERT ON dt_events FOR EACH STATEMENT EXECUTE FUNCTION see();",
    );
    receiver.stop();
    assert_ok(&setup, "the tables can be written");
    assert_eq!(server.psql(&database, "SELECT count(*) FROM seen"), "0");
    assert_eq!(server.psql(&database, "SELECT count(*) FROM dt_events"), "1");
    let json = setup.run(&["check", "--connect", "--json"]).json();
    assert_eq!((&json["ok"], &json["sinks"][0]["result"]), (&true.into(), &"ok".into()), "{json}");

    server.psql(&database, "CREATE TABLE mine (id text PRIMARY KEY, body bytea)");
    let insert = "insert = 'INSERT INTO mine VALUES (:event_id, :body)'";
    let before = content(&server, &database);
    assert_ok(&Setup::new("", &server.url(&database), insert), "the statement of `insert`");
    assert_eq!(content(&server, &database), before, "it wrote something");
}

#[test]
fn what_is_wrong_with_the_server_or_the_user_is_named() {
    let Some(server) = shared("mistakes that a check finds") else { return };
    let database = server.database();
    server.psql(&database, "CREATE ROLE newcomer LOGIN PASSWORD 'n'");
    let url = |user: &str, password: &str| server.url_of(user, password, &database);
    for (url, sink, parts) in [
        (
            "postgres://u:wr0ng@127.0.0.1:1/d".to_owned(),
            "",
            ["refused", "check the host and the port of `url`"],
        ),
        (
            "postgres://u:wr0ng@name.invalid/d".to_owned(),
            "",
            ["lookup", "check the host and the port of `url`"],
        ),
        (url("postgres", "wr0ng"), "", ["28P01", "check the user and the password"]),
        (server.url("nowhere"), "", ["3D000", "create the database"]),
        // PostgreSQL 15 lets nobody else create tables in the schema `public`.
        (url("newcomer", "n"), "", ["may not create them", "GRANT CREATE ON SCHEMA public"]),
        (url("newcomer", "n"), "create = false", ["no table dt_schema", "create = true"]),
        (
            url("newcomer", "n"),
            "insert = 'INSERT INTO gone VALUES (:body)'",
            ["42P01", "create the table, or correct `insert`"],
        ),
        (format!("{}?sslmode=require", server.url(&database)), "", ["does not support TLS", "sslmode"]),
    ] {
        assert_named(&Setup::new("", &url, sink), &parts);
    }
    assert_eq!(server.psql(&database, "SELECT to_regclass('dt_events')"), "");
}

#[test]
fn tables_of_another_shape_or_owner_are_named() {
    let Some(server) = shared("tables of another shape at a check") else { return };
    let schema = include_str!("../../crates/dt-sink-postgres/src/schema.sql");
    for (spoil, parts) in [
        ("ALTER TABLE dt_events RENAME COLUMN body TO payload", ["42703", "dt_schema"]),
        ("ALTER TABLE dt_samples ALTER COLUMN value TYPE bytea USING NULL", ["42804", "docs/postgres.md"]),
        ("ALTER TABLE dt_devices DROP CONSTRAINT dt_devices_pkey", ["42P10", "dt_schema"]),
        ("UPDATE dt_schema SET version = 7", ["have version 7", "newer dt-receiver"]),
        ("DROP TABLE dt_schema", ["dt_events, dt_samples, dt_devices", "use another schema"]),
    ] {
        let database = server.database();
        server.psql(&database, schema);
        server.psql(&database, spoil);
        assert_named(&Setup::new("", &server.url(&database), ""), &parts);
    }
    let database = server.database();
    server.psql(&database, schema);
    server.psql(&database, "CREATE ROLE reader LOGIN PASSWORD 'r'; GRANT SELECT ON dt_schema TO reader");
    let setup = Setup::new("", &server.url_of("reader", "r", &database), "");
    assert_named(&setup, &["42501", "GRANT SELECT, INSERT, UPDATE"]);
}

#[test]
fn a_standby_is_named() {
    let Some(server) = Server::start_with(&[], &[("standby.signal", "")], "a standby") else { return };
    for sink in ["", "insert = 'INSERT INTO t VALUES (:body)'"] {
        let setup = Setup::new("", &server.url("postgres"), sink);
        assert_named(&setup, &["the server is read-only", "name the primary in `url`"]);
    }
}
