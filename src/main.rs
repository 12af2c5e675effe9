//! The program `dt-receiver`: parse, run, exit code. All else is in `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    dt_receiver::cli::main()
}
