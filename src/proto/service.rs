//! The names of services and programs.

use crate::limits::PROGRAM_NAME_BYTES;
use crate::util::string_table::{StringTable, named_enum, string_table};

named_enum! {
    /// A service of the binary, in the order in which services are shown to the user. The name
    /// is that of the command line and of file names.
    pub enum Service {
        /// Runs jobs from a queue.
        Jobs = "jobs",
        /// Passes lines between clients.
        Hub = "hub",
        /// Opens files for clients that may not open them themselves.
        Opener = "opener",
        /// Keeps sums and averages of metrics.
        Collector = "collector",
        /// Keeps the other services running.
        Supervisor = "supervisor",
    }
}

/// The commands of the command line. A program cannot have the name of one.
pub static COMMAND_NAMES: StringTable = string_table![
    "start", "stop", "restart", "reload", "rotate", "status", "queue", "wait", "list", "cancel", "retry",
    "forget", "hold", "resume", "drain", "watch", "chat", "open", "metric", "signal", "log", "check",
    "doctor", "limits", "help", "version", "run"
];

/// Returns true if `name` can be that of a program: it is no service and no command, has 1 to
/// [`PROGRAM_NAME_BYTES`] bytes of `a-z 0-9 . _ -`, and begins with a letter or a digit.
#[must_use]
pub fn is_program_name(name: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.first().is_some_and(is_plain)
        && name.len() <= PROGRAM_NAME_BYTES
        && name.iter().all(|byte| is_plain(byte) || matches!(byte, b'.' | b'_' | b'-'))
        && Service::from_name(name).is_none()
        && COMMAND_NAMES.find(name).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_is_found_by_its_name_and_nothing_else_is() {
        for service in Service::ALL {
            assert_eq!(Service::from_name(service.name().as_bytes()), Some(service));
        }
        assert_eq!(Service::from_name(b"Jobs"), None);
        assert_eq!(Service::from_name(b""), None);
    }
}
