//! The names of the services.

use crate::util::string_table::named_enum;

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
