//! The verifiers that the known-answer vectors use, so that those vectors are good seeds.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use dt_verify::{KeySet, Policy, Secret, Verifier};
use serde::Deserialize;
use serde_json::Value;

/// The committed vectors.
pub const VECTORS: &str = include_str!("../../tests/vectors/verify.json");

/// The private half of the key that most key sets of the vectors hold, as PKCS#8 DER.
pub const PRIVATE_KEY: &[u8] = include_bytes!("../../tests/vectors/keys/es256.pk8.der");

/// One verifier, and what it was made from.
pub struct Setup {
    pub name: String,
    pub policy: Policy,
    /// Label and text of each secret.
    pub secrets: Vec<(String, String)>,
    pub key_set: Option<Value>,
    pub verifier: Verifier,
}

/// All verifiers of the vectors, by name.
pub static SETUPS: LazyLock<Vec<Setup>> = LazyLock::new(|| {
    let file: File = serde_json::from_str(VECTORS).expect("the vectors are readable");
    file.verifiers.into_iter().map(|(name, entry)| entry.build(name)).collect()
});

/// The setup of that name.
pub fn setup(name: &str) -> &'static Setup {
    SETUPS.iter().find(|setup| setup.name == name).expect("the vectors have a verifier of this name")
}

#[derive(Deserialize)]
struct File {
    verifiers: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    policy: String,
    secrets: Vec<LabelledSecret>,
    key_set: Option<Value>,
    issuer: Option<String>,
    organization: Option<String>,
    #[serde(default)]
    required_headers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct LabelledSecret {
    label: String,
    secret: String,
}

impl Entry {
    fn build(self, name: String) -> Setup {
        let policy = self.policy.parse().expect("a policy");
        let mut builder = Verifier::builder().policy(policy);
        let secrets: Vec<_> = self.secrets.into_iter().map(|entry| (entry.label, entry.secret)).collect();
        for (label, secret) in &secrets {
            builder = builder.secret(label.as_str(), Secret::new(secret.as_str()).expect("not empty"));
        }
        if let Some(keys) = &self.key_set {
            let keys = KeySet::from_jwks(keys.to_string().as_bytes()).expect("a key set");
            let organization = self.organization.expect("an organization");
            builder = builder.key_set_of_issuer(keys, organization, self.issuer.expect("an issuer"));
        }
        for (header, value) in self.required_headers {
            builder = builder.require_header(header, Secret::new(value).expect("not empty"));
        }
        let verifier = builder.build().expect("a verifier");
        Setup { name, policy, secrets, key_set: self.key_set, verifier }
    }
}
