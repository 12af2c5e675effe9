//! What becomes of an event, by the status of the answer.

use std::time::{Duration, Instant};

use dt_sink::{Fate, Sink};

use crate::driver::{Driver, error_of, is_rejected, is_retry, record, records};
use crate::target::{Reply, Target};

#[test]
fn each_status_has_the_result_of_the_page() {
    let target = Target::start(|_| Reply::Status(200));
    for status in [200, 201, 202, 204, 299] {
        target.set(move |_| Reply::Status(status));
        let mut driver = Driver::new(&target.url(), "");
        assert_eq!(driver.deliver_one(record("a", 1)), Fate::Delivered, "{status}");
        assert_eq!((driver.count("accepted"), driver.count("rejected"), driver.count("failed")), (1, 0, 0));
    }
    for (status, reason) in [
        (400, "400 Bad Request"),
        (413, "413 Payload Too Large"),
        (415, "415 Unsupported Media Type"),
        (422, "422 Unprocessable Entity"),
    ] {
        target.set(move |_| Reply::With(status, None, "{\"detail\":\"no\nfield\"}".to_owned()));
        let mut driver = Driver::new(&target.url(), "");
        let fate = driver.deliver_one(record("a", 1));
        assert!(is_rejected(&fate), "{status}: {fate:?}");
        // With the start of the answer, on one line.
        let expected =
            format!("http://{}: status {reason}: {{\\\"detail\\\":\\\"no\\nfield\\\"}}", target.address);
        assert_eq!(error_of(&fate), expected);
        assert_eq!((driver.count("accepted"), driver.count("rejected"), driver.count("failed")), (0, 1, 0));
    }
    let waiting = [
        (408, "408 Request Timeout"),
        (425, "425 Too Early"),
        (429, "429 Too Many Requests"),
        (500, "500 Internal Server Error"),
        (502, "502 Bad Gateway"),
        (503, "503 Service Unavailable"),
        (504, "504 Gateway Timeout"),
        (599, "599"),
        (300, "300 Multiple Choices; redirects are not followed; set `url` to the final address"),
        (301, "301 Moved Permanently; redirects are not followed; set `url` to the final address"),
        (302, "302 Found; redirects are not followed; set `url` to the final address"),
        (304, "304 Not Modified; redirects are not followed; set `url` to the final address"),
        (307, "307 Temporary Redirect; redirects are not followed; set `url` to the final address"),
        (308, "308 Permanent Redirect; redirects are not followed; set `url` to the final address"),
        (401, "401 Unauthorized; check `auth`, `headers` and `secret_headers`"),
        (403, "403 Forbidden; check `auth`, `headers` and `secret_headers`"),
        (407, "407 Proxy Authentication Required; check `auth`, `headers` and `secret_headers`"),
        (404, "404 Not Found; check `url`"),
        (410, "410 Gone; check `url`"),
        (405, "405 Method Not Allowed; check `url`; it has to take POST"),
        (406, "406 Not Acceptable; check `url`, `headers` and `format`"),
        (409, "409 Conflict; check `url`, `headers` and `format`"),
        (418, "418 I'm a teapot; check `url`, `headers` and `format`"),
        (451, "451 Unavailable For Legal Reasons; check `url`, `headers` and `format`"),
    ];
    for (status, text) in waiting {
        // Where a redirect leads is not asked.
        let elsewhere = format!("http://{}/elsewhere", target.address);
        target.set(move |_| Reply::With(status, Some(("location", elsewhere.clone())), "text".to_owned()));
        let mut driver = Driver::new(&target.url(), "");
        target.take();
        for _ in 0..12 {
            // For ever: it never becomes a dead letter, however often it is tried.
            let fate = driver.deliver_one(record("a", 1));
            assert!(is_retry(&fate), "{status}: {fate:?}");
            // A target that fails for one event only can be distinguished from one that fails for all.
            let event = if matches!(status, 408 | 425 | 500..) { ", for event a-1 of a" } else { "" };
            assert_eq!(error_of(&fate), format!("http://{}: status {text}{event}", target.address));
        }
        let arrived = target.take();
        assert!(
            arrived.len() == 12 && arrived.iter().all(|arrived| arrived.path == "/events"),
            "{arrived:?}"
        );
        target.set(|_| Reply::Status(200));
        assert_eq!(driver.deliver_one(record("a", 1)), Fate::Delivered, "{status}");
        assert_eq!((driver.count("accepted"), driver.count("rejected"), driver.count("failed")), (1, 0, 12));
    }
}

#[test]
fn a_retry_after_is_honoured() {
    let target = Target::start(|_| Reply::With(429, Some(("retry-after", "3600".to_owned())), String::new()));
    for status in [429, 503] {
        target.set(move |_| Reply::With(status, Some(("retry-after", "3600".to_owned())), String::new()));
        let mut driver = Driver::new(&target.url(), "concurrency = 1");
        target.take();
        let batch = records(20, 1);
        let fates = driver.deliver(&batch);
        assert!(fates.iter().all(is_retry), "{fates:?}");
        assert_eq!(target.take().len(), 1, "{status}: the other devices wait as well");
        assert!(error_of(&fates[0]).ends_with("; the target asks to wait (Retry-After)"), "{fates:?}");
        target.set(|_| Reply::Status(200));
        assert_eq!(driver.deliver(&batch), fates, "{status}: the same error as before");
        assert_eq!(target.take().len(), 0, "{status}: not before the time is up");
        // A new start asks at once.
        driver.sink.open(None).expect("opens");
        assert!(driver.deliver(&batch).iter().all(|fate| *fate == Fate::Delivered));
    }
}

