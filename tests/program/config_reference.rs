//! The reference of keys is complete and true: the reader takes the same keys in every table, with the same ranges and
//! defaults. The files that are made from it and from the table of metrics are up to date.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::Path;

use dt_receiver::config::{Config, ConfigError, KeyDefault, Sources, Table};
use dt_receiver::sink_types;

/// Every variable is set and every file is there.
struct Everything;

impl Sources for Everything {
    fn env(&self, name: &str) -> Option<OsString> {
        let is_url = name.ends_with("_URL");
        Some(OsString::from(if is_url { "postgres://dt:some-good-secret@db/dt" } else { "some-good-secret" }))
    }

    fn looks_at_certificates(&self) -> bool {
        false
    }

    fn file(&self, path: &Path) -> io::Result<Vec<u8>> {
        if path.extension().is_some_and(|extension| extension == "json") {
            let vectors: serde_json::Value = serde_json::from_str(include_str!("../vectors/verify.json"))?;
            let verifiers: BTreeMap<String, serde_json::Value> =
                serde_json::from_value(vectors["verifiers"].clone())?;
            let keys =
                verifiers.values().find(|verifier| verifier["key_set"].is_object()).expect("a key set");
            return Ok(keys["key_set"].to_string().into_bytes());
        }
        Ok(b"some-good-secret\n".to_vec())
    }
}

fn reference() -> Vec<Table> {
    dt_receiver::config::reference(&sink_types())
}

fn sample_file() -> String {
    dt_receiver::config::sample_file(&sink_types())
}

/// The problems of a text, but for what this build lacks.
fn problems(text: &str) -> Vec<String> {
    match Config::from_toml(text, &Everything, &sink_types()).and_then(Config::complete) {
        Ok(_) => Vec::new(),
        Err(ConfigError::Problems(problems)) => problems
            .iter()
            .map(ToString::to_string)
            .filter(|problem| !problem.contains("build with the feature"))
            .collect(),
        Err(other) => panic!("{other}\n{text}"),
    }
}

/// The sample file with every key in force, as lines.
fn everything() -> Vec<String> {
    sample_file()
        .lines()
        .filter_map(|line| line.strip_prefix('#').filter(|rest| !rest.is_empty() && !rest.starts_with(' ')))
        // The monitor and the sources need the ids of received events.
        .filter(|line| *line != "dedup_window = 0")
        .map(str::to_owned)
        .collect()
}

fn is_header(line: &str) -> bool {
    line.starts_with('[')
}

/// The tables of a sink's type whose keys the author of the file chooses.
const NAMED_BY_THE_AUTHOR: [&str; 3] = ["[sink.properties]", "[sink.headers]", "[sink.fields]"];

/// The line of the type of sink that a place of the sample is about; `None` for other tables.
fn type_of_sink(lines: &[String], at: usize) -> Option<&str> {
    lines[at].contains("sink").then_some(())?;
    let sink = lines[..=at].iter().rposition(|line| line == "[[sink]]")?;
    lines[sink..].iter().take(3).find(|line| line.starts_with("type = ")).map(String::as_str)
}

/// The tables of the reference, each with the line of the type of sink that it belongs to.
fn tables_by_type() -> Vec<(Option<String>, Table)> {
    let mut of_type = None;
    let place = |table: Table| {
        let line = table.given.lines().find(|line| line.starts_with("type")).map(str::to_owned);
        of_type = if table.header == "[[sink]]" { line } else { of_type.clone() };
        (of_type.clone(), table)
    };
    reference().into_iter().map(place).collect()
}

/// Whether the build lacks what a table is for, and so does not read it.
fn is_left_out(lines: &[String], at: usize) -> bool {
    let name = type_of_sink(lines, at).and_then(|line| line.split('"').nth(1));
    name.is_some_and(|name| dt_receiver::sink_types().find(name).is_err())
}

/// The keys of the table whose header is at a place of the sample: those of its rows, and the tables below it.
fn documented(lines: &[String], at: Option<usize>) -> BTreeSet<String> {
    let header = at.map_or("", |at| lines[at].as_str());
    let kind = at.and_then(|at| type_of_sink(lines, at));
    let path = header.trim_matches(['[', ']']);
    let mut keys = BTreeSet::new();
    for (of_type, table) in tables_by_type() {
        // The keys of all sinks are in each of them; what belongs to one type is in that one alone.
        let is_of_all = of_type.is_none();
        if !is_of_all && header.contains("sink") && of_type.as_deref() != kind {
            continue;
        }
        if table.header == header {
            keys.extend(table.keys.iter().map(|key| key.name.to_owned()));
            continue;
        }
        let other = table.path();
        let below = if path.is_empty() {
            Some(other)
        } else {
            other.strip_prefix(path).and_then(|rest| rest.strip_prefix('.'))
        };
        let name = below.and_then(|rest| rest.split('.').next()).filter(|name| !name.is_empty());
        keys.extend(name.map(str::to_owned));
    }
    keys
}

#[test]
fn the_sample_with_every_key_in_force_is_a_good_configuration() {
    assert_eq!(problems(&everything().join("\n")), [] as [String; 0]);
    for line in sample_file().lines() {
        assert!(line.is_empty() || line.starts_with('#'), "in force as it comes: {line}");
    }
}

