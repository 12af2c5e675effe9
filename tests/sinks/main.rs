//! The sinks: the contract that each of them keeps, and what is special to the file.

mod contract;
mod exactly_once;
mod file;
mod records;
