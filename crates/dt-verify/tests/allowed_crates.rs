//! Checks that this crate depends on these crates and no others, so that a program that embeds it gets no async runtime and no
//! HTTP crate. A new dependency needs a new name here.

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
use std::process::Command;

/// With either back-end.
const CORE: &str = "base64 block-buffer cfg-if const-oid cpufeatures crypto-common digest dt-verify hex hybrid-array itoa \
    jiff jiff-core jsonwebtoken memchr proc-macro2 quote serde serde_core serde_derive serde_json sha1 \
    sha2 signature subtle syn thiserror thiserror-impl typenum unicode-ident zeroize zeroize_derive zmij";

/// What the back-end `aws-lc` adds.
const AWS_LC: &str = "aws-lc-rs aws-lc-sys untrusted";

/// What the back-end `pure-rust` adds.
const PURE_RUST: &str = "base16ct cmov cpubits crypto-bigint ctutils der ecdsa elliptic-curve ff group hmac num-traits p256 pkcs8 \
    primefield primeorder rand_core rfc6979 sec1 spki wnaf";

/// What `jsonwebtoken` adds for WebAssembly, to read a clock that the core never asks.
const WASM: &str = "bumpalo futures-core futures-task futures-util getrandom js-sys pin-project-lite slab wasm-bindgen \
    wasm-bindgen-macro wasm-bindgen-macro-support wasm-bindgen-shared";

fn crates_with(backend: &str, target: &[&str]) -> BTreeSet<String> {
    // Normal dependencies only: what ends up in the embedder's program, or runs as a macro.
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--no-default-features", "--features", backend, "--package", "dt-verify"])
        .args(["--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .args(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).expect("text");
    lines.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

fn allowed(lists: &[&str]) -> BTreeSet<String> {
    lists.iter().flat_map(|list| list.split(' ')).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[test]
fn the_core_with_aws_lc_has_only_allowed_crates() {
    assert_eq!(crates_with("aws-lc", &[]), allowed(&[CORE, AWS_LC]));
}

#[test]
fn the_core_in_pure_rust_has_only_allowed_crates() {
    assert_eq!(crates_with("pure-rust", &[]), allowed(&[CORE, PURE_RUST]));
}

#[test]
fn the_core_for_wasm_has_only_allowed_crates() {
    let mut expected = allowed(&[CORE, PURE_RUST, WASM]);
    // It tells which instructions a processor has.
    expected.remove("cpufeatures");
    assert_eq!(crates_with("pure-rust", &["--target", "wasm32-unknown-unknown"]), expected);
}