#[test]
fn the_reader_takes_the_same_keys_in_every_table() {
    let lines = everything();
    let places = std::iter::once(None)
        .chain(lines.iter().enumerate().filter(|(_, line)| is_header(line)).map(|(at, _)| Some(at)));
    let mut looked_at = 0;
    for place in places {
        let is_free = |at: usize| NAMED_BY_THE_AUTHOR.contains(&lines[at].as_str());
        if place.is_some_and(|at| is_free(at) || is_left_out(&lines, at)) {
            continue;
        }
        let mut with_stray = lines.clone();
        with_stray.insert(place.map_or(0, |at| at + 1), "stray = 1".to_owned());
        let said = problems(&with_stray.join("\n"));
        let [said] = &said[..] else { panic!("{place:?}: {said:?}") };
        let (_, allowed) = said.split_once("stray: unknown key; expected one of ").expect("the keys");
        let read: BTreeSet<String> = allowed.split(", ").map(str::to_owned).collect();
        let table = place.map_or("the top of the file", |at| &lines[at]);
        assert_eq!(read, documented(&lines, place), "left: the reader, right: the reference; {table}");
        looked_at += 1;
    }
    assert!(looked_at >= 9, "{looked_at}");
}

/// Both ends of the last `A to B` in a text, as numbers of nanoseconds or bytes.
fn range(text: &str) -> Option<(u128, u128)> {
    let number = |text: &str| -> Option<u128> {
        let text = text.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let duration = text.parse::<jiff::SignedDuration>().ok().map(|d| d.as_nanos().unsigned_abs());
        duration.or_else(|| text.parse::<bytesize::ByteSize>().ok().map(|size| u128::from(size.as_u64())))
    };
    let (before, after) = text.rsplit_once(" to ")?;
    Some((number(before.rsplit(' ').next()?)?, number(after.split(' ').next()?)?))
}

#[test]
fn the_ranges_are_those_of_the_reader() {
    let lines = everything();
    let mut compared = 0;
    let (mut table, mut header_at) = (String::new(), 0);
    for (at, line) in lines.iter().enumerate() {
        if is_header(line) {
            table.clone_from(line);
            header_at = at;
        }
        let Some((name, _)) = line.split_once(" = ") else { continue };
        // Types of sinks may have keys of the same name.
        let kind = type_of_sink(&lines, header_at);
        let is_meant =
            |of_type: &Option<String>| of_type.is_none() || kind.is_none() || of_type.as_deref() == kind;
        let key = tables_by_type()
            .into_iter()
            .filter(|(of_type, known)| known.header == table && is_meant(of_type))
            .flat_map(|(_, known)| known.keys)
            .find(|key| key.name == name);
        let Some(key) = key.filter(|_| !is_left_out(&lines, at)) else { continue };
        let mut wrong = lines.clone();
        wrong[at] = format!("{name} = [[]]");
        let said = problems(&wrong.join("\n"));
        // Followed by others where one mistake makes the table unusable.
        let said =
            said.iter().find(|said| said.contains(&format!("{name}: found"))).cloned().unwrap_or_default();
        let read = said.split_once(" from ").and_then(|(_, range_text)| range(range_text));
        // Of the connector's window, all but 0 is refused.
        if name == "dedup_window" && table == "[[connector]]" {
            continue;
        }
        assert_eq!(range(&key.allowed), read, "{table} {name}: {said}");
        compared += usize::from(read.is_some());
    }
    assert!(compared >= 15, "{compared}");
}

#[test]
fn the_defaults_are_those_of_the_reader() {
    let least = "[[connector]]\nname = \"a\"\nsecrets = [{ env = \"A\" }]\n\n[[sink]]\nname = \"b\"\ntype = \"stdout\"\n";
    let read = |text: &str| {
        let config = Config::from_toml(text, &Everything, &sink_types())
            .unwrap_or_else(|error| panic!("{error}\n{text}"));
        format!("{config:?}")
    };
    let without = read(least);
    let mut compared = 0;
    for table in reference() {
        for key in table.keys {
            let KeyDefault::Value(value) = key.default else { continue };
            let line = format!("{} = {value}\n", key.name);
            let text = match table.header.as_str() {
                "" => format!("{line}{least}"),
                "[spool]" | "[limits]" => format!("{least}\n{}\n{line}", table.header),
                "[[connector]]" | "[[sink]]" if table.given.is_empty() => {
                    let header = format!("{}\n", table.header);
                    least.replace(&header, &format!("{header}{line}"))
                }
                // Only their own rows know these; they are few: of sinks and the issuer.
                _ => continue,
            };
            assert_eq!(read(&text), without, "{} {}", table.header, key.name);
            compared += 1;
        }
    }
    assert!(compared >= 18, "{compared}");
}

/// They are of a build with all types of sinks.
#[cfg(feature = "full")]
#[test]
fn the_pages_and_the_sample_are_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (path, now, command) in [
        ("docs/configuration.md", dt_receiver::config::reference_markdown(&sink_types()), "reference"),
        ("deploy/dt-receiver.toml", sample_file(), "sample"),
        ("docs/metrics.md", dt_receiver::telemetry::metrics_markdown(&sink_types().metrics()), "metrics"),
    ] {
        let there = std::fs::read_to_string(root.join(path)).unwrap_or_default();
        assert!(there == now, "{path} is out of date; run: dt-receiver config {command} > {path}");
    }
}
