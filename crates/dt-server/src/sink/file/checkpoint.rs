//! Encodes the sink's checkpoint as JSON: the rules that map records to lines in files, and the length of each file. The
//! worker stores it together with its cursor. The documentation of the parent module says when it must be stored.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::rotate::Rotation;
use crate::sink::MAX_CHECKPOINT;
use dt_sink::record::{Format, PathTemplate};

/// The version of the lines that [`Format::write_line`] writes. Any change of their bytes raises it, because lines of
/// another version cannot be compared.
pub const VERSION: u32 = 1;

/// The number of bytes of a checkpoint that are reserved for everything except the files and the template.
const REST: usize = 1024;

/// The rules that map records to lines in files.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    pub template: PathTemplate,
    pub format: Format,
    pub rotation: Rotation,
}

/// A file in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The path of the file below the template's root.
    pub path: String,
    /// The inode of the file; 0 for a file that is still to be created. The device is not stored, since its number may change at
    /// a reboot.
    pub inode: u64,
    /// The length up to which the content of the file is delivered, or was written by other programs, in bytes.
    pub length: u64,
    /// The start of the file's period by `rotate_every`, in Unix milliseconds; 0 without `rotate_every`.
    pub since: i64,
    /// The path below the root to which the file is to be renamed when it is closed; `None` if it is not to be closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub close_as: Option<String>,
}

/// The JSON form of a checkpoint.
#[derive(Debug, Serialize, Deserialize)]
struct Stored<F> {
    version: u32,
    root: String,
    path: String,
    /// Whether the path is fixed, so that braces in it are literal characters.
    is_fixed: bool,
    format: String,
    rotate_size: Option<u64>,
    rotate_every_millis: Option<u64>,
    files: Vec<F>,
}

/// A decoded checkpoint.
#[derive(Debug, PartialEq)]
pub struct Checkpoint {
    pub version: u32,
    pub rules: Rules,
    pub files: Vec<Listed>,
}

/// Encodes a checkpoint; `None` if it is larger than [`MAX_CHECKPOINT`], which [`room`] prevents.
pub fn encode<'a>(rules: &Rules, files: impl Iterator<Item = &'a Listed>) -> Option<Vec<u8>> {
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

/// Decodes a checkpoint; `None` if it is invalid. If its template equals that of `configured`, the latter is used.
pub fn decode(bytes: &[u8], configured: &Rules) -> Option<Checkpoint> {
    let stored: Stored<Listed> = serde_json::from_slice(bytes).ok()?;
    let is_configured = stored.root == configured.template.root().to_string_lossy()
        && stored.path == configured.template.relative_text()
        && stored.is_fixed == configured.template.is_fixed();
    let path = || Path::new(&stored.root).join(&stored.path);
    let template = match stored.is_fixed {
        _ if is_configured => configured.template.clone(),
        true => PathTemplate::fixed(&path()),
        false => path().to_str()?.parse().ok()?,
    };
    let rotation =
        Rotation { size: stored.rotate_size, every: stored.rotate_every_millis.map(Duration::from_millis) };
    let rules = Rules { template, format: stored.format.parse().ok()?, rotation };
    Some(Checkpoint { version: stored.version, rules, files: stored.files })
}

/// Returns the number of bytes that a checkpoint of limited size leaves for the entries of files.
pub fn room(template: &PathTemplate) -> usize {
    let texts = [template.root().to_string_lossy().into_owned(), template.relative_text()];
    texts
        .iter()
        .fold(MAX_CHECKPOINT.saturating_sub(REST), |left, text| left.saturating_sub(json_length(text)))
}

/// Returns the largest size of a file's entry in a checkpoint, in bytes.
pub fn cost(path: &str) -> usize {
    // The path twice, for `path` and `close_as`; 200 bytes for the timestamp in the name, the member names and the numbers.
    json_length(path).saturating_mul(2).saturating_add(200)
}

fn json_length(text: &str) -> usize {
    serde_json::to_string(text).map_or(usize::MAX, |json| json.len())
}
