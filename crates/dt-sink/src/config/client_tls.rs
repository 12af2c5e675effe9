//! The table `tls` of a sink: the certificate authorities that the sink trusts, and the client certificate that it presents.

use std::path::PathBuf;

use super::changes::Changes;
use super::entry::{Entry, OptionalEntry};
use super::secret::stand_in;
use super::section::Section;
use super::source::Sources;
use super::table::{Key, KeyDefault, Table};
use super::table_entry::note_table;
use dt_verify::Secret;

/// A PEM file, as it was read. The content is never shown, since it may be a private key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PemFile {
    /// The path of the file.
    pub path: PathBuf,
    /// The content of the file. A reload compares it, so that a renewed file under the same name is detected.
    pub content: Secret,
}

/// The TLS settings for connections to a server. The certificate chain and the host name of the server are always verified.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ClientTls {
    /// The trusted certificate authorities; `None` for the default ones of the sink's type.
    pub ca: Option<PemFile>,
    /// The client certificate and its private key; `None` if the sink presents no certificate.
    pub client: Option<(PemFile, PemFile)>,
}

impl PemFile {
    /// Creates a `PemFile` from a path and the content that was read from it.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, content: Secret) -> Self {
        Self { path: path.into(), content }
    }

    /// Reads a file.
    ///
    /// # Errors
    ///
    /// A message with the path, if the file cannot be read or is empty.
    pub fn read(path: impl Into<PathBuf>, sources: &dyn Sources) -> Result<Self, String> {
        let path = path.into();
        let content = sources.file(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let content = Secret::new(content).map_err(|_| format!("{}: the file is empty", path.display()))?;
        Ok(Self { path, content })
    }
}

impl ClientTls {
    /// Creates settings that trust these certificate authorities. `None` selects the default ones.
    #[must_use]
    pub fn new(ca: Option<PemFile>) -> Self {
        Self { ca, client: None }
    }

    /// Sets the client certificate that is presented to the server, and its private key.
    #[must_use]
    pub fn with_client(mut self, certificate: PemFile, key: PemFile) -> Self {
        self.client = Some((certificate, key));
        self
    }
}

/// The error for a file of a table `tls` that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("tls.{key}: {error}")]
#[non_exhaustive]
pub struct BadTlsFile {
    /// The key that names the file: `ca`, `certificate` or `key`.
    pub key: &'static str,
    /// Why the file cannot be used.
    pub error: String,
}

impl BadTlsFile {
    /// Creates the error. `error` says why the file at `key` cannot be used.
    pub fn new(key: &'static str, error: impl Into<String>) -> Self {
        Self { key, error: error.into() }
    }
}

/// The entry of a table `tls`, with the texts that differ between the types of sinks.
#[derive(Clone, Copy)]
pub struct TlsEntry {
    /// The certificate that the key `ca` verifies, for the reference, such as `the broker's certificate`.
    pub certificate: &'static str,
    /// The certificate authorities that are trusted if `ca` is not given, in words for the reference.
    pub default_ca: &'static str,
    /// The prefix of the file names in the sample.
    pub sample: &'static str,
    /// Checks whether the files can be used, by their content.
    pub check: fn(&ClientTls) -> Result<(), BadTlsFile>,
}

impl TlsEntry {
    /// Returns the rows of the keys `ca`, `certificate` and `key`, for the reference.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        let row = |name, meaning: &str, file: &str| {
            let sample = format!("\"/etc/dt-receiver/{}{file}\"", self.sample);
            Key::new(name, "path", meaning).sample(&sample)
        };
        let authorities = format!("The certificate authorities of {} (PEM).", self.certificate);
        vec![
            row("ca", &authorities, "-ca.pem").or(KeyDefault::Words(self.default_ca)),
            row("certificate", "The client certificate (PEM), with `key`.", ".pem"),
            row("key", "The private key of the client certificate (PEM).", ".key"),
        ]
    }

    /// Reads the keys of a table, and the files that they name. Returns `None` after it reported an invalid key or file: without
    /// these settings the sink would trust other authorities, or connect in plain text.
    pub fn read_files(&self, section: &mut Section<'_>) -> Option<ClientTls> {
        let [ca, certificate, key] = ["ca", "certificate", "key"].map(|key| read_file(section, key));
        let missing = match (&certificate, &key) {
            (Ok(Some(_)), Ok(None)) => Some("key"),
            (Ok(None), Ok(Some(_))) => Some("certificate"),
            _ => None,
        };
        if let Some(missing) = missing {
            section.complain(missing, "is missing; a client certificate needs both `certificate` and `key`");
            return None;
        }
        let tls = ClientTls { ca: ca.ok()?, client: certificate.ok()?.zip(key.ok()?) };
        // During a reload the pair of files may be half replaced; the new sink reports it then, and the old one stays in use.
        let sources = section.sources();
        if sources.reads_secrets()
            && sources.looks_at_certificates()
            && let Err(BadTlsFile { key, error }) = (self.check)(&tls)
        {
            section.complain(key, error);
            return None;
        }
        Some(tls)
    }
}

