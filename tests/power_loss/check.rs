//! Builds a disk for real, starts the program on it, and holds it to the answers.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use flate2::read::MultiGzDecoder;

use crate::disk::fake::{FakeDisk, Random};
use crate::disk::{Disk, parent};
use crate::events::parse_id;
use crate::load::{body, send};
use crate::place::{Place, is_socket, is_volatile};
use crate::replay::Ledger;
use crate::sender::Sender;
use crate::server::Server;

/// A disk after a power loss, without what its owner makes anew.
pub(crate) fn crashed(disk: &FakeDisk, random: &mut Random) -> FakeDisk {
    let disk = disk.crash(random);
    for path in disk.names().keys().filter(|path| is_volatile(path)) {
        disk.remove_file(path).expect("removed");
        disk.sync_folder(parent(path)).expect("synced");
    }
    disk
}

/// Writes a disk's files to an empty tmpfs, with their inode numbers.
pub(crate) fn build(disk: &FakeDisk, root: &Path) {
    let names = disk.names();
    let paths: BTreeMap<u64, &PathBuf> = names.iter().map(|(path, inode)| (*inode, path)).collect();
    let below = |path: &Path| root.join(path.strip_prefix("/").expect("absolute"));
    let new = |inode: u64| root.join(format!(".inode-{inode}"));
    for inode in 1..disk.next_inode() {
        let path = paths.get(&inode);
        if path.is_some_and(|path| disk.about(path).expect("it answers").is_some_and(|about| about.is_folder))
        {
            let path = below(path.expect("just seen"));
            fs::DirBuilder::new().mode(0o700).create(path).expect("made");
            continue;
        }
        if path.is_some_and(|path| is_socket(path)) {
            drop(UnixListener::bind(new(inode)).expect("bound"));
            continue;
        }
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(new(inode)).expect("made");
        match path {
            // What is not there any more has used up its number.
            None => fs::remove_file(new(inode)).expect("removed"),
            Some(path) => {
                let content = disk.content(path).expect("there");
                let used = content.chunks(4096).rposition(|part| part != &[0; 4096][..part.len()]);
                let used = used.map_or(0, |last| content.len().min((last + 1) * 4096));
                fs::write(new(inode), &content[..used]).expect("written");
                let file = fs::OpenOptions::new().write(true).open(new(inode)).expect("there");
                file.set_len(content.len() as u64).expect("set");
            }
        }
    }
    for (inode, path) in paths {
        if new(inode).exists() {
            fs::rename(new(inode), below(path)).expect("renamed");
        }
        if inode > 0 {
            assert_eq!(below(path).metadata().expect("there").ino(), inode + 1, "{}", path.display());
        }
    }
}

/// Starts the program on a disk as it is left by a power loss. `Err` says what is wrong with it afterwards.
pub(crate) fn check(place: &Place, disk: &FakeDisk, ledger: &Ledger) -> Result<(), String> {
    place.mount();
    build(disk, &place.disk);
    let outcome = hold(place, ledger);
    place.unmount();
    outcome
}

fn hold(place: &Place, ledger: &Ledger) -> Result<(), String> {
    let server = Server::start(place.program(&["serve"]), Stdio::null())
        .map_err(|ended| format!("it does not start: {ended:?}"))?;
    let mut sender = Sender::connect(server.listen).ok_or("it does not listen")?;
    let mut problems = Vec::new();
    // DT may send the last event again, and does send the one that it got no answer for.
    for (device, count) in &ledger.events {
        for number in count.saturating_sub(1)..=*count {
            let answer = send(&mut sender, *device, number).ok_or("no answer")?;
            if number < *count && !answer.contains("duplicate") {
                problems.push(format!("dev{device}: {number} is sent again: {answer}"));
            }
        }
    }
    drop(sender);
    let ended = server.stop();
    let reported = ended.stderr.lines().filter(|line| line.contains("\"ERROR\""));
    problems.extend(reported.map(|line| format!("reported: {line}")));
    if !ended.status.success() {
        problems.push(format!("it does not stop: {ended:?}"));
    }
    problems.extend(events(place, ledger));
    let output = |arguments: &[&str]| {
        let output = place.program(arguments).output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let all = format!("{text}{}", String::from_utf8_lossy(&output.stderr));
        if output.status.success() { Ok(text) } else { Err(format!("{arguments:?}: {all}")) }
    };
    problems.extend(output(&["spool", "check"]).err());
    if !ledger.letters.is_empty() {
        match output(&["dead", "list", "--json", "--limit", "1000000"]) {
            Err(error) => problems.push(error),
            Ok(list) => {
                let lost = ledger.letters.iter().filter(|id| !list.contains(*id));
                problems.extend(lost.map(|id| format!("the dead letter of request {id} is lost")));
            }
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    let all = problems.len();
    problems.truncate(6);
    Err(format!("{all} problems: {problems:#?}\nstderr: {}", ended.stderr))
}

/// What is wrong with the file sink's files: each event has to be there once, each device's in order.
fn events(place: &Place, ledger: &Ledger) -> Vec<String> {
    let mut problems = Vec::new();
    let mut next: BTreeMap<u64, u64> = BTreeMap::new();
    for path in written_files(&place.out) {
        let content = read(&path);
        if content.contains(&0) {
            problems.push(format!("{}: has NUL bytes", path.display()));
        }
        let text = String::from_utf8_lossy(&content);
        if !text.is_empty() && !text.ends_with('\n') {
            problems.push(format!("{}: a torn last line", path.display()));
        }
        for (at, line) in text.lines().enumerate() {
            let known = parse_id(line).filter(|(device, number)| line == body(*device, *number));
            let Some((device, number)) = known else {
                problems.push(format!("{}: line {at} is none of ours: {line:.80}", path.display()));
                continue;
            };
            let next = next.entry(device).or_default();
            if number != *next {
                problems.push(format!("{}: dev{device}: {number} in place of {next}", path.display()));
            }
            *next = number + 1;
        }
    }
    for (device, count) in &ledger.events {
        // All that were answered, and the one that was sent just now.
        let there = next.get(device).copied().unwrap_or(0);
        if there != count + 1 {
            problems.push(format!("dev{device}: {count} and one were answered, {there} are there"));
        }
    }
    problems
}

/// The files in the order in which they were written. While one is compressed it is there twice.
fn written_files(out: &Path) -> Vec<PathBuf> {
    let mut files: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
    for entry in fs::read_dir(out).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("ndjson") => drop(files.insert(path.clone(), path)),
            Some("gz") => drop(files.entry(path.with_extension("")).or_insert(path)),
            _ => {}
        }
    }
    files.into_values().collect()
}

fn read(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).expect("readable");
    if path.extension().is_none_or(|extension| extension != "gz") {
        return bytes;
    }
    let mut content = Vec::new();
    match MultiGzDecoder::new(&*bytes).read_to_end(&mut content) {
        Ok(_) => content,
        // Reported as a line of nobody.
        Err(error) => format!("{error}\n").into_bytes(),
    }
}
