//! `verify`: answers, keys and policies, request dumps, and wrong usage.

use dt_receiver::verify::{DT_ISSUER, Signer};
use serde_json::json;

use super::program::{BODY, ISSUED, KID, ORGANIZATION, Outcome, Program, SECRET, sign, sign_with};

const AT: &str = "2025-01-04T14:13:20Z";

fn verify(program: &Program, token: &str, more: &[&str]) -> Outcome {
    program.run_with(
        &[&["verify", "--signature", token, "--body", "-", "--at", AT][..], more].concat(),
        BODY.as_bytes(),
    )
}

fn sign_es256() -> String {
    let pem = include_str!("../../vectors/keys/test-only-es256.pem");
    let base64: String = pem.lines().filter(|line| !line.starts_with("---")).collect();
    let der = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, base64).unwrap();
    let signer = Signer::asymmetric(&der, KID, DT_ISSUER, ORGANIZATION).unwrap();
    signer.sign(BODY.as_bytes(), ISSUED, "cto3k00h4vq2o1t5g7a0").unwrap()
}

#[test]
fn json_holds_all_that_is_known() {
    let outcome = verify(&Program::new(), &sign(BODY), &["--json", "--explain"]);
    assert_eq!(outcome.exit, 0);
    let expected = json!({
        "verified": true, "code": null, "detail": null, "by": "secret:default",
        "issuedAt": "2025-01-04T14:13:20Z", "expiresAt": "2025-01-04T15:13:20Z", "tokenId": "cto3k00h4vq2o1t5g7a0",
        "eventId": "c82gg9catj3vmh4248og", "eventType": "temperature", "notes": [], "causes": [],
    });
    assert_eq!(outcome.json(), expected);
    assert_eq!(outcome.stdout.lines().count(), 1);

    let refused = verify(&Program::new(), &sign("{}"), &["--json"]);
    let object = refused.json();
    assert_eq!(refused.exit, 1);
    assert_eq!((&object["verified"], &object["code"]), (&json!(false), &json!("checksum_mismatch")));
    assert!(object["detail"].as_str().unwrap().contains("checksum_sha256"));
    assert!(object.get("causes").is_none() && object["eventId"].is_null());
}

#[test]
fn text_says_the_code_and_points_to_explain() {
    let outcome = verify(&Program::new(), &sign("{}"), &[]);
    assert_eq!(outcome.exit, 1);
    assert!(outcome.stdout.starts_with("refused: checksum_mismatch: "), "{}", outcome.stdout);
    assert!(outcome.stderr.contains("--explain"), "{}", outcome.stderr);
}

#[test]
fn an_authentic_body_that_is_no_event_is_verified_and_said_to_be_none() {
    let program = Program::new();
    let token = sign("hello");
    let call = |more: &[&str]| {
        let arguments = [&["verify", "--signature", &token, "--body", "-", "--at", AT][..], more].concat();
        program.run_with(&arguments, b"hello")
    };
    let outcome = call(&[]);
    assert_eq!(outcome.exit, 0);
    assert!(outcome.stdout.contains("but no event: "), "{}", outcome.stdout);
    let object = call(&["--json"]).json();
    assert!(
        object["eventId"].is_null() && object["notes"][0].as_str().unwrap().starts_with("no event"),
        "{object}"
    );
}

#[test]
fn the_secret_that_matched_is_named() {
    let program = Program::without_secret();
    let (new, old) = (program.file("new.txt", "another\n"), program.file("old.txt", format!("{SECRET}\n")));
    let outcome = verify(&program, &sign(BODY), &["--secret-file", &new, "--secret-file", &old]);
    assert!(outcome.stdout.starts_with("verified by secret:old,"), "{}{}", outcome.stdout, outcome.stderr);
    let program = Program::without_secret().env("OTHER", SECRET);
    let outcome = verify(&program, &sign(BODY), &["--secret-env", "OTHER"]);
    assert!(outcome.stdout.starts_with("verified by secret:OTHER,"), "{}", outcome.stdout);
}

