//! The token endpoint: an assertion for an access token (RFC 7523, section 2.1).
//!
//! DT documents the headings of its errors (Timing, Untrusted Entity, Signature, Unsupported Grant Type) but not their
//! bodies; here they have the members of RFC 6749, section 5.2, beside DT's own.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Sha256;

use super::accounts::{Accounts, Known, Role};

/// The grant type of RFC 7523.
const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// How long access tokens are good for, in seconds.
const LIFETIME: i64 = 3600;

/// How far clocks may differ, in seconds. How far for DT is not known.
const LEEWAY: i64 = 60;

/// How many access tokens are remembered; those that expire first go.
const MAX_GRANTS: usize = 10_000;

/// DT's own token endpoints: clients that were not told of another one name these as their audience.
const DT_ENDPOINTS: [&str; 2] =
    ["https://identity.disruptive-technologies.com/oauth2/token", "https://identity.d21s.com/oauth2/token"];

/// The access tokens that were issued, by their text, with role and expiry.
#[derive(Default)]
pub(crate) struct Grants(BTreeMap<String, (Role, i64)>);

impl Grants {
    /// The role of an access token at `now`.
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

/// Why there is no access token: `error` of RFC 6749 and words.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) &'static str, pub(crate) String);

/// Answers a request to the token endpoint. `host` is what the client calls us.
pub(crate) fn exchange(
    form: &[u8],
    host: Option<&str>,
    accounts: &Accounts,
    grants: &mut Grants,
    now: i64,
) -> Result<Value, Refused> {
    let (mut grant_type, mut assertion) = (String::new(), String::new());
    for (name, value) in form_urlencoded::parse(form) {
        match &*name {
            "grant_type" => grant_type = value.into_owned(),
            "assertion" => assertion = value.into_owned(),
            _ => {}
        }
    }
    if grant_type != GRANT_TYPE {
        return Err(Refused("unsupported_grant_type", format!("grant_type is not {GRANT_TYPE}")));
    }
    let role = check(&assertion, host, accounts, now).map_err(|text| Refused("invalid_grant", text))?;
    let token = grants.issue(role, now);
    let token = token.ok_or_else(|| Refused("server_error", "no random numbers".to_owned()))?;
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

/// `aud` (RFC 7519, section 4.1.3).
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
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

fn check(assertion: &str, host: Option<&str>, accounts: &Accounts, now: i64) -> Result<Role, String> {
    let malformed = || "the assertion is no JWT".to_owned();
    let mut parts = assertion.split('.');
    let (Some(head), Some(claims), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(malformed());
    };
    let head: Head = decode(head).ok_or_else(malformed)?;
    let claims: Claims =
        decode(claims).ok_or("the assertion lacks iat, exp, iss or aud, or one is not as it should be")?;
    if head.alg != "HS256" {
        return Err("the assertion's alg is not HS256".to_owned());
    }
    let key_id = head.kid.ok_or("the assertion has no kid")?;
    let role = match accounts.find(&key_id) {
        Known::Nobody => return Err("Untrusted entity: there is no such key".to_owned()),
        // Nobody's secret is known here, so there is nothing to check the signature with.
        Known::Anyone => Role::Developer,
        Known::Account(account) => {
            let message = assertion.rsplit_once('.').map_or("", |(message, _)| message);
            if !is_mac(signature, message, account.secret.expose()) {
                return Err("Signature: the assertion was not signed with the key's secret".to_owned());
            }
            if claims.iss != account.email {
                return Err("Untrusted entity: iss is not the service account's e-mail".to_owned());
            }
            account.role
        }
    };
    if !claims.aud.names(host) {
        return Err("aud is not this token endpoint".to_owned());
    }
    let now = numeric_date(now);
    let leeway = numeric_date(LEEWAY);
    if claims.exp <= now - leeway || claims.iat > now + leeway {
        return Err("Timing: the assertion has expired or is not valid yet".to_owned());
    }
    if claims.exp - claims.iat > numeric_date(LIFETIME) + leeway {
        return Err("Timing: the assertion is valid for more than an hour".to_owned());
    }
    Ok(role)
}

/// Returns whether `signature` is the HMAC-SHA256 of `message` in base64url.
fn is_mac(signature: &str, message: &str, secret: &[u8]) -> bool {
    let mac = URL_SAFE_NO_PAD.decode(signature).ok();
    mac.zip(hs256(message, secret)).is_some_and(|(mac, expected)| expected.verify_slice(&mac).is_ok())
}

fn hs256(message: &str, secret: &[u8]) -> Option<Hmac<Sha256>> {
    Hmac::new_from_slice(secret).ok().map(|keyed: Hmac<Sha256>| keyed.chain_update(message))
}

/// `NumericDate` may have a fraction (RFC 7519, section 2); whole seconds of this century are exact in `f64`.
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

    fn ask(secret: &str, kid: &str, claims: &Value, grant_type: &str) -> Result<Value, Refused> {
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
            let Refused(_, text) = answer.unwrap_err();
            assert!(text.contains(what), "{what}: {text}");
        }
    }

    #[test]
    fn tokens_expire_and_are_bounded() {
        let mut grants = Grants::default();
        let token = grants.issue(Role::User, 0).unwrap();
        assert_eq!(grants.role(&token, 3599), Some(Role::User));
        assert_eq!(grants.role(&token, 3600), None);
        assert_eq!(grants.role("other", 0), None);
        for _ in 0..MAX_GRANTS {
            grants.issue(Role::User, 1).unwrap();
        }
        assert_eq!(grants.0.len(), MAX_GRANTS);
        assert_eq!(grants.role(&token, 1), None, "the one that expires first has gone");
    }
}
