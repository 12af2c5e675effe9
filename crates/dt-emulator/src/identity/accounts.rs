//! Service accounts. Any credentials are accepted unless accounts are configured.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use subtle::ConstantTimeEq;

use dt_verify::Secret;

/// The role of a service account: a simplification of DT's roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Role {
    /// `project.user`: can read.
    User,
    /// `project.developer`: can read and write. Every higher role counts as this one.
    Developer,
}

impl Role {
    /// Returns whether the role permits changes.
    #[must_use]
    pub fn may_write(self) -> bool {
        self >= Self::Developer
    }
}

impl FromStr for Role {
    type Err = AccountError;

    fn from_str(text: &str) -> Result<Self, AccountError> {
        match text {
            "project.user" => Ok(Self::User),
            "project.developer" | "project.admin" | "organization.admin" => Ok(Self::Developer),
            other => Err(AccountError::UnknownRole(other.to_owned())),
        }
    }
}

/// A service account's key: `KEY:SECRET:EMAIL[:ROLE]`, where `ROLE` is `project.user`, `project.developer` (the default),
/// `project.admin` or `organization.admin`.
///
/// # Examples
///
/// ```
/// use dt_emulator::{Role, ServiceAccount};
///
/// let account: ServiceAccount = "key:secret:reader@example.com:project.user".parse().unwrap();
/// assert_eq!(account.role, Role::User);
/// assert!(!format!("{account:?}").contains("secret"));
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct ServiceAccount {
    /// The id of the account's key: `kid` of assertions, and the user name of basic auth.
    pub key_id: Arc<str>,
    /// The secret of the account's key: it signs assertions, and is the password of basic auth.
    pub secret: Secret,
    /// The e-mail address of the account: `iss` of assertions.
    pub email: String,
    /// The role of the account.
    pub role: Role,
}

impl ServiceAccount {
    /// Creates an account from its parts.
    #[must_use]
    pub fn new(key_id: impl Into<Arc<str>>, secret: Secret, email: impl Into<String>, role: Role) -> Self {
        Self { key_id: key_id.into(), secret, email: email.into(), role }
    }
}

impl fmt::Debug for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServiceAccount({}, {}, {:?})", self.key_id, self.email, self.role)
    }
}

/// Why a text is not a service account or a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccountError {
    /// The text does not have three or four parts, or one of them is empty.
    #[error("expected KEY:SECRET:EMAIL or KEY:SECRET:EMAIL:ROLE")]
    Malformed,
    /// There is no role of that name.
    #[error(
        "there is no role \"{0}\"; expected project.user, project.developer, project.admin or organization.admin"
    )]
    UnknownRole(String),
}

impl AccountError {
    /// Returns a stable name of the error.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed => "account_malformed",
            Self::UnknownRole(_) => "role_unknown",
        }
    }
}

impl FromStr for ServiceAccount {
    type Err = AccountError;

    fn from_str(text: &str) -> Result<Self, AccountError> {
        let mut parts = text.splitn(4, ':');
        let mut part = || parts.next().filter(|part| !part.is_empty()).ok_or(AccountError::Malformed);
        let (key_id, secret, email) = (part()?, part()?, part()?);
        let role = parts.next().map_or(Ok(Role::Developer), str::parse)?;
        let secret = Secret::new(secret).map_err(|_| AccountError::Malformed)?;
        Ok(Self::new(key_id, secret, email, role))
    }
}

/// The configured service accounts.
#[derive(Debug, Default)]
pub(crate) struct Accounts(Vec<ServiceAccount>);

/// The result of searching the account of a key.
pub(crate) enum AccountLookup<'a> {
    /// The configured account of the key.
    Found(&'a ServiceAccount),
    /// No account is configured: every key counts as that of a developer.
    Unrestricted,
    /// The key does not belong to a configured account.
    Unknown,
}

impl Accounts {
    pub(crate) fn new(accounts: Vec<ServiceAccount>) -> Self {
        Self(accounts)
    }

    /// Returns whether no account is configured, so that any credentials are accepted.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Searches for the account of a key.
    pub(crate) fn find(&self, key_id: &str) -> AccountLookup<'_> {
        match self.0.iter().find(|account| &*account.key_id == key_id) {
            Some(account) => AccountLookup::Found(account),
            None if self.is_empty() => AccountLookup::Unrestricted,
            None => AccountLookup::Unknown,
        }
    }

    /// Returns the role of a client that presents a key's id and secret (basic auth); `None` if they are wrong.
    pub(crate) fn check(&self, key_id: &str, secret: &str) -> Option<Role> {
        match self.find(key_id) {
            AccountLookup::Found(account) => {
                let same: bool = account.secret.expose().ct_eq(secret.as_bytes()).into();
                same.then_some(account.role)
            }
            AccountLookup::Unrestricted => {
                (!key_id.is_empty() && !secret.is_empty()).then_some(Role::Developer)
            }
            AccountLookup::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read() {
        let account: ServiceAccount = "k:s:e@x".parse().unwrap();
        assert_eq!(
            (&*account.key_id, account.secret.expose(), account.role),
            ("k", &b"s"[..], Role::Developer)
        );
        for (text, code) in [
            ("", "account_malformed"),
            ("k:s", "account_malformed"),
            ("k::e@x", "account_malformed"),
            ("k:s:e@x:king", "role_unknown"),
        ] {
            assert_eq!(text.parse::<ServiceAccount>().unwrap_err().code(), code, "{text}");
        }
    }

    #[test]
    fn anyone_is_accepted_until_someone_is_configured() {
        assert_eq!(Accounts::default().check("any", "thing"), Some(Role::Developer));
        assert_eq!(Accounts::default().check("", "thing"), None);
        let accounts = Accounts::new(vec!["k:s:e@x:project.user".parse().unwrap()]);
        assert_eq!(accounts.check("k", "s"), Some(Role::User));
        assert_eq!(accounts.check("k", "wrong"), None);
        assert_eq!(accounts.check("any", "thing"), None);
    }
}
