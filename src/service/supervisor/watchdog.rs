//! The device of the hardware watchdog: a board that hangs is reset.

use crate::limits::WATCHDOG_FEED;
use crate::service::lifecycle::describe_at;
use crate::service::log::Log;
use crate::state::watchdog::{KickDecision, Watchdog};
use crate::sys::{Errno, Failure, OwnedFd, watchdog};
use crate::util::path::Path;
use crate::util::text::Writer;
use crate::util::time::Instant;
use ufmt::uwrite;

/// See the module's documentation.
pub(super) struct WatchdogDevice {
    /// The device; empty for none.
    path: Path,
    device: Option<OwnedFd>,
    /// The failure of the last kick, or of the last attempt to open the device.
    failure: Option<Failure>,
    state: Watchdog,
}

impl WatchdogDevice {
    /// Creates the device at `path`, which the first kick opens.
    pub(super) fn new(path: &Path) -> Self {
        let state = Watchdog::new(!path.is_empty());
        Self { path: path.clone(), device: None, failure: None, state }
    }

    /// Replaces the device if a reload named another one.
    pub(super) fn move_to(&mut self, path: &Path, log: &mut Log) {
        if *path != self.path {
            self.disarm(log);
            *self = Self::new(path);
        }
    }

    /// Returns when the next kick is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.state.next_deadline()
    }

    /// Returns the failure that lasts.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.failure
    }

    /// Kicks the device if that is due. `unrecoverable` writes the name of an instance
    /// because of which the kick is withheld.
    #[unsafe(link_section = ".text.idle")]
    pub(super) fn poll(
        &mut self,
        now: Instant,
        unrecoverable: Option<&dyn Fn(&mut Writer<'_>)>,
        log: &mut Log,
    ) {
        let decision = self.state.poll(now, unrecoverable.is_some());
        let Some(KickDecision { kick, has_changed }) = decision else { return };
        match unrecoverable {
            _ if !has_changed => {}
            Some(push_name) => log.error(&|out| {
                push_name(out);
                out.push_str(": beyond help; the watchdog is not fed any more, so that the board resets");
            }),
            None => log.warn(&|out| out.push_str("watchdog: all is well again, it is fed")),
        }
        if kick {
            self.kick(now, log);
        }
    }

    fn open(&mut self, log: &mut Log) -> Result<(), Failure> {
        if self.device.is_some() {
            return Ok(());
        }
        let device = watchdog::open(&self.path)?;
        let timeout = watchdog::timeout(&device);
        self.state.on_opened(timeout);
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

    fn kick(&mut self, now: Instant, log: &mut Log) {
        let result = self.open(log).and_then(|()| self.device.as_ref().map_or(Ok(()), watchdog::kick));
        let failure = result.err();
        self.state.on_kick(now, failure.is_some());
        if failure.is_some() {
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

    /// Disarms the device, so that a clean stop does not reset the board.
    pub(super) fn disarm(&mut self, log: &mut Log) {
        let is_armed = self.state.on_stop();
        let Some(device) = self.device.take().filter(|_| is_armed) else { return };
        match watchdog::disarm(device) {
            Ok(()) => log.info(&|out| out.push_str("watchdog: disarmed")),
            Err(failure) => log.error(&|out| {
                out.push_str("watchdog: not disarmed, the board will reset: ");
                failure.describe(out);
            }),
        }
    }
}
