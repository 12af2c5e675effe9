//! The embeddable core depends on these crates and no others: whoever embeds it gets no async runtime, no HTTP crate
//! and no surprise. A new name here is a decision, not an accident.

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
const PURE_RUST: &str = "base16ct base64ct crypto-bigint curve25519-dalek curve25519-dalek-derive der ecdsa ed25519 ed25519-dalek \
    elliptic-curve ff generic-array getrandom group hkdf hmac lazy_static libc libm num-bigint-dig num-integer num-iter num-traits p256 p384 pem-rfc7468 pkcs1 pkcs8 ppv-lite86 primeorder rand rand_chacha \
    rand_core rfc6979 rsa sec1 smallvec spin spki zerocopy";

fn crates_with(backend: &str) -> BTreeSet<String> {
    // Normal dependencies only: what ends up in the embedder's program, or runs as a macro.
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--no-default-features", "--features", backend, "--package", "dt-verify"])
        .args(["--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).expect("text");
    lines.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

fn allowed(backend: &str) -> BTreeSet<String> {
    CORE.split(' ').chain(backend.split(' ')).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[test]
fn the_core_with_aws_lc_has_only_allowed_crates() {
    assert_eq!(crates_with("aws-lc"), allowed(AWS_LC));
}

#[test]
fn the_core_in_pure_rust_has_only_allowed_crates() {
    assert_eq!(crates_with("pure-rust"), allowed(PURE_RUST));
}
