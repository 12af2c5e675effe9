//! Reads a configuration: the parts that the server and the settings of sinks share. Nothing in this module depends on the
//! server.
//!
//! A table of the file is a struct, declared by [`config_keys!`] with one [`entry`] for each key, which describes the allowed
//! values and the purpose of the key. To read a file: [`Section::root`] takes the parsed text, the structs read their keys from
//! it, and [`Problems`] collects the errors and warnings.

mod changes;
mod client_tls;
pub mod entry;
mod keys;
mod lines;
mod problem;
mod secret;
mod section;
mod source;
mod suggest;
mod table;
mod table_entry;
mod units;

pub use changes::{Changes, ConfigChange};
pub use client_tls::{BadTlsFile, ClientTls, PemFile, TlsEntry};
pub use entry::{
    Entry, Keys, OptionalEntry, custom, duration, flag, flat, name, number, parsed, path, size, table, text,
    texts, unchecked, word,
};
pub use keys::config_keys;
pub use lines::{Lines, below, segments};
pub use problem::{Problem, Problems};
pub use secret::{
    SecretError, SecretSource, is_name, needed_secret, optional_secret, read_secret, read_source,
    secret_keys, stand_in,
};
pub use section::{FlagOrSection, NamedValue, Section};
pub use source::{Sources, SystemSources};
pub use suggest::{closest, did_you_mean};
pub use table::{Key, KeyDefault, Reload, Table};
pub use table_entry::{OptionalTable, SecretEntry, TableEntry, optional_table};
pub use units::{read_duration, read_size, write_duration, write_size};
