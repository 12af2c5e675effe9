//! What takes days: a network of the test's own and a clock that jumps show them to the millisecond.

use std::sync::Arc;
use std::time::Duration;

use dt_receiver::emulator::{
    AttemptRequest, DISABLE_AFTER, DeliveryStatus, Emulator, EmulatorBuilder, RETENTION, Transport,
    TransportFuture,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::target::{connect, device, publish};
use crate::wait::until_within;

/// When the machine's clock stands, in Unix seconds.
const NOW: i64 = 1_800_000_000;

/// A network: every attempt takes no time and ends as it is told, and is remembered with its time.
#[derive(Debug)]
struct Network {
    began: Instant,
    scale: u32,
    answer: Mutex<Result<u16, &'static str>>,
    seen: Mutex<Vec<(Duration, AttemptRequest)>>,
    /// Attempts at a URL that has this in it never end.
    hangs: Option<&'static str>,
}

impl Network {
    fn new(scale: u32) -> Arc<Self> {
        let (answer, seen) = (Mutex::new(Err("connection_refused")), Mutex::default());
        Arc::new(Self { began: Instant::now(), scale, answer, seen, hangs: None })
    }

    /// When attempts were made, in emulated time since the start.
    fn times(&self) -> Vec<Duration> {
        self.seen.lock().iter().map(|(at, _)| *at).collect()
    }
}

impl Transport for Network {
    fn post(&self, request: AttemptRequest) -> TransportFuture<'_> {
        let at = self.began.elapsed() * self.scale;
        if self.hangs.is_some_and(|part| request.url.contains(part)) {
            self.seen.lock().push((at, request));
            return Box::pin(std::future::pending());
        }
        self.seen.lock().push((at, request));
        let answer = *self.answer.lock();
        Box::pin(std::future::ready(answer))
    }
}

async fn start(network: &Arc<Network>) -> Emulator {
    let transport: Arc<dyn Transport> = Arc::<Network>::clone(network);
    let builder: EmulatorBuilder = Emulator::builder().transport(transport).time_scale(network.scale);
    builder.clock(|| NOW * 1000).start().await.expect("it starts")
}

/// Waits in virtual time. What is measured to the millisecond is measured by the emulator.
async fn wait<T>(what: impl FnMut() -> Option<T>) -> T {
    until_within(Duration::from_secs(7 * 86_400), Duration::from_millis(20), what).await
}

fn status(emulator: &Emulator, connector: &str) -> Value {
    emulator.call("GET", connector, &json!(null)).expect("a connector")["status"].clone()
}

/// When the only connector was disabled, in Unix milliseconds of the emulated clock.
fn disabled_at(emulator: &Emulator) -> i64 {
    let shown = emulator.call("GET", "/emulator", &json!(null)).expect("a status");
    let at = shown["connectors"][0]["disabledAt"].as_str().expect("a time");
    at.parse::<jiff::Timestamp>().expect("RFC 3339").as_millisecond()
}

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

/// Waits until the emulated clock shows this.
async fn wait_until(emulator: &Emulator, at: i64) {
    until_within(Duration::from_secs(7 * 86_400), Duration::from_millis(1), || {
        (emulator.now_millis() >= at).then_some(())
    })
    .await;
}

/// Publishes an event an hour until the emulated clock shows `end`.
async fn publish_hourly(emulator: &Emulator, device: &str, end: i64) {
    while emulator.now_millis() < end {
        publish(emulator, device, &json!({"touch": {}}));
        wait_until(emulator, end.min(emulator.now_millis() + HOUR)).await;
    }
}

