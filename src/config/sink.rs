//! A sink's part of the configuration: `[[sink]]`, or `--sink` on the command line.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use super::connector::required_name;
use super::reader::Section;
use crate::record::Format;

/// One sink.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SinkConfig {
    /// Its name, in logs, metrics and `connector.sinks`.
    pub name: Arc<str>,
    /// What it is.
    pub kind: SinkKind,
    /// What it writes.
    pub format: Format,
}

/// What a sink is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SinkKind {
    /// The program's standard output.
    Stdout,
    /// A file of one line an event.
    File {
        /// Where it is.
        path: PathBuf,
    },
}

impl SinkConfig {
    /// The sink that is used when none is given.
    #[must_use]
    pub fn stdout() -> Self {
        Self { name: Arc::from("stdout"), kind: SinkKind::Stdout, format: Format::default() }
    }

    pub(super) fn read(mut section: Section<'_>) -> Option<Self> {
        let name = required_name(&mut section);
        let mut format = Format::default();
        match section.string("format").as_deref() {
            None => {}
            Some("cloudevents") => {
                section.complain(
                    "format",
                    "\"cloudevents\" is not built in this version; allowed are body, envelope".to_owned(),
                );
            }
            Some(text) => match text.parse() {
                Ok(read) => format = read,
                Err(_) => section.problem("format", text, "body, envelope"),
            },
        }
        let kind = match section.string("type").as_deref() {
            Some("stdout") => Some(SinkKind::Stdout),
            Some("file") => match section.string("path") {
                Some(path) if !path.is_empty() => Some(SinkKind::File { path: PathBuf::from(path) }),
                _ => {
                    section.complain("path", "is missing; name the file to append to".to_owned());
                    None
                }
            },
            Some("kafka") => {
                section.complain(
                    "type",
                    "\"kafka\" is not built in this version; allowed are stdout, file".to_owned(),
                );
                None
            }
            Some(other) => {
                section.problem("type", other, "stdout, file");
                None
            }
            None => {
                section.complain("type", "is missing; allowed are stdout, file".to_owned());
                None
            }
        };
        section.finish();
        Some(Self { name: name?, kind: kind?, format })
    }
}

/// Not a sink, in words for the command line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotASink(String);

impl FromStr for SinkConfig {
    type Err = NotASink;

    /// Reads `stdout` or `file:PATH`.
    fn from_str(text: &str) -> Result<Self, NotASink> {
        match text.split_once(':') {
            None if text == "stdout" => Ok(Self::stdout()),
            Some(("file", path)) if !path.is_empty() => Ok(Self {
                name: Arc::from("file"),
                kind: SinkKind::File { path: PathBuf::from(path) },
                format: Format::default(),
            }),
            Some(("kafka", _)) => Err(NotASink(
                "the kafka sink is not built in this version; allowed are stdout, file:PATH".to_owned(),
            )),
            _ => Err(NotASink(format!(
                "\"{}\" is no sink; allowed are stdout, file:PATH",
                text.escape_debug()
            ))),
        }
    }
}
