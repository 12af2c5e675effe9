//! The arrows between the crates are those of the map in `docs/contributing.md`; `cargo metadata` says which there are.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

/// Each crate of the workspace, and those that it may depend on.
const ARROWS: [(&str, &[&str]); 11] = [
    ("dt-verify", &[]),
    ("dt-sink", &["dt-verify"]),
    ("dt-log", &["dt-sink", "dt-verify"]),
    ("dt-sink-http", &["dt-sink", "dt-verify"]),
    ("dt-sink-kafka", &["dt-sink", "dt-verify"]),
    ("dt-sink-mqtt", &["dt-sink", "dt-verify"]),
    ("dt-sink-postgres", &["dt-sink", "dt-verify"]),
    ("dt-api", &["dt-verify"]),
    ("dt-emulator", &["dt-verify"]),
    ("dt-server", &["dt-api", "dt-log", "dt-sink", "dt-verify"]),
    (
        "dt-receiver",
        &[
            "dt-api",
            "dt-emulator",
            "dt-log",
            "dt-server",
            "dt-sink",
            "dt-sink-http",
            "dt-sink-kafka",
            "dt-sink-mqtt",
            "dt-sink-postgres",
            "dt-verify",
        ],
    ),
];

#[test]
fn crates_depend_on_each_other_as_the_map_says() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--offline", "--no-deps", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    assert_eq!(packages.len(), ARROWS.len(), "each crate stands in this list");
    for (name, allowed) in ARROWS {
        let package = packages.iter().find(|package| package["name"] == name).expect(name);
        let ours: BTreeSet<&str> = package["dependencies"]
            .as_array()
            .expect("dependencies")
            .iter()
            .filter(|dependency| dependency["kind"].is_null() && dependency["path"].is_string())
            .filter_map(|dependency| dependency["name"].as_str())
            .collect();
        assert_eq!(ours, allowed.iter().copied().collect(), "{name}");
    }
}