/// At 1000 times the machine's speed a millisecond of it is a second: the five days are exact to that.
#[tokio::test(start_paused = true)]
async fn five_days_of_failures_disable_a_connector_to_the_second() {
    let network = Network::new(1_000);
    let emulator = start(&network).await;
    let connector = connect(&emulator, "http://receiver.test/", &json!({}));
    let device = device(&emulator, "touch", &json!({}));
    assert_eq!(DISABLE_AFTER.as_secs(), 432_000);
    let five_days = DISABLE_AFTER.as_millis() as i64;
    // Enabling it gives it a new five days.
    for _ in 0..2 {
        let began = emulator.now_millis();
        publish_hourly(&emulator, &device, began + five_days - 10_000).await;
        publish(&emulator, &device, &json!({"touch": {}}));
        wait_until(&emulator, began + five_days - 3_000).await;
        assert_eq!(status(&emulator, &connector), "ACTIVE");
        // An attempt that fails at once decides.
        while emulator.now_millis() < began + five_days + 1_000 {
            publish(&emulator, &device, &json!({"touch": {}}));
            wait_until(&emulator, emulator.now_millis() + 1).await;
        }
        assert_eq!(status(&emulator, &connector), "SYSTEM_DISABLED");
        let took = disabled_at(&emulator) - began;
        assert!((five_days..=five_days + 1_000).contains(&took), "{took} ms, expected {five_days}");
        assert_eq!(emulator.queued(), 0);
        // Nothing more is queued.
        publish(&emulator, &device, &json!({"touch": {}}));
        assert_eq!(emulator.queued(), 0);
        emulator.call("PATCH", &connector, &json!({"status": "ACTIVE"})).expect("enabled");
    }
}

#[tokio::test(start_paused = true)]
async fn one_success_begins_the_five_days_anew() {
    let network = Network::new(1_000);
    let emulator = start(&network).await;
    let connector = connect(&emulator, "http://receiver.test/", &json!({}));
    let device = device(&emulator, "touch", &json!({}));
    let began = emulator.now_millis();
    publish_hourly(&emulator, &device, began + 4 * DAY).await;
    *network.answer.lock() = Ok(200);
    wait(|| (emulator.queued() == 0).then_some(())).await;
    *network.answer.lock() = Ok(500);
    publish_hourly(&emulator, &device, began + 8 * DAY).await;
    assert_eq!(status(&emulator, &connector), "ACTIVE");
    publish_hourly(&emulator, &device, began + 9 * DAY + 2 * HOUR).await;
    assert_eq!(status(&emulator, &connector), "SYSTEM_DISABLED");
}

