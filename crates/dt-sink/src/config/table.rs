//! What a configuration may hold, as data: tables and their keys. `docs/configuration.md`, the sample file and
//! `config reference` are written from it. The rows themselves come from the entries of
//! [`config_keys!`](crate::config_keys).

/// A key, and what may stand there.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Key {
    /// The name of the key in its table, without a path.
    pub name: &'static str,
    /// The type and the range of its value, in Markdown.
    pub allowed: String,
    /// What the key is for, in Markdown.
    pub meaning: String,
    /// What holds if the key is not given.
    pub default: KeyDefault,
    /// A value to show, as TOML; `None` where the default is one.
    pub sample: Option<String>,
    /// The key of the same table that it cannot stand beside.
    pub instead_of: Option<&'static str>,
    /// Whether a reload takes a new value.
    pub reload: Reload,
}

/// What holds if a key is not given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyDefault {
    /// The configuration is invalid: the key has to be given.
    Needed,
    /// Nothing, or what the meaning says.
    None,
    /// This value, as TOML.
    Value(String),
    /// What these words say.
    Words(&'static str),
}

/// Whether a running receiver takes a new value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// A reload takes the new value.
    Yes,
    /// The receiver has to be started again.
    Restart,
    /// In mode `direct` the receiver has to be started again; in mode `spool` a reload takes the new value.
    RestartInDirect,
}

/// The keys of a table.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Table {
    /// The line of the file that begins the table, such as `[[connector.secrets]]`; empty for the top of the file.
    pub header: String,
    /// Lines of TOML that the keys stand below, for a table that comes in several kinds.
    pub given: String,
    /// What the table is for, in Markdown.
    pub about: String,
    /// The keys of the table; none where the author of the file chooses their names.
    pub keys: Vec<Key>,
}

impl Key {
    /// Describes a key without a default, which a reload takes.
    pub fn new(name: &'static str, allowed: impl Into<String>, meaning: impl Into<String>) -> Self {
        Self {
            name,
            allowed: allowed.into(),
            meaning: meaning.into(),
            default: KeyDefault::None,
            sample: None,
            instead_of: None,
            reload: Reload::Yes,
        }
    }

    /// Sets a value to show, as TOML.
    #[must_use]
    pub fn sample(mut self, toml: &str) -> Self {
        self.sample = Some(toml.to_owned());
        self
    }

    /// Names the key that it stands in place of.
    #[must_use]
    pub const fn instead_of(mut self, key: &'static str) -> Self {
        self.instead_of = Some(key);
        self
    }

    /// Sets what holds without it.
    #[must_use]
    pub fn or(mut self, default: KeyDefault) -> Self {
        self.default = default;
        self
    }

    /// Returns the value that the sample file shows.
    #[must_use]
    pub fn shown(&self) -> &str {
        match (&self.sample, &self.default) {
            (Some(toml), _) | (None, KeyDefault::Value(toml)) => toml,
            (None, _) => "\"\"",
        }
    }
}

impl Table {
    /// Describes a table by its line in the file, such as `[limits]`, and its keys.
    pub fn new(header: impl Into<String>, about: impl Into<String>, keys: Vec<Key>) -> Self {
        Self { header: header.into(), given: String::new(), about: about.into(), keys }
    }

    /// Sets the lines of TOML that the keys stand below.
    #[must_use]
    pub fn given(mut self, toml: impl Into<String>) -> Self {
        self.given = toml.into();
        self
    }

    /// Puts it below another table: `[tls]` below `sink` is `[sink.tls]`.
    #[must_use]
    pub fn below(mut self, parent: &str) -> Self {
        let brackets = self.header.chars().take_while(|c| *c == '[').count();
        self.header.insert_str(brackets, &format!("{parent}."));
        self
    }

    /// Returns the path of the table: its header without brackets.
    #[must_use]
    pub fn path(&self) -> &str {
        self.header.trim_matches(['[', ']'])
    }
}
