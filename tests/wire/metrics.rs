//! What operators see: the counts agree with what was sent, and `/readyz` with what works.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Client, ask, head, push, push_to, request, token_at, within};
use crate::fake_sink::FakeSink;
use crate::harness::{NOW, SINK_ERROR, Setup, event, event_id, ms};

/// Asks the admin listener: the status, the head, the body.
async fn ask_admin(admin: SocketAddr, method: &str, target: &str) -> (u16, String, String) {
    ask_admin_as(admin, method, target, "Host: localhost\r\n").await
}

async fn ask_admin_as(admin: SocketAddr, method: &str, target: &str, host: &str) -> (u16, String, String) {
    within(async {
        let mut stream = TcpStream::connect(admin).await.expect("it listens");
        let request = format!("{method} {target} HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, head.to_ascii_lowercase(), body.to_owned())
    })
    .await
}

/// What `/readyz` says.
pub(crate) async fn readyz(admin: SocketAddr) -> (u16, String) {
    let (status, _head, body) = ask_admin(admin, "GET", "/readyz").await;
    (status, body)
}

/// All samples of a scrape.
pub(crate) struct Metrics(Vec<(String, BTreeMap<String, String>, f64)>);

impl Metrics {
    pub(crate) async fn scrape(admin: SocketAddr) -> Self {
        let (status, _head, body) = ask_admin(admin, "GET", "/metrics").await;
        assert_eq!(status, 200);
        Self(body.lines().filter(|line| !line.starts_with('#')).map(sample).collect())
    }

    /// The sum of all samples of that name with at least these labels.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |found: &BTreeMap<String, String>| {
            labels.iter().all(|(label, value)| found.get(*label).is_some_and(|found| found == value))
        };
        let mut values = self.0.iter().filter(|(n, l, _)| n == name && has(l)).map(|(.., v)| *v).peekable();
        assert!(values.peek().is_some(), "there is no {name} with {labels:?}");
        values.sum()
    }

    /// The same, 0 if there is none.
    fn count(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let is_there = self.0.iter().any(|(n, l, _)| {
            n == name && labels.iter().all(|(label, value)| l.get(*label).is_some_and(|found| found == value))
        });
        if is_there { self.value(name, labels) } else { 0.0 }
    }
}

fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let (series, value) = line.rsplit_once(' ').expect("a value");
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let labels = labels.strip_suffix('}').expect("an end of the labels");
    let labels = labels
        .split(',')
        .filter_map(|label| label.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()))
        .collect();
    (name.to_owned(), labels, value.parse().expect("a number"))
}

