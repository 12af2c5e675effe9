//! No more file descriptors: what is open goes on, what is not can wait, the log says so once, and all is well once there
//! are some again.

use std::ffi::OsString;
use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

use crate::events::{body, has_tool};
use crate::place::{Place, SECRET, token, until};
use crate::sender::Sender;

/// The number that the next descriptor gets: with this limit there is not one more, whatever was closed in between.
fn next_descriptor(pid: u32) -> usize {
    let names = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs");
    let open: Vec<String> =
        names.map(|entry| entry.expect("an entry").file_name().into_string().expect("a number")).collect();
    (0..).find(|number: &usize| !open.contains(&number.to_string())).expect("there is one")
}

/// What its descriptors lead to.
fn open_files(pid: u32) -> Vec<PathBuf> {
    let names = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs");
    // One that was closed since then leads nowhere.
    names.filter_map(|entry| fs::read_link(entry.expect("an entry").path()).ok()).collect()
}

fn limit(pid: u32, descriptors: usize) {
    // The soft limit alone: not everyone may raise the hard one again.
    let limit = format!("--nofile={descriptors}:");
    assert!(
        Command::new("prlimit")
            .args(["--pid", &pid.to_string(), &limit])
            .status()
            .expect("it runs")
            .success()
    );
}

#[test]
fn without_file_descriptors_what_is_open_goes_on_and_the_rest_recovers() {
    if !has_tool("prlimit", "a receiver without file descriptors") {
        return;
    }
    let place = Place::new("spool");
    // A file that is closed, and a new one made, for every event or two.
    let rotated = format!("{}\nrotate_size = '1KiB'", place.sink("rotated", "rotated.ndjson"));
    let plain =
        place.text("", &[place.connector("default", "/", ""), place.sink("file", "events.ndjson"), rotated]);
    let served = place.serve(&plain);
    let pid = served.receiver.pid();
    let mut admin = Sender::connect(served.receiver.admin).expect("it listens");
    let mut metric = |name: &str| -> f64 {
        let text = admin.get("/metrics").expect("the open connection answers").body;
        let line = text.lines().find(|line| line.starts_with(name)).expect("there").to_owned();
        line.rsplit(' ').next().expect("a value").parse().expect("a number")
    };
    let mut sender = Sender::connect(served.receiver.listen).expect("it listens");
    let mut send = |number: u64| {
        let body = body(1, number);
        sender.post("/", &body, &token(&body, SECRET)).expect("the open connection answers").status
    };
    assert_eq!(send(0), 200);
    // What is made beside the first event has files and folders open for a moment, whose numbers would be free then.
    let is_lasting = |path: PathBuf| !path.is_dir() && !path.to_string_lossy().contains("/spare-");
    let has_spares = || {
        let names = fs::read_dir(place.path("data/spool")).expect("the folder");
        let is_spare = |name: &OsString| name.to_string_lossy().starts_with("spare-");
        names.filter(|entry| is_spare(&entry.as_ref().expect("an entry").file_name())).count() == 2
    };
    let delivered = |name: &str| fs::read(place.path(name)).is_ok_and(|lines| lines.ends_with(b"\n"));
    until("all that is made is made", || {
        let is_delivered = delivered("events.ndjson") && delivered("rotated.ndjson");
        is_delivered && has_spares() && open_files(pid).into_iter().all(is_lasting)
    });
    // Not one more, and no stranger's connection whose place could be taken.
    limit(pid, next_descriptor(pid));
    let held: Vec<TcpStream> =
        (0..20).map(|_| TcpStream::connect(served.receiver.listen).expect("the system queues it")).collect();
    until("none can be accepted", || metric("dt_receiver_accepts_failed_total") >= 2.0);
    for number in 1..10 {
        assert_eq!(send(number), 200);
    }
    // The configuration cannot be read, which is no reason to do anything.
    served.receiver.signal("HUP");
    until("it is refused", || metric("dt_receiver_config_reloads_total{outcome=\"invalid\"}") >= 1.0);
    drop(held);
    limit(pid, 1024);
    until("one can be accepted", || {
        let connected = Sender::connect(served.receiver.admin);
        connected.and_then(|mut new| new.get("/readyz")).is_some_and(|answer| answer.status == 200)
    });
    // Each listener pauses for itself after it has failed.
    until("the other listener accepts as well", || {
        Sender::connect(served.receiver.listen).and_then(|mut new| new.get("/")).is_some()
    });
    served.reload(&place, &plain, "unchanged");
    assert_eq!(send(10), 200);
    until("every sink has everything", || {
        served.readiness() == "ready\n" && place.ids(&["events.ndjson"]).len() == 11
    });
    let ended = served.receiver.stop();
    let told = ended.stderr.lines().filter(|line| line.contains("connections cannot be accepted")).count();
    assert!((1..10).contains(&told), "{told} lines: {}", ended.stderr);
    assert!(ended.stderr.contains("connections are accepted again"));
    let mut rotated: Vec<String> = fs::read_dir(place.path(""))
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
        .filter(|name| name.starts_with("rotated"))
        .collect();
    rotated.sort();
    let rotated: Vec<&str> = rotated.iter().map(String::as_str).collect();
    let mut ids = place.ids(&rotated);
    ids.sort_unstable();
    assert_eq!(ids, (0..11).map(|number| (1, number)).collect::<Vec<_>>(), "each once");
}
