//! What the monitor knows about the Data Connectors, and since when it watches each project.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{CloudError, CloudStore};

pub const TABLES: &str = "
    CREATE TABLE projects (
        project    TEXT PRIMARY KEY,
        baseline   INTEGER NOT NULL,    -- when the project was watched first, Unix milliseconds; nothing before it is fetched
        sampled_on INTEGER,             -- the day of the last nightly sample, in days since 1970-01-01, UTC
        types      TEXT                 -- JSON: {event type: since when it is delivered, Unix milliseconds}; * for all others
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE connectors (
        project    TEXT NOT NULL,
        id         TEXT NOT NULL,       -- the id of the Data Connector at DT
        connector  TEXT NOT NULL,       -- the name of the connector in the configuration
        status     TEXT NOT NULL,
        since      INTEGER NOT NULL,    -- when the status was seen first, Unix milliseconds
        active_at  INTEGER,             -- when it was seen ACTIVE last
        clean_at   INTEGER,             -- when DT last counted successes and no failures of 24 hours
        success_at INTEGER,             -- when the receiver last answered one of its requests with 2xx
        refused    INTEGER NOT NULL,    -- requests that the receiver refused (401, 403) while it was ACTIVE, since success_at
        tries      INTEGER NOT NULL,    -- attempts to set it to ACTIVE, since a success
        tried_at   INTEGER,             -- when the last attempt was made
        sync_due   INTEGER NOT NULL,    -- 1: it was set to ACTIVE, and has to be synced
        labels     TEXT NOT NULL,       -- JSON: the keys of the labels of its deliveries
        events     TEXT NOT NULL,       -- JSON: the event types that it delivers; [] for all
        PRIMARY KEY (project, id)
    ) STRICT, WITHOUT ROWID;
";

/// What is known about a Data Connector. All times are in Unix milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectorState {
    /// The id of the project.
    pub project: String,
    /// The id of the Data Connector at DT.
    pub id: String,
    /// The name of the connector in the configuration.
    pub connector: String,
    /// The status, as DT spells it.
    pub status: String,
    /// When the status was seen first.
    pub since: i64,
    /// When the Data Connector was seen `ACTIVE` last; `None` if it never was.
    pub active_at: Option<i64>,
    /// When DT last counted deliveries of the last 24 hours, and no failure; `None` if it never did.
    pub clean_at: Option<i64>,
    /// When the receiver last answered one of its requests with 2xx; `None` if it never did.
    pub success_at: Option<i64>,
    /// The number of its requests that the receiver refused with 401 or 403 while it was `ACTIVE`, since the last success.
    pub refused: u32,
    /// The number of attempts to set it to `ACTIVE`, since a success.
    pub tries: u32,
    /// When the last attempt was made; `None` if there was none.
    pub tried_at: Option<i64>,
    /// Whether it was set to `ACTIVE`, and has to be synced.
    pub sync_due: bool,
    /// The keys of the labels of its deliveries.
    pub labels: Vec<String>,
    /// The event types that it delivers; empty for all.
    pub events: Vec<String>,
}

const COLUMNS: &str =
    "SELECT project, id, connector, status, since, active_at, success_at, refused, tries, tried_at, sync_due,
    labels, events, clean_at FROM connectors";

fn state_of(row: &Row<'_>) -> rusqlite::Result<ConnectorState> {
    let texts = |column: usize| {
        let texts: String = row.get(column)?;
        serde_json::from_str(&texts).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
        })
    };
    Ok(ConnectorState {
        project: row.get(0)?,
        id: row.get(1)?,
        connector: row.get(2)?,
        status: row.get(3)?,
        since: row.get(4)?,
        active_at: row.get(5)?,
        success_at: row.get(6)?,
        refused: row.get(7)?,
        tries: row.get(8)?,
        tried_at: row.get(9)?,
        sync_due: row.get(10)?,
        labels: texts(11)?,
        events: texts(12)?,
        clean_at: row.get(13)?,
    })
}

fn insert(file: &Connection, state: &ConnectorState) -> rusqlite::Result<()> {
    let mut insert = file.prepare_cached(
        "INSERT OR REPLACE INTO connectors (project, id, connector, status, since, active_at, success_at, refused, tries, tried_at,
                                            sync_due, labels, events, clean_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
    )?;
    let texts = |texts: &[String]| serde_json::Value::from(texts).to_string();
    insert
        .execute(params![
            state.project,
            state.id,
            state.connector,
            state.status,
            state.since,
            state.active_at,
            state.success_at,
            state.refused,
            state.tries,
            state.tried_at,
            state.sync_due,
            texts(&state.labels),
            texts(&state.events),
            state.clean_at,
        ])
        .map(drop)
}