#[tokio::test]
async fn every_answer_is_counted_once_under_its_status_and_code() {
    let (sink, _seen, switch) = FakeSink::switched();
    let receiver = Setup::new()
        .sink("test", sink)
        .main(|main| main.events = ["touch".to_owned()].into())
        .connector("other", "/other", |other| other.projects = ["elsewhere".to_owned()].into())
        .limits(|limits| limits.deadline = ms(500))
        .start()
        .await;
    let temperature =
        crate::harness::event_of(dt_receiver::event::EventType::Temperature, crate::harness::PROJECT, 50);
    let old = token_at(event(60), NOW - 7200);
    let expired = request("POST", "/", &[("X-Dt-Signature", &old)], event(60));
    let unsigned = request("POST", "/", &[], event(61));
    let expected: Vec<(Vec<u8>, usize, &str, u16, &str)> = vec![
        (push(event(1)), 1, "main", 200, "accepted"),
        (push(event(1)), 3, "main", 200, "duplicate"),
        (push(temperature), 2, "main", 200, "ignored"),
        (push("not JSON"), 2, "main", 200, "quarantined"),
        (push_to("/other", event(2)), 2, "other", 403, "project_not_allowed"),
        (expired, 4, "main", 401, "expired"),
        (unsigned, 5, "main", 401, "signature_missing"),
        (request("GET", "/", &[], ""), 2, "main", 405, "method_not_allowed"),
        (request("GET", "/secret-path-of-a-stranger", &[], ""), 3, "", 404, "not_found"),
        (head("POST", "/", &[], "Content-Length: 10"), 1, "main", 408, "body_timeout"),
        (
            head("POST", "/", &[("Expect", "100-continue")], "Content-Length: 100000"),
            1,
            "main",
            413,
            "body_too_large",
        ),
    ];
    for (request, times, _, status, code) in &expected {
        for _time in 0..*times {
            ask(receiver.address, request).await.must_be(*status, code);
        }
    }
    switch.turn(false);
    for _attempt in 0..3 {
        ask(receiver.address, push(event(3))).await.must_be(503, "sink_unavailable");
    }
    switch.turn(true);
    ask(receiver.address, push(event(3))).await.must_be(200, "accepted");

    let metrics = Metrics::scrape(receiver.admin).await;
    let requests = |connector: &str, status: u16, code: &str| {
        let status = status.to_string();
        let labels = [("connector", connector), ("code", &*status), ("reason", code)];
        metrics.count("dt_receiver_requests_total", &labels)
    };
    let mut all = 4.0;
    for (_, times, connector, status, code) in &expected {
        let extra = if *code == "accepted" { 1 } else { 0 };
        let times = f64::from(u32::try_from(times + extra).unwrap());
        assert_eq!(requests(connector, *status, code), times, "{connector} {status} {code}");
        all += times;
    }
    all -= 1.0;
    assert_eq!(requests("main", 503, "sink_unavailable"), 3.0);
    assert_eq!(metrics.value("dt_receiver_requests_total", &[]), all);
    assert_eq!(metrics.value("dt_receiver_request_duration_seconds_count", &[]), all);
    let sink =
        |outcome| metrics.value("dt_receiver_sink_records_total", &[("sink", "test"), ("outcome", outcome)]);
    assert_eq!((sink("delivered"), sink("retry")), (2.0, 3.0));
    assert_eq!(metrics.value("dt_receiver_sink_up", &[("sink", "test")]), 1.0);
    assert_eq!(metrics.value("dt_receiver_sink_window_ids", &[("sink", "test")]), 2.0);
    // Copies of a letter are kept once, and counted once.
    let letters = |reason| metrics.value("dt_receiver_dead_letters_total", &[("reason", reason)]);
    assert_eq!((letters("unreadable"), letters("expired"), letters("rejected")), (1.0, 1.0, 0.0));
    assert!(
        !metrics.0.iter().any(|(_, labels, _)| labels.values().any(|value| value.contains("stranger"))),
        "what strangers send becomes no label"
    );
}

#[tokio::test]
async fn what_a_sink_rejects_is_counted_as_such() {
    let (sink, _seen) = FakeSink::rejecting();
    let receiver = Setup::new().sink("test", sink).start().await;
    ask(receiver.address, push(event(1))).await.must_be(200, "accepted");
    let metrics = Metrics::scrape(receiver.admin).await;
    let sink = |outcome| metrics.value("dt_receiver_sink_records_total", &[("outcome", outcome)]);
    assert_eq!((sink("delivered"), sink("retry"), sink("rejected")), (0.0, 0.0, 1.0));
    assert_eq!(metrics.value("dt_receiver_dead_letters_total", &[("reason", "rejected")]), 1.0);
    assert_eq!(readyz(receiver.admin).await.0, 200, "a rejected record is no fault of the sink");
}

