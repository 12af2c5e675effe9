//! Targets that hang, answer late, close their connections or are not there.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use dt_sink::{Fate, Format, Sink, SinkContext};

use crate::driver::{Driver, error_of, is_retry, record, records};
use crate::target::{Reply, Target};

#[test]
fn a_target_that_hangs_costs_the_timeout_once_for_each_attempt() {
    let target = Target::start(|_| Reply::Never);
    let mut driver = Driver::new(&target.url(), "timeout = '300ms'\nconcurrency = 4");
    let started = Instant::now();
    let fates = driver.deliver(&records(40, 2));
    assert!(fates.iter().all(is_retry));
    let expected = format!("http://{}: no answer within 300ms", target.address);
    assert_eq!(error_of(&fates[0]), expected);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    let count = target.take().len();
    assert!((4..=8).contains(&count), "{count}");
    target.set(|_| Reply::Status(200));
    assert!(driver.deliver(&records(40, 2)).iter().all(|fate| *fate == Fate::Delivered));
}

#[test]
fn a_target_that_hangs_for_long_is_reported_before_the_timeout() {
    let target = Target::start(|_| Reply::Held(200));
    let mut driver = Driver::new(&target.url(), "timeout = '60s'");
    let batch = [record("a", 1)];
    let started = Instant::now();
    let error = loop {
        match driver.sink.deliver(&batch).fates.remove(0) {
            Fate::Pending { last_error: None } => {}
            Fate::Pending { last_error: Some(error) } => break error,
            other => panic!("{other:?}"),
        }
    };
    assert!(started.elapsed() >= Duration::from_secs(3));
    assert!(error.starts_with("the target has not answered for 3 s"), "{error}");
    target.release();
    assert_eq!(driver.deliver(&batch), [Fate::Delivered]);
    assert_eq!(target.take().len(), 1);
}

#[test]
fn a_200_that_comes_late_counts_and_so_does_one_whose_body_never_ends() {
    let target = Target::start(|_| Reply::Late(Duration::from_millis(700), 200));
    let mut driver = Driver::new(&target.url(), "timeout = '5s'");
    assert_eq!(driver.deliver_one(record("a", 1)), Fate::Delivered);
    target.set(|_| Reply::EndlessBody(200));
    assert_eq!(driver.deliver_one(record("a", 2)), Fate::Delivered);
    target.set(|_| Reply::EndlessBody(503));
    assert!(is_retry(&driver.deliver_one(record("a", 3))));
    target.set(|_| Reply::With(200, None, "x".repeat(300_000)));
    assert!(driver.deliver(&records(3, 3)).iter().all(|fate| *fate == Fate::Delivered));
    target.set(|_| Reply::With(422, None, "z".repeat(300_000)));
    let fate = driver.deliver_one(record("a", 4));
    assert_eq!(error_of(&fate).chars().filter(|c| *c == 'z').count(), 200);
    assert_eq!(target.take().len(), 13);
}

#[test]
fn connections_are_kept_and_as_many_as_requests_in_flight() {
    let target = Target::start(|_| Reply::With(200, None, "with a body".to_owned()));
    let mut driver = Driver::new(&target.url(), "concurrency = 4");
    for _ in 0..5 {
        assert!(driver.deliver(&records(20, 5)).iter().all(|fate| *fate == Fate::Delivered));
    }
    assert!((1..=4).contains(&target.connections()), "{}", target.connections());
    assert!(target.take().iter().all(|arrived| arrived.version == hyper::Version::HTTP_11));
}

/// A server that answers a number of requests on each connection, and then closes it without an announcement.
fn closing(answers: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                for _ in 0..answers {
                    if !read_request(&mut stream) {
                        return;
                    }
                    let _sent = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                }
                if answers == 0 {
                    read_request(&mut stream);
                }
            });
        }
    });
    address
}

