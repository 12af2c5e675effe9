//! With a monitor, no hole stays: whatever happened, the sink has in the end each event of DT's history, and each of them once.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use dt_receiver::clock::Clock;
use dt_receiver::cloud::store::{CloudStore, Window, WindowState};
use dt_receiver::emulator::{DeliveryStatus, Faults};
use dt_receiver::event::EventType;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::clock::{DAY, HOUR};
use crate::compare::Difference;
use crate::world::{PATIENCE, PROJECT, Plan, World};

/// The sections of a receiver that watches the project `p`. It checks each hour: a shorter interval is a few milliseconds.
const MONITOR: &str = "[api]\n\
                       key_id = 'key'\n\
                       email = 'me@example.com'\n\
                       secret = { env = 'KEY' }\n\
                       requests_per_second = 1000\n\
                       url = '{api}'\n\
                       token_endpoint = '{tokens}'\n\
                       [monitor]\n\
                       public_url = '{public}'\n\
                       interval = '1h'\n\
                       reenable = true\n\
                       projects = ['p']\n";

/// The sections of a receiver that watches the projects `p` and `q`.
const TWO_PROJECTS: &str = "[api]\n\
                            key_id = 'key'\n\
                            email = 'me@example.com'\n\
                            secret = { env = 'KEY' }\n\
                            requests_per_second = 1000\n\
                            url = '{api}'\n\
                            token_endpoint = '{tokens}'\n\
                            [monitor]\n\
                            public_url = '{public}'\n\
                            interval = '1h'\n\
                            reenable = true\n\
                            projects = ['p', 'q']\n";

/// Starts a world with a monitor, and a receiver in it, which runs for two hours, and until it has all that DT had before the
/// first check: nothing of that is ever filled.
async fn started(plan: Plan) -> World {
    let mut world = World::start(plan).await;
    world.start_receiver().await;
    run_for_hours(&mut world).await;
    world
}

async fn run_for_hours(world: &mut World) {
    world.publish_rare_events();
    world.wait(2 * HOUR).await;
    let now = world.clock.unix_millis();
    world.wait_for_deliveries(now).await;
    world.wait_for_sink(&world.expected(now), &BTreeSet::new()).await;
}

/// Lets DT deliver nothing for 45 minutes, which is too short to be noticed by the monitor. Later events of the same devices hide
/// what is lost then.
async fn queue_events(world: &World) {
    let mut faults = Faults::default();
    faults.apply("outage").expect("known");
    world.emulator.set_faults(faults).expect("valid");
    world.wait(HOUR * 3 / 4).await;
    assert!(world.emulator.queued() > 20, "DT has queued {}", world.emulator.queued());
}

fn end_faults(world: &World) {
    world.emulator.set_faults(Faults::default()).expect("valid");
}

fn plan() -> Plan {
    Plan { sections: MONITOR, ..Plan::default() }
}

/// Stops the receiver for so many milliseconds.
async fn stop_for(world: &mut World, millis: i64) {
    let stopped = world.clock.unix_millis();
    world.stop_receiver().await;
    world.publish_rare_events();
    world.wait_until(stopped + millis).await;
}

/// Returns the windows that were opened for all devices of a project, oldest first, whatever their state.
fn whole_windows(world: &World) -> Vec<Window> {
    let store = CloudStore::open(&world.data()).expect("opened");
    let windows = (1..).map_while(|id| store.window(id).expect("read"));
    windows.filter(|window| ["outage", "inactive"].contains(&&*window.cause)).collect()
}

/// How often windows of all devices are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Walks {
    NotExpected,
    Once,
    Twice,
}

