//! Decides when the hardware watchdog is kicked, and when the kick is withheld so that
//! the board resets.
//!
//! | state \ event | kick is due, all recoverable | kick is due, one unrecoverable | open or kick failed | stop |
//! | --- | --- | --- | --- | --- |
//! | no device | - | - | - | - |
//! | closed | open and kick | open and kick once, because that starts the countdown | closed, retry later | - |
//! | open | kick; at once after it was withheld | withhold | closed, retry later | disarm; or keep it armed, kicked once more unless withheld |

use crate::limits::WATCHDOG_FEED;
use crate::util::time::{Duration, Instant};

/// Number of times that a hardware watchdog is fed within its timeout.
const WATCHDOG_KICKS: u64 = 3;

/// Time from a kick that is withheld to the next look at the instances, because one can become well
/// without an event, and the device may have little time left.
const RECOVERY_LOOK: Duration = Duration::from_ms(1000);

/// The decision on a kick that is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KickDecision {
    /// Kick, and open the device first if it is closed. [`Watchdog::on_kick`] takes the
    /// result.
    pub kick: bool,
    /// The kicks begin or end to be withheld.
    pub has_changed: bool,
}

/// The treatment of the device when the supervisor stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopDecision {
    /// The device is closed already.
    None,
    /// Disarm and close the device.
    Disarm,
    /// Close the device, and leave it armed.
    Keep {
        /// Kick it once more, so that a shutdown has the whole time.
        kick: bool,
    },
}

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub struct Watchdog {
    /// When the next kick is due; `None` without a device.
    kick_at: Option<Instant>,
    /// Time from one kick to the next, or to the next attempt to open the device.
    every: Duration,
    is_open: bool,
    is_withheld: bool,
}

impl Watchdog {
    /// Creates the state for a closed device, or for no device.
    #[must_use]
    pub fn new(has_device: bool) -> Self {
        Self {
            kick_at: has_device.then_some(Instant::BOOT),
            every: WATCHDOG_FEED,
            is_open: false,
            is_withheld: false,
        }
    }

