//! The device of the hardware watchdog: a board that hangs is reset.

use crate::limits::WATCHDOG_FEED;
use crate::proto::config::Config;
use crate::service::lifecycle::describe_at;
use crate::service::log::Log;
use crate::state::watchdog::{KickDecision, StopDecision, Watchdog};
use crate::sys::{Errno, Failure, OwnedFd, watchdog};
use crate::util::path::Path;
use crate::util::text::Writer;
use crate::util::time::{Duration, Instant};
use ufmt::uwrite;

/// See the module's documentation.
pub(super) struct WatchdogDevice {
    /// The device; empty for none.
    path: Path,
    device: Option<OwnedFd>,
    /// The failure of the last kick, or of the last attempt to open the device.
    failure: Option<Failure>,
    state: Watchdog,
    /// The timeout that is set when the device is opened; zero for that of the device.
    timeout: Duration,
}

impl WatchdogDevice {
    /// Creates the device that `config` names, which the first kick opens.
    pub(super) fn new(config: &Config) -> Self {
        let path = &config.watchdog;
        let state = Watchdog::new(!path.is_empty());
        Self { path: path.clone(), device: None, failure: None, state, timeout: config.watchdog_timeout }
    }

    /// Applies a reload: replaces the device if it is another one, and sets its timeout.
    pub(super) fn reload(&mut self, config: &Config, log: &mut Log) {
        if config.watchdog != self.path {
            self.stop(false, log);
            *self = Self::new(config);
        } else if config.watchdog_timeout != self.timeout {
            self.timeout = config.watchdog_timeout;
            self.set_timeout(log);
        }
    }

    /// Sets the timeout of the device if it is open, and reads it back.
    fn set_timeout(&mut self, log: &mut Log) {
        let Some(device) = &self.device else { return };
        let seconds = u32::try_from(self.timeout.as_ms().div_ceil(1000)).unwrap_or(u32::MAX);
        if seconds > 0
            && let Err(failure) = watchdog::set_timeout(device, seconds)
        {
            log.warn(&|out| {
                let _ = uwrite!(out, "watchdog: its timeout cannot be set to {} s: ", seconds);
                failure.describe(out);
            });
        }
        let timeout = watchdog::timeout(device);
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
        self.device = Some(watchdog::open(&self.path)?);
        self.set_timeout(log);
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

    /// Closes the device. Disarms it, so that a clean stop does not reset the board, or leaves
    /// it armed with `keep`, so that a shutdown that hangs does.
    pub(super) fn stop(&mut self, keep: bool, log: &mut Log) {
        let decision = self.state.on_stop(keep);
        let Some(device) = self.device.take() else { return };
        match decision {
            StopDecision::None => {}
            StopDecision::Keep { kick } => {
                if kick {
                    let _ = watchdog::kick(&device);
                }
                log.info(&|out| out.push_str("watchdog: left running, as watchdog_on_stop says"));
            }
            StopDecision::Disarm => match watchdog::disarm(device) {
                Ok(()) => log.info(&|out| out.push_str("watchdog: disarmed")),
                Err(failure) => log.warn(&|out| {
                    out.push_str("watchdog: still running (nowayout, or unknown): ");
                    failure.describe(out);
                }),
            },
        }
    }
}
