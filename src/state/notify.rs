//! What the manager of a service is still to be told, and when its watchdog is
//! to be fed. What was not taken is tried again, in the order in which it
//! happened: a manager with a full queue must not miss that the service is ready.
//!
//! ```text
//! Reloading ─▶ Ready ─▶ Stopping      (and no other step from then on)
//!        the status, at any time, goes along or alone
//! ```

use crate::limits::NOTIFY_RETRY;
use crate::proto::notify::{NotifyMessage, NotifyState};
use crate::util::time::{Duration, Instant};

/// See the module's documentation.
#[derive(Debug)]
pub struct NotifyQueue {
    /// What is to be told: that it reloads, since when; that it is ready; that
    /// it stops; how it is.
    reloading: Option<u64>,
    ready: bool,
    stopping: bool,
    status: bool,
    /// It stops, whether that was told or not.
    stopped: bool,
    /// The last attempt failed: none before this but for a new step.
    retry_at: Instant,
    watchdog: Option<WatchdogTimer>,
}

/// When the watchdog is to be fed.
#[derive(Clone, Copy, Debug)]
struct WatchdogTimer {
    every: Duration,
    due: Instant,
    /// A turn that was finished found it due.
    kick_pending: bool,
}

impl NotifyQueue {
    /// Nothing is to be told yet; the watchdog is to be fed each `every` from `now` on,
    /// if at all.
    #[must_use]
    pub fn new(every: Option<Duration>, now: Instant) -> Self {
        let watchdog = every.map(|every| WatchdogTimer { every, due: now + every, kick_pending: false });
        Self {
            reloading: None,
            ready: false,
            stopping: false,
            status: false,
            stopped: false,
            retry_at: Instant::BOOT,
            watchdog,
        }
    }

