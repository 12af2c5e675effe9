//! The events that are sent, the numbers of a run, and the tools it needs.

#![allow(dead_code, reason = "each test uses a part")]

use std::io::{self, Write};
use std::process::{Command, Stdio};

use dt_receiver::verify::{Secret, Signer, xid};

pub(crate) const SECRET: &str = "some-good-secret";

/// A count from the environment.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

/// The seed of a run, printed so that it can be repeated.
pub(crate) fn seed() -> u64 {
    let seed = setting("DT_RECEIVER_TEST_SEED", u64::from(std::process::id()) << 20 | 1);
    println!("DT_RECEIVER_TEST_SEED={seed}");
    seed
}

/// A small generator of random numbers (xorshift64), so that a seed repeats a run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        // Neighbouring seeds must not begin alike, and 0 would stay 0.
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        random.below(2);
        random
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

/// The id of an event: of one length, so that none is part of another.
pub(crate) fn id(device: u64, number: u64) -> String {
    format!("ev{device:04}n{number:08}z")
}

/// Reads an id back from a line that holds one.
pub(crate) fn parse_id(line: &str) -> Option<(u64, u64)> {
    let at = line.find("\"eventId\":\"ev").map_or_else(|| line.find("ev"), |at| Some(at + 11))?;
    let text = line.get(at..at + 16)?;
    let (device, number) = text.strip_prefix("ev")?.strip_suffix('z')?.split_once('n')?;
    Some((device.parse().ok()?, number.parse().ok()?))
}

/// A device whose events are long, to fill a disk with few of them.
pub(crate) const LONG: u64 = 9000;

/// The body of an event: each is different, and some are long.
pub(crate) fn body(device: u64, number: u64) -> String {
    let more = if device == LONG { 60_000 } else { 0 };
    let filler = "x".repeat(usize::try_from((device + number) % 7 * 100 + more).expect("small"));
    format!(
        r#"{{"event":{{"eventId":"{}","targetName":"projects/p/devices/dev{device}","eventType":"touch","data":{{"touch":{{}}}}}},"labels":{{"f":"{filler}"}}}}"#,
        id(device, number)
    )
}

/// The token of a body, signed at that time.
pub(crate) fn token(body: &str, now: i64) -> String {
    let signer = Signer::secret(Secret::new(SECRET).expect("not empty"));
    signer.sign(body.as_bytes(), now, &xid(now, *b"durablty")).expect("signed")
}

pub(crate) fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// Whether a tool is there; without it, one line says what is left out.
pub(crate) fn has_tool(tool: &str, left_out: &str) -> bool {
    has_tool_with(tool, "--version", left_out)
}

/// The same for a tool that tells its version another way.
pub(crate) fn has_tool_with(tool: &str, version: &str, left_out: &str) -> bool {
    let probe = Command::new(tool).arg(version).stdout(Stdio::null()).stderr(Stdio::null()).status();
    is_there(probe.is_ok_and(|status| status.success()), tool, left_out)
}

/// Says what is left out without something, or fails where everything has to be there.
pub(crate) fn is_there(there: bool, what: &str, left_out: &str) -> bool {
    if !there {
        let required = std::env::var_os("DT_RECEIVER_TEST_REQUIRE_TOOLS").is_some_and(|value| value == "1");
        assert!(!required, "{what} is not there, and DT_RECEIVER_TEST_REQUIRE_TOOLS=1");
        // Past the capture of the test harness, so that it is seen.
        let line = format!("left out for want of {what}: {left_out}\n");
        let _said = io::stderr().write_all(line.as_bytes());
    }
    there
}
