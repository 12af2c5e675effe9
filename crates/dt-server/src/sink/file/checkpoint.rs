//! Where the sink stands, as JSON: by which rules lines become files, and how long each file is. The worker stores it
//! together with its cursor; see the module's documentation for what it has to hold before what is done.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::rotate::Rotation;
use crate::sink::MAX_CHECKPOINT;
use dt_sink::record::{Format, PathTemplate};

/// The version of the lines that [`Format::write_line`] writes. It is raised with any change of their bytes: lines of
/// another version cannot be compared with.
pub(super) const VERSION: u32 = 1;

/// Room in a checkpoint for everything but files and the template.
const REST: usize = 1024;

/// How records become lines in files.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rules {
    pub(super) template: PathTemplate,
    pub(super) format: Format,
    pub(super) rotation: Rotation,
}

/// A file that the sink appends to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Listed {
    /// Below the template's root.
    pub(super) path: String,
    /// 0 for a file that is still to be made. The device is left out: its number may change when a machine starts.
    pub(super) inode: u64,
    /// Up to where its content is delivered, or not ours.
    pub(super) length: u64,
    /// When the stretch of `rotate_every` began that it holds, in Unix milliseconds.
    pub(super) since: i64,
    /// The name that it gets next, below the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) close_as: Option<String>,
}

/// What is stored.
#[derive(Debug, Serialize, Deserialize)]
struct Stored<F> {
    version: u32,
    root: String,
    path: String,
    /// Braces in the path of a fixed template are no placeholders.
    is_fixed: bool,
    format: String,
    rotate_size: Option<u64>,
    rotate_every_millis: Option<u64>,
    files: Vec<F>,
}

/// What was read back.
#[derive(Debug, PartialEq)]
pub(super) struct Checkpoint {
    pub(super) version: u32,
    pub(super) rules: Rules,
    pub(super) files: Vec<Listed>,
}

/// Encodes a checkpoint; `None` if it would be too large, which [`room`] prevents.
pub(super) fn encode<'a>(rules: &Rules, files: impl Iterator<Item = &'a Listed>) -> Option<Vec<u8>> {
    let stored = Stored {
        version: VERSION,
        root: rules.template.root().to_string_lossy().into_owned(),
        path: rules.template.relative_text(),
        is_fixed: rules.template.is_fixed(),
        format: rules.format.name().to_owned(),
        rotate_size: rules.rotation.size,
        rotate_every_millis: rules.rotation.every.and_then(|every| u64::try_from(every.as_millis()).ok()),
        files: files.collect(),
    };
    serde_json::to_vec(&stored).ok().filter(|bytes| bytes.len() <= MAX_CHECKPOINT)
}

/// Reads a checkpoint. `today` are the rules of the configuration, taken over where they are the same.
pub(super) fn decode(bytes: &[u8], today: &Rules) -> Option<Checkpoint> {
    let stored: Stored<Listed> = serde_json::from_slice(bytes).ok()?;
    let is_todays = stored.root == today.template.root().to_string_lossy()
        && stored.path == today.template.relative_text()
        && stored.is_fixed == today.template.is_fixed();
    let path = || Path::new(&stored.root).join(&stored.path);
    let template = match stored.is_fixed {
        _ if is_todays => today.template.clone(),
        true => PathTemplate::fixed(&path()),
        false => path().to_str()?.parse().ok()?,
    };
    let rotation =
        Rotation { size: stored.rotate_size, every: stored.rotate_every_millis.map(Duration::from_millis) };
    let rules = Rules { template, format: stored.format.parse().ok()?, rotation };
    Some(Checkpoint { version: stored.version, rules, files: stored.files })
}

/// How many bytes of a checkpoint are left for files.
pub(super) fn room(template: &PathTemplate) -> usize {
    let texts = [template.root().to_string_lossy().into_owned(), template.relative_text()];
    texts
        .iter()
        .fold(MAX_CHECKPOINT.saturating_sub(REST), |left, text| left.saturating_sub(json_length(text)))
}

/// The most bytes that a file takes there, now or when it is about to be closed.
pub(super) fn cost(path: &str) -> usize {
    // Twice its path, once with a time and a number in it; the names of the members; three numbers of 20 digits.
    json_length(path).saturating_mul(2).saturating_add(200)
}

fn json_length(text: &str) -> usize {
    serde_json::to_string(text).map_or(usize::MAX, |json| json.len())
}
