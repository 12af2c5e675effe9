//! Writes a batch: to the tables of the sink, or by the operator's statement. One transaction each.
//!
//! Exactly once: the ids of new events are those that `INSERT … ON CONFLICT DO NOTHING RETURNING` returns, and only these
//! events feed the other tables. An id that another receiver is inserting makes the statement wait until that transaction ends.
//!
//! Rows are sorted, by event id and then by device, so that receivers wait for each other in one order.
//!
//! Values are passed as arrays: one statement a table, whatever the size of the batch. A temporary table would be written
//! twice, needs the privilege TEMP, and is state of a session, which poolers in mode `transaction` do not keep.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::future::try_join_all;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Error};

use crate::row::{Row, Sample};
use crate::statement::Statement;

/// Returns the statements that begin a transaction. They override settings of the server that would break the sink's promise:
/// rows must be on disk before they count as delivered. The server ends the transaction at the sink's time limit, so that the
/// batch of a receiver that is gone does not block others.
pub fn begin(timeout: Duration) -> String {
    let millis = timeout.as_millis();
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
        SET LOCAL TimeZone = 'UTC';
        SET LOCAL idle_in_transaction_session_timeout = {millis};
        SELECT set_config('statement_timeout', '{millis}', true) WHERE current_setting('statement_timeout') = '0';
        SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'"
    )
}

const INSERT_EVENTS: &str = "INSERT INTO dt_events
    (event_id, connector, project, device, type, timestamp, received_at, labels, data, body, incomplete)
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
    ON CONFLICT (event_id) DO NOTHING RETURNING event_id";

const INSERT_SAMPLES: &str = "INSERT INTO dt_samples (device, quantity, unit, time, value, text, event_id)
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7)";

const UPSERT_DEVICES: &str = "INSERT INTO dt_devices AS known
    (device, quantity, project, unit, time, value, text, event_id)
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8)
    ON CONFLICT (device, quantity) DO UPDATE SET project = excluded.project, unit = excluded.unit,
        time = excluded.time, value = excluded.value, text = excluded.text, event_id = excluded.event_id
    WHERE known.time < excluded.time";

/// Returns one column of several rows.
fn column<'r, R, T>(rows: &'r [R], of: impl FnMut(&'r R) -> T) -> Vec<T> {
    rows.iter().map(of).collect()
}

