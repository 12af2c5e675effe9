//! A back-fill that is killed continues where it was.

use std::process::Stdio;

use crate::world::{DAY, HOUR, World, connector, rfc3339};
use crate::{assert_complete, assert_in_order, count, until};

#[tokio::test(flavor = "multi_thread")]
async fn killed_ten_times_it_fetches_no_piece_more_than_twice() {
    let world = World::start(&connector("plant", "")).await;
    let receiver = world.setup.start();
    let devices = world.devices("p", 30);
    for device in &devices {
        (0..72).for_each(|hour| world.publish("p", device, world.today - 3 * DAY + hour * HOUR));
    }
    let (since, end) = (rfc3339(world.today - 3 * DAY), rfc3339(world.today));
    let rate = ["--requests-per-second", "50"];
    let arguments =
        [&["--since", &since, "--until", &end, "--allow-duplicates", "--json"][..], &rate].concat();
    for kill in 1..=10 {
        let mut child = world
            .command(&arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        // Far enough that the piece that was killed is done: it is the second one from here, at most.
        let goal = world.proxy.pieces().len() + 4;
        until("pieces", || world.proxy.pieces().len() >= goal).await;
        child.kill().expect("killed");
        child.wait().expect("reaped");
        assert!(world.proxy.pieces().len() < 120, "kill {kill} came after the end");
    }
    let ended = world.backfill(&arguments);
    let report = ended.json();
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert!(ended.stderr.contains("continuing the back-fill"), "{ended:?}");
    assert_eq!((count(&report, "pieces"), count(&report, "piecesDone")), (120, 120), "{report}");
    let pieces = world.proxy.pieces();
    assert_eq!(pieces.len(), 120, "30 devices of 3 days, and 10 s of the day before");
    let often: Vec<_> = pieces.iter().filter(|(_, times)| **times > 2).collect();
    assert!(often.is_empty(), "{often:?}");
    assert!(pieces.values().sum::<usize>() <= 130, "{pieces:?}");
    receiver.drain();
    assert_complete(&world, "plant", &devices);
    assert_in_order(&world.written("plant"));
    receiver.stop();
}
