//! `backfill`: fetches a window of the event history of a DT project, and stores what is missing.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::api::{self, ApiOptions};
use super::spool_access::{SpoolOptions, read_config_with_secrets};
use super::time::date_or_since;
use super::{Ended, Failure, complain, runtime, say, usage};
use dt_api::{Client, Error, Target};
use dt_server::cloud::backfill::{
    Backfill, BackfillError, HISTORY_MILLIS, INDEXING_DELAY_MILLIS, MANUAL, Progress, Report, WalkOptions,
};
use dt_server::cloud::store::{CloudStore, NewWindow};
use dt_server::config::ApiSettings;
use dt_sink::clock::{Clock, SystemClock};
use dt_verify::event::rfc3339_millis;

/// The largest number of connectors that are listed. A project has at most 10.
const MAX_CONNECTORS: usize = 1000;

/// The default of the largest number of requests per second. DT's own limit is not known.
const REQUESTS_PER_SECOND: u32 = 5;

/// The interval between two updates of the progress bar.
const REFRESH: Duration = Duration::from_millis(200);

/// Fetch a window of DT's event history, and store what this receiver has missed; safe beside a running server
#[derive(Debug, clap::Args)]
#[command(after_help = format!("Examples:
  export DT_SERVICE_ACCOUNT_KEY_ID=… DT_SERVICE_ACCOUNT_SECRET=… DT_SERVICE_ACCOUNT_EMAIL=…
  dt-receiver backfill --config dt-receiver.toml --project c0md3mm0c7pet3vico8g --since 2026-11-20 --dry-run
  dt-receiver backfill --config dt-receiver.toml --project c0md3mm0c7pet3vico8g --since 2026-11-20 --until 2026-11-22
  dt-receiver backfill --config dt-receiver.toml --project c0md3mm0c7pet3vico8g --since 2h --device c0pppd1qdqebrvv1iqp0

DT keeps 31 days. The same command after an interruption continues where it stopped, if --since is a date or a time.
The exit code is 1 if something is still missing; the report says what, and why.

{}", api::HELP))]
pub struct Arguments {
    /// The configuration of the receiver
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The id of the project
    #[arg(long, value_name = "ID")]
    project: String,
    /// The start of the window: a date (UTC), a time, or a time ago such as 2h
    #[arg(long, value_name = "TIME", value_parser = date_or_since)]
    since: i64,
    /// The end of the window, which is no part of it [default: 10 s ago, since DT indexes events with a delay]
    #[arg(long, value_name = "TIME", value_parser = date_or_since)]
    until: Option<i64>,
    /// Fetch only this device; can be repeated [default: all devices of the project]
    #[arg(long = "device", value_name = "ID")]
    devices: Vec<String>,
    /// Fetch and compare, but store nothing
    #[arg(long)]
    dry_run: bool,
    /// Also store events that are older than the ids that the receiver keeps: sinks may get them twice
    #[arg(long)]
    allow_duplicates: bool,
    /// The largest number of requests per second [default: that of `[api]` in the configuration, else 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    requests_per_second: Option<u32>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiOptions,
}

/// A walk that is ready to start.
struct Prepared {
    backfill: Backfill,
    window: NewWindow,
    id: Option<i64>,
    options: WalkOptions,
}

pub fn run(arguments: &Arguments) -> Ended {
    let spool = SpoolOptions::of_config(arguments.config.clone()).find()?;
    let has_table = spool.config.as_ref().is_some_and(|config| config.api.is_some());
    let client = client(arguments, has_table)?;
    let window = window(arguments)?;
    let (fill, is_served) = spool.filler()?;
    let data = spool.folder.parent().map(std::path::Path::to_owned).unwrap_or_default();
    // A dry run changes nothing.
    let store = (!arguments.dry_run).then(|| CloudStore::open(&data).map(Arc::new)).transpose();
    let store = store.map_err(usage)?;
    let (window, id) = match &store {
        Some(store) => to_walk(store, window, arguments.until.is_some())?,
        None => (window, None),
    };
    if !is_served && !arguments.dry_run {
        complain(
            "no server runs on this spool: it is locked until this is done, and the sinks get the events at the next start",
        );
    }
    let mut options = WalkOptions::default();
    options.dry_run = arguments.dry_run;
    options.allow_duplicates = arguments.allow_duplicates;
    // Nothing makes room while no server runs.
    options.stop_if_busy = !is_served;
    let backfill = Backfill::new(client.clone(), fill, store, Arc::new(SystemClock));
    let prepared = Prepared { backfill, window, id, options };
    runtime()?.block_on(walk(arguments, &client, prepared))
}

