//! What the API refuses is named with its remedy, and what is missing is said.

use serde_json::Value;

use crate::world::{DAY, HOUR, World, connector, rfc3339};
use crate::{assert_complete, count};

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_and_projects_are_named_with_a_remedy() {
    let world = World::start(&connector("plant", "")).await;
    world.setup.start().stop();
    world.devices("p", 1);
    let refused = |arguments: &[&str], secret: Option<&str>, words: &[&str]| {
        let mut command = world.command(&[&["--since", "1d", "--json"], arguments].concat());
        command.envs(secret.map(|secret| ("DT_SERVICE_ACCOUNT_SECRET", secret)));
        let ended = crate::world::ended(command);
        assert_eq!(ended.code(), 1, "{ended:?}");
        let error = ended.json()["error"].clone();
        for word in words {
            assert!(error["message"].as_str().is_some_and(|text| text.contains(word)), "{word}: {error}");
        }
        error["code"].as_str().expect("a code").to_owned()
    };
    assert_eq!(refused(&[], Some("hunter2-wrong"), &["check key id, secret and e-mail"]), "credentials");
    let ended = world.backfill(&["--since", "1d", "--project", "nowhere"]);
    assert_eq!(ended.code(), 1, "{ended:?}");
    assert!(ended.stderr.contains("no device that the service account can see"), "{ended:?}");
    // The emulator has any project that is asked for.
    world.proxy.refuse(|line| line.contains("/projects/nowhere/").then_some(404));
    let words = ["not found", "check the ids"];
    assert_eq!(refused(&["--project", "nowhere"], None, &words), "not_found");
    world.proxy.refuse(|line| line.contains("/devices").then_some(403));
    assert_eq!(refused(&[], None, &["grant it a role in the project"]), "forbidden");
    world.proxy.refuse(|_| Some(429));
    assert_eq!(refused(&[], None, &["DT limits the rate of requests", "try again"]), "rate_limited");
    world.proxy.refuse(|_| Some(503));
    assert_eq!(refused(&[], None, &["DT cannot answer, status 503", "try again later"]), "unavailable");

    for (arguments, words) in [
        (&["--since", "tomorrow"][..], "expected a date such as"),
        (&["--since", "2020-01-01", "--until", "2020-01-02"], "older than 31 days"),
        (&["--since", "1h", "--until", "2h"], "is not before --until"),
        (&["--since", "1h", "--project", "a/b"], "project"),
    ] {
        let ended = world.backfill(arguments);
        assert_eq!(ended.code(), 2, "{ended:?}");
        assert!(ended.stderr.contains(words), "{words}: {ended:?}");
    }
}

/// The codes of what is missing.
fn missing(report: &Value) -> Vec<(String, u64)> {
    let missing = report["missing"].as_array().expect("a list").iter();
    missing
        .map(|missing| (missing["code"].as_str().expect("a code").to_owned(), count(missing, "pieces")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_fetched_stays_open_and_the_rest_is_filled() {
    let world = World::start(&connector("plant", "")).await;
    let receiver = world.setup.start();
    let mut devices = world.devices("p", 6);
    devices.sort();
    for device in &devices {
        (0..48).for_each(|hour| world.publish("p", device, world.today - 2 * DAY + hour * HOUR));
    }
    let end = rfc3339(world.today);
    let fill = || world.fill(2, &["--until", &end]);

    // One device cannot be read: the others are filled. Of each, the window touches three days.
    let bad = format!("/{}/events?", devices[2]);
    let (rule, day) = (bad.clone(), rfc3339(world.today - 2 * DAY));
    let day = day.split('T').next().expect("a date").to_owned();
    world.proxy.refuse(move |line| {
        (line.contains(&rule) && line.contains(&format!("startTime={day}"))).then_some(404)
    });
    let (code, report) = fill();
    assert_eq!((code, count(&report, "filled")), (1, 5 * 48), "{report}");
    assert_eq!(missing(&report), [("not_found".to_owned(), 1), ("after_failure".to_owned(), 1)], "{report}");
    assert!(report["stopped"].is_null(), "{report}");

    // The API is down: after three devices in a row the walk ends.
    world.proxy.refuse(|line| line.contains("/events?").then_some(500));
    let (code, report) = fill();
    assert_eq!(code, 1, "{report}");
    assert_eq!(missing(&report)[0].0, "unavailable", "{report}");

    // The same command fetches only what is missing.
    world.proxy.refuse(|_| None);
    let before = world.proxy.pieces().values().sum::<usize>();
    let (code, report) = fill();
    assert_eq!((code, count(&report, "filled"), count(&report, "piecesDone")), (0, 6 * 48, 18), "{report}");
    assert_eq!(world.proxy.pieces().values().sum::<usize>() - before, 2);
    receiver.drain();
    assert_complete(&world, "plant", &devices);
    receiver.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_permission_ends_the_walk() {
    let world = World::start(&connector("plant", "")).await;
    let receiver = world.setup.start();
    let devices = world.devices("p", 8);
    devices.iter().for_each(|device| world.publish("p", device, world.today - DAY));
    world.proxy.refuse(|line| line.contains("/events?").then_some(403));
    let end = rfc3339(world.today);
    let (code, report) = world.fill(1, &["--until", &end]);
    assert_eq!(code, 1, "{report}");
    assert_eq!(missing(&report), [("forbidden".to_owned(), 1), ("after_failure".to_owned(), 1)], "{report}");
    let stopped = report["stopped"].as_str().expect("a reason");
    assert!(stopped.contains("no permission") && world.proxy.pieces().len() == 1, "{report}");
    // In words, for a person.
    let since = rfc3339(world.today - DAY);
    let ended = world.backfill(&["--since", &since, "--until", &end, "--allow-duplicates"]);
    assert_eq!(ended.code(), 1);
    for words in ["8 devices, 0 of 16 days", "still missing: ", "stopped early: ", "the same command again"] {
        assert!(ended.stdout.contains(words), "{words}: {ended:?}");
    }
    receiver.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn mode_direct_is_refused() {
    let world = World::start(&connector("plant", "")).await;
    let setup = &world.setup;
    setup.write_config(&format!(
        "mode = 'direct'\ndata = 'FOLDER/data'\n{}[[sink]]\nname = 'out'\ntype = 'file'\npath = 'FOLDER/direct.ndjson'\n",
        connector("plant", "")
    ));
    setup.start().stop();
    let ended = world.backfill(&["--since", "1d"]);
    assert_eq!(ended.code(), 2, "{ended:?}");
    assert!(ended.stderr.contains("mode `direct` has no log"), "{ended:?}");
    assert_eq!(world.proxy.requests(), 0);
}
