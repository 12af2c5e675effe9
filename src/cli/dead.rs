//! `dead`: the dead letters, what was wrong with them, and another try.

use std::io::{IsTerminal, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Subcommand;
use clap::builder::PossibleValuesParser;
use serde_json::{Value, json};

use super::place::{Found, Place, table, tell};
use super::secrets::SecretOptions;
use super::{Ended, Failure, complain, say, usage};
use dt_log::dead::{Filter, StoredDeadLetter};
use dt_server::service::RepairRequest;
use dt_sink::record::Reason;
use dt_verify::event::rfc3339_millis;

/// How many letters are read at once.
const PART: usize = 100;

/// Look at dead letters, try them again, drop them; safe beside a running server
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  dt-receiver dead list --config dt-receiver.toml
  dt-receiver dead show --id 17 --data ./dt-receiver-data
  dt-receiver dead replay --sink archive --config dt-receiver.toml
  dt-receiver dead replay --reason refused --reverify --config dt-receiver.toml
  dt-receiver dead drop --reason expired --config dt-receiver.toml

rejected: a sink will never take it. unreadable: authentic, but no delivery. expired: authentic, but the token's time
was over. refused: not verified (kept with `quarantine_refused = true`).")]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// Which letters.
#[derive(Debug, clap::Args)]
struct Which {
    /// The one with this id
    #[arg(long, value_name = "ID")]
    id: Option<i64>,
    /// Those that this sink rejected
    #[arg(long, value_name = "SINK")]
    sink: Option<String>,
    /// Those that are here for this reason
    #[arg(long, value_name = "REASON", value_parser = PossibleValuesParser::new(Reason::CODES))]
    reason: Option<String>,
}

impl Which {
    fn filter(&self) -> Filter {
        Filter { id: self.id, sink: self.sink.clone(), reason: self.reason.clone() }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List letters
    List {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        which: Which,
        /// Begin after this id
        #[arg(long, value_name = "ID", default_value_t = 0)]
        after: i64,
        /// Stop after so many
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Show all about letters, with their bodies
    Show {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        which: Which,
        /// Begin after this id
        #[arg(long, value_name = "ID", default_value_t = 0)]
        after: i64,
        /// Stop after so many
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Try letters again: rejected ones go to their sink, the others the normal way in. What fails again stays
    Replay {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        which: Which,
        /// Verify refused requests again, with the secrets of today
        #[arg(long)]
        reverify: bool,
        /// With --reverify: also those that were refused for a required header, of which only the signature can be verified
        #[arg(long, requires = "reverify")]
        ignore_required_headers: bool,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        secrets: SecretOptions,
    },
    /// Drop letters for good
    Drop {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        which: Which,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(arguments: &Arguments) -> Ended {
    match &arguments.command {
        Command::List { place, which, after, limit, json } => {
            list(&place.find()?, &which.filter(), *after, *limit, *json)
        }
        Command::Show { place, which, after, limit, json } => {
            show(&place.find()?, &which.filter(), *after, *limit, *json)
        }
        Command::Replay { place, which, reverify, ignore_required_headers, json, secrets } => {
            let filter = which.filter();
            let (reverify, ignore_required_headers) = (*reverify, *ignore_required_headers);
            let request = RepairRequest::ReplayDead {
                filter: filter.clone(),
                reverify,
                ignore_required_headers,
                after: 0,
            };
            let report = place.find()?.repair(request, Some(secrets))?;
            let done = format!(
                "{} accepted, {} were there already, {} ignored, {} go to their sink again, {} failed again, {} not tried",
                report.accepted,
                report.duplicate,
                report.ignored,
                report.queued,
                report.failed,
                report.skipped
            );
            tell(&report, &done, *json)?;
            if report.letters() == 0 { none(&filter) } else { Ok(()) }
        }
        Command::Drop { place, which, json } => {
            let filter = which.filter();
            if filter == Filter::default() {
                return Err(usage("say which letters to drop for good: --id, --sink or --reason"));
            }
            let report =
                place.find()?.repair(RepairRequest::DropDead { filter: filter.clone(), after: 0 }, None)?;
            tell(&report, &format!("{} dropped", report.dropped), *json)?;
            if report.dropped == 0 { none(&filter) } else { Ok(()) }
        }
    }
}

/// There is no such letter, which matters to whoever named one.
fn none(filter: &Filter) -> Ended {
    match filter.id {
        None => Ok(()),
        Some(id) => {
            complain(&format!("there is no such dead letter {id}"));
            Err(Failure::Refused)
        }
    }
}

/// Hands letters on, a part at a time. Gives the id to go on after, if `limit` ended it.
fn each(
    found: &Found,
    filter: &Filter,
    mut after: i64,
    limit: usize,
    bodies: bool,
    mut take: impl FnMut(StoredDeadLetter) -> std::io::Result<()>,
) -> Result<Option<i64>, Failure> {
    let reader = found.dead_letters()?;
    let mut left = limit;
    while left > 0 {
        let letters = reader.list(filter, after, left.min(PART), bodies).map_err(usage)?;
        let Some(last) = letters.last() else { return Ok(None) };
        after = last.id;
        left = left.saturating_sub(letters.len());
        letters.into_iter().try_for_each(&mut take)?;
    }
    let more = reader.list(filter, after, 1, false).map_err(usage)?;
    Ok((!more.is_empty()).then_some(after))
}

fn list(found: &Found, filter: &Filter, after: i64, limit: usize, json: bool) -> Ended {
    let mut letters = Vec::new();
    let next = each(found, filter, after, limit, false, |letter| {
        letters.push(letter);
        Ok(())
    })?;
    if json {
        say(json!({"letters": letters.iter().map(about).collect::<Vec<_>>(), "next": next}))?;
    } else {
        let row = |stored: &StoredDeadLetter| {
            let or_dash = |text: Option<&str>| text.unwrap_or("-").to_owned();
            let letter = &stored.dead_letter;
            vec![
                stored.id.to_string(),
                letter.reason.to_string(),
                letter.connector.to_string(),
                or_dash(sink_of(&letter.reason)),
                rfc3339_millis(letter.received_at),
                or_dash(letter.event_id.as_deref()),
                stored.replays.to_string(),
                letter.error.clone(),
            ]
        };
        let rows: Vec<_> = letters.iter().map(row).collect();
        let headings = ["ID", "REASON", "CONNECTOR", "SINK", "RECEIVED", "EVENT", "REPLAYS", "ERROR"];
        say(table(&headings, &rows))?;
        if let Some(next) = next {
            complain(&format!("there are more: --after {next}"));
        }
    }
    if letters.is_empty() { none(filter) } else { Ok(()) }
}

fn show(found: &Found, filter: &Filter, after: i64, limit: usize, json: bool) -> Ended {
    let terminal = std::io::stdout().is_terminal();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut count = 0_usize;
    if json {
        out.write_all(b"{\"letters\":[")?;
    }
    let next = each(found, filter, after, limit, true, |letter| {
        if json {
            let comma = if count > 0 { "," } else { "" };
            write!(out, "{comma}{}", with_body(&letter))?;
        } else {
            if count > 0 {
                out.write_all(b"\n")?;
            }
            if let Value::Object(members) = about(&letter) {
                for (name, value) in members {
                    writeln!(out, "{name}: {value}")?;
                }
            }
            out.write_all(b"\n")?;
            if terminal {
                // Refused ones come from anyone, and terminals obey control characters.
                let shown = |c: char| if c.is_control() && c != '\n' && c != '\t' { '?' } else { c };
                let text: String = String::from_utf8_lossy(&letter.dead_letter.body).chars().map(shown).collect();
                out.write_all(text.as_bytes())?;
            } else {
                out.write_all(&letter.dead_letter.body)?;
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
    if count == 0 { none(filter) } else { Ok(()) }
}

fn sink_of(reason: &Reason) -> Option<&str> {
    match reason {
        Reason::Rejected { sink } => Some(sink),
        Reason::Unreadable | Reason::Expired | Reason::Refused | Reason::Damaged => None,
    }
}

fn about(stored: &StoredDeadLetter) -> Value {
    let letter = &stored.dead_letter;
    json!({
        "id": stored.id,
        "reason": letter.reason.code(),
        "connector": &*letter.connector,
        "sink": sink_of(&letter.reason),
        "error": letter.error,
        "attempts": letter.attempts,
        "replays": stored.replays,
        "receivedAt": rfc3339_millis(letter.received_at),
        "buriedAt": rfc3339_millis(stored.dead_at),
        "eventId": letter.event_id.as_deref(),
        "requestId": letter.request_id.map(|id| id.to_string()),
        "headerNames": letter.header_names,
        "bodyBytes": stored.body_bytes,
    })
}

/// With the body as text, or in base64 where it is no UTF-8.
fn with_body(stored: &StoredDeadLetter) -> Value {
    let letter = &stored.dead_letter;
    let mut object = about(stored);
    if let Some(members) = object.as_object_mut() {
        members.insert("signatures".to_owned(), json!(letter.signatures));
        match std::str::from_utf8(&letter.body) {
            Ok(text) => members.insert("body".to_owned(), json!(text)),
            Err(_) => members.insert("bodyBase64".to_owned(), json!(STANDARD.encode(&letter.body))),
        };
    }
    object
}
