//! What the program tells of itself: check, limits, help, version.

use super::command_line::Operands;
use super::{COMMANDS, Invocation, command_named, print, usage};
use crate::limits::TABLE;
use crate::proto::config::keys::KEYS;
use crate::proto::service::Service;
use crate::service::lifecycle::exit;
use crate::service::memory::Memory;
use crate::util::text::Writer;
use ufmt::uwrite;

/// Where the summaries begin in the list of commands: behind the longest name
/// with its arguments.
const ARGS_COLUMN: usize = 41;

/// `check`
pub(super) fn check(mut invocation: Invocation) -> u8 {
    if let Err(code) = invocation.load() {
        return code;
    }
    let Memory { config_source, config, scratch, .. } = &mut *invocation.memory;
    let mut code = comment(config_source.file.as_bytes());
    for key in KEYS {
        // The scratch memory is free again: the file is read.
        let mut out = Writer::new(scratch.pages());
        out.push_str(key.name);
        out.push_str(" = ");
        key.emit(config, &mut out);
        out.push_str("\n");
        code |= print(out.as_bytes());
    }
    code
}

/// Says where the values come from, as a comment.
fn comment(file: &[u8]) -> u8 {
    let mut line = [0; 400];
    let mut out = Writer::new(&mut line);
    out.push_str("# effective configuration; the file is ");
    out.push_escaped(file);
    out.push_str("\n");
    print(out.as_bytes())
}

/// `limits`
pub(super) fn limits(_: &Operands) -> u8 {
    let mut code = exit::OK;
    for (name, value, meaning) in TABLE {
        let mut line = [0; 160];
        let mut out = Writer::new(&mut line);
        out.push_str(name);
        pad(&mut out, 16);
        let _ = uwrite!(out, "{}", *value);
        pad(&mut out, 26);
        out.push_str(meaning);
        out.push_str("\n");
        code |= print(out.as_bytes());
    }
    code
}

/// `help [COMMAND]`
pub(super) fn help(operands: &Operands) -> u8 {
    let Some(name) = operands.get(0) else { return overview() };
    let Some(command) = command_named(name) else {
        return usage("", &|out| {
            out.push_str("no help for \"");
            out.push_escaped(name.get(..40).unwrap_or(name));
            out.push_str("\"");
        });
    };
    let mut text = [0; 1280];
    let mut out = Writer::new(&mut text);
    let gap = if command.args.is_empty() { "" } else { " " };
    let _ = uwrite!(out, "zigsvc {}{}{}\n\n{}\n", command.name, gap, command.args, command.summary);
    out.push_str(command.details);
    print(out.as_bytes())
}

fn overview() -> u8 {
    let mut code = print(
        b"zigsvc [-c FILE] [-d DIR] [-o KEY=VALUE]... COMMAND [ARG]...\n\n\
          -c FILE       the configuration file\n\
          -d DIR        put every file below DIR\n\
          -o KEY=VALUE  set one configuration key\n\n",
    );
    let mut line = [0; 160];
    let mut out = Writer::new(&mut line);
    out.push_str("Commands (SERVICE is one of");
    for service in Service::ALL {
        let _ = uwrite!(out, " {}", service.name());
    }
    out.push_str("; jobs if none is named):\n");
    code |= print(out.as_bytes());
    for command in COMMANDS {
        let mut line = [0; 160];
        let mut out = Writer::new(&mut line);
        let _ = uwrite!(out, "  {} {}", command.name, command.args);
        pad(&mut out, ARGS_COLUMN);
        out.push_str(command.summary);
        out.push_str("\n");
        code |= print(out.as_bytes());
    }
    code
}

/// `version`
pub(super) fn version(_: &Operands) -> u8 {
    print(concat!("zigsvc ", env!("CARGO_PKG_VERSION"), "\n").as_bytes())
}

/// Blanks up to `column`, at least one.
fn pad(out: &mut Writer<'_>, column: usize) {
    out.push_str(" ");
    while out.len() < column {
        out.push_str(" ");
    }
}