#[tokio::test]
async fn open_connections_and_requests_in_flight_are_shown() {
    let (sink, _seen, mut gate) = FakeSink::gated();
    let receiver = Setup::new().sink("test", sink).limits(|l| l.max_connections = 3).start().await;
    let mut busy = Client::connect(receiver.address).await;
    busy.send(push(event(1))).await;
    gate.entered().await;
    let mut rest = Vec::new();
    for event_number in 1..3 {
        // What is not JSON is stored without the sink, and shows that the signature holds.
        let mut client = Client::connect(receiver.address).await;
        client.ask(push(format!("no JSON {event_number}"))).await.must_be(200, "quarantined");
        rest.push(client);
    }
    assert_eq!(Metrics::scrape(receiver.admin).await.value("dt_receiver_connections", &[]), 3.0);
    ask(receiver.address, push(event(2))).await.must_be(503, "overloaded");
    let metrics = Metrics::scrape(receiver.admin).await;
    assert_eq!(metrics.value("dt_receiver_requests_in_flight", &[]), 1.0);
    assert_eq!(metrics.value("dt_receiver_connections_refused_total", &[("reason", "too_many")]), 1.0);
    let open = metrics.value("dt_receiver_connections", &[]);
    assert!((3.0..=4.0).contains(&open), "three, and perhaps the one that was refused: {open}");
    gate.let_go(true);
    busy.reply().await.must_be(200, "accepted");
    assert_eq!(Metrics::scrape(receiver.admin).await.value("dt_receiver_requests_in_flight", &[]), 0.0);
}

#[tokio::test]
async fn readiness_follows_the_sinks() {
    let (good, _seen) = FakeSink::working();
    let (bad, _seen, switch) = FakeSink::switched();
    let receiver = Setup::new().sink("good", good).sink("bad", bad).start().await;
    assert_eq!(readyz(receiver.admin).await, (200, "ready\n".to_owned()));
    switch.turn(false);
    ask(receiver.address, push(event(1))).await.must_be(503, "sink_unavailable");
    let expected = format!("not ready: sink bad: {SINK_ERROR}\n");
    assert_eq!(readyz(receiver.admin).await, (503, expected));
    assert_eq!(Metrics::scrape(receiver.admin).await.value("dt_receiver_ready", &[]), 0.0);
    let up = |metrics: &Metrics, sink| metrics.value("dt_receiver_sink_up", &[("sink", sink)]);
    let metrics = Metrics::scrape(receiver.admin).await;
    assert_eq!((up(&metrics, "good"), up(&metrics, "bad")), (1.0, 0.0));
    // Alive it is all the same: a restart would not help.
    assert_eq!(ask_admin(receiver.admin, "GET", "/healthz").await.0, 200);
    switch.turn(true);
    ask(receiver.address, push(event(1))).await.must_be(200, "accepted");
    assert_eq!(readyz(receiver.admin).await, (200, "ready\n".to_owned()));
    assert_eq!(up(&Metrics::scrape(receiver.admin).await, "bad"), 1.0);
}

#[tokio::test]
async fn what_a_sink_says_in_several_lines_is_one_line() {
    let (sink, _seen) =
        FakeSink::new(|batch| dt_receiver::sink::Outcome::retry(batch.len(), "first\r\nsecond\nthird"));
    let receiver = Setup::new().sink("test", sink).start().await;
    ask(receiver.address, push(event(1))).await.must_be(503, "sink_unavailable");
    let (status, body) = readyz(receiver.admin).await;
    assert_eq!((status, body.lines().count()), (503, 1), "{body}");
}

#[tokio::test]
async fn readiness_follows_the_dead_letters() {
    let (setup, _seen) = Setup::working();
    let receiver = setup.start().await;
    receiver.break_dead_letters();
    ask(receiver.address, push("not JSON")).await.must_be(503, "storage_unavailable");
    let (status, body) = readyz(receiver.admin).await;
    assert_eq!((status, body.starts_with("not ready: dead letters: ")), (503, true), "{body}");
    let failed = Metrics::scrape(receiver.admin).await;
    assert_eq!(failed.value("dt_receiver_dead_letters_failed_total", &[("reason", "unreadable")]), 1.0);
    receiver.mend_dead_letters();
    // Without a letter to write: who is not ready may not be sent any.
    within(async { while readyz(receiver.admin).await.0 != 200 {} }).await;
    ask(receiver.address, push("not JSON")).await.must_be(200, "quarantined");
    assert_eq!(receiver.letters().len(), 1);
}

