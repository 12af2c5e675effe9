//! `--service-account` of `emulate`: the secret of the account is in an environment variable or a file.

use std::path::PathBuf;

use super::complain;
use dt_emulator::{Role, ServiceAccount};
use dt_server::config::{SecretError, SecretSource, Sources, read_secret};

/// Why the value of the option is not accepted. No message contains the value, which may be a secret.
#[derive(Debug, thiserror::Error)]
pub enum ServiceAccountError {
    #[error(
        "expected KEY:env=NAME:EMAIL[:ROLE] or KEY:file=PATH:EMAIL[:ROLE], with the key's secret in the environment \
         variable NAME or in the file PATH; a secret on the command line (KEY:SECRET:EMAIL) is rejected, since every \
         process of this machine can read it there"
    )]
    Malformed,
    #[error("expected the role project.user, project.developer, project.admin or organization.admin")]
    UnknownRole,
    #[error(transparent)]
    Secret(#[from] SecretError),
}

/// Reads a service account. The text says in which environment variable or file its secret is.
pub fn read(text: &str, from: &dyn Sources) -> Result<ServiceAccount, ServiceAccountError> {
    let mut parts = text.splitn(4, ':');
    let mut part = || parts.next().filter(|part| !part.is_empty()).ok_or(ServiceAccountError::Malformed);
    let (key_id, source, email) = (part()?, part()?, part()?);
    let source = match source.split_once('=') {
        Some(("env", name)) if !name.is_empty() => SecretSource::Env(name.to_owned()),
        Some(("file", path)) if !path.is_empty() => SecretSource::File(PathBuf::from(path)),
        _ => return Err(ServiceAccountError::Malformed),
    };
    let role = match parts.next() {
        None => Role::Developer,
        Some(role) => role.parse().map_err(|_| ServiceAccountError::UnknownRole)?,
    };
    let (secret, warning) = read_secret(&source, from)?;
    if let Some(warning) = warning {
        complain(&format!("warning: --service-account: {warning}"));
    }
    Ok(ServiceAccount::new(key_id, secret, email, role))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::io;
    use std::path::Path;

    use super::*;

    struct Given;

    impl Sources for Given {
        fn env(&self, name: &str) -> Option<OsString> {
            (name == "NAME").then(|| "of-env".into())
        }

        fn file(&self, path: &Path) -> io::Result<Vec<u8>> {
            if path == Path::new("PATH") {
                Ok(b"of-file\n".to_vec())
            } else {
                Err(io::ErrorKind::NotFound.into())
            }
        }
    }

    #[test]
    fn the_secret_is_read_from_the_named_source() {
        for (text, secret, role) in [
            ("k:env=NAME:e@x", "of-env", Role::Developer),
            ("k:file=PATH:e@x", "of-file", Role::Developer),
            ("k:env=NAME:e@x:project.user", "of-env", Role::User),
        ] {
            let account = read(text, &Given).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((&*account.key_id, &*account.email, account.role), ("k", "e@x", role), "{text}");
            assert_eq!(account.secret.expose(), secret.as_bytes(), "{text}");
        }
    }

    #[test]
    fn no_error_repeats_the_value() {
        for text in [
            "",
            "hunter2",
            "k:hunter2",
            "k:hunter2:e@x",
            "k:hunter2:e@x:project.user",
            "k:hun:ter2:e@x:project.user",
            "k:env=:hunter2",
            "k:env=NAME:e@x:hunter2",
            "k:secret=hunter2:e@x",
            "k:env=hunter2-hunter2:e@x",
            "k:file=hunter2-hunter2:e@x",
        ] {
            let error = read(text, &Given).expect_err(text).to_string();
            assert!(!error.contains("hunter2") && !error.contains("ter2"), "{text}: {error}");
        }
        assert!(
            read("k:env=OTHER:e@x", &Given)
                .is_err_and(|error| error.to_string().contains("OTHER is not set"))
        );
        assert!(
            read("k:file=/run/other:e@x", &Given)
                .is_err_and(|error| error.to_string().contains("/run/other: "))
        );
    }
}
