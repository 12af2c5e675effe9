//! The identity provider: who may do what (service accounts, tokens), and the keys that `DT-Asymmetric-Signature` is
//! made with (OpenID discovery, JWK set, rotation).
//!
//! Tokens are issued and checked by the machine's clock, not the emulated one: those who use them know no other.

mod accounts;
mod authorize;
mod keys;
mod token;

pub(crate) use accounts::Accounts;
pub use accounts::{AccountError, Role, ServiceAccount};
pub(crate) use authorize::authorize;
pub(crate) use keys::{Keys, SavedKeys};
pub(crate) use token::{Grants, Refused, exchange};
