//! The tables and keys of a configuration, as data. `docs/configuration.md`, the sample file and `config reference` are written
//! from it. The rows are created from the entries of [`config_keys!`](crate::config_keys).

/// A configuration key: its name, its allowed values, and its default.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Key {
    /// The name of the key in its table, without a path.
    pub name: &'static str,
    /// The type and the range of the key's value, in Markdown.
    pub allowed: String,
    /// The purpose of the key, in Markdown.
    pub meaning: String,
    /// The default: what applies if the key is absent.
    pub default: KeyDefault,
    /// The value for the sample file, as TOML; `None` if the default serves as the sample.
    pub sample: Option<String>,
    /// The key of the same table that must be absent if this key is given; `None` if there is no such key.
    pub instead_of: Option<&'static str>,
    /// Whether a running receiver takes a new value by a reload.
    pub reload: Reload,
}

/// What applies if a key is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyDefault {
    /// There is no default: the key is required, and a configuration without it is invalid.
    Needed,
    /// No value, or what the meaning of the key says.
    None,
    /// This value, written as TOML.
    Value(String),
    /// A default that is described in words.
    Words(&'static str),
}

/// Whether a running receiver takes a new value of a key by a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// A reload takes the new value.
    Yes,
    /// The new value takes effect after a restart of the receiver.
    Restart,
    /// In mode `direct`, the new value takes effect after a restart; in mode `spool`, a reload takes it.
    RestartInDirect,
}

/// A table of the configuration: its header and its keys.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Table {
    /// The header of the table in the file, such as `[[connector.secrets]]`; empty for the top level of the file.
    pub header: String,
    /// The lines of TOML that precede the keys, for a table with several kinds (such as `type = "kafka"`).
    pub given: String,
    /// The purpose of the table, in Markdown.
    pub about: String,
    /// The keys of the table; empty if the author of the file chooses their names.
    pub keys: Vec<Key>,
}

impl Key {
    /// Creates a key without a default, whose new value a reload takes.
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

    /// Sets the value for the sample file, as TOML.
    #[must_use]
    pub fn sample(mut self, toml: &str) -> Self {
        self.sample = Some(toml.to_owned());
        self
    }

    /// Names the key of the same table that must be absent if this key is given.
    #[must_use]
    pub const fn instead_of(mut self, key: &'static str) -> Self {
        self.instead_of = Some(key);
        self
    }

    /// Sets the default of the key.
    #[must_use]
    pub fn or(mut self, default: KeyDefault) -> Self {
        self.default = default;
        self
    }

    /// Returns the value that the sample file shows for the key, as TOML.
    #[must_use]
    pub fn shown(&self) -> &str {
        match (&self.sample, &self.default) {
            (Some(toml), _) | (None, KeyDefault::Value(toml)) => toml,
            (None, _) => "\"\"",
        }
    }
}

impl Table {
    /// Creates a table from its header in the file, such as `[limits]`, its purpose in Markdown, and its keys.
    pub fn new(header: impl Into<String>, about: impl Into<String>, keys: Vec<Key>) -> Self {
        Self { header: header.into(), given: String::new(), about: about.into(), keys }
    }

    /// Sets the lines of TOML that precede the keys.
    #[must_use]
    pub fn given(mut self, toml: impl Into<String>) -> Self {
        self.given = toml.into();
        self
    }

    /// Moves the table below another one: `[tls]` below `sink` becomes `[sink.tls]`.
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
