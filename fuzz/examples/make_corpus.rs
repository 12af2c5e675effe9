//! Makes the seeds of all fuzz targets, in `fuzz/corpus/<target>/`, from the committed vectors, the samples of the library
//! and what is written here. Run it again after any of these changes; what it made before and no longer makes goes.
//!
//! ```text
//! cargo run --manifest-path fuzz/Cargo.toml --example make_corpus
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::{fs, io};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dt_receiver_fuzz::NOW;
use dt_receiver_fuzz::segments::{self, group};
use dt_receiver_fuzz::setups::{SETUPS, VECTORS, setup};
use dt_verify::event::{EventType, Sample};
use dt_verify::{Secret, Signer, xid};
use serde_json::Value;

/// Longer seeds would slow down every mutation.
const MAX_SEED: usize = 6000;

/// How many vectors of one verifier and one expectation are worth having.
const MAX_ALIKE: usize = 3;

/// The project that the target's second connector allows.
const PROJECT: &str = "bhmh0143iktucae701vg";

fn main() -> io::Result<()> {
    write("verify_request", &requests())?;
    write("event_parse", &bodies())?;
    write("config_read", &configurations())?;
    write("http_ingest", &connections())?;
    write("proxy_header", &proxy_headers())?;
    write("log_recovery", &folders())
}

/// Seeds by name.
type Seeds = BTreeMap<String, Vec<u8>>;

fn write(target: &str, seeds: &Seeds) -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    for (name, content) in seeds {
        fs::write(folder.join(name), content)?;
    }
    let bytes: usize = seeds.values().map(Vec::len).sum();
    eprintln!("{target}: {} seeds, {} KiB", seeds.len(), bytes.div_ceil(1024));
    Ok(())
}

fn vectors() -> Vec<Value> {
    let file: Value = serde_json::from_str(VECTORS).expect("the vectors are readable");
    file["vectors"].as_array().expect("a list").clone()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().expect("a text")
}

fn body_of(vector: &Value) -> Vec<u8> {
    STANDARD.decode(text(vector, "body_base64")).expect("base64")
}

fn letter(verifier: &str) -> char {
    let at = SETUPS.iter().position(|setup| setup.name == verifier).expect("a verifier of the vectors");
    char::from(b'a' + u8::try_from(at).expect("few"))
}