    /// Something happened.
    pub fn on_state(&mut self, state: NotifyState) {
        if self.stopped {
            return;
        }
        match state {
            NotifyState::Reloading(usec) => self.reloading = Some(usec),
            NotifyState::Ready => self.ready = true,
            NotifyState::Stopping => {
                (self.reloading, self.ready) = (None, false);
                (self.stopping, self.stopped) = (true, true);
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
            watchdog.kick_pending = true;
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
    pub fn next_message(&self) -> Option<NotifyMessage> {
        let reloading = self.reloading.map(NotifyState::Reloading);
        let ready = self.ready.then_some(NotifyState::Ready);
        let stopping = self.stopping.then_some(NotifyState::Stopping);
        let message = NotifyMessage {
            state: reloading.or(ready).or(stopping),
            status: self.status,
            watchdog: self.watchdog.is_some_and(|watchdog| watchdog.kick_pending),
        };
        (message != NotifyMessage::default()).then_some(message)
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
            watchdog.kick_pending = false;
        }
    }

    /// It was not taken, at `now`. The watchdog is fed earlier, and only by
    /// another turn.
    pub fn on_refused(&mut self, now: Instant) {
        self.retry_at = now + NOTIFY_RETRY;
        if let Some(watchdog) = &mut self.watchdog
            && core::mem::take(&mut watchdog.kick_pending)
        {
            watchdog.due = now + watchdog.every.min(NOTIFY_RETRY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELOADING: NotifyState = NotifyState::Reloading(5);
    const RETRY_MS: u64 = NOTIFY_RETRY.as_ms();

    fn at(ms: u64) -> Instant {
        Instant::from_ms(ms)
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_ms(ms)
    }

    fn quiet() -> NotifyQueue {
        NotifyQueue::new(None, at(0))
    }

    /// The steps that are told when everything is taken.
    fn told(queue: &mut NotifyQueue) -> Vec<NotifyState> {
        let mut states = Vec::new();
        while let Some(message) = queue.next_message() {
            states.extend(message.state);
            queue.on_sent();
        }
        states
    }

    #[test]
    fn nothing_is_sent_where_nothing_happens() {
        let mut queue = quiet();
        assert_eq!(queue.next_message(), None);
        assert_eq!(queue.next_deadline(), None);
        assert!(!queue.on_turn(at(u64::MAX)));
    }

    #[test]
    fn every_two_steps_are_told_in_the_order_of_life() {
        let all = [RELOADING, NotifyState::Ready, NotifyState::Stopping];
        for (i, first) in all.into_iter().enumerate() {
            for (j, second) in all.into_iter().enumerate() {
                let mut queue = quiet();
                queue.on_state(first);
                queue.on_state(second);
                let expected = match (first, second) {
                    (NotifyState::Stopping, _) | (_, NotifyState::Stopping) => vec![NotifyState::Stopping],
                    _ if i == j => vec![first],
                    _ => vec![RELOADING, NotifyState::Ready],
                };
                assert_eq!(told(&mut queue), expected, "{first:?}, {second:?}");
            }
        }
    }

    #[test]
    fn after_a_stop_there_is_only_the_status() {
        let mut queue = quiet();
        queue.on_state(NotifyState::Stopping);
        assert_eq!(told(&mut queue), [NotifyState::Stopping]);
        for state in [RELOADING, NotifyState::Ready, NotifyState::Stopping] {
            queue.on_state(state);
            assert_eq!(queue.next_message(), None, "{state:?}");
        }
        queue.on_status();
        assert_eq!(queue.next_message(), Some(NotifyMessage { status: true, ..NotifyMessage::default() }));
    }

    #[test]
    fn what_was_refused_is_tried_again_after_a_while() {
        let mut queue = quiet();
        queue.on_state(RELOADING);
        queue.on_state(NotifyState::Ready);
        queue.on_refused(at(1000));
        assert!(!queue.on_turn(at(999 + RETRY_MS)));
        assert!(queue.on_turn(at(1000 + RETRY_MS)));
        assert_eq!(told(&mut queue), [RELOADING, NotifyState::Ready]);
        queue.on_status();
        assert!(queue.on_turn(at(1001)), "a success ends the wait");
    }

    #[test]
    fn the_watchdog_is_fed_by_finished_turns_only() {
        let mut queue = NotifyQueue::new(Some(ms(100)), at(1000));
        assert_eq!(queue.next_deadline(), Some(at(1100)));
        assert!(!queue.on_turn(at(1099)));
        assert_eq!(queue.next_message(), None);
        // Due, but no turn was finished.
        queue.on_state(NotifyState::Ready);
        assert!(!queue.next_message().unwrap().watchdog);
        queue.on_sent();
        assert!(queue.on_turn(at(1130)));
        assert!(queue.next_message().unwrap().watchdog);
        queue.on_sent();
        assert_eq!(queue.next_message(), None);
        assert_eq!(queue.next_deadline(), Some(at(1230)));
    }

    #[test]
    fn a_watchdog_that_was_not_fed_is_tried_sooner_and_by_another_turn() {
        let mut queue = NotifyQueue::new(Some(ms(60_000)), at(0));
        assert!(queue.on_turn(at(60_000)));
        queue.on_refused(at(60_000));
        assert_eq!(queue.next_deadline(), Some(at(60_000 + RETRY_MS)));
        queue.on_status();
        assert!(!queue.next_message().unwrap().watchdog, "that turn is over");
        assert!(queue.on_turn(at(60_000 + RETRY_MS)));
        assert!(queue.next_message().unwrap().watchdog);
        let mut quick = NotifyQueue::new(Some(ms(10)), at(0));
        assert!(quick.on_turn(at(10)));
        quick.on_refused(at(10));
        assert_eq!(quick.next_deadline(), Some(at(20)));
    }

    #[test]
    fn a_watchdog_that_is_due_does_not_wait_for_a_retry() {
        let mut queue = NotifyQueue::new(Some(ms(100)), at(0));
        queue.on_status();
        queue.on_refused(at(50));
        assert!(queue.on_turn(at(100)));
        assert_eq!(queue.next_message(), Some(NotifyMessage { status: true, watchdog: true, state: None }));
    }

    #[test]
    fn the_end_of_time_overflows_nothing() {
        let mut queue = NotifyQueue::new(Some(ms(u64::MAX)), at(u64::MAX));
        assert!(queue.on_turn(at(u64::MAX)));
        queue.on_refused(at(u64::MAX));
        assert_eq!(queue.next_deadline(), Some(at(u64::MAX)));
    }
}