#[tokio::test]
async fn the_last_accepted_event_has_its_time_shown() {
    let (setup, _seen) = Setup::working();
    let receiver = setup.connector("other", "/other", |_| {}).start().await;
    ask(receiver.address, push(event(1))).await.must_be(200, "accepted");
    receiver.clock.set((NOW + 30) * 1000);
    // A sender that repeats itself is no sign that new events come.
    ask(receiver.address, push(event(1))).await.must_be(200, "duplicate");
    ask(receiver.address, push("not JSON")).await.must_be(200, "quarantined");
    let last = async |connector| {
        let metrics = Metrics::scrape(receiver.admin).await;
        metrics.value("dt_receiver_last_accepted_timestamp_seconds", &[("connector", connector)])
    };
    #[expect(clippy::cast_precision_loss, reason = "a time of today")]
    let now = NOW as f64;
    assert_eq!((last("main").await, last("other").await), (now, 0.0));
    ask(receiver.address, push(event(2))).await.must_be(200, "accepted");
    assert_eq!(last("main").await, now + 30.0);
}

/// Where readiness decides who gets requests, none would come to find out that the sink is up.
#[tokio::test]
async fn a_sink_that_comes_up_makes_it_ready_without_a_request() {
    let mut attempts = 0;
    let open = move || {
        attempts += 1;
        assert!(attempts != 2, "{SINK_ERROR}");
        if attempts < 3 { Err(dt_receiver::sink::OpenError::Down(SINK_ERROR.to_owned())) } else { Ok(()) }
    };
    let (sink, _seen) = FakeSink::opening(open, |batch| dt_receiver::sink::Outcome::delivered(batch.len()));
    let receiver = Setup::new().sink("test", sink).start().await;
    assert_eq!(readyz(receiver.admin).await.0, 503);
    within(async {
        while readyz(receiver.admin).await.0 != 200 {
            tokio::time::sleep(ms(20)).await;
        }
    })
    .await;
    assert_eq!(Metrics::scrape(receiver.admin).await.value("dt_receiver_sink_up", &[]), 1.0);
    ask(receiver.address, push(event(1))).await.must_be(200, "accepted");
}

#[tokio::test]
async fn a_sink_that_is_down_from_the_start_is_not_ready() {
    let down = || Err(dt_receiver::sink::OpenError::Down(SINK_ERROR.to_owned()));
    let (sink, _seen) = FakeSink::opening(down, |batch| dt_receiver::sink::Outcome::delivered(batch.len()));
    let receiver = Setup::new().sink("test", sink).start().await;
    assert_eq!(readyz(receiver.admin).await, (503, format!("not ready: sink test: {SINK_ERROR}\n")));
}

