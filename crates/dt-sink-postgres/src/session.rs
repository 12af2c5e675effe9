//! The connection of a sink. It is opened when it is needed, and dropped after each error except those of single rows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls_tokio_postgres::MakeRustlsConnect;
use tokio::time::timeout;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, NoTls, Socket};

use dt_sink::SinkReporter;
use dt_sink::config::SystemSources;

use crate::failure::{self, Failure, Target};
use crate::row::Row;
use crate::schema::Tables;
use crate::settings::{self, PostgresConfig};
use crate::statement::Statement;
use crate::url::Url;
use crate::{metrics, schema, write};

/// The time limit for connecting to one address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The time limit of a batch, including a new connection.
const BATCH_TIMEOUT: Duration = Duration::from_secs(60);
/// The time limit of a rollback, and of closing a connection.
const SHORT_TIMEOUT: Duration = Duration::from_secs(2);
/// The time within which a connection must fail for a second attempt with a new one: it was then closed while there was nothing
/// to do.
const STALE_WITHIN: Duration = Duration::from_secs(1);
/// The time after which an idle connection is probed, and after which unacknowledged data ends the connection.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// The connection of one sink, and the settings for opening a new one.
pub struct Session {
    settings: PostgresConfig,
    url: Url,
    insert: Option<Statement>,
    timeout: Duration,
    reporter: Arc<dyn SinkReporter>,
    connection: Option<Connection>,
}

/// A connection that is ready for batches.
struct Connection {
    client: Client,
    /// The task that drives the connection until it ends.
    task: tokio::task::JoinHandle<()>,
    /// The prepared statement of the operator; `None` if the sink writes to its own tables.
    insert: Option<tokio_postgres::Statement>,
}

impl Session {
    /// Creates a session, without opening a connection. The time limit of a batch is `timeout`.
    pub fn new(
        settings: PostgresConfig,
        url: Url,
        insert: Option<Statement>,
        timeout: Option<Duration>,
        reporter: Arc<dyn SinkReporter>,
    ) -> Self {
        let timeout = timeout.map_or(BATCH_TIMEOUT, |timeout| timeout.min(BATCH_TIMEOUT));
        Self { settings, url, insert, timeout, reporter, connection: None }
    }

    /// Returns whether the sink writes to its own tables.
    pub const fn has_own_tables(&self) -> bool {
        self.insert.is_none()
    }

    /// Drops the connection without notifying the server.
    pub fn drop_connection(&mut self) {
        self.connection = None;
    }

    /// Closes the connection.
    pub async fn close(&mut self) {
        if let Some(Connection { client, task, .. }) = self.connection.take() {
            drop(client);
            let _is_late = timeout(SHORT_TIMEOUT, task).await;
        }
    }

