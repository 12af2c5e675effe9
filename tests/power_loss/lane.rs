//! A lane records and checks in a mount namespace of its own: this test binary, started again by `unshare`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::check::{build, check, crashed};
use crate::disk::Disk;
use crate::disk::fake::{FakeDisk, Random};
use crate::events::{has_tool, seed, setting};
use crate::load::{Plan, files, live};
use crate::place::{PHASES, Phase, Place};
use crate::replay::{Ledger, Life, Recorded, Replay, choose};

const LANE: &str = "DT_RECEIVER_TEST_POWER_LANE";
const FOLDER: &str = "DT_RECEIVER_TEST_POWER_FOLDER";
const LANES: u64 = 2;
/// The lives of the program in one recording.
const LIVES: usize = 4;

#[test]
fn whenever_the_power_fails_every_200_is_in_the_file_once() {
    let left_out = "power losses of the real program";
    if !has_tool("strace", left_out) || !has_tool("unshare", left_out) {
        return;
    }
    let seed = seed();
    let lanes: Vec<_> = (0..LANES)
        .map(|lane| {
            let folder = tempfile::tempdir().expect("a folder");
            let mut command = Command::new("unshare");
            command.args(["--user", "--map-root-user", "--mount", "--"]);
            command.arg(std::env::current_exe().expect("this test"));
            command.args(["--exact", "lane::a_lane", "--nocapture"]);
            command.env(LANE, lane.to_string()).env(FOLDER, folder.path()).stdin(Stdio::null());
            command.env("DT_RECEIVER_TEST_SEED", (seed + lane * 1_000_003).to_string());
            (command.spawn().expect("unshare runs"), folder)
        })
        .collect();
    let failed = lanes.into_iter().filter_map(|(mut lane, _folder)| {
        let status = lane.wait().expect("it ends");
        (!status.success()).then_some(status)
    });
    assert_eq!(failed.count(), 0, "lanes failed; see above");
}

/// What a lane was started for; nothing when it is run as a test.
#[test]
fn a_lane() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let lane = setting(LANE, 0);
    let share = |name: &str, default: u64| setting(name, default).div_ceil(LANES);
    let runs = share("DT_RECEIVER_TEST_POWER_RUNS", 4);
    let points = share("DT_RECEIVER_TEST_POWER_POINTS", 40).div_ceil(runs);
    // The first recording of a lane does not begin after a power loss.
    let wanted = share("DT_RECEIVER_TEST_POWER_PER_PHASE", 2);
    let each = wanted.div_ceil((runs - 1).max(1));
    let mut random = Random::new(seed());
    let place = Place::new(Path::new(&folder));
    let mut tally = Tally::default();
    let (mut disk, mut ledger) = (with_out(&place), Ledger::default());
    for run in 0..runs {
        let began = Instant::now();
        let lives = record(&place, &disk, &ledger, run > 0, &mut random);
        let recorded = began.elapsed();
        let mut checked = Duration::ZERO;
        let chosen = choose(&lives, &place.disk, &mut random, points, each);
        let follow = usize::try_from(random.below(chosen.len() as u64)).unwrap();
        let mut replay = Replay::new(disk.clone(), ledger.clone(), &place.disk);
        let mut next = None;
        let mut at = 0;
        replay.run(&lives, &chosen, |point, replay| {
            let after = crashed(&replay.disk, &mut random);
            *tally.points.entry(point.phase).or_default() += 1;
            let checking = Instant::now();
            let outcome = check(&place, &after, &replay.ledger);
            checked += checking.elapsed();
            if let Err(problem) = outcome {
                println!("lane {lane}, run {run}, {point:?}: {problem}");
                tally.failures += 1;
            } else if at >= follow && next.is_none() {
                next = Some((after, replay.ledger.clone()));
            }
            at += 1;
        });
        println!(
            "lane {lane}, run {run}: {} events, {} dead letters and {} duplicates answered; recorded in {recorded:.1?}, \
             checked in {checked:.1?}, all in {:.1?}",
            replay.ledger.events.values().sum::<u64>(),
            replay.ledger.letters.len(),
            replay.ledger.duplicates,
            began.elapsed()
        );
        // The next recording begins after a power loss.
        (disk, ledger) = next.unwrap_or_else(|| (with_out(&place), Ledger::default()));
    }
    println!("lane {lane}: {tally:?}");
    assert_eq!(tally.failures, 0, "see above");
    for phase in PHASES {
        let count = tally.points.get(&phase).copied().unwrap_or(0);
        let reached = count >= wanted || (phase == Phase::Repair && runs == 1);
        assert!(reached, "{count} points in {phase:?}, expected {wanted}");
    }
}

#[derive(Debug, Default)]
struct Tally {
    points: BTreeMap<Phase, u64>,
    failures: u64,
}

/// An empty disk with the folder that the sink's files are in.
fn with_out(place: &Place) -> FakeDisk {
    let disk = FakeDisk::new(1);
    let out = Path::new("/").join(place.out.strip_prefix(&place.disk).expect("below it"));
    disk.create_folder(&out, true).expect("made");
    disk.sync_folder(Path::new("/")).expect("synced");
    disk
}

fn record(
    place: &Place,
    disk: &FakeDisk,
    ledger: &Ledger,
    is_repair: bool,
    random: &mut Random,
) -> Vec<Life> {
    place.mount();
    build(disk, &place.disk);
    let events = setting("DT_RECEIVER_TEST_POWER_EVENTS", 2_000);
    let mut book = ledger.events.clone();
    let lives = (0..LIVES)
        .map(|life| {
            let is_last = life + 1 == LIVES;
            // One life is long enough for a segment to fill up. The others begin their own.
            let events = if life == 1 { events * 3 / 5 } else { random.below(events / 4) + 1 };
            let seed = random.below(1 << 60);
            live(place, &Plan { life, events, killed: !is_last, seed }, &mut book);
            let end = files(&place.disk);
            let trace = std::fs::read_to_string(place.trace(life)).expect("a trace");
            let is_repair = is_repair && life == 0;
            Life::read(&trace, Recorded { is_repair, end, book: book.clone() })
        })
        .collect();
    place.unmount();
    lives
}
