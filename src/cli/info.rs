//! The commands that print facts of the program: check, limits, help, version.

use super::command_line::{CommandTable, GLOBAL_OPTIONS, Operands, push_global_option, push_services};
use super::invocation::Invocation;
use super::output::{CommandResult, columns, print, usage};
use crate::limits::rows;
use crate::proto::config::keys::Keyed;
use crate::proto::service::{BUILT_IN, Service};
use crate::service::lifecycle::exit;
use crate::service::memory::Memory;
use crate::service::program_files::path_of_program;
use crate::sys::file;
use crate::util::path::Path;
use crate::util::text::Writer;
use ufmt::uwrite;

/// The column of the summaries in the list of commands, after the longest name.
const COMMAND_COLUMN: usize = 12;
/// The column of the explanations in the list of options.
const OPTION_COLUMN: usize = 14;
/// The column of the second and later lines of an entry, so that the first line stands out.
const HANGING: usize = 4;
/// Bytes of the line of a value: all paths of `allow`, with each of their bytes escaped.
const VALUE_BYTES: usize = 16 * 1024;

/// Runs `check`.
pub(super) fn check(mut invocation: Invocation) -> CommandResult {
    invocation.load_judged(true)?;
    // All files are read before the first of them is printed.
    invocation.check_programs(&mut |_, _| {})?;
    let Memory { config_source, config, .. } = &mut *invocation.memory;
    let is_there = file::meta_at(config_source.file.as_c_str(), true).is_ok();
    let comment = match is_there {
        true => "# effective configuration; the file is ",
        false => "# effective configuration; these are the defaults, because there is no file ",
    };
    print_values(comment, &config_source.file, config)?;
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
        let head = |out: &mut Writer<'_>| {
            out.push_str(name);
            pad(out, 16);
            out.push_u64(u64::from(value));
            pad(out, 26);
        };
        print_row(160, 0, &head, meaning)?;
    }
    Ok(exit::OK)
}

/// Runs `help [COMMAND]`.
pub(super) fn help(commands: &CommandTable, operands: &Operands) -> CommandResult {
    let width = columns(operands.env(b"COLUMNS"));
    let Some(name) = operands.get(0) else { return overview(commands, width) };
    let Some(command) = commands.find(name) else {
        return Err(usage("", &|out| {
            let _ = commands.unknown("no help for", name, out);
        }));
    };
    let gap = if command.args.is_empty() { "" } else { " " };
    let head = |out: &mut Writer<'_>| {
        let _ = uwrite!(out, "zigsvc {}{}", command.name, gap);
    };
    print_row(width, HANGING, &head, command.args)?;
    print(b"\n")?;
    print_row(width, 0, &|_| {}, command.summary)?;
    for line in command.details.lines() {
        // Two blanks separate an option from its explanation.
        let is_item = line.contains("  ");
        let (start, indent) = if is_item { ("  ", HANGING) } else { ("", 0) };
        print_row(width, indent, &|out| out.push_str(start), line)?;
    }
    Ok(exit::OK)
}

/// Prints the options before a command, and all commands.
fn overview(commands: &CommandTable, width: usize) -> CommandResult {
    let text = |text: &str| print_row(width, 0, &|_| {}, text);
    print_row(width, HANGING, &|_| {}, "zigsvc [-c FILE] [-d DIR] [-o KEY=VALUE]... COMMAND [ARG]...")?;
    print(b"\n")?;
    for index in 0..GLOBAL_OPTIONS.len() / 3 {
        let head = |out: &mut Writer<'_>| {
            push_global_option(index, out);
            pad(out, OPTION_COLUMN);
        };
        print_row(width, HANGING, &head, GLOBAL_OPTIONS.get(index * 3 + 2))?;
    }
    print(b"\n")?;
    text("Commands; `zigsvc help COMMAND` explains one:")?;
    for command in commands.iter() {
        let head = |out: &mut Writer<'_>| {
            let _ = uwrite!(out, "  {}", command.name);
            pad(out, COMMAND_COLUMN);
        };
        print_row(width, HANGING, &head, command.summary)?;
    }
    let mut names = [0; 160];
    let mut out = Writer::new(&mut names);
    if !BUILT_IN.is_empty() {
        push_services("SERVICE is one of", &mut out);
        let _ = uwrite!(out, "; {} if none is named.", Service::DEFAULT.name());
        print(b"\n")?;
        text(core::str::from_utf8(out.as_bytes()).unwrap_or(""))?;
    }
    Ok(exit::OK)
}

/// Prints the text that `head` writes, and `text` after it, in lines of at most `width` columns.
/// Each line after the first begins with `indent` blanks. No line ends inside of brackets.
fn print_row(width: usize, indent: usize, head: &dyn Fn(&mut Writer<'_>), text: &str) -> Result<(), u8> {
    let mut memory = [0; 1024];
    let mut out = Writer::new(&mut memory);
    head(&mut out);
    let (mut start, mut begin, mut is_inside) = (0, 0, false);
    for (end, byte) in text.bytes().chain([b' ']).enumerate() {
        match byte {
            b'[' => is_inside = true,
            b']' => is_inside = false,
            _ => {}
        }
        if byte != b' ' || is_inside {
            continue;
        }
        let word = text.get(begin..end).unwrap_or("");
        let column = out.len().saturating_sub(start);
        if begin > 0 && column.saturating_add(word.len()) >= width {
            let blanks = out.as_bytes().iter().rev().take_while(|byte| **byte == b' ').count();
            out.truncate(out.len().saturating_sub(blanks));
            out.push_str("\n");
            start = out.len();
            pad(&mut out, start.saturating_add(indent));
        } else if begin > 0 {
            out.push_str(" ");
        }
        out.push_str(word);
        begin = end.saturating_add(1);
    }
    out.push_str("\n");
    print(out.as_bytes())
}

/// Runs `version`. A build without some features names those that it has.
pub(super) fn version(_: &Operands) -> CommandResult {
    print(concat!("zigsvc ", env!("CARGO_PKG_VERSION"), "\n").as_bytes())?;
    if cfg!(not(all_features)) {
        print(concat!("features: ", env!("ZIGSVC_FEATURES"), "\n").as_bytes())?;
    }
    Ok(exit::OK)
}

/// Writes blanks up to `column`, while there is room.
fn pad(out: &mut Writer<'_>, column: usize) {
    while out.len() < column && out.room() > 0 {
        out.push_str(" ");
    }
}
