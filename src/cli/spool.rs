//! `spool`: the content of the spool, the position of each sink, and repairs.

use std::io::Write;

use clap::Subcommand;
use serde_json::json;

use super::spool_access::{Spool, SpoolOptions, print_report, progress, table};
use super::time::{ago, since};
use super::{Ended, Failure, complain, say, usage};
use dt_log::repair::{Proposal, Saved};
use dt_log::{Reader, SinkStatus};
use dt_server::spool_admin::{RepairReport, RepairRequest};
use dt_sink::record::Format;
use dt_verify::event::rfc3339_millis;

/// Inspect, export, replay and repair the spool; safe beside a running server
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  dt-receiver spool status --config dt-receiver.toml
  dt-receiver spool export --since 24h --data ./dt-receiver-data > events.ndjson
  dt-receiver spool replay --since 2026-03-01T08:00:00Z --sink archive --config dt-receiver.toml
  dt-receiver spool show 4711 --config dt-receiver.toml
  dt-receiver spool repair --config dt-receiver.toml
  dt-receiver spool forget old-archive --yes --config dt-receiver.toml")]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the size of the spool and the position of each sink
    Status {
        #[command(flatten)]
        spool: SpoolOptions,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Read all of the spool and report its damage (exit code 1 if there is any)
    Check {
        #[command(flatten)]
        spool: SpoolOptions,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print records, one JSON object per line, or in line protocol
    Export {
        #[command(flatten)]
        spool: SpoolOptions,
        /// Only records received since this time, or within this duration, such as 2h
        #[arg(long, value_name = "TIME", value_parser = since)]
        since: Option<i64>,
        /// Only records that this sink has not acknowledged
        #[arg(long, value_name = "SINK")]
        sink: Option<String>,
        /// The format of each record: `envelope`, `body`, `cloudevents` or `line-protocol`
        #[arg(long, value_name = "FORMAT", default_value_t = Format::Envelope)]
        format: Format,
        /// Accepted for scripts: the output is JSON, one object per line, unless `--format` is `line-protocol`
        #[arg(long)]
        json: bool,
    },
    /// Deliver records to a sink again, as far as `retain` has kept them
    Replay {
        #[command(flatten)]
        spool: SpoolOptions,
        /// Records received since this time, or within this duration, such as 2h
        #[arg(long, value_name = "TIME", value_parser = since)]
        since: i64,
        /// The sink
        #[arg(long, value_name = "SINK")]
        sink: String,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Show one event by its sequence number, with its delivery status
    Show {
        #[command(flatten)]
        spool: SpoolOptions,
        /// The sequence number
        #[arg(value_name = "NUMBER")]
        seq: i64,
    },
    /// Show the steps that make a damaged spool open again, and carry them out with --yes. Nothing is removed
    Repair {
        #[command(flatten)]
        spool: SpoolOptions,
        /// Carry out the steps; without it, only show them (exit code 1 if there are any)
        #[arg(long)]
        yes: bool,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Forget a sink that was removed from the configuration, and drop its undelivered events
    Forget {
        #[command(flatten)]
        spool: SpoolOptions,
        /// The sink
        name: String,
        /// Forget it; without it, only show how many events would be dropped
        #[arg(long)]
        yes: bool,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

pub fn run(arguments: &Arguments) -> Ended {
    match &arguments.command {
        Command::Status { spool, json } => status(&spool.find()?, *json),
        Command::Check { spool, json } => check(&spool.find()?, *json),
        Command::Export { spool, since, sink, format, json: _ } => {
            export(&spool.find()?, since.unwrap_or(i64::MIN), sink.as_deref(), *format)
        }
        Command::Replay { spool, since, sink, json } => replay(&spool.find()?, *since, sink, *json),
        Command::Show { spool, seq } => show(&spool.find()?, *seq),
        Command::Repair { spool, yes, json } => repair(&spool.find()?, *yes, *json),
        Command::Forget { spool, name, yes, json } => forget(&spool.find()?, name, *yes, *json),
    }
}

/// Shows or carries out a repair. The exit code is 0 if no repair is necessary or it is done, 1 if it is necessary, and 2 if it
/// is not possible.
fn repair(spool: &Spool, yes: bool, json: bool) -> Ended {
    spool.check_owner()?;
    let proposal = Proposal::new(&spool.folder).map_err(usage)?;
    let steps: Vec<String> = proposal.steps().iter().map(ToString::to_string).collect();
    let is_done = yes && !steps.is_empty();
    if !json {
        let heading = match (steps.is_empty(), yes) {
            (true, _) => "no repair is necessary",
            (false, true) => "repairing",
            (false, false) => "a repair would",
        };
        say(format_args!("{}: {heading}", spool.folder.display()))?;
        for step in &steps {
            say(format_args!("  - {step}"))?;
        }
    }
    let saved = if is_done { proposal.carry_out().map_err(usage)? } else { Saved::default() };
    let Saved { dead_letters, unreadable } = saved;
    if json {
        say(
            json!({"done": is_done, "steps": steps, "savedLetters": dead_letters, "unreadableLetters": unreadable}),
        )?;
    } else if is_done {
        say(format_args!("done; {dead_letters} dead letters were saved from a damaged file"))?;
        if unreadable > 0 {
            say(format_args!("up to {unreadable} others could not be read; the renamed file is kept"))?;
        }
    } else if !steps.is_empty() {
        complain("nothing was changed; copy the folder, then use --yes to carry out the repair");
    }
    if is_done || steps.is_empty() { Ok(()) } else { Err(Failure::Refused) }
}

fn forget(spool: &Spool, name: &str, yes: bool, json: bool) -> Ended {
    let is_configured =
        |config: &dt_server::config::Config| config.sinks.iter().any(|sink| *sink.name == *name);
    if spool.config.as_ref().is_some_and(is_configured) {
        return Err(usage(format!("sink {name} is in the configuration; remove it there first")));
    }
    if !yes {
        let reader = spool.reader()?;
        check_sink(&reader, name)?;
        let (mut events, sink) = (0_u64, reader.sink(name));
        reader
            .events(sink.map_or(i64::MAX, |sink| sink.cursor), |seen| {
                events = events.saturating_add(u64::from(sink.is_some_and(|sink| seen.is_for(sink))));
                true
            })
            .map_err(usage)?;
        return Err(usage(format!(
            "{name}: {events} undelivered events would be dropped; use --yes to forget it"
        )));
    }
    let report = spool.repair(RepairRequest::Forget { sink: name.to_owned() }, None)?;
    print_report(
        &report,
        &format!("{name}: forgotten; {} undelivered events were dropped", report.records),
        json,
    )
}

fn status(spool: &Spool, json: bool) -> Ended {
    let status = spool.reader()?.status().map_err(usage)?;
    let configured = |sink: &SinkStatus| {
        let config = spool.config.as_ref()?;
        Some(config.sinks.iter().any(|configured| *configured.name == *sink.name))
    };
    if json {
        let mut object = serde_json::to_value(&status).map_err(anyhow::Error::from)?;
        let time = |millis: Option<i64>| millis.map(rfc3339_millis);
        let sinks: Vec<_> = status.sinks.iter().map(|sink| {
            json!({"name": sink.name, "cursor": sink.cursor, "backlog": sink.backlog, "replayAfter": sink.replay_after,
                   "oldestReceivedAt": time(sink.oldest_received_at), "configured": configured(sink)})
        }).collect();
        if let Some(members) = object.as_object_mut() {
            members.insert("folder".to_owned(), json!(spool.folder.display().to_string()));
            members.insert("oldestReceivedAt".to_owned(), json!(time(status.oldest_received_at)));
            members.insert("idsCompleteSince".to_owned(), json!(time(status.ids_complete_since)));
            members.insert("sinks".to_owned(), json!(sinks));
        }
        say(object)?;
        return Ok(());
    }
    let oldest =
        |millis: Option<i64>| millis.map_or_else(|| "-".to_owned(), |millis| format!("{} ago", ago(millis)));
    say(format_args!("spool         {}", spool.folder.display()))?;
    say(format_args!(
        "records       {}, the oldest received {}",
        status.records,
        oldest(status.oldest_received_at)
    ))?;
    say(format_args!("used          {}", bytesize::ByteSize(status.used_bytes)))?;
    let known = status.ids_complete_since.map_or_else(|| "unknown".to_owned(), rfc3339_millis);
    say(format_args!("event ids     complete since {known}"))?;
    let dead = status.dead_letters.iter().filter(|(_, count)| **count > 0);
    let dead: Vec<String> = dead.map(|(reason, count)| format!("{count} {reason}")).collect();
    let dead = if dead.is_empty() { "none".to_owned() } else { dead.join(", ") };
    say(format_args!("dead letters  {dead}\n"))?;
    let row = |sink: &SinkStatus| {
        let note = match (configured(sink), sink.replay_after) {
            (Some(false), _) => "not in the configuration".to_owned(),
            (_, Some(after)) => format!("records after {after} are delivered again"),
            _ => String::new(),
        };
        vec![
            sink.name.clone(),
            sink.cursor.to_string(),
            sink.backlog.to_string(),
            oldest(sink.oldest_received_at),
            note,
        ]
    };
    let rows: Vec<_> = status.sinks.iter().map(row).collect();
    status.findings.iter().for_each(|finding| complain(finding));
    say(table(&["SINK", "CURSOR", "BACKLOG", "OLDEST", ""], &rows))?;
    Ok(())
}

fn check(spool: &Spool, json: bool) -> Ended {
    let progress = progress();
    let findings =
        spool.reader()?.check(|step| progress.set_message(format!("checking {step}"))).map_err(usage)?;
    progress.finish_and_clear();
    if json {
        say(json!({"ok": findings.is_empty(), "findings": findings}))?;
    } else if findings.is_empty() {
        say(format_args!("{}: ok", spool.folder.display()))?;
    } else {
        findings.iter().for_each(|finding| complain(finding));
    }
    if findings.is_empty() { Ok(()) } else { Err(Failure::Refused) }
}

fn export(spool: &Spool, since: i64, sink: Option<&str>, format: Format) -> Ended {
    let reader = spool.reader()?;
    let sink = match sink {
        Some(name) => {
            check_sink(&reader, name)?;
            reader.sink(name)
        }
        None => None,
    };
    let progress = progress();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let (mut count, mut damaged, mut line, mut written) = (0_u64, 0_u64, Vec::new(), Ok(()));
    let after = sink.map_or(i64::MIN, |sink| sink.cursor);
    let read = reader.events(after, |seen| {
        if sink.is_some_and(|sink| !seen.is_for(sink)) {
            return true;
        }
        match &seen.stored.record {
            Ok(record) if record.received_at < since => {}
            Ok(record) => {
                line.clear();
                format.write_line(record, &mut line);
                written = out.write_all(&line);
                count = count.saturating_add(1);
                progress.set_message(format!("{count} records"));
            }
            // The time of a damaged record is unknown, so `since` does not exclude it.
            Err(unreadable) => {
                damaged = damaged.saturating_add(1);
                complain(&unreadable.error);
            }
        }
        written.is_ok()
    });
    written?;
    read.map_err(usage)?;
    out.flush()?;
    progress.finish_and_clear();
    if damaged == 0 { Ok(()) } else { Err(Failure::Refused) }
}

fn show(spool: &Spool, seq: i64) -> Ended {
    let reader = spool.reader()?;
    let mut shown = None;
    let read = reader.events(seq.saturating_sub(1), |seen| {
        shown = (seen.stored.seq == seq).then(|| seen.stored.record.clone());
        shown.is_none() && seen.stored.seq < seq
    });
    read.map_err(usage)?;
    match shown {
        Some(Ok(record)) => {
            let mut line = Vec::new();
            Format::Envelope.write_line(&record, &mut line);
            let sink =
                |sink: &dt_log::SinkStatus| json!({"name": sink.name, "delivered": sink.cursor >= seq});
            let sinks: Vec<_> = reader.status().map_err(usage)?.sinks.iter().map(sink).collect();
            let envelope: serde_json::Value = serde_json::from_slice(&line).map_err(anyhow::Error::from)?;
            Ok(say(
                json!({"seq": seq, "sinks": sinks, "headerNames": record.headers.names(), "envelope": envelope}),
            )?)
        }
        Some(Err(unreadable)) => {
            complain(&unreadable.error);
            Err(Failure::Refused)
        }
        None => {
            complain(&format!("there is no event {seq}: it was removed, or is not stored yet"));
            Err(Failure::Refused)
        }
    }
}

/// Returns a failure if the spool has no sink with this name.
fn check_sink(reader: &Reader, sink: &str) -> Ended {
    match reader.sink(sink) {
        Some(_) => Ok(()),
        None => {
            Err(usage(format!("the spool has no sink {sink}; `dt-receiver spool status` lists its sinks")))
        }
    }
}

fn replay(spool: &Spool, since: i64, sink: &str, json: bool) -> Ended {
    let progress = progress();
    progress.set_message("looking for the first record");
    let reader = spool.reader()?;
    check_sink(&reader, sink)?;
    let first = reader.first_since(since).map_err(usage)?;
    progress.finish_and_clear();
    let report = match first {
        Some(first) => {
            let request = RepairRequest::Replay { sink: sink.to_owned(), after: first.saturating_sub(1) };
            spool.repair(request, None)?
        }
        None => RepairReport::default(),
    };
    print_report(&report, &format!("{sink}: {} records are delivered again", report.records), json)
}
