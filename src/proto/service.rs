//! The services' names.

/// A service of the binary.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Service {
    /// Runs jobs from a queue.
    Jobs,
    /// Passes lines between clients.
    Hub,
    /// Opens files for those who may not.
    Opener,
    /// Averages metrics.
    Collector,
    /// Keeps the others running.
    Supervisor,
}

impl Service {
    /// All of them, in the order in which they are named to the user.
    pub const ALL: [Self; 5] = [Self::Jobs, Self::Hub, Self::Opener, Self::Collector, Self::Supervisor];

    /// Its name on the command line and in file names.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Jobs => "jobs",
            Self::Hub => "hub",
            Self::Opener => "opener",
            Self::Collector => "collector",
            Self::Supervisor => "supervisor",
        }
    }

    /// The service with this name.
    #[must_use]
    pub fn named(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|service| service.name().as_bytes() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_is_found_by_its_name_and_nothing_else_is() {
        for service in Service::ALL {
            assert_eq!(Service::named(service.name().as_bytes()), Some(service));
        }
        assert_eq!(Service::named(b"Jobs"), None);
        assert_eq!(Service::named(b""), None);
    }
}
