//! `--service-account` of `emulate`: the account is on the command line, its secret in an environment variable or a file.

use std::path::PathBuf;

use super::complain;
use dt_emulator::{Role, ServiceAccount};
use dt_server::config::{SecretSource, Sources, read_secret};

/// What the option expects. It never repeats what was given, which may be a secret.
const EXPECTED: &str = "expected KEY:env=NAME:EMAIL[:ROLE] or KEY:file=PATH:EMAIL[:ROLE], with the key's secret in the \
                        environment variable NAME or in the file PATH; a secret on the command line (KEY:SECRET:EMAIL) is \
                        refused, since every process of this machine can read it there";

/// What a role has to be, which does not repeat what was given either.
const EXPECTED_ROLE: &str =
    "expected the role project.user, project.developer, project.admin or organization.admin";

/// Reads a service account, and its secret from where the text says; an error is in words.
pub(super) fn read(text: &str, from: &dyn Sources) -> Result<ServiceAccount, String> {
    let mut parts = text.splitn(4, ':');
    let mut part = || parts.next().filter(|part| !part.is_empty()).ok_or(EXPECTED);
    let (key_id, source, email) = (part()?, part()?, part()?);
    let source = match source.split_once('=') {
        Some(("env", name)) if !name.is_empty() => SecretSource::Env(name.to_owned()),
        Some(("file", path)) if !path.is_empty() => SecretSource::File(PathBuf::from(path)),
        _ => return Err(EXPECTED.to_owned()),
    };
    let role = match parts.next() {
        None => Role::Developer,
        Some(role) => role.parse().map_err(|_| EXPECTED_ROLE)?,
    };
    let (secret, odd) = read_secret(&source, from).map_err(|error| error.to_string())?;
    if let Some(odd) = odd {
        complain(&format!("warning: --service-account: {odd}"));
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
    fn the_secret_is_read_from_where_the_text_says() {
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
    fn no_error_repeats_what_may_be_a_secret() {
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
            let error = read(text, &Given).expect_err(text);
            assert!(!error.contains("hunter2") && !error.contains("ter2"), "{text}: {error}");
        }
        assert!(read("k:env=OTHER:e@x", &Given).is_err_and(|error| error.contains("OTHER is not set")));
        assert!(read("k:file=/run/other:e@x", &Given).is_err_and(|error| error.contains("/run/other: ")));
    }
}