/// Reads the path at `key`, and the content of the file. Returns `None` if the key is absent, and `Err` after it reported a
/// problem.
fn read_file(section: &mut Section<'_>, key: &'static str) -> Result<Option<PemFile>, ()> {
    let is_given = section.has(key);
    let Some(path) = section.string(key) else { return if is_given { Err(()) } else { Ok(None) } };
    let sources = section.sources();
    let file = if sources.reads_secrets() {
        PemFile::read(path, sources).map_err(|error| section.complain(key, error))?
    } else {
        PemFile::new(path, stand_in(section).ok_or(())?)
    };
    Ok(Some(file))
}

impl Entry<Option<ClientTls>> for TlsEntry {
    fn read(self, field: &'static str, section: &mut Section<'_>) -> Option<Option<ClientTls>> {
        let Some(mut inner) = section.section(field) else {
            // A value that is no table was reported.
            return (!section.has_errors_at(field)).then_some(None);
        };
        let tls = self.read_files(&mut inner);
        inner.finish();
        tls.map(Some)
    }

    fn compare(
        self,
        field: &'static str,
        values: (&Option<ClientTls>, &Option<ClientTls>),
        changes: &mut Changes,
    ) {
        note_table(field, values, changes);
    }

    fn rows(self, _: &'static str, _: &str) -> Vec<Key> {
        Vec::new()
    }

    fn tables(self, field: &'static str, meaning: &str) -> Vec<Table> {
        vec![Table::new(format!("[{field}]"), meaning, self.keys())]
    }
}

impl OptionalEntry<Option<ClientTls>> for TlsEntry {
    fn default(self) -> Option<ClientTls> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Problem, Problems};
    use std::path::Path;

    const ENTRY: TlsEntry = TlsEntry {
        certificate: "the broker's certificate",
        default_ca: "those of Mozilla",
        sample: "mqtt",
        check: |tls| match &tls.ca {
            Some(ca) if ca.content.expose() == b"bad" => Err(BadTlsFile::new("ca", "is bad")),
            _ => Ok(()),
        },
    };

    /// Returns this content for every file but `/none`.
    struct Holding(&'static str);

    impl Sources for Holding {
        fn env(&self, _: &str) -> Option<std::ffi::OsString> {
            None
        }

        fn file(&self, path: &Path) -> std::io::Result<Vec<u8>> {
            if path == Path::new("/none") {
                return Err(std::io::ErrorKind::NotFound.into());
            }
            Ok(self.0.as_bytes().to_owned())
        }
    }

    fn read(text: &str, content: &'static str) -> (Option<Option<ClientTls>>, Vec<Problem>) {
        let problems = Problems::default();
        let sources = Holding(content);
        let mut root = Section::root(text.parse().expect("TOML"), &problems, &sources);
        let tls = Entry::read(ENTRY, "tls", &mut root);
        (tls, problems.into_parts().0)
    }

    #[test]
    fn each_file_that_cannot_be_used_is_an_error_at_its_key() {
        for (text, content, wrong) in [
            ("tls = true", "good", "tls"),
            ("tls = { ca = 1 }", "good", "tls.ca"),
            ("tls = { ca = '/none' }", "good", "tls.ca"),
            ("tls = { ca = '/ca' }", "", "tls.ca"),
            ("tls = { ca = '/ca' }", "bad", "tls.ca"),
            ("tls = { certificate = '/c' }", "good", "tls.key"),
            ("tls = { key = '/k' }", "good", "tls.certificate"),
            ("tls = { certificate = '/c', key = '/none' }", "good", "tls.key"),
        ] {
            let (tls, errors) = read(text, content);
            assert_eq!(tls, None, "{text}");
            let keys: Vec<_> = errors.iter().map(|error| &*error.key).collect();
            assert_eq!(keys, [wrong], "{text}");
        }
    }

    #[test]
    fn a_renewed_file_under_the_same_name_changes_the_settings_and_is_not_shown() {
        let text = "tls = { ca = '/ca', certificate = '/c', key = '/k' }";
        let [old, renewed] = ["old", "renewed"].map(|content| read(text, content).0.flatten());
        assert_eq!(old, read(text, "old").0.flatten());
        assert_ne!(old, renewed);
        assert!(!format!("{renewed:?}").contains("renewed"), "{renewed:?}");
    }

    #[test]
    fn no_table_means_no_tls_and_an_empty_one_the_default_authorities() {
        assert_eq!(read("", "good").0, Some(None));
        assert_eq!(read("[tls]", "good").0, Some(Some(ClientTls::default())));
    }
}
