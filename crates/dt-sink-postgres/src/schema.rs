//! The tables of the sink: creates them, and upgrades those of an older version. Several receivers may do so at once.

use tokio_postgres::Client;

use crate::failure::{Failure, Target};

/// What makes each version from the one before, beginning with an empty database. Each sets `dt_schema.version`.
const MIGRATIONS: [&str; 1] = [include_str!("schema.sql")];
/// The version that this program writes.
const VERSION: usize = MIGRATIONS.len();
/// The advisory lock of migrations: "dt-recv" in ASCII.
const LOCK: i64 = 0x64_74_2d_72_65_63_76;

/// Makes sure that the tables have the version that this program writes.
///
/// # Errors
///
/// [`Failure`], with a remedy if the tables are missing, older without `create`, or newer.
pub async fn prepare(client: &Client, create: bool) -> Result<(), Failure> {
    match version(client).await? {
        found if found == VERSION => Ok(()),
        found if found > VERSION => Err(newer(found)),
        _ if create => migrate(client).await,
        0 => Err(Failure::Server(
            "there is no table dt_schema; set `create = true`, or run the SQL of docs/postgres.md".to_owned(),
        )),
        found => Err(Failure::Server(format!(
            "the tables have version {found}, and this program writes {VERSION}; set `create = true` to upgrade them"
        ))),
    }
}

fn newer(found: usize) -> Failure {
    Failure::Server(format!(
        "the tables have version {found}, and this program knows {VERSION}; install a newer dt-receiver"
    ))
}

fn of_own(error: &tokio_postgres::Error) -> Failure {
    Failure::of(error, Target::OwnTables)
}

/// Returns the version of the tables; 0 if there are none.
async fn version(client: &Client) -> Result<usize, Failure> {
    let found = client.query_typed_one("SELECT to_regclass('dt_schema') IS NOT NULL", &[]).await;
    let is_there: bool = found.and_then(|row| row.try_get(0)).map_err(|error| of_own(&error))?;
    if !is_there {
        return Ok(0);
    }
    let found = client.query_typed_one("SELECT max(version)::bigint FROM dt_schema", &[]).await;
    let version: Option<i64> = found.and_then(|row| row.try_get(0)).map_err(|error| of_own(&error))?;
    version.and_then(|version| usize::try_from(version).ok()).filter(|version| *version > 0).ok_or_else(
        || Failure::Server("the table dt_schema has no version; it is not that of this program".to_owned()),
    )
}

/// Upgrades the tables in one transaction, after any other receiver that does the same.
async fn migrate(client: &Client) -> Result<(), Failure> {
    let upgraded = async {
        let begin =
            format!("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SELECT pg_advisory_xact_lock({LOCK})");
        client.batch_execute(&begin).await.map_err(|error| of_own(&error))?;
        let found = version(client).await?;
        if found > VERSION {
            return Err(newer(found));
        }
        for sql in MIGRATIONS.iter().skip(found) {
            client.batch_execute(sql).await.map_err(|error| of_migration(&error))?;
        }
        client.batch_execute("COMMIT").await.map_err(|error| of_own(&error))?;
        // Another receiver may have done it meanwhile.
        if found < VERSION {
            tracing::info!(from = found, to = VERSION, "the tables of the database were created or upgraded");
        }
        Ok(())
    };
    upgraded.await.map_err(Failure::of_server)
}

fn of_migration(error: &tokio_postgres::Error) -> Failure {
    match of_own(error) {
        Failure::Server(text) if error.code().is_some_and(|code| code.code() == "42P07") => Failure::Server(
            format!("{text}; a table of that name exists, and there is no dt_schema: use another schema"),
        ),
        failure => failure,
    }
}
