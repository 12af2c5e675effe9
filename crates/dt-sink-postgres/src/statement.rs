//! The operator's own statement, `insert = "INSERT …"`: finds its named parameters such as `:event_id`, and replaces them by
//! those of the protocol, `$1` and so on. Values are always passed as parameters, never as a part of the text.

use std::fmt;

use tokio_postgres::types::Type;

/// A value of an event that can be a parameter of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parameter {
    EventId,
    Connector,
    Project,
    Device,
    EventType,
    Timestamp,
    ReceivedAt,
    Labels,
    Data,
    Body,
}

/// The name of each parameter after the colon, and its type.
const PARAMETERS: [(&str, Parameter, Type); 10] = [
    ("event_id", Parameter::EventId, Type::TEXT),
    ("connector", Parameter::Connector, Type::TEXT),
    ("project", Parameter::Project, Type::TEXT),
    ("device", Parameter::Device, Type::TEXT),
    ("type", Parameter::EventType, Type::TEXT),
    ("timestamp", Parameter::Timestamp, Type::TIMESTAMPTZ),
    ("received_at", Parameter::ReceivedAt, Type::TIMESTAMPTZ),
    ("labels", Parameter::Labels, Type::JSONB),
    ("data", Parameter::Data, Type::JSONB),
    ("body", Parameter::Body, Type::BYTEA),
];

/// A statement whose named parameters were replaced by those of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The text of the statement as configured.
    text: String,
    /// The text of the statement for the server.
    sql: String,
    /// The parameters `$1`, `$2` and so on, in this order.
    parameters: Vec<Parameter>,
    types: Vec<Type>,
}

/// Why a text is not a valid statement for a sink.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAStatement {
    /// The statement is not an `INSERT`.
    #[error("it does not begin with INSERT or WITH")]
    NotAnInsert,
    /// A name after a colon is not the name of a parameter.
    #[error("unknown parameter :{0}; expected {expected}", expected = names())]
    Unknown(String),
    /// The statement contains a parameter of the protocol, such as `$1`.
    #[error("${0} is no parameter; expected {expected}", expected = names())]
    Positional(String),
    /// The statement has no parameter, so that all rows would be equal.
    #[error("it has no parameter; expected some of {expected}", expected = names())]
    NoParameters,
    /// A quote, a comment or a dollar quote is not closed.
    #[error("{0} has no end")]
    Unfinished(&'static str),
}

fn names() -> String {
    let names: Vec<String> = PARAMETERS.iter().map(|(name, ..)| format!(":{name}")).collect();
    names.join(", ")
}

