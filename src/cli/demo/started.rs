//! Finds the command that started the program, so that the suggested next steps work as printed.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// The facts about the start of this process.
#[derive(Debug, Default)]
struct Start {
    /// The first argument: the path of the program as typed, or as passed by `cargo run`.
    typed: Option<OsString>,
    /// The folder of the package, which `cargo run` sets; `None` without it.
    package: Option<PathBuf>,
    /// The current folder; `None` if it is not known.
    folder: Option<PathBuf>,
    /// The path of the executable file; `None` if it is not known.
    file: Option<PathBuf>,
}

/// Returns the command to write before a subcommand.
pub fn command() -> String {
    let is_ours = env::var_os("CARGO_PKG_NAME").is_some_and(|name| name == env!("CARGO_PKG_NAME"));
    Start {
        typed: env::args_os().next(),
        package: env::var_os("CARGO_MANIFEST_DIR").filter(|_| is_ours).map(PathBuf::from),
        folder: env::current_dir().ok(),
        file: env::current_exe().ok(),
    }
    .command()
}

impl Start {
    fn command(&self) -> String {
        self.cargo().or_else(|| self.program()).unwrap_or_else(|| env!("CARGO_PKG_NAME").to_owned())
    }

    /// Returns `cargo run` with the current profile; `None` outside of the package's folder, where it does not work.
    fn cargo(&self) -> Option<String> {
        let package = self.package.as_deref()?;
        let profile = self.file.as_deref()?.parent()?.file_name()?.to_str()?;
        if self.folder.as_deref() != Some(package) {
            return None;
        }
        Some(match profile {
            "debug" => "cargo run --".to_owned(),
            "release" => "cargo run --release --".to_owned(),
            other => format!("cargo run --profile {} --", quoted(other)),
        })
    }

    /// Returns the program as typed. After `cargo run`, this path may be relative to another folder, so the executable file is
    /// returned. `None` if none is known.
    fn program(&self) -> Option<String> {
        let typed = self.typed.as_deref().filter(|typed| self.package.is_none() && !typed.is_empty());
        typed.or_else(|| self.file.as_deref().map(Path::as_os_str)).and_then(OsStr::to_str).map(quoted)
    }
}

/// Returns a word, quoted for a shell if necessary.
fn quoted(word: &str) -> String {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "/._-+@%:,=".contains(char);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(typed: &str, package: Option<&str>, folder: &str, file: &str) -> String {
        Start {
            typed: Some(typed.into()),
            package: package.map(PathBuf::from),
            folder: Some(folder.into()),
            file: Some(file.into()),
        }
        .command()
    }

    #[test]
    fn the_command_is_the_one_that_was_typed() {
        let file = "/src/target/release/dt-receiver";
        for (typed, command) in [
            ("dt-receiver", "dt-receiver"),
            ("target/release/dt-receiver", "target/release/dt-receiver"),
            ("./dt-receiver", "./dt-receiver"),
            ("/opt/my tools/dt-receiver", "'/opt/my tools/dt-receiver'"),
            ("", file),
        ] {
            assert_eq!(start(typed, None, "/src", file), command);
        }
        assert_eq!(Start::default().command(), "dt-receiver");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }

    #[test]
    fn cargo_run_is_named_with_its_profile_where_it_works() {
        for (profile, command) in [
            ("debug", "cargo run --"),
            ("release", "cargo run --release --"),
            ("dist", "cargo run --profile dist --"),
        ] {
            let file = format!("/src/target/{profile}/dt-receiver");
            assert_eq!(start("target/x/dt-receiver", Some("/src"), "/src", &file), command);
            assert_eq!(start("../target/x/dt-receiver", Some("/src"), "/src/docs", &file), file);
        }
    }
}
