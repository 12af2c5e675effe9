//! What was written and not released is read back, whatever came before it, and what a crash tore or a disk damaged shows.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;

use super::*;

const SIZE: u64 = 64 * 1024;

#[derive(Debug, Clone)]
enum Step {
    /// A frame with so many bytes.
    Write(usize),
    /// So many of the oldest frames are in the database.
    Release(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (1..8_000_usize).prop_map(Step::Write),
        1 => (1..6_usize).prop_map(Step::Release),
    ];
    prop::collection::vec(step, 1..80)
}

/// What a frame says: its number, so often that it has this length.
fn entries(seq: i64, length: usize) -> Vec<u8> {
    seq.to_le_bytes().into_iter().cycle().take(length).collect()
}

/// A journal after these steps, the frames that are not released, and where each of them lies.
fn journal(folder: &Path, steps: &[Step]) -> (Journal, Vec<Vec<u8>>) {
    let mut journal = Journal::create(folder, SIZE).expect("made");
    let (mut kept, mut seq) = (Vec::<(i64, Vec<u8>)>::new(), 0_i64);
    for step in steps {
        match step {
            Step::Write(length) => {
                let next = seq.saturating_add(1);
                let entries = entries(next, *length);
                if !journal.has_room(entries.len()) {
                    assert!(!kept.is_empty(), "an empty journal has room");
                    assert!(journal.write(&entries, next).is_err());
                    continue;
                }
                seq = next;
                journal.write(&entries, seq).expect("written");
                kept.push((seq, entries));
            }
            Step::Release(count) => {
                let count = (*count).min(kept.len());
                if let Some((last, _)) = count.checked_sub(1).and_then(|last| kept.get(last)) {
                    let next = journal.first_after(*last);
                    journal.release(*last);
                    assert_eq!(journal.first(), next);
                    kept.drain(..count);
                }
            }
        }
        assert_eq!(journal.is_empty(), kept.is_empty());
        assert!(journal.used() <= SIZE);
    }
    (journal, kept.into_iter().map(|(_, entries)| entries).collect())
}

fn found(journal: &Journal) -> (Vec<Vec<u8>>, Option<(i64, i64)>) {
    let recovered = recover(&journal.path, journal.first()).expect("read");
    (recovered.frames().map(<[u8]>::to_vec).collect(), recovered.lost)
}

fn damage(journal: &Journal, position: Position, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(&journal.path).expect("opened");
    let at = as_offset(position.offset).saturating_add(at);
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[!byte[0]], at).expect("written");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_not_released_is_read_back(steps in steps()) {
        let folder = tempfile::tempdir().expect("a folder");
        let (journal, kept) = journal(folder.path(), &steps);
        prop_assert_eq!(found(&journal), (kept, None));
    }

    #[test]
    fn a_torn_last_frame_is_no_frame(steps in steps(), at in any::<prop::sample::Index>()) {
        let folder = tempfile::tempdir().expect("a folder");
        let (journal, mut kept) = journal(folder.path(), &steps);
        if let (Some(frame), Some(entries)) = (journal.frames.back(), kept.pop()) {
            damage(&journal, frame.position, as_u64(at.index(HEADER.saturating_add(entries.len()))));
            prop_assert_eq!(found(&journal), (kept, None));
        }
    }

    #[test]
    fn a_damaged_frame_before_others_is_told_of(steps in steps(), which in any::<prop::sample::Index>()) {
        let folder = tempfile::tempdir().expect("a folder");
        let (journal, mut kept) = journal(folder.path(), &steps);
        if kept.len() > 1 {
            let which = which.index(kept.len().saturating_sub(1));
            let position = journal.frames[which].position;
            damage(&journal, position, as_u64(HEADER));
            kept.remove(which);
            prop_assert_eq!(found(&journal), (kept, Some((position.index, position.index))));
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..20_000), offset in any::<i64>()) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("spool.journal");
        std::fs::write(&path, bytes).expect("written");
        let recovered = recover(&path, Position { id: 0, index: i64::MAX, offset }).expect("read");
        recovered.frames().for_each(|frame| drop(entry::read(frame)));
    }
}

#[test]
fn frames_of_an_earlier_journal_are_none_of_this_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let (first, kept) = journal(folder.path(), &[Step::Write(100), Step::Write(5000)]);
    assert_eq!(found(&first), (kept, None));
    let second = Journal::create(folder.path(), SIZE).expect("made");
    assert_eq!(found(&second), (Vec::new(), None));
}