/// Reads a request; `false` if the connection ends before.
fn read_request(stream: &mut std::net::TcpStream) -> bool {
    let (mut read, mut bytes) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return true;
            }
        }
        match stream.read(&mut bytes) {
            Ok(0) | Err(_) => return false,
            Ok(count) => read.extend_from_slice(&bytes[..count]),
        }
    }
}

#[test]
fn a_target_that_closes_after_each_answer_costs_no_failed_attempt() {
    let address = closing(1);
    let mut driver = Driver::new(&format!("http://{address}/"), "concurrency = 3");
    for number in 0..30 {
        assert_eq!(driver.deliver_one(record("a", number)), Fate::Delivered, "{number}");
        // While there is nothing to deliver, the sink does not notice that the connection was closed.
        std::thread::sleep(Duration::from_millis(3));
    }
    assert_eq!((driver.count("accepted"), driver.count("failed")), (30, 0));
}

#[test]
fn a_target_that_closes_without_an_answer_is_tried_again() {
    let address = closing(0);
    let mut driver = Driver::new(&format!("http://{address}/"), "");
    for _ in 0..2 {
        let fate = driver.deliver_one(record("a", 1));
        assert!(is_retry(&fate), "{fate:?}");
        let expected =
            format!("http://{address}: the connection broke: connection closed before message completed");
        assert_eq!(error_of(&fate), expected);
    }
}

#[test]
fn a_target_that_is_not_there_is_found_once_it_is() {
    let free = TcpListener::bind("127.0.0.1:0").expect("listens");
    let address = free.local_addr().expect("an address");
    drop(free);
    let mut driver = Driver::new(&format!("http://{address}/events"), "");
    let batch = records(5, 2);
    let fates = driver.deliver(&batch);
    assert!(fates.iter().all(is_retry), "{fates:?}");
    assert!(error_of(&fates[0]).starts_with(&format!("http://{address}: cannot connect: ")), "{fates:?}");
    assert!(error_of(&fates[0]).contains("Connection refused"), "{fates:?}");
    assert_eq!(driver.deliver(&batch)[0], fates[0], "the same text, so that the log has it once");
    let target = Target::start_at(address, |_| Reply::Status(200));
    assert!(driver.deliver(&batch).iter().all(|fate| *fate == Fate::Delivered));
    drop(target);
    assert!(driver.deliver(&batch).iter().all(is_retry));
    let target = Target::start_at(address, |_| Reply::Status(200));
    assert!(driver.insist(&batch).iter().all(Option::is_none));
    assert!(target.take().len() >= 10);
}

#[test]
fn a_host_that_has_no_address_is_named() {
    // Reserved by RFC 6761: no resolver finds it.
    let mut driver = Driver::new("http://no-such-host.invalid/", "");
    let fate = driver.deliver_one(record("a", 1));
    assert!(is_retry(&fate), "{fate:?}");
    let error = error_of(&fate);
    assert!(error.starts_with("http://no-such-host.invalid: cannot connect: dns error: "), "{error}");
}

#[test]
fn in_mode_direct_a_request_ends_before_the_event_is_given_up() {
    let target = Target::start(|_| Reply::Never);
    let driver = Driver::new(&target.url(), "timeout = '60s'");
    let config =
        crate::driver::config(&format!("url = '{}'\ntimeout = '60s'", target.url()), &Default::default());
    drop(driver);
    let reporter = std::sync::Arc::new(crate::driver::Counts::default());
    let mut context = SinkContext::new(Format::Body, reporter);
    context.give_up_after = Some(Duration::from_millis(200));
    let mut sink = dt_sink_http::HttpSink::new(config, context);
    sink.open(None).expect("opens");
    let started = Instant::now();
    let batch = [record("a", 1)];
    let mut fate = Fate::Pending { last_error: None };
    while matches!(fate, Fate::Pending { .. }) {
        fate = sink.deliver(&batch).fates.remove(0);
    }
    assert!(error_of(&fate).contains("no answer within 200ms"), "{fate:?}");
    assert!(started.elapsed() < Duration::from_secs(5));
}
