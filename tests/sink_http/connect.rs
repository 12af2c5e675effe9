//! `check --connect` of the real program at a target. Its TLS is tested in `crates/dt-sink-http/tests/http/probe.rs`.

use crate::common;
use crate::setup::Setup;
use crate::target::Target;

fn check(setup: &Setup) -> (i32, String) {
    let config = setup.config();
    let ended = common::run(["check", "--connect", "--config", config.to_str().expect("text")], b"");
    (ended.code(), format!("{}{}", ended.stdout, ended.stderr))
}

#[test]
fn a_target_gets_a_connection_and_no_request() {
    let target = Target::start();
    let (code, said) = check(&Setup::new(&target.url(), ""));
    let ok = format!("sink http (http): ok: http://{} accepts connections", target.address);
    assert!(code == 0 && said.contains(&ok) && !said.contains("/events"), "{code}: {said}");
    assert_eq!(target.received.count(), 0);
}

#[test]
fn every_sink_that_cannot_be_reached_is_named_at_once() {
    let sinks = "[[sink]]\nname = 'closed'\ntype = 'http'\nurl = 'http://127.0.0.1:1/s3cret'\n\
                 [[sink]]\nname = 'unknown'\ntype = 'http'\nurl = 'https://name.invalid/s3cret'\n\
                 [[sink]]\nname = 'out'\ntype = 'stdout'\n";
    let (code, said) = check(&Setup::forwarding(sinks));
    assert_eq!(code, 1, "{said}");
    for part in [
        "sink closed (http): http://127.0.0.1:1: cannot connect: tcp connect error",
        "refused (os error 111); check the host and the port of `url`",
        "sink unknown (http): https://name.invalid: cannot connect: dns error",
        "sink out (stdout): ok: ",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    assert!(!said.contains("s3cret"), "a path that may be a secret was printed: {said}");
}
