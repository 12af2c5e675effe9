//! What may not grow: memory, open files, and the spool.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::sender::count;

/// One look.
#[derive(Debug, Clone, Copy)]
struct Sample {
    /// Resident memory, in KiB.
    rss: u64,
    files: usize,
    /// Bytes of the spool that are in use.
    spool: u64,
    backlog: u64,
}

/// A process, looked at again and again.
pub(crate) struct Gauges {
    pid: u32,
    admin: SocketAddr,
    samples: Vec<Sample>,
}

impl Gauges {
    pub(crate) const fn new(pid: u32, admin: SocketAddr) -> Self {
        Self { pid, admin, samples: Vec::new() }
    }

    pub(crate) fn look(&mut self) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("it runs");
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("in every status");
        let rss = rss.split_whitespace().next().and_then(|text| text.parse().ok()).expect("a number");
        let files = fs::read_dir(format!("/proc/{}/fd", self.pid)).expect("it runs").count();
        let (spool, backlog) = (
            count(self.admin, "dt_receiver_spool_used_bytes", ""),
            count(self.admin, "dt_receiver_spool_sink_backlog_records", ""),
        );
        self.samples.push(Sample { rss, files, spool, backlog });
    }

    /// How many reloads took the new configuration, and how many kept the old one.
    pub(crate) fn reloads(&self) -> (u64, u64) {
        let name = "dt_receiver_config_reloads_total";
        let sum = |outcomes: &[&str]| -> u64 {
            outcomes.iter().map(|outcome| count(self.admin, name, &format!("outcome=\"{outcome}\""))).sum()
        };
        (sum(&["applied"]), sum(&["invalid", "needs_restart", "refused"]))
    }

    pub(crate) fn wait_until_drained(&mut self, patience: Duration) {
        let begun = Instant::now();
        loop {
            self.look();
            let left = self.samples.last().map_or(0, |sample| sample.backlog);
            if left == 0 {
                return;
            }
            assert!(begun.elapsed() < patience, "{left} records left");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The most of a part of the run.
    fn most(&self, part: std::ops::Range<usize>, of: impl Fn(&Sample) -> u64) -> u64 {
        self.samples.get(part).and_then(|samples| samples.iter().map(of).max()).unwrap_or(0)
    }

    /// The second quarter and the last one.
    fn early_and_late(&self, of: impl Fn(&Sample) -> u64) -> (u64, u64) {
        let count = self.samples.len();
        (self.most(count / 4..count / 2 + 1, &of), self.most(count * 3 / 4..count, &of))
    }

    /// After a quarter of the run nothing grows by more than what comes and goes.
    pub(crate) fn assert_flat(&self) {
        let rss = self.early_and_late(|sample| sample.rss);
        assert!(rss.1 <= rss.0 + rss.0 / 5 + 4096, "memory grows, KiB: {rss:?}");
        let files = self.early_and_late(|sample| sample.files.try_into().expect("few"));
        assert!(files.1 <= files.0 + 8, "open files: {files:?}");
        let spool = self.early_and_late(|sample| sample.spool);
        assert!(spool.1 <= spool.0 * 2 + (8 << 20), "the spool grows: {spool:?}");
    }
}

impl fmt::Display for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.samples.first().map_or(0, |sample| sample.rss);
        let (early, late) = self.early_and_late(|sample| sample.rss);
        write!(f, "RSS {first} KiB at first, most {early} in the second quarter, {late} in the last; ")?;
        let (early, late) = self.early_and_late(|sample| sample.files.try_into().unwrap_or(0));
        write!(f, "open files {early}, {late}; ")?;
        let (early, late) = self.early_and_late(|sample| sample.spool);
        write!(f, "spool {early}, {late} bytes; ")?;
        write!(f, "longest backlog {}", self.most(0..self.samples.len(), |sample| sample.backlog))
    }
}
