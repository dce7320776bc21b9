//! Decides when to read a pipe. A writer that makes one write(2) for each line, as fast as it
//! can, would cost its reader several system calls and a wake-up for each line. After a short
//! pause the pipe holds hundreds of lines, which are read at once. Bytes that wait in a pipe
//! are not lost.
//!
//! The pause grows while few bytes are found after it, and shrinks while many are found. A
//! writer of large blocks therefore never waits. The first line after [`READ_PACING_QUICK_US`]
//! of silence is also read at once, however slow its writer is.

/// Microseconds between two reads below which input counts as coming without pause.
pub const READ_PACING_QUICK_US: u64 = 500;
/// Bytes in the pipe below which input that comes without pause is left there for a moment.
const READ_PACING_LITTLE_BYTES: usize = 16 * 1024;
/// Microseconds of the first pause before a read. Each further pause is longer.
const READ_PACING_MIN_US: u64 = 50;
/// Microseconds of the longest pause before a read.
const READ_PACING_MAX_US: u64 = 1000;
/// Bytes in the pipe from which there is no pause. This is more than half of a pipe, because
/// its writer must not be delayed.
const READ_PACING_MUCH_BYTES: usize = 40 * 1024;

/// The pause before each read of a pipe. Times are microseconds of any clock.
#[derive(Default, Debug)]
pub struct ReadPacing {
    pause_us: u64,
    /// The time at which the bytes of the last read were processed.
    done_us: u64,
    /// True if more bytes came within [`READ_PACING_QUICK_US`] of that time.
    quick: bool,
}

impl ReadPacing {
    /// Records that the pipe can be read. Returns the pause to make before, in microseconds.
    pub fn on_ready(&mut self, now_us: u64) -> u64 {
        self.quick = now_us.saturating_sub(self.done_us) < READ_PACING_QUICK_US;
        if !self.quick {
            self.pause_us = 0;
        }
        self.pause_us
    }

    /// Records that `bytes` were read and processed.
    pub fn on_done(&mut self, now_us: u64, bytes: usize) {
        self.done_us = now_us;
        if bytes >= READ_PACING_MUCH_BYTES {
            self.pause_us /= 2;
            if self.pause_us < READ_PACING_MIN_US {
                self.pause_us = 0;
            }
        } else if bytes < READ_PACING_LITTLE_BYTES && self.quick {
            self.pause_us = self.pause_us.saturating_mul(2).clamp(READ_PACING_MIN_US, READ_PACING_MAX_US);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Simulates a writer of `bytes_per_ms`. Returns the pauses after the first hundred reads.
    fn settled(bytes_per_ms: u64, pipe: u64) -> Vec<u64> {
        let mut pacing = ReadPacing::default();
        let (mut now, mut pauses) = (1_000_000, Vec::new());
        let mut held = 100;
        for _ in 0..200 {
            let pause = pacing.on_ready(now);
            now += pause;
            held = (held + bytes_per_ms * pause / 1000).min(pipe);
            now += 5;
            pacing.on_done(now, usize::try_from(held).unwrap());
            held = (bytes_per_ms * 5 / 1000).max(100);
            pauses.push(pause);
        }
        pauses.split_off(100)
    }

    #[test]
    fn who_writes_lines_without_pause_is_left_alone_until_there_is_much() {
        // A pipe of 64 KiB is full after 0.65 ms at 100 MB/s.
        for pause in settled(100_000, 65_536) {
            assert!((100..=800).contains(&pause), "{pause}");
        }
        assert!(settled(100, 65_536).iter().all(|pause| *pause == READ_PACING_MAX_US));
    }

    #[test]
    fn the_pause_doubles_while_there_is_little_and_halves_while_there_is_much() {
        let mut pacing = ReadPacing::default();
        let mut pauses = |bytes, times: usize| -> Vec<u64> {
            let mut next = |_| {
                pacing.on_done(0, bytes);
                pacing.on_ready(0)
            };
            (0..times).map(&mut next).collect()
        };
        let (little, much) = (READ_PACING_LITTLE_BYTES - 1, READ_PACING_MUCH_BYTES);
        assert_eq!(pauses(READ_PACING_LITTLE_BYTES, 2), [0, 0]);
        assert_eq!(pauses(little, 7), [50, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(pauses(much - 1, 2), [1000, 1000]);
        assert_eq!(pauses(much, 6), [500, 250, 125, 62, 0, 0]);
        assert_eq!(pauses(little, 2), [READ_PACING_MIN_US, 2 * READ_PACING_MIN_US]);
        assert_eq!(pauses(much, 2), [READ_PACING_MIN_US, 0]);
    }

    #[test]
    fn who_writes_large_blocks_never_waits() {
        let mut pacing = ReadPacing::default();
        for now in 0..100 {
            assert_eq!(pacing.on_ready(now * 10), 0);
            pacing.on_done(now * 10 + 5, 65_536);
        }
    }

    #[test]
    fn who_writes_a_line_now_and_then_never_waits() {
        let mut pacing = ReadPacing::default();
        for now in 1..100 {
            assert_eq!(pacing.on_ready(now * 2 * READ_PACING_QUICK_US), 0);
            pacing.on_done(now * 2 * READ_PACING_QUICK_US, 100);
        }
    }

    #[test]
    fn after_a_silence_it_begins_anew() {
        let mut pacing = ReadPacing::default();
        for now in 0..20 {
            pacing.on_ready(now);
            pacing.on_done(now, 100);
        }
        assert_eq!(pacing.on_ready(20), READ_PACING_MAX_US);
        assert_eq!(pacing.on_ready(20 + READ_PACING_QUICK_US), 0);
        pacing.on_done(20 + READ_PACING_QUICK_US, 100);
        assert_eq!(pacing.on_ready(21 + READ_PACING_QUICK_US), 0);
    }

    #[test]
    fn a_clock_that_steps_back_hurts_nothing() {
        let mut pacing = ReadPacing::default();
        pacing.on_done(u64::MAX, 1);
        assert!(pacing.on_ready(0) <= READ_PACING_MAX_US);
    }
}
