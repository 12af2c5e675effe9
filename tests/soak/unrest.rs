//! An operator who changes the configuration and the certificate all the time.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::authority::{Authority, Pair};
use crate::common;

/// The folder of a receiver.
pub(crate) struct Place {
    folder: TempDir,
    pub(crate) config: PathBuf,
    /// The file of the sink.
    pub(crate) file: PathBuf,
}

impl Place {
    pub(crate) fn new(authority: &Authority) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (config, file) = (folder.path().join("dt-receiver.toml"), folder.path().join("events.ndjson"));
        let place = Self { folder, config, file };
        place.replace_certificate(authority);
        place.change(0);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes another configuration: more secrets, more connectors, a changed sink, other limits.
    pub(crate) fn change(&self, count: u64) {
        let folder = self.folder.path().display();
        let secret = common::SECRET_VARIABLE;
        let more_secrets =
            if count.is_multiple_of(2) { "" } else { ", { label = 'old', file = '{folder}/old-secret' }" };
        let more_secrets = more_secrets.replace("{folder}", &folder.to_string());
        fs::write(self.path("old-secret"), format!("old-{count}")).expect("written");
        let mut text = format!(
            "data = '{folder}/data'\n\
             [tls]\ncertificate = '{folder}/tls/certificate.pem'\nkey = '{folder}/tls/key.pem'\ncheck_interval = '300ms'\n\
             [[connector]]\nname = 'default'\npath = '/'\nsecrets = [{{ label = 'now', env = '{secret}' }}{more_secrets}]\n\
             [[sink]]\nname = 'file'\ntype = 'file'\nformat = 'body'\npath = '{}'\n",
            self.file.display(),
        );
        if count % 3 == 1 {
            text += &format!(
                "[[connector]]\nname = 'other'\npath = '/other'\nsecrets = [{{ env = '{secret}' }}]\n"
            );
        }
        if count % 4 >= 2 {
            // The sink is made anew for that.
            text = text.replace("format = 'body'", "format = 'body'\nrotate_size = '8GiB'");
        }
        if count % 5 == 4 {
            text += "[limits]\nkeep_alive_idle = '60s'\n";
        }
        put(&self.config, &text);
    }

    /// A new certificate with a new key, the way Kubernetes puts them there: a folder that takes the place of the old one.
    pub(crate) fn replace_certificate(&self, authority: &Authority) {
        let (link, next) = (self.path("tls"), self.path("tls-next"));
        let old = fs::read_link(&link).ok();
        let number =
            old.as_deref().and_then(|old| old.file_name()?.to_str()?.parse::<u64>().ok()).unwrap_or(0);
        let folder = self.path(&(number + 1).to_string());
        let Pair { certificate, key, .. } = authority.good(number + 1);
        fs::create_dir(&folder).expect("made");
        fs::write(folder.join("certificate.pem"), certificate).expect("written");
        fs::write(folder.join("key.pem"), key).expect("written");
        std::os::unix::fs::symlink(&folder, &next).expect("linked");
        fs::rename(&next, &link).expect("swapped");
        if let Some(old) = old {
            fs::remove_dir_all(old).expect("removed");
        }
    }
}

/// Writes a file at once: nobody reads half of it.
fn put(path: &Path, text: &str) {
    let next = path.with_extension("next");
    fs::write(&next, text).expect("written");
    fs::rename(&next, path).expect("renamed");
}
