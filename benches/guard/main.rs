//! The instruction guard: counts what the hot path costs, and fails when that is not what `baseline.txt` says.
//!
//! Instructions, unlike times, do not depend on how busy the machine is. Each path is run twice in a process of its own
//! under callgrind, with a few events and with many; the difference is what the events cost, without start and end, and
//! with all threads. More than 5 % above the committed figure fails: the path became slower. More than 5 % below fails
//! too: a figure that is too high would let the next slowdown pass.
//!
//! Hashing is counted apart (`sha`): valgrind has no SHA instructions, so it costs ten times there what it costs on
//! a machine that has them, and would hide a path that became 10 % slower in everything else.
//!
//! `benches/guard/run` builds and runs it; see there.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a benchmark works on its own data, and may fail loudly"
)]

mod baseline;
mod cost;
#[path = "../inputs/mod.rs"]
mod inputs;
mod paths;
mod spool;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use baseline::{Baseline, Verdict};
use cost::measure;
use paths::{FEW, MANY, MOST, PATHS};

/// How a run is told apart from the guard itself.
const RUN: &str = "--run";

fn main() -> ExitCode {
    // The first two are given by Cargo, and say nothing here.
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !matches!(argument.as_str(), "--bench" | "--test"))
        .collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let [RUN, name, count, folder] = words[..] {
        let path = PATHS.iter().find(|path| path.name == name).expect("a path");
        (path.run)(count.parse().expect("a count"), Path::new(folder));
        return ExitCode::SUCCESS;
    }
    let Some(options) = Options::of(&words) else {
        eprintln!("usage: benches/guard/run [--accept] [--baseline FILE] [--work PERCENT] [PATH...]");
        return ExitCode::from(2);
    };
    guard(&options)
}

struct Options {
    accept: bool,
    baseline: PathBuf,
    /// How much of the work is done, in percent: 110 is what a path would cost that became 10 % slower.
    work: usize,
    only: Vec<String>,
}

impl Options {
    fn of(mut words: &[&str]) -> Option<Self> {
        let baseline = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/guard/baseline.txt");
        let mut options = Self { accept: false, baseline, work: 100, only: Vec::new() };
        loop {
            words = match words {
                [] => return Some(options),
                ["--accept", rest @ ..] => {
                    options.accept = true;
                    rest
                }
                ["--baseline", file, rest @ ..] => {
                    options.baseline = PathBuf::from(file);
                    rest
                }
                ["--work", percent, rest @ ..] => {
                    options.work = percent.parse().ok().filter(|work| (1..=MOST_WORK).contains(work))?;
                    rest
                }
                [name, rest @ ..] => {
                    PATHS.iter().find(|path| path.name == *name)?;
                    options.only.push((*name).to_owned());
                    rest
                }
            };
        }
    }
}

/// As much as there is input for.
const MOST_WORK: usize = 100 * (MOST - FEW) / (MANY - FEW);

/// A part without a committed figure needs one from here on. Most paths hash nothing; the sink file hashes the names of
/// its files once a batch, and how long those are depends on where this repository lies.
const LEAST: u64 = 1_000;

fn guard(options: &Options) -> ExitCode {
    let known = Baseline::read(&options.baseline);
    let mut measured = Baseline::here();
    println!(
        "{:<8} {:<4} {:>9} {:>8} {:>9}  instructions per event",
        "path", "what", "committed", "now", "change"
    );
    let mut is_good = true;
    let is_asked = |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
    for path in PATHS.iter().filter(|path| is_asked(path.name)) {
        let more = (MANY - FEW) * options.work / 100;
        let (few, many) = (measure(path, FEW), measure(path, FEW + more));
        println!("{}: {}", path.name, path.what);
        for (part, cost) in many.less(few).parts() {
            let cost = cost / (MANY - FEW) as u64;
            let verdict = known.judge((path.name, part), cost);
            if verdict == Verdict::Unknown && cost < LEAST {
                continue;
            }
            is_good &= verdict == Verdict::Within;
            println!("{}{}", known.row((path.name, part), cost), verdict.text());
            measured.set((path.name, part), cost);
        }
    }
    if options.accept {
        known.updated_by(measured).write(&options.baseline);
        println!("written to {}", options.baseline.display());
        return ExitCode::SUCCESS;
    }
    if is_good {
        return ExitCode::SUCCESS;
    }
    println!("\nIf that is meant to be: `benches/guard/run --accept`, and say why in the commit. If not:");
    println!("`callgrind_annotate {}` shows where they are spent.", cost::profile("PATH").display());
    println!("The committed figures: {}", known.origin());
    println!("Here:                  {}", measured.origin());
    ExitCode::FAILURE
}
