//! Calls the program, each time in a folder and an environment of its own.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use dt_receiver::verify::{Secret, Signer};
use serde_json::Value;
use tempfile::TempDir;

/// The secret of every test that does not bring its own.
pub(crate) const SECRET: &str = "test-only-3cR8uLw0pZ";

/// When every token of a test is issued, unless the test is about time.
pub(crate) const ISSUED: i64 = 1_736_000_000;

/// A body as DT sends it, with a number and letters that a parser would spell in another way.
pub(crate) const BODY: &str = r#"{"event":{"eventId":"c82gg9catj3vmh4248og","targetName":"projects/c0md3mm0c7pet3vico8g/devices/emuc1ul5qf2ghkeoq4nj7d0","eventType":"temperature","data":{"temperature":{"value":21.50,"samples":[{"value":21.50,"sampleTime":"2025-01-04T14:13:20.000000Z"}],"isBackfilled":false,"updateTime":"2025-01-04T14:13:20.000000Z"}},"timestamp":"2025-01-04T14:13:20.000000Z"},"labels":{"name":"Møterom 3, \"nord\""},"metadata":{"deviceId":"emuc1ul5qf2ghkeoq4nj7d0","projectId":"c0md3mm0c7pet3vico8g","deviceType":"temperature","productNumber":""}}"#;

/// The key that signs in asymmetric tests, and its set.
pub(crate) const KID: &str = "test-es256-1";
pub(crate) const ORGANIZATION: &str = "c0ngtest0rg0vd5c9a1g";

/// What the program gave back.
pub(crate) struct Outcome {
    pub(crate) exit: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}{}", self.stdout, self.stderr))
    }
}

/// A folder to call the program in.
pub(crate) struct Program {
    folder: TempDir,
    env: Vec<(String, Vec<u8>)>,
}

impl Program {
    /// With the usual secret in the usual variable.
    pub(crate) fn new() -> Self {
        Self::without_secret().env("DT_SIGNATURE_SECRET", SECRET)
    }

    pub(crate) fn without_secret() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), env: Vec::new() }
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// Writes a file, and gives its path.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the public key set of the asymmetric tests.
    pub(crate) fn key_set(&self) -> String {
        let vectors: Value = serde_json::from_str(include_str!("../../vectors/verify.json")).unwrap();
        self.file("jwks.json", vectors["verifiers"]["asym"]["key_set"].to_string())
    }

    /// Writes the private key of the asymmetric tests.
    pub(crate) fn private_key(&self) -> String {
        self.file("key.pem", include_str!("../../vectors/keys/test-only-es256.pem"))
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Outcome {
        self.run_with(arguments, b"")
    }

    pub(crate) fn run_with(&self, arguments: &[&str], stdin: &[u8]) -> Outcome {
        use std::os::unix::ffi::OsStrExt;
        let variables = self.env.iter().map(|(name, value)| (name, std::ffi::OsStr::from_bytes(value)));
        let mut child = Command::new(env!("CARGO_BIN_EXE_dt-receiver"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .envs(variables)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Whoever ends because of wrong usage does not read.
        let _read = child.stdin.take().unwrap().write_all(stdin);
        let output = child.wait_with_output().unwrap();
        Outcome {
            exit: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// The token for a body, with the usual secret and time.
pub(crate) fn sign(body: impl AsRef<[u8]>) -> String {
    sign_with(SECRET, body)
}

pub(crate) fn sign_with(secret: impl AsRef<[u8]>, body: impl AsRef<[u8]>) -> String {
    let signer = Signer::secret(Secret::new(secret.as_ref()).unwrap());
    signer.sign(body.as_ref(), ISSUED, "cto3k00h4vq2o1t5g7a0").unwrap()
}
