//! Events as line protocol to InfluxDB itself, by the recipe of docs/time-series.md: everything is there with its time, tags and
//! values, also where the server is killed.
//!
//! 2,000 events and 2 kills; `DT_RECEIVER_TEST_INFLUXDB_EVENTS` and `DT_RECEIVER_TEST_INFLUXDB_KILLS` set the full counts. They
//! need Debian's packages `influxdb`, `curl` and `python3`; one line says what is left out without them, and `DT_RECEIVER_TEST_REQUIRE_TOOLS=1`
//! makes that a failure.

mod bodies;
mod server;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bodies::{REPLACED, body};
use server::{PASSWORD, Server};

use crate::events::{Random, is_there, seed, setting};
use crate::load::{Ledger, Load, Manner, StopAtEnd};
use crate::setup::{PATIENCE, Setup};

const PAGE: &str = include_str!("../../../docs/time-series.md");
const DEVICES: u64 = 16;

/// Returns the first code block of a language that contains `words`.
fn block<'a>(language: &str, words: &str) -> &'a str {
    let fence = format!("```{language}\n");
    let mut blocks = PAGE.split(&fence).skip(1).filter_map(|rest| rest.split("```").next());
    blocks.find(|block| block.contains(words)).unwrap_or_else(|| panic!("no block with {words}"))
}

/// Prepares the database and a receiver as the page says.
fn by_the_page(server: &Server) -> Setup {
    for statement in block("sql", "CREATE DATABASE").lines() {
        server.query(&statement.replace("PASSWORD_OF_DT", PASSWORD));
    }
    let recipe = block("toml", ":8086/write?db=");
    let sink = recipe.find("[[sink]]").and_then(|at| recipe.get(at..)).expect("a sink");
    let sink = sink.replace("http://127.0.0.1:8086", &server.url());
    let setup = Setup::forwarding(&sink.replace("/etc/dt-receiver/", "FOLDER/"));
    fs::write(setup.folder().join("influxdb-password"), PASSWORD).expect("written");
    setup
}

/// Compares the database with what was accepted.
fn assert_complete(server: &Server, setup: &Setup, ledger: &Ledger) -> String {
    let lines: Vec<String> =
        ledger.accepted.iter().map(|(device, number)| body(*device, *number) + "\n").collect();
    let file = setup.folder().join("accepted.ndjson");
    fs::write(&file, lines.concat()).expect("written");
    assert!(setup.dead_letters().is_empty());
    let arguments = ["tests/sink_http/influxdb/check.py", "URL", file.to_str().expect("text")];
    server.run(Path::new("python3"), &arguments).trim_end().to_owned()
}

/// The latest value of each device in the series that each event replaces.
fn replaced(server: &Server) -> BTreeMap<String, u64> {
    let result = server.query(&format!("SELECT {REPLACED} FROM {REPLACED} GROUP BY device"));
    let series = result["series"].as_array().cloned().unwrap_or_default();
    let value = |series: &serde_json::Value| {
        let device = series["tags"]["device"].as_str().expect("a device").to_owned();
        (device, series["values"][0][1].as_u64().expect("a number"))
    };
    series.iter().map(value).collect()
}

/// Looks at the series that each event replaces until `is_done`: a value that decreases is one that arrived out of order.
fn assert_order(server: &Server, is_done: &AtomicBool) -> u64 {
    let mut last = BTreeMap::new();
    let mut changes = 0;
    loop {
        let was_done = is_done.load(Ordering::SeqCst);
        let now = replaced(server);
        for (device, value) in &last {
            assert!(now.get(device) >= Some(value), "{device}: {:?} after {value}", now.get(device));
        }
        changes += u64::from(now != last);
        last = now;
        if was_done {
            return changes;
        }
    }
}

#[test]
fn every_point_is_there_with_its_time_tags_and_values_and_in_order() {
    let Some(server) = Server::start("events to InfluxDB") else { return };
    let events = setting("DT_RECEIVER_TEST_INFLUXDB_EVENTS", 2_000);
    let setup = by_the_page(&server);
    let receiver = setup.start();
    let (is_done, begun) = (AtomicBool::new(false), Instant::now());
    let (ledger, changes) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| assert_order(&server, &is_done));
        let done = StopAtEnd(&is_done);
        let load = Load::of(receiver.listen, 0..DEVICES, events.div_ceil(DEVICES)).with_body(body);
        let ledger = load.send();
        receiver.drain();
        drop(done);
        (ledger, watching.join().expect("order"))
    });
    let took = begun.elapsed();
    let requests = receiver.count("dt_receiver_http_requests_accepted_total", "");
    receiver.stop();
    let checked = assert_complete(&server, &setup, &ledger);
    assert!(requests < events, "{requests} requests are no batches");
    println!(
        "{} events in {took:?} by {requests} requests: {checked}; order seen in {changes} states",
        ledger.count()
    );
}

#[test]
fn a_server_that_is_killed_again_and_again_has_every_point() {
    let Some(mut server) = Server::start("an InfluxDB that is killed") else { return };
    let kills = setting("DT_RECEIVER_TEST_INFLUXDB_KILLS", 2);
    let mut random = Random::new(seed());
    let setup = by_the_page(&server);
    let receiver = setup.start();
    let load = Load::steady(receiver.listen, 0..DEVICES, 500, Manner::Strict).with_body(body);
    let ledger = load.during(|| {
        for kill in 0..kills {
            // Some requests are accepted by this server before it is killed.
            let accepted = || receiver.count("dt_receiver_http_requests_accepted_total", "");
            let (begun, goal) = (Instant::now(), accepted() + 1 + random.below(20));
            while accepted() < goal {
                assert!(begun.elapsed() < PATIENCE, "kill {kill}: {} of {goal}", accepted());
            }
            server.kill();
            receiver.wait_for_reason(&["sink influxdb"]);
            // Of each device several events that replace each other wait, and share a request.
            let begun = Instant::now();
            while receiver.backlog() < DEVICES * 20 {
                assert!(begun.elapsed() < PATIENCE, "kill {kill}: {} events wait", receiver.backlog());
            }
            if kill + 1 < kills {
                server.start_again();
            }
        }
    });
    // The last events of all devices wait.
    server.start_again();
    receiver.drain();
    receiver.stop();
    let checked = assert_complete(&server, &setup, &ledger);
    println!("{} events, {kills} kills: {checked}", ledger.count());
}

/// The known answers of the format are points that InfluxDB understands as we do.
#[test]
fn the_server_reads_each_known_answer() {
    let python = std::env::var_os("DT_RECEIVER_TEST_PYTHON").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/ci-tools/venv/bin/python"),
        PathBuf::from,
    );
    let script = "tests/vectors/line_protocol.py";
    let mut probe = Command::new(&python);
    probe.args([script, "--check"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let has_package = probe.output().is_ok_and(|output| output.status.success());
    if !is_there(has_package, "a Python with line-protocol-parser", "the known answers in InfluxDB") {
        return;
    }
    let Some(server) = Server::start("the known answers in InfluxDB") else { return };
    println!("{}", server.run(&python, &[script, "--server", "URL"]).trim_end());
}
