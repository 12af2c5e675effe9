//! The identity provider: service accounts, access tokens and roles, and the keys of `DT-Asymmetric-Signature` (OpenID
//! discovery, JWK set, rotation).
//!
//! Access tokens use the machine's clock, not the emulated one, since clients know no other.

mod accounts;
mod authorize;
mod keys;
mod token;

pub(crate) use accounts::Accounts;
pub use accounts::{AccountError, Role, ServiceAccount};
pub(crate) use authorize::authorize;
pub(crate) use keys::{Keys, SavedKeys};
pub(crate) use token::{Grants, TokenError, exchange};