impl CloudStore {
    /// Returns what is known about the Data Connectors of a project. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the database cannot be read.
    pub fn connectors(&self, project: &str) -> Result<Vec<ConnectorState>, CloudError> {
        self.read("reading the connectors", |file| {
            let mut select = file.prepare_cached(&format!("{COLUMNS} WHERE project = ?1 ORDER BY id"))?;
            select.query_map([project], state_of)?.collect()
        })
    }

    /// Stores what is known about the Data Connectors of a project, instead of what was known before. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the database cannot be changed. Nothing has changed then.
    pub fn set_connectors(&self, project: &str, states: &[ConnectorState]) -> Result<(), CloudError> {
        self.change("storing the connectors", |change| {
            change.execute("DELETE FROM connectors WHERE project = ?1", [project])?;
            states.iter().try_for_each(|state| insert(change, state))
        })
    }

    /// Stores what is known about one Data Connector. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the database cannot be changed. Nothing has changed then.
    pub fn set_connector(&self, state: &ConnectorState) -> Result<(), CloudError> {
        self.change("storing a connector", |change| insert(change, state))
    }

    /// Forgets everything that depends on having watched without interruption: baselines, the newest events, the missing ones,
    /// the connectors, the heartbeat. The windows stay. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the database cannot be changed. Nothing has changed then.
    pub fn begin_again(&self) -> Result<(), CloudError> {
        self.change("beginning again", |change| {
            change.execute_batch(
                "DELETE FROM projects; DELETE FROM connectors; DELETE FROM newest; DELETE FROM missing; DELETE FROM alive;",
            )
        })
    }

    /// Returns when a project was watched first, in Unix milliseconds. If it is watched now for the first time, that is `now`.
    /// Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the database cannot be changed.
    pub fn baseline(&self, project: &str, now: i64) -> Result<i64, CloudError> {
        let select = "SELECT baseline FROM projects WHERE project = ?1";
        let known = self.read("reading the projects", |file| {
            file.prepare_cached(select)?.query_row([project], |row| row.get(0)).optional()
        })?;
        match known {
            Some(baseline) => Ok(baseline),
            None => self.change("storing a project", |change| {
                change.execute(
                    "INSERT INTO projects (project, baseline) VALUES (?1, ?2)",
                    params![project, now],
                )?;
                Ok(now)
            }),
        }
    }

    /// Returns the day of the last nightly sample of a project, in days since 1970-01-01; `None` if there was none. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the database cannot be read.
    pub fn sampled_on(&self, project: &str) -> Result<Option<i64>, CloudError> {
        self.read("reading the projects", |file| {
            let mut select = file.prepare_cached("SELECT sampled_on FROM projects WHERE project = ?1")?;
            select.query_row([project], |row| row.get(0)).optional().map(Option::flatten)
        })
    }

    /// Stores the day of the last nightly sample of a project, in days since 1970-01-01. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the database cannot be changed.
    pub fn set_sampled_on(&self, project: &str, day: i64) -> Result<(), CloudError> {
        self.change("storing a project", |change| {
            change.execute("UPDATE projects SET sampled_on = ?2 WHERE project = ?1", params![project, day])
        })
        .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_and_baselines_survive() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = |project: &str, id: &str| ConnectorState {
            project: project.to_owned(),
            id: id.to_owned(),
            connector: "plant".to_owned(),
            status: "SYSTEM_DISABLED".to_owned(),
            since: 5,
            active_at: Some(4),
            clean_at: Some(3),
            success_at: None,
            refused: 7,
            tries: 2,
            tried_at: Some(6),
            sync_due: true,
            labels: vec!["floor".to_owned()],
            events: vec!["touch".to_owned()],
        };
        let store = CloudStore::open(folder.path()).expect("opened");
        store.set_connectors("p", &[state("p", "gone")]).expect("stored");
        store.set_connectors("p", &[state("p", "a"), state("p", "b")]).expect("stored");
        store.set_connectors("q", &[state("q", "a")]).expect("stored");
        assert_eq!(store.baseline("p", 10).expect("stored"), 10);
        assert_eq!(
            (store.sampled_on("p").expect("read"), store.sampled_on("q").expect("read")),
            (None, None)
        );
        store.set_sampled_on("p", 3).expect("stored");
        drop(store);
        let store = CloudStore::open(folder.path()).expect("opened");
        assert_eq!(store.connectors("p").expect("read"), [state("p", "a"), state("p", "b")]);
        assert_eq!(store.baseline("p", 20).expect("read"), 10);
        assert_eq!(store.sampled_on("p").expect("read"), Some(3));
        store.set_connector(&ConnectorState { tries: 3, ..state("p", "a") }).expect("stored");
        assert_eq!(store.connectors("p").expect("read")[0].tries, 3);
        store.begin_again().expect("forgotten");
        assert_eq!(store.baseline("p", 20).expect("read"), 20);
        assert_eq!(store.connectors("p").expect("read"), []);
    }
}