    /// Writes rows in one transaction.
    ///
    /// # Errors
    ///
    /// [`Failure`] if no row was written. If the connection was lost during the commit, all rows may have been written.
    pub async fn write(&mut self, rows: &[&Row<'_>]) -> Result<(), Failure> {
        self.attempt(Some(rows)).await
    }

    /// Checks that rows could be written now.
    ///
    /// # Errors
    ///
    /// [`Failure`] if rows could not be written.
    pub async fn check(&mut self) -> Result<(), Failure> {
        self.attempt(None).await
    }

    /// Connects, checks without a change whether rows could be written, and closes the connection. Returns the result in words.
    ///
    /// # Errors
    ///
    /// [`Failure`] if rows could not be written.
    pub async fn probe(&mut self) -> Result<String, Failure> {
        let limit = self.timeout;
        let probed = timeout(limit, self.probe_without_limit()).await;
        self.close().await;
        probed.unwrap_or_else(|_| Err(Failure::timed_out("the server", limit)))
    }

    async fn probe_without_limit(&mut self) -> Result<String, Failure> {
        let (client, task) = self.open().await?;
        let Connection { client, .. } = self.connection.insert(Connection { client, task, insert: None });
        let server = server(client).await?;
        let found = if self.insert.is_some() {
            "the statement of `insert` can be executed".to_owned()
        } else {
            match schema::find(client, self.settings.create).await? {
                Tables::Current => "the tables can be written".to_owned(),
                Tables::Older(version) => {
                    return Ok(format!("{server}; the tables have version {version}, and will be upgraded"));
                }
                Tables::Missing => {
                    let schema = schema::check_creation(client).await?;
                    return Ok(format!("{server}; the tables will be created in schema {schema}"));
                }
            }
        };
        self.attempt_without_limit(None).await.map_err(Failure::of_server)?;
        Ok(format!("{server}; {found}"))
    }

    /// Writes rows, or checks that rows could be written if `rows` is `None`. A connection that proves to be closed is replaced
    /// once.
    async fn attempt(&mut self, rows: Option<&[&Row<'_>]>) -> Result<(), Failure> {
        let (started, was_connected) = (Instant::now(), self.connection.is_some());
        match self.attempt_once(rows).await {
            Err(Failure::Connection(_)) if was_connected && started.elapsed() < STALE_WITHIN => {
                self.attempt_once(rows).await
            }
            result => result,
        }
    }

    async fn attempt_once(&mut self, rows: Option<&[&Row<'_>]>) -> Result<(), Failure> {
        let limit = self.timeout;
        let result = match timeout(limit, self.attempt_without_limit(rows)).await {
            Ok(result) => result,
            Err(_) => Err(Failure::timed_out("the server", limit)),
        };
        match &result {
            Ok(()) => {}
            Err(Failure::Row(_)) => self.roll_back().await,
            // The next attempt begins anew, perhaps at another server of the URL.
            Err(Failure::Server(_)) => self.close().await,
            Err(Failure::Connection(_)) => self.drop_connection(),
        }
        result
    }

    async fn attempt_without_limit(&mut self, rows: Option<&[&Row<'_>]>) -> Result<(), Failure> {
        let connection = match self.connection.take() {
            Some(connection) if !connection.client.is_closed() => connection,
            _ => self.connect().await?,
        };
        let Connection { client, insert: prepared, .. } = self.connection.insert(connection);
        let begin = write::begin(self.timeout);
        let (target, written) = match (&self.insert, prepared, rows) {
            (Some(statement), Some(prepared), Some(rows)) => (
                Target::Insert,
                write::by_insert(client, &begin, (statement, prepared), rows).await.map(|()| 0),
            ),
            (Some(statement), ..) => (Target::Insert, write::explain(client, statement).await.map(|()| 0)),
            (None, _, rows) => {
                (Target::OwnTables, write::to_own_tables(client, &begin, rows.unwrap_or_default()).await)
            }
        };
        let duplicates = written.map_err(|error| Failure::of(&error, target))?;
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        if duplicates > 0 {
            self.reporter.add(&metrics::DUPLICATES, count(duplicates));
        }
        let incomplete = rows.unwrap_or_default().iter().filter(|row| row.incomplete.is_some()).count();
        if incomplete > 0 {
            self.reporter.add(&metrics::INCOMPLETE, count(incomplete));
        }
        Ok(())
    }

    /// Rolls back a failed transaction. If this fails, drops the connection.
    async fn roll_back(&mut self) {
        let Some(Connection { client, .. }) = &self.connection else { return };
        let rolled_back = timeout(SHORT_TIMEOUT, client.batch_execute("ROLLBACK")).await;
        if !matches!(rolled_back, Ok(Ok(()))) {
            self.drop_connection();
        }
    }

    /// Opens a connection, and prepares the tables or the statement for batches.
    async fn connect(&self) -> Result<Connection, Failure> {
        let (client, task) = self.open().await?;
        self.reporter.add(&metrics::CONNECTIONS, 1);
        let insert = match &self.insert {
            Some(statement) => {
                let prepared = client.prepare_typed(statement.sql(), statement.types()).await;
                Some(prepared.map_err(|error| Failure::of(&error, Target::Insert).of_server())?)
            }
            None => {
                schema::prepare(&client, self.settings.create).await?;
                None
            }
        };
        Ok(Connection { client, task, insert })
    }

    /// Opens a connection, and logs in.
    async fn open(&self) -> Result<(Client, tokio::task::JoinHandle<()>), Failure> {
        if self.url.has_tls() { self.connect_by(self.tls()?).await } else { self.connect_by(NoTls).await }
    }

    async fn connect_by<T>(&self, tls: T) -> Result<(Client, tokio::task::JoinHandle<()>), Failure>
    where
        T: MakeTlsConnect<Socket>,
        T::Stream: Send + 'static,
    {
        let mut config = self.url.config().clone();
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(KEEPALIVE);
        }
        config.keepalives_idle(KEEPALIVE);
        let connected = config.connect(tls).await;
        let (client, connection) =
            connected.map_err(|error| Failure::of(&error, Target::OwnTables).of_server())?;
        let sink = self.reporter.sink().to_owned();
        // The runtime polls it only while the sink delivers; the requests of the client report its errors.
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(sink, error = %Failure::of(&error, Target::OwnTables), "the connection ended");
            }
        });
        Ok((client, task))
    }

    /// Returns a TLS connector that verifies the certificate chain and the host name.
    fn tls(&self) -> Result<MakeRustlsConnect, Failure> {
        let mut config =
            settings::tls(self.settings.ca.as_deref(), &SystemSources).map_err(Failure::Server)?;
        // As libpq does; `sslnegotiation=direct` needs it.
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Ok(MakeRustlsConnect::new(config))
    }
}

/// Returns the name and the version of a server that accepts writes.
///
/// # Errors
///
/// [`Failure`] if the server is a standby, or does not respond.
async fn server(client: &Client) -> Result<String, Failure> {
    let of_own = |error| Failure::of(&error, Target::OwnTables).of_server();
    let row = client.query_typed_one("SELECT current_setting('server_version'), pg_is_in_recovery()", &[]);
    let row = row.await.map_err(of_own)?;
    let version: String = row.try_get(0).map_err(of_own)?;
    if row.try_get(1).map_err(of_own)? {
        return Err(Failure::Server(failure::READ_ONLY.to_owned()));
    }
    Ok(format!("PostgreSQL {version}"))
}
