//! The table `auth`: the credentials of the sink, as a password (RFC 7617) or a bearer token (RFC 6750).

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use zeroize::Zeroizing;

use dt_sink::config::{Section, Table, TableEntry, config_keys, custom, read_source, secret_keys, word};
use dt_verify::Secret;

use crate::headers::{check_secret, source_key};
use crate::request::UnknownWord;

/// The credentials with which the sink authenticates itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Auth {
    /// A user name and a password (basic authentication).
    Basic {
        /// The user name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// A bearer token.
    Bearer(Secret),
}

impl Auth {
    /// Returns the value of the header `Authorization`, marked as sensitive. `None` if the token cannot be part of a header.
    #[must_use]
    pub fn header(&self) -> Option<HeaderValue> {
        let text = match self {
            Self::Basic { username, password } => {
                let mut pair = Zeroizing::new(format!("{username}:").into_bytes());
                pair.extend_from_slice(password.expose());
                Zeroizing::new(format!("Basic {}", STANDARD.encode(&*pair)).into_bytes())
            }
            Self::Bearer(token) => Zeroizing::new([b"Bearer ", token.expose()].concat()),
        };
        let mut value = HeaderValue::from_bytes(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Returns the password or the token.
    #[must_use]
    pub const fn secret(&self) -> &Secret {
        match self {
            Self::Basic { password, .. } => password,
            Self::Bearer(token) => token,
        }
    }
}

/// The authentication scheme of the header `Authorization`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Basic,
    Bearer,
}

impl FromStr for Scheme {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        match word {
            "basic" => Ok(Self::Basic),
            "bearer" => Ok(Self::Bearer),
            _ => Err(UnknownWord),
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Basic => "basic",
            Self::Bearer => "bearer",
        })
    }
}

config_keys! {
    /// The keys of `[sink.auth]`.
    struct AuthKeys {
        needed {
            /// How: by user name and password, or by a token.
            scheme: Scheme = word(&["basic", "bearer"])
                .needed("is missing; expected basic or bearer")
                .sample("\"basic\""),
        }
        /// The user name, with `basic`.
        username: Option<String> = custom("text", read_username).or_none("").sample("\"dt-receiver\""),
    }
}

fn read_username(section: &mut Section<'_>, key: &'static str) -> Option<String> {
    let name = section.private_string(key)?;
    if name.contains(':') || name.chars().any(char::is_control) {
        section.complain(key, "contains a colon or a control character, which no user name can (RFC 7617)");
    }
    Some(name)
}

/// Returns the entry of the table `auth`.
pub const fn entry() -> TableEntry<Option<Auth>> {
    TableEntry {
        read,
        tables: |field, meaning| {
            let secret = secret_keys("HTTP_SECRET", "/etc/dt-receiver/http-secret");
            let secret = Table::new("[secret]", "The password, or the token.", secret);
            vec![Table::new(format!("[{field}]"), meaning, AuthKeys::rows()), secret.below(field)]
        },
    }
}

fn read(mut section: Section<'_>) -> Option<Option<Auth>> {
    let keys = AuthKeys::read_keys(&mut section);
    let secret = match section.secret_section("secret") {
        Some(mut source) => {
            let key = source_key(&source);
            let secret = read_source(&mut source);
            if let Some(secret) = &secret {
                check_secret(&source, key, secret);
            }
            source.finish();
            secret
        }
        None => {
            section.missing("secret", "is missing; give { env = \"NAME\" } or { file = \"PATH\" }");
            None
        }
    };
    let AuthKeys { scheme, username } = match keys {
        Some(keys) => keys,
        None => {
            section.finish();
            return None;
        }
    };
    match (scheme, &username) {
        (Scheme::Basic, None) => section.missing("username", "is missing; `basic` needs it"),
        (Scheme::Bearer, Some(_)) => {
            section.complain(
                "username",
                "is given, and `bearer` has none; delete it, or set `scheme = \"basic\"`",
            );
        }
        _ => {}
    }
    section.finish();
    let secret = secret?;
    Some(Some(match scheme {
        Scheme::Basic => Auth::Basic { username: username.unwrap_or_default(), password: secret },
        Scheme::Bearer => Auth::Bearer(secret),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_that_of_the_standards_and_is_never_shown() {
        // The example of RFC 7617, section 2.
        let password = Secret::new("open sesame").expect("not empty");
        let basic = Auth::Basic { username: "Aladdin".to_owned(), password };
        let header = basic.header().expect("a value");
        assert_eq!(header, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        let bearer = Auth::Bearer(Secret::new("mF_9.B5f-4.1JqM").expect("not empty"));
        assert_eq!(bearer.header().expect("a value"), "Bearer mF_9.B5f-4.1JqM");
        assert!(!format!("{basic:?} {bearer:?} {header:?}").contains("sesame"));
        assert!(!format!("{bearer:?} {:?}", bearer.header()).contains("mF_9"));
        assert_eq!(Auth::Bearer(Secret::new("a\nb").expect("not empty")).header(), None);
    }
}