    /// Returns when the next kick is due; `None` without a device.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.kick_at
    }

    /// Returns the decision on the kick if one is due at `now`. The kick is withheld while
    /// an instance is unrecoverable, and due at once after that, because the time that the device has
    /// left may end before the next kick.
    pub fn poll(&mut self, now: Instant, is_unrecoverable: bool) -> Option<KickDecision> {
        let is_held_up = self.is_withheld && !is_unrecoverable;
        self.kick_at.filter(|at| is_held_up || at.is_due(now))?;
        let wait = if is_unrecoverable { self.every.at_most(RECOVERY_LOOK) } else { self.every };
        self.kick_at = Some(now + wait);
        let was_withheld = core::mem::replace(&mut self.is_withheld, is_unrecoverable);
        let kick = !is_unrecoverable || !self.is_open;
        Some(KickDecision { kick, has_changed: was_withheld != is_unrecoverable })
    }

    /// Records that the device was opened. It resets the board after `timeout` seconds
    /// without a kick; `None` if it does not report its timeout.
    pub fn on_opened(&mut self, timeout: Option<u32>) {
        self.is_open = true;
        self.every = match timeout {
            Some(seconds) => Duration::from_secs(u64::from(seconds)) / WATCHDOG_KICKS,
            None => WATCHDOG_FEED,
        };
    }

    /// Records the result of the kick at `now`. After a failure the device is closed,
    /// because the driver may return as another device.
    pub fn on_kick(&mut self, now: Instant, has_failed: bool) {
        self.is_open &= !has_failed;
        self.kick_at = Some(now + self.every);
    }

    /// Ends the kicks, and returns the treatment of the device. With `keep` the countdown
    /// continues, so that a shutdown that hangs is reset.
    pub fn on_stop(&mut self, keep: bool) -> StopDecision {
        self.kick_at = None;
        match core::mem::take(&mut self.is_open) {
            false => StopDecision::None,
            true if keep => StopDecision::Keep { kick: !self.is_withheld },
            true => StopDecision::Disarm,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Instant {
        Instant::from_ms(ms)
    }

    const KICK: Option<KickDecision> = Some(KickDecision { kick: true, has_changed: false });

    /// Returns the state of a device that was opened and kicked at 1000.
    fn opened(timeout: Option<u32>) -> Watchdog {
        let mut watchdog = Watchdog::new(true);
        assert_eq!(watchdog.next_deadline(), Some(Instant::BOOT));
        assert_eq!(watchdog.poll(at(1000), false), KICK);
        watchdog.on_opened(timeout);
        watchdog.on_kick(at(1000), false);
        watchdog
    }

    #[test]
    fn it_is_kicked_several_times_within_its_timeout() {
        let mut watchdog = opened(Some(60));
        for kick in 1..10 {
            let due = at(1000 + kick * 20_000);
            assert_eq!(watchdog.next_deadline(), Some(due));
            assert_eq!(watchdog.poll(due.minus(Duration::from_ms(1)), false), None);
            assert_eq!(watchdog.poll(due, false), KICK);
            watchdog.on_kick(due, false);
        }
        assert_eq!(opened(None).next_deadline(), Some(at(1000) + WATCHDOG_FEED));
    }

    #[test]
    fn without_a_device_nothing_is_due() {
        let mut watchdog = Watchdog::new(false);
        assert_eq!(watchdog.next_deadline(), None);
        assert_eq!(watchdog.poll(at(u64::MAX), true), None);
        assert_eq!(watchdog.on_stop(false), StopDecision::None);
    }

    #[test]
    fn the_kick_is_withheld_while_an_instance_is_unrecoverable() {
        let mut watchdog = opened(Some(3));
        let poll = |watchdog: &mut Watchdog, ms, is_unrecoverable| {
            let decision = watchdog.poll(at(ms), is_unrecoverable)?;
            Some((decision.kick, decision.has_changed))
        };
        assert_eq!(poll(&mut watchdog, 2000, true), Some((false, true)));
        assert_eq!(watchdog.next_deadline(), Some(at(3000)), "a later recovery is seen");
        assert_eq!(poll(&mut watchdog, 2999, true), None);
        assert_eq!(poll(&mut watchdog, 3000, true), Some((false, false)));
        assert_eq!(poll(&mut watchdog, 4000, false), Some((true, true)));
        assert_eq!(poll(&mut watchdog, 5000, false), Some((true, false)));
    }

    #[test]
    fn the_instances_are_looked_at_each_second_while_the_kick_is_withheld() {
        let mut watchdog = opened(Some(60));
        watchdog.poll(at(21_000), true);
        assert_eq!(watchdog.next_deadline(), Some(at(22_000)));
        assert_eq!(watchdog.poll(at(22_000), false).map(|decision| decision.kick), Some(true));
        assert_eq!(watchdog.next_deadline(), Some(at(42_000)));
    }

    #[test]
    fn a_recovery_is_followed_by_a_kick_at_once() {
        let mut watchdog = opened(Some(3));
        assert!(watchdog.poll(at(2000), true).is_some_and(|decision| !decision.kick));
        assert!(watchdog.poll(at(3000), true).is_some_and(|decision| !decision.kick));
        // The device resets the board at 4000, and the next look would come at that moment.
        let kick = Some(KickDecision { kick: true, has_changed: true });
        assert_eq!(watchdog.poll(at(3001), false), kick);
        assert_eq!(watchdog.next_deadline(), Some(at(4001)));
        assert_eq!(watchdog.poll(at(4000), false), None);
    }

    #[test]
    fn the_first_kick_starts_the_countdown_in_any_case() {
        let mut watchdog = Watchdog::new(true);
        assert_eq!(watchdog.poll(at(10), true), Some(KickDecision { kick: true, has_changed: true }));
        watchdog.on_opened(Some(30));
        watchdog.on_kick(at(10), false);
        assert_eq!(watchdog.next_deadline(), Some(at(10_010)));
        assert_eq!(watchdog.poll(at(10_010), true), Some(KickDecision { kick: false, has_changed: false }));
    }

    #[test]
    fn a_device_that_fails_is_opened_again() {
        let mut watchdog = Watchdog::new(true);
        assert_eq!(watchdog.poll(at(0), false), KICK);
        watchdog.on_kick(at(0), true);
        assert_eq!(watchdog.next_deadline(), Some(at(0) + WATCHDOG_FEED), "it could not be opened");
        assert_eq!(watchdog.on_stop(false), StopDecision::None);
        let mut watchdog = opened(Some(3));
        assert_eq!(watchdog.poll(at(2000), false), KICK);
        watchdog.on_kick(at(2000), true);
        assert_eq!(watchdog.poll(at(3000), true), Some(KickDecision { kick: true, has_changed: true }));
    }

    #[test]
    fn a_stop_disarms_an_open_device_once() {
        let mut watchdog = opened(Some(3));
        let decisions = (watchdog.on_stop(false), watchdog.on_stop(false));
        assert_eq!(decisions, (StopDecision::Disarm, StopDecision::None));
        assert_eq!((watchdog.next_deadline(), watchdog.poll(at(u64::MAX), false)), (None, None));
    }

    #[test]
    fn a_stop_can_leave_the_device_armed_and_kicks_it_unless_it_is_withheld() {
        let keep = |mut watchdog: Watchdog| (watchdog.on_stop(true), watchdog.next_deadline());
        assert_eq!(keep(opened(Some(3))), (StopDecision::Keep { kick: true }, None));
        let mut withheld = opened(Some(3));
        withheld.poll(at(2000), true);
        assert_eq!(keep(withheld), (StopDecision::Keep { kick: false }, None));
        assert_eq!(keep(Watchdog::new(true)), (StopDecision::None, None), "it was never opened");
    }
}
