//! Classifies the errors of the server by their SQLSTATE (PostgreSQL's appendix "PostgreSQL Error Codes"). The class determines
//! whether a record is rejected, or the whole batch is retried.

use std::error::Error as _;
use std::time::Duration;

use tokio_postgres::error::{DbError, SqlState};

/// The largest length of a server's message in an error, in characters: it may quote a value.
const MAX_TEXT: usize = 300;

/// The remedy for a server that does not accept writes.
pub const READ_ONLY: &str =
    "the server is read-only: name the primary in `url`, or add `target_session_attrs=read-write`";

/// Why a batch could not be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// A row does not fit into the table. The connection can be used again after a rollback.
    #[error("{0}")]
    Row(String),
    /// The server returned an error that no single row causes: for example, a table is missing or the disk is full.
    #[error("{0}")]
    Server(String),
    /// There is no connection, or the connection was lost.
    #[error("{0}")]
    Connection(String),
}

/// The tables that the failed statement writes to. They determine the remedy in the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The tables that the sink creates.
    OwnTables,
    /// The table of the operator's statement `insert`.
    Insert,
}

impl Failure {
    /// Classifies an error of the client library.
    pub fn of(error: &tokio_postgres::Error, target: Target) -> Self {
        match error.as_db_error() {
            Some(error) => Self::of_answer(error, target),
            None => Self::Connection(of_connection(error)),
        }
    }

    fn of_answer(error: &DbError, target: Target) -> Self {
        let code = error.code();
        let said = format!("{} (SQLSTATE {})", shortened(error.message()), code.code());
        let text = match remedy(code, target) {
            Some(remedy) => format!("{said}; {remedy}"),
            None => said,
        };
        if is_of_row(code) { Self::Row(text) } else { Self::Server(text) }
    }

    /// Returns the failure of a statement without a row, such as the login or the preparation of `insert`.
    pub fn of_server(self) -> Self {
        match self {
            Self::Row(text) => Self::Server(text),
            failure => failure,
        }
    }

    /// Returns the failure of a connection or a batch that exceeded its time limit.
    pub fn timed_out(what: &str, timeout: Duration) -> Self {
        Self::Connection(format!("{what} took longer than {} s", timeout.as_secs()))
    }
}

/// Returns whether a row is at fault. This is so for the classes "cardinality violation" (a subquery with several rows), "data
/// exception", "integrity constraint violation", "WITH CHECK OPTION violation", "program limit exceeded" (an index entry is too
/// large), and "PL/pgSQL error" (of a trigger).
fn is_of_row(code: &SqlState) -> bool {
    matches!(code.code().get(..2), Some("21" | "22" | "23" | "44" | "54" | "P0"))
}

fn remedy(code: &SqlState, target: Target) -> Option<String> {
    let of_table = match target {
        Target::OwnTables => "the tables are not those of this program; see `dt_schema` in docs/postgres.md",
        Target::Insert => "correct `insert`; it may need a cast, such as `:event_id::uuid`",
    };
    Some(match code.code() {
        "28P01" | "28000" => {
            "check the user and the password of `url`, and the server's pg_hba.conf".to_owned()
        }
        "3D000" => "create the database, or name another one in `url`".to_owned(),
        "42P01" => match target {
            Target::OwnTables => {
                "create the tables: set `create = true`, or run the SQL of docs/postgres.md".to_owned()
            }
            Target::Insert => "create the table, or correct `insert`".to_owned(),
        },
        "42501" => match target {
            Target::OwnTables => {
                "allow this user to use the tables (GRANT SELECT, INSERT, UPDATE), and with \
                 `create = true` to create them (GRANT CREATE ON SCHEMA)"
                    .to_owned()
            }
            Target::Insert => "allow this user what `insert` does (GRANT INSERT)".to_owned(),
        },
        "25006" => READ_ONLY.to_owned(),
        "53100" => "the server's disk is full".to_owned(),
        "53300" => "the server has no connection left: raise its `max_connections`".to_owned(),
        code if code.starts_with("42") => of_table.to_owned(),
        _ => return None,
    })
}

/// Returns the message of an error without a response of the server, with its causes.
fn of_connection(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {}", shortened(timeless(&cause.to_string())));
        source = cause.source();
    }
    let remedies = [
        ("UnknownIssuer", "name the authority of the server's certificate in `ca`"),
        ("certificate expired", "renew the server's certificate, and check the clock of this machine"),
        ("not valid for name", "use a name of the certificate in `url`"),
        ("error connecting to server", "check the host and the port of `url`, and that the server runs"),
        (
            "does not support TLS",
            "set up TLS at the server, or add `sslmode=disable` to `url` if the network is trusted",
        ),
    ];
    match remedies.iter().find(|(part, _)| text.contains(part)) {
        Some((_, remedy)) => format!("{text}; {remedy}"),
        None => text,
    }
}

/// Returns the message of a TLS error without the current time, so that equal errors are logged once.
fn timeless(text: &str) -> &str {
    text.split(": verification time").next().unwrap_or(text)
}

/// Returns a message of the server on one line, cut if it is too long.
fn shortened(text: &str) -> String {
    let mut short: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_TEXT).collect();
    if text.chars().nth(MAX_TEXT).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_at_fault_for_data_and_constraints_only() {
        for (code, is_row) in [
            ("22021", true),
            ("22P02", true),
            ("23505", true),
            ("23514", true),
            ("54000", true),
            ("P0001", true),
            ("P0002", true),
            ("21000", true),
            ("44000", true),
            ("08006", false),
            ("25006", false),
            ("28P01", false),
            ("3D000", false),
            ("40001", false),
            ("40P01", false),
            ("42501", false),
            ("42P01", false),
            ("42703", false),
            ("42804", false),
            ("53100", false),
            ("53300", false),
            ("55P03", false),
            ("57014", false),
            ("57P01", false),
            ("XX000", false),
            ("", false),
        ] {
            assert_eq!(is_of_row(&SqlState::from_code(code)), is_row, "{code}");
        }
    }

    #[test]
    fn long_and_odd_texts_are_shown_short_and_on_one_line() {
        assert_eq!(shortened("a\nb\u{1b}[0m"), "a b [0m");
        assert_eq!(shortened(&"é".repeat(MAX_TEXT)).chars().count(), MAX_TEXT);
        assert_eq!(shortened(&"é".repeat(MAX_TEXT + 1)).chars().count(), MAX_TEXT + 1);
    }
}
