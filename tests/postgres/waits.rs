//! What is wrong with the server, the tables or the user: the sink waits, `/readyz` and one log line name it with a remedy, no
//! event becomes a dead letter, and once it is fixed everything is delivered. The receiver goes on accepting all the while.

use crate::events::body;
use crate::server::{PASSWORD, Server, shared};
use crate::setup::Setup;

/// A case: how the server is spoiled, what `/readyz` says, and how it is fixed.
struct Case<'a> {
    url: String,
    sink: &'a str,
    reasons: &'a [&'a str],
    fix: Box<dyn Fn() + 'a>,
}

impl Case<'_> {
    /// Sends events into it, and fixes it.
    fn run(&self, server: &Server, database: &str) {
        let setup = Setup::new("", &self.url, self.sink);
        let receiver = setup.start();
        (0..10).for_each(|number| receiver.accept(&body(1, number)));
        let said = receiver.wait_for_reason(&[&["sink pg"], self.reasons].concat());
        println!("{said}");
        (10..20).for_each(|number| receiver.accept(&body(1, number)));
        assert!(setup.dead_letters().is_empty());
        (self.fix)();
        receiver.drain();
        let ended = receiver.stop();
        assert!(setup.dead_letters().is_empty());
        assert_eq!(server.psql(database, "SELECT count(*) FROM dt_events"), "20");
        let printed = format!("{}{}{said}", ended.stdout, ended.stderr);
        assert!(!printed.contains(PASSWORD) && !printed.contains("wr0ng"), "a password was printed");
        assert!(ended.stderr.matches(self.reasons[0]).count() <= 3, "{}", ended.stderr);
    }
}

#[test]
fn a_wrong_password_and_a_missing_database_wait() {
    let Some(server) = shared("a wrong password") else { return };
    let database = server.database();
    let make = "CREATE ROLE typo LOGIN PASSWORD 'other'; GRANT ALL ON SCHEMA public TO typo";
    server.psql(&database, make);
    Case {
        url: server.url_of("typo", "wr0ng", &database),
        sink: "",
        reasons: &["28P01", "check the user and the password"],
        fix: Box::new(|| drop(server.psql(&database, "ALTER ROLE typo PASSWORD 'wr0ng'"))),
    }
    .run(server, &database);
    Case {
        url: server.url("later"),
        sink: "",
        reasons: &["3D000", "create the database"],
        fix: Box::new(|| drop(server.psql("postgres", "CREATE DATABASE later"))),
    }
    .run(server, "later");
}

#[test]
fn missing_tables_and_permissions_wait() {
    let Some(server) = shared("missing tables and permissions") else { return };
    let schema = include_str!("../../crates/dt-sink-postgres/src/schema.sql");
    let database = server.database();
    Case {
        url: server.url(&database),
        sink: "create = false",
        reasons: &["no table dt_schema", "create = true"],
        fix: Box::new(|| drop(server.psql(&database, schema))),
    }
    .run(server, &database);
    let database = server.database();
    server.psql(&database, "CREATE ROLE guest LOGIN PASSWORD 'g'");
    Case {
        url: server.url_of("guest", "g", &database),
        sink: "",
        reasons: &["42501", "GRANT CREATE ON SCHEMA"],
        fix: Box::new(|| drop(server.psql(&database, "GRANT CREATE ON SCHEMA public TO guest"))),
    }
    .run(server, &database);
    let database = server.database();
    server.psql(&database, schema);
    let user = "CREATE ROLE writer LOGIN PASSWORD 'w'; GRANT SELECT ON dt_schema, dt_events, dt_samples, dt_devices TO writer";
    server.psql(&database, user);
    let tables =
        "GRANT INSERT ON dt_events, dt_samples, dt_devices TO writer; GRANT UPDATE ON dt_devices TO writer";
    Case {
        url: server.url_of("writer", "w", &database),
        sink: "create = false",
        reasons: &["42501", "GRANT SELECT, INSERT, UPDATE"],
        fix: Box::new(|| drop(server.psql(&database, tables))),
    }
    .run(server, &database);
}

