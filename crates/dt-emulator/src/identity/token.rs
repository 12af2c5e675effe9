//! The token endpoint, which exchanges an assertion for an access token (RFC 7523, section 2.1).
//!
//! DT documents the headings of its errors (Timing, Untrusted Entity, Signature, Unsupported Grant Type) but not their
//! bodies. Here they have the members of RFC 6749, section 5.2, in addition to DT's own.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Sha256;

use super::accounts::{AccountLookup, Accounts, Role};

/// The grant type of RFC 7523.
const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// The lifetime of access tokens, in seconds.
const LIFETIME: i64 = 3600;

/// The tolerated difference of clocks, in seconds. DT's is not known.
const LEEWAY: i64 = 60;

/// The largest number of access tokens; beyond it, those that expire first are removed.
const MAX_GRANTS: usize = 10_000;

/// DT's own token endpoints: the audience of clients without another configuration.
const DT_ENDPOINTS: [&str; 2] =
    ["https://identity.disruptive-technologies.com/oauth2/token", "https://identity.d21s.com/oauth2/token"];

/// The issued access tokens, with their role and expiry (Unix seconds of the machine's clock).
#[derive(Default)]
pub(crate) struct Grants(BTreeMap<String, (Role, i64)>);

impl Grants {
    /// Returns the role of an access token; `None` if the token is unknown, or has expired at `now`.
    pub(crate) fn role(&self, token: &str, now: i64) -> Option<Role> {
        self.0.get(token).filter(|(_, expires)| *expires > now).map(|(role, _)| *role)
    }

    fn issue(&mut self, role: Role, now: i64) -> Option<String> {
        if self.0.len() >= MAX_GRANTS {
            self.0.retain(|_, (_, expires)| *expires > now);
        }
        if self.0.len() >= MAX_GRANTS
            && let Some(first) =
                self.0.iter().min_by_key(|(_, (_, expires))| *expires).map(|(token, _)| token)
        {
            let first = first.clone();
            self.0.remove(&first);
        }
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).ok()?;
        let token = URL_SAFE_NO_PAD.encode(bytes);
        self.0.insert(token.clone(), (role, now.saturating_add(LIFETIME)));
        Some(token)
    }
}

/// Why the token endpoint issues no access token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("grant_type is not {GRANT_TYPE}")]
    GrantType,
    #[error(transparent)]
    Assertion(#[from] AssertionError),
    #[error("no random numbers")]
    NoRandomNumbers,
}

impl TokenError {
    /// Returns `error` of RFC 6749, section 5.2.
    pub const fn oauth_code(&self) -> &'static str {
        match self {
            Self::GrantType => "unsupported_grant_type",
            Self::Assertion(_) => "invalid_grant",
            Self::NoRandomNumbers => "server_error",
        }
    }
}

/// Why an assertion is rejected. The messages begin with the heading in DT's documentation, if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AssertionError {
    #[error("the assertion is not a JWT")]
    Malformed,
    #[error("the assertion lacks iat, exp, iss or aud, or one of them has the wrong type")]
    BadClaims,
    #[error("the assertion's alg is not HS256")]
    Algorithm,
    #[error("the assertion has no kid")]
    NoKeyId,
    #[error("Untrusted entity: there is no such key")]
    UnknownKey,
    #[error("Signature: the assertion was not signed with the key's secret")]
    Signature,
    #[error("Untrusted entity: iss is not the service account's e-mail")]
    Issuer,
    #[error("aud is not this token endpoint")]
    Audience,
    #[error("Timing: the assertion has expired or is not valid yet")]
    Timing,
    #[error("Timing: the assertion is valid for more than an hour")]
    Lifetime,
}

/// Answers a request to the token endpoint. `host` is the `Host` of the request, and `now` is in Unix seconds of the machine's
/// clock.
pub fn exchange(
    form: &[u8],
    host: Option<&str>,
    accounts: &Accounts,
    grants: &mut Grants,
    now: i64,
) -> Result<Value, TokenError> {
    let (mut grant_type, mut assertion) = (String::new(), String::new());
    for (name, value) in form_urlencoded::parse(form) {
        match &*name {
            "grant_type" => grant_type = value.into_owned(),
            "assertion" => assertion = value.into_owned(),
            _ => {}
        }
    }
    if grant_type != GRANT_TYPE {
        return Err(TokenError::GrantType);
    }
    let role = check(&assertion, host, accounts, now)?;
    let token = grants.issue(role, now).ok_or(TokenError::NoRandomNumbers)?;
    Ok(json!({"access_token": token, "token_type": "Bearer", "expires_in": LIFETIME}))
}

#[derive(Deserialize)]
struct Head {
    alg: String,
    kid: Option<String>,
}

#[derive(Deserialize)]
struct Claims {
    iat: f64,
    exp: f64,
    iss: String,
    aud: Audience,
}

/// The claim `aud` (RFC 7519, section 4.1.3).
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    /// Returns whether one of the audiences is the token endpoint of `host`, or that of DT.
    fn names(&self, host: Option<&str>) -> bool {
        let names = match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Many(names) => names,
        };
        let ours = |name: &String| {
            let rest = name.strip_prefix("http://").or_else(|| name.strip_prefix("https://"));
            host.is_some() && rest.and_then(|rest| rest.strip_suffix("/oauth2/token")) == host
        };
        names.iter().any(|name| ours(name) || DT_ENDPOINTS.contains(&name.as_str()))
    }
}

