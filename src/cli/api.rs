//! The options for DT's REST API: its URLs, and the credentials of a service account. Names of environment variables are those
//! of DT's Python client, and for the URLs those of DT's Terraform provider.

use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;

use super::{Failure, complain, usage};
use dt_api::{BuildError, Client, ClientBuilder, Credentials, DT_API_URL, DT_TOKEN_ENDPOINT};
use dt_server::config::{SecretError, SecretSource, Sources, SystemSources, read_secret};
use dt_verify::Secret;

const KEY_ID: &str = "DT_SERVICE_ACCOUNT_KEY_ID";
const SECRET: &str = "DT_SERVICE_ACCOUNT_SECRET";
const EMAIL: &str = "DT_SERVICE_ACCOUNT_EMAIL";
const FILE: &str = "DT_CREDENTIALS_FILE";
const API_URL: &str = "DT_API_URL";
const TOKEN_ENDPOINT: &str = "DT_OIDC_TOKEN_ENDPOINT";

/// The section of the help about the environment.
pub const HELP: &str = "Environment:
  DT_SERVICE_ACCOUNT_KEY_ID, DT_SERVICE_ACCOUNT_SECRET, DT_SERVICE_ACCOUNT_EMAIL
                          The service account, as for DT's Python client
  DT_CREDENTIALS_FILE     A file with the service account, as for DT's Python client; it has priority:
                          {\"serviceAccount\": {\"keyId\": …, \"secret\": …, \"email\": …, \"tokenEndpoint\": …}}
  DT_API_URL, DT_OIDC_TOKEN_ENDPOINT
                          The URLs of the API and of the token endpoint, as for DT's Terraform provider";

/// The options of all subcommands that call DT's REST API.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "DT's API")]
pub struct ApiOptions {
    /// The id of the service account's key; the default is DT_SERVICE_ACCOUNT_KEY_ID
    #[arg(long, value_name = "ID")]
    key_id: Option<String>,
    /// Take the secret of the key from this environment variable; the default is DT_SERVICE_ACCOUNT_SECRET
    #[arg(long, value_name = "NAME")]
    key_secret_env: Option<String>,
    /// Take the secret of the key from this file, without its last line end
    #[arg(long, value_name = "FILE", conflicts_with = "key_secret_env")]
    key_secret_file: Option<PathBuf>,
    /// The e-mail address of the service account; the default is DT_SERVICE_ACCOUNT_EMAIL
    #[arg(long, value_name = "EMAIL")]
    email: Option<String>,
    /// Use basic auth instead of OAuth2; it must be enabled for the service account, and needs no e-mail address
    #[arg(long)]
    basic_auth: bool,
    /// The base URL of the API, such as http://127.0.0.1:8081/v2 for `emulate`; the default is DT_API_URL, or else DT's cloud
    #[arg(long, value_name = "URL")]
    api_url: Option<String>,
    /// The URL of the token endpoint, such as http://127.0.0.1:8081/oauth2/token; the default is DT_OIDC_TOKEN_ENDPOINT, or else that of DT's cloud
    #[arg(long, value_name = "URL")]
    token_endpoint: Option<String>,
}

/// Why no client can be created. No message contains a secret.
#[derive(Debug, thiserror::Error)]
enum ApiOptionsError {
    #[error(
        "no {what} of a service account is given: set the environment variable {variable}, or use {option}"
    )]
    Missing { what: &'static str, variable: &'static str, option: &'static str },
    #[error("the environment variable {0} is not UTF-8")]
    NotUtf8(&'static str),
    #[error("{FILE}: {path}: {text}")]
    File { path: String, text: String },
    #[error(
        "the API is not that of DT's cloud, so its token endpoint has to be given as well: --token-endpoint or {TOKEN_ENDPOINT}, \
         such as http://127.0.0.1:8081/oauth2/token for `emulate`; or use --basic-auth"
    )]
    NoTokenEndpoint,
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Build(#[from] BuildError),
}

/// The content of a credentials file of DT's Python client.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CredentialsFile {
    service_account: FileAccount,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileAccount {
    key_id: String,
    secret: String,
    email: String,
    token_endpoint: Option<String>,
}

impl ApiOptions {
    /// Creates a client from the options and the environment.
    pub fn client(&self) -> Result<Client, Failure> {
        self.client_from(&SystemSources).map_err(usage)
    }

