//! The changes that a user asks the supervisor for.
//!
//! | phase \ request | start | stop | restart |
//! | --- | --- | --- | --- |
//! | `Backoff`, `Stopped` | check the lock, start | `Stopped` | as start |
//! | `Starting`, `Running` | - | `Stopping` | `Stopping` |
//! | `Stopping`, `Killing`, `Unkillable` | - | - | - |
//! | `Foreign` | - | - | - |
//!
//! The mark of a stop on purpose, which the service makes before a stop and removes before a start
//! or a restart, decides if the process is started again when it has ended.

use super::{Action, Decision, Instance, Instant, NOTHING, Phase, Request, Rules};

impl Instance {
    /// Takes a request of a user.
    pub(super) fn on_request(&mut self, now: Instant, request: Request, rules: &Rules) -> Decision {
        // A process without a health file has recovered if it runs for long.
        self.update_recovery(now);
        // A program that ends by its stop, and is to run, is started whatever its rules say.
        self.again = request != Request::Stop && self.pid().is_some();
        match (self.phase, request) {
            _ if self.shutting_down => NOTHING,
            (Phase::Starting(pid) | Phase::Running(pid), Request::Stop | Request::Restart) => {
                self.phase = Phase::Stopping(pid, now + self.patience(rules));
                self.asked = None;
                (Action::Dismiss(pid), None)
            }
            (Phase::Backoff(_), Request::Stop) => self.stopped(now),
            (Phase::Backoff(_) | Phase::Stopped, Request::Start | Request::Restart) => {
                self.backoff.reset();
                self.phase = Phase::Backoff(now);
                if self.blocked { NOTHING } else { (Action::CheckLock, None) }
            }
            (
                Phase::Starting(_)
                | Phase::Running(_)
                | Phase::Stopping(..)
                | Phase::Killing(..)
                | Phase::Unkillable(_)
                | Phase::Foreign
                | Phase::Stopped,
                _,
            ) => NOTHING,
        }
    }
}
