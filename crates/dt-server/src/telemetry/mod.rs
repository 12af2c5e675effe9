//! The logs and metrics of the service. Each internal event is a struct (`internal_events`), which writes its log line and
//! updates its metrics when it is emitted. The table of metrics is in `table.rs`. Each service has its own registry: two services
//! in one process share no counters.

mod connectors;
mod internal_events;
mod log_budget;
mod page;
mod registry;
mod sinks;
mod table;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use connectors::{Answers, ConnectorSeries};
use http::StatusCode;
pub use internal_events::{
    AcceptFailed, CertificateActivated, CertificateRefused, ClockJumped, ClockSkewCleared,
    ClockSkewSuspected, CloudProblemEnded, CloudProblemFound, ConfigChanged, ConfigRefused, ConfigReloaded,
    ConnectionEvicted, ConnectionRefused, ConnectionRefusedReason, ConnectorDisabled, ConnectorEnabled,
    DeadLetterFailed, DeadLetterStored, HandshakeFailed, InternalEvent, KeysFailed, KeysFetched,
    OtherSchemeFailed, ProxyHeaderRefused, RequestAnswered, SinkFailed, SinkRecovered, StreamBroken,
    StreamEventRefused, StreamNotStored, StreamOpened, WindowClosed, WindowOpened,
};
use log_budget::{LogBudget, LogBudgets};
pub use page::metrics_markdown;
use parking_lot::RwLock;
use registry::Families;
pub use table::METRICS;
use table::Metrics;

use dt_sink::clock::Clock;
use dt_sink::record::Reason;

/// The metrics and the log budgets of one service.
pub struct Telemetry {
    pub(crate) metrics: Metrics,
    families: Families,
    /// The names of the registered connectors.
    connectors: RwLock<HashSet<String>>,
    budgets: LogBudgets,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").field("connectors", &self.connectors).finish_non_exhaustive()
    }
}

impl Telemetry {
    /// Creates the metrics, all with value 0. The configuration counts as read at this time.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let families = Families::new();
        let metrics = Metrics::register(&families);
        metrics.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        for reason in Reason::CODES {
            metrics.dead_letters.with_label_values(&[reason]);
        }
        for reason in ConnectionRefusedReason::ALL {
            metrics.connections_refused.with_label_values(&[reason.code()]);
        }
        let (connectors, budgets) = (RwLock::default(), LogBudgets::new());
        let telemetry = Self { metrics, families, connectors, budgets, clock };
        internal_events::register_config_outcomes(&telemetry);
        telemetry
    }

    /// Writes the log line of an internal event, and updates its metrics.
    pub fn emit(&self, event: &impl InternalEvent) {
        event.emit(self);
    }

    /// Requests the permission to write a log line. Returns `None` if the line must be suppressed; otherwise the number of lines
    /// that were suppressed before it, or `Some(None)` if there were none.
    fn may_log(&self, budget: &LogBudget) -> Option<Option<u64>> {
        let suppressed = budget.take(self.clock.unix_millis());
        if suppressed.is_none() {
            self.metrics.log_suppressed.inc();
        }
        suppressed.map(|lines| (lines > 0).then_some(lines))
    }

    /// Logs the number of lines that were suppressed since the last line of their kind. Call this at an interval: the next line
    /// of that kind, which would report them, may never be written.
    pub fn report_suppressed_lines(&self) {
        for (about, budget) in self.budgets.all() {
            let suppressed = budget.take_suppressed();
            if suppressed > 0 {
                tracing::warn!(about, suppressed, "log lines were suppressed");
            }
        }
    }

    /// Reports when each issuer last returned its key set, in Unix seconds. The series of issuers that are not in `fetched_at`
    /// are removed.
    pub fn key_sets<'a>(&self, fetched_at: impl Iterator<Item = (&'a str, i64)>) {
        self.metrics.keys_fetched_at.reset();
        for (issuer, at) in fetched_at {
            self.metrics.keys_fetched_at.with_label_values(&[issuer]).set(at);
        }
    }

    /// Removes the series of projects and Data Connectors that were watched. The next check shows those that still are.
    pub(crate) fn forget_cloud(&self) {
        let metrics = &self.metrics;
        metrics.cloud_up.reset();
        metrics.cloud_checked.reset();
        metrics.cloud_status.reset();
        metrics.cloud_successes.reset();
        metrics.cloud_errors.reset();
        metrics.cloud_latency.reset();
        metrics.cloud_last_success.reset();
        metrics.cloud_disable_left.reset();
        metrics.cloud_enabled.reset();
    }

    /// Counts a commit of the spool: its duration, and the number of its commands.
    pub fn spool_commit(&self, took: Duration, commands: usize) {
        self.metrics.spool_commit_duration.observe(took.as_secs_f64());
        self.metrics.spool_batch.observe(commands as f64);
    }

    /// Returns all metrics in the text format of Prometheus, version 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        self.families.render()
    }
}
