//! Another crate of an embedder may switch on the other cryptographic back-end of `jsonwebtoken`, which then cannot
//! choose by itself and panics on first use. We choose for it. Run with both features on (`.ci/run` does).

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

use dt_verify::{Secret, Signer, Verifier};

#[test]
fn signing_and_verifying_work_whatever_back_ends_are_compiled_in() {
    let secret = Secret::new("some-good-secret").expect("not empty");
    let token = Signer::secret(secret.clone()).sign(b"{}", 1_700_000_000, "jti").expect("signed");
    let verifier = Verifier::builder().secret("s", secret).build().expect("a verifier");
    assert!(verifier.verify(&[("X-Dt-Signature", token)], b"{}", 1_700_000_000).is_ok());
}