#[test]
fn policies_decide_which_signatures_must_hold() {
    let program = Program::new();
    let (keys, good, es256) = (program.key_set(), sign(BODY), sign_es256());
    let bad = sign_with("wrong", BODY);
    let key_options = ["--key-set", &*keys, "--organization", ORGANIZATION];
    for (policy, signature, asymmetric, code) in [
        (None, &good, None, None),
        (None, &good, Some(&es256), None),
        (None, &bad, Some(&es256), None),
        (Some("either"), &bad, Some(&es256), None),
        (Some("both"), &good, Some(&es256), None),
        (Some("both"), &good, None, Some("signature_missing")),
        (Some("both"), &bad, Some(&es256), Some("signature_mismatch")),
        (Some("secret"), &bad, Some(&es256), Some("signature_mismatch")),
        (Some("asymmetric"), &bad, Some(&es256), None),
    ] {
        let mut more = vec!["--json"];
        more.extend(key_options);
        more.extend(policy.into_iter().flat_map(|policy| ["--policy", policy]));
        more.extend(asymmetric.into_iter().flat_map(|token| ["--asymmetric", token]));
        let outcome = verify(&program, signature, &more);
        assert_eq!(outcome.json()["code"], json!(code), "{policy:?}: {}", outcome.stdout);
        assert_eq!(outcome.exit, i32::from(code.is_some()));
    }
    // A wrong one beside a right one is not silent.
    let more = [&["--asymmetric", &es256, "--json"][..], &key_options].concat();
    let object = verify(&program, &bad, &more).json();
    assert_eq!(object["by"], "asymmetric:test-es256-1");
    assert!(object["notes"][0].as_str().unwrap().contains("signature_mismatch"), "{object}");
}

#[test]
fn request_dumps_are_read_with_any_framing() {
    let program = Program::new();
    let head = format!("POST /dt HTTP/1.1\r\nHost: a\r\nx-dt-signature: {}\r\n", sign(BODY));
    let (half, other) = BODY.split_at(100);
    for (name, dump, notes) in [
        ("plain", format!("{head}\r\n{BODY}"), 0),
        ("exact", format!("{head}Content-Length: {}\r\n\r\n{BODY}", BODY.len()), 0),
        ("lf", format!("{head}\r\n").replace('\r', "") + BODY, 0),
        ("longer", format!("{head}Content-Length: {}\r\n\r\n{BODY}\n", BODY.len()), 1),
        (
            "chunked",
            format!(
                "{head}Transfer-Encoding: chunked\r\n\r\n64\r\n{half}\r\n{:x}\r\n{other}\r\n0\r\n\r\n",
                other.len()
            ),
            0,
        ),
    ] {
        let outcome = program.run(&["verify", "--at", AT, "--json", "--request", &program.file(name, dump)]);
        assert_eq!(outcome.exit, 0, "{name}: {}{}", outcome.stdout, outcome.stderr);
        assert_eq!(outcome.json()["notes"].as_array().unwrap().len(), notes, "{name}");
    }
    let from_stdin =
        program.run_with(&["verify", "--at", AT, "--request", "-"], format!("{head}\r\n{BODY}").as_bytes());
    assert_eq!(from_stdin.exit, 0);
}

#[test]
fn wrong_usage_is_told_by_the_name_of_the_option() {
    let program = Program::new();
    let (body, keys, token, es256) =
        (program.file("b.json", BODY), program.key_set(), sign(BODY), sign_es256());
    let (none, text) = (program.file("none.http", "POST / HTTP/1.1\r\n"), program.file("keys.json", "{}"));
    let chunked = program.file("bad.http", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab");
    let cases: &[(&[&str], &str)] = &[
        (&["verify"], "--signature"),
        (&["verify", "--signature", &token], "--body"),
        (&["verify", "--signature", &token, "--body", "no-such-file"], "--body no-such-file"),
        (&["verify", "--request", "no-such-file"], "--request no-such-file"),
        (&["verify", "--request", &none], "--request"),
        (&["verify", "--request", &chunked], "chunk"),
        (&["verify", "--request", &none, "--body", &body], "--body"),
        (&["verify", "--body", &body], "--signature"),
        (&["verify", "--signature", &token, "--body", &body, "--at", "noon"], "--at"),
        (&["verify", "--signature", &token, "--body", &body, "--policy", "none"], "--policy"),
        (&["verify", "--signature", &token, "--body", &body, "--policy", "both"], "--policy"),
        (&["verify", "--signature", &token, "--body", &body, "--key-set", &keys], "--organization"),
        (&["verify", "--asymmetric", &es256, "--body", &body], "--key-set"),
        (&["verify", "--asymmetric", &token, "--body", &body], "goes with --signature"),
        (
            &["verify", "--asymmetric", &es256, "--body", &body, "--key-set", &text, "--organization", "o"],
            "keys.json",
        ),
        (
            &["verify", "--asymmetric", &es256, "--body", &body, "--key-set", &keys, "--organization", ""],
            "--organization",
        ),
    ];
    for (arguments, named) in cases {
        let outcome = program.run(arguments);
        assert_eq!(outcome.exit, 2, "{arguments:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(named), "{arguments:?}: {}", outcome.stderr);
        assert_eq!(outcome.stdout, "", "{arguments:?}");
    }
    let without = Program::without_secret();
    let outcome = verify(&without, &es256, &[]);
    assert_eq!(outcome.exit, 2);
    assert!(
        outcome.stderr.contains("DT_SIGNATURE_SECRET") && outcome.stderr.contains("goes with --asymmetric")
    );
}
