//! `verify --explain`: every cause there is, made on purpose and found again, in text and in JSON.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use dt_receiver::verify::{DT_ISSUER, Signer};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::program::{BODY, ISSUED, KID, ORGANIZATION, Program, SECRET, sign, sign_with};

/// A call of `verify`, and what must come of it.
struct Case {
    name: &'static str,
    program: Program,
    arguments: Vec<String>,
    body: Vec<u8>,
    at: i64,
}

impl Case {
    fn new(name: &'static str) -> Self {
        let arguments = Vec::new();
        Self { name, program: Program::new(), arguments, body: BODY.into(), at: ISSUED }
    }

    /// `--signature` with the body on standard input.
    fn signed(name: &'static str, token: impl Into<String>) -> Self {
        Self::new(name).with(["--body", "-", "--signature", &token.into()])
    }

    /// `--asymmetric` with the body on standard input.
    fn asymmetric(name: &'static str, token: &str) -> Self {
        Self::new(name).with(["--body", "-", "--asymmetric", token]).keys()
    }

    /// `--request` with this dump.
    fn request(name: &'static str, head: &str, body: impl AsRef<[u8]>) -> Self {
        let case = Self::new(name);
        let dump = [format!("POST / HTTP/1.1\r\n{head}\r\n").as_bytes(), body.as_ref()].concat();
        let path = case.program.file("dump.http", dump);
        case.with(["--request", &path])
    }

    fn keys(self) -> Self {
        let path = self.program.key_set();
        self.with(["--key-set", &path, "--organization", ORGANIZATION])
    }

    fn with<'a>(mut self, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        self.arguments.extend(arguments.into_iter().map(str::to_owned));
        self
    }

    fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The secret in `DT_SIGNATURE_SECRET`.
    fn secret(mut self, secret: impl AsRef<[u8]>) -> Self {
        self.program = self.program.env("DT_SIGNATURE_SECRET", secret);
        self
    }

    fn at(mut self, at: i64) -> Self {
        self.at = at;
        self
    }

    /// The refusal's code and the causes' codes, the same in text and in JSON; exit code 1; no secret shown.
    #[track_caller]
    fn gives(&self, code: &str, causes: &[&str]) {
        let at = self.at.to_string();
        let mut arguments = vec!["verify", "--explain", "--at", &at];
        arguments.extend(self.arguments.iter().map(String::as_str));
        let name = self.name;
        let text = self.program.run_with(&arguments, &self.body);
        assert_eq!(text.exit, 1, "{name}: {}{}", text.stdout, text.stderr);
        let mut lines = text.stdout.lines();
        let refusal = lines.next().unwrap();
        assert!(refusal.starts_with(&format!("refused: {code}: ")), "{name}: {}", text.stdout);
        let found: Vec<_> = lines.map(|line| line.split(": ").nth(1).unwrap_or(line)).collect();
        assert_eq!(found, causes, "{name}: {}", text.stdout);

        arguments.push("--json");
        let json = self.program.run_with(&arguments, &self.body);
        assert_eq!(json.exit, 1, "{name}: {}", json.stderr);
        let object = json.json();
        assert_eq!(object["code"], code, "{name}");
        let found: Vec<_> = object["causes"].as_array().unwrap().iter().map(|cause| &cause["code"]).collect();
        assert_eq!(found, causes, "{name}");
        for shown in [&text.stdout, &text.stderr, &json.stdout, &json.stderr] {
            assert!(!shown.contains(SECRET), "{name}: the secret is shown: {shown}");
            assert!(
                !shown.contains(['{', '}']) || shown.starts_with('{'),
                "{name}: a placeholder is left: {shown}"
            );
        }
    }
}

/// A token with this header and these claims, signed by nobody.
fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    format!("{}.{}.{}", part(header), part(claims), "A".repeat(43))
}

/// A token with any claims, signed with the usual secret.
fn sign_claims(claims: &Value) -> String {
    let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let signed = format!("{}.{}", part(&json!({"alg": "HS256", "typ": "JWT"})), part(claims));
    let keyed: Hmac<Sha256> = Hmac::new_from_slice(SECRET.as_bytes()).unwrap();
    let mac = keyed.chain_update(&signed).finalize().into_bytes();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac))
}