#[tokio::test]
async fn the_admin_listener_has_three_pages_and_one_way_to_ask() {
    let (setup, seen) = Setup::working();
    let receiver = setup.start().await;
    let (status, head, body) = ask_admin(receiver.admin, "GET", "/metrics").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    assert!(body.ends_with('\n') && body.contains("# TYPE dt_receiver_requests_total counter"));
    let (status, head, body) = ask_admin(receiver.admin, "GET", "/healthz").await;
    assert_eq!((status, &*body), (200, "ok\n"));
    assert!(head.contains("content-type: text/plain"), "{head}");
    assert_eq!(ask_admin(receiver.admin, "GET", "/healthz?verbose").await.0, 200);
    let (status, _head, body) = ask_admin(receiver.admin, "HEAD", "/healthz").await;
    assert_eq!((status, &*body), (200, ""));
    for target in ["/", "/metrics/", "/debug/pprof", "/%2e%2e/metrics", "*"] {
        assert_eq!(ask_admin(receiver.admin, "GET", target).await.0, 404, "{target}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let (status, head, _body) = ask_admin(receiver.admin, method, "/healthz").await;
        assert_eq!(status, 405);
        assert!(head.contains("allow: get, head"), "{head}");
    }
    // Events are not taken here, nor pages shown there.
    let request = push(event(1));
    let mut stream = TcpStream::connect(receiver.admin).await.unwrap();
    stream.write_all(&request).await.unwrap();
    let mut answer = [0; 12];
    within(stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 405");
    assert!(seen.ids().is_empty());
    ask(receiver.address, crate::client::request("GET", "/metrics", &[], "")).await.must_be(404, "not_found");
}

/// A web page's own name may be made to point to this machine; the page could read what is answered then.
#[tokio::test]
async fn the_admin_listener_of_this_machine_answers_to_no_other_name() {
    let (setup, _seen) = Setup::working();
    let receiver = setup.start().await;
    for (host, status) in [
        ("127.0.0.1", 200),
        ("127.0.0.1:9100", 200),
        ("[::1]:9100", 200),
        ("192.0.2.7:80", 200),
        ("localhost", 200),
        ("LocalHost:9100", 200),
        ("rebound.example", 421),
        ("rebound.example:9100", 421),
        ("localhost.rebound.example", 421),
        ("127.0.0.1.rebound.example", 421),
        ("127.0.0.1@rebound.example", 421),
    ] {
        let host_line = format!("Host: {host}\r\n");
        assert_eq!(ask_admin_as(receiver.admin, "GET", "/metrics", &host_line).await.0, status, "{host}");
    }
    // With the absolute form the header counts as well; a client without it is no browser.
    let target = "http://rebound.example/metrics";
    assert_eq!(ask_admin_as(receiver.admin, "GET", target, "Host: rebound.example\r\n").await.0, 421);
    assert_eq!(ask_admin_as(receiver.admin, "GET", "/metrics", "").await.0, 200);
}

#[tokio::test]
async fn a_series_is_there_before_anything_happened() {
    let (setup, _seen) = Setup::working();
    let receiver = setup.connector("other", "/other", |_| {}).start().await;
    let metrics = Metrics::scrape(receiver.admin).await;
    for connector in ["main", "other"] {
        for (code, reason) in [
            ("200", "accepted"),
            ("200", "duplicate"),
            ("200", "ignored"),
            ("200", "quarantined"),
            ("401", "signature_mismatch"),
            ("401", "expired"),
            ("403", "project_not_allowed"),
            ("413", "body_too_large"),
            ("503", "storage_unavailable"),
            ("503", "overloaded"),
            ("503", "unverified"),
        ] {
            let labels = [("connector", connector), ("code", code), ("reason", reason)];
            assert_eq!(metrics.value("dt_receiver_requests_total", &labels), 0.0, "{reason}");
        }
    }
    let on_no_path = [("connector", ""), ("code", "404"), ("reason", "not_found")];
    assert_eq!(metrics.value("dt_receiver_requests_total", &on_no_path), 0.0);
    assert_eq!(metrics.value("dt_receiver_ready", &[]), 1.0);
    for outcome in ["delivered", "retry", "rejected"] {
        assert_eq!(metrics.value("dt_receiver_sink_records_total", &[("outcome", outcome)]), 0.0);
    }
    assert_eq!(metrics.value("dt_receiver_sink_up", &[("sink", "test")]), 1.0);
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    assert_eq!(metrics.value("dt_receiver_build_info", &version), 1.0);
}

#[tokio::test]
async fn a_sink_error_stays_with_the_operator() {
    let (sink, seen) = FakeSink::failing();
    let receiver = Setup::new().sink("test", sink).start().await;
    let reply = ask(receiver.address, push(event(1))).await;
    reply.must_be(503, "sink_unavailable");
    assert!(readyz(receiver.admin).await.1.contains(SINK_ERROR));
    assert!(!seen.ids().contains(&event_id(1)));
}