#[test]
fn after_a_retry_after_records_are_sent_again() {
    let target = Target::start(|_| Reply::With(429, Some(("retry-after", "1".to_owned())), String::new()));
    let mut driver = Driver::new(&target.url(), "");
    let started = Instant::now();
    assert!(is_retry(&driver.deliver_one(record("a", 1))));
    target.set(|_| Reply::Status(200));
    driver.insist(&[record("a", 1)]);
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert_eq!(target.take().len(), 2);
    // A date in the past, and no date at all, mean no wait.
    for value in ["Sun, 06 Nov 1994 08:49:37 GMT", "soon"] {
        target.set(move |_| Reply::With(429, Some(("retry-after", value.to_owned())), String::new()));
        assert!(is_retry(&driver.deliver_one(record("a", 2))));
        target.set(|_| Reply::Status(200));
        assert_eq!(driver.deliver_one(record("a", 2)), Fate::Delivered);
    }
}

#[test]
fn after_a_failure_each_attempt_has_a_result_so_that_the_engine_backs_off() {
    let target = Target::start(|_| Reply::Status(503));
    let mut driver = Driver::new(&target.url(), "");
    assert!(is_retry(&driver.deliver_one(record("a", 1))));
    target.set(|_| Reply::Late(Duration::from_millis(700), 503));
    // Also with a record that is new.
    let fates = driver.sink.deliver(&[record("a", 1), record("b", 1)]).fates;
    assert!(fates.iter().any(is_retry), "{fates:?}");
}

#[test]
fn an_answer_never_shows_a_secret() {
    use crate::driver::{Files, config};
    let target = Target::start(|arrived| {
        // As a debugging page that repeats the request.
        let headers: Vec<String> = arrived
            .headers
            .iter()
            .map(|(name, value)| format!("{name}={}", value.to_str().expect("text")))
            .collect();
        Reply::With(400, None, format!("{} {}", arrived.path, headers.join("&")))
    });
    let secrets = [("PASSWORD", "open sesame"), ("KEY", "k3y-of-the-api"), ("SIGN", "s1gn"), ("URL", "")];
    let mut files: Files =
        Files(secrets.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).into());
    let url = format!("http://{}/hook-7c2a", target.address);
    files.0.insert("URL".to_owned(), url.into_bytes());
    let auth = "auth = { scheme = 'basic', username = 'u', secret = { env = 'PASSWORD' } }";
    let others = "secret_headers = { Key = { env = 'KEY' } }\nsign = { secret = { env = 'SIGN' } }";
    let config = config(&format!("url = {{ env = 'URL' }}\n{auth}\n{others}"), &files);
    let debug = format!("{config:?}");
    let mut driver = Driver::with(config, dt_sink::Format::Body);
    // One request for each place at which the answer may be cut off.
    let fate = driver.deliver_one(record("a", 1));
    let error = error_of(&fate);
    let arrived = target.take().remove(0);
    assert!(error.contains("[secret]") && error.contains("400"), "{error}");
    let basic = arrived.header("authorization").strip_prefix("Basic ").expect("basic").to_owned();
    assert_eq!(arrived.header("key"), "k3y-of-the-api");
    for secret in ["hook-7c2a", "k3y", "sesame", &basic[..8], "eyJ"] {
        assert!(!error.contains(secret), "{secret}: {error}");
        assert!(!debug.contains(secret), "{secret}: {debug}");
        assert!(!format!("{:?}", driver.sink).contains(secret));
    }
}

/// Many targets name what they do not accept: the last segment of the path, a value of the query, the token of a header.
#[test]
fn an_answer_shows_no_part_of_a_secret_url_or_header() {
    use crate::driver::{Files, config};
    let target = Target::start(|_| Reply::Status(200));
    let url = format!("http://{}/services/T0/hook-7c2a-91?api_key=k3y-of-the-url&v=2", target.address);
    let header = "Token t0ken-of-the-api";
    let secrets = [("URL", url.as_str()), ("KEY", header)];
    let files = Files(secrets.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).into());
    let text = "url = { env = 'URL' }\nsecret_headers = { Authorization = { env = 'KEY' } }";
    let mut driver = Driver::with(config(text, &files), dt_sink::Format::Body);
    for (answer, shown) in [
        ("no such hook: hook-7c2a-91.", ": no such hook: [secret]."),
        ("cannot POST /services/T0/hook-7c2a-91", ": cannot POST [secret]"),
        ("POST /services/T0/hook-7c2a-91: no", ": POST /[secret]/T0/[secret]: no"),
        ("the key k3y-of-the-url has expired", ": the key [secret] has expired"),
        ("unknown token t0ken-of-the-api", ": unknown token [secret]"),
        ("v=2 is not supported", ": v=2 is not supported"),
    ] {
        target.set(move |_| Reply::With(400, None, answer.to_owned()));
        let fate = driver.deliver_one(record("a", 1));
        assert!(error_of(&fate).ends_with(shown), "{fate:?}");
    }
}
