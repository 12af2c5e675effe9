//! Python with DT's own packages. `.ci/run` makes a virtual environment and names its Python in
//! `DT_RECEIVER_TEST_PYTHON`; without it, a test says in one line what it leaves out.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use dt_receiver::emulator::Emulator;

/// A script of `tests/interop`.
pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(name)
}

/// The Python that has the packages, if there is one.
pub(crate) fn python() -> Option<String> {
    match std::env::var("DT_RECEIVER_TEST_PYTHON") {
        Ok(python) => Some(python),
        Err(_) => {
            let required = std::env::var_os("DT_RECEIVER_TEST_REQUIRE_TOOLS").is_some();
            assert!(!required, "DT_RECEIVER_TEST_PYTHON is not set, but the tools are required");
            // Not a print macro: this line is to be seen although the test passes.
            let line = "tests/emulator leaves out DT's own packages: DT_RECEIVER_TEST_PYTHON is not set\n";
            let _said = std::io::stderr().write_all(line.as_bytes());
            None
        }
    }
}

/// Runs a script against an emulator, with arguments, to its end; it has to end well.
pub(crate) async fn run(python: String, name: &str, emulator: &Emulator, arguments: &[&str]) -> String {
    let mut command = Command::new(python);
    command.arg(script(name)).args(arguments);
    command.env("EMULATOR_URL", emulator.url());
    for variable in ["DT_CREDENTIALS_FILE", "DT_SERVICE_ACCOUNT_KEY_ID", "http_proxy", "HTTP_PROXY"] {
        command.env_remove(variable);
    }
    command.env("NO_PROXY", "127.0.0.1");
    let output =
        tokio::task::spawn_blocking(move || command.output()).await.expect("it runs").expect("Python starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name}: {}\n{stdout}\n{stderr}", output.status);
    stdout.into_owned()
}
