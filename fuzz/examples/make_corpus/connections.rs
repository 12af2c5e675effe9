//! Connections of HTTP/1 and HTTP/2.

use dt_receiver_fuzz::NOW;
use dt_receiver_fuzz::setups::setup;
use dt_verify::event::EventType;
use dt_verify::{Secret, Signer};

use crate::Seeds;
use crate::vectors::sample;

/// The project that the target's second connector allows.
const PROJECT: &str = "bhmh0143iktucae701vg";

/// Connections of HTTP/1 and HTTP/2. The first byte is the behaviour of client and intake.
pub fn connections() -> Seeds {
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
    let foreign = elsewhere.sign(body, NOW, "x").expect("it signs");

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
    add("h1-foreign", 0x00, &post("/", &foreign, body));
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
    add("h2-foreign", 0x10, &h2(&[frame(1, 4, 1, &headers("/", &foreign)), frame(0, 1, 1, body)]));
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
