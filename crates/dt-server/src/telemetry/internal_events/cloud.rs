//! Internal events of the monitor and the back-fill.

use super::{InternalEvent, Telemetry};

/// The monitor found a problem at DT, or one that has changed.
#[derive(Debug)]
pub struct CloudProblemFound<'a> {
    /// The problem, with its remedy.
    pub problem: &'a str,
    /// The stable code of the problem.
    pub code: &'static str,
}

impl InternalEvent for CloudProblemFound<'_> {
    fn emit(&self, _: &Telemetry) {
        let Self { problem, code } = self;
        tracing::warn!(code, problem, "the monitor found a problem");
    }
}

/// A problem that the monitor had found is gone.
#[derive(Debug)]
pub struct CloudProblemEnded<'a> {
    /// The problem, as it was reported.
    pub problem: &'a str,
    /// The stable code of the problem.
    pub code: &'static str,
}

impl InternalEvent for CloudProblemEnded<'_> {
    fn emit(&self, _: &Telemetry) {
        let Self { problem, code } = self;
        tracing::info!(code, problem, "a problem that the monitor found is gone");
    }
}

/// The stream of a source is open.
#[derive(Debug)]
pub struct StreamOpened<'a> {
    /// The name of the source.
    pub source: &'a str,
}

impl InternalEvent for StreamOpened<'_> {
    fn emit(&self, _: &Telemetry) {
        let Self { source } = self;
        tracing::info!(source, "the stream is open");
    }
}

/// The stream of a source could not be opened, or ended before anything was read. Emitted once until it works again.
#[derive(Debug)]
pub struct StreamBroken<'a> {
    /// The name of the source.
    pub source: &'a str,
    /// The error, with its remedy.
    pub error: &'a str,
}

impl InternalEvent for StreamBroken<'_> {
    fn emit(&self, _: &Telemetry) {
        let Self { source, error } = self;
        tracing::warn!(source, error, "the stream cannot be read; it is tried again");
    }
}

/// Events of a source cannot be stored. No more are read until they are.
#[derive(Debug)]
pub struct StreamNotStored<'a> {
    /// The name of the source.
    pub source: &'a str,
    /// Why they cannot be stored.
    pub error: &'a str,
}

impl InternalEvent for StreamNotStored<'_> {
    fn emit(&self, _: &Telemetry) {
        let Self { source, error } = self;
        tracing::warn!(
            source,
            error,
            "events of the stream cannot be stored; no more are read until they are"
        );
    }
}

/// An event of a source cannot be stored, or is not understood. Emitted at most once a minute.
#[derive(Debug)]
pub struct StreamEventRefused<'a> {
    /// The name of the source.
    pub source: &'a str,
    /// Why it is not stored.
    pub why: &'a str,
}

impl InternalEvent for StreamEventRefused<'_> {
    fn emit(&self, _: &Telemetry) {
        let Self { source, why } = self;
        tracing::warn!(source, why, "an event of the stream is not stored");
    }
}

/// A Data Connector is disabled.
#[derive(Debug)]
pub struct ConnectorDisabled<'a> {
    /// The name of the connector in the configuration.
    pub connector: &'a str,
    /// The id of the project.
    pub project: &'a str,
    /// The id of the Data Connector.
    pub id: &'a str,
    /// Whether DT disabled it; otherwise a person did.
    pub by_system: bool,
}

impl InternalEvent for ConnectorDisabled<'_> {
    fn emit(&self, _: &Telemetry) {
        let Self { connector, project, id, by_system } = self;
        if *by_system {
            tracing::error!(
                connector,
                project,
                id,
                "DT has disabled the Data Connector: it delivers no events"
            );
        } else {
            tracing::info!(
                connector,
                project,
                id,
                "a person has disabled the Data Connector: it delivers no events"
            );
        }
    }
}

/// A Data Connector that was disabled is `ACTIVE` again.
#[derive(Debug)]
pub struct ConnectorEnabled<'a> {
    /// The name of the connector in the configuration.
    pub connector: &'a str,
    /// The id of the project.
    pub project: &'a str,
    /// The id of the Data Connector.
    pub id: &'a str,
    /// Whether the monitor set it to `ACTIVE`.
    pub by_monitor: bool,
}

impl InternalEvent for ConnectorEnabled<'_> {
    fn emit(&self, _: &Telemetry) {
        let Self { connector, project, id, by_monitor } = self;
        tracing::info!(connector, project, id, by_monitor, "the Data Connector is ACTIVE again");
    }
}

/// A window of time has to be fetched from the event history.
#[derive(Debug)]
pub struct WindowOpened<'a> {
    /// The id of the project.
    pub project: &'a str,
    /// Why it has to be fetched.
    pub cause: &'a str,
    /// The start, in RFC 3339.
    pub from: &'a str,
    /// The end, in RFC 3339.
    pub until: &'a str,
    /// The number of devices; `None` for all devices of the project.
    pub devices: Option<usize>,
}

impl InternalEvent for WindowOpened<'_> {
    fn emit(&self, _: &Telemetry) {
        let Self { project, cause, from, until, devices } = self;
        tracing::info!(
            project,
            cause,
            from,
            until,
            devices,
            "events may be missing: the event history will be fetched"
        );
    }
}

/// A window of time was fetched from the event history.
#[derive(Debug)]
pub struct WindowClosed<'a> {
    /// The id of the project.
    pub project: &'a str,
    /// Why it was fetched.
    pub cause: &'a str,
    /// The start, in RFC 3339.
    pub from: &'a str,
    /// The end, in RFC 3339.
    pub until: &'a str,
    /// The number of devices.
    pub devices: u64,
    /// The number of events that were fetched.
    pub fetched: u64,
    /// The number of these that were received before.
    pub known: u64,
    /// The number of these that were stored now.
    pub filled: u64,
    /// What is still missing, and why; `None` if nothing is.
    pub missing: Option<&'a str>,
}

impl InternalEvent for WindowClosed<'_> {
    fn emit(&self, _: &Telemetry) {
        let Self { project, cause, from, until, devices, fetched, known, filled, missing } = self;
        match missing {
            None => tracing::info!(
                project,
                cause,
                from,
                until,
                devices,
                fetched,
                known,
                filled,
                "a window of the event history was fetched"
            ),
            Some(missing) => tracing::warn!(
                project,
                cause,
                from,
                until,
                devices,
                fetched,
                known,
                filled,
                missing,
                "a window of the event history was fetched, but not all of it"
            ),
        }
    }
}

/// The system clock was set, by more than five minutes.
#[derive(Debug)]
pub struct ClockJumped {
    /// The number of seconds by which it was set; negative if it was set back.
    pub seconds: i64,
}

impl InternalEvent for ClockJumped {
    fn emit(&self, _: &Telemetry) {
        tracing::warn!(seconds = self.seconds, "the system clock was set; check its synchronisation (NTP)");
    }
}