    /// Returns whether options or the environment name a service account.
    pub fn is_given(&self) -> bool {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        self.key_id.is_some() || is_set(KEY_ID) || is_set(FILE)
    }

    /// Creates a client that sends at most this number of requests per second.
    pub fn client_at(&self, max_requests_per_second: u32) -> Result<Client, Failure> {
        let builder = self.builder_from(&SystemSources).map_err(usage)?;
        builder.max_requests_per_second(max_requests_per_second).build().map_err(usage)
    }

    fn client_from(&self, from: &dyn Sources) -> Result<Client, ApiOptionsError> {
        Ok(self.builder_from(from)?.build()?)
    }

    fn builder_from(&self, from: &dyn Sources) -> Result<ClientBuilder, ApiOptionsError> {
        let file = self.credentials_file(from)?;
        let api_url = self.api_url.clone().or(text(API_URL, from)?).as_deref().map(with_version);
        let of_file = file.as_ref().and_then(|account| account.token_endpoint.clone());
        let token_endpoint = self.token_endpoint.clone().or(of_file).or(text(TOKEN_ENDPOINT, from)?);
        if api_url.as_deref().is_some_and(|url| url != DT_API_URL)
            && token_endpoint.is_none()
            && !self.basic_auth
        {
            return Err(ApiOptionsError::NoTokenEndpoint);
        }
        Ok(Client::builder(self.credentials(file, from)?)
            .api_url(api_url.unwrap_or_else(|| DT_API_URL.to_owned()))
            .token_endpoint(token_endpoint.unwrap_or_else(|| DT_TOKEN_ENDPOINT.to_owned())))
    }

    /// Reads the credentials file that the environment names; `None` if it names none, or if options contain the credentials.
    fn credentials_file(&self, from: &dyn Sources) -> Result<Option<FileAccount>, ApiOptionsError> {
        let is_given =
            self.key_id.is_some() || self.key_secret_env.is_some() || self.key_secret_file.is_some();
        let Some(path) = text(FILE, from)?.filter(|_| !is_given) else { return Ok(None) };
        let bad = |text: String| ApiOptionsError::File { path: path.clone(), text };
        let content = from.file(path.as_ref()).map_err(|error| bad(error.to_string()))?;
        // The library's own text could show the secret.
        let file: CredentialsFile = serde_json::from_slice(&content).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            bad(format!(
                "line {line}, column {column}: expected {{\"serviceAccount\": {{\"keyId\": …, \"secret\": …, \"email\": …}}}}"
            ))
        })?;
        Ok(Some(file.service_account))
    }

    fn credentials(
        &self,
        file: Option<FileAccount>,
        from: &dyn Sources,
    ) -> Result<Credentials, ApiOptionsError> {
        let (key_id, secret, email) = match file {
            Some(FileAccount { key_id, secret, email, .. }) => {
                let empty =
                    ApiOptionsError::Missing { what: "secret", variable: FILE, option: "--key-secret-file" };
                (key_id, Secret::new(secret).map_err(|_| empty)?, self.email.clone().or(Some(email)))
            }
            None => {
                let missing =
                    ApiOptionsError::Missing { what: "key id", variable: KEY_ID, option: "--key-id" };
                let key_id = self.key_id.clone().or(text(KEY_ID, from)?).ok_or(missing)?;
                (key_id, self.secret(from)?, self.email.clone().or(text(EMAIL, from)?))
            }
        };
        if self.basic_auth {
            return Ok(Credentials::basic(key_id, secret));
        }
        let missing = ApiOptionsError::Missing {
            what: "e-mail address",
            variable: EMAIL,
            option: "--email (or --basic-auth, which needs none)",
        };
        Ok(Credentials::service_account(key_id, secret, email.ok_or(missing)?))
    }

    fn secret(&self, from: &dyn Sources) -> Result<Secret, ApiOptionsError> {
        let source = match (&self.key_secret_env, &self.key_secret_file) {
            (Some(name), _) => SecretSource::Env(name.clone()),
            (None, Some(path)) => SecretSource::File(path.clone()),
            (None, None) => {
                if from.env(SECRET).is_none() {
                    let (what, option) = ("secret", "--key-secret-env NAME or --key-secret-file FILE");
                    return Err(ApiOptionsError::Missing { what, variable: SECRET, option });
                }
                SecretSource::Env(SECRET.to_owned())
            }
        };
        let (secret, warning) = read_secret(&source, from)?;
        if let Some(warning) = warning {
            complain(&format!("warning: {warning}"));
        }
        Ok(secret)
    }
}

