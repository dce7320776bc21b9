//! The service `supervisor` in the commands that all services have: the program that it runs.

use super::command_line::CommandOption;
use super::invocation::Invocation;
use super::output::{CommandResult, usage_text};
use crate::limits::PATH_MAX_BYTES;
use crate::proto::config::keys::absolute;
use crate::service::lifecycle::StartReporter;
use crate::service::supervisor::{self, LaunchSpec};
use crate::util::path::Path;
use crate::util::text::text_with_number;

/// Becomes the service.
pub(super) fn serve(invocation: Invocation, reporter: StartReporter) -> CommandResult {
    let launch_spec = launch_spec(&invocation)?;
    Ok(supervisor::serve(invocation.memory, reporter, launch_spec))
}

/// Checks the program and its options.
///
/// # Errors
/// The command line has a mistake; the exit code, after printing the reason.
pub(super) fn check_operands(invocation: &Invocation) -> Result<(), u8> {
    launch_spec(invocation).map(drop)
}

/// Returns the part of the command line that the supervisor needs.
///
/// # Errors
/// The command line has a mistake; the exit code, after printing the reason.
fn launch_spec(invocation: &Invocation) -> Result<LaunchSpec, u8> {
    let Invocation { command, operands, args, command_at, memory, .. } = invocation;
    let refuse = |text: &str| Err(usage_text(command, text));
    let program = if operands.literal { operands.program() } else { &[] };
    if !program.is_empty() {
        let base = &memory.config_source.base;
        let word = operands.get(0).unwrap_or(b"");
        let file = if word.contains(&b'/') { base.join(word) } else { Path::new(word) };
        if file.is_none() {
            return refuse(text_with_number!(
                "CMD: a path, made absolute, has at most ",
                PATH_MAX_BYTES,
                " bytes"
            ));
        }
        if base.is_empty() {
            return refuse(text_with_number!(
                "CMD runs in the working directory, which is gone, or whose path is over ",
                PATH_MAX_BYTES,
                " bytes"
            ));
        }
    }
    let health = match operands.value(CommandOption::Health) {
        Some(_) if program.is_empty() => return refuse("--health is for supervisor -- CMD ARG..."),
        Some(path) => match absolute(&memory.config_source.base, path) {
            None => {
                return refuse(text_with_number!(
                    "--health: a path, made absolute, has 1 to ",
                    PATH_MAX_BYTES,
                    " bytes"
                ));
            }
            path => path,
        },
        None => None,
    };
    Ok(LaunchSpec { args: *args, command_at: *command_at, program, health })
}
