//! Texts that are never printed: signature secrets, header values, and parts of a connector's URL.

use std::fmt;

use zeroize::Zeroizing;

/// A text that `Debug` does not show, such as the signature secret of a connector. It may be empty, and is zeroed when dropped.
///
/// # Examples
///
/// ```
/// use dt_api::SecretText;
///
/// let secret = SecretText::new("some-good-secret");
/// assert_eq!(format!("{secret:?}"), "SecretText(redacted)");
/// assert_eq!(secret.expose(), "some-good-secret");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// Creates a secret text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// Returns the secret text.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns whether the text is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "SecretText(empty)" } else { "SecretText(redacted)" })
    }
}

/// The URL to which a connector delivers. `Debug` and `Display` do not show a user, a password or a query, which may be secrets.
///
/// # Examples
///
/// ```
/// use dt_api::EndpointUrl;
///
/// let url = EndpointUrl::new("https://user:password@example.com/dt?key=secret");
/// assert_eq!(url.to_string(), "https://(redacted)@example.com/dt?(redacted)");
/// assert_eq!(EndpointUrl::new("https://example.com/dt").to_string(), "https://example.com/dt");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct EndpointUrl(Zeroizing<String>);

impl EndpointUrl {
    /// Creates an endpoint URL without checking it. DT accepts only URLs that begin with `https://`.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self(Zeroizing::new(url.into()))
    }

    /// Returns the complete URL.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns the parts of the URL that an error message must not contain: the user with the password, and the query.
    pub(crate) fn hidden(&self) -> impl Iterator<Item = SecretText> {
        let (_, user, _, query) = self.parts();
        [user, query].into_iter().flatten().map(SecretText::new)
    }

    /// Splits the URL into the scheme, user and password, host and path, and query with fragment.
    fn parts(&self) -> (&str, Option<&str>, &str, Option<&str>) {
        let (scheme, rest) =
            self.0.split_once("://").map_or(("", &**self.0), |(scheme, rest)| (scheme, rest));
        let (rest, query) =
            rest.split_once(['?', '#']).map_or((rest, None), |(rest, query)| (rest, Some(query)));
        let (authority, _) = rest.split_once('/').unwrap_or((rest, ""));
        match authority.rsplit_once('@') {
            Some((user, _)) => {
                (scheme, Some(user), rest.get(user.len().saturating_add(1)..).unwrap_or_default(), query)
            }
            None => (scheme, None, rest, query),
        }
    }
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, user, rest, query) = self.parts();
        if !scheme.is_empty() {
            write!(f, "{}://", scheme.escape_debug())?;
        }
        if user.is_some() {
            f.write_str("(redacted)@")?;
        }
        write!(f, "{}", rest.escape_debug())?;
        if query.is_some() {
            f.write_str("?(redacted)")?;
        }
        Ok(())
    }
}

impl fmt::Debug for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EndpointUrl({self})")
    }
}

/// The largest number of characters of DT's message in an error.
const MAX_SHOWN: usize = 200;

/// Returns a text from a response, made safe for an error message: redacts these secrets, escapes control characters, and cuts
/// the text after 200 characters.
pub(crate) fn shown<'a>(text: &str, secrets: impl IntoIterator<Item = &'a str>) -> String {
    let mut secrets: Vec<&str> = secrets.into_iter().filter(|secret| !secret.is_empty()).collect();
    // The longest first: one may contain another.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    let mut text = text.to_owned();
    for secret in secrets {
        if text.contains(secret) {
            text = text.replace(secret, "(redacted)");
        }
    }
    let mut short: String = text.chars().take(MAX_SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(MAX_SHOWN).is_some() {
        short.push('…');
    }
    if short.is_empty() { "no reason given".to_owned() } else { short }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_shows_neither_user_nor_query() {
        for (url, shown) in [
            ("https://example.com", "https://example.com"),
            ("https://u:p@example.com", "https://(redacted)@example.com"),
            ("https://u:p@ss@example.com/a@b", "https://(redacted)@example.com/a@b"),
            ("https://example.com/a?key=1#x", "https://example.com/a?(redacted)"),
            ("https://example.com?u@h", "https://example.com?(redacted)"),
            ("https://example.com#x", "https://example.com?(redacted)"),
            ("not a url", "not a url"),
            ("", ""),
        ] {
            assert_eq!(EndpointUrl::new(url).to_string(), shown, "{url}");
        }
        let hidden: Vec<_> = EndpointUrl::new("https://u:p@h/?k=v").hidden().collect();
        assert_eq!(hidden, [SecretText::new("u:p"), SecretText::new("k=v")]);
    }

    #[test]
    fn a_reason_shows_no_secret() {
        assert_eq!(
            shown("header a: hunter2-long\n", ["hunter2", "hunter2-long", ""]),
            "header a: (redacted)\\n"
        );
        assert_eq!(shown("", []), "no reason given");
        assert_eq!(shown(&"é".repeat(300), []).chars().count(), 201);
    }
}
