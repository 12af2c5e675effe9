//! The program `dt-receiver`: its code is in `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    dt_receiver::cli::main()
}
