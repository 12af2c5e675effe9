//! The log: where accepted events are stored until every sink has them, with the dead letters and the dedup index beside it.

pub mod dead;
pub mod ids;
mod sqlite;
