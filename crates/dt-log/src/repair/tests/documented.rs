//! Every row of the table in `docs/spool-and-recovery.md`: what is lost, what a start says, and what a repair does.

use super::*;

/// Copies a file over another one.
fn put(from: PathBuf, to: PathBuf) {
    std::fs::write(to, std::fs::read(from).expect("read")).expect("written");
}

/// What happens on a start after a loss or damage.
enum Then {
    /// The log opens. A finding contains these words; `None` if there is no finding.
    Opens(Option<&'static str>),
    /// The log does not open. The repair has a step with each of these words, and then the log opens.
    Repairs(&'static [&'static str]),
    /// The log does not open, and no repair is possible. The error of the repair contains these words.
    StaysClosed(&'static str),
}

use Then::{Opens, Repairs, StaysClosed};

/// A row of the table in `docs/spool-and-recovery.md`: its first cell, ways to cause the damage, the outcome, and whether
/// events are lost.
type Row = (&'static str, &'static [fn(&Fixture)], Then, Lost);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lost {
    Nothing,
    Events,
}

const ROWS: &[Row] = &[
    (
        "segments in the middle",
        &[|fixture| fixture.remove(&[2, 3])],
        Repairs(&["continue without segments 2 to 3; events", "create segment"]),
        Lost::Events,
    ),
    (
        "the oldest segments",
        &[|fixture| fixture.remove(&[1])],
        Repairs(&["the oldest segments", "continue after"]),
        Lost::Events,
    ),
    (
        "the newest segments",
        &[|fixture| fixture.remove(&[fixture.newest() - 1, fixture.newest()])],
        Repairs(&["are lost", "create segment"]),
        Lost::Events,
    ),
    (
        "all segments",
        &[|fixture| fixture.remove(&fixture.segments())],
        Repairs(&["all events in them from 1 on"]),
        Lost::Events,
    ),
    (
        "a segment of another spool, or of a newer program",
        &[|fixture| put(Fixture::new().segment(2), fixture.segment(2)), |fixture| fixture.make_newer(2)],
        Repairs(&["segment-0000000002.log.set-aside-1", "continue without segments 2 to 2"]),
        Lost::Events,
    ),
    (
        "the snapshot of the newest segment",
        &[|fixture| spoil(&fixture.segment(fixture.newest()), 540..560)],
        Repairs(&["with the state of the sinks from segment"]),
        Lost::Nothing,
    ),
    (
        "the header of the newest segment",
        &[|fixture| spoil(&fixture.segment(fixture.newest()), 24..40)],
        Repairs(&["set-aside-1", "back to its name, with a new header"]),
        Lost::Nothing,
    ),
    (
        "the header of an older segment",
        &[|fixture| spoil(&fixture.segment(2), 24..40)],
        Opens(Some("its header is damaged")),
        Lost::Nothing,
    ),
    (
        "a segment's header and its first group",
        &[|fixture| spoil(&fixture.segment(2), 0..560)],
        Repairs(&["set-aside-1", "copy segment 2 back"]),
        Lost::Nothing,
    ),
    (
        "the snapshots of all segments, and segment 1 is no longer kept",
        &[|fixture| {
            fixture.remove(&[1]);
            fixture.segments().iter().for_each(|number| spoil(&fixture.segment(*number), 540..560));
        }],
        StaysClosed("no segment has a readable list of the sinks"),
        Lost::Nothing,
    ),
    (
        "a group inside a segment",
        &[|fixture| fixture.spoil_group(fixture.newest(), 1)],
        Opens(Some("is damaged")),
        Lost::Events,
    ),
    (
        "the last group",
        &[|fixture| fixture.spoil_group(fixture.newest(), 0)],
        Opens(Some("possibly acknowledged")),
        Lost::Events,
    ),
    (
        "`dead.db` is missing",
        &[|fixture| std::fs::remove_file(fixture.file("dead.db")).expect("removed")],
        Repairs(&["its first dead letter gets an id above 2"]),
        Lost::Nothing,
    ),
    (
        "`dead.db` is an older copy",
        &[|fixture| put(fixture.file("older.db"), fixture.file("dead.db"))],
        Repairs(&["use this older copy"]),
        Lost::Nothing,
    ),
    (
        "`dead.db` of another spool, or no database",
        &[
            |fixture| put(Fixture::new().file("dead.db"), fixture.file("dead.db")),
            |fixture| std::fs::write(fixture.file("dead.db"), "no database").expect("written"),
        ],
        Repairs(&["dead.db.set-aside-1", "create a new"]),
        Lost::Nothing,
    ),
    (
        "`dead.db` is damaged",
        &[|fixture| spoil_table(&fixture.file("dead.db"), "counts")],
        Repairs(&["dead.db.set-aside-1", "with the dead letters that are readable"]),
        Lost::Nothing,
    ),
    (
        "`ids.db` is missing, older, foreign or damaged",
        &[
            |fixture| std::fs::remove_file(fixture.file("ids.db")).expect("removed"),
            |fixture| put(Fixture::new().file("ids.db"), fixture.file("ids.db")),
            |fixture| std::fs::write(fixture.file("ids.db"), "no database").expect("written"),
            |fixture| spoil(&fixture.file("ids.db"), 100..4096),
        ],
        Opens(Some("ids.db")),
        Lost::Nothing,
    ),
    (
        "`spool.lock` is missing",
        &[|fixture| std::fs::remove_file(fixture.file("spool.lock")).expect("removed")],
        Opens(None),
        Lost::Nothing,
    ),
    (
        "the number in `spool.lock` is nonsense",
        &[|fixture| std::fs::write(fixture.file("spool.lock"), "09999999999999999999\n").expect("written")],
        Repairs(&["create segment"]),
        Lost::Nothing,
    ),
    (
        "the spool of an unreleased first edition (`spool.db`)",
        &[|fixture| std::fs::write(fixture.file("spool.db"), "").expect("written")],
        StaysClosed("move the folder away"),
        Lost::Nothing,
    ),
];

/// Returns the rows of the table: the first cell, and the messages in the second cell, in which `A`, `B`, `N` and `…` stand
/// for any text.
fn documented() -> Vec<(&'static str, Vec<Vec<&'static str>>)> {
    let page = include_str!("../../../../../docs/spool-and-recovery.md");
    let table = page.split_once("| what is lost or damaged |").expect("a table").1;
    let mut rows: Vec<(&str, Vec<Vec<&str>>)> = Vec::new();
    for line in table.lines().skip(2).take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let quoted = cells[1].split('`').skip(1).step_by(2).filter(|words| *words != "spool.lock");
        let anything = |c: char| matches!(c, 'A' | 'B' | 'N' | '…');
        let mut says: Vec<Vec<&str>> = quoted.map(|words| words.split(anything).collect()).collect();
        if cells[1].starts_with("the same") {
            says = rows.last().expect("a row before").1.clone();
        }
        rows.push((cells[0], says));
    }
    rows
}