impl Statement {
    /// Parses a statement. A colon in a quote, in a comment or in a cast (`::`) does not begin a parameter.
    ///
    /// # Errors
    ///
    /// [`NotAStatement`] with the reason.
    pub fn parse(text: &str) -> Result<Self, NotAStatement> {
        let first: String = text.trim_start().chars().take_while(char::is_ascii_alphabetic).collect();
        if !["insert", "with"].contains(&first.to_ascii_lowercase().as_str()) {
            return Err(NotAStatement::NotAnInsert);
        }
        let mut statement =
            Self { text: text.to_owned(), sql: String::new(), parameters: Vec::new(), types: Vec::new() };
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let taken = match c {
                ':' => statement.colon(rest)?,
                '$' => statement.dollar(rest)?,
                _ => statement.copy(rest, plain(rest, &statement.sql)?),
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
        if statement.parameters.is_empty() {
            return Err(NotAStatement::NoParameters);
        }
        Ok(statement)
    }

    /// Returns the text of the statement for the server.
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// Returns the parameters `$1`, `$2` and so on, in this order.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Returns the types of the parameters `$1`, `$2` and so on, in this order.
    pub fn types(&self) -> &[Type] {
        &self.types
    }

    /// Copies the first `len` bytes of the rest to the text for the server, and returns their number.
    fn copy(&mut self, rest: &str, len: usize) -> usize {
        self.sql.push_str(rest.get(..len).unwrap_or(rest));
        len
    }

    /// Processes a colon and the text that it begins: a cast, a parameter, or the bound of an array slice.
    fn colon(&mut self, rest: &str) -> Result<usize, NotAStatement> {
        let after = rest.get(1..).unwrap_or_default();
        if after.starts_with([':', '=']) {
            return Ok(self.copy(rest, 2));
        }
        let name = word(after);
        if name.is_empty() {
            return Ok(self.copy(rest, 1));
        }
        let Some((_, parameter, sql_type)) = PARAMETERS.iter().find(|(known, ..)| *known == name) else {
            return Err(NotAStatement::Unknown(name.chars().take(64).collect()));
        };
        let at = self.parameters.iter().position(|known| known == parameter).unwrap_or_else(|| {
            self.parameters.push(*parameter);
            self.types.push(sql_type.clone());
            self.parameters.len().saturating_sub(1)
        });
        self.sql.push_str(&format!("${}", at.saturating_add(1)));
        Ok(name.len().saturating_add(1))
    }

    /// Processes a dollar sign and the text that it begins: a quoted text `$tag$…$tag$`, a part of a name, or only the sign.
    fn dollar(&mut self, rest: &str) -> Result<usize, NotAStatement> {
        let after = rest.get(1..).unwrap_or_default();
        // `$` may be a part of a name, after its first character.
        if self.sql.chars().last().is_some_and(is_of_word) {
            return Ok(self.copy(rest, 1));
        }
        if after.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(NotAStatement::Positional(
                after.chars().take_while(char::is_ascii_digit).take(9).collect(),
            ));
        }
        let tag = word(after);
        if !after.get(tag.len()..).is_some_and(|after| after.starts_with('$')) {
            return Ok(self.copy(rest, 1));
        }
        let open = tag.len().saturating_add(2);
        let quote = rest.get(..open).unwrap_or_default();
        let inside = rest.get(open..).unwrap_or_default();
        let end = inside.find(quote).ok_or(NotAStatement::Unfinished("a dollar quote"))?;
        Ok(self.copy(rest, end.saturating_add(open).saturating_add(open)))
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

/// Returns the name at the beginning of a text; empty if there is none.
fn word(text: &str) -> &str {
    if !text.starts_with(|c: char| c.is_alphabetic() || c == '_') {
        return "";
    }
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_'));
    text.get(..end.unwrap_or(text.len())).unwrap_or_default()
}

/// Returns the length of the quote, the comment or the other character at the beginning of a text, which is not empty. `before`
/// is the text before it.
fn plain(rest: &str, before: &str) -> Result<usize, NotAStatement> {
    let open = |mark: &str| rest.starts_with(mark);
    if open("'") {
        // `E'…'`, unless the `E` is the end of a longer word.
        let prefix = before.strip_suffix(['e', 'E']);
        return quoted(rest, '\'', prefix.is_some_and(|before| !before.ends_with(is_of_word)));
    }
    if open("\"") {
        return quoted(rest, '"', false);
    }
    if open("--") {
        return Ok(rest.find('\n').unwrap_or(rest.len()));
    }
    if open("/*") {
        return comment(rest);
    }
    Ok(rest.chars().next().map_or(1, char::len_utf8))
}

/// Returns the length of a quoted text. A doubled quote does not end it; with `has_escapes`, `\'` does not end it either.
fn quoted(rest: &str, quote: char, has_escapes: bool) -> Result<usize, NotAStatement> {
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\\' && has_escapes {
            chars.next();
        } else if c == quote && chars.next_if(|(_, next)| *next == quote).is_none() {
            return Ok(at.saturating_add(1));
        }
    }
    Err(NotAStatement::Unfinished("a quote"))
}

