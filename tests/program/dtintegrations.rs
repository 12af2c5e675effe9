//! DT's own receiver package, `dtintegrations`, takes what we sign and refuses what we refuse.
//!
//! It needs Python with the packages of `tests/interop/requirements.txt`: `.ci/run` makes a virtual environment and
//! names its Python in `DT_RECEIVER_TEST_PYTHON`. Without it, the test says in one line what it leaves out.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dt_receiver::event::{EventType, Sample};
use dt_receiver::verify::{Secret, Signer, Verifier, xid};
use serde_json::{Value, json};

const SECRET: &str = "some-good-secret-of-more-than-32-bytes";

/// The Python that has the packages, if there is one.
fn python() -> Option<String> {
    let named = std::env::var("DT_RECEIVER_TEST_PYTHON").ok();
    let python = named.clone().unwrap_or_else(|| "python3".to_owned());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/dtintegrations_check.py");
    let found = Command::new(&python).arg(script).arg("--version").output();
    if found.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    assert!(named.is_none(), "DT_RECEIVER_TEST_PYTHON={python} has no dtintegrations");
    // Not a print macro: this line is to be seen although the test passes.
    let line = "tests/program/dtintegrations.rs leaves out DT's own package: needs Python with tests/interop/requirements.txt\n";
    let _said = std::io::stderr().write_all(line.as_bytes());
    None
}

struct Case {
    name: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
    secret: &'static str,
}

/// What `dtintegrations` says of each case: accepted, and the event's id and type.
fn ask_dt(python: &str, cases: &[Case]) -> Vec<Value> {
    let mut child = Command::new(python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/dtintegrations_check.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python starts");
    let lines: String = cases
        .iter()
        .map(|Case { name, headers, body, secret }| {
            let body_base64 = STANDARD.encode(body);
            json!({"name": name, "headers": headers, "body_base64": body_base64, "secret": secret})
                .to_string()
                + "\n"
        })
        .collect();
    child.stdin.take().expect("piped").write_all(lines.as_bytes()).expect("Python reads");
    let output = child.wait_with_output().expect("Python ends");
    assert!(output.status.success());
    let answers = String::from_utf8(output.stdout).expect("text");
    answers.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn signed(name: &str, body: &str, issued_at: i64) -> Case {
    let signer = Signer::secret(Secret::new(SECRET).expect("not empty"));
    let token = signer.sign(body.as_bytes(), issued_at, &xid(issued_at, [3; 8])).expect("signed");
    let headers = BTreeMap::from([(signer.header_name().to_owned(), token)]);
    Case { name: name.to_owned(), headers, body: body.into(), secret: SECRET }
}

fn sample(event_type: EventType, now: i64) -> String {
    let (project, device) = ("c14u9p094l47cdv1o3pg", "emuc17m6d7lq0bgk44smcqg");
    let event_id = &xid(now, [9; 8]);
    Sample { event_type, event_id, project, device, unix_millis: now * 1000, seed: 7 }.body()
}

#[test]
fn dt_accepts_all_19_event_types_as_we_sign_them() {
    let Some(python) = python() else { return };
    let now = now();
    let cases: Vec<Case> =
        EventType::KNOWN.iter().map(|t| signed(t.as_str(), &sample(t.clone(), now), now)).collect();
    assert_eq!(cases.len(), 19);
    for (case, answer) in cases.iter().zip(ask_dt(&python, &cases)) {
        assert_eq!(answer["accepted"], true, "{}: {answer}", case.name);
        assert_eq!(answer["event_type"], case.name.as_str());
        assert_eq!(answer["event_id"], xid(now, [9; 8]));
    }
}

#[test]
fn dt_refuses_what_we_refuse() {
    let Some(python) = python() else { return };
    let now = now();
    let body = sample(EventType::Temperature, now);
    let good = || signed("", &body, now);
    let named = |name: &str, case: Case| Case { name: name.to_owned(), ..case };
    let with_header =
        |value: &str| Case { headers: [("X-Dt-Signature".to_owned(), value.to_owned())].into(), ..good() };
    let token = good().headers["X-Dt-Signature"].clone();
    let (head, tail) = token.split_once('.').expect("a dot");
    let cases = [
        named("changed body", Case { body: body.replace("emu", "emv").into_bytes(), ..good() }),
        named("pretty-printed body", Case { body: body.replace(',', ", ").into_bytes(), ..good() }),
        named("trailing newline", Case { body: format!("{body}\n").into_bytes(), ..good() }),
        named("no header", Case { headers: BTreeMap::new(), ..good() }),
        named("expired", signed("", &body, now - 7200)),
        named("from the future", signed("", &body, now + 3600)),
        named("garbage", with_header("not.a.token")),
        named("no signature", with_header(token.rsplit_once('.').expect("a dot").0)),
        named("alg none", with_header(&format!("eyJhbGciOiJub25lIn0.{tail}"))),
        named("another token", with_header(&format!("{head}.{}", tail.replacen('a', "b", 1)))),
        named("another secret", Case { secret: "another-secret-of-more-than-32-bytes!", ..good() }),
    ];
    let answers = ask_dt(&python, &cases);
    assert_eq!(answers.len(), cases.len());
    for (case, answer) in cases.iter().zip(answers) {
        let secret = Secret::new(case.secret).expect("not empty");
        let verifier = Verifier::builder().secret("s", secret).build().expect("a verifier");
        let ours = verifier.verify(&case.headers, &case.body, now);
        assert!(ours.is_err(), "{}: we accept it", case.name);
        assert_eq!(answer["accepted"], false, "{}: DT accepts it: {answer}", case.name);
    }
}
