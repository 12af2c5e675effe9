//! `sign`: tokens and files of signed events that verify.

use std::collections::BTreeSet;

use dt_receiver::event::{Delivery, EventType};
use dt_receiver::verify::{Secret, Verifier};

use super::program::{BODY, ISSUED, KID, ORGANIZATION, Program, SECRET};

#[test]
fn what_is_signed_verifies() {
    let program = Program::new();
    let body = program.file("body.json", BODY);
    let signed = program.run(&["sign", "--body", &body]);
    assert_eq!((signed.exit, &*signed.stderr), (0, ""));
    let verified = program.run(&["verify", "--signature", signed.stdout.trim(), "--body", &body]);
    assert_eq!(verified.exit, 0, "{}", verified.stdout);
    assert!(verified.stdout.starts_with("verified by secret:default, issued 20"), "{}", verified.stdout);
    assert!(
        verified.stdout.ends_with("event c82gg9catj3vmh4248og type temperature\n"),
        "{}",
        verified.stdout
    );
}

#[test]
fn time_and_lifetime_are_as_asked_for() {
    let program = Program::new();
    let signed = program.run_with(
        &["sign", "--body", "-", "--at", "2025-01-04T14:13:20Z", "--ttl", "90s", "--json"],
        BODY.as_bytes(),
    );
    let object = signed.json();
    assert_eq!(object["header"], "X-Dt-Signature");
    assert_eq!(object.as_object().unwrap().len(), 2);
    let token = object["token"].as_str().unwrap();
    let at = ISSUED.to_string();
    let verified = program
        .run_with(&["verify", "--signature", token, "--body", "-", "--at", &at, "--json"], BODY.as_bytes());
    let object = verified.json();
    assert_eq!(object["issuedAt"], "2025-01-04T14:13:20Z");
    assert_eq!(object["expiresAt"], "2025-01-04T14:14:50Z");
    assert_eq!(object["tokenId"].as_str().unwrap().len(), 20);
}

#[test]
fn two_tokens_for_one_body_differ_in_their_ids() {
    let program = Program::new();
    let body = program.file("body.json", BODY);
    let sign = || program.run(&["sign", "--body", &body, "--at", "1736000000"]).stdout;
    assert_ne!(sign(), sign());
}

#[test]
fn a_file_of_events_verifies_line_by_line() {
    let program = Program::new();
    let out = program.path("events.tsv");
    let done = program.run(&[
        "sign",
        "--count",
        "500",
        "--out",
        out.to_str().unwrap(),
        "--at",
        "2025-01-04T14:13:20Z",
    ]);
    assert_eq!((done.exit, &*done.stdout, &*done.stderr), (0, "", ""));
    let content = std::fs::read_to_string(out).unwrap();
    let verifier = Verifier::builder().secret("s", Secret::new(SECRET).unwrap()).build().unwrap();
    let (mut ids, mut types) = (BTreeSet::new(), BTreeSet::new());
    for line in content.lines() {
        let (token, body) = line.split_once('\t').unwrap();
        let verified = verifier.verify(&[("X-Dt-Signature", token)], body, ISSUED).unwrap();
        let delivery = Delivery::parse(&verified).unwrap();
        ids.insert(verified.token_id().unwrap().to_owned());
        ids.insert(delivery.event.event_id);
        types.insert(delivery.event.event_type);
    }
    assert_eq!(content.lines().count(), 500);
    assert_eq!(ids.len(), 1000, "an id of an event or a token comes twice");
    assert_eq!(types.len(), EventType::KNOWN.len());
}

