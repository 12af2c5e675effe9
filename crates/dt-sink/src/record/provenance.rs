//! How an event reached this receiver: pushed in a signed request, or fetched from DT's API.

use std::fmt;
use std::sync::Arc;

use dt_verify::VerifiedBy;

/// How an event reached this receiver, and therefore what proves that it is authentic.
///
/// `Display` writes the stored form: `secret:LABEL`, `asymmetric:KID`, `api:backfill` or `api:stream`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Provenance {
    /// DT pushed the event in a request whose signature was verified with this key.
    Signed(VerifiedBy),
    /// This receiver fetched the event from DT's API, which signs nothing. The TLS connection to the API is its only proof.
    Api(ApiSource),
}

/// The part of DT's API from which an event was fetched. `Display` writes its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ApiSource {
    /// `backfill`: the event history of a device, after an interruption.
    Backfill,
    /// `stream`: the stream of a project, by a `[[source]]`.
    Stream,
}

impl ApiSource {
    /// Both sources.
    pub const ALL: [Self; 2] = [Self::Backfill, Self::Stream];

    /// Returns the name of the source, as in an envelope.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Backfill => "backfill",
            Self::Stream => "stream",
        }
    }
}

impl fmt::Display for ApiSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Provenance {
    /// Returns the part of DT's API from which the event was fetched; `None` if DT pushed it.
    #[must_use]
    pub const fn source(&self) -> Option<ApiSource> {
        match self {
            Self::Signed(_) => None,
            Self::Api(source) => Some(*source),
        }
    }

    /// Returns the text of the member `verifiedBy` of an envelope: `secret:LABEL`, `asymmetric:KID` or `api`.
    pub const fn verified_by(&self) -> impl fmt::Display {
        ShownVerifier(self)
    }

    /// Parses the stored form. Any other text reads as the label of a secret.
    #[must_use]
    pub fn from_stored(text: &str) -> Self {
        let secret = |label: &str| Self::Signed(VerifiedBy::Secret { label: Arc::from(label) });
        match text.split_once(':') {
            Some(("asymmetric", kid)) => Self::Signed(VerifiedBy::Asymmetric { kid: Arc::from(kid) }),
            Some(("api", name)) => {
                let source = ApiSource::ALL.into_iter().find(|source| source.name() == name);
                source.map_or_else(|| secret(name), Self::Api)
            }
            Some((_, label)) => secret(label),
            None => secret(text),
        }
    }
}

impl From<VerifiedBy> for Provenance {
    fn from(key: VerifiedBy) -> Self {
        Self::Signed(key)
    }
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signed(key) => key.fmt(f),
            Self::Api(source) => write!(f, "api:{source}"),
        }
    }
}

/// Writes [`Provenance::verified_by`].
struct ShownVerifier<'a>(&'a Provenance);

impl fmt::Display for ShownVerifier<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Provenance::Signed(key) => key.fmt(f),
            Provenance::Api(_) => f.write_str("api"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_form_is_read_back() {
        let secret = |label: &str| Provenance::Signed(VerifiedBy::Secret { label: Arc::from(label) });
        let asymmetric = |kid: &str| Provenance::Signed(VerifiedBy::Asymmetric { kid: Arc::from(kid) });
        for (provenance, stored, verified_by, source) in [
            (secret("a"), "secret:a", "secret:a", None),
            (secret("api:stream"), "secret:api:stream", "secret:api:stream", None),
            (asymmetric("k:1"), "asymmetric:k:1", "asymmetric:k:1", None),
            (asymmetric(""), "asymmetric:", "asymmetric:", None),
            (Provenance::Api(ApiSource::Backfill), "api:backfill", "api", Some("backfill")),
            (Provenance::Api(ApiSource::Stream), "api:stream", "api", Some("stream")),
        ] {
            assert_eq!(provenance.to_string(), stored);
            assert_eq!(Provenance::from_stored(stored), provenance);
            assert_eq!(provenance.verified_by().to_string(), verified_by);
            assert_eq!(provenance.source().map(ApiSource::name), source);
        }
        for (odd, label) in [("a", "a"), ("api:later", "later"), ("other:b", "b"), ("", "")] {
            assert_eq!(Provenance::from_stored(odd), secret(label), "{odd}");
        }
    }
}
