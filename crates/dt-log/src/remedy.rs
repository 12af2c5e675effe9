//! The remedies for the findings of a start and of [`Reader::check`](super::Reader::check), one text for each cause.

/// Events were lost, or may have been.
pub const FETCH_AGAIN: &str = "check the disk, and fetch the events of that time again from DT's event history, which keeps them for 30 days";
/// Events are damaged, and may be readable in part.
pub const DAMAGED_EVENTS: &str = "`dt-receiver dead list --reason damaged` shows what is left of them once every sink \
     has passed them; check the disk, and fetch them again from DT's event history, which keeps them for 30 days";
/// Nothing was lost.
pub const NOTHING_LOST: &str = "no event is lost and nothing has to be repaired, but check the disk";
/// The progress of sinks was lost.
pub const PROGRESS_LOST: &str = "sinks may get events again; if your last command was `spool replay` or `spool forget`, repeat it, \
     and check the disk";
/// Files are copies from different times.
pub const PUT_BACK: &str =
    "if you put an older file back, put the newest one back instead; otherwise check the disk";
/// The database of the dead letters is inconsistent.
pub const DEAD_LETTERS: &str = "save what can be read with `dt-receiver dead list --json`, stop the receiver, move dead.db \
     away, and run `dt-receiver spool repair`";
/// One dead letter is damaged.
pub const ONE_DEAD_LETTER: &str = "fetch its event again from DT's event history, then remove the dead letter with `dt-receiver dead drop --id ID`";
/// The index of event ids cannot be used.
pub const IDS: &str = "the receiver rebuilds it from the retained events; copies of earlier events are accepted as new, and sinks get them \
     again";
