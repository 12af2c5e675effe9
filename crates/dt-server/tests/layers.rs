//! Checks the dependencies among the modules of `dt-server`: a module uses only those before it in the list below, and some
//! modules never use each other. Each module in `src/lib.rs` must be in the list.

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

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The modules in the order of their dependencies: a module may use those before it.
const ORDER: [&str; 11] = [
    "token_bucket",
    "telemetry",
    "keys",
    "sink",
    "tls",
    "config",
    "spool_admin",
    "deliver",
    "http",
    "cloud",
    "service",
];

/// Pairs of modules that do not use each other; `service` connects them.
const SEPARATE: [(&str, &str); 2] = [("http", "deliver"), ("sink", "telemetry")];

fn files_of(module: &str) -> Vec<PathBuf> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let file = src.join(format!("{module}.rs"));
    let mut files = if file.is_file() { vec![file] } else { Vec::new() };
    let mut folders = vec![src.join(module)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    assert!(!files.is_empty(), "{module} has no files");
    files
}

/// Returns the code of a file, without comments and without its tests.
fn code_of(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("a source file");
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Returns the modules of this crate that the code names after `crate::`.
fn used_in(code: &str) -> BTreeSet<String> {
    let named = |rest: &str| -> Vec<String> {
        let first_word = |text: &str| -> String {
            text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
        };
        match rest.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap_or_default().split(',').map(first_word).collect(),
            None => vec![first_word(rest)],
        }
    };
    code.split("crate::").skip(1).flat_map(named).filter(|name| !name.is_empty()).collect()
}

#[test]
fn modules_use_only_modules_before_them() {
    for (place, module) in ORDER.iter().enumerate() {
        for file in files_of(module) {
            for used in used_in(&code_of(&file)) {
                let other = ORDER.iter().position(|known| *known == used);
                assert!(
                    other.is_some_and(|other| other <= place),
                    "{} uses `crate::{used}`, which is not above `{module}`",
                    file.display()
                );
                let must_be_separate = SEPARATE
                    .iter()
                    .any(|(a, b)| (*module, &*used) == (*a, *b) || (*module, &*used) == (*b, *a));
                assert!(
                    !must_be_separate,
                    "{}: `{module}` and `{used}` must not use each other",
                    file.display()
                );
            }
        }
    }
}

#[test]
fn every_module_is_in_the_list() {
    let lib =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).expect("src/lib.rs");
    let modules: BTreeSet<&str> = lib
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'))
        .collect();
    assert_eq!(modules, ORDER.into_iter().collect());
}

#[test]
fn sinks_do_not_see_the_log() {
    for file in files_of("sink") {
        let code = code_of(&file).replace("dt_log::disk", "");
        assert!(!code.contains("dt_log"), "{} uses the log", file.display());
    }
}

#[test]
fn used_modules_are_found() {
    let used =
        used_in("use crate::http::Reply;\nlet x = crate::cli::main();\nuse crate::{sink::Sink, config};");
    assert_eq!(used.iter().map(String::as_str).collect::<Vec<_>>(), ["cli", "config", "http", "sink"]);
}
