//! Where a recording lives, what its files are called, and what is going on when one of them is touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A time of the program's life in which the power can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// From its start until it listens.
    Open,
    /// The same after a power loss.
    Repair,
    /// A segment of the log is begun.
    Roll,
    /// A segment is recycled or removed, or the spare one is prepared.
    Recycle,
    /// The file sink closes a file or makes one.
    Rotation,
    Compression,
    /// A database writes.
    Database,
    /// An answer 200 leaves.
    Answer,
    /// Anything else.
    Steady,
}

/// The phases that every test must have points in.
pub(crate) const PHASES: [Phase; 8] = [
    Phase::Open,
    Phase::Repair,
    Phase::Roll,
    Phase::Recycle,
    Phase::Rotation,
    Phase::Compression,
    Phase::Database,
    Phase::Answer,
];

/// What a file is, by how its name begins or ends. The first that fits counts.
struct Kind {
    begins: &'static str,
    ends: &'static str,
    phase: Phase,
    /// Whether writing and syncing it is that phase as well, not only making, renaming and removing it.
    writes: bool,
}

const KINDS: &[Kind] = &[
    Kind { begins: "segment-", ends: "", phase: Phase::Roll, writes: false },
    Kind { begins: "spare-", ends: "", phase: Phase::Recycle, writes: true },
    Kind { begins: "dead.db", ends: "", phase: Phase::Database, writes: true },
    Kind { begins: "ids.db", ends: "", phase: Phase::Database, writes: true },
    // The first edition's.
    Kind { begins: "spool.db", ends: "", phase: Phase::Database, writes: true },
    Kind { begins: "spool.journal", ends: "", phase: Phase::Roll, writes: false },
    // The file sink's.
    Kind { begins: "", ends: ".tmp", phase: Phase::Compression, writes: true },
    Kind { begins: "", ends: ".gz", phase: Phase::Compression, writes: true },
    Kind { begins: "", ends: ".zst", phase: Phase::Compression, writes: true },
    Kind { begins: "", ends: ".ndjson", phase: Phase::Rotation, writes: false },
];

/// The phase in which something is done to a file. `is_removed`: its name is taken away, or given to another use.
pub(crate) fn phase_of(path: &Path, is_write: bool, is_removed: bool) -> Phase {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let kind = KINDS.iter().find(|kind| name.starts_with(kind.begins) && name.ends_with(kind.ends));
    match kind {
        Some(kind) if is_write && !kind.writes => Phase::Steady,
        Some(kind) if is_removed && kind.phase == Phase::Roll => Phase::Recycle,
        Some(kind) => kind.phase,
        None => Phase::Steady,
    }
}

/// Whether a file is rebuilt by its owner whatever is in it, and written past the system calls: SQLite's shared memory.
pub(crate) fn is_volatile(path: &Path) -> bool {
    path.to_string_lossy().ends_with("-shm")
}

/// Whether it is a Unix socket.
pub(crate) fn is_socket(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "sock")
}

/// The folder of a lane. What can lose power lies below `disk`.
pub(crate) struct Place {
    pub(crate) disk: PathBuf,
    pub(crate) config: PathBuf,
    pub(crate) out: PathBuf,
    traces: PathBuf,
}

impl Place {
    pub(crate) fn new(folder: &Path) -> Self {
        let disk = folder.join("disk");
        fs::create_dir(&disk).expect("made");
        let (config, out) = (folder.join("dt-receiver.toml"), disk.join("out"));
        let text = format!(
            "listen = '127.0.0.1:0'\nadmin = '127.0.0.1:0'\ndata = '{}'\ndrain_timeout = '60s'\n\
             [[connector]]\nname = 'default'\nsecrets = [{{ env = 'DT_SIGNATURE_SECRET' }}]\n\
             [[sink]]\nname = 'file'\ntype = 'file'\nformat = 'body'\npath = '{}/{{project}}.ndjson'\n\
             rotate_size = '1MiB'\ncompress = 'gzip'\n",
            disk.join("data").display(),
            out.display(),
        );
        fs::write(&config, text).expect("written");
        Self { disk, config, out, traces: folder.join("trace") }
    }

    /// Puts an empty disk under the place's path.
    pub(crate) fn mount(&self) {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&self.disk).status();
        assert!(mounted.expect("mount runs").success(), "no tmpfs at {}", self.disk.display());
    }

    pub(crate) fn unmount(&self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.disk).status();
        assert!(unmounted.expect("umount runs").success(), "{} stays mounted", self.disk.display());
    }

    pub(crate) fn trace(&self, life: usize) -> PathBuf {
        self.traces.with_extension(format!("{life}.txt"))
    }

    /// The program with arguments of its own and this place's configuration.
    pub(crate) fn program(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dt-receiver"));
        self.configure(&mut command, arguments);
        command
    }

    /// `serve`, recorded. The tracer is the grandchild, so that the child is the program.
    pub(crate) fn recorded(&self, life: usize) -> Command {
        let mut command = Command::new("strace");
        command.args(["-D", "-f", "-y", "--seccomp-bpf", "-s", "4000000", "-e", "abbrev=!statx"]);
        command.args(["-e", crate::syscalls::TRACED]);
        command.arg("-o").arg(self.trace(life)).arg("--").arg(env!("CARGO_BIN_EXE_dt-receiver"));
        self.configure(&mut command, &["serve"]);
        command
    }

    fn configure(&self, command: &mut Command, arguments: &[&str]) {
        command.args(arguments).arg("--config").arg(&self.config);
        command.env("DT_SIGNATURE_SECRET", crate::events::SECRET).env_remove("RUST_LOG");
    }
}

#[test]
fn phases_are_known_by_the_files() {
    let phase = |name: &str, is_write, is_removed| phase_of(Path::new(name), is_write, is_removed);
    assert_eq!(phase("/d/segment-0000000001.log", false, false), Phase::Roll);
    assert_eq!(phase("/d/segment-0000000001.log", false, true), Phase::Recycle);
    assert_eq!(phase("/d/segment-0000000001.log", true, false), Phase::Steady);
    assert_eq!(phase("/d/spare-1.tmp", true, false), Phase::Recycle);
    assert_eq!(phase("/d/ids.db-wal", true, false), Phase::Database);
    assert_eq!(phase("/o/p0.ndjson", false, true), Phase::Rotation);
    assert_eq!(phase("/o/p0.20260101T000000Z-0000.ndjson.gz.tmp", true, false), Phase::Compression);
}
