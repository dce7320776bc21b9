//! The table of the services that this build contains, and what each does differently in the
//! commands that all services have.
//!
//! Changing this: a new service is one row here, beside its row in `proto/service.rs`.

use super::command_line::CommandOption;
use super::invocation::{After, Invocation};
use super::output::{CommandResult, usage_text};
#[cfg(feature = "jobs")]
use super::own_job;
#[cfg(feature = "jobs")]
use super::serve_jobs;
#[cfg(feature = "supervisor")]
use super::serve_supervisor;
use crate::proto::health::BOOT_ID_BYTES;
use crate::proto::service::Service;
use crate::proto::status::STATE_BYTES;
#[cfg(feature = "collector")]
use crate::service::collector;
#[cfg(feature = "hub")]
use crate::service::hub;
use crate::service::lifecycle::StartReporter;
#[cfg(feature = "opener")]
use crate::service::opener;
#[cfg(feature = "supervisor")]
use crate::service::supervisor;
use crate::sys::process::Pid;
use crate::util::path::Path;

/// Reads what the process with this PID file left for `status` in this boot, into a buffer.
type ReadState = for<'a> fn(&Path, Pid, &[u8; BOOT_ID_BYTES], &'a mut [u8; STATE_BYTES]) -> Option<&'a [u8]>;

/// The functions of a service.
pub(super) struct ServiceFns {
    service: Service,
    /// Becomes the service.
    pub(super) serve: fn(Invocation, StartReporter) -> CommandResult,
    /// Checks the words that only some services take. Returns the exit code after printing a
    /// mistake.
    pub(super) check_operands: fn(&Invocation) -> Result<(), u8>,
    /// Prints what follows the line that the service has started.
    pub(super) print_started: fn(&Invocation),
    /// Asks the running service if it can take up the new configuration; the flag is set for a
    /// reload. Returns the exit code after printing why it cannot.
    pub(super) refuse: fn(&mut Invocation, bool) -> Result<(), u8>,
    /// Has the service stop after the job in which this command runs. Returns `None` if it runs in
    /// none. The flag is set if the command line changes the options of the service.
    pub(super) ask_after: fn(&mut Invocation, After, bool) -> Option<CommandResult>,
    /// Reads the line that the running service left for `status`.
    pub(super) read_state: ReadState,
}

impl ServiceFns {
    /// Returns the functions of a service that does nothing differently.
    const fn plain(service: Service, serve: fn(Invocation, StartReporter) -> CommandResult) -> Self {
        Self {
            service,
            serve,
            check_operands: refuse_program,
            print_started: |_| {},
            refuse: |_, _| Ok(()),
            ask_after: |_, _, _| None,
            read_state: |_, _, _, _| None,
        }
    }
}

/// The services.
static SERVICES: &[ServiceFns] = &[
    #[cfg(feature = "jobs")]
    ServiceFns {
        print_started: serve_jobs::print_handler,
        refuse: serve_jobs::refuse_others,
        ask_after: own_job::ask_after,
        ..ServiceFns::plain(Service::Jobs, serve_jobs::serve)
    },
    #[cfg(feature = "supervisor")]
    ServiceFns {
        check_operands: serve_supervisor::check_operands,
        read_state: supervisor::read_state,
        ..ServiceFns::plain(Service::Supervisor, serve_supervisor::serve)
    },
    #[cfg(feature = "hub")]
    ServiceFns::plain(Service::Hub, |invocation, reporter| Ok(hub::serve(invocation.memory, reporter))),
    #[cfg(feature = "opener")]
    ServiceFns::plain(Service::Opener, |invocation, reporter| Ok(opener::serve(invocation.memory, reporter))),
    #[cfg(feature = "collector")]
    ServiceFns::plain(Service::Collector, |invocation, reporter| {
        Ok(collector::serve(invocation.memory, reporter))
    }),
];

/// Returns the functions of a service that this build contains.
pub(super) fn of(service: Service) -> &'static ServiceFns {
    static NONE: ServiceFns = ServiceFns::plain(Service::DEFAULT, |_, _| Err(2));
    SERVICES.iter().find(|row| row.service == service).unwrap_or(&NONE)
}

/// Refuses a program, which only the supervisor runs.
fn refuse_program(invocation: &Invocation) -> Result<(), u8> {
    let Invocation { command, operands, .. } = invocation;
    if operands.literal && !operands.program().is_empty() {
        return Err(usage_text(command, "only `supervisor` runs a program: supervisor -- CMD ARG..."));
    }
    if operands.has(CommandOption::Health) {
        return Err(usage_text(command, "--health is for supervisor -- CMD ARG..."));
    }
    Ok(())
}
