//! Where a fault has another outcome than `attempt.rs` demands, by design.
//! Each entry is as narrow as its reason.

use super::calls::Injection;
use super::injector::Fired;

/// Why this problem is none, if so.
pub fn reason(scenario: &str, injection: &Injection, fired: &Fired, problem: &str) -> Option<&'static str> {
    let _ = (scenario, injection, fired, problem);
    None
}
