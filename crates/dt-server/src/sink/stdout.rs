//! The sink `stdout`: writes one line per event. Writing to a closed pipe is a failed delivery, never a panic.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;

use super::{BadPlace, Format, OpenError, Outcome, Sink, SinkContext, SinkError, SinkSettings};
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

    fn probe(&self, _: SinkContext) -> Option<Result<String, SinkError>> {
        Some(Ok("standard output needs no connection".to_owned()))
    }
}

/// Writes one line per event to a stream, by default the program's standard output.
pub struct StdoutSink {
    format: Format,
    out: Box<dyn Write + Send>,
    /// Whether the last write failed and may have left an incomplete line, so that a line feed is written first.
    needs_newline: bool,
    lines: Vec<u8>,
}

impl std::fmt::Debug for StdoutSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StdoutSink").field("format", &self.format).finish_non_exhaustive()
    }
}

impl StdoutSink {
    /// Creates a sink that writes to standard output without the buffer of `std::io::Stdout`, so that a successful write
    /// has reached the kernel.
    ///
    /// # Errors
    ///
    /// The error of the operating system if standard output is closed and its file descriptor cannot be duplicated.
    pub fn new(format: Format) -> io::Result<Self> {
        let fd = io::stdout().as_fd().try_clone_to_owned()?;
        Ok(Self::to(Box::new(File::from(fd)), format))
    }

    /// Creates a sink that writes to this stream.
    #[must_use]
    pub fn to(out: Box<dyn Write + Send>, format: Format) -> Self {
        Self { format, out, needs_newline: false, lines: Vec::new() }
    }
}

impl Sink for StdoutSink {
    fn open(&mut self, _checkpoint: Option<&[u8]>) -> Result<(), OpenError> {
        Ok(())
    }

    fn deliver(&mut self, batch: &[Arc<Record>]) -> Outcome {
        self.lines.clear();
        if self.needs_newline {
            self.lines.push(b'\n');
        }
        for record in batch {
            self.format.write_line(record, &mut self.lines);
        }
        match self.out.write_all(&self.lines).and_then(|()| self.out.flush()) {
            Ok(()) => {
                self.needs_newline = false;
                Outcome::delivered(batch.len())
            }
            Err(error) => {
                self.needs_newline = true;
                Outcome::retry(batch.len(), &format!("standard output: {error}"))
            }
        }
    }
}
