//! The binary: `rt` enters it, and the library runs the command.
#![no_std]
#![no_main]

mod rt;

use zigsvc::sys::args::Args;

/// Runs the command that the arguments name and exits with its status.
fn main(args: Args) -> ! {
    let status = zigsvc::cli::main(&args);
    zigsvc::sys::process::exit(status)
}
