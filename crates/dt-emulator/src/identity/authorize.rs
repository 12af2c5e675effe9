//! The credentials of a request: basic auth (RFC 7617) or a bearer token (RFC 6750).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::accounts::{Accounts, Role};
use super::token::Grants;

/// Why the credentials of a request are not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthorizationError {
    #[error("the Authorization header is missing")]
    Missing,
    #[error("the Authorization header is malformed")]
    Malformed,
    #[error("the access token is unknown or has expired")]
    BadToken,
    #[error("the credentials of basic auth are malformed")]
    BasicMalformed,
    #[error("the key id or its secret is wrong")]
    WrongSecret,
    #[error("the Authorization header is neither Basic nor Bearer")]
    OtherScheme,
}

/// Returns the role of the credentials in a request's headers. `now` is in Unix seconds of the machine's clock.
pub fn authorize(
    headers: &HeaderMap,
    accounts: &Accounts,
    grants: &Grants,
    now: i64,
) -> Result<Role, AuthorizationError> {
    use AuthorizationError::{BadToken, BasicMalformed, Malformed, Missing, OtherScheme, WrongSecret};
    let value = headers.get(AUTHORIZATION).ok_or(Missing)?;
    let (scheme, credentials) =
        value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or(Malformed)?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return grants.role(credentials.trim(), now).ok_or(BadToken);
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let pair = STANDARD.decode(credentials.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = pair.ok_or(BasicMalformed)?;
        let (key_id, secret) = pair.split_once(':').ok_or(BasicMalformed)?;
        return accounts.check(key_id, secret).ok_or(WrongSecret);
    }
    Err(OtherScheme)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(value: &str) -> Result<Role, AuthorizationError> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value.parse().unwrap());
        authorize(&headers, &Accounts::default(), &Grants::default(), 0)
    }

    #[test]
    fn basic_auth_is_read() {
        assert_eq!(with(&format!("Basic {}", STANDARD.encode("key:se:cret"))), Ok(Role::Developer));
        assert_eq!(with(&format!("basic {}", STANDARD.encode("key:secret"))), Ok(Role::Developer));
        for wrong in
            ["Basic", "Basic !", "Bearer x", "Digest x", &format!("Basic {}", STANDARD.encode("key"))]
        {
            assert!(with(wrong).is_err(), "{wrong}");
        }
        assert!(authorize(&HeaderMap::new(), &Accounts::default(), &Grants::default(), 0).is_err());
    }
}
