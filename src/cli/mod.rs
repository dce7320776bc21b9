//! cli
use crate::sys::{args::Args, process};
/// main
#[must_use]
pub fn main(args: &Args) -> u8 {
    for i in 0..args.len() { process::write_stdout(args.get(i).unwrap_or(b"")); process::write_stdout(b"\n"); }
    process::write_stdout(args.executable());
    let _ = crate::sys::clock::now();
    0
}
