//! Who a request comes from: basic auth (RFC 7617) or a bearer token (RFC 6750).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::accounts::{Accounts, Role};
use super::token::Grants;

/// The role of a request's sender, or why there is none.
pub(crate) fn authorize(
    headers: &HeaderMap,
    accounts: &Accounts,
    grants: &Grants,
    now: i64,
) -> Result<Role, &'static str> {
    let Some(value) = headers.get(AUTHORIZATION) else {
        return Err("the Authorization header is missing");
    };
    let (scheme, credentials) = value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .ok_or("the Authorization header is malformed")?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return grants.role(credentials.trim(), now).ok_or("the access token is unknown or has expired");
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let pair = STANDARD.decode(credentials.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = pair.ok_or("the credentials of basic auth are malformed")?;
        let (key_id, secret) = pair.split_once(':').ok_or("the credentials of basic auth are malformed")?;
        return accounts.check(key_id, secret).ok_or("the key id or its secret is wrong");
    }
    Err("the Authorization header is neither Basic nor Bearer")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(value: &str) -> Result<Role, &'static str> {
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
