//! The sink `postgres`: writes each event once to the table `dt_events`, what it measured to `dt_samples`, and the latest state
//! of each device to `dt_devices`; or executes the operator's own statement for each event.
//!
//! # Delivery
//!
//! A batch is one transaction, and its records are delivered once the server has confirmed the commit. If the connection is lost
//! before that, the batch is repeated, and `dt_events` tells which events are there already: each event feeds the other
//! tables exactly once, also if several receivers get copies of it. See `write.rs`.
//!
//! # When a batch fails
//!
//! `failure.rs` classifies the error by its SQLSTATE:
//!
//! - A row may be at fault (a constraint, a value that a column cannot hold). The batch is halved until the row is alone. In the
//!   sink's own tables it is stored without its JSON columns; otherwise only that record is rejected.
//! - Otherwise no record is rejected: the worker tries again, and `/readyz` names the error and its remedy.

mod failure;
mod metrics;
mod row;
mod schema;
mod session;
mod settings;
mod statement;
mod url;
mod write;

use std::ops::Range;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

pub use settings::PostgresConfig;

use dt_sink::{Fate, Metric, OpenError, Outcome, Record, Sink, SinkContext, SinkError};
use failure::Failure;
use row::Row;
use session::Session;
use statement::Statement;
use url::Url;

/// The largest number of records in a batch.
const MAX_BATCH: usize = 2048;
/// The largest number of records in a transaction.
const TRANSACTION: usize = 512;
/// The interval at which the sink checks its tables while there is nothing to deliver.
const CHECK_EVERY: Duration = Duration::from_secs(2);
/// The number of consecutive rejected records after which the statement or the table is assumed to be at fault, and the sink
/// waits.
const MAX_REJECTED_IN_A_ROW: usize = 100;

/// A sink that writes to PostgreSQL.
pub struct PostgresSink {
    /// The runtime of the connection; `None` once the sink is being dropped.
    runtime: Option<Runtime>,
    writer: Writer,
}

/// Writes batches to the database, and determines the result of each record.
struct Writer {
    session: Session,
    rejected_in_a_row: usize,
}

impl std::fmt::Debug for PostgresSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresSink").finish_non_exhaustive()
    }
}

impl PostgresSink {
    /// The metrics that a PostgreSQL sink reports.
    pub const METRICS: &'static [Metric] = metrics::ALL;

    /// Creates a sink, without opening a connection. The time limit of a batch is that of the context.
    ///
    /// # Errors
    ///
    /// [`OpenError::Unusable`] if the URL or the statement is invalid.
    pub fn new(settings: &PostgresConfig, context: &SinkContext) -> Result<Self, OpenError> {
        let unusable =
            |key: &str, error: &dyn std::fmt::Display| OpenError::Unusable(format!("{key}: {error}"));
        let url = Url::parse(&settings.url).map_err(|error| unusable("url", &error))?;
        let insert = settings.insert.as_deref().map(Statement::parse).transpose();
        let insert = insert.map_err(|error| unusable("insert", &error))?;
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| unusable("starting a runtime", &error))?;
        let reporter = Arc::clone(&context.reporter);
        let session = Session::new(settings.clone(), url, insert, context.give_up_after, reporter);
        Ok(Self { runtime: Some(runtime), writer: Writer { session, rejected_in_a_row: 0 } })
    }
}

impl PostgresSink {
    /// Checks at the server whether events could be stored, without a change there, and returns the result in words.
    pub(crate) fn probe(&mut self) -> Result<String, SinkError> {
        let Self { runtime: Some(runtime), writer } = self else { return Err("the sink is closed".into()) };
        runtime.block_on(writer.session.probe()).map_err(|failure| failure.to_string().into())
    }
}

/// The row of a record; `Err` with the reason if the record can never be stored.
type MadeRow<'a> = Result<Row<'a>, String>;

fn rows_of(records: &[Arc<Record>]) -> Vec<MadeRow<'_>> {
    records.iter().map(|record| Row::of(record)).collect()
}

impl Writer {
    /// Writes rows, and appends their results to `fates`. Returns whether none of them has to be retried.
    fn write_part(&mut self, runtime: &Runtime, made: Vec<MadeRow<'_>>, fates: &mut Vec<Fate>) -> bool {
        let mut results = vec![Fate::Retry { error: "not written".to_owned() }; made.len()];
        let mut rows = Vec::with_capacity(made.len());
        for (at, (row, result)) in made.into_iter().zip(&mut results).enumerate() {
            match row {
                Ok(row) => rows.push((at, row)),
                Err(error) => *result = Fate::Rejected { error },
            }
        }
        if !rows.is_empty() {
            runtime.block_on(self.write(&mut rows, &mut results));
        }
        let is_complete = !results.iter().any(|result| matches!(result, Fate::Retry { .. }));
        fates.append(&mut results);
        is_complete
    }