/// Returns the value of an environment variable; `None` if it is not set or empty.
fn text(name: &'static str, from: &dyn Sources) -> Result<Option<String>, ApiOptionsError> {
    let value = from.env(name).filter(|value| !value.is_empty());
    value.map(|value| value.into_string().map_err(|_| ApiOptionsError::NotUtf8(name))).transpose()
}

/// Returns the URL with the version of the API, which the variable of DT's Terraform provider omits.
fn with_version(url: &str) -> String {
    let url = url.trim_end_matches('/');
    let has_path = url.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
    if has_path { url.to_owned() } else { format!("{url}/v2") }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ffi::OsString;
    use std::io;
    use std::path::Path;

    use super::*;

    struct Given(BTreeMap<&'static str, &'static str>);

    impl Sources for Given {
        fn env(&self, name: &str) -> Option<OsString> {
            self.0.get(name).map(OsString::from)
        }

        fn file(&self, path: &Path) -> io::Result<Vec<u8>> {
            let content = path.to_str().and_then(|path| self.0.get(path));
            content.map(|content| content.as_bytes().to_vec()).ok_or_else(|| io::ErrorKind::NotFound.into())
        }
    }

    const ALL: [(&str, &str); 3] = [(KEY_ID, "key"), (SECRET, "hunter2"), (EMAIL, "e@x")];

    fn shown(options: &ApiOptions, given: &[(&'static str, &'static str)]) -> String {
        let sources = Given(given.iter().copied().collect());
        match options.client_from(&sources) {
            Ok(client) => format!("{client:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_variables_of_dts_clients_are_read() {
        let none = ApiOptions::default();
        assert_eq!(shown(&none, &ALL), format!("Client({DT_API_URL}, Credentials(OAuth2, key key))"));
        let basic = ApiOptions { basic_auth: true, ..ApiOptions::default() };
        let local = [&ALL[..2], &[(API_URL, "http://127.0.0.1:1/")]].concat();
        assert_eq!(shown(&basic, &local), "Client(http://127.0.0.1:1/v2, Credentials(basic auth, key key))");
        assert!(
            shown(&none, &[&ALL[..], &[(API_URL, "http://127.0.0.1:1")]].concat())
                .contains("--token-endpoint")
        );
        let file = r#"{"serviceAccount": {"keyId": "other", "secret": "s", "email": "e@x", "algorithm": "HS256",
            "tokenEndpoint": "http://127.0.0.1:1/oauth2/token"}}"#;
        let with_file =
            [&ALL[..], &[(FILE, "/f"), ("/f", file), (API_URL, "http://127.0.0.1:1/v2")]].concat();
        assert_eq!(shown(&none, &with_file), "Client(http://127.0.0.1:1/v2, Credentials(OAuth2, key other))");
    }

    #[test]
    fn what_is_missing_is_named_without_secrets() {
        for (given, words) in [
            (vec![], "set the environment variable DT_SERVICE_ACCOUNT_KEY_ID, or use --key-id"),
            (vec![ALL[0]], "DT_SERVICE_ACCOUNT_SECRET"),
            (vec![ALL[0], ALL[1]], "DT_SERVICE_ACCOUNT_EMAIL"),
            (vec![(FILE, "/f")], "DT_CREDENTIALS_FILE: /f: "),
            (
                vec![(FILE, "/f"), ("/f", r#"{"serviceAccount": {"keyId": "k", "secret": ["hunter2"]}}"#)],
                "line 1, column ",
            ),
            (
                vec![
                    ALL[0],
                    ALL[1],
                    ALL[2],
                    (API_URL, "http://u:hunter2@h/v2"),
                    (TOKEN_ENDPOINT, "https://t/"),
                ],
                "without a user name",
            ),
        ] {
            let error = shown(&ApiOptions::default(), &given);
            assert!(error.contains(words) && !error.contains("hunter2"), "{words}: {error}");
        }
    }
}
