//! Chooses the cryptographic back-end of `jsonwebtoken`, which panics on first use when none, or more than one, is
//! compiled in and nobody chose. An embedder's other crates may switch on either, so we always choose explicitly.

/// Installs our back-end for the process; one that was installed earlier is kept.
pub(super) fn install() {
    #[cfg(feature = "aws-lc")]
    let _already_chosen = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    #[cfg(all(feature = "pure-rust", not(feature = "aws-lc")))]
    let _already_chosen = jsonwebtoken::crypto::rust_crypto::DEFAULT_PROVIDER.install_default();
}
