//! `spool`: what is in the spool, and what each sink still has to get.

use std::io::Write;

use clap::Subcommand;
use serde_json::json;

use super::place::{Found, Place, progress, table, tell};
use super::time::{ago, since};
use super::{Ended, Failure, complain, say, usage};
use dt_log::repair::Proposal;
use dt_log::{Reader, SinkStatus};
use dt_server::service::{RepairReport, RepairRequest};
use dt_sink::record::Format;
use dt_verify::event::rfc3339_millis;

/// Look at the spool, export it, let a sink see records again; safe beside a running server
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  dt-receiver spool status --config dt-receiver.toml
  dt-receiver spool export --since 24h --data ./dt-receiver-data > events.ndjson
  dt-receiver spool replay --since 2026-03-01T08:00:00Z --sink archive --config dt-receiver.toml
  dt-receiver spool show 4711 --config dt-receiver.toml
  dt-receiver spool repair --config dt-receiver.toml
  dt-receiver spool forget old-archive --yes --config dt-receiver.toml")]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// How full the spool is, and how far each sink is
    Status {
        #[command(flatten)]
        place: Place,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Read all of the spool and say what is wrong with it (exit code 1 if anything is)
    Check {
        #[command(flatten)]
        place: Place,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print records, one JSON object a line
    Export {
        #[command(flatten)]
        place: Place,
        /// Only what was received since this moment, or within this time, such as 2h
        #[arg(long, value_name = "TIME", value_parser = since)]
        since: Option<i64>,
        /// Only what this sink has not passed yet
        #[arg(long, value_name = "SINK")]
        sink: Option<String>,
        /// What to print of each: `envelope` or `body`
        #[arg(long, value_name = "FORMAT", default_value_t = Format::Envelope)]
        format: Format,
        /// Accepted for the sake of scripts: the output is always JSON, one object a line
        #[arg(long)]
        json: bool,
    },
    /// Let a sink see again what it was given since some time, as far as `retain` kept it
    Replay {
        #[command(flatten)]
        place: Place,
        /// What was received since this moment, or within this time, such as 2h
        #[arg(long, value_name = "TIME", value_parser = since)]
        since: i64,
        /// The sink
        #[arg(long, value_name = "SINK")]
        sink: String,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Show one event by its sequence number, with all that is known of it
    Show {
        #[command(flatten)]
        place: Place,
        /// The sequence number
        #[arg(value_name = "NUMBER")]
        seq: i64,
    },
    /// Say what is needed to make a spool open again that does not, and do it with --yes. Nothing is removed
    Repair {
        #[command(flatten)]
        place: Place,
        /// Do it; without, say what would be done (exit code 1 if anything would)
        #[arg(long)]
        yes: bool,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Forget a sink that was removed from the configuration, and give up what it is owed
    Forget {
        #[command(flatten)]
        place: Place,
        /// The sink
        name: String,
        /// Do it; without, say what would be given up
        #[arg(long)]
        yes: bool,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(arguments: &Arguments) -> Ended {
    match &arguments.command {
        Command::Status { place, json } => status(&place.find()?, *json),
        Command::Check { place, json } => check(&place.find()?, *json),
        Command::Export { place, since, sink, format, json: _ } => {
            export(&place.find()?, since.unwrap_or(i64::MIN), sink.as_deref(), *format)
        }
        Command::Replay { place, since, sink, json } => replay(&place.find()?, *since, sink, *json),
        Command::Show { place, seq } => show(&place.find()?, *seq),
        Command::Repair { place, yes, json } => repair(&place.find()?, *yes, *json),
        Command::Forget { place, name, yes, json } => forget(&place.find()?, name, *yes, *json),
    }
}

/// Exit code 0: nothing is wrong, or all was done. 1: this would be done. 2: it cannot be done.
fn repair(found: &Found, yes: bool, json: bool) -> Ended {
    found.refuse_other_owner()?;
    let proposal = Proposal::new(&found.folder).map_err(usage)?;
    let steps: Vec<String> = proposal.steps().iter().map(ToString::to_string).collect();
    let is_done = yes && !steps.is_empty();
    if !json {
        let heading = match (steps.is_empty(), yes) {
            (true, _) => "nothing has to be repaired",
            (false, true) => "repairing",
            (false, false) => "a repair would",
        };
        say(format_args!("{}: {heading}", found.folder.display()))?;
        for step in &steps {
            say(format_args!("  - {step}"))?;
        }
    }
    let saved = if is_done { proposal.carry_out().map_err(usage)? } else { 0 };
    if json {
        say(json!({"done": is_done, "steps": steps, "savedLetters": saved}))?;
    } else if is_done {
        say(format_args!("done; {saved} dead letters were saved from a damaged file"))?;
    } else if !steps.is_empty() {
        complain("nothing was changed; copy the folder, then say --yes to do this");
    }
    if is_done || steps.is_empty() { Ok(()) } else { Err(Failure::Refused) }
}

fn forget(found: &Found, name: &str, yes: bool, json: bool) -> Ended {
    let is_configured =
        |config: &dt_server::config::Config| config.sinks.iter().any(|sink| *sink.name == *name);
    if found.config.as_ref().is_some_and(is_configured) {
        return Err(usage(format!("sink {name} is in the configuration; remove it there first")));
    }
    if !yes {
        let reader = found.reader()?;
        known_sink(&reader, name)?;
        let (mut events, sink) = (0_u64, reader.sink(name));
        reader
            .events(sink.map_or(i64::MAX, |sink| sink.cursor), |seen| {
                events = events.saturating_add(u64::from(sink.is_some_and(|sink| seen.is_for(sink))));
                true
            })
            .map_err(usage)?;
        return Err(usage(format!("{name}: {events} events would be given up; say --yes to do that")));
    }
    let report = found.repair(RepairRequest::Forget { sink: name.to_owned() }, None)?;
    tell(&report, &format!("{name}: forgotten; {} events were given up", report.records), json)
}

fn status(found: &Found, json: bool) -> Ended {
    let status = found.reader()?.status().map_err(usage)?;
    let configured = |sink: &SinkStatus| {
        let config = found.config.as_ref()?;
        Some(config.sinks.iter().any(|known| *known.name == *sink.name))
    };
    if json {
        let mut object = serde_json::to_value(&status).map_err(anyhow::Error::from)?;
        let moment = |millis: Option<i64>| millis.map(rfc3339_millis);
        let sinks: Vec<_> = status.sinks.iter().map(|sink| {
            json!({"name": sink.name, "cursor": sink.cursor, "backlog": sink.backlog, "replayAfter": sink.replay_after,
                   "oldestReceivedAt": moment(sink.oldest_received_at), "configured": configured(sink)})
        }).collect();
        if let Some(members) = object.as_object_mut() {
            members.insert("folder".to_owned(), json!(found.folder.display().to_string()));
            members.insert("oldestReceivedAt".to_owned(), json!(moment(status.oldest_received_at)));
            members.insert("sinks".to_owned(), json!(sinks));
        }
        say(object)?;
        return Ok(());
    }
    let oldest =
        |millis: Option<i64>| millis.map_or_else(|| "-".to_owned(), |millis| format!("{} ago", ago(millis)));
    say(format_args!("spool         {}", found.folder.display()))?;
    say(format_args!(
        "records       {}, the oldest received {}",
        status.records,
        oldest(status.oldest_received_at)
    ))?;
    say(format_args!("used          {}", bytesize::ByteSize(status.used_bytes)))?;
    let letters = status.dead_letters.iter().filter(|(_, count)| **count > 0);
    let letters: Vec<String> = letters.map(|(reason, count)| format!("{count} {reason}")).collect();
    let letters = if letters.is_empty() { "none".to_owned() } else { letters.join(", ") };
    say(format_args!("dead letters  {letters}\n"))?;
    let row = |sink: &SinkStatus| {
        let note = match (configured(sink), sink.replay_after) {
            (Some(false), _) => "not in the configuration".to_owned(),
            (_, Some(after)) => format!("is given again what comes after {after}"),
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

fn check(found: &Found, json: bool) -> Ended {
    let progress = progress();
    let findings =
        found.reader()?.check(|step| progress.set_message(format!("checking {step}"))).map_err(usage)?;
    progress.finish_and_clear();
    if json {
        say(json!({"ok": findings.is_empty(), "findings": findings}))?;
    } else if findings.is_empty() {
        say(format_args!("{}: ok", found.folder.display()))?;
    } else {
        findings.iter().for_each(|finding| complain(finding));
    }
    if findings.is_empty() { Ok(()) } else { Err(Failure::Refused) }
}

fn export(found: &Found, since: i64, sink: Option<&str>, format: Format) -> Ended {
    let reader = found.reader()?;
    let sink = match sink {
        Some(name) => {
            known_sink(&reader, name)?;
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
            // Of a damaged one nobody knows when it came.
            Err(letter) => {
                damaged = damaged.saturating_add(1);
                complain(&letter.error);
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

fn show(found: &Found, seq: i64) -> Ended {
    let reader = found.reader()?;
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
        Some(Err(letter)) => {
            complain(&letter.error);
            Err(Failure::Refused)
        }
        None => {
            complain(&format!("there is no event {seq}; it is not there any more, or not yet"));
            Err(Failure::Refused)
        }
    }
}

fn known_sink(reader: &Reader, sink: &str) -> Ended {
    match reader.sink(sink) {
        Some(_) => Ok(()),
        None => Err(usage(format!(
            "the spool has no sink {sink}; `dt-receiver spool status` lists its sinks"
        ))),
    }
}

fn replay(found: &Found, since: i64, sink: &str, json: bool) -> Ended {
    let progress = progress();
    progress.set_message("looking for the first record");
    let reader = found.reader()?;
    known_sink(&reader, sink)?;
    let first = reader.first_since(since).map_err(usage)?;
    progress.finish_and_clear();
    let report = match first {
        Some(first) => {
            let request = RepairRequest::Replay { sink: sink.to_owned(), after: first.saturating_sub(1) };
            found.repair(request, None)?
        }
        None => RepairReport::default(),
    };
    tell(&report, &format!("{sink}: {} records are delivered again", report.records), json)
}