/// Waits until windows of all devices were opened, and each is closed as done.
async fn wait_for_windows(world: &World, walks: Walks) {
    let began = Instant::now();
    loop {
        let windows = whole_windows(world);
        let is_due_again = |window: &Window| walks == Walks::Twice && window.rewalk_at.is_some();
        let is_closed = |window: &Window| window.state == WindowState::Done && !is_due_again(window);
        if !windows.is_empty() && windows.iter().all(is_closed) {
            return;
        }
        if began.elapsed() > PATIENCE {
            panic!("{windows:?}\n{}", world.receiver_state().await);
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until a condition of the world holds.
async fn wait_for(world: &World, what: &str, holds: impl Fn(&World) -> bool) {
    let began = Instant::now();
    while !holds(world) {
        if began.elapsed() > PATIENCE {
            panic!("{what} in vain\n{}", world.receiver_state().await);
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the sink has everything that DT has by now, and the windows are fetched, and compares. Returns the number of
/// events that were filled.
async fn compare(world: &mut World, name: &str, walks: Walks) -> usize {
    let until = world.clock.unix_millis();
    world.wait_for_deliveries(until).await;
    let expected = world.expected(until);
    world.wait_for_sink(&expected, &BTreeSet::new()).await;
    if walks != Walks::NotExpected {
        wait_for_windows(world, walks).await;
    }
    let difference = world.end(&expected).await;
    let filled = world.sink.filled().count();
    let lines = world.sink.lines.len();
    let (missing, repeated) = (difference.missing.len(), difference.repeated.len());
    println!(
        "{name}: {} of {lines} events compared, {filled} filled, {missing} missing, {repeated} repeated",
        expected.len()
    );
    assert_eq!(difference, Difference::default());
    let early: Vec<_> = world.sink.lines.iter().filter(|line| line.micros < world.since).collect();
    assert!(early.is_empty(), "from before the connector existed: {early:?}");
    let types: BTreeSet<EventType> =
        expected.iter().map(|event| EventType::from(&*event.event_type)).collect();
    assert_eq!(types, EventType::KNOWN.into_iter().collect(), "all types");
    let devices: BTreeSet<&str> = expected.iter().map(|event| &*event.device).collect();
    assert_eq!(devices.len(), 25);
    filled
}

/// DT has dropped what was older than 12 hours.
#[tokio::test(flavor = "multi_thread")]
async fn thirteen_hours_without_the_receiver() {
    let mut world = started(plan()).await;
    queue_events(&world).await;
    stop_for(&mut world, HOUR).await;
    end_faults(&world);
    world.wait(13 * HOUR).await;
    let expired = world.ids_in(DeliveryStatus::Expired).len();
    world.start_receiver().await;
    let filled = compare(&mut world, "13 hours", Walks::Twice).await;
    assert!(expired > 20 && filled >= expired, "{expired} have expired, {filled} are filled");
}

/// DT has disabled the connector. The monitor enables it, without a person.
#[tokio::test(flavor = "multi_thread")]
async fn six_days_without_the_receiver() {
    // Faster, since it is the longest time.
    let mut world = started(Plan { scale: 12_960, ..plan() }).await;
    stop_for(&mut world, 6 * DAY).await;
    assert_eq!((world.status(), world.emulator.queued()), ("SYSTEM_DISABLED".into(), 0));
    world.start_receiver().await;
    wait_for(&world, "the monitor enables the connector", |world| world.status() == "ACTIVE").await;
    let filled = compare(&mut world, "six days", Walks::Once).await;
    assert!(filled > 5_000, "{filled} are filled");
}

/// The monitor never enables what a person has disabled.
#[tokio::test(flavor = "multi_thread")]
async fn a_day_of_user_disabled() {
    let mut world = started(plan()).await;
    queue_events(&world).await;
    world.set_status("USER_DISABLED");
    end_faults(&world);
    world.publish_rare_events();
    world.wait(DAY).await;
    assert_eq!(world.status(), "USER_DISABLED");
    world.set_status("ACTIVE");
    let filled = compare(&mut world, "USER_DISABLED", Walks::Twice).await;
    assert!(filled > 1_000, "{filled} are filled");
}

/// Half of the attempts fail, half of those after the receiver has stored the event, and some events are sent twice at once.
#[tokio::test(flavor = "multi_thread")]
async fn days_of_broken_connections() {
    // Slower: on a busy machine, DT would make too few of the attempts of 12 hours.
    let mut world = started(Plan { scale: 4_320, ..plan() }).await;
    let mut faults = Faults::default();
    faults.apply("drop=0.5,duplicate=0.2,reorder=0.2").expect("known");
    world.emulator.set_faults(faults).expect("valid");
    world.publish_rare_events();
    world.wait(3 * DAY).await;
    end_faults(&world);
    let retried = world.emulator.ledger().iter().filter(|entry| entry.attempts > 1).count();
    assert!(retried > 1_000, "{retried} were retried");
    compare(&mut world, "broken connections", Walks::NotExpected).await;
}

/// DT shows the history of a device in the project to which it belongs now. That is our assumption.
#[tokio::test(flavor = "multi_thread")]
async fn devices_that_move_to_another_project_while_the_receiver_is_down() {
    let mut world = World::start(Plan { sections: TWO_PROJECTS, ..Plan::default() }).await;
    world.add_project("q");
    world.start_receiver().await;
    run_for_hours(&mut world).await;
    let stopped = world.clock.unix_millis();
    stop_for(&mut world, 5 * HOUR).await;
    let moved = device_names(&world, "deviceTypes=temperature&deviceTypes=contact");
    let path = "/v2/projects/q/devices:transfer";
    let answer = world.emulator.call("POST", path, &json!({"devices": moved})).expect("moved");
    assert_eq!(answer["transferredDevices"].as_array().map(Vec::len), Some(6));
    world.wait_until(stopped + 13 * HOUR).await;
    let expired = world.ids_in(DeliveryStatus::Expired).len();
    world.start_receiver().await;
    let filled = compare(&mut world, "moved devices", Walks::Twice).await;
    assert!(expired > 20 && filled >= expired, "{expired} have expired, {filled} are filled");
}

/// Returns the names of the devices of the project `p` that a query selects.
fn device_names(world: &World, query: &str) -> Vec<Value> {
    let path = format!("/v2/projects/{PROJECT}/devices?{query}");
    let list = world.emulator.call("GET", &path, &Value::Null).expect("a list");
    list["devices"].as_array().expect("a list").iter().map(|device| device["name"].clone()).collect()
}

/// What a device reports late does not change `updateTime`, and nothing pushes it here. The window is fetched again a day later.
#[tokio::test(flavor = "multi_thread")]
async fn samples_that_are_late() {
    // Slower: the first fetch has to be over long before a day has passed.
    let mut world = started(Plan { scale: 2_880, ..plan() }).await;
    stop_for(&mut world, 13 * HOUR).await;
    world.start_receiver().await;
    wait_for_windows(&world, Walks::Once).await;
    assert!(
        whole_windows(&world).iter().all(|window| window.rewalk_at.is_some()),
        "{:?}",
        whole_windows(&world)
    );
    let names = device_names(&world, "deviceTypes=temperature&deviceTypes=touch");
    let before: BTreeSet<_> = world.emulator.history().into_iter().map(|event| event.event_id).collect();
    for name in &names {
        let name = name.as_str().expect("a name");
        // They are between the events that were fetched. The second is pushed, so it is known when it is fetched.
        for (hours, is_pushed) in [(9, false), (8, true)] {
            let path = format!("/emulator/{name}:publish?age={}&push={is_pushed}", hours * 3_600);
            world.emulator.call("POST", &path, &json!({"touch": {}})).expect("published");
        }
    }
    let late: BTreeSet<_> = world.emulator.history().into_iter().map(|event| event.event_id).collect();
    let late: Vec<_> = late.difference(&before).cloned().collect();
    // Heartbeats may have come between.
    assert!(late.len() >= 2 * names.len());
    world.wait(2 * HOUR).await;
    world.sink.read();
    let found = late.iter().filter(|id| world.sink.has(id)).count();
    assert_eq!(late.len() - found, names.len(), "those that were not pushed");
    compare_late(&mut world, names.len()).await;
}

/// Compares. What the second fetch found comes after newer events of the same device, and is in order by itself.
async fn compare_late(world: &mut World, late: usize) {
    wait_for_windows(world, Walks::Twice).await;
    let until = world.clock.unix_millis();
    world.wait_for_deliveries(until).await;
    let expected = world.expected(until);
    world.wait_for_sink(&expected, &BTreeSet::new()).await;
    world.stop_receiver().await;
    world.sink.read();
    let difference = Difference::new(&world.sink.lines, &expected, &world.emulator.history());
    let filled = world.sink.filled().count();
    println!("late samples: {} events compared, {filled} filled, {late} of them late", expected.len());
    assert_eq!(difference, Difference::default());
}
