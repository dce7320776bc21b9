//! What the manager of a service is still to be told, and when its watchdog is
//! to be fed. What was not taken is tried again, in the order in which it
//! happened: a manager with a full queue must not miss that the service is ready.
//!
//! ```text
//! Reloading ─▶ Ready ─▶ Stopping      (and no other step from then on)
//!        the status, at any time, goes along or alone
//! ```

use crate::limits::NOTIFY_RETRY;
use crate::proto::notify::{Message, Step};
use crate::util::time::{Duration, Instant};

/// See the module's documentation.
#[derive(Debug)]
pub struct Notices {
    /// What is to be told: that it reloads, since when; that it is ready; that
    /// it stops; how it is.
    reloading: Option<u64>,
    ready: bool,
    stopping: bool,
    status: bool,
    /// It stops, whether that was told or not.
    over: bool,
    /// The last attempt failed: none before this but for a new step.
    retry_at: Instant,
    watchdog: Option<Watchdog>,
}

/// When the watchdog is to be fed.
#[derive(Clone, Copy, Debug)]
struct Watchdog {
    every: Duration,
    due: Instant,
    /// A turn that was finished found it due.
    fed: bool,
}

impl Notices {
    /// Nothing is to be told yet; the watchdog is to be fed each `every` from `now` on,
    /// if at all.
    #[must_use]
    pub fn new(every: Option<Duration>, now: Instant) -> Self {
        let watchdog = every.map(|every| Watchdog { every, due: now + every, fed: false });
        Self {
            reloading: None,
            ready: false,
            stopping: false,
            status: false,
            over: false,
            retry_at: Instant::BOOT,
            watchdog,
        }
    }

    /// Something happened.
    pub fn on_step(&mut self, step: Step) {
        if self.over {
            return;
        }
        match step {
            Step::Reloading(usec) => self.reloading = Some(usec),
            Step::Ready => self.ready = true,
            Step::Stopping => {
                (self.reloading, self.ready) = (None, false);
                (self.stopping, self.over) = (true, true);
            }
        }
    }

    /// How the service is has changed.
    pub fn on_status(&mut self) {
        self.status = true;
    }

    /// A turn of the loop was finished at `now`; true if there is something to
    /// send.
    pub fn on_turn(&mut self, now: Instant) -> bool {
        if let Some(watchdog) = self.watchdog.as_mut().filter(|watchdog| watchdog.due.is_due(now)) {
            watchdog.due = now + watchdog.every;
            watchdog.fed = true;
            return true;
        }
        self.retry_at.is_due(now) && self.next_message().is_some()
    }

