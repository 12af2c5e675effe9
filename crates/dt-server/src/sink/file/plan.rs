//! Determines how many records of a batch can be delivered now: those before the first record that needs a file to be listed in
//! the stored checkpoint, or closed, first.

use std::sync::Arc;

use super::checkpoint::Rules;
use super::files::Files;
use crate::sink::OpenError;
use dt_sink::record::Record;

/// The largest number of kinds of records that are recognised without rendering their paths. It is larger than the number of
/// event types.
const MAX_KINDS: usize = 32;

/// Appends the lines of the first records to the buffers of their files, and returns the number of these records. The files of
/// the other records are opened too, so that one checkpoint lists them all.
///
/// # Errors
///
/// [`OpenError`] if a file cannot be opened.
pub fn plan(files: &mut Files, rules: &Rules, batch: &[Arc<Record>]) -> Result<usize, OpenError> {
    // One record of each kind, with the index of its file.
    let mut kinds: Vec<(&Record, usize)> = Vec::new();
    let (mut path, mut newest, mut planned, mut has_to_wait) = (String::new(), i64::MIN, 0_usize, false);
    for record in batch {
        let known = kinds.iter().find(|(known, _)| rules.template.is_same(known, record));
        let at = if let Some((_, at)) = known {
            *at
        } else {
            rules.template.render(record, &mut path);
            let evictions = files.evictions();
            let Some(at) = files.touch(&path, rules.rotation)? else { break };
            if files.evictions() != evictions {
                kinds.clear();
            }
            if kinds.len() < MAX_KINDS {
                kinds.push((record, at));
            }
            at
        };
        if has_to_wait {
            continue;
        }
        let since = rules.rotation.since(record.received_at);
        if since > newest {
            newest = since;
            has_to_wait = files.close_older(rules.rotation, record.received_at)?;
        }
        if has_to_wait || !files.add(at, rules, record)? {
            has_to_wait = true;
        } else {
            planned = planned.saturating_add(1);
        }
    }
    Ok(planned)
}