/// Creates the client from the options and the environment or, if they name no service account, from the table `[api]`.
fn client(arguments: &Arguments, has_table: bool) -> Result<Client, Failure> {
    let rate = arguments.requests_per_second;
    if arguments.api.is_given() || !has_table {
        return arguments.api.client_at(rate.unwrap_or(REQUESTS_PER_SECOND));
    }
    let config = read_config_with_secrets(&arguments.config)?;
    let builder = config.api.as_ref().and_then(ApiSettings::client_builder);
    let builder = builder.ok_or_else(|| usage("[api]: a part of the credentials is missing"))?;
    let builder = match rate {
        Some(rate) => builder.max_requests_per_second(rate),
        None => builder,
    };
    builder.build().map_err(usage)
}

/// Returns the window that the arguments name.
fn window(arguments: &Arguments) -> Result<NewWindow, Failure> {
    let now = SystemClock.unix_millis();
    let (oldest, newest) = (now.saturating_sub(HISTORY_MILLIS), now.saturating_sub(INDEXING_DELAY_MILLIS));
    let until = arguments.until.unwrap_or(newest).min(newest);
    if arguments.since >= until {
        return Err(usage(format!(
            "--since {} is not before --until {}",
            rfc3339_millis(arguments.since),
            rfc3339_millis(until)
        )));
    }
    if until <= oldest {
        return Err(usage("the window is older than 31 days: DT keeps no events of it"));
    }
    if arguments.since < oldest {
        complain(&format!("DT keeps 31 days: nothing before {} can be fetched", rfc3339_millis(oldest)));
    }
    let devices: BTreeSet<String> = arguments.devices.iter().cloned().collect();
    let devices = (!devices.is_empty()).then(|| devices.into_iter().collect());
    let project = arguments.project.clone();
    Ok(NewWindow { project, from: arguments.since, until, cause: MANUAL.to_owned(), devices })
}

/// Returns the window that is walked, with its id: an open one that was interrupted, or else a new one.
fn to_walk(
    store: &CloudStore,
    window: NewWindow,
    has_end: bool,
) -> Result<(NewWindow, Option<i64>), Failure> {
    let until = has_end.then_some(window.until);
    if let Some(found) = store.find_open_window(&window, until).map_err(usage)? {
        complain(&format!("continuing the back-fill that was started at {}", rfc3339_millis(found.made_at)));
        return Ok((NewWindow { until: found.until, ..window }, Some(found.id)));
    }
    let id = store.add_window(&window, SystemClock.unix_millis()).map_err(usage)?;
    Ok((window, Some(id)))
}

async fn walk(arguments: &Arguments, client: &Client, mut prepared: Prepared) -> Ended {
    prepared.options.labels = match labels(client, &arguments.project).await {
        Ok(labels) => labels,
        Err(error) => return Err(failed(arguments.json, &error.into())),
    };
    let Prepared { backfill, window, id, options } = &prepared;
    let walked = tokio::select! {
        walked = backfill.walk(window, *id, options) => walked,
        never = show(backfill.progress()) => match never {},
    };
    let report = walked.map_err(|error| failed(arguments.json, &error))?;
    let is_done = report.is_complete() && report.counts.too_old == 0 && report.devices > 0;
    if arguments.json {
        say(as_json(arguments, window, &report)?)?;
    } else {
        print(arguments, window, &report)?;
    }
    if report.devices == 0 {
        complain("the project has no device that the service account can see; check the id of the project");
    }
    if is_done { Ok(()) } else { Err(Failure::Refused) }
}