    /// When the loop has to wake for the watchdog.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.watchdog.map(|watchdog| watchdog.due)
    }

    /// The next datagram.
    #[must_use]
    pub fn next_message(&self) -> Option<Message> {
        let reloading = self.reloading.map(Step::Reloading);
        let ready = self.ready.then_some(Step::Ready);
        let stopping = self.stopping.then_some(Step::Stopping);
        let message = Message {
            step: reloading.or(ready).or(stopping),
            status: self.status,
            watchdog: self.watchdog.is_some_and(|watchdog| watchdog.fed),
        };
        (message != Message::default()).then_some(message)
    }

    /// That datagram was taken.
    pub fn on_sent(&mut self) {
        // Only the first of these was told.
        if self.reloading.take().is_none() {
            (self.ready, self.stopping) = (false, false);
        }
        self.status = false;
        self.retry_at = Instant::BOOT;
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.fed = false;
        }
    }

    /// It was not taken, at `now`. The watchdog is fed earlier, and only by
    /// another turn.
    pub fn on_refused(&mut self, now: Instant) {
        self.retry_at = now + NOTIFY_RETRY;
        if let Some(watchdog) = &mut self.watchdog
            && core::mem::take(&mut watchdog.fed)
        {
            watchdog.due = now + watchdog.every.min(NOTIFY_RETRY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELOADING: Step = Step::Reloading(5);
    const RETRY_MS: u64 = NOTIFY_RETRY.as_ms();

    fn at(ms: u64) -> Instant {
        Instant::from_ms(ms)
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_ms(ms)
    }

    fn quiet() -> Notices {
        Notices::new(None, at(0))
    }

    /// The steps that are told when everything is taken.
    fn told(notices: &mut Notices) -> Vec<Step> {
        let mut steps = Vec::new();
        while let Some(message) = notices.next_message() {
            steps.extend(message.step);
            notices.on_sent();
        }
        steps
    }

    #[test]
    fn nothing_is_sent_where_nothing_happens() {
        let mut notices = quiet();
        assert_eq!(notices.next_message(), None);
        assert_eq!(notices.next_deadline(), None);
        assert!(!notices.on_turn(at(u64::MAX)));
    }

    #[test]
    fn every_two_steps_are_told_in_the_order_of_life() {
        let all = [RELOADING, Step::Ready, Step::Stopping];
        for (i, first) in all.into_iter().enumerate() {
            for (j, second) in all.into_iter().enumerate() {
                let mut notices = quiet();
                notices.on_step(first);
                notices.on_step(second);
                let expected = match (first, second) {
                    (Step::Stopping, _) | (_, Step::Stopping) => vec![Step::Stopping],
                    _ if i == j => vec![first],
                    _ => vec![RELOADING, Step::Ready],
                };
                assert_eq!(told(&mut notices), expected, "{first:?}, {second:?}");
            }
        }
    }

    #[test]
    fn after_a_stop_there_is_only_the_status() {
        let mut notices = quiet();
        notices.on_step(Step::Stopping);
        assert_eq!(told(&mut notices), [Step::Stopping]);
        for step in [RELOADING, Step::Ready, Step::Stopping] {
            notices.on_step(step);
            assert_eq!(notices.next_message(), None, "{step:?}");
        }
        notices.on_status();
        assert_eq!(notices.next_message(), Some(Message { status: true, ..Message::default() }));
    }

    #[test]
    fn what_was_refused_is_tried_again_after_a_while() {
        let mut notices = quiet();
        notices.on_step(RELOADING);
        notices.on_step(Step::Ready);
        notices.on_refused(at(1000));
        assert!(!notices.on_turn(at(999 + RETRY_MS)));
        assert!(notices.on_turn(at(1000 + RETRY_MS)));
        assert_eq!(told(&mut notices), [RELOADING, Step::Ready]);
        notices.on_status();
        assert!(notices.on_turn(at(1001)), "a success ends the wait");
    }

    #[test]
    fn the_watchdog_is_fed_by_finished_turns_only() {
        let mut notices = Notices::new(Some(ms(100)), at(1000));
        assert_eq!(notices.next_deadline(), Some(at(1100)));
        assert!(!notices.on_turn(at(1099)));
        assert_eq!(notices.next_message(), None);
        // Due, but no turn was finished.
        notices.on_step(Step::Ready);
        assert!(!notices.next_message().unwrap().watchdog);
        notices.on_sent();
        assert!(notices.on_turn(at(1130)));
        assert!(notices.next_message().unwrap().watchdog);
        notices.on_sent();
        assert_eq!(notices.next_message(), None);
        assert_eq!(notices.next_deadline(), Some(at(1230)));
    }

    #[test]
    fn a_watchdog_that_was_not_fed_is_tried_sooner_and_by_another_turn() {
        let mut notices = Notices::new(Some(ms(60_000)), at(0));
        assert!(notices.on_turn(at(60_000)));
        notices.on_refused(at(60_000));
        assert_eq!(notices.next_deadline(), Some(at(60_000 + RETRY_MS)));
        notices.on_status();
        assert!(!notices.next_message().unwrap().watchdog, "that turn is over");
        assert!(notices.on_turn(at(60_000 + RETRY_MS)));
        assert!(notices.next_message().unwrap().watchdog);
        let mut quick = Notices::new(Some(ms(10)), at(0));
        assert!(quick.on_turn(at(10)));
        quick.on_refused(at(10));
        assert_eq!(quick.next_deadline(), Some(at(20)));
    }

    #[test]
    fn a_watchdog_that_is_due_does_not_wait_for_a_retry() {
        let mut notices = Notices::new(Some(ms(100)), at(0));
        notices.on_status();
        notices.on_refused(at(50));
        assert!(notices.on_turn(at(100)));
        assert_eq!(notices.next_message(), Some(Message { status: true, watchdog: true, step: None }));
    }

    #[test]
    fn the_end_of_time_overflows_nothing() {
        let mut notices = Notices::new(Some(ms(u64::MAX)), at(u64::MAX));
        assert!(notices.on_turn(at(u64::MAX)));
        notices.on_refused(at(u64::MAX));
        assert_eq!(notices.next_deadline(), Some(at(u64::MAX)));
    }
}