/// Returns the length of a comment, which may contain other comments.
fn comment(rest: &str) -> Result<usize, NotAStatement> {
    let (mut at, mut depth) = (0_usize, 0_usize);
    while let Some(text) = rest.get(at..).filter(|text| !text.is_empty()) {
        let step = if text.starts_with("/*") {
            depth = depth.saturating_add(1);
            2
        } else if text.starts_with("*/") {
            depth = depth.saturating_sub(1);
            2
        } else {
            text.chars().next().map_or(1, char::len_utf8)
        };
        at = at.saturating_add(step);
        if depth == 0 {
            return Ok(at);
        }
    }
    Err(NotAStatement::Unfinished("a comment"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sql(text: &str) -> Result<String, NotAStatement> {
        Statement::parse(text).map(|statement| statement.sql)
    }

    #[test]
    fn parameters_are_numbered_and_each_has_one_number() {
        let statement =
            Statement::parse("INSERT INTO t VALUES (:body, :event_id, :body)").expect("a statement");
        assert_eq!(statement.sql(), "INSERT INTO t VALUES ($1, $2, $1)");
        assert_eq!(statement.parameters(), [Parameter::Body, Parameter::EventId]);
        assert_eq!(statement.types(), [Type::BYTEA, Type::TEXT]);
        assert_eq!(statement.to_string(), "INSERT INTO t VALUES (:body, :event_id, :body)");
    }

    #[test]
    fn casts_quotes_and_comments_are_left_alone() {
        for (text, expected) in [
            ("INSERT INTO t VALUES (:event_id::uuid)", "INSERT INTO t VALUES ($1::uuid)"),
            (
                "with x as (select 1) insert into t values (:type)",
                "with x as (select 1) insert into t values ($1)",
            ),
            ("INSERT INTO t VALUES (':body', :body)", "INSERT INTO t VALUES (':body', $1)"),
            ("INSERT INTO t VALUES ('it''s :body', :body)", "INSERT INTO t VALUES ('it''s :body', $1)"),
            (r"INSERT INTO t VALUES (E'\':body', :body)", r"INSERT INTO t VALUES (E'\':body', $1)"),
            (r"INSERT INTO t VALUES (date'\', :body)", r"INSERT INTO t VALUES (date'\', $1)"),
            (r"INSERT INTO t VALUES ('\', :body)", r"INSERT INTO t VALUES ('\', $1)"),
            ("INSERT INTO \"a:body\"\"\" VALUES (:body)", "INSERT INTO \"a:body\"\"\" VALUES ($1)"),
            ("INSERT INTO t -- :body '\nVALUES (:body)", "INSERT INTO t -- :body '\nVALUES ($1)"),
            (
                "INSERT /* :x /* :y */ ' */ INTO t VALUES (:body)",
                "INSERT /* :x /* :y */ ' */ INTO t VALUES ($1)",
            ),
            ("INSERT INTO t VALUES ($$:body$$, :body)", "INSERT INTO t VALUES ($$:body$$, $1)"),
            ("INSERT INTO t VALUES ($a$ $$:x $a$, :body)", "INSERT INTO t VALUES ($a$ $$:x $a$, $1)"),
            ("INSERT INTO a$1 VALUES (:body)", "INSERT INTO a$1 VALUES ($1)"),
            (
                "INSERT INTO t VALUES (f(a => 1, b := 2), :body)",
                "INSERT INTO t VALUES (f(a => 1, b := 2), $1)",
            ),
            (
                "INSERT INTO t SELECT ('{1,2}'::int[])[1:2], :body",
                "INSERT INTO t SELECT ('{1,2}'::int[])[1:2], $1",
            ),
            ("INSERT INTO t VALUES ('é:x', :labels -> 'é')", "INSERT INTO t VALUES ('é:x', $1 -> 'é')"),
        ] {
            assert_eq!(sql(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_statement_is_named() {
        for (text, error) in [
            ("", NotAStatement::NotAnInsert),
            ("DROP TABLE dt_events", NotAStatement::NotAnInsert),
            ("INSERT INTO t VALUES (1)", NotAStatement::NoParameters),
            ("INSERT INTO t VALUES (:id)", NotAStatement::Unknown("id".to_owned())),
            ("INSERT INTO t VALUES (:event_id2)", NotAStatement::Unknown("event_id2".to_owned())),
            ("INSERT INTO t VALUES (:Body)", NotAStatement::Unknown("Body".to_owned())),
            ("INSERT INTO t VALUES ($1)", NotAStatement::Positional("1".to_owned())),
            ("INSERT INTO t VALUES ('a, :body)", NotAStatement::Unfinished("a quote")),
            ("INSERT INTO \"t VALUES (:body)", NotAStatement::Unfinished("a quote")),
            ("INSERT /* /* */ INTO t VALUES (:body)", NotAStatement::Unfinished("a comment")),
            ("INSERT INTO t VALUES ($a$, :body)", NotAStatement::Unfinished("a dollar quote")),
        ] {
            assert_eq!(sql(text), Err(error), "{text}");
        }
    }
}
