//! Checks that the verifier returns the expected result for every committed vector. PyJWT, hashlib and openssl have made the
//! vectors (`tests/vectors/make_vectors.py`), so they are independent of this crate.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests may fail loudly"
)]

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dt_verify::{KeySet, Rejection, Secret, Verifier};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct File {
    verifiers: BTreeMap<String, Setup>,
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Setup {
    secrets: Vec<LabelledSecret>,
    key_set: Option<Value>,
    issuer: Option<String>,
    organization: Option<String>,
    policy: String,
    #[serde(default)]
    required_headers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct LabelledSecret {
    label: String,
    secret: String,
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    made_by: String,
    verifier: String,
    headers: Vec<(String, String)>,
    body_base64: String,
    now: i64,
    expect: String,
    by: Option<String>,
}

fn file() -> File {
    serde_json::from_str(include_str!("../../../tests/vectors/verify.json"))
        .expect("the vectors are readable")
}

fn build(setup: &Setup) -> Verifier {
    let mut builder = Verifier::builder().policy(setup.policy.parse().expect("a policy"));
    for LabelledSecret { label, secret } in &setup.secrets {
        builder = builder.secret(label.as_str(), Secret::new(secret.as_str()).expect("not empty"));
    }
    if let Some(keys) = &setup.key_set {
        let keys = KeySet::from_jwks(keys.to_string().as_bytes()).expect("a key set");
        let organization = setup.organization.clone().expect("an organization");
        builder = builder.key_set_of_issuer(keys, organization, setup.issuer.clone().expect("an issuer"));
    }
    for (name, value) in &setup.required_headers {
        builder = builder.require_header(name, Secret::new(value.as_str()).expect("not empty"));
    }
    builder.build().expect("a verifier")
}

#[test]
fn every_vector_gives_its_expected_answer() {
    let File { verifiers, vectors } = file();
    let verifiers: BTreeMap<_, _> = verifiers.iter().map(|(name, setup)| (name, build(setup))).collect();
    let mut wrong = Vec::new();
    for vector in &vectors {
        let body = STANDARD.decode(&vector.body_base64).expect("base64");
        let answer = verifiers[&vector.verifier].verify(&vector.headers, &body, vector.now);
        let (code, by) = match &answer {
            Ok(verified) => ("accepted", Some(verified.by().to_string())),
            Err(rejection) => (rejection.code(), None),
        };
        if code != vector.expect || (vector.by.is_some() && by != vector.by) {
            wrong
                .push(format!("{}: expected {} {:?}, got {answer:?}", vector.name, vector.expect, vector.by));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} vectors are wrong:\n{}",
        wrong.len(),
        vectors.len(),
        wrong.join("\n")
    );
}

#[test]
fn the_vectors_cover_every_code_and_come_from_independent_programs() {
    let vectors = file().vectors;
    let codes: BTreeSet<&str> = vectors.iter().map(|v| v.expect.as_str()).collect();
    for code in Rejection::CODES {
        assert!(codes.contains(code), "no vector expects {code}");
    }
    let made_by = |program: &str| vectors.iter().filter(|v| v.made_by == program).count();
    assert!(made_by("pyjwt") >= 30 && made_by("openssl") >= 6, "too few vectors of PyJWT or openssl");
    let names: BTreeSet<&str> = vectors.iter().map(|v| v.name.as_str()).collect();
    assert_eq!(names.len(), vectors.len(), "two vectors have one name");
}

#[test]
fn a_body_with_any_one_byte_changed_is_refused() {
    let File { verifiers, vectors } = file();
    for vector in vectors.iter().filter(|v| v.expect == "accepted").take(5) {
        let verifier = build(&verifiers[&vector.verifier]);
        let body = STANDARD.decode(&vector.body_base64).expect("base64");
        for at in 0..body.len() {
            let mut changed = body.clone();
            changed[at] ^= 1;
            let refused = verifier.verify(&vector.headers, &changed, vector.now).expect_err("a changed body");
            assert_eq!(refused.code(), "checksum_mismatch", "{} at {at}", vector.name);
        }
    }
}
