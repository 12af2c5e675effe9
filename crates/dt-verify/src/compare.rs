//! Compares two verifiers without showing keys, for the audit of a changed configuration.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::policy::Policy;
use super::verifier::Verifier;

/// How a key differs between an old and a new configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
    /// Only the new configuration has the key.
    Added,
    /// Only the old configuration has the key.
    Removed,
    /// Both configurations have the key, with different values.
    Changed,
}

impl Difference {
    /// Returns the word for logs: `added`, `removed` or `changed`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Changed => "changed",
        }
    }

    /// Compares two maps. Returns the keys that only one map has or whose values differ, each with its [`Difference`].
    #[must_use]
    pub fn between<K: Ord + Clone, V: PartialEq>(
        before: &BTreeMap<K, V>,
        after: &BTreeMap<K, V>,
    ) -> Vec<(K, Self)> {
        let gone =
            before.keys().filter(|key| !after.contains_key(key)).map(|key| (key.clone(), Self::Removed));
        let others = after.iter().filter_map(|(key, value)| match before.get(key) {
            None => Some((key.clone(), Self::Added)),
            Some(old) if old != value => Some((key.clone(), Self::Changed)),
            Some(_) => None,
        });
        gone.chain(others).collect()
    }
}

impl Verifier {
    /// Compares this verifier with `next`. Returns the configuration keys that differ, such as `secrets.2026` or `policy`, each
    /// with its [`Difference`]. The result contains no values.
    ///
    /// # Examples
    ///
    /// ```
    /// use dt_verify::{Difference, Secret, Verifier};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let old = Verifier::builder().secret("2025", Secret::new("old")?).build()?;
    /// let new = Verifier::builder().secret("2025", Secret::new("old")?).secret("2026", Secret::new("new")?).build()?;
    /// assert_eq!(old.differences(&new), [("secrets.2026".to_owned(), Difference::Added)]);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn differences(&self, next: &Self) -> Vec<(String, Difference)> {
        Difference::between(&self.parts(), &next.parts())
    }

    /// Returns whether both verifiers have a secret in common. A request for one of them is then authentic for the other as
    /// well, since DT's tokens do not name the URL to which they are sent.
    #[must_use]
    pub fn shares_a_secret_with(&self, other: &Self) -> bool {
        let secrets = |verifier: &Self| -> Vec<Zeroizing<Vec<u8>>> {
            let keys = verifier.secret.iter().flat_map(|scheme| scheme.keys());
            keys.map(|(_, key)| Zeroizing::new(key.try_get_as_bytes().unwrap_or_default().to_vec())).collect()
        };
        let others = secrets(other);
        secrets(self).iter().any(|secret| others.contains(secret))
    }

    /// Returns whether a request for one verifier can be authentic for the other by DT's signature (ES256) alone: both verifiers
    /// have the same issuer and organization, and at least one of them does not require both signatures.
    #[must_use]
    pub fn shares_an_organization_with(&self, other: &Self) -> bool {
        let (Some(one), Some(another)) = (&self.asymmetric, &other.asymmetric) else { return false };
        // If both verifiers need both signatures, DT's own is not enough.
        let is_enough = self.policy != Policy::Both || other.policy != Policy::Both;
        is_enough && one.issuer == another.issuer && one.organization == another.organization
    }

    /// Returns the parts of this verifier, by their keys in the configuration.
    fn parts(&self) -> BTreeMap<String, Zeroizing<Vec<u8>>> {
        let bytes = |bytes: &[u8]| Zeroizing::new(bytes.to_vec());
        let mut parts = BTreeMap::from([("policy".to_owned(), bytes(self.policy.name().as_bytes()))]);
        let secrets = self.secret.iter().flat_map(|scheme| scheme.keys());
        parts.extend(secrets.map(|(label, key)| {
            (format!("secrets.{label}"), bytes(key.try_get_as_bytes().unwrap_or_default()))
        }));
        let headers = self.required_headers.iter();
        parts.extend(
            headers.map(|(name, value)| {
                (format!("headers.{}", name.to_ascii_lowercase()), bytes(value.expose()))
            }),
        );
        if let Some(scheme) = &self.asymmetric {
            parts.insert("asymmetric.organization".to_owned(), bytes(scheme.organization.as_bytes()));
            parts.insert("asymmetric.issuer".to_owned(), bytes(scheme.issuer.as_bytes()));
            parts.insert("asymmetric.key_set".to_owned(), bytes(&scheme.keys.contents()));
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;

    #[test]
    fn every_part_is_compared_and_no_value_is_shown() {
        let secret = |text: &str| Secret::new(text).expect("not empty");
        let old = Verifier::builder().secret("a", secret("one")).secret("b", secret("two"));
        let old = old.require_header("X-Key", secret("three")).build().expect("has keys");
        let new = Verifier::builder().secret("b", secret("other")).secret("c", secret("two"));
        let new =
            new.require_header("x-key", secret("four")).policy(Policy::Either).build().expect("has keys");
        let differences: Vec<_> =
            old.differences(&new).into_iter().map(|(key, how)| format!("{key} {}", how.name())).collect();
        let expected = [
            "secrets.a removed",
            "headers.x-key changed",
            "policy changed",
            "secrets.b changed",
            "secrets.c added",
        ];
        assert_eq!(differences, expected);
        assert_eq!(new.differences(&new), []);
    }
}