fn es256(kid: &str, issuer: &str, organization: &str, body: &str) -> String {
    let pem = include_str!("../../vectors/keys/test-only-es256.pem");
    let base64: String = pem.lines().filter(|line| !line.starts_with("---")).collect();
    let signer = Signer::asymmetric(&STANDARD.decode(base64).unwrap(), kid, issuer, organization).unwrap();
    signer.sign(body.as_bytes(), ISSUED, "cto3k00h4vq2o1t5g7a0").unwrap()
}

fn good_es256() -> String {
    es256(KID, DT_ISSUER, ORGANIZATION, BODY)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn utf16(text: &str) -> Vec<u8> {
    "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
}

fn pretty() -> String {
    BODY.replace(",\"", ",\n  \"").replace("\":", "\": ")
}

#[test]
fn tokens_that_were_copied_badly() {
    let token = sign(BODY);
    let (first, second) = token.split_at(50);
    for (changed, cause) in [
        (format!("\"{token}\""), "token_in_quotes"),
        (format!("'{token}' "), "token_in_quotes"),
        (format!("X-Dt-Signature: {token}"), "token_has_header_name"),
        (format!("x-dt-signature:{token}"), "token_has_header_name"),
        (format!("Bearer {token}"), "token_has_bearer"),
        (format!("bearer  {token}"), "token_has_bearer"),
        (format!("{first}\n  {second}"), "token_has_white_space"),
        (format!("{token}="), "token_has_padding"),
        (token[..200].to_owned(), "token_cut_short"),
        (token[..token.len() - 3].to_owned(), "token_cut_short"),
        (token[..token.len() - 6].to_owned(), "token_cut_short"),
        (token[..20].to_owned(), "token_cut_short"),
        ("not-a-token".to_owned(), "token_malformed"),
        (String::new(), "token_malformed"),
        (format!("{token}.{token}"), "token_malformed"),
    ] {
        let code = if cause == "token_cut_short" && changed.len() == token.len() - 3 {
            "signature_mismatch"
        } else {
            "signature_malformed"
        };
        Case::signed("token", changed).gives(code, &[cause]);
    }
    Case::signed("two at once", format!("\"Bearer {token}\""))
        .gives("signature_malformed", &["token_in_quotes", "token_has_bearer"]);
}

#[test]
fn headers_that_went_astray() {
    let token = sign(BODY);
    let other = sign_with("other", BODY);
    Case::request("none", "Host: a\r\n", BODY).gives("signature_missing", &["header_missing"]);
    for name in ["X_Dt_Signature", "HTTP_X_DT_SIGNATURE", "X-Forwarded-X-Dt-Signature"] {
        Case::request(name, &format!("{name}: {token}\r\n"), BODY)
            .gives("signature_missing", &["header_renamed"]);
    }
    let twice = format!("X-Dt-Signature: {other}\r\nx-dt-signature: {token}\r\n");
    Case::request("twice", &twice, BODY).gives("signature_malformed", &["header_repeated"]);
    Case::request("joined", &format!("X-Dt-Signature: {other}, {token}\r\n"), BODY)
        .gives("signature_malformed", &["header_repeated"]);
    Case::request("only the other", &format!("DT-Asymmetric-Signature: {}\r\n", good_es256()), BODY)
        .gives("signature_missing", &["only_other_header"]);
    Case::request("only the other", &format!("X-Dt-Signature: {token}\r\n"), BODY)
        .keys()
        .with(["--policy", "asymmetric"])
        .gives("signature_missing", &["only_other_header"]);
}

#[test]
fn tokens_of_the_other_scheme_or_of_none() {
    Case::signed("es256", good_es256()).gives("algorithm_not_allowed", &["token_in_other_header"]);
    Case::signed("es256, with keys", good_es256())
        .keys()
        .gives("algorithm_not_allowed", &["token_in_other_header"]);
    Case::asymmetric("hs256", &sign(BODY)).gives("algorithm_not_allowed", &["token_in_other_header"]);
    for alg in ["none", "HS512", "RS256"] {
        let token = unsigned(&json!({"alg": alg, "typ": "JWT"}), &json!({"iat": ISSUED}));
        Case::signed(alg, token).gives("algorithm_not_allowed", &["algorithm_not_allowed"]);
    }
    let checksum = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let token = sign_claims(&json!({"exp": ISSUED + 3600, "iat": ISSUED}));
    Case::signed("no checksum", token).gives("checksum_missing", &["checksum_missing"]);
    let token = sign_claims(&json!({"checksum_sha256": checksum}));
    Case::signed("no exp", token).gives("claims_missing", &["claims_missing"]);
    let token = sign_claims(&json!({"exp": "soon", "checksum_sha256": checksum}));
    Case::signed("claims of wrong types", token).gives("signature_malformed", &["token_malformed"]);
}

#[test]
fn keys_and_claims_of_the_asymmetric_scheme() {
    let token = |kid, issuer, organization| es256(kid, issuer, organization, BODY);
    Case::asymmetric("kid", &token("new", DT_ISSUER, ORGANIZATION)).gives("key_unknown", &["unknown_key"]);
    Case::asymmetric("key", &token("test-es256-2", DT_ISSUER, ORGANIZATION))
        .gives("signature_mismatch", &["token_altered"]);
    Case::asymmetric("iss", &token(KID, "https://example.org", ORGANIZATION))
        .gives("issuer_mismatch", &["wrong_issuer"]);
    Case::asymmetric("sub", &token(KID, DT_ISSUER, "another"))
        .gives("organization_mismatch", &["wrong_organization"]);
    Case::asymmetric("bearer", &format!("Bearer {}", good_es256()))
        .gives("signature_malformed", &["token_has_bearer"]);
    Case::asymmetric("cut", &good_es256()[..300]).gives("signature_malformed", &["token_cut_short"]);
    Case::asymmetric("late", &good_es256())
        .body(pretty())
        .at(ISSUED + 7000)
        .gives("checksum_mismatch", &["body_reformatted", "expired"]);
}

#[test]
fn secrets_that_were_kept_badly() {
    let token = sign(BODY);
    for (secret, cause) in [
        (format!("{SECRET}\n"), "secret_has_white_space"),
        (format!(" {SECRET} "), "secret_has_white_space"),
        (format!("\"{SECRET}\""), "secret_in_quotes"),
        (format!("'{SECRET}'"), "secret_in_quotes"),
        (format!("DT_SIGNATURE_SECRET={SECRET}"), "secret_has_name"),
        (format!("# settings\nexport A=b\nexport SECRET = {SECRET}\nC=d"), "secret_has_name"),
        (format!("\u{feff}{SECRET}"), "secret_has_bom"),
        (STANDARD.encode(SECRET), "secret_is_base64"),
        (URL_SAFE_NO_PAD.encode(SECRET), "secret_is_base64"),
        (SECRET.bytes().map(|byte| format!("{byte:02x}")).collect(), "secret_is_hex"),
        ("wrong".to_owned(), "unknown_secret"),
    ] {
        Case::signed("secret", &token).secret(secret).gives("signature_mismatch", &[cause]);
    }
    Case::signed("line end", sign_with(format!("{SECRET}\n"), BODY))
        .gives("signature_mismatch", &["secret_lacks_newline"]);
    Case::signed("decoded", sign_with(STANDARD.encode(SECRET), BODY))
        .gives("signature_mismatch", &["secret_was_decoded"]);
    Case::signed("a line of settings in quotes", &token)
        .secret(format!("S=\"{SECRET}\""))
        .gives("signature_mismatch", &["secret_has_name", "secret_in_quotes"]);
}

#[test]
fn secrets_in_files() {
    let token = sign(BODY);
    let case = |name, content: Vec<u8>| {
        let case = Case::signed(name, &token).secret("wrong");
        let path = case.program.file("secret.txt", content);
        case.with(["--secret-file", &path])
    };
    case("utf-16", utf16(SECRET)).gives("signature_mismatch", &["secret_has_bom"]);
    case("utf-16 with a line end", utf16(&format!("{SECRET}\r\n")))
        .gives("signature_mismatch", &["secret_has_bom"]);
    case("two line ends", format!("{SECRET}\n\n").into())
        .gives("signature_mismatch", &["secret_has_white_space"]);
    case("in the variable", b"other".to_vec()).secret(SECRET).gives("signature_mismatch", &["other_secret"]);
    // Of several secrets, the one that would match is named.
    let case = case("the second", b"other".to_vec());
    let path = case.program.file("rotated.txt", format!("'{SECRET}'"));
    let case = case.with(["--secret-file", &path]);
    case.gives("signature_mismatch", &["secret_in_quotes"]);
    let arguments: Vec<_> =
        ["verify", "--explain"].into_iter().chain(case.arguments.iter().map(String::as_str)).collect();
    let outcome = case.program.run_with(&arguments, &case.body);
    assert!(outcome.stdout.contains("The secret \"rotated\" matches"), "{}", outcome.stdout);
}

#[test]
fn bodies_that_were_changed_on_the_way() {
    let token = sign(BODY);
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
    zlib.write_all(BODY.as_bytes()).unwrap();
    let (half, other) = BODY.split_at(100);
    let python = BODY.replace(",\"", ", \"").replace("\":", "\": ");
    let cases: Vec<(Vec<u8>, &[&str])> = vec![
        (format!("{BODY}\n").into(), &["body_has_newline"]),
        (format!("{BODY}\r\n").into(), &["body_has_newline"]),
        (format!("{BODY}\n \n").into(), &["body_has_newline"]),
        (format!("\u{feff}{BODY}").into(), &["body_has_bom"]),
        (pretty().into(), &["body_reformatted"]),
        (format!("{}\n", pretty()).into(), &["body_reformatted"]),
        (pretty().replace('\n', "\r\n").into(), &["body_reformatted"]),
        (python.clone().into(), &["body_reformatted"]),
        (BODY.replace('ø', "\\u00f8").into(), &["body_reescaped"]),
        (
            BODY.replace("projects/", "projects\\/").replace("/devices", "\\/devices").into(),
            &["body_reescaped"],
        ),
        (python.replace('ø', "\\u00F8").into(), &["body_reformatted", "body_reescaped"]),
        (gzip(BODY.as_bytes()), &["body_is_compressed"]),
        (zlib.finish().unwrap(), &["body_is_compressed"]),
        (STANDARD.encode(BODY).into(), &["body_is_base64"]),
        (format!("{}\n", STANDARD.encode(BODY)).into(), &["body_is_base64"]),
        (STANDARD.encode(gzip(BODY.as_bytes())).into(), &["body_is_base64", "body_is_compressed"]),
        (json!({"body": BODY, "isBase64Encoded": false}).to_string().into(), &["body_is_wrapped"]),
        (
            json!({"body": STANDARD.encode(BODY), "isBase64Encoded": true}).to_string().into(),
            &["body_is_wrapped"],
        ),
        (json!(BODY).to_string().into(), &["body_is_wrapped"]),
        (format!("64\r\n{half}\r\n{:x}\r\n{other}\r\n0\r\n\r\n", other.len()).into(), &["body_is_chunked"]),
        (utf16(BODY), &["body_is_utf16"]),
        (utf16(&format!("{BODY}\r\n")), &["body_is_utf16"]),
        (BODY.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect(), &["body_reencoded"]),
        (BODY.bytes().map(char::from).collect::<String>().into(), &["body_reencoded"]),
        (Vec::new(), &["body_empty"]),
        (b" \n".to_vec(), &["body_empty"]),
        (half.into(), &["body_cut_short"]),
        (b"{}".to_vec(), &["other_body"]),
        (BODY.replace("21.50", "21.6").into(), &["other_body"]),
        (gzip(&vec![b' '; 5_000_000]), &["other_body"]),
    ];
    for (body, causes) in cases {
        Case::signed("body", &token).body(body).gives("checksum_mismatch", causes);
    }
}

#[test]
fn bodies_that_were_signed_in_another_form() {
    let text = pretty() + "\n";
    let crlf = text.replace('\n', "\r\n");
    Case::signed("lacks", sign(format!("{BODY}\n"))).gives("checksum_mismatch", &["body_lacks_newline"]);
    Case::signed("crlf", sign(&text)).body(crlf.clone()).gives("checksum_mismatch", &["body_has_crlf"]);
    Case::signed("lf", sign(&crlf)).body(text.clone()).gives("checksum_mismatch", &["body_has_lf"]);
    Case::signed("crlf and trimmed", sign(&text))
        .body(crlf.trim_end())
        .gives("checksum_mismatch", &["body_lacks_newline", "body_has_crlf"]);
    let spaced = r#"{"a": [1, 2.0, "b,c:d"]}"#;
    Case::signed("python", sign(spaced))
        .body(r#"{"a":[1,2.0,"b,c:d"]}"#)
        .gives("checksum_mismatch", &["body_reformatted"]);
    Case::signed("escaped", sign(r#"{"a":"\u00f8"}"#))
        .body(r#"{"a":"ø"}"#)
        .gives("checksum_mismatch", &["body_reescaped"]);
}

/// The body as it comes out of a program that parses it and writes it again.
fn rewritten(body: &str) -> String {
    // A map of `serde_json` sorts its keys, as many a language's does.
    let value: serde_json::Value = serde_json::from_str(body).unwrap();
    value.to_string()
}

#[test]
fn bodies_that_were_parsed_and_written_again() {
    use dt_receiver::event::{EventType, Sample};
    for event_type in EventType::KNOWN {
        let sample = Sample {
            event_type,
            event_id: "ctsk3vkt1l6uni5ek9ig",
            project: "bhmh0143iktucae701vg",
            device: "bvj2geoul7hg008c0ab0",
            unix_millis: 1_736_000_000_000,
            seed: 7,
        };
        let body = sample.body();
        let again = rewritten(&body);
        assert_ne!(again, body);
        let spaced = again.replace(',', ", ").replace("\":", "\": ");
        for changed in [again, spaced] {
            Case::signed("sorted", sign(&body))
                .body(changed)
                .gives("checksum_mismatch", &["body_reserialised"]);
        }
    }
    // As DT itself wrote them, with other ids: `updateTime` is not the last member.
    for data in [
        r#""temperature":{"value":27,"updateTime":"2024-05-29T10:34:03.970415Z","samples":[{"value":27,"sampleTime":"2024-05-29T10:34:03.970415Z"}],"isBackfilled":false}"#,
        r#""networkStatus":{"signalStrength":99,"rssi":0,"updateTime":"2021-04-21T08:15:43.520167Z","cloudConnectors":[{"id":"emulated-ccon","signalStrength":99,"rssi":0}],"transmissionMode":"LOW_POWER_STANDARD_MODE"}"#,
    ] {
        let name = data.split('"').nth(1).unwrap();
        let body = format!(
            r#"{{"event":{{"eventId":"a","targetName":"b","eventType":"{name}","data":{{{data}}},"timestamp":"c"}},"labels":{{}},"metadata":{{"deviceId":"d"}}}}"#
        );
        Case::signed("captured", sign(&body))
            .body(rewritten(&body))
            .gives("checksum_mismatch", &["body_reserialised"]);
    }
    // Labels in an order of the user's own.
    let labels = r#"{"event":{"eventId":"a"},"labels":{"name":"x","floor":"2","area":"b"},"metadata":{"deviceId":"d"}}"#;
    Case::signed("labels", sign(labels))
        .body(rewritten(labels))
        .gives("checksum_mismatch", &["body_reserialised"]);
    // A key that a map would lose, and what is not JSON.
    for (odd, cause) in [
        (r#"{"a":1,"a":2}"#, "other_body"),
        ("nonsense", "other_body"),
        (r#"{"b":1,"#, "body_cut_short"),
        ("[[[[", "body_cut_short"),
    ] {
        Case::signed("odd", sign(r#"{"x":1}"#)).body(odd).gives("checksum_mismatch", &[cause]);
    }
}

#[test]
fn bodies_whose_numbers_are_spelt_in_another_way() {
    let with = |number: &str| BODY.replace("21.50", number);
    assert_ne!(with("1"), BODY);
    for (signed, received) in [
        ("1.0", "1"),
        ("1", "1.0"),
        ("1e3", "1000"),
        ("1e3", "1000.0"),
        ("1E3", "1000.0"),
        ("1.0E3", "1000"),
        ("1e+03", "1000"),
        ("1000", "1e3"),
        ("1000", "1e+03"),
        ("21.50", "21.5"),
        ("21.5", "21.50"),
        ("-0.0", "-0"),
        ("1.5e-7", "1.5e-07"),
        ("0.00000015", "1.5e-7"),
        ("1.5e-7", "0.00000015"),
    ] {
        Case::signed("respelt", sign(with(signed)))
            .body(with(received))
            .gives("checksum_mismatch", &["body_numbers_respelt"]);
    }
    // Only some of several, and the keys as well.
    let signed = r#"{"event":{"eventId":"a","eventType":"temperature","data":{"temperature":{"value":20.0,"samples":[{"value":20},{"value":3.1}]}}},"labels":{}}"#;
    let received = &signed.replace("20.0", "20");
    Case::signed("some", sign(signed))
        .body(received.as_str())
        .gives("checksum_mismatch", &["body_numbers_respelt"]);
    Case::signed("both", sign(signed))
        .body(rewritten(received))
        .gives("checksum_mismatch", &["body_reserialised", "body_numbers_respelt"]);
}

#[test]
fn dumps_with_a_wrong_content_length() {
    let head = |length: usize| format!("X-Dt-Signature: {}\r\nContent-Length: {length}\r\n", sign(BODY));
    Case::request("too short", &head(100), BODY).gives("checksum_mismatch", &["body_beyond_content_length"]);
    Case::request("pretty-printed", &head(BODY.len()), pretty())
        .gives("checksum_mismatch", &["body_beyond_content_length", "body_reformatted"]);
    Case::request("cut short", &head(BODY.len()), &BODY[..200])
        .gives("checksum_mismatch", &["body_cut_short"]);
}

#[test]
fn clocks_that_are_off() {
    let case = |late: i64| Case::signed("time", sign(BODY)).at(ISSUED + late);
    case(3660).gives("expired", &["expired"]);
    case(400_000).gives("expired", &["expired"]);
    case(-61).gives("not_yet_valid", &["clock_behind"]);
    case(-7200).gives("not_yet_valid", &["clock_behind"]);
    let words = |late: i64| {
        let (token, at) = (sign(BODY), (ISSUED + late).to_string());
        let call = ["verify", "--explain", "--body", "-", "--signature", &token, "--at", &at];
        Program::new().run_with(&call, BODY.as_bytes()).stdout
    };
    let late = words(3600 + 305);
    assert!(late.contains("5 minutes 5 seconds (305 s)") && late.contains("NTP"), "{late}");
    assert!(late.contains("--at 2025-01-04T14:13:20Z"), "{late}");
    assert!(words(400_000).contains("12 hours"), "{}", words(400_000));
    assert!(words(-7200).contains("time zone") && words(-7200).contains("2 hours (7200 s)"));
    assert!(!words(-90).contains("time zone"));
}

#[test]
fn causes_of_several_kinds_are_found_together() {
    let body = format!("{BODY}\n");
    Case::signed("body and time", sign(BODY))
        .body(body.clone())
        .at(ISSUED + 4000)
        .gives("checksum_mismatch", &["body_has_newline", "expired"]);
    Case::signed("secret and body", sign(BODY))
        .secret(format!("{SECRET}\n"))
        .body(body.clone())
        .gives("signature_mismatch", &["secret_has_white_space", "body_has_newline"]);
    Case::signed("token and secret", format!("Bearer {}", sign(BODY)))
        .secret(format!("{SECRET}\n"))
        .gives("signature_malformed", &["token_has_bearer", "secret_has_white_space"]);
    Case::signed("all", format!("Bearer {}", sign(BODY)))
        .secret(format!("{SECRET} "))
        .body(body)
        .at(ISSUED + 4000)
        .gives(
            "signature_malformed",
            &["token_has_bearer", "secret_has_white_space", "body_has_newline", "expired"],
        );
    Case::signed("secret, and another body", sign("{}"))
        .secret(format!("{SECRET}\n"))
        .gives("signature_mismatch", &["secret_has_white_space", "other_body"]);
    Case::signed("both schemes", sign(BODY))
        .with(["--policy", "both", "--asymmetric", &good_es256()])
        .keys()
        .body(format!("{BODY}\n"))
        .gives("checksum_mismatch", &["body_has_newline"]);
    Case::signed("both schemes, one bad", sign(BODY))
        .with(["--policy", "both", "--asymmetric", &format!("'{}'", good_es256())])
        .keys()
        .gives("signature_malformed", &["token_in_quotes"]);
}