    /// Writes rows, each with the index of its result in `fates`, and sets these results.
    async fn write(&mut self, rows: &mut [(usize, Row<'_>)], fates: &mut [Fate]) {
        let places: Vec<usize> = rows.iter().map(|(place, _)| *place).collect();
        let mut set = |range: Range<usize>, result: &Fate| {
            for place in places.get(range).unwrap_or_default() {
                if let Some(fate) = fates.get_mut(*place) {
                    fate.clone_from(result);
                }
            }
        };
        // Ranges that are not written yet; the first is the last of the list.
        let mut open: Vec<Range<usize>> = std::iter::once(0..rows.len()).collect();
        while let Some(range) = open.pop() {
            let batch: Vec<&Row<'_>> =
                rows.get(range.clone()).unwrap_or_default().iter().map(|(_, row)| row).collect();
            match self.session.write(&batch).await {
                Ok(()) => {
                    self.rejected_in_a_row = 0;
                    set(range, &Fate::Delivered);
                }
                Err(Failure::Row(error)) if batch.len() > 1 => {
                    let middle = range.start.midpoint(range.end);
                    tracing::debug!(rows = batch.len(), error, "the batch is halved");
                    open.push(middle..range.end);
                    open.push(range.start..middle);
                }
                Err(Failure::Row(error))
                    if self.session.has_own_tables() && drop_json(rows, &range, &error) =>
                {
                    open.push(range);
                }
                Err(Failure::Row(error)) if self.rejected_in_a_row < MAX_REJECTED_IN_A_ROW => {
                    self.rejected_in_a_row = self.rejected_in_a_row.saturating_add(1);
                    set(range, &Fate::Rejected { error });
                }
                Err(Failure::Row(error)) => {
                    let error = format!(
                        "{error}; {MAX_REJECTED_IN_A_ROW} records in a row failed like this: check the table and `insert`"
                    );
                    return set(range.start..rows.len(), &Fate::Retry { error });
                }
                Err(Failure::Server(error) | Failure::Connection(error)) => {
                    return set(range.start..rows.len(), &Fate::Retry { error });
                }
            }
        }
    }
}

/// Replaces the JSON columns of a row that does not fit by the reason. Returns whether the row had any. For example, a number may
/// be out of range, or the encoding of the database lacks a character.
fn drop_json(rows: &mut [(usize, Row<'_>)], range: &Range<usize>, error: &str) -> bool {
    rows.get_mut(range.start).is_some_and(|(_, row)| row.drop_json(error))
}

impl Sink for PostgresSink {
    /// Does not connect, since the service must not wait for a server that does not respond.
    fn open(&mut self, _checkpoint: Option<&[u8]>) -> Result<(), OpenError> {
        // After a panic the state of the last connection is unknown.
        self.writer.session.drop_connection();
        Ok(())
    }

    fn deliver(&mut self, batch: &[Arc<Record>]) -> Outcome {
        let Self { runtime: Some(runtime), writer } = self else { return Outcome::default() };
        let mut fates = Vec::with_capacity(batch.len());
        if batch.len() <= TRANSACTION {
            writer.write_part(runtime, rows_of(batch), &mut fates);
        } else {
            let (made, parts) = mpsc::sync_channel(1);
            std::thread::scope(|scope| {
                // Makes the rows of the next transaction while the server works on this one.
                scope.spawn(move || batch.chunks(TRANSACTION).all(|part| made.send(rows_of(part)).is_ok()));
                for rows in parts {
                    if !writer.write_part(runtime, rows, &mut fates) {
                        break;
                    }
                }
            });
        }
        // After an error, the records that follow are tried again as well.
        let error = fates.iter().find(|fate| matches!(fate, Fate::Retry { .. })).cloned();
        if let Some(error) = error {
            fates.resize(batch.len(), error);
        }
        Outcome { fates, ..Outcome::default() }
    }

    fn max_batch(&self) -> usize {
        MAX_BATCH
    }

    fn check_every(&self) -> Option<Duration> {
        Some(CHECK_EVERY)
    }

    fn check(&mut self) -> Result<(), SinkError> {
        let Some(runtime) = &self.runtime else { return Ok(()) };
        runtime.block_on(self.writer.session.check()).map_err(|failure| failure.to_string().into())
    }

    fn close(&mut self) {
        if let Some(runtime) = &self.runtime {
            runtime.block_on(self.writer.session.close());
        }
    }
}

impl Drop for PostgresSink {
    fn drop(&mut self) {
        // Also where blocking is not allowed, such as in a task of the service.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
