//! The commands that print facts of the program: check, limits, help, version.

use super::command_line::{CommandTable, GLOBAL_OPTIONS, Operands, push_global_option, push_services};
use super::invocation::Invocation;
use super::output::{CommandResult, print, push_word, usage};
use crate::limits::rows;
use crate::proto::config::keys::Keyed;
use crate::proto::service::{BUILT_IN, Service};
use crate::service::lifecycle::exit;
use crate::service::memory::Memory;
use crate::service::programs::path_of_program;
use crate::util::path::Path;
use crate::util::text::Writer;
use ufmt::uwrite;

/// The column of the summaries in the list of commands, after the longest name with its
/// arguments.
const SUMMARY_COLUMN: usize = 41;
/// The column of the explanations in the list of options.
const OPTION_COLUMN: usize = 14;
/// Bytes of the line of a value: all paths of `allow`, with each of their bytes escaped.
const VALUE_BYTES: usize = 16 * 1024;

/// Runs `check`.
pub(super) fn check(mut invocation: Invocation) -> CommandResult {
    invocation.load_judged(true)?;
    // All files are read before the first of them is printed.
    invocation.check_programs(&mut |_, _| {})?;
    let Memory { config_source, config, .. } = &mut *invocation.memory;
    print_values("# effective configuration; the file is ", &config_source.file, config)?;
    let folder = config_source.folder.clone();
    let mut result = Ok(());
    invocation.check_programs(&mut |name, program| {
        let path = path_of_program(&folder, name);
        result = result.and_then(|()| print_values("\n# program; the file is ", &path, program));
    })?;
    result.map(|()| exit::OK)
}

/// Prints the values of the file at `path` as TOML, after a comment.
fn print_values(comment: &str, path: &Path, values: &mut dyn Keyed) -> Result<(), u8> {
    let mut bytes = [0; VALUE_BYTES];
    let mut out = Writer::new(&mut bytes);
    out.push_str(comment);
    out.push_escaped(path.as_bytes());
    out.push_str("\n");
    for key in values.keys() {
        out.push_str(key.name);
        out.push_str(" = ");
        key.emit(values, &mut out);
        out.push_str("\n");
        print(out.as_bytes())?;
        out.truncate(0);
    }
    Ok(())
}

/// Runs `limits`.
pub(super) fn limits(_: &Operands) -> CommandResult {
    for (name, value, meaning) in rows() {
        let mut line = [0; 160];
        let mut out = Writer::new(&mut line);
        out.push_str(name);
        pad(&mut out, 16);
        out.push_u64(u64::from(value));
        pad(&mut out, 26);
        print_row(out, meaning)?;
    }
    Ok(exit::OK)
}

/// Runs `help [COMMAND]`.
pub(super) fn help(commands: &CommandTable, operands: &Operands) -> CommandResult {
    let Some(name) = operands.get(0) else { return overview(commands) };
    let Some(command) = commands.find(name) else {
        return Err(usage("", &|out| push_word("no help for", name, out)));
    };
    let mut text = [0; 1280];
    let mut out = Writer::new(&mut text);
    let gap = if command.args.is_empty() { "" } else { " " };
    let _ = uwrite!(out, "zigsvc {}{}{}\n\n{}\n", command.name, gap, command.args, command.summary);
    out.push_str(command.details);
    print(out.as_bytes())?;
    Ok(exit::OK)
}

/// Prints the options before a command, and all commands.
fn overview(commands: &CommandTable) -> CommandResult {
    print(b"zigsvc [-c FILE] [-d DIR] [-o KEY=VALUE]... COMMAND [ARG]...\n\n")?;
    let mut line = [0; 160];
    for index in 0..GLOBAL_OPTIONS.len() / 3 {
        let mut out = Writer::new(&mut line);
        push_global_option(index, &mut out);
        pad(&mut out, OPTION_COLUMN);
        print_row(out, GLOBAL_OPTIONS.get(index * 3 + 2))?;
    }
    let mut out = Writer::new(&mut line);
    out.push_str("\nCommands");
    if !BUILT_IN.is_empty() {
        push_services(" (SERVICE is one of", &mut out);
        let _ = uwrite!(out, "; {} if none is named)", Service::DEFAULT.name());
    }
    print_row(out, ":")?;
    for command in commands.iter() {
        let mut out = Writer::new(&mut line);
        let _ = uwrite!(out, "  {} {}", command.name, command.args);
        pad(&mut out, SUMMARY_COLUMN);
        print_row(out, command.summary)?;
    }
    Ok(exit::OK)
}

/// Runs `version`. A build without some features names those that it has.
pub(super) fn version(_: &Operands) -> CommandResult {
    print(concat!("zigsvc ", env!("CARGO_PKG_VERSION"), "\n").as_bytes())?;
    if cfg!(not(all_features)) {
        print(concat!("features: ", env!("ZIGSVC_FEATURES"), "\n").as_bytes())?;
    }
    Ok(exit::OK)
}

/// Prints a line that ends with `text`.
fn print_row(mut out: Writer<'_>, text: &str) -> Result<(), u8> {
    out.push_str(text);
    out.push_str("\n");
    print(out.as_bytes())
}

/// Writes blanks up to `column`, at least one.
fn pad(out: &mut Writer<'_>, column: usize) {
    out.push_str(" ");
    while out.len() < column {
        out.push_str(" ");
    }
}