/// Returns the keys of the labels that the project's only Data Connector of this kind sends; `None`, for all labels, if there is
/// not exactly one, or if the service account may not list them.
async fn labels(client: &Client, project: &str) -> Result<Option<BTreeSet<String>>, Error> {
    let connectors = match client.connectors(project)?.up_to(MAX_CONNECTORS).await {
        Ok(connectors) => connectors,
        Err(Error::Forbidden { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut pushed =
        connectors.into_iter().filter(|connector| matches!(connector.target, Target::HttpPush(_)));
    let first = pushed.next();
    Ok(first.filter(|_| pushed.next().is_none()).map(|connector| connector.labels.into_iter().collect()))
}

/// Prints why a back-fill ended without a report, and returns the failure with its exit code.
fn failed(as_json: bool, error: &BackfillError) -> Failure {
    if let BackfillError::Api(Error::Argument { .. }) = error {
        return usage(error);
    }
    if as_json {
        // A closed standard output is no other failure.
        let _printed = say(json!({"error": {"code": error.code(), "message": error.to_string()}}));
    }
    complain(&error.to_string());
    Failure::Refused
}

fn as_json(arguments: &Arguments, window: &NewWindow, report: &Report) -> Result<Value, anyhow::Error> {
    let mut value = serde_json::to_value(report)?;
    if let Some(members) = value.as_object_mut() {
        members.insert("project".to_owned(), json!(window.project));
        members.insert("since".to_owned(), json!(rfc3339_millis(window.from)));
        members.insert("until".to_owned(), json!(rfc3339_millis(window.until)));
        members.insert("dryRun".to_owned(), json!(arguments.dry_run));
    }
    Ok(value)
}

fn print(arguments: &Arguments, window: &NewWindow, report: &Report) -> Ended {
    let counts = &report.counts;
    let filled = if arguments.dry_run { "to be filled (dry run)" } else { "filled" };
    say(format!(
        "project {}, {} to {}",
        window.project.escape_debug(),
        rfc3339_millis(window.from),
        rfc3339_millis(window.until)
    ))?;
    say(format!(
        "{} devices, {} of {} days of devices done",
        report.devices, report.pieces_done, report.pieces
    ))?;
    say(format!(
        "{} events fetched: {} already known, {} {filled}",
        counts.fetched, counts.known, counts.filled
    ))?;
    for (count, what) in [
        (counts.filtered, "skipped: their connector does not forward the event type"),
        (counts.elsewhere, "skipped: no connector belongs to their project"),
        (
            counts.too_old,
            "skipped: older than the ids that this receiver keeps; --allow-duplicates stores them, and sinks may get them twice",
        ),
        (counts.refused, "cannot be stored"),
    ] {
        if count > 0 {
            say(format!("{count} events {what}"))?;
        }
    }
    for note in &report.notes {
        say(format!("note: {}", note.escape_debug()))?;
    }
    for missing in &report.missing {
        say(format!(
            "still missing: {} days of devices ({}; such as device {}): {}",
            missing.pieces, missing.code, missing.device, missing.why
        ))?;
    }
    if let Some(stopped) = &report.stopped {
        say(format!("stopped early: {stopped}"))?;
    }
    if !report.is_complete() {
        say("the same command again fetches only what is missing")?;
    }
    Ok(())
}

/// Shows the progress on a terminal; elsewhere, only why it waits. Never ends by itself.
async fn show(mut progress: watch::Receiver<Progress>) -> Infallible {
    let is_terminal = std::io::stderr().is_terminal();
    let bar = Shown(ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr()));
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} days of devices, {eta} left, {msg}")
    {
        bar.0.set_style(style);
    }
    let mut waited = false;
    loop {
        {
            let now = progress.borrow_and_update();
            bar.0.set_length(now.pieces);
            bar.0.set_position(now.visited);
            let (fetched, filled) = (HumanCount(now.counts.fetched), HumanCount(now.counts.filled));
            match &now.waiting {
                Some(why) => bar.0.set_message(format!("waiting: {why}")),
                None => bar.0.set_message(format!("{fetched} events, {filled} filled")),
            }
            if let Some(why) = now.waiting.as_ref().filter(|_| !waited && !is_terminal) {
                waited = true;
                complain(&format!("waiting: {why}"));
            }
        }
        // The sender lives as long as the walk.
        let _changed = progress.changed().await;
        tokio::time::sleep(REFRESH).await;
    }
}

/// Removes the bar when it is dropped, so that the report starts on an empty line.
struct Shown(ProgressBar);

impl Drop for Shown {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
