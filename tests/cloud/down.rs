//! A receiver that is down: DT's queue has 12 hours, and after five days DT disables the connector.

use std::collections::BTreeSet;

use dt_receiver::clock::Clock;
use dt_receiver::emulator::{DeliveryStatus, HistoryEvent};
use dt_receiver::event::EventType;

use crate::clock::{DAY, HOUR};
use crate::compare::Difference;
use crate::world::{LONGEST_PAUSE, Plan, World};

/// Lets a receiver run for two hours, and stops it. Returns the time at which it began to stop, in Unix milliseconds.
async fn run_and_stop(world: &mut World) -> i64 {
    world.start_receiver().await;
    world.publish_rare_events();
    world.wait(2 * HOUR).await;
    let stopped = world.clock.unix_millis();
    world.stop_receiver().await;
    world.publish_rare_events();
    stopped
}

/// Starts the receiver again, and waits until DT has tried to deliver all that was in its queue. Returns what DT has had by then.
async fn start_again(world: &mut World) -> Vec<HistoryEvent> {
    let pause = i64::try_from(LONGEST_PAUSE.as_millis()).expect("hours");
    world.start_receiver().await;
    world.wait(pause).await;
    let now = world.clock.unix_millis();
    world.wait_for_deliveries(now).await;
    world.expected(now)
}

fn ids(events: &[HistoryEvent]) -> BTreeSet<String> {
    events.iter().map(|event| event.event_id.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_dt_sends_while_a_receiver_is_down_for_six_hours_comes_later() {
    // Slower: a busy machine may need seconds to start the receiver, which are hours of the default clock, and DT keeps only 12.
    let mut world = World::start(Plan { scale: 1_440, ..Plan::default() }).await;
    let stopped = run_and_stop(&mut world).await;
    world.wait_until(stopped + 6 * HOUR).await;
    assert!(world.emulator.queued() > 100, "DT has kept {}", world.emulator.queued());
    let expected = start_again(&mut world).await;
    world.wait_for_sink(&expected, &BTreeSet::new()).await;
    assert_eq!(world.end(&expected).await, Difference::default());
    let types: BTreeSet<EventType> =
        expected.iter().map(|event| EventType::from(&*event.event_type)).collect();
    assert_eq!(types, EventType::KNOWN.into_iter().collect(), "all types");
    let devices: BTreeSet<&str> = expected.iter().map(|event| &*event.device).collect();
    assert_eq!(devices.len(), 25);
}

/// Nothing fills the hole: it is what expired in DT's queue, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn what_expires_at_dt_while_a_receiver_is_down_for_13_hours_is_missing() {
    let mut world = World::start(Plan::default()).await;
    let stopped = run_and_stop(&mut world).await;
    world.wait_until(stopped + 13 * HOUR).await;
    let expected = start_again(&mut world).await;
    let expired = world.ids_in(DeliveryStatus::Expired);
    assert!(expired.len() > 20, "{} have expired", expired.len());
    world.wait_for_sink(&expected, &expired).await;
    let missing = Difference { missing: expired, ..Difference::default() };
    assert_eq!(world.end(&expected).await, missing);
}

/// Nothing fills the hole: DT has delivered nothing since the receiver was down, and would not until the connector is enabled.
#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_down_for_six_days_is_disabled_and_misses_all() {
    let mut world = World::start(Plan::default()).await;
    let stopped = run_and_stop(&mut world).await;
    world.wait_until(stopped + 6 * DAY).await;
    assert_eq!(world.status(), "SYSTEM_DISABLED");
    assert_eq!(world.emulator.queued(), 0);
    world.set_status("ACTIVE");
    let expected = start_again(&mut world).await;
    let acknowledged = world.ids_in(DeliveryStatus::Acknowledged);
    let missing: BTreeSet<String> = ids(&expected).difference(&acknowledged).cloned().collect();
    println!("{} of {} events are missing", missing.len(), expected.len());
    assert!(missing.len() > 5_000, "{} are missing", missing.len());
    world.wait_for_sink(&expected, &missing).await;
    let missing = Difference { missing, ..Difference::default() };
    assert_eq!(world.end(&expected).await, missing);
    assert_eq!(world.status(), "ACTIVE");
}
