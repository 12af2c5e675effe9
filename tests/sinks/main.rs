//! The sinks: the contract that each of them keeps, and what is special to the file.

mod contract;
mod file;
mod records;
