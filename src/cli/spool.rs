//! `spool`: what is in the spool, and what each sink still has to get.

use std::io::Write;

use clap::Subcommand;
use serde_json::json;

use super::place::{Found, Place, ago, progress, since, table, tell};
use super::{Ended, Failure, complain, say, usage};
use crate::clock::SystemClock;
use crate::event::rfc3339_millis;
use crate::record::Format;
use crate::service::{RepairReport, RepairRequest};
use crate::spool::{Rebuilt, SinkStatus};

/// How many records are read at once.
const PART: usize = 256;

/// The options of `spool`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  dt-receiver spool status --config dt-receiver.toml
  dt-receiver spool export --since 24h --data ./dt-receiver-data > events.ndjson
  dt-receiver spool replay --since 2026-03-01T08:00:00Z --sink archive --config dt-receiver.toml
  dt-receiver spool drop-sink old-archive --config dt-receiver.toml
  dt-receiver spool rebuild --config dt-receiver.toml")]
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
    /// Save what can be read of a damaged spool into a new database; the old one is kept (exit code 1 if something is lost)
    Rebuild {
        #[command(flatten)]
        place: Place,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Forget a sink that was removed from the configuration, so that it holds no more records
    DropSink {
        #[command(flatten)]
        place: Place,
        /// The sink
        name: String,
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
        Command::Rebuild { place, json } => rebuild(&place.find()?, *json),
        Command::DropSink { place, name, json } => {
            let found = place.find()?;
            if found
                .config
                .as_ref()
                .is_some_and(|config| config.sinks.iter().any(|sink| *sink.name == **name))
            {
                return Err(usage(format!("sink {name} is in the configuration; remove it there first")));
            }
            let report = found.repair(RepairRequest::DropSink { sink: name.clone() }, None)?;
            tell(&report, &format!("{name}: forgotten; it holds no more records"), *json)
        }
    }
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
            json!({"name": sink.name, "cursor": sink.cursor, "backlog": sink.backlog, "redeliveries": sink.redeliveries,
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
    say(format_args!("known events  {}", status.seen))?;
    let letters = status.dead_letters.iter().filter(|(_, count)| **count > 0);
    let letters: Vec<String> = letters.map(|(reason, count)| format!("{count} {reason}")).collect();
    let letters = if letters.is_empty() { "none".to_owned() } else { letters.join(", ") };
    say(format_args!("dead letters  {letters}\n"))?;
    let row = |sink: &SinkStatus| {
        let note = if configured(sink) == Some(false) { "not in the configuration" } else { "" };
        vec![
            sink.name.clone(),
            sink.cursor.to_string(),
            sink.backlog.to_string(),
            oldest(sink.oldest_received_at),
            sink.redeliveries.to_string(),
            note.to_owned(),
        ]
    };
    let rows: Vec<_> = status.sinks.iter().map(row).collect();
    say(table(&["SINK", "CURSOR", "BACKLOG", "OLDEST", "REDELIVERIES", ""], &rows))?;
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
        findings.iter().for_each(|finding| complain(&finding.0));
    }
    if findings.is_empty() { Ok(()) } else { Err(Failure::Refused) }
}

fn rebuild(found: &Found, json: bool) -> Ended {
    let progress = progress();
    let step = |what: &str| progress.set_message(format!("copying {what}"));
    let rebuilt = crate::spool::rebuild(&found.folder, &SystemClock, step).map_err(usage)?;
    progress.finish_and_clear();
    if json {
        say(serde_json::to_string(&rebuilt).map_err(anyhow::Error::from)?)?;
    } else {
        let Rebuilt { records, lost_records, dead_letters, lost_dead_letters, known_events, kept } = &rebuilt;
        say(format_args!("records       {records} saved, {lost_records} lost"))?;
        say(format_args!("dead letters  {dead_letters} saved, {lost_dead_letters} lost"))?;
        if !known_events {
            complain(
                "the known events could not be read; those of the saved records are known, and others may come twice",
            );
        }
        say(format_args!("the damaged database is kept as {}", kept.display()))?;
    }
    if rebuilt.lost_records == 0 && rebuilt.lost_dead_letters == 0 { Ok(()) } else { Err(Failure::Refused) }
}

fn export(found: &Found, since: i64, sink: Option<&str>, format: Format) -> Ended {
    let reader = found.reader()?;
    if let Some(sink) = sink {
        known_sink(&reader, sink)?;
    }
    let progress = progress();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let (mut after, mut count, mut damaged, mut lines) = (i64::MIN, 0_u64, 0_u64, Vec::new());
    loop {
        let (records, next) = reader.export(since, sink, after, PART).map_err(usage)?;
        lines.clear();
        for stored in &records {
            match &stored.record {
                Ok(record) => {
                    format.write_line(record, &mut lines);
                    count = count.saturating_add(1);
                }
                Err(letter) => {
                    damaged = damaged.saturating_add(1);
                    complain(&format!("record {}: {}", stored.seq, letter.error));
                }
            }
        }
        out.write_all(&lines)?;
        progress.set_message(format!("{count} records"));
        match next {
            Some(next) => after = next,
            None => break,
        }
    }
    out.flush()?;
    progress.finish_and_clear();
    if damaged == 0 { Ok(()) } else { Err(Failure::Refused) }
}

fn known_sink(reader: &crate::spool::Reader, sink: &str) -> Ended {
    match reader.cursor(sink).map_err(usage)? {
        Some(_) => Ok(()),
        None => Err(usage(format!(
            "the spool knows no sink {sink}; `dt-receiver spool status` shows those it knows"
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
            let request = RepairRequest::Rewind { sink: sink.to_owned(), cursor: first.saturating_sub(1) };
            found.repair(request, None)?
        }
        None => RepairReport::default(),
    };
    tell(&report, &format!("{sink}: {} records are delivered again", report.records), json)
}