#[test]
fn events_of_one_type_go_to_standard_output() {
    let program = Program::new();
    let made = program.run(&["sign", "--count", "5", "--event", "touch"]);
    assert_eq!((made.exit, &*made.stderr), (0, ""));
    assert_eq!(made.stdout.lines().count(), 5);
    assert!(made.stdout.lines().all(|line| line.contains(r#""eventType":"touch""#)));
    let odd = program.run(&["sign", "--count", "1", "--event", "smell"]);
    assert_eq!(odd.exit, 0);
    assert!(odd.stderr.contains("--event") && odd.stderr.contains("smell"), "{}", odd.stderr);
}

#[test]
fn the_asymmetric_scheme_signs_with_pem_and_der() {
    let program = Program::without_secret();
    let (pem, body, keys) = (program.private_key(), program.file("body.json", BODY), program.key_set());
    let content = std::fs::read_to_string(&pem).unwrap();
    let base64: String = content.lines().filter(|line| !line.starts_with("---")).collect();
    let der = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, base64).unwrap();
    for key in [pem, program.file("key.der", der)] {
        let options = ["--asymmetric-key", &key, "--kid", KID, "--organization", ORGANIZATION];
        let signed = program.run(&[&["sign", "--body", &body, "--json"][..], &options].concat());
        let object = signed.json();
        assert_eq!(object["header"], "DT-Asymmetric-Signature");
        let token = object["token"].as_str().unwrap();
        let options = ["--key-set", &keys, "--organization", ORGANIZATION];
        let verified =
            program.run(&[&["verify", "--asymmetric", token, "--body", &body][..], &options].concat());
        assert_eq!(verified.exit, 0, "{}{}", verified.stdout, verified.stderr);
        assert!(verified.stdout.starts_with("verified by asymmetric:test-es256-1,"), "{}", verified.stdout);
    }
}

#[test]
fn wrong_usage_is_told_by_the_name_of_the_option() {
    let program = Program::new();
    let body = program.file("body.json", BODY);
    let (pem, rsa) = (
        program.private_key(),
        program.file("rsa.pem", include_str!("../../vectors/keys/test-only-rsa.pem")),
    );
    let ec = program.file("ec.pem", "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n");
    let torn = program.file("torn.pem", "-----BEGIN PRIVATE KEY-----\nA*AA\n-----END PRIVATE KEY-----\n");
    let key_of =
        |key| ["sign", "--body", &body, "--kid", "k", "--organization", "o", "--asymmetric-key", key];
    let cases: &[(&[&str], &str)] = &[
        (&["sign"], "--body"),
        (&["sign", "--body", "no-such-file"], "no-such-file"),
        (&["sign", "--body", &body, "--count", "2"], "--count"),
        (&["sign", "--body", &body, "--out", "x"], "--out"),
        (&["sign", "--out", "x"], "--count"),
        (&["sign", "--count", "0"], "--count"),
        (&["sign", "--count", "1", "--out", "no/such/folder"], "no/such/folder"),
        (&["sign", "--body", &body, "--at", "yesterday"], "--at"),
        (&["sign", "--body", &body, "--ttl", "soon"], "--ttl"),
        (&["sign", "--body", &body, "--secret-env", "NO_SUCH"], "NO_SUCH"),
        (&["sign", "--body", &body, "--asymmetric-key", &pem], "--kid"),
        (&["sign", "--body", &body, "--kid", "k"], "--asymmetric-key"),
        (&key_of(&rsa), "--asymmetric-key"),
        (&key_of(&ec), "openssl pkcs8"),
        (&key_of(&torn), "torn.pem"),
    ];
    for (arguments, named) in cases {
        let outcome = program.run(arguments);
        assert_eq!(outcome.exit, 2, "{arguments:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(named), "{arguments:?}: {}", outcome.stderr);
        assert_eq!(outcome.stdout, "", "{arguments:?}");
    }
    let without = Program::without_secret();
    let outcome = without.run_with(&["sign", "--body", "-"], b"{}");
    assert_eq!(outcome.exit, 2);
    assert!(outcome.stderr.contains("DT_SIGNATURE_SECRET") && outcome.stderr.contains("--secret-file"));
}

#[test]
fn help_shows_examples() {
    for command in ["sign", "verify"] {
        let help = Program::without_secret().run(&[command, "--help"]);
        assert_eq!(help.exit, 0);
        assert!(help.stdout.contains("Examples:\n"), "{}", help.stdout);
        let wide: Vec<_> = help.stdout.lines().filter(|line| line.chars().count() > 100).collect();
        assert!(wide.is_empty(), "{wide:?}");
    }
}
