//! Changes that nobody announces: the files themselves are looked at, through links and renames.

use std::fs;
use std::os::unix::fs::symlink;

use crate::place::{Place, SECRET, Served, until};

/// How often the receiver looks: often enough for a test, and twice before it takes anything.
const EVERY: &str = "50ms";

#[test]
fn a_secret_in_a_mounted_volume_is_swapped_by_its_link() {
    let place = Place::new("spool");
    // As Kubernetes does: `secret` leads through `..data`, which is renamed over.
    for (version, secret) in [("..1", SECRET), ("..2", "second-good-secret")] {
        fs::create_dir(place.path(version)).expect("made");
        place.write(&format!("{version}/secret"), secret);
        let connector = place.connector("default", "/", &secrets(&place));
        let text = place.text("", &[connector, place.sink("file", "events.ndjson")]);
        place.write(&format!("{version}/dt-receiver.toml"), &text);
    }
    symlink("..1", place.path("..data")).expect("linked");
    symlink("..data/secret", place.path("secret")).expect("linked");
    symlink("..data/dt-receiver.toml", place.path("dt-receiver.toml")).expect("linked");
    let served = Served::start(&place.path("dt-receiver.toml"), EVERY);
    assert_eq!(served.post("/", 1, 0, SECRET).status, 200);
    symlink("..2", place.path("..new")).expect("linked");
    fs::rename(place.path("..new"), place.path("..data")).expect("swapped");
    until("the swap is seen", || served.reloads("applied") == 1);
    assert_eq!(served.post("/", 1, 1, SECRET).status, 401);
    assert_eq!(served.post("/", 1, 1, "second-good-secret").status, 200);
    let ended = served.receiver.stop();
    let audit = ended.stderr.lines().find(|line| line.contains("\"target\":\"audit\"")).expect("an audit");
    assert!(audit.contains("file changed") && audit.contains("connector.default.secrets.k"), "{audit}");
    assert!(!ended.stderr.contains("good-secret"));
}

fn secrets(place: &Place) -> String {
    format!("secrets = [{{ label = 'k', file = '{}' }}]", place.path("secret").display())
}

#[test]
fn a_file_that_is_renamed_over_is_taken_and_a_bad_one_is_tried_once() {
    let place = Place::new("direct");
    let plain = place.plain();
    let served = place.serve_watching(&plain, EVERY);
    let with_other = format!("{plain}\n{}", place.connector("other", "/other", ""));
    place.write("new", &with_other);
    fs::rename(place.path("new"), place.path("dt-receiver.toml")).expect("renamed");
    until("the new file is seen", || served.reloads("applied") == 1);
    assert_eq!(served.post("/other", 1, 0, SECRET).status, 200);
    // Half a file that stays: told once, not with every look.
    place.write("dt-receiver.toml", &with_other[..with_other.len() - 9]);
    until("it is refused", || served.reloads("invalid") == 1);
    assert!(served.readiness().starts_with("ready, but: the configuration was not taken"));
    // A missing file, likewise; then a secret file that it names appears.
    fs::remove_file(place.path("dt-receiver.toml")).expect("removed");
    until("it is refused", || served.reloads("invalid") == 2);
    let late = place.path("late");
    let late = place.connector("late", "/late", &format!("secrets = [{{ file = '{}' }}]", late.display()));
    place.write("dt-receiver.toml", &format!("{with_other}\n{late}"));
    until("the secret is missed", || served.reloads("invalid") == 3);
    assert!(served.readiness().contains("late"), "{}", served.readiness());
    place.write("late", "second-good-secret");
    until("the secret is there", || served.reloads("applied") == 2);
    assert_eq!(served.post("/late", 1, 1, "second-good-secret").status, 200);
    assert_eq!((served.readiness().as_str(), served.reloads("invalid")), ("ready\n", 3));
}

#[test]
fn the_secret_file_of_the_command_line_is_looked_at_as_well() {
    let place = Place::new("spool");
    let (secret, data) = (place.path("secret-a"), place.path("data"));
    let args = [
        "--secret-file",
        secret.to_str().expect("text"),
        "--data",
        data.to_str().expect("text"),
        "--watch",
        EVERY,
    ];
    let served = Served { receiver: crate::common::Receiver::start(args, &[]) };
    assert_eq!(served.post("/", 1, 0, SECRET).status, 200);
    place.write("secret-a", "second-good-secret");
    until("the new secret is seen", || served.reloads("applied") == 1);
    assert_eq!(served.post("/", 1, 1, "second-good-secret").status, 200);
}
