//! The tables of the sink. Creates them, and upgrades tables of an older version. Several receivers may do so at the same time.

use tokio_postgres::Client;

use crate::failure::{Failure, Target};

/// The scripts that upgrade the tables by one version each, beginning with an empty database. Each script sets
/// `dt_schema.version`.
const MIGRATIONS: [&str; 1] = [include_str!("schema.sql")];
/// The version of the tables that this program uses.
const VERSION: usize = MIGRATIONS.len();
/// The number of the advisory lock for migrations: "dt-recv" in ASCII.
const LOCK: i64 = 0x64_74_2d_72_65_63_76;

/// The state of the sink's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tables {
    /// The tables have the version that this program uses.
    Current,
    /// The tables do not exist, and may be created.
    Missing,
    /// The tables have this older version, and may be upgraded.
    Older(usize),
}

/// Creates or upgrades the tables, so that they have the version that this program uses.
///
/// # Errors
///
/// The errors of [`find`]; also an error if the tables cannot be created or upgraded.
pub async fn prepare(client: &Client, create: bool) -> Result<(), Failure> {
    match find(client, create).await? {
        Tables::Current => Ok(()),
        Tables::Missing | Tables::Older(_) => migrate(client).await,
    }
}

/// Returns the state of the tables, without changing it.
///
/// # Errors
///
/// [`Failure`], with a remedy if the tables are missing, older without `create`, or newer.
pub async fn find(client: &Client, create: bool) -> Result<Tables, Failure> {
    match version(client).await? {
        found if found == VERSION => Ok(Tables::Current),
        found if found > VERSION => Err(newer(found)),
        0 if create => Ok(Tables::Missing),
        found if create => Ok(Tables::Older(found)),
        0 => Err(Failure::Server(
            "there is no table dt_schema; set `create = true`, or run the SQL of docs/postgres.md".to_owned(),
        )),
        found => Err(Failure::Server(format!(
            "the tables have version {found}, and this program writes {VERSION}; set `create = true` to upgrade them"
        ))),
    }
}

/// Checks whether the missing tables could be created. Returns the name of the schema in which they would be.
///
/// # Errors
///
/// [`Failure`], with a remedy, if there is no schema or no permission, or if objects of other programs have the names of the
/// tables.
pub async fn check_creation(client: &Client) -> Result<String, Failure> {
    let wrong = |text: String| Err(Failure::Server(text));
    let found = client.query_typed_one(CREATION, &[]).await;
    let row = found.map_err(|error| of_own(&error))?;
    let read = |error| of_own(&error);
    let (schema, taken): (Option<String>, Option<String>) =
        (row.try_get(0).map_err(read)?, row.try_get(2).map_err(read)?);
    let is_allowed: Option<bool> = row.try_get(1).map_err(read)?;
    let Some(schema) = schema else {
        return wrong("no schema of this user's `search_path` exists; create one for the tables".to_owned());
    };
    if let Some(taken) = taken {
        return wrong(format!(
            "there is no dt_schema, and these tables exist in schema {schema}: {taken}; they are of another program: use \
             another schema"
        ));
    }
    if is_allowed != Some(true) {
        return wrong(format!(
            "there are no tables, and this user may not create them: GRANT CREATE ON SCHEMA {schema}, or create them by \
             the SQL of docs/postgres.md"
        ));
    }
    Ok(schema)
}

/// A query for the schema of new tables, the permission to create tables in it, and the names that are already used.
const CREATION: &str =
    "SELECT quote_ident(current_schema()), has_schema_privilege(current_schema(), 'CREATE'),
    (SELECT string_agg(name, ', ') FROM unnest(ARRAY['dt_events', 'dt_samples', 'dt_devices']) AS name
        WHERE to_regclass(quote_ident(current_schema()) || '.' || name) IS NOT NULL)";

fn newer(found: usize) -> Failure {
    Failure::Server(format!(
        "the tables have version {found}, and this program knows {VERSION}; install a newer dt-receiver"
    ))
}

fn of_own(error: &tokio_postgres::Error) -> Failure {
    Failure::of(error, Target::OwnTables)
}

/// Returns the version of the tables; 0 if they do not exist.
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

/// Upgrades the tables in one transaction, after any other receiver that is upgrading them.
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
