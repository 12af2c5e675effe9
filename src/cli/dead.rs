//! `dead`: lists, shows, replays and drops dead letters.

use std::io::{IsTerminal, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Subcommand;
use clap::builder::PossibleValuesParser;
use serde_json::{Value, json};

use super::secrets::SecretOptions;
use super::spool_access::{Spool, SpoolOptions, print_report, table};
use super::{Ended, Failure, complain, say, usage};
use dt_log::dead::{Filter, StoredDeadLetter};
use dt_server::spool_admin::RepairRequest;
use dt_sink::record::Reason;
use dt_verify::event::rfc3339_millis;

/// The number of dead letters that are read from the file at once.
const PART: usize = 100;

/// List, show, replay and drop dead letters; safe beside a running server
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  dt-receiver dead list --config dt-receiver.toml
  dt-receiver dead show --id 17 --data ./dt-receiver-data
  dt-receiver dead replay --sink archive --config dt-receiver.toml
  dt-receiver dead replay --reason refused --reverify --config dt-receiver.toml
  dt-receiver dead drop --reason expired --config dt-receiver.toml

rejected: a sink will never accept it. unreadable: authentic, but not a delivery. expired: authentic, but its token had
expired. refused: not verified (kept with `quarantine_refused = true`).")]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// The options that select dead letters.
#[derive(Debug, clap::Args)]
struct Selection {
    /// The dead letter with this id
    #[arg(long, value_name = "ID")]
    id: Option<i64>,
    /// The dead letters that this sink rejected
    #[arg(long, value_name = "SINK")]
    sink: Option<String>,
    /// The dead letters with this reason
    #[arg(long, value_name = "REASON", value_parser = PossibleValuesParser::new(Reason::CODES))]
    reason: Option<String>,
}

impl Selection {
    fn filter(&self) -> Filter {
        Filter { id: self.id, sink: self.sink.clone(), reason: self.reason.clone() }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List dead letters
    List {
        #[command(flatten)]
        spool: SpoolOptions,
        #[command(flatten)]
        which: Selection,
        /// Start after this id
        #[arg(long, value_name = "ID", default_value_t = 0)]
        after: i64,
        /// Stop after this number
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Show dead letters with all their properties and bodies
    Show {
        #[command(flatten)]
        spool: SpoolOptions,
        #[command(flatten)]
        which: Selection,
        /// Start after this id
        #[arg(long, value_name = "ID", default_value_t = 0)]
        after: i64,
        /// Stop after this number
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Replay dead letters: rejected ones are delivered to their sink, the others are received again. Those that fail again stay
    Replay {
        #[command(flatten)]
        spool: SpoolOptions,
        #[command(flatten)]
        which: Selection,
        /// Verify refused requests again, with the current secrets
        #[arg(long)]
        reverify: bool,
        /// With --reverify: also requests that were refused for a required header, of which only the signature can be verified
        #[arg(long, requires = "reverify")]
        ignore_required_headers: bool,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        secrets: SecretOptions,
    },
    /// Drop dead letters permanently
    Drop {
        #[command(flatten)]
        spool: SpoolOptions,
        #[command(flatten)]
        which: Selection,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

pub fn run(arguments: &Arguments) -> Ended {
    match &arguments.command {
        Command::List { spool, which, after, limit, json } => {
            let page = Page { after: *after, limit: *limit, with_bodies: false };
            list(&spool.find()?, &which.filter(), page, *json)
        }
        Command::Show { spool, which, after, limit, json } => {
            let page = Page { after: *after, limit: *limit, with_bodies: true };
            show(&spool.find()?, &which.filter(), page, *json)
        }
        Command::Replay { spool, which, reverify, ignore_required_headers, json, secrets } => {
            let filter = which.filter();
            let (reverify, ignore_required_headers) = (*reverify, *ignore_required_headers);
            let request = RepairRequest::ReplayDead {
                filter: filter.clone(),
                reverify,
                ignore_required_headers,
                after: 0,
            };
            let report = spool.find()?.repair(request, Some(secrets))?;
            let done = format!(
                "{} accepted, {} duplicates, {} ignored, {} delivered to their sink again, {} failed again, {} skipped",
                report.accepted,
                report.duplicate,
                report.ignored,
                report.queued,
                report.failed,
                report.skipped
            );
            print_report(&report, &done, *json)?;
            if report.dead_letters() == 0 { no_match(&filter) } else { Ok(()) }
        }
        Command::Drop { spool, which, json } => {
            let filter = which.filter();
            if filter == Filter::default() {
                return Err(usage("expected --id, --sink or --reason: dead letters are dropped permanently"));
            }
            let report =
                spool.find()?.repair(RepairRequest::DropDead { filter: filter.clone(), after: 0 }, None)?;
            print_report(&report, &format!("{} dropped", report.dropped), *json)?;
            if report.dropped == 0 { no_match(&filter) } else { Ok(()) }
        }
    }
}

/// Ends without a dead letter. This is a failure if the user named an id.
fn no_match(filter: &Filter) -> Ended {
    match filter.id {
        None => Ok(()),
        Some(id) => {
            complain(&format!("there is no such dead letter {id}"));
            Err(Failure::Refused)
        }
    }
}

/// The range of dead letters to read.
#[derive(Clone, Copy)]
struct Page {
    /// The id after which the range begins.
    after: i64,
    /// The largest number of dead letters.
    limit: usize,
    /// Whether the bodies are read.
    with_bodies: bool,
}

/// Calls `take` for each dead letter of a page, in order. Returns the id after which the next page starts; `None` if there is no
/// further one.
fn each(
    spool: &Spool,
    filter: &Filter,
    page: Page,
    mut take: impl FnMut(StoredDeadLetter) -> std::io::Result<()>,
) -> Result<Option<i64>, Failure> {
    let Page { mut after, limit, with_bodies } = page;
    let reader = spool.dead_letters()?;
    let mut left = limit;
    while left > 0 {
        let part = reader.list(filter, after, left.min(PART), with_bodies).map_err(usage)?;
        let Some(last) = part.last() else { return Ok(None) };
        after = last.id;
        left = left.saturating_sub(part.len());
        part.into_iter().try_for_each(&mut take)?;
    }
    let more = reader.list(filter, after, 1, false).map_err(usage)?;
    Ok((!more.is_empty()).then_some(after))
}

fn list(spool: &Spool, filter: &Filter, page: Page, json: bool) -> Ended {
    let mut found = Vec::new();
    let next = each(spool, filter, page, |stored| {
        found.push(stored);
        Ok(())
    })?;
    if json {
        say(json!({"letters": found.iter().map(about).collect::<Vec<_>>(), "next": next}))?;
    } else {
        let row = |stored: &StoredDeadLetter| {
            let or_dash = |text: Option<&str>| text.unwrap_or("-").to_owned();
            let dead = &stored.dead_letter;
            vec![
                stored.id.to_string(),
                dead.reason.to_string(),
                dead.connector.to_string(),
                or_dash(sink_of(&dead.reason)),
                rfc3339_millis(dead.received_at),
                or_dash(dead.event_id.as_deref()),
                stored.replays.to_string(),
                dead.error.clone(),
            ]
        };
        let rows: Vec<_> = found.iter().map(row).collect();
        let headings = ["ID", "REASON", "CONNECTOR", "SINK", "RECEIVED", "EVENT", "REPLAYS", "ERROR"];
        say(table(&headings, &rows))?;
        if let Some(next) = next {
            complain(&format!("there are more; continue with --after {next}"));
        }
    }
    if found.is_empty() { no_match(filter) } else { Ok(()) }
}

fn show(spool: &Spool, filter: &Filter, page: Page, json: bool) -> Ended {
    let terminal = std::io::stdout().is_terminal();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut count = 0_usize;
    if json {
        out.write_all(b"{\"letters\":[")?;
    }
    let next = each(spool, filter, page, |stored| {
        if json {
            let comma = if count > 0 { "," } else { "" };
            write!(out, "{comma}{}", with_body(&stored))?;
        } else {
            if count > 0 {
                out.write_all(b"\n")?;
            }
            if let Value::Object(members) = about(&stored) {
                for (name, value) in members {
                    writeln!(out, "{name}: {value}")?;
                }
            }
            out.write_all(b"\n")?;
            if terminal {
                // Anyone can send requests that are refused, and control characters could change the terminal.
                let shown = |c: char| if c.is_control() && c != '\n' && c != '\t' { '?' } else { c };
                let text: String =
                    String::from_utf8_lossy(&stored.dead_letter.body).chars().map(shown).collect();
                out.write_all(text.as_bytes())?;
            } else {
                out.write_all(&stored.dead_letter.body)?;
            }
            out.write_all(b"\n")?;
        }
        count = count.saturating_add(1);
        Ok(())
    })?;
    if json {
        writeln!(out, "],\"next\":{}}}", json!(next))?;
    }
    out.flush()?;
    drop(out);
    if count == 0 { no_match(filter) } else { Ok(()) }
}

fn sink_of(reason: &Reason) -> Option<&str> {
    match reason {
        Reason::Rejected { sink } => Some(sink),
        Reason::Unreadable | Reason::Expired | Reason::Refused | Reason::Damaged => None,
    }
}

/// Returns the properties of a dead letter without its body, as JSON.
fn about(stored: &StoredDeadLetter) -> Value {
    let dead = &stored.dead_letter;
    json!({
        "id": stored.id,
        "reason": dead.reason.code(),
        "connector": &*dead.connector,
        "sink": sink_of(&dead.reason),
        "error": dead.error,
        "attempts": dead.attempts,
        "replays": stored.replays,
        "receivedAt": rfc3339_millis(dead.received_at),
        "buriedAt": rfc3339_millis(stored.dead_at),
        "eventId": dead.event_id.as_deref(),
        "requestId": dead.request_id.map(|id| id.to_string()),
        "headerNames": dead.header_names,
        "bodyBytes": stored.body_bytes,
    })
}

/// Returns a dead letter with its body, as JSON. The body is in base64 if it is not UTF-8.
fn with_body(stored: &StoredDeadLetter) -> Value {
    let dead = &stored.dead_letter;
    let mut object = about(stored);
    if let Some(members) = object.as_object_mut() {
        members.insert("signatures".to_owned(), json!(dead.signatures));
        match std::str::from_utf8(&dead.body) {
            Ok(text) => members.insert("body".to_owned(), json!(text)),
            Err(_) => members.insert("bodyBase64".to_owned(), json!(STANDARD.encode(&dead.body))),
        };
    }
    object
}
