//! slowhttptest in all its modes: slow heads, slow bodies, ranges, slow reading.

use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

use crate::events::{is_there, setting};
use crate::siege::{besiege, duration};

fn slowhttptest(name: &str, mode: &[&str]) {
    let has_it =
        Command::new("slowhttptest").arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !is_there(has_it, "the tool `slowhttptest`", name) {
        return;
    }
    let connections = setting("DT_RECEIVER_TEST_HOSTILE_SLOW", 500);
    besiege(
        name,
        "",
        |_| {},
        |listen, stop| {
            let mut child = Command::new("slowhttptest")
                .args(["-t", "POST", "-i", "1", "-p", "30", "-c", &connections.to_string()])
                .args(["-r", &(connections / 2).to_string(), "-l", &(duration().as_secs() + 1).to_string()])
                .args(["-u", &format!("http://{listen}/")])
                .args(mode)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("it starts");
            while !stop.load(Ordering::Relaxed) && child.try_wait().expect("a child").is_none() {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            let _ended = child.kill();
            let _status = child.wait().expect("it ends");
        },
    );
}

#[test]
fn slow_heads() {
    slowhttptest("slow heads", &["-H"]);
}

#[test]
fn slow_bodies() {
    slowhttptest("slow bodies", &["-B", "-s", "8192"]);
}

#[test]
fn ranges() {
    slowhttptest("ranges", &["-R", "-a", "5", "-b", "2000"]);
}

#[test]
fn slow_reading() {
    slowhttptest("slow reading", &["-X", "-w", "1", "-y", "1", "-n", "1", "-z", "1", "-k", "10"]);
}