#[test]
fn tables_of_another_shape_or_a_newer_version_wait() {
    let Some(server) = shared("tables of another shape") else { return };
    let schema = include_str!("../../crates/dt-sink-postgres/src/schema.sql");
    for (spoil, reasons, fix) in [
        (
            "UPDATE dt_schema SET version = 7",
            ["have version 7", "newer dt-receiver"],
            "UPDATE dt_schema SET version = 1",
        ),
        ("DELETE FROM dt_schema", ["dt_schema has no version", ""], "INSERT INTO dt_schema VALUES (1)"),
        (
            "ALTER TABLE dt_events RENAME COLUMN body TO payload",
            ["42703", "dt_schema"],
            "ALTER TABLE dt_events RENAME COLUMN payload TO body",
        ),
        (
            "ALTER TABLE dt_samples ALTER COLUMN value TYPE bytea USING NULL",
            ["42804", "docs/postgres.md"],
            "ALTER TABLE dt_samples ALTER COLUMN value TYPE double precision USING NULL",
        ),
        (
            "ALTER TABLE dt_devices RENAME TO gone",
            ["42P01", "create the tables"],
            "ALTER TABLE gone RENAME TO dt_devices",
        ),
        (
            "DROP TABLE dt_schema",
            ["42P07", "use another schema"],
            "CREATE TABLE dt_schema (version int); INSERT INTO dt_schema VALUES (1)",
        ),
    ] {
        let database = server.database();
        server.psql(&database, schema);
        server.psql(&database, spoil);
        Case {
            url: server.url(&database),
            sink: "",
            reasons: &reasons,
            fix: Box::new(|| drop(server.psql(&database, fix))),
        }
        .run(server, &database);
    }
}

#[test]
fn a_server_without_connections_or_without_space_for_one_waits() {
    let Some(server) = shared("too many connections") else { return };
    let database = server.database();
    let make =
        "CREATE ROLE crowded LOGIN PASSWORD 'c' CONNECTION LIMIT 0; GRANT ALL ON SCHEMA public TO crowded";
    server.psql(&database, make);
    Case {
        url: server.url_of("crowded", "c", &database),
        sink: "",
        reasons: &["53300", "max_connections"],
        fix: Box::new(|| drop(server.psql(&database, "ALTER ROLE crowded CONNECTION LIMIT -1"))),
    }
    .run(server, &database);
}

#[test]
fn hosts_that_cannot_be_reached_are_named() {
    if shared("hosts that cannot be reached").is_none() {
        return;
    }
    // Nobody listens at port 1.
    for (url, reasons) in [
        ("postgres://u:wr0ng@127.0.0.1:1/d", ["error connecting to server", "refused"]),
        ("postgres://u:wr0ng@no-such-host.invalid/d", ["error connecting to server", "lookup"]),
    ] {
        let setup = Setup::new("", url, "");
        let receiver = setup.start();
        receiver.accept(&body(1, 1));
        let said = receiver.wait_for_reason(&["sink pg", reasons[0], reasons[1]]);
        let ended = receiver.stop();
        assert!(!format!("{said}{}", ended.stderr).contains("wr0ng"));
    }
}

#[test]
fn mistakes_in_the_settings_are_found_by_check() {
    for (url, sink, says) in [
        ("host=db", "", "sink.pg.url: it does not begin with postgres://"),
        ("postgres://u:wr0ng@ss@db/d", "", "sink.pg.url: a host, port or option is invalid"),
        ("postgres://u:wr0ng@db/d?sslmode=verify-full", "", "sslmode=require"),
        ("postgres://u:wr0ng@db/d?sslmode=disable", "", "in plain text"),
        ("postgres://u:wr0ng@db/d", "ca = '/no/such/file'", "sink.pg.ca: /no/such/file: No such file"),
        (
            "postgres://u:wr0ng@db/d",
            "insert = 'INSERT INTO t VALUES (:id)'",
            "unknown parameter :id; expected :event_id",
        ),
        ("postgres://u:wr0ng@db/d", "insert = 'DELETE FROM t'", "does not begin with INSERT"),
        ("postgres://u:wr0ng@db/d", "tables = 'x'", "unknown key"),
    ] {
        let ended = Setup::new("", url, sink).run(&["check"]);
        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert!(said.contains(says), "{url} {sink}: {said}");
        assert!(!said.contains("wr0ng") && !said.contains("ss@"), "{said}");
    }
    let ended = crate::common::run(["serve", "--sink", "postgres://u:wr0ng@db/d"], b"");
    assert_eq!(ended.code(), 2, "{ended:?}");
    assert!(ended.stderr.contains("environment variable") && !ended.stderr.contains("u:"), "{ended:?}");
}
