//! The names of services and programs, and the services that this build contains.

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

/// The services that this build contains, in the order of [`Service::ALL`]. The pure layers alone
/// have the tables of all services.
pub const BUILT_IN: &[Service] = &[
    #[cfg(any(feature = "jobs", not(feature = "sys")))]
    Service::Jobs,
    #[cfg(any(feature = "hub", not(feature = "sys")))]
    Service::Hub,
    #[cfg(any(feature = "opener", not(feature = "sys")))]
    Service::Opener,
    #[cfg(any(feature = "collector", not(feature = "sys")))]
    Service::Collector,
    #[cfg(any(feature = "supervisor", not(feature = "sys")))]
    Service::Supervisor,
];

/// A bit for each service of [`BUILT_IN`].
const BUILT_IN_BITS: u8 = {
    let (mut bits, mut rest) = (0, BUILT_IN);
    while let [service, others @ ..] = rest {
        bits |= 1 << *service as u8;
        rest = others;
    }
    bits
};

impl Service {
    /// The service of a command that names none: `jobs`, and in a build without it `supervisor`, or
    /// the first one that there is.
    pub const DEFAULT: Self = match BUILT_IN {
        [Self::Jobs, ..] | [] => Self::Jobs,
        [.., Self::Supervisor] => Self::Supervisor,
        [first, ..] => *first,
    };

    /// Returns true if this build contains the service. Its feature has its name.
    #[must_use]
    pub const fn is_built_in(self) -> bool {
        BUILT_IN_BITS >> self as u8 & 1 == 1
    }

    /// Returns true if this is the service `other`, and this build contains it. The compiler
    /// leaves out the code for a service that it does not contain.
    #[must_use]
    #[inline]
    pub const fn is(self, other: Self) -> bool {
        other.is_built_in() && self as u8 == other as u8
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

    #[test]
    fn a_service_is_itself_if_this_build_contains_it() {
        for service in Service::ALL {
            assert_eq!(service.is_built_in(), BUILT_IN.contains(&service));
            for other in Service::ALL {
                assert_eq!(service.is(other), service == other && service.is_built_in());
            }
        }
        assert!(BUILT_IN.is_empty() || Service::DEFAULT.is_built_in());
    }
}
