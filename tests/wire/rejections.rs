//! Every [`Rejection`] over a socket, and all vectors of the verifier's known answers: HTTP neither saves a bad request
//! nor spoils a good one.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dt_receiver::verify::{
    ASYMMETRIC_HEADER, DT_ISSUER, KeySet, Policy, Rejection, Secret, Signer, Verifier,
};
use serde::Deserialize;
use serde_json::Value;

use crate::client::{Client, Reply, ask, request, token, token_at};
use crate::harness::{KEY_ID, NOW, ORGANIZATION, SECRET, Setup, event};

#[derive(Deserialize)]
struct Vectors {
    verifiers: BTreeMap<String, Keys>,
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Keys {
    secrets: Vec<LabelledSecret>,
    key_set: Option<Value>,
    issuer: Option<String>,
    organization: Option<String>,
    policy: String,
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
    verifier: String,
    headers: Vec<(String, String)>,
    body_base64: String,
    now: i64,
    expect: String,
    by: Option<String>,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../vectors/verify.json")).expect("the vectors are readable")
}

impl Keys {
    fn verifier(&self) -> Verifier {
        let mut builder = Verifier::builder().policy(self.policy.parse().expect("a policy"));
        for LabelledSecret { label, secret } in &self.secrets {
            builder = builder.secret(label.as_str(), Secret::new(secret.as_str()).expect("not empty"));
        }
        if let (Some(keys), Some(organization), Some(issuer)) =
            (&self.key_set, &self.organization, &self.issuer)
        {
            let keys = KeySet::from_jwks(keys.to_string().as_bytes()).expect("a key set");
            builder = builder.key_set_of_issuer(keys, organization, issuer);
        }
        for (name, value) in &self.required_headers {
            builder = builder.require_header(name, Secret::new(value.as_str()).expect("not empty"));
        }
        builder.build().expect("a verifier")
    }
}

impl Vector {
    fn request(&self, body: &[u8]) -> Vec<u8> {
        let headers: Vec<(&str, &str)> = self.headers.iter().map(|(n, v)| (&**n, &**v)).collect();
        request("POST", &format!("/{}", self.verifier), &headers, body)
    }
}

/// The id of the event in a body, read without any code of ours; none if it is no delivery.
fn event_id_of(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let text = |member: &str| body["event"][member].as_str().filter(|text| !text.is_empty());
    text("eventType").and(text("eventId")).map(str::to_owned)
}

#[tokio::test]
async fn all_vectors_give_their_answers_over_a_socket() {
    let Vectors { verifiers, vectors } = vectors();
    let (mut setup, seen) = Setup::working();
    for (name, keys) in &verifiers {
        setup = setup.connector(name, &format!("/{name}"), |connector| connector.verifier = keys.verifier());
    }
    // A clock that jumps about must not make the window forget.
    let receiver = setup.config(|config| config.dedup_window = std::time::Duration::MAX).start().await;
    let mut client = Client::connect(receiver.address).await;
    let (mut wrong, mut skipped) = (Vec::new(), Vec::new());
    let (mut codes, mut ids, mut expired) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let (mut delivered, mut quarantined) = (Vec::new(), BTreeSet::new());
    for vector in &vectors {
        let body = STANDARD.decode(&vector.body_base64).expect("base64");
        let request = vector.request(&body);
        let head = request.len() - body.len();
        receiver.clock.set(vector.now * 1000);
        if head > 16 * 1024 {
            // hyper's own answer; it says nothing and closes.
            assert_eq!(ask(receiver.address, request).await.status, 431);
            skipped.push(&*vector.name);
            continue;
        }
        let reply = client.ask(request).await;
        let connector = &*vector.verifier;
        let (status, code) = match (&*vector.expect, event_id_of(&body)) {
            ("accepted", Some(id)) if ids.insert((connector, id.clone())) => {
                delivered.push((vector, body));
                (200, "accepted")
            }
            ("accepted", Some(_)) => (200, "duplicate"),
            ("accepted", None) => {
                quarantined.insert((connector, body));
                (200, "quarantined")
            }
            (code, _) => {
                if code == "expired" {
                    expired.insert((connector, body));
                }
                (401, code)
            }
        };
        codes.insert(reply.code());
        if !reply.is(status, code) {
            wrong.push(format!("{}: not {status} {code} but {} {}", vector.name, reply.status, reply.code()));
        }
    }
    assert!(wrong.is_empty(), "{} of {} are wrong:\n{}", wrong.len(), vectors.len(), wrong.join("\n"));
    assert_eq!(skipped, ["hs256_malformed_huge"]);
    for code in Rejection::CODES {
        assert!(codes.contains(code), "{code} never came over a socket");
    }
    // The sink has the received bytes of what was accepted, and nothing else.
    let records = seen.records();
    assert!(delivered.len() >= 20, "{} are too few to say anything", delivered.len());
    assert_eq!(records.len(), delivered.len());
    for (record, (vector, body)) in records.iter().zip(&delivered) {
        assert_eq!(record.body, body, "{}", vector.name);
        assert!(vector.by.is_none() || vector.by == Some(record.provenance.to_string()), "{}", vector.name);
    }
    let letters = receiver.letters();
    let of = |reason: &str| letters.iter().filter(|letter| letter.reason.code() == reason).count();
    assert_eq!((of("expired"), of("unreadable")), (expired.len(), quarantined.len()));
    assert_eq!(letters.len(), expired.len() + quarantined.len());
}

/// A connector that asks for both signatures and two headers.
fn strict() -> Verifier {
    let Vectors { verifiers, .. } = vectors();
    let keys = verifiers["asym"].key_set.as_ref().expect("a key set").to_string();
    Verifier::builder()
        .secret("default", Secret::new(SECRET).expect("not empty"))
        .key_set_of_issuer(KeySet::from_jwks(keys.as_bytes()).expect("a key set"), ORGANIZATION, DT_ISSUER)
        .policy(Policy::Both)
        .require_header("X-Tenant", Secret::new("Blue Team").expect("not empty"))
        .build()
        .expect("a verifier")
}

fn dt(kid: &str, issuer: &str, organization: &str) -> Signer {
    let key = include_bytes!("../vectors/keys/es256.pk8.der");
    Signer::asymmetric(key, kid, issuer, organization).expect("a signer")
}

#[tokio::test]
async fn what_the_connector_knows_is_never_told() {
    let (setup, seen) = Setup::working();
    let receiver =
        setup.connector("strict", "/strict", |strict_one| strict_one.verifier = strict()).start().await;
    let body = event(1);
    let good = dt(KEY_ID, DT_ISSUER, ORGANIZATION);
    let by_dt = |signer: &Signer| signer.sign(body.as_bytes(), NOW, "jti").expect("a token");
    let (secret, asymmetric, tenant) = (token(&body), by_dt(&good), "Blue Team".to_owned());
    let absent = || None;
    let cases = [
        ("signature_missing", absent(), Some(asymmetric.clone()), Some(tenant.clone())),
        ("signature_missing", Some(secret.clone()), absent(), Some(tenant.clone())),
        ("signature_malformed", Some("a.b".to_owned()), Some(asymmetric.clone()), Some(tenant.clone())),
        ("algorithm_not_allowed", Some(asymmetric.clone()), Some(asymmetric.clone()), Some(tenant.clone())),
        (
            "key_unknown",
            Some(secret.clone()),
            Some(by_dt(&dt("another", DT_ISSUER, ORGANIZATION))),
            Some(tenant.clone()),
        ),
        (
            "issuer_mismatch",
            Some(secret.clone()),
            Some(by_dt(&dt(KEY_ID, "https://example.test", ORGANIZATION))),
            Some(tenant.clone()),
        ),
        (
            "organization_mismatch",
            Some(secret.clone()),
            Some(by_dt(&dt(KEY_ID, DT_ISSUER, "another"))),
            Some(tenant.clone()),
        ),
        ("checksum_mismatch", Some(token("{}")), Some(asymmetric.clone()), Some(tenant.clone())),
        ("expired", Some(token_at(&body, NOW - 7200)), Some(asymmetric.clone()), Some(tenant.clone())),
        ("header_mismatch", Some(secret.clone()), Some(asymmetric.clone()), Some("Red Team".to_owned())),
        ("header_mismatch", Some(secret.clone()), Some(asymmetric.clone()), absent()),
    ];
    let mut client = Client::connect(receiver.address).await;
    let mut ask =
        async |secret: &Option<String>, asymmetric: &Option<String>, tenant: &Option<String>| -> Reply {
            let headers: Vec<(&str, &str)> =
                [("X-Dt-Signature", secret), (ASYMMETRIC_HEADER, asymmetric), ("X-Tenant", tenant)]
                    .into_iter()
                    .filter_map(|(name, value)| Some((name, value.as_deref()?)))
                    .collect();
            // Reading a reply searches it for what must not be told.
            client.ask(request("POST", "/strict", &headers, &body)).await
        };
    let mut bodies: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    for (code, secret, asymmetric, tenant) in &cases {
        let reply = ask(secret, asymmetric, tenant).await;
        reply.must_be(401, code);
        assert_eq!(
            reply.json().as_object().expect("an object").len(),
            3,
            "title, status and code: no detail"
        );
        let before = bodies.insert(code, reply.body.clone());
        assert!(before.is_none_or(|before| before == reply.body), "{code} says which of its causes it was");
    }
    assert!(seen.ids().is_empty());
    ask(&Some(secret), &Some(asymmetric), &Some(tenant)).await.must_be(200, "accepted");
}

#[tokio::test]
async fn headers_are_found_whatever_the_case_of_their_names() {
    let (setup, seen) = Setup::working();
    let receiver = setup.start().await;
    for (n, name) in ["x-dt-signature", "X-DT-SIGNATURE", "X-Dt-Signature"].into_iter().enumerate() {
        let body = event(u64::try_from(n).expect("small"));
        let request = request("POST", "/", &[(name, &token(&body))], &body);
        ask(receiver.address, request).await.must_be(200, "accepted");
    }
    assert_eq!(seen.ids().len(), 3);
    let (body, one, other) = (event(9), token(event(9)), token_at(event(9), NOW - 1));
    for twice in [[&one, &other], [&one, &one]] {
        let headers = [("X-Dt-Signature", &**twice[0]), ("x-dt-signature", &**twice[1])];
        let reply = ask(receiver.address, request("POST", "/", &headers, &body)).await;
        reply.must_be(401, "signature_malformed");
    }
}

/// Trailers come after the body; a signature there is none.
#[tokio::test]
async fn a_signature_in_a_trailer_does_not_count() {
    let (setup, seen) = Setup::working();
    let receiver = setup.start().await;
    let body = event(1);
    let mut request =
        crate::client::head("POST", "/", &[("Trailer", "X-Dt-Signature")], "Transfer-Encoding: chunked");
    let trailer = format!("{:x}\r\n{body}\r\n0\r\nX-Dt-Signature: {}\r\n\r\n", body.len(), token(&body));
    request.extend_from_slice(trailer.as_bytes());
    ask(receiver.address, request).await.must_be(401, "signature_missing");
    assert!(seen.ids().is_empty());
}

/// Users put `https://user:password@host/` into DT's form; what is sent then is an `Authorization` header (RFC 7617). It is
/// compared as all required headers are: in constant time, and as a whole.
#[tokio::test]
async fn credentials_in_the_endpoint_url_can_be_asked_for() {
    // printf 'user:password' | base64
    const CREDENTIALS: &str = "Basic dXNlcjpwYXNzd29yZA==";
    let (setup, seen) = Setup::working();
    let verifier = Verifier::builder()
        .secret("default", Secret::new(SECRET).expect("not empty"))
        .require_header("Authorization", Secret::new(CREDENTIALS).expect("not empty"))
        .build()
        .expect("a verifier");
    let receiver = setup.main(|main| main.verifier = verifier).start().await;
    let body = event(1);
    let signature = token(&body);
    for (credentials, status, code) in [
        (None, 401, "header_mismatch"),
        (Some("Basic dXNlcjpvdGhlcg=="), 401, "header_mismatch"),
        (Some("Basic dXNlcjpwYXNzd29yZA"), 401, "header_mismatch"),
        (Some(CREDENTIALS), 200, "accepted"),
    ] {
        let headers: Vec<(&str, &str)> = [("X-Dt-Signature", &*signature)]
            .into_iter()
            .chain(credentials.map(|credentials| ("Authorization", credentials)))
            .collect();
        ask(receiver.address, request("POST", "/", &headers, &body)).await.must_be(status, code);
    }
    // They are not kept with the event.
    assert!(seen.records().iter().all(|record| !format!("{record:?}").contains("dXNlcjpwYXNzd29yZA")));
}
