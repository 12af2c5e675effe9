//! The table `[api]`: the service account with which the receiver calls DT's REST API.

use dt_api::{BuildError, Client, ClientBuilder, Credentials, DT_API_URL, DT_TOKEN_ENDPOINT};
use dt_sink::config::{SecretEntry, Section, config_keys, flag, number, text};
use dt_verify::Secret;

config_keys! {
    /// A service account of DT, and the URLs of DT's API.
    #[derive(Debug, Clone, PartialEq)]
    #[non_exhaustive]
    pub struct ApiSettings {
        needed {
            /// The id of the service account's key.
            key_id: String = text("id")
                .needed("is missing; give the id of a key of the service account")
                .sample("\"c19tg0eoiv9008epsv50\""),
        }
        /// The e-mail address of the service account. Not needed with `basic_auth`.
        email: Option<String> = text("e-mail address")
            .or_none("needed")
            .sample("\"c147mc3d8ep000eb1psg@c0md3mm0c7pet3vico8g.serviceaccount.d21s.com\""),
        /// Uses basic auth instead of OAuth2. It must be enabled for the service account; each request then contains the secret.
        basic_auth: bool = flag().or(false),
        /// The base URL of the API.
        url: String = text("URL").or(DT_API_URL.to_owned()),
        /// The token endpoint of OAuth2.
        token_endpoint: String = text("URL").or(DT_TOKEN_ENDPOINT.to_owned()),
        /// The most requests in a second, of all parts of the receiver together. DT's limit is not known.
        requests_per_second: u32 = number(1..=1000).or(5),
        /// The secret of the key.
        secret: Option<Secret> =
            SecretEntry { variable: "DT_SERVICE_ACCOUNT_SECRET", path: "/etc/dt-receiver/service-account" },
    }
}

impl ApiSettings {
    /// Reports what is missing, and what DT's client rejects.
    pub(super) fn check(&mut self, section: &Section<'_>) {
        if self.secret.is_none() {
            section.missing(
                "secret",
                "is missing; give { env = \"NAME\" } or { file = \"PATH\" } with the secret of the key",
            );
        }
        if self.email.is_none() && !self.basic_auth {
            let text = "is missing; give the e-mail address of the service account, or set `basic_auth = true`, which needs none";
            section.missing("email", text);
        }
        if self.url != DT_API_URL && self.token_endpoint == DT_TOKEN_ENDPOINT && !self.basic_auth {
            let text = "is missing, and `url` is not that of DT's cloud: the credentials would be checked there; give the token \
                        endpoint, such as \"http://127.0.0.1:8081/oauth2/token\" for `emulate`";
            section.missing("token_endpoint", text);
        }
        let Some(builder) = self.client_builder() else { return };
        if let Err(error) = builder.build() {
            let key = match error {
                BuildError::ApiUrl(_) => "url",
                BuildError::TokenEndpoint(_) => "token_endpoint",
                _ => "key_id",
            };
            // The error does not contain the value, which may be a secret by mistake.
            section.complain(key, error.to_string());
        }
    }

    /// Returns the configured builder of a client; `None` if a part of the credentials is missing.
    #[must_use]
    pub fn client_builder(&self) -> Option<ClientBuilder> {
        let (key_id, secret) = (self.key_id.clone(), self.secret.clone()?);
        let credentials = match (self.basic_auth, &self.email) {
            (true, _) => Credentials::basic(key_id, secret),
            (false, Some(email)) => Credentials::service_account(key_id, secret, email.clone()),
            (false, None) => return None,
        };
        let builder = Client::builder(credentials).api_url(&self.url).token_endpoint(&self.token_endpoint);
        Some(builder.max_requests_per_second(self.requests_per_second))
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::io;
    use std::path::Path;

    use super::*;
    use crate::config::{Config, Sources};
    use crate::sink::standard_types;

    struct OneSecret;

    impl Sources for OneSecret {
        fn env(&self, name: &str) -> Option<OsString> {
            (name == "SECRET").then(|| "hunter2".into())
        }

        fn file(&self, _: &Path) -> io::Result<Vec<u8>> {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    const CONNECTOR: &str = "[[connector]]\nname = 'a'\nsecrets = [{ env = 'SECRET' }]\n";

    fn read(api: &str) -> Result<Config, String> {
        Config::from_toml(&format!("{api}\n{CONNECTOR}"), &OneSecret, &standard_types())
            .map_err(|error| error.to_string())
    }

    const GOOD: &str = "[api]\nkey_id = 'k'\nemail = 'e@x'\nsecret = { env = 'SECRET' }\n";

    #[test]
    fn each_mistake_is_reported_with_its_key_line_and_remedy() {
        let basic = GOOD.replace("email = 'e@x'", "basic_auth = true");
        for api in [GOOD, &basic, &format!("{basic}url = 'http://127.0.0.1:1/v2'\n")] {
            let config = read(api).expect(api);
            let settings = config.api.expect("settings");
            settings.client_builder().expect("credentials").build().expect("a client");
            assert!(!format!("{settings:?}").contains("hunter2"));
        }
        assert!(read("").expect("a configuration").api.is_none());
        for (api, lines) in [
            ("[api]\n", vec!["line 1: api.key_id: is missing; give"]),
            (
                "[api]\nkey_id = 'k'",
                vec!["line 1: api.secret: is missing; give { env", "line 1: api.email: is missing"],
            ),
            (&GOOD.replace("'k'", "'a:b'"), vec!["line 2: api.key_id: the credentials: expected a key id"]),
            (
                &GOOD.replace("SECRET", "OTHER"),
                vec!["line 4: api.secret.env: the environment variable OTHER"],
            ),
            (
                &format!("{GOOD}url = 'http://api.example/v2'\n"),
                vec![
                    "line 1: api.token_endpoint: is missing",
                    "line 5: api.url: the base URL of the API: expected https",
                ],
            ),
            (
                &format!("{GOOD}token_endpoint = 'https://u:hunter2@h/'\n"),
                vec!["line 5: api.token_endpoint: the token endpoint: expected a URL without a user name"],
            ),
            (&format!("{GOOD}requests_per_second = 0\n"), vec!["line 5: api.requests_per_second: found 0"]),
            (
                &format!("{GOOD}keyid = 'k'\n"),
                vec!["line 5: api.keyid: unknown key; did you mean \"key_id\"?"],
            ),
        ] {
            let error = read(api).map(|_| ()).expect_err(api);
            for line in lines {
                assert!(error.contains(line) && !error.contains("hunter2"), "{api}: {error}");
            }
        }
    }

    #[test]
    fn a_changed_secret_is_reported_without_its_value() {
        let (before, after) = (read(GOOD).expect("good"), read(&GOOD.replace("'k'", "'l'")).expect("good"));
        let mut other = before.clone();
        other.api.as_mut().expect("settings").secret = Secret::new("hunter3").ok();
        let changes = |a: &Config, b: &Config| -> Vec<String> {
            a.changes_to(b).iter().map(ToString::to_string).collect()
        };
        assert_eq!(changes(&before, &after), ["api.key_id: \"k\" -> \"l\""]);
        assert_eq!(changes(&before, &other), ["api.secret changed"]);
        assert_eq!(changes(&read("").expect("good"), &before), ["api added"]);
    }
}
