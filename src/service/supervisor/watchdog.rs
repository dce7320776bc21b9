//! The hardware watchdog: a board that cannot heal itself resets.

use super::Supervisor;
use super::managed_process::ManagedProcess;
use crate::limits::{WATCHDOG_FEED, WATCHDOG_KICKS};
use crate::service::lifecycle::describe_at;
use crate::service::log::Log;
use crate::sys::{Errno, Failure, OwnedFd, watchdog};
use crate::util::path::Path;
use crate::util::time::{Duration, Instant};
use ufmt::uwrite;

/// See the module's documentation.
pub(super) struct Watchdog {
    /// The device; empty for none.
    path: Path,
    device: Option<OwnedFd>,
    /// What it does not do at the moment.
    failure: Option<Failure>,
    /// From one feed to the next, or to the next attempt to open it.
    every: Duration,
    kick_at: Instant,
    /// Whether it is not fed, so that the board resets.
    withheld: bool,
}

impl Watchdog {
    /// That at `path`, which is opened with the first [`Supervisor::kick_watchdog`].
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.clone(),
            device: None,
            failure: None,
            every: WATCHDOG_FEED,
            kick_at: Instant::BOOT,
            withheld: false,
        }
    }

    /// A reload named another one.
    pub(super) fn move_to(&mut self, path: &Path, log: &mut Log) {
        if *path != self.path {
            self.disarm(log);
            *self = Self::new(path);
        }
    }

    /// When it is to be fed next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        (!self.path.is_empty()).then_some(self.kick_at)
    }

    /// Why it does not work at the moment.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.failure
    }

    fn open(&mut self, log: &mut Log) -> Result<(), Failure> {
        if self.device.is_some() {
            return Ok(());
        }
        let device = watchdog::open(&self.path)?;
        let timeout = watchdog::timeout(&device);
        self.every = match timeout {
            Some(seconds) => Duration::from_secs(u64::from(seconds)) / WATCHDOG_KICKS,
            None => WATCHDOG_FEED,
        };
        log.info(&|out| {
            out.push_str("watchdog: ");
            out.push_escaped(self.path.as_bytes());
            let _ = match timeout {
                Some(seconds) => uwrite!(out, " resets the board unless it is fed within {} s", seconds),
                None => {
                    uwrite!(out, " does not tell its timeout; it is fed each {} ms", WATCHDOG_FEED.as_ms())
                }
            };
        });
        self.device = Some(device);
        Ok(())
    }

    fn kick(&mut self, log: &mut Log) {
        let result = self.open(log).and_then(|()| self.device.as_ref().map_or(Ok(()), watchdog::kick));
        let failure = result.err();
        if failure.is_some() {
            // The driver may come back as another device.
            self.device = None;
        }
        if failure != self.failure {
            self.failure = failure;
            match failure {
                Some(failure) => log.error(&|out| {
                    out.push_str("watchdog: ");
                    describe_at(&self.path, failure, out);
                    out.push_str(match failure.errno {
                        Errno::BUSY => "; another process feeds it",
                        _ => "; nothing resets the board if it hangs",
                    });
                }),
                None => log.info(&|out| out.push_str("watchdog: it is fed again")),
            }
        }
    }

    /// A clean stop does not reset the board.
    pub(super) fn disarm(&mut self, log: &mut Log) {
        let Some(device) = self.device.take() else { return };
        match watchdog::disarm(device) {
            Ok(()) => log.info(&|out| out.push_str("watchdog: disarmed")),
            Err(failure) => log.error(&|out| {
                out.push_str("watchdog: not disarmed, the board will reset: ");
                failure.describe(out);
            }),
        }
    }
}

impl Supervisor {
    /// Feeds it when that is due, unless something supervised is beyond help.
    pub(super) fn kick_watchdog(&mut self, now: Instant) {
        if !self.watchdog.next_deadline().is_some_and(|at| at.is_due(now)) {
            return;
        }
        let patience = self.base.process.config.watchdog_patience;
        let is_unrecoverable = |managed: &&ManagedProcess| managed.state.is_unrecoverable(now, patience);
        let unrecoverable = self.managed.iter().find(is_unrecoverable).map(|managed| managed.kind);
        match (unrecoverable, self.watchdog.withheld) {
            (Some(kind), false) => self.base.log.error(&|out| {
                self.launch.push_name(kind, out);
                out.push_str(": beyond help; the watchdog is not fed any more, so that the board resets");
            }),
            (None, true) => self.base.log.warn(&|out| out.push_str("watchdog: all is well again, it is fed")),
            _ => {}
        }
        self.watchdog.withheld = unrecoverable.is_some();
        // (the first time opens it, and so starts the countdown, in any case)
        if unrecoverable.is_none() || self.watchdog.device.is_none() {
            self.watchdog.kick(&mut self.base.log);
        }
        self.watchdog.kick_at = now + self.watchdog.every;
    }
}
