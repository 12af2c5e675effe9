//! Checks that this crate does no I/O, starts no thread, logs nothing and reads no clock.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests may fail loudly"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// The paths that this crate must not use: I/O, clocks, threads, logging. `jiff` is built without its clock.
const NOT_IN_THE_CORE: [&str; 11] = [
    "std::fs",
    "std::net",
    "std::io::",
    "std::env",
    "std::process",
    "std::thread",
    "SystemTime",
    "Instant",
    "tokio",
    "tracing",
    "println!",
];

fn source_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files
}

/// The code of a file, without comments and without its tests.
fn code_of(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("a source file");
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_core_does_no_io_and_reads_no_clock() {
    let files = source_files();
    assert!(files.len() > 20, "{files:?}");
    for file in files {
        let code = code_of(&file);
        for forbidden in NOT_IN_THE_CORE {
            assert!(!code.contains(forbidden), "{} has `{forbidden}`", file.display());
        }
    }
}