/// Vectors, and claims that the target signs.
fn requests() -> Seeds {
    let mut seeds = Seeds::new();
    let mut alike: BTreeMap<(String, String), usize> = BTreeMap::new();
    for vector in vectors() {
        let (verifier, expect) = (text(&vector, "verifier"), text(&vector, "expect"));
        let mut seed = format!("{}{}\n", letter(verifier), vector["now"]).into_bytes();
        for header in vector["headers"].as_array().expect("a list") {
            let (name, value) = (header[0].as_str().expect("a text"), header[1].as_str().expect("a text"));
            seed.extend_from_slice(format!("{name}: {value}\n").as_bytes());
        }
        seed.push(b'\n');
        seed.extend(body_of(&vector));
        let seen = alike.entry((verifier.to_owned(), expect.to_owned())).or_default();
        if seed.len() <= MAX_SEED && *seen < MAX_ALIKE {
            *seen += 1;
            seeds.insert(format!("{verifier}-{}", text(&vector, "name")), seed);
        }
    }

    let hs = r#"{"alg":"HS256","typ":"JWT"}"#;
    let kid = setup("asym").key_set.as_ref().and_then(|set| set["keys"][0]["kid"].as_str()).unwrap_or("");
    let es = format!(r#"{{"alg":"ES256","kid":"{kid}","typ":"JWT"}}"#);
    let iss =
        r#""iss":"https://identity.disruptive-technologies.com/data-connector","sub":"c0ngtest0rg0vd5c9a1g""#;
    let (iat, exp) = (NOW - 2, NOW + 3598);
    let secret_claims = [
        (
            "both_sums",
            format!(
                r#"{{"checksum":"$SHA1","checksum_sha256":"$SHA256","exp":{exp},"iat":{iat},"jti":"x"}}"#
            ),
        ),
        ("sha1", format!(r#"{{"checksum":"$SHA1","exp":{exp}}}"#)),
        ("null_sum", format!(r#"{{"checksum":null,"checksum_sha256":"$SHA256","exp":{exp}.5,"iat":null}}"#)),
        ("no_sum", format!(r#"{{"exp":{exp}}}"#)),
        ("no_exp", r#"{"checksum_sha256":"$SHA256"}"#.to_owned()),
        ("expired", format!(r#"{{"checksum_sha256":"$SHA256","exp":{}}}"#, NOW - 60)),
        ("nearly_expired", format!(r#"{{"checksum_sha256":"$SHA256","exp":{}}}"#, NOW - 59)),
        ("future", format!(r#"{{"checksum_sha256":"$SHA256","exp":{exp},"iat":{}}}"#, NOW + 61)),
        ("nbf", format!(r#"{{"checksum_sha256":"$SHA256","exp":{exp},"nbf":{}}}"#, NOW + 60)),
        ("huge_exp", r#"{"checksum_sha256":"$SHA256","exp":9223372036854775807,"iat":-1e300}"#.to_owned()),
        ("float_exp", r#"{"checksum_sha256":"$SHA256","exp":1e300,"nbf":-9223372036854775808}"#.to_owned()),
        ("text_exp", r#"{"checksum_sha256":"$SHA256","exp":"1736003598"}"#.to_owned()),
        ("twice", format!(r#"{{"checksum_sha256":"$SHA256","exp":{exp},"exp":{exp}}}"#)),
        ("array", "[\"$SHA256\"]".to_owned()),
    ];
    for (name, claims) in &secret_claims {
        for verifier in ["secret", "both", "required"] {
            let seed = format!(
                "{}{NOW}\nX-Dt-Signature: !{hs}!{claims}\nx-my-header: my-value\n\n{{}}",
                letter(verifier)
            );
            seeds.insert(format!("signed-{verifier}-{name}"), seed.into_bytes());
        }
    }
    let asymmetric_claims = [
        ("good", format!(r#"{{"checksum_sha256":"$SHA256","exp":{exp},"iat":{iat},{iss},"jti":"x"}}"#)),
        ("no_exp", format!(r#"{{"checksum_sha256":"$SHA256","iat":{iat},{iss}}}"#)),
        ("no_times", format!(r#"{{"checksum_sha256":"$SHA256",{iss}}}"#)),
        ("no_iss", format!(r#"{{"checksum_sha256":"$SHA256","exp":{exp},"sub":"c0ngtest0rg0vd5c9a1g"}}"#)),
        ("expired", format!(r#"{{"checksum_sha256":"$SHA256","exp":{},{iss}}}"#, NOW - 61)),
    ];
    for (name, claims) in &asymmetric_claims {
        for verifier in ["asym", "asym_one", "either"] {
            let seed = format!("{}{NOW}\nDT-Asymmetric-Signature: !{es}!{claims}\n\n{{}}", letter(verifier));
            seeds.insert(format!("signed-{verifier}-{name}"), seed.into_bytes());
        }
        for verifier in ["both", "either"] {
            let (_, secret) = &secret_claims[0];
            let seed = format!(
                "{}{NOW}\nX-Dt-Signature: !{hs}!{secret}\nDT-Asymmetric-Signature: !{es}!{claims}\n\nbody",
                letter(verifier)
            );
            seeds.insert(format!("signed-two-{verifier}-{name}"), seed.into_bytes());
        }
    }
    seeds
}

fn sample(event_type: EventType, seed: u64, project: &str) -> String {
    let millis = NOW * 1000;
    let event_id = xid(NOW, seed.to_be_bytes());
    Sample {
        event_type,
        event_id: &event_id,
        project,
        device: "emuc1ul5qf2ghkeoq4nj7d0",
        unix_millis: millis,
        seed,
    }
    .body()
}

/// Bodies of the vectors, a sample of each event type, and edges of JSON.
fn bodies() -> Seeds {
    let mut seeds = Seeds::new();
    let mut seen = BTreeSet::new();
    for vector in vectors() {
        let body = body_of(&vector);
        if body.len() <= MAX_SEED && seen.insert(body.clone()) {
            seeds.insert(format!("vector-{}", text(&vector, "name")), body);
        }
    }
    for event_type in EventType::KNOWN {
        for seed in 0..2 {
            let body = sample(event_type.clone(), seed, "c0md3mm0c7pet3vico8g");
            seeds.insert(format!("sample-{event_type}-{seed}"), body.into_bytes());
        }
    }
    let by_hand: [(&str, &str); 22] = [
        ("least", r#"{"event":{"eventId":"e","eventType":"touch"}}"#),
        ("escaped", r#"{"\u0065vent":{"eventId":"\u00e9\ud83d\udd11","eventType":"t\n"}}"#),
        ("half_surrogate", r#"{"event":{"eventId":"\ud83d","eventType":"touch"}}"#),
        ("large_number", r#"{"event":{"eventId":"e","eventType":"touch","n":1e999}}"#),
        ("small_number", r#"{"event":{"eventId":"e","eventType":"touch","n":-0.0e-400}}"#),
        ("repeated", r#"{"event":{"eventId":"e","eventId":"f","eventType":"touch"}}"#),
        ("event_twice", r#"{"event":{"eventId":"e","eventType":"touch"},"event":1}"#),
        (
            "target_twice",
            r#"{"event":{"eventId":"e","eventType":"x","targetName":"projects/p","targetName":5}}"#,
        ),
        (
            "metadata_twice",
            r#"{"metadata":{"deviceId":"d"},"event":{"eventId":"e","eventType":"x"},"metadata":[]}"#,
        ),
        ("private_number", r#"{"event":{"eventId":"e","eventType":"x","$serde_json::private::Number":"1"}}"#),
        (
            "private_raw",
            r#"{"event":{"eventId":"e","eventType":"x"},"a":{"$serde_json::private::RawValue":"["}}"#,
        ),
        ("arrays", r#"[["e","touch"]]"#),
        ("types", r#"{"event":{"eventId":1,"eventType":null,"targetName":{},"timestamp":[]},"labels":[]}"#),
        ("labels", r#"{"event":{"eventId":"e","eventType":"x"},"labels":{"a":1,"b":null,"c":{"d":[]}}}"#),
        (
            "unreadable",
            r#"{"event":{"eventId":"e","eventType":"temperature","data":{"temperature":{"value":"x"}}}}"#,
        ),
        ("no_payload", r#"{"event":{"eventId":"e","eventType":"co2","data":{}}}"#),
        ("data_null", r#"{"event":{"eventId":"e","eventType":"co2","data":null}}"#),
        (
            "data_extra",
            r#"{"event":{"eventId":"e","eventType":"co2","data":{"co2":{"ppm":4.5e2,"x":1},"y":2}}}"#,
        ),
        (
            "keyed_labels",
            r#"{"event":{"eventId":"e","eventType":"labelsChanged","data":{"labelsChanged":{"added":{}}}}}"#,
        ),
        (
            "odd_time",
            r#"{"event":{"eventId":"e","eventType":"touch","timestamp":"2016-12-31T23:59:60.1234567891+14:00"}}"#,
        ),
        ("space", " \t\r\n{ \"event\" : {\r\n\"eventId\":\"e\",\n\"eventType\":\"touch\" } } \n"),
        ("delete", "{\"event\":{\"eventId\":\"\u{7f}\u{85}\u{2028}\",\"eventType\":\"\u{0}\"}}"),
    ];
    for (name, body) in by_hand {
        seeds.insert(format!("hand-{name}"), body.as_bytes().to_vec());
    }
    let long = "x".repeat(257);
    seeds.insert(
        "hand-long_id".to_owned(),
        format!(r#"{{"event":{{"eventId":"{long}","eventType":"touch"}}}}"#).into_bytes(),
    );
    for depth in [126, 127, 128] {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        let body = format!(r#"{{"event":{{"eventId":"e","eventType":"x"}},"a":{open}{close}}}"#);
        seeds.insert(format!("hand-deep_{depth}"), body.into_bytes());
    }
    seeds
}

/// Folders of segments. Their groups get their checksums in the target.
fn folders() -> Seeds {
    /// The first bytes of a group that is damaged: it has a checksum, and that is wrong.
    fn damaged(mut group: Vec<u8>) -> Vec<u8> {
        group[4] ^= 0xff;
        group
    }
    let sink: &[u8] = &[1, 4, b'f', b'i', b'l', b'e', 0, 0, 0, 0, 0];
    // No sinks, the next one is 1, segment 1 is needed, no letters, no connectors.
    let empty: &[u8] = &[6, 0, 1, 1, 0, 0];
    let with_sink: &[u8] = &[&[6, 1][..], sink, &[2, 1, 6, 0]].concat();
    let registered: &[u8] = &[&[2][..], sink].concat();
    // For sink 1, received at 100, of the connector `c`, by `secret:s`, and no more than has to be.
    let event = |id: u8| -> Vec<u8> {
        let texts: &[u8] = b"\x01c\x08secret:s";
        [
            &[0, 4, 1, 0, 0, 0, 200, 1][..],
            texts,
            &[1, id],
            b"\x05touch",
            &[0, 0, 0, 2],
            b"[]",
            &[2],
            b"[]",
            &[2],
            b"{}",
        ]
        .concat()
    };
    let (a, b, c) = (event(b'a'), event(b'b'), event(b'c'));
    let (a, b, c): (&[u8], &[u8], &[u8]) = (&a, &b, &c);
    let whole = [group(1, &[empty]), group(1, &[registered]), group(1, &[a, b]), group(3, &[c])].concat();
    let sealed = [&whole[..], &group(4, &[])].concat();
    let hole = [group(1, &[empty]), damaged(group(1, &[a])), group(2, &[b]), group(3, &[c])].concat();
    let torn = [&whole[..], &group(4, &[a])[..30]].concat();
    let cursor = [&whole[..], &group(4, &[&[1, 1, 4, 0, 0], &[5, 1]])].concat();
    let skipped = [group(1, &[empty]), group(1, &[&[7, 20]]), group(10, &[a])].concat();
    let next = [group(3, &[with_sink]), group(3, &[b, c])].concat();
    let gap = [group(9, &[with_sink]), group(9, &[a])].concat();
    let no_snapshot = group(1, &[a]);
    let no_length = [&b"DTgr\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0"[..], empty].concat();
    let folder = |marked: u8, segments: &[(u8, u8, u8, &[u8])]| {
        let mut seed = vec![marked];
        for (number, flags, first_seq, groups) in segments {
            segments::write(&mut seed, *number, *flags, *first_seq, groups);
        }
        seed
    };
    let committed = include_bytes!("../../tests/spools/v2/segment-0000000001.log");
    let used = committed.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let seeds: [(&str, Vec<u8>); 17] = [
        ("committed", folder(1, &[(1, 0, 1, &committed[512..used])])),
        ("whole", folder(1, &[(1, 0, 1, &whole)])),
        ("sealed", folder(1, &[(1, 0, 1, &sealed)])),
        ("hole", folder(1, &[(1, 0, 1, &hole)])),
        ("torn", folder(1, &[(1, 0, 1, &torn)])),
        ("short", folder(1, &[(1, 0, 1, &whole), (2, 2, 3, &next)])),
        ("cursor", folder(1, &[(1, 0, 1, &cursor)])),
        ("skipped", folder(1, &[(1, 0, 1, &skipped)])),
        ("next_makes_void", folder(2, &[(1, 0, 1, &whole), (2, 0, 3, &next)])),
        ("hole_before_next", folder(2, &[(1, 0, 1, &hole), (2, 0, 3, &next)])),
        ("gap", folder(0, &[(1, 0, 1, &whole), (2, 0, 9, &gap)])),
        ("no_snapshot", folder(0, &[(1, 0, 1, &no_snapshot)])),
        ("no_length", folder(0, &[(1, 0, 1, &no_length)])),
        ("damaged_header", folder(2, &[(1, 1, 1, &whole), (2, 0, 3, &next)])),
        ("foreign", folder(2, &[(1, 4, 1, &whole), (2, 0, 3, &next)])),
        ("newer", folder(2, &[(1, 0, 1, &whole), (2, 8, 3, &next)])),
        ("missing", folder(5, &[(2, 0, 3, &next), (4, 0, 9, &gap)])),
    ];
    seeds.into_iter().map(|(name, seed)| (name.to_owned(), seed)).collect()
}

/// Headers of both versions, each with the start of a request behind it.
fn proxy_headers() -> Seeds {
    let v2 = |command: u8, family: u8, rest: &[u8]| {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, rest].concat()
    };
    let v4 = [192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x67, 0x01, 0xbb];
    let seeds: [(&str, Vec<u8>); 8] = [
        ("v1_tcp4", b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n".to_vec()),
        ("v1_tcp6", b"PROXY TCP6 2001:db8::7 ::1 4711 443\r\n".to_vec()),
        ("v1_unknown", b"PROXY UNKNOWN\r\n".to_vec()),
        ("v2_local", v2(0x20, 0, b"")),
        ("v2_tcp4", v2(0x21, 0x11, &v4)),
        ("v2_tcp4_more", v2(0x21, 0x11, &[&v4[..], &[4, 0, 2, 0, 0]].concat())),
        ("v2_tcp6", v2(0x21, 0x21, &[7; 36])),
        ("v2_unix", v2(0x21, 0x31, &[b'x'; 216])),
    ];
    let with_request = |bytes: Vec<u8>| [bytes, b"POST / HTTP/1.1\r\n".to_vec()].concat();
    seeds.into_iter().map(|(name, bytes)| (name.to_owned(), with_request(bytes))).collect()
}

/// Configurations, for the environment and the files that the target makes up.
fn configurations() -> Seeds {
    const LEAST: &str = "[[connector]]\nname = \"a\"\nsecrets = [{ env = \"SECRET\" }]\n";
    let all = r#"listen = "0.0.0.0:8080"
admin = "off"
mode = "direct"
data = "/var/lib/dt-receiver"
dead_letters = "kafka:dead"
drain_timeout = "10s"
dedup_window = "72h"
dedup_max = 1000
socket_mode = "0660"
trusted_proxies = ["10.0.0.0/8", "fd00::1", "unix"]
client_header = "Forwarded"
proxy_protocol = true

[tls]
certificate = "cert.pem"
key = "key.pem"
client_ca = "cert.pem"
min_version = "1.2"
check_interval = "5s"

[limits]
max_body = "64KiB"
max_head = 16384
header_timeout = "1500ms"
handshake_timeout = "5s"
deadline = "8s"
keep_alive_idle = "1m 15s"
max_connections = 100
max_in_flight = 10
max_in_flight_bytes = "1 MB"

[[sink]]
name = "out"
type = "stdout"
format = "envelope"

[[sink]]
name = "log"
type = "file"
path = "events.jsonl"
format = "body"

[[connector]]
name = "first"
path = "/dt"
policy = "either"
secrets = [{ label = "new", env = "SECRET" }, { label = "old", file = "secret.txt" }]
events = ["touch", "temperature", "smell"]
projects = ["c0md3mm0c7pet3vico8g"]
sinks = ["out", "log"]
dedup_window = 0
asymmetric = { key_set = "keys.json", organization = "c0ngtest0rg0vd5c9a1g", issuer = "https://example.com" }
headers = { X-Api-Key = { env = "OTHER" } }

[[connector]]
name = "second"
path = "/"

[connector.asymmetric]
key_set = "keys.json"
organization = "o"
"#;
    let mut seeds = Seeds::new();
    let mut add = |name: &str, text: &str| seeds.insert(name.to_owned(), text.as_bytes().to_vec());
    add("all", all);
    add("empty", "");
    add("least", LEAST);
    add("syntax", "listen = ");
    add("unknown_key", &format!("lisen = 1\n{LEAST}"));
    add(
        "wrong_types",
        "listen = 1\nadmin = 2.5\nmode = []\nlimits = 1\nsink = {}\nconnector = [1]\ndedup_max = -1\n",
    );
    add(
        "not_built",
        "mode = \"spool\"\ndead_letters = \"kafka:x\"\n[[sink]]\nname = \"k\"\ntype = \"kafka\"\nformat = \"cloudevents\"\n",
    );
    add("same_ports", &format!("listen = \"127.0.0.1:80\"\nadmin = \"127.0.0.1:80\"\n{LEAST}"));
    add("too_slow", &format!("[limits]\nheader_timeout = \"9s\"\ndeadline = \"9s\"\n{LEAST}"));
    add(
        "durations",
        &format!(
            "drain_timeout = 0\ndedup_window = \"P1DT2H\"\n[limits]\nkeep_alive_idle = \"1.5h\"\ndeadline = \"-1s\"\n{LEAST}"
        ),
    );
    add(
        "sizes",
        &format!(
            "[limits]\nmax_body = \"1.5 MiB\"\nmax_head = \"9999999999999TB\"\nmax_in_flight_bytes = \"64gib\"\n{LEAST}"
        ),
    );
    add("body_over_all", &format!("[limits]\nmax_body = \"64MiB\"\nmax_in_flight_bytes = 65536\n{LEAST}"));
    add(
        "names",
        "[[connector]]\nname = \"a b\"\npath = \"x y?\"\nsecrets = [{ env = \"SECRET\", label = \"\\u0000\" }]\n",
    );
    add(
        "twice",
        &format!(
            "{LEAST}{LEAST}[[sink]]\nname = \"a\"\ntype = \"file\"\npath = \"x\"\n[[sink]]\nname = \"a\"\ntype = \"file\"\npath = \"x\"\n"
        ),
    );
    add(
        "unknown_sink",
        "[[connector]]\nname = \"a\"\nsinks = [\"nowhere\"]\nsecrets = [{ env = \"SECRET\" }]\n",
    );
    add("no_sinks", "[[connector]]\nname = \"a\"\nsinks = []\nsecrets = [{ env = \"SECRET\" }]\n");
    for (name, source) in [
        ("unset", r#"env = "UNSET""#),
        ("empty_env", r#"env = "EMPTY""#),
        ("empty_file", r#"file = "empty.txt""#),
        ("spaced", r#"env = "SPACED""#),
        ("file", r#"file = "secret.txt""#),
        ("no_file", r#"file = "nowhere""#),
        ("both", r#"env = "SECRET", file = "secret.txt""#),
        ("neither", r#"label = "x""#),
        ("inline", r#"secret = "oops""#),
    ] {
        add(&format!("secret_{name}"), &format!("[[connector]]\nname = \"a\"\nsecrets = [{{ {source} }}]\n"));
    }
    for (name, keys) in [
        ("none", ""),
        ("no_file", "key_set = \"nowhere\"\norganization = \"o\"\n"),
        ("large", "key_set = \"large\"\norganization = \"o\"\n"),
        ("no_keys", "key_set = \"nokeys.json\"\norganization = \"o\"\n"),
        ("no_organization", "key_set = \"keys.json\"\n"),
        ("empty_organization", "key_set = \"keys.json\"\norganization = \"\"\n"),
        ("good", "key_set = \"keys.json\"\norganization = \"o\"\n"),
    ] {
        add(
            &format!("asymmetric_{name}"),
            &format!("[[connector]]\nname = \"a\"\n[connector.asymmetric]\n{keys}"),
        );
    }
    for policy in ["secret", "asymmetric", "either", "both", "none"] {
        let text = format!(
            "[[connector]]\nname = \"a\"\npolicy = \"{policy}\"\nsecrets = [{{ env = \"SECRET\" }}]\n"
        );
        add(&format!("policy_{policy}"), &text);
    }
    for sink in ["stdout", "file:events.jsonl", "file:", "kafka:topic"] {
        add(&format!("sink_{}", sink.replace(':', "_")), sink);
    }
    seeds
}

/// Connections of HTTP/1 and HTTP/2. The first byte is the behaviour of client and intake.
fn connections() -> Seeds {
    let signer = signer("secret");
    let sign = |body: &[u8], at: i64| signer.sign(body, at, "ctsk3vmn6ktsvt2ibcvg").expect("it signs");
    let touch = sample(EventType::Touch, 0, "c0md3mm0c7pet3vico8g");
    let body = touch.as_bytes();
    let token = sign(body, NOW - 2);
    let post = |path: &str, token: &str, body: &[u8]| {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: dt.example.com\r\nContent-Type: application/json\r\nX-Dt-Signature: {token}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    };
    let good = post("/", &token, body);
    let with_head = |head: &str, rest: &[u8]| {
        [format!("POST / HTTP/1.1\r\nHost: a\r\nX-Dt-Signature: {token}\r\n{head}\r\n").as_bytes(), rest]
            .concat()
    };
    let cut = body.len() / 2;
    let chunk = |part: &[u8]| [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat();
    let chunks = [chunk(&body[..cut]), chunk(&body[cut..]), b"0\r\n".to_vec()].concat();
    let length = format!("Content-Length: {}\r\n", body.len());
    let large = vec![b' '; 2049];
    let other_project = sample(EventType::Touch, 1, PROJECT);
    let no_project = br#"{"event":{"eventId":"e","eventType":"touch"}}"#;
    let elsewhere = Signer::secret(Secret::new("another secret").expect("not empty"));
    let stranger = elsewhere.sign(body, NOW, "x").expect("it signs");

    let mut seeds = Seeds::new();
    let mut add = |name: &str, behaviour: u8, bytes: &[u8]| {
        seeds.insert(name.to_owned(), [&[behaviour], bytes].concat());
    };
    // Bits: 0-1 pieces, 2-3 pauses, 4-5 how the client ends, 6-7 what the intake does.
    for (name, behaviour) in [
        ("whole", 0x00),
        ("by_byte", 0x01),
        ("slow_pieces", 0x0a),
        ("too_slow", 0x0f),
        ("stays", 0x10),
        ("leaves", 0x20),
        ("server_stops", 0x30),
        ("duplicate", 0x40),
        ("not_now", 0x80),
        ("never", 0xc0),
        ("never_and_leaves", 0xe2),
        ("never_and_stops", 0xf0),
    ] {
        add(&format!("h1-post-{name}"), behaviour, &good);
    }
    add("h1-two", 0x10, &[&good[..], &good].concat());
    add(
        "h1-three_pipelined_mixed",
        0x00,
        &[&good[..], b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n", &good].concat(),
    );
    add("h1-chunked", 0x00, &with_head("Transfer-Encoding: chunked\r\n", &[&chunks[..], b"\r\n"].concat()));
    add(
        "h1-chunked_trailers",
        0x02,
        &with_head(
            "Transfer-Encoding: chunked\r\nTrailer: X-T\r\n",
            &[&chunks[..], b"X-T: 1\r\n\r\n"].concat(),
        ),
    );
    add("h1-chunked_cut", 0x10, &with_head("Transfer-Encoding: chunked\r\n", &chunks[..20]));
    add(
        "h1-chunk_extension",
        0x00,
        &with_head("Transfer-Encoding: chunked\r\n", b"2;a=\"b\"\r\n{}\r\n0\r\n\r\n"),
    );
    add("h1-chunk_huge", 0x00, &with_head("Transfer-Encoding: chunked\r\n", b"ffffffffffffffff\r\n{}"));
    add("h1-both_lengths", 0x00, &with_head(&format!("Transfer-Encoding: chunked\r\n{length}"), &chunks));
    add("h1-two_lengths", 0x00, &with_head(&format!("{length}Content-Length: 3\r\n"), body));
    add("h1-expect", 0x04, &with_head(&format!("Expect: 100-continue\r\n{length}"), body));
    add("h1-close", 0x10, &with_head(&format!("Connection: close\r\n{length}"), body));
    add("h1-two_tokens", 0x00, &with_head(&format!("x-dt-signature: {token}\r\n{length}"), body));
    add("h1-body_cut", 0x00, &with_head(&length, &body[..cut]));
    add("h1-body_waits", 0x10, &with_head(&length, &body[..cut]));
    add("h1-body_longer", 0x00, &with_head(&length, &[body, b"  "].concat()));
    add("h1-body_changed", 0x00, &with_head(&length, touch.replace('e', "f").as_bytes()));
    add("h1-large", 0x00, &post("/", &sign(&large, NOW), &large));
    add("h1-large_chunked", 0x03, &with_head("Transfer-Encoding: chunked\r\n", &chunk(&large)));
    add("h1-large_announced", 0x10, &with_head("Content-Length: 99999999\r\n", b""));
    add("h1-empty_body", 0x00, &post("/", &sign(b"", NOW), b""));
    add("h1-not_json", 0x00, &post("/", &sign(b"hello", NOW), b"hello"));
    add("h1-not_json_not_now", 0x80, &post("/", &sign(b"hello", NOW), b"hello"));
    add("h1-expired", 0x00, &post("/", &sign(body, NOW - 9999), body));
    add("h1-future", 0x00, &post("/", &sign(body, NOW + 99), body));
    add("h1-stranger", 0x00, &post("/", &stranger, body));
    add("h1-no_token", 0x00, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}");
    add("h1-strict_wrong_project", 0x00, &post("/strict", &token, body));
    add(
        "h1-strict_right_project",
        0x00,
        &post("/strict?x=1", &sign(other_project.as_bytes(), NOW), other_project.as_bytes()),
    );
    add("h1-strict_no_project", 0x00, &post("/strict", &sign(no_project, NOW), no_project));
    add("h1-not_found", 0x00, &post("/nowhere", &token, body));
    add("h1-absolute", 0x00, &post("http://dt.example.com/", &token, body));
    add("h1-get", 0x10, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    add("h1-head", 0x00, b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    add("h1-connect", 0x00, b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\nxyz");
    add("h1-options", 0x00, b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    add("h1-upgrade", 0x00, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n");
    add("h1-of_1_0", 0x10, &String::from_utf8_lossy(&good).replace("HTTP/1.1", "HTTP/1.0").into_bytes());
    add(
        "h1-of_1_0_kept",
        0x10,
        &String::from_utf8_lossy(&good)
            .replace("HTTP/1.1\r\n", "HTTP/1.0\r\nConnection: keep-alive\r\n")
            .into_bytes(),
    );
    add("h1-head_cut", 0x10, &good[..60]);
    add("h1-head_folded", 0x00, b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n");
    add("h1-head_bad", 0x00, b"GET / HTTP/1.1\r\nHo st: a\r\n\r\n");
    add("h1-line_feeds", 0x00, b"POST / HTTP/1.1\nHost: a\nContent-Length: 2\n\n{}");
    add("h1-head_large", 0x03, &with_head(&format!("X-Long: {}\r\n", "a".repeat(3000)), b""));
    add("h1-many_headers", 0x03, &with_head(&"a: b\r\n".repeat(110), b""));
    add("h1-empty_lines", 0x00, &[b"\r\n\r\n", &good[..]].concat());
    add("nothing", 0x00, b"");
    add("nothing_stays", 0x10, b"");
    add("tls_hello", 0x10, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");

    // HTTP/2 (RFC 9113).
    let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &[])].concat();
    let h2 = |frames: &[Vec<u8>]| [&preface[..], &frames.concat()].concat();
    let headers = |path: &str, token: &str| {
        let mut block = vec![0x83, 0x86]; // POST, http
        literal(&mut block, ":path", path);
        literal(&mut block, ":authority", "dt.example.com");
        literal(&mut block, "x-dt-signature", token);
        block
    };
    let block = headers("/", &token);
    let request = [frame(1, 4, 1, &block), frame(0, 1, 1, body)];
    for (name, behaviour) in [
        ("half_closes", 0x00),
        ("by_byte", 0x11),
        ("pieces", 0x16),
        ("stays", 0x10),
        ("leaves", 0x20),
        ("server_stops", 0x30),
        ("never", 0xd0),
        ("never_and_stops", 0xf0),
    ] {
        add(&format!("h2-post-{name}"), behaviour, &h2(&request));
    }
    add("h2-preface_only", 0x10, &preface);
    add("h2-preface_cut", 0x10, &preface[..10]);
    add(
        "h2-two_streams",
        0x10,
        &h2(&[frame(1, 4, 1, &block), frame(1, 4, 3, &block), frame(0, 1, 3, body), frame(0, 1, 1, body)]),
    );
    add(
        "h2-body_in_parts",
        0x14,
        &h2(&[
            frame(1, 4, 1, &block),
            frame(0, 0, 1, &body[..cut]),
            frame(6, 0, 0, &[7; 8]),
            frame(0, 1, 1, &body[cut..]),
        ]),
    );
    add("h2-body_waits", 0x10, &h2(&[frame(1, 4, 1, &block), frame(0, 0, 1, &body[..cut])]));
    add("h2-reset", 0x10, &h2(&[frame(1, 4, 1, &block), frame(3, 0, 1, &[0, 0, 0, 8])]));
    add(
        "h2-reset_late",
        0xda,
        &h2(&[frame(1, 4, 1, &block), frame(0, 1, 1, body), frame(3, 0, 1, &[0, 0, 0, 8])]),
    );
    add("h2-goaway", 0x10, &h2(&[request.concat(), frame(7, 0, 0, &[0; 8])]));
    add(
        "h2-continuation",
        0x10,
        &h2(&[frame(1, 0, 1, &block[..9]), frame(9, 4, 1, &block[9..]), frame(0, 1, 1, body)]),
    );
    add("h2-padded", 0x10, &h2(&[frame(1, 4, 1, &block), frame(0, 9, 1, &[&[3], body, &[0; 3]].concat())]));
    add("h2-no_window", 0x10, &h2(&[frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]), request.concat()]));
    add(
        "h2-trailers",
        0x10,
        &h2(&[frame(1, 4, 1, &block), frame(0, 0, 1, body), frame(1, 5, 1, &[0, 1, b'x', 1, b'y'])]),
    );
    add("h2-no_token", 0x10, &h2(&[frame(1, 5, 1, &[0x83, 0x86, 0x84])]));
    add("h2-get", 0x10, &h2(&[frame(1, 5, 1, &[0x82, 0x87, 0x84])]));
    add("h2-not_found", 0x10, &h2(&[frame(1, 4, 1, &headers("/x", &token)), frame(0, 1, 1, body)]));
    add("h2-stranger", 0x10, &h2(&[frame(1, 4, 1, &headers("/", &stranger)), frame(0, 1, 1, body)]));
    add("h2-bad_frame", 0x10, &h2(&[frame(0, 1, 5, body)]));
    seeds
}

fn signer(name: &str) -> Signer {
    let secret = setup(name).secrets[0].1.as_str();
    Signer::secret(Secret::new(secret).expect("not empty"))
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&len[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// A header as HPACK has it, literal and without indexing.
fn literal(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    for text in [name, value] {
        match text.len() {
            len @ 0..127 => block.push(u8::try_from(len).expect("short")),
            len => {
                let mut rest = len - 127;
                block.push(127);
                while rest >= 128 {
                    block.push(u8::try_from(rest % 128 + 128).expect("a byte"));
                    rest /= 128;
                }
                block.push(u8::try_from(rest).expect("a byte"));
            }
        }
        block.extend_from_slice(text.as_bytes());
    }
}
