//! The sink `stdout`: one line an event. A pipe that is closed, or full for ever, is "not delivered", never a panic.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;

use super::{BadPlace, Format, OpenError, Outcome, Sink, SinkContext, SinkSettings};
use dt_sink::config::config_keys;
use dt_sink::record::Record;

config_keys! {
    /// The settings of the sink `stdout`: none.
    #[derive(Debug, Clone, PartialEq, Eq)]
    #[non_exhaustive]
    pub struct StdoutConfig {}
}

impl SinkSettings for StdoutConfig {
    const NAME: &'static str = "stdout";
    const PLACE: Option<&'static str> = None;
    const ABOUT: &'static str = "The program's standard output.";

    fn from_place(_: &str) -> Result<Self, BadPlace> {
        Ok(Self::default())
    }

    fn sink(&self, context: SinkContext) -> Result<Box<dyn Sink>, OpenError> {
        let unusable = |error| OpenError::Unusable(format!("standard output: {error}"));
        Ok(Box::new(StdoutSink::new(context.format).map_err(unusable)?))
    }
}

/// Writes one line an event to a stream, by default the program's standard output.
pub struct StdoutSink {
    format: Format,
    out: Box<dyn Write + Send>,
    /// A write failed midway: the next line begins on a line of its own.
    torn: bool,
    lines: Vec<u8>,
}

impl std::fmt::Debug for StdoutSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StdoutSink").field("format", &self.format).finish_non_exhaustive()
    }
}

impl StdoutSink {
    /// Writes to standard output, past the buffer of `std::io::Stdout`: what was written is known to be written.
    ///
    /// # Errors
    ///
    /// The error of duplicating the file descriptor, when standard output is closed.
    pub fn new(format: Format) -> io::Result<Self> {
        let fd = io::stdout().as_fd().try_clone_to_owned()?;
        Ok(Self::to(Box::new(File::from(fd)), format))
    }

    /// Writes to another stream.
    #[must_use]
    pub fn to(out: Box<dyn Write + Send>, format: Format) -> Self {
        Self { format, out, torn: false, lines: Vec::new() }
    }
}

impl Sink for StdoutSink {
    fn open(&mut self, _checkpoint: Option<&[u8]>) -> Result<(), OpenError> {
        Ok(())
    }

    fn deliver(&mut self, batch: &[Arc<Record>]) -> Outcome {
        self.lines.clear();
        if self.torn {
            self.lines.push(b'\n');
        }
        for record in batch {
            self.format.write_line(record, &mut self.lines);
        }
        match self.out.write_all(&self.lines).and_then(|()| self.out.flush()) {
            Ok(()) => {
                self.torn = false;
                Outcome::delivered(batch.len())
            }
            Err(error) => {
                self.torn = true;
                Outcome::retry(batch.len(), &format!("standard output: {error}"))
            }
        }
    }
}