/// Writes rows to the tables of the sink. Returns the number of events that were already stored. Without rows, checks that rows
/// could be written, and commits nothing. After an error, the transaction that `begin` began is still open.
///
/// # Errors
///
/// The error of the server or of the connection.
pub async fn to_own_tables(client: &Client, begin: &str, rows: &[&Row<'_>]) -> Result<usize, Error> {
    // Of copies in one batch, the first counts.
    let mut by_id: BTreeMap<&str, &Row<'_>> = BTreeMap::new();
    for row in rows {
        by_id.entry(row.event_id).or_insert(row);
    }
    let events: Vec<&Row<'_>> = by_id.into_values().collect();
    client.batch_execute(begin).await?;
    let new = insert_events(client, &events).await?;
    let new: Vec<&Row<'_>> = events.into_iter().filter(|row| new.contains(row.event_id)).collect();
    insert_samples(client, &new).await?;
    upsert_devices(client, &new).await?;
    client.batch_execute(if rows.is_empty() { "ROLLBACK" } else { "COMMIT" }).await?;
    Ok(rows.len().saturating_sub(new.len()))
}

/// Inserts events, and returns the ids of the new ones.
async fn insert_events(client: &Client, events: &[&Row<'_>]) -> Result<HashSet<String>, Error> {
    let parameters: [(&(dyn ToSql + Sync), Type); 11] = [
        (&column(events, |row| row.event_id), Type::TEXT_ARRAY),
        (&column(events, |row| row.connector), Type::TEXT_ARRAY),
        (&column(events, |row| row.project), Type::TEXT_ARRAY),
        (&column(events, |row| row.device), Type::TEXT_ARRAY),
        (&column(events, |row| row.event_type), Type::TEXT_ARRAY),
        (&column(events, |row| row.timestamp), Type::TIMESTAMPTZ_ARRAY),
        (&column(events, |row| row.received_at), Type::TIMESTAMPTZ_ARRAY),
        (&column(events, |row| &row.labels), Type::JSONB_ARRAY),
        (&column(events, |row| &row.data), Type::JSONB_ARRAY),
        (&column(events, |row| row.body), Type::BYTEA_ARRAY),
        (&column(events, |row| row.incomplete.as_deref()), Type::TEXT_ARRAY),
    ];
    let returned = client.query_typed(INSERT_EVENTS, &parameters).await?;
    returned.iter().map(|row| row.try_get(0)).collect()
}

async fn insert_samples(client: &Client, events: &[&Row<'_>]) -> Result<(), Error> {
    let samples: Vec<(&Row<'_>, &Sample)> =
        events.iter().flat_map(|row| row.samples.iter().map(|sample| (*row, sample))).collect();
    let parameters: [(&(dyn ToSql + Sync), Type); 7] = [
        (&column(&samples, |(row, _)| row.device), Type::TEXT_ARRAY),
        (&column(&samples, |(_, sample)| sample.quantity), Type::TEXT_ARRAY),
        (&column(&samples, |(_, sample)| sample.unit), Type::TEXT_ARRAY),
        (&column(&samples, |(_, sample)| sample.time), Type::TIMESTAMPTZ_ARRAY),
        (&column(&samples, |(_, sample)| sample.value), Type::FLOAT8_ARRAY),
        (&column(&samples, |(_, sample)| sample.text.as_deref()), Type::TEXT_ARRAY),
        (&column(&samples, |(row, _)| row.event_id), Type::TEXT_ARRAY),
    ];
    client.execute_typed(INSERT_SAMPLES, &parameters).await.map(drop)
}

/// Stores the newest sample of each device and quantity, unless a newer one is stored.
async fn upsert_devices(client: &Client, events: &[&Row<'_>]) -> Result<(), Error> {
    let mut newest: BTreeMap<(&str, &str), (&Row<'_>, &Sample)> = BTreeMap::new();
    for row in events {
        let Some(device) = row.device else { continue };
        for sample in &row.samples {
            let known = newest.entry((device, sample.quantity)).or_insert((row, sample));
            if known.1.time < sample.time {
                *known = (row, sample);
            }
        }
    }
    let states: Vec<(&Row<'_>, &Sample)> = newest.into_values().collect();
    let parameters: [(&(dyn ToSql + Sync), Type); 8] = [
        (&column(&states, |(row, _)| row.device), Type::TEXT_ARRAY),
        (&column(&states, |(_, sample)| sample.quantity), Type::TEXT_ARRAY),
        (&column(&states, |(row, _)| row.project), Type::TEXT_ARRAY),
        (&column(&states, |(_, sample)| sample.unit), Type::TEXT_ARRAY),
        (&column(&states, |(_, sample)| sample.time), Type::TIMESTAMPTZ_ARRAY),
        (&column(&states, |(_, sample)| sample.value), Type::FLOAT8_ARRAY),
        (&column(&states, |(_, sample)| sample.text.as_deref()), Type::TEXT_ARRAY),
        (&column(&states, |(row, _)| row.event_id), Type::TEXT_ARRAY),
    ];
    client.execute_typed(UPSERT_DEVICES, &parameters).await.map(drop)
}

/// Executes the prepared statement of the operator for each row, in order. After an error, the transaction is still open.
///
/// # Errors
///
/// The error of the server or of the connection.
pub async fn by_insert(
    client: &Client,
    begin: &str,
    (statement, prepared): (&Statement, &tokio_postgres::Statement),
    rows: &[&Row<'_>],
) -> Result<(), Error> {
    client.batch_execute(begin).await?;
    // The requests are sent without waiting for each answer; the server executes them in the order in which they are polled
    // first, which is that of the list.
    try_join_all(rows.iter().map(|row| {
        let values = statement.parameters().iter().map(|parameter| row.value(*parameter));
        client.execute_raw(prepared, values.collect::<Vec<_>>())
    }))
    .await?;
    client.batch_execute("COMMIT").await
}

/// Checks, without a row, whether the operator's statement could be executed: its tables, columns, types and permissions.
///
/// # Errors
///
/// The error of the server or of the connection.
pub async fn explain(client: &Client, statement: &Statement) -> Result<(), Error> {
    let nulls = statement.types().iter().map(|sql_type| (&Null as &(dyn ToSql + Sync), sql_type.clone()));
    let parameters: Vec<(&(dyn ToSql + Sync), Type)> = nulls.collect();
    client.query_typed(&format!("EXPLAIN {}", statement.sql()), &parameters).await.map(drop)
}

/// The value NULL, of any type.
#[derive(Debug)]
struct Null;

impl ToSql for Null {
    fn to_sql(&self, _: &Type, _: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        Ok(IsNull::Yes)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}