/// One failure, and then nothing that could fail: the receiver may have been well for days.
#[tokio::test(start_paused = true)]
async fn without_an_attempt_nothing_is_disabled() {
    let network = Network::new(1_000);
    let emulator = start(&network).await;
    let connector = connect(&emulator, "http://receiver.test/", &json!({}));
    let device = device(&emulator, "touch", &json!({}));
    publish(&emulator, &device, &json!({"touch": {}}));
    wait_until(&emulator, emulator.now_millis() + 6 * DAY).await;
    assert_eq!((status(&emulator, &connector), emulator.queued()), (json!("ACTIVE"), 0));
    *network.answer.lock() = Ok(200);
    publish(&emulator, &device, &json!({"touch": {}}));
    wait(|| (emulator.queued() == 0).then_some(())).await;
    assert_eq!(status(&emulator, &connector), "ACTIVE");
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_dt_does_not_count_for_the_five_days() {
    let network = Network::new(1_000);
    let emulator = start(&network).await;
    let connector = connect(&emulator, "http://receiver.test/", &json!({}));
    let device = device(&emulator, "touch", &json!({}));
    let began = emulator.now_millis();
    publish_hourly(&emulator, &device, began + DAY).await;
    emulator.call("PATCH", "/emulator/faults", &json!({"outage": true})).expect("set");
    wait_until(&emulator, began + 6 * DAY).await;
    emulator.call("DELETE", "/emulator/faults", &json!(null)).expect("cleared");
    publish_hourly(&emulator, &device, began + 9 * DAY).await;
    assert_eq!(status(&emulator, &connector), "ACTIVE", "four days of failures");
    publish_hourly(&emulator, &device, began + 10 * DAY + 2 * HOUR).await;
    assert_eq!(status(&emulator, &connector), "SYSTEM_DISABLED");
}

/// Nine receivers hang; the tenth is the last by name.
#[tokio::test(start_paused = true)]
async fn receivers_that_hang_do_not_starve_the_others() {
    let mut network = Network::new(1);
    Arc::get_mut(&mut network).expect("only here").hangs = Some("hangs");
    *network.answer.lock() = Ok(200);
    let emulator = start(&network).await;
    for number in 0..9 {
        connect(&emulator, &format!("http://hangs.test/{number}"), &json!({"name": format!("a{number}")}));
    }
    connect(&emulator, "http://receiver.test/", &json!({"name": "z"}));
    let device = device(&emulator, "touch", &json!({}));
    for _ in 0..200 {
        publish(&emulator, &device, &json!({"touch": {}}));
    }
    let taken =
        || emulator.ledger().iter().filter(|entry| entry.fate == DeliveryStatus::Acknowledged).count();
    wait(|| (taken() == 200).then_some(())).await;
    let under_way = network.seen.lock().iter().filter(|(_, request)| request.url.contains("hangs")).count();
    assert!(under_way <= 512 + 9 * 4, "{under_way}");
}

/// What was sent to the first says nothing about the second of that name.
#[tokio::test(start_paused = true)]
async fn a_connector_that_is_made_again_keeps_its_own_events() {
    let target = crate::target::Slow::new();
    let transport: Arc<dyn Transport> = Arc::<crate::target::Slow>::clone(&target);
    let emulator = Emulator::builder().transport(transport).start().await.expect("it starts");
    let name = json!({"name": "c"});
    let connector = connect(&emulator, "http://receiver.test/first", &name);
    let device = device(&emulator, "touch", &json!({}));
    publish(&emulator, &device, &json!({"touch": {}}));
    wait(|| (target.waiting() == 1).then_some(())).await;
    emulator.call("DELETE", &connector, &json!(null)).expect("deleted");
    connect(&emulator, "http://receiver.test/second", &name);
    publish(&emulator, &device, &json!({"touch": {}}));
    wait(|| (target.waiting() == 2).then_some(())).await;
    target.answer("first", 200);
    wait(|| (target.waiting() == 1).then_some(())).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(emulator.queued(), 1, "the second has not answered");
    target.answer("second", 200);
    wait(|| (emulator.queued() == 0).then_some(())).await;
}

/// Whether a receiver was right is judged by what it could know.
#[tokio::test(start_paused = true)]
async fn an_expired_token_that_is_taken_is_wrongly_acknowledged() {
    for (age, wrong) in [(3_500, 0), (3_900, 1)] {
        let network = Network::new(100);
        let emulator = start(&network).await;
        connect(&emulator, "http://receiver.test/", &json!({}));
        let device = device(&emulator, "touch", &json!({}));
        emulator.call("PATCH", "/emulator/faults", &json!({"staleTokens": true})).expect("set");
        publish(&emulator, &device, &json!({"touch": {}}));
        // Pauses are five minutes by then: the next attempt is before 3,600 s, or after 3,660 s.
        wait_until(&emulator, NOW * 1_000 + (age - 301) * 1_000).await;
        *network.answer.lock() = Ok(200);
        wait(|| (emulator.queued() == 0).then_some(())).await;
        let entry = emulator.ledger()[0].clone();
        let took = entry.decided_at.expect("decided") - entry.queued_at;
        assert_eq!(entry.wrongly_acknowledged, wrong, "after {took} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_is_given_up_after_twelve_hours_to_the_second() {
    let network = Network::new(1_000);
    let emulator = start(&network).await;
    connect(&emulator, "http://receiver.test/", &json!({}));
    let device = device(&emulator, "touch", &json!({}));
    publish(&emulator, &device, &json!({"touch": {}}));
    let entry =
        wait(|| emulator.ledger().into_iter().find(|entry| entry.fate != DeliveryStatus::Pending)).await;
    assert_eq!(entry.fate, DeliveryStatus::Expired);
    let took = entry.decided_at.expect("decided") - entry.queued_at;
    let expected = RETENTION.as_millis() as i64;
    assert!((expected..=expected + 1_000).contains(&took), "{took} ms, expected {expected}");
    assert_eq!(RETENTION.as_secs(), 43_200);
    // It was tried all the time, at pauses of five minutes.
    assert!(entry.attempts > 140, "{entry:?}");
    assert_eq!(entry.attempts as usize, network.times().len());
}

#[tokio::test(start_paused = true)]
async fn pauses_between_attempts_double_up_to_five_minutes() {
    let network = Network::new(1);
    let emulator = start(&network).await;
    connect(&emulator, "http://receiver.test/", &json!({}));
    let device = device(&emulator, "touch", &json!({}));
    publish(&emulator, &device, &json!({"touch": {}}));
    let times = wait(|| Some(network.times()).filter(|times| times.len() >= 13)).await;
    let pauses: Vec<u64> = times.windows(2).map(|pair| (pair[1] - pair[0]).as_millis() as u64).collect();
    for (pause, expected) in pauses.iter().zip([1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]) {
        // A timer of tokio's may be a millisecond late.
        assert!((expected * 1000..=expected * 1000 + 3).contains(pause), "{pauses:?}");
    }
}

/// Seconds since `NOW` for which the tokens of a request were made: both headers agree.
fn issued_at(request: &AttemptRequest) -> i64 {
    use base64::Engine;
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let iats = ["x-dt-signature", "dt-asymmetric-signature"].map(|name| {
        let token = request.headers[name].to_str().expect("text");
        let claims = engine.decode(token.split('.').nth(1).expect("claims")).expect("base64url");
        serde_json::from_slice::<Value>(&claims).expect("JSON")["iat"].as_i64().expect("iat") - NOW
    });
    assert_eq!(iats[0], iats[1]);
    iats[0]
}

#[tokio::test(start_paused = true)]
async fn tokens_are_made_anew_for_a_retry_unless_the_fault_says_otherwise() {
    for stale in [false, true] {
        let network = Network::new(100);
        let emulator = start(&network).await;
        connect(&emulator, "http://receiver.test/", &json!({}));
        let device = device(&emulator, "touch", &json!({}));
        emulator.call("PATCH", "/emulator/faults", &json!({"staleTokens": stale})).expect("set");
        publish(&emulator, &device, &json!({"touch": {}}));
        wait(|| network.times().last().is_some_and(|at| at.as_secs() > 7_200).then_some(())).await;
        // The receiver's clock stands still, so a token's age is in its `iat`.
        let seen = std::mem::take(&mut *network.seen.lock());
        let (first, last) = (seen.first().cloned(), seen.last().cloned());
        assert_eq!(issued_at(&first.expect("an attempt").1), 0);
        let (at, request) = last.expect("an attempt");
        let age = -issued_at(&request);
        let expected = if stale { at.as_secs().cast_signed() } else { 0 };
        assert!((age - expected).abs() <= 1, "stale {stale}: {age} s, expected {expected}");
    }
}

/// Whoever logs a request in a transport of their own must not log what is secret in it.
#[tokio::test(start_paused = true)]
async fn a_request_shows_no_credentials() {
    let network = Network::new(1);
    *network.answer.lock() = Ok(200);
    let emulator = start(&network).await;
    let config = json!({"url": "http://receiver.test/", "signatureSecret": "s3cret-one", "headers": {"my-key": "s3cret-two"}});
    connect(&emulator, "http://receiver.test/", &json!({"httpConfig": config}));
    let device = device(&emulator, "touch", &json!({}));
    publish(&emulator, &device, &json!({"touch": {}}));
    wait(|| (emulator.queued() == 0).then_some(())).await;
    let request = network.seen.lock().first().cloned().expect("an attempt").1;
    assert_eq!(request.headers["my-key"], "s3cret-two");
    let shown = format!("{request:?}{emulator:?}");
    let token = request.headers["x-dt-signature"].to_str().expect("text");
    assert!(!shown.contains("s3cret") && !shown.contains(token), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_dt_loses_nothing_within_twelve_hours() {
    let network = Network::new(1_000);
    *network.answer.lock() = Ok(200);
    let emulator = start(&network).await;
    connect(&emulator, "http://receiver.test/", &json!({}));
    let device = device(&emulator, "touch", &json!({}));
    emulator.call("PATCH", "/emulator/faults", &json!({"outage": true})).expect("set");
    publish(&emulator, &device, &json!({"touch": {}}));
    let began = emulator.now_millis();
    wait(|| (emulator.now_millis() - began > 11 * 3_600_000).then_some(())).await;
    assert_eq!((network.times().len(), emulator.queued()), (0, 1));
    emulator.call("DELETE", "/emulator/faults", &json!(null)).expect("cleared");
    wait(|| (emulator.queued() == 0).then_some(())).await;
    assert_eq!(emulator.ledger()[0].fate, DeliveryStatus::Acknowledged);
}