/// Verifies an assertion and returns the role of its account.
fn check(assertion: &str, host: Option<&str>, accounts: &Accounts, now: i64) -> Result<Role, AssertionError> {
    let mut parts = assertion.split('.');
    let (Some(head), Some(claims), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(AssertionError::Malformed);
    };
    let head: Head = decode(head).ok_or(AssertionError::Malformed)?;
    let claims: Claims = decode(claims).ok_or(AssertionError::BadClaims)?;
    if head.alg != "HS256" {
        return Err(AssertionError::Algorithm);
    }
    let key_id = head.kid.ok_or(AssertionError::NoKeyId)?;
    let role = match accounts.find(&key_id) {
        AccountLookup::Unknown => return Err(AssertionError::UnknownKey),
        // Without configured accounts there is no secret that could verify the signature.
        AccountLookup::Unrestricted => Role::Developer,
        AccountLookup::Found(account) => {
            let message = assertion.rsplit_once('.').map_or("", |(message, _)| message);
            if !is_mac(signature, message, account.secret.expose()) {
                return Err(AssertionError::Signature);
            }
            if claims.iss != account.email {
                return Err(AssertionError::Issuer);
            }
            account.role
        }
    };
    if !claims.aud.names(host) {
        return Err(AssertionError::Audience);
    }
    let now = numeric_date(now);
    let leeway = numeric_date(LEEWAY);
    if claims.exp <= now - leeway || claims.iat > now + leeway {
        return Err(AssertionError::Timing);
    }
    if claims.exp - claims.iat > numeric_date(LIFETIME) + leeway {
        return Err(AssertionError::Lifetime);
    }
    Ok(role)
}

/// Returns whether `signature` is the HMAC-SHA256 of `message` in base64url.
fn is_mac(signature: &str, message: &str, secret: &[u8]) -> bool {
    let mac = URL_SAFE_NO_PAD.decode(signature).ok();
    mac.zip(hs256(message, secret)).is_some_and(|(mac, expected)| expected.verify_slice(&mac).is_ok())
}

/// Computes the HMAC-SHA256 of `message`.
fn hs256(message: &str, secret: &[u8]) -> Option<Hmac<Sha256>> {
    Hmac::new_from_slice(secret).ok().map(|keyed: Hmac<Sha256>| keyed.chain_update(message))
}

/// Converts Unix seconds to a `NumericDate`, which may have a fraction (RFC 7519, section 2). Whole seconds of this century are
/// exact in `f64`.
fn numeric_date(seconds: i64) -> f64 {
    i32::try_from(seconds).map_or_else(|_| f64::from(u32::try_from(seconds).unwrap_or(u32::MAX)), f64::from)
}

fn decode<T: for<'de> Deserialize<'de>>(segment: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(segment).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000;

    fn ask(secret: &str, kid: &str, claims: &Value, grant_type: &str) -> Result<Value, TokenError> {
        let header = json!({"alg": "HS256", "kid": kid, "typ": "JWT"});
        let segment = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", segment(&header), segment(claims));
        let mac = hs256(&message, secret.as_bytes()).unwrap().finalize().into_bytes();
        let signature = URL_SAFE_NO_PAD.encode(mac);
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("assertion", &format!("{message}.{signature}"))
            .append_pair("grant_type", grant_type)
            .finish();
        let accounts = Accounts::new(vec!["k:s3cret:e@x:project.user".parse().unwrap()]);
        exchange(form.as_bytes(), Some("127.0.0.1:1"), &accounts, &mut Grants::default(), NOW)
    }

    fn claims() -> Value {
        json!({"iat": NOW, "exp": NOW + 3600, "iss": "e@x", "aud": "http://127.0.0.1:1/oauth2/token"})
    }

    #[test]
    fn a_good_assertion_gets_a_token() {
        let answer = ask("s3cret", "k", &claims(), GRANT_TYPE).unwrap();
        assert_eq!((&answer["token_type"], &answer["expires_in"]), (&json!("Bearer"), &json!(3600)));
        let mut many = claims();
        many["aud"] = json!(["https://example.com", DT_ENDPOINTS[0]]);
        assert!(ask("s3cret", "k", &many, GRANT_TYPE).is_ok());
    }

    #[test]
    fn bad_assertions_get_none() {
        let with = |name: &str, value: Value| {
            let mut claims = claims();
            claims[name] = value;
            claims
        };
        for (what, answer) in [
            ("Signature", ask("other", "k", &claims(), GRANT_TYPE)),
            ("Untrusted", ask("s3cret", "other", &claims(), GRANT_TYPE)),
            ("Untrusted", ask("s3cret", "k", &with("iss", json!("other")), GRANT_TYPE)),
            ("Timing", ask("s3cret", "k", &with("exp", json!(NOW - 61)), GRANT_TYPE)),
            ("Timing", ask("s3cret", "k", &with("iat", json!(NOW + 61)), GRANT_TYPE)),
            ("Timing", ask("s3cret", "k", &with("exp", json!(NOW + 7200)), GRANT_TYPE)),
            ("aud", ask("s3cret", "k", &with("aud", json!("http://x/oauth2/token")), GRANT_TYPE)),
            ("lacks", ask("s3cret", "k", &with("aud", json!(5)), GRANT_TYPE)),
            ("grant_type", ask("s3cret", "k", &claims(), "password")),
        ] {
            let text = answer.unwrap_err().to_string();
            assert!(text.contains(what), "{what}: {text}");
        }
    }

    #[test]
    fn tokens_expire_and_their_number_is_limited() {
        let mut grants = Grants::default();
        let token = grants.issue(Role::User, 0).unwrap();
        assert_eq!(grants.role(&token, 3599), Some(Role::User));
        assert_eq!(grants.role(&token, 3600), None);
        assert_eq!(grants.role("other", 0), None);
        for _ in 0..MAX_GRANTS {
            grants.issue(Role::User, 1).unwrap();
        }
        assert_eq!(grants.0.len(), MAX_GRANTS);
        assert_eq!(grants.role(&token, 1), None, "the one that expires first was removed");
    }
}
