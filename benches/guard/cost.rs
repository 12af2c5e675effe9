//! Runs a path under callgrind, and reads what it counted.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::RUN;
use crate::paths::GuardedPath;

/// The functions that hash, of sha1, sha2 and aws-lc; those that call them once a block are not among them.
const HASHING: [&str; 3] = ["sha1::compress", "sha2::sha256", "_sha256_block_data_order"];

/// By itself glibc chooses its copies and comparisons by the machine, and the figures would be 4 % apart. What its allocator
/// costs depends on how the threads' allocations happened to mix: `drain` was 23 % apart. It does not with a cache for each
/// thread that nothing overflows.
const PLAIN_GLIBC: &str = "glibc.cpu.hwcaps=-AVX2_Usable,-AVX_Fast_Unaligned_Load,-ERMS:\
                           glibc.malloc.tcache_count=4096:glibc.malloc.mxfast=0";

/// What a process executed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// Instructions in functions that hash.
    hashing: u64,
    /// All others.
    rest: u64,
}

impl Cost {
    pub(crate) fn less(self, other: Self) -> Self {
        Self {
            hashing: self.hashing.saturating_sub(other.hashing),
            rest: self.rest.saturating_sub(other.rest),
        }
    }

    /// With their names.
    pub(crate) const fn parts(self) -> [(&'static str, u64); 2] {
        [("code", self.rest), ("sha", self.hashing)]
    }

    /// Reads a file of callgrind: the format is in valgrind's manual, "Callgrind Format Specification".
    fn read(profile: &str) -> Self {
        let (mut cost, mut hashing, mut is_hashing, mut is_call) =
            (Self::default(), Vec::new(), false, false);
        for line in profile.lines() {
            if let Some((kind @ ("fn" | "cfn"), function)) = line.split_once('=') {
                // `(id) name` where it comes first, here or as the function that is called; `(id)` from then on.
                let id = function.split(' ').next().unwrap_or_default();
                if HASHING.iter().any(|name| function.contains(name)) {
                    hashing.push(id.to_owned());
                }
                if kind == "fn" {
                    is_hashing = hashing.iter().any(|known| known == id);
                }
            } else if line.starts_with("calls=") {
                is_call = true;
            } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
                let instructions = line.split(' ').nth(1).and_then(|count| count.parse::<u64>().ok());
                // The line after a call is what the called function cost, which has lines of its own.
                if !std::mem::take(&mut is_call) {
                    *if is_hashing { &mut cost.hashing } else { &mut cost.rest } += instructions.unwrap_or(0);
                }
            }
        }
        let total = profile.lines().find_map(|line| line.strip_prefix("totals: ")).expect("a total");
        assert_eq!(
            total.trim(),
            (cost.hashing + cost.rest).to_string(),
            "a part of the profile was not read"
        );
        cost
    }
}

/// Where the profile of a path's last run is.
pub(crate) fn profile(path: &str) -> PathBuf {
    folder().join(format!("{path}.callgrind"))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("guard")
}

/// What a process costs that does so many events of a path.
pub(crate) fn measure(path: &GuardedPath, count: usize) -> Cost {
    std::fs::create_dir_all(folder()).expect("a folder");
    let data = tempfile::tempdir_in(folder()).expect("a folder");
    (path.prepare)(data.path());
    let profile = profile(path.name);
    let mut out = OsString::from("--callgrind-out-file=");
    out.push(&profile);
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(out)
        .arg(std::env::current_exe().expect("this program"))
        .args([RUN, path.name, &count.to_string()])
        .arg(data.path())
        // Nothing that is set here shows in the figures, and glibc copies and compares as it does on any x86-64.
        .env_clear()
        .env("GLIBC_TUNABLES", PLAIN_GLIBC)
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .output()
        .unwrap_or_else(|error| panic!("valgrind: {error}; it is in Debian's package valgrind"));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} failed under valgrind:\n{text}", path.name);
    Cost::read(
        &std::fs::read_to_string(&profile).unwrap_or_else(|error| panic!("{}: {error}", profile.display())),
    )
}
