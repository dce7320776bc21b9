//! Decides what is sent to the service manager, and when its watchdog is kicked. A message
//! that the manager did not accept is tried again, and the order of states is kept. This
//! matters because a manager whose queue is full must not miss that the service is ready.
//!
//! ```text
//! Reloading ─▶ Ready ─▶ Stopping      (no other state after that)
//!        the status goes with a state, or alone
//! ```

use crate::proto::notify::{NotifyMessage, NotifyState};
use crate::util::time::{Duration, Instant};

/// Time until a message that the service manager did not take is sent again.
pub const NOTIFY_RETRY: Duration = Duration::from_ms(1000);

/// The messages that are to be sent to the service manager.
#[derive(Debug)]
pub struct NotifyQueue {
    /// The changes of state to be reported: a reload and its time, ready, stopping. `status`
    /// is true if the description of the state is to be sent.
    reloading: Option<u64>,
    ready: bool,
    stopping: bool,
    status: bool,
    /// True if the service stops, whether that was reported or not.
    stopped: bool,
    /// The last attempt failed. The next one is not made before this time, unless the state
    /// changes or the watchdog is due.
    retry_at: Instant,
    watchdog: Option<WatchdogTimer>,
}

/// The time of the next kick of the service manager's watchdog.
#[derive(Clone, Copy, Debug)]
struct WatchdogTimer {
    every: Duration,
    due: Instant,
    /// True if a finished turn found the kick due.
    kick_pending: bool,
}

impl NotifyQueue {
    /// Returns a queue without messages. The watchdog is kicked each `every` from `now` on, or
    /// never if that is `None`.
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

    /// Records a change of state. After a stop, no other state is reported.
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

    /// Records that the description of the state has changed.
    pub fn on_status(&mut self) {
        self.status = true;
    }

    /// Records that a turn of the loop was finished at `now`. Returns true if there is a
    /// message to send.
    pub fn on_turn(&mut self, now: Instant) -> bool {
        if let Some(watchdog) = self.watchdog.as_mut().filter(|watchdog| watchdog.due.is_due(now)) {
            watchdog.due = now + watchdog.every;
            watchdog.kick_pending = true;
            return true;
        }
        self.retry_at.is_due(now) && self.next_message().is_some()
    }

    /// Returns the time at which the loop has to wake up for the watchdog.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.watchdog.map(|watchdog| watchdog.due)
    }

    /// Returns the next message to send.
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

    /// Records that the message was accepted.
    pub fn on_sent(&mut self) {
        // If a reload was pending, only that was reported.
        if self.reloading.take().is_none() {
            (self.ready, self.stopping) = (false, false);
        }
        self.status = false;
        self.retry_at = Instant::BOOT;
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.kick_pending = false;
        }
    }

    /// Records that the message was not accepted at `now`. If it contained a kick, the kick
    /// becomes due again after [`NOTIFY_RETRY`] at the latest. Only a finished turn sends it.
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

    /// Returns the states that are reported if each message is accepted.
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
        // The kick is due, but no turn was finished.
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