/// Returns whether the sink `behind`, which has received nothing, gets fewer events than there were.
fn lost_of(log: &Log) -> Lost {
    let mut intact = 0;
    if let Some(sink) = log.sink("behind") {
        let mut source = log.source(sink);
        while source.position() < log.tail().last_seq() {
            let stored = source.read(7, i64::MAX).expect("read");
            intact += stored.iter().filter(|stored| stored.record.is_ok()).count();
        }
    }
    if intact == usize::try_from(EVENTS + 3).expect("fits") { Lost::Nothing } else { Lost::Events }
}

#[test]
fn each_row_of_the_documentation_is_so() {
    let documented = documented();
    let names: Vec<&str> = documented.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ROWS.iter().map(|(name, ..)| *name).collect::<Vec<_>>());
    let whole = Fixture::new();
    std::fs::copy(whole.file("dead.db"), whole.file("older.db")).expect("copied");
    let log = whole.open().expect("opens");
    let dead_letter = DeadLetter::of_record(&Record::sample("x"), Arc::from("ahead"), "odd".to_owned(), 1);
    log.dead_letters().add_blocking(vec![dead_letter]).expect("stored");
    drop(log);
    // The snapshot of the next segment records the dead letter.
    let log = whole.open().expect("opens");
    let sinks = SinkSet::new([log.sink("behind").expect("known").number]);
    for number in 1..=3 {
        append(&log, &(EVENTS + number).to_string(), &sinks);
    }
    drop(log);
    for ((name, damages, then, lost), (_, says)) in ROWS.iter().zip(&documented) {
        for (which, damage) in damages.iter().enumerate() {
            let (what, fixture) = (format!("{name} ({which})"), whole.copy());
            damage(&fixture);
            let said = |text: &str| {
                let is_said = |words: &Vec<&str>| words.iter().all(|word| text.contains(word));
                assert!(says.is_empty() || says.iter().any(is_said), "{what}: {says:?} is not in: {text}");
            };
            match then {
                Opens(finding) => {
                    let log = fixture.open().unwrap_or_else(|error| panic!("{what}: {error}"));
                    assert_eq!(lost_of(&log), *lost, "{what}");
                    let found = log.findings().join("\n");
                    assert_eq!(found.is_empty(), finding.is_none(), "{what}: {found}");
                    assert!(finding.is_none_or(|words| found.contains(words)), "{what}: {found}");
                    for finding in log.findings() {
                        let (_, remedy) = finding.split_once("; ").unwrap_or_default();
                        assert!(!remedy.is_empty(), "{what}: no remedy in: {finding}");
                    }
                    said(&found);
                }
                Repairs(words) => {
                    said(&fixture.open().map(drop).expect_err(&what).to_string());
                    let steps = fixture.repair().join("\n");
                    for word in *words {
                        assert!(steps.contains(word), "{what}: \"{word}\" is not in: {steps}");
                    }
                    let log = fixture.open().unwrap_or_else(|error| panic!("{what}: {error}"));
                    assert_eq!(lost_of(&log), *lost, "{what}");
                }
                StaysClosed(words) => {
                    let before = fixture.files();
                    let start = fixture.open().map(drop).expect_err(&what).to_string();
                    said(&start);
                    let repair = Proposal::new(fixture.path()).map(drop).expect_err(&what).to_string();
                    assert!(repair.contains(words), "{what}: {repair}");
                    assert_eq!(fixture.files(), before, "{what}: something was changed");
                }
            }
        }
    }
}
