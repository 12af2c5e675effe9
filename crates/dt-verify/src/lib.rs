//! Verifies requests that DT has signed, on the raw bytes of the body, before the body is parsed.
//!
//! A [`Verifier`] holds keys and a [`Policy`]. It takes a request's headers, its body and the time, and returns a [`Verified`],
//! which only a verifier can make, or a [`Rejection`] with the reason. This crate reads no clock, does no I/O and panics on no
//! input.
//!
//! | scheme | header | algorithm | keys | file |
//! |---|---|---|---|---|
//! | shared secret | `X-Dt-Signature` | HS256 | [`Secret`]s, labelled, any number of them for rotation | `secret.rs` |
//! | asymmetric | `DT-Asymmetric-Signature` | ES256 | DT's [`KeySet`], pinned issuer and organization | `asymmetric.rs` |
//!
//! A new scheme needs one file, one row here, one field of [`Verifier`], and test vectors: valid, forged, expired.
//!
//! The order of the checks is: the signature, with the scheme's only algorithm; issuer and organization; required claims; the
//! checksums of the body; required headers; the time. So [`Rejection::Expired`] means that all other checks succeeded.
//!
//! # Examples
//!
//! ```
//! use dt_verify::{Secret, Signer, Verifier};
//!
//! let old = Secret::new("secret-of-last-year").unwrap();
//! let new = Secret::new("some-good-secret").unwrap();
//! let verifier = Verifier::builder().secret("new", new).secret("old", old.clone()).build().unwrap();
//!
//! let (body, now) = (b"{}", 1_700_000_000);
//! let token = Signer::secret(old).sign(body, now, "c82gg99hga35jc2afkeg").unwrap();
//! let verified = verifier.verify(&[("x-dt-signature", &token)], body, now).unwrap();
//! assert_eq!(verified.by().to_string(), "secret:old");
//!
//! let refused = verifier.verify(&[("x-dt-signature", &token)], b"{ }", now).unwrap_err();
//! assert_eq!(refused.code(), "checksum_mismatch");
//! ```

#[cfg(not(any(feature = "aws-lc", feature = "pure-rust")))]
compile_error!(
    "dt-verify needs a cryptographic back-end: enable the feature `aws-lc` (fast, needs a C compiler) or `pure-rust`"
);

mod asymmetric;
mod checks;
mod compare;
pub mod event;
mod headers;
mod policy;
mod provider;
mod rejection;
pub(crate) mod rfc3339;
mod secret;
mod signer;
mod token;
mod verified;
mod verifier;

pub use asymmetric::{ASYMMETRIC_HEADER, DT_ISSUER, KeySet, KeySetError};
pub use checks::{LEEWAY, TOKEN_LIFETIME};
pub use compare::Difference;
pub use headers::{Found, Headers};
pub use policy::Policy;
pub use rejection::{Fault, HeaderProblem, Rejection};
pub use secret::{EmptySecret, SECRET_HEADER, Secret};
pub use signer::{Signer, SignerError, xid};
pub use token::MAX_TOKEN_LEN;
pub use verified::{Verified, VerifiedBy};
pub use verifier::{Authenticated, BuildError, Verifier, VerifierBuilder};

/// The Rust code of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
