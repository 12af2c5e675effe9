//! Secrets and names in a configuration. The file does not contain a secret: the key `env` names an environment variable, the key
//! `file` a file that contains it.

use std::fmt;
use std::path::{Path, PathBuf};

use super::section::Section;
use super::source::Sources;
use super::table::Key;
use dt_verify::Secret;

/// Where a secret is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// In the environment variable with this name.
    Env(String),
    /// In the file with this path.
    File(PathBuf),
}

/// The replacement for a name that is not shown, in error messages.
const NOT_SHOWN: &str = "(not shown: it may be the secret itself)";

/// Returns whether a text looks like the name of an environment variable, and not like a secret that was written there by
/// mistake: upper-case words joined by `_`, none longer than 16 characters, and none of more than 8 that mixes letters and
/// digits.
fn is_variable(text: &str) -> bool {
    let is_word = |word: &str| {
        let digits = word.bytes().filter(u8::is_ascii_digit).count();
        let is_plain = digits == 0 || digits == word.len() || word.len() <= 8;
        word.len() <= 16 && is_plain && word.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
    };
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_uppercase() || c == '_')
        && text.split('_').all(is_word)
}

/// Returns whether a path looks like the path of a file, and not like a secret that was written there by mistake: it begins with
/// `/`, `./` or `../`, or is a file name with an extension.
fn is_path(path: &Path) -> bool {
    let Some(text) = path.to_str() else { return false };
    let is_printable = !text.contains(|c: char| c.is_whitespace() || c.is_control());
    let is_rooted = ["/", "./", "../"].iter().any(|start| text.starts_with(start));
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let is_extension =
        |text: &str| (1..=8).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase());
    is_printable && (is_rooted || is_extension(extension))
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) if is_variable(name) => write!(f, "the environment variable {name}"),
            Self::Env(_) => write!(f, "the environment variable of that name {NOT_SHOWN}"),
            Self::File(path) if is_path(path) => write!(f, "{}", path.display()),
            Self::File(_) => write!(f, "the file of that name {NOT_SHOWN}"),
        }
    }
}

/// Why a secret cannot be read. The messages never contain the secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The environment variable is not set.
    #[error("{0} is not set")]
    NotSet(SecretSource),
    /// The environment variable or the file is empty.
    #[error("{0} is empty")]
    Empty(SecretSource),
    /// The file that should contain the secret cannot be read.
    #[error("{file}: {source}")]
    Unreadable {
        /// The file that should contain the secret.
        file: SecretSource,
        /// The error of the operating system.
        source: std::io::Error,
    },
}

/// Reads a secret from an environment variable (unchanged) or a file (without the line end that editors add). The second value is
/// a warning if the secret begins or ends with white space, and otherwise `None`.
///
/// # Errors
///
/// [`SecretError`] if the variable is not set, the file cannot be read, or the secret is empty.
pub fn read_secret(
    source: &SecretSource,
    sources: &dyn Sources,
) -> Result<(Secret, Option<String>), SecretError> {
    let bytes = match source {
        SecretSource::Env(name) => match sources.env(name) {
            Some(value) => value.into_encoded_bytes(),
            None => return Err(SecretError::NotSet(source.clone())),
        },
        SecretSource::File(path) => {
            let unreadable = |error| SecretError::Unreadable { file: source.clone(), source: error };
            let mut content = sources.file(path).map_err(unreadable)?;
            if content.last() == Some(&b'\n') {
                content.pop();
                if content.last() == Some(&b'\r') {
                    content.pop();
                }
            }
            content
        }
    };
    let odd = (bytes.trim_ascii().len() != bytes.len())
        .then(|| format!("the secret in {source} begins or ends with white space; is that meant?"));
    match Secret::new(bytes) {
        Ok(secret) => Ok((secret, odd)),
        Err(_) => Err(SecretError::Empty(source.clone())),
    }
}

/// Reads the key `env` or `file` of a table (see [`secret_keys`]), and the secret that it refers to. If this fails, an error is
/// reported. Then, and if [`Sources::reads_secrets`] is `false`, the result is a stand-in ([`stand_in`]).
pub fn read_source(section: &mut Section<'_>) -> Option<Secret> {
    let is_given = section.has("env") || section.has("file");
    let (env, file) = (section.private_string("env"), section.private_string("file"));
    let (key, source) = match (env, file) {
        (Some(name), None) => ("env", SecretSource::Env(name)),
        (None, Some(path)) => ("file", SecretSource::File(PathBuf::from(path))),
        (Some(_), Some(_)) => {
            section.complain("env", "both `env` and `file` are given; delete one");
            return stand_in(section);
        }
        (None, None) => {
            if !is_given {
                section.complain("env", "is missing; give `env = \"NAME\"` or `file = \"PATH\"`");
            }
            return stand_in(section);
        }
    };
    if !section.sources().reads_secrets() {
        return stand_in(section);
    }
    match read_secret(&source, section.sources()) {
        Ok((secret, odd)) => {
            if let Some(odd) = odd {
                section.warn(key, odd);
            }
            Some(secret)
        }
        Err(error) => {
            section.complain(key, error.to_string());
            stand_in(section)
        }
    }
}

/// Reads the required table at `key`, and the secret that it refers to. Returns `None`, after a report, if the table is absent or
/// the value is not a table.
pub fn needed_secret(section: &mut Section<'_>, key: &'static str) -> Option<Secret> {
    let secret = optional_secret(section, key);
    if secret.is_none() {
        section.missing(key, "is missing; give { env = \"NAME\" } or { file = \"PATH\" }");
    }
    secret
}

/// Reads the optional table at `key`, and the secret that it refers to. Returns `None` if the key is absent, or if its value is
/// not a table, which is reported.
pub fn optional_secret(section: &mut Section<'_>, key: &'static str) -> Option<Secret> {
    let mut source = section.secret_section(key)?;
    let secret = read_source(&mut source);
    source.finish();
    secret
}

/// Returns a text that takes the place of a secret that was not read, so that reading can continue. It contains the path of the
/// table, so it differs between tables, and is never used as a secret.
#[must_use]
pub fn stand_in(section: &Section<'_>) -> Option<Secret> {
    Secret::new(format!("not read: {}", section.path())).ok()
}

/// Returns the rows of the keys `env` and `file` of a table that [`read_source`] reads. `variable` and `path` are their values in
/// the sample.
#[must_use]
pub fn secret_keys(variable: &str, path: &str) -> Vec<Key> {
    let env = Key::new("env", "name of a variable", "The environment variable that holds it.");
    let file = Key::new("file", "path", "The file that holds it.");
    vec![env.sample(&format!("\"{variable}\"")), file.sample(&format!("\"{path}\"")).instead_of("env")]
}

/// Returns whether a text is valid as the name of a connector, a sink or a secret: 1 to 64 letters, digits, `-` and `_`. Names
/// are used in file names, metrics and logs.
#[must_use]
pub fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}
