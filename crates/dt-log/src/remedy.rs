//! The remedies for the findings of a start and of [`Reader::check`](super::Reader::check), one text for each cause.

/// Events were lost, or may have been.
pub(super) const FETCH_AGAIN: &str = "look at the disk, and fetch the events of that time again from DT's event history, which has them for 30 days";
/// Events are damaged, and may be readable in part.
pub(super) const DAMAGED_EVENTS: &str = "`dt-receiver dead list --reason damaged` shows what is left of them once every sink \
     is past them; look at the disk, and fetch them again from DT's event history, which has them for 30 days";
/// Nothing was lost.
pub(super) const NOTHING_LOST: &str = "no event is lost and nothing has to be repaired, but look at the disk";
/// The progress of sinks was lost.
pub(super) const PLACES_LOST: &str = "sinks may be given events again; repeat `spool replay` or `spool forget` if that was the \
     last thing you did, and look at the disk";
/// Files are copies from different times.
pub(super) const PUT_BACK: &str =
    "if you put an older file back, put the newest one back instead; otherwise look at the disk";
/// The database of the dead letters is inconsistent.
pub(super) const DEAD_LETTERS: &str = "save what can be read with `dt-receiver dead list --json`, stop the receiver, move dead.db \
     away, and run `dt-receiver spool repair`";
/// One dead letter is damaged.
pub(super) const ONE_DEAD_LETTER: &str = "fetch its event again from DT's event history, then remove the letter with `dt-receiver dead drop --id ID`";
