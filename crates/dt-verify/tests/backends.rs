//! Checks that the verifier uses its own cryptographic back-end, independent of the back-ends of `jsonwebtoken` that are compiled
//! in, and of the provider that an embedder installs for the process. `.ci/run` runs it with both features as well.

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
use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::signature::{Error, Verifier as Verifies};
use jsonwebtoken::{Algorithm, DecodingKey};

/// A wrong verifier, which accepts every signature.
struct Yes;

impl Verifies<Vec<u8>> for Yes {
    fn verify(&self, _: &[u8], _: &Vec<u8>) -> Result<(), Error> {
        Ok(())
    }
}

impl JwtVerifier for Yes {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

static EMBEDDERS: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| unreachable!("the embedder signs nothing"),
    verifier_factory: |_, _| Ok(Box::new(Yes)),
    key_utils: KeyUtils::new_unimplemented(),
};

#[test]
fn the_provider_of_the_process_is_the_embedders_and_decides_nothing_here() {
    let secret = |text: &str| Secret::new(text).expect("not empty");
    let sign = |text| Signer::secret(secret(text)).sign(b"{}", 1_700_000_000, "jti").expect("signed");
    let verifier = Verifier::builder().secret("s", secret("some-good-secret")).build().expect("a verifier");
    let verify = |token| verifier.verify(&[("X-Dt-Signature", token)], b"{}", 1_700_000_000);
    assert!(verify(sign("some-good-secret")).is_ok());

    EMBEDDERS.install_default().expect("signing and verifying installed none");
    let key = DecodingKey::from_secret(b"some-good-secret");
    let verified = jsonwebtoken::crypto::verify("", b"", &key, Algorithm::HS256);
    assert!(verified.expect("verified"), "the embedder's provider is not in use");

    assert!(verify(sign("some-good-secret")).is_ok());
    let refused = verify(sign("another-secret")).expect_err("another secret");
    assert_eq!(refused.code(), "signature_mismatch");
}
