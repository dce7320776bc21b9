use super::*;
use crate::limits::{QUEUE_STDIN_INPUT_BYTES, QUEUE_STDIN_OUTPUT_BYTES};
use crate::util::lines::TOO_LONG;
use crate::util::time::Duration;

/// Bytes for lines without answer, as few as hold 20 lines of the tests.
const LINES_BYTES: usize = 4000;

/// A feed with a virtual clock.
struct Bench {
    feed: QueueFeed<'static>,
    now: Instant,
    rejected: Vec<(u32, &'static str)>,
}

impl Bench {
    fn new() -> Self {
        Self::with(QUEUE_STDIN_INPUT_BYTES, LINES_BYTES)
    }

    fn with(input: usize, lines: usize) -> Self {
        let feed = QueueFeed::new(vec![0; input].leak(), vec![0; lines].leak());
        Self { feed, now: Instant::from_ms(1000), rejected: Vec::new() }
    }

    /// Adds bytes of stdin, and takes the lines in them.
    fn input(&mut self, text: &str) {
        let mut text = text.as_bytes();
        while !text.is_empty() {
            assert!(self.feed.wants_input());
            let space = self.feed.input_space();
            let count = space.len().min(text.len());
            space[..count].copy_from_slice(&text[..count]);
            text = &text[count..];
            self.feed.on_input(count);
            self.take_lines();
        }
    }

    fn take_lines(&mut self) {
        let rejected = &mut self.rejected;
        self.feed.take_lines(&mut |number, why| rejected.push((number, why)));
    }

    fn end_input(&mut self) {
        self.feed.on_input(0);
        self.take_lines();
    }

    fn wait(&mut self, span: Duration) {
        self.now += span;
    }

    #[track_caller]
    fn expect_step(&mut self, step: FeedStep) {
        assert_eq!(self.feed.step(self.now), step);
    }

    /// Expects that these requests are sent now.
    #[track_caller]
    fn expect_sent(&mut self, requests: &[&str]) {
        self.expect_step(FeedStep::Send);
        let mut buffer = [0; QUEUE_STDIN_OUTPUT_BYTES];
        let mut out = Writer::new(&mut buffer);
        self.feed.write_requests(&mut out);
        assert!(!out.is_cut());
        let text = String::from_utf8(out.as_bytes().to_vec()).unwrap();
        assert_eq!(text.lines().collect::<Vec<_>>(), requests);
    }

    #[track_caller]
    fn expect_answer(&mut self, answer: &'static str, effect: AnswerEffect<'static>) {
        assert_eq!(self.feed.on_answer(answer.as_bytes(), self.now), effect, "{answer}");
    }

    /// Sends `status`, and answers it with this room.
    #[track_caller]
    fn tell_room(&mut self, room: u64) {
        self.expect_sent(&["status"]);
        let answer: &'static str = format!("ok pid=1 state=running room={room}").leak();
        self.expect_answer(answer, AnswerEffect::None);
    }

    #[track_caller]
    fn accept(&mut self, ids: core::ops::RangeInclusive<u64>) {
        for id in ids {
            self.expect_answer(format!("ok id={id}").leak(), queued(id));
        }
    }
}

/// Returns the effect of an `ok` while lines are not stalled.
const fn queued(id: u64) -> AnswerEffect<'static> {
    AnswerEffect::Queued { id, resumed: false }
}

/// Returns the effect of the `ok` that ends a stall.
const fn resumed(id: u64) -> AnswerEffect<'static> {
    AnswerEffect::Queued { id, resumed: true }
}

fn refused(code: &'static str, text: &'static str) -> Answer<'static> {
    Answer::Refused(code.as_bytes(), text.as_bytes())
}

#[test]
fn each_line_is_sent_once_and_the_end_of_stdin_ends_the_feed() {
    let mut bench = Bench::new();
    bench.expect_step(FeedStep::Wait);
    assert_eq!(bench.feed.next_deadline(), None);
    bench.input("one\n\n  two  \r\n \t\r\nla");
    bench.tell_room(100);
    bench.expect_sent(&["queue one", "queue two"]);
    bench.expect_step(FeedStep::Wait);
    bench.accept(1..=2);
    bench.expect_step(FeedStep::Wait);
    bench.input("st");
    bench.expect_step(FeedStep::Wait);
    bench.end_input();
    assert!(!bench.feed.wants_input());
    bench.expect_sent(&["queue last"]);
    bench.accept(3..=3);
    bench.expect_step(FeedStep::Finish);
    assert_eq!((bench.feed.queued(), bench.rejected.len()), (3, 0));
}

#[test]
fn no_more_lines_are_sent_than_the_queue_has_room_for() {
    let mut bench = Bench::new();
    bench.input("a\nb\nc\nd\ne\n");
    bench.tell_room(2);
    bench.expect_sent(&["queue a", "queue b"]);
    bench.accept(1..=2);
    bench.tell_room(0);
    assert_eq!(bench.feed.next_deadline(), Some(bench.now + FULL_RETRY));
    bench.wait(Duration::from_ms(FULL_RETRY.as_ms() - 1));
    bench.expect_step(FeedStep::Wait);
    bench.wait(Duration::from_ms(1));
    bench.tell_room(3);
    bench.expect_sent(&["queue c", "queue d", "queue e"]);
    bench.accept(3..=5);
}

#[test]
fn refused_lines_are_sent_again_in_order_and_the_stall_is_reported_once() {
    let mut bench = Bench::new();
    bench.input("a\nb\nc\n");
    bench.tell_room(100);
    bench.expect_sent(&["queue a", "queue b", "queue c"]);
    let reason = refused("no-space", "no room");
    bench.expect_answer("err no-space no room", AnswerEffect::Stalled(reason));
    bench.expect_answer("ok id=1", resumed(1));
    bench.expect_answer("err io it failed", AnswerEffect::Stalled(refused("io", "it failed")));
    bench.expect_step(FeedStep::Wait);
    assert_eq!(bench.feed.next_deadline(), Some(bench.now + REFUSED_RETRY));
    // One line shows whether the stall has ended; it has not.
    for answer in ["err full too many", "err busy no place"] {
        bench.wait(REFUSED_RETRY);
        bench.tell_room(100);
        bench.expect_sent(&["queue a"]);
        bench.expect_answer(answer, AnswerEffect::None);
        bench.expect_step(FeedStep::Wait);
    }
    bench.wait(REFUSED_RETRY);
    bench.tell_room(100);
    bench.expect_sent(&["queue a"]);
    bench.expect_answer("ok id=2", resumed(2));
    bench.tell_room(100);
    bench.expect_sent(&["queue c"]);
    bench.accept(3..=3);
}

#[test]
fn a_line_that_can_never_be_a_job_is_named_and_not_sent_again() {
    let mut bench = Bench::new();
    bench.input("\na\n\nb\nc\nd\n");
    bench.tell_room(100);
    bench.expect_sent(&["queue a", "queue b", "queue c", "queue d"]);
    bench.accept(1..=1);
    let reason = refused("bad-request", "no thanks");
    bench.expect_answer("err bad-request no thanks", AnswerEffect::LineRefused(4, reason));
    bench.expect_answer("what?", AnswerEffect::LineRefused(5, Answer::Garbage));
    bench.expect_answer("ok no=number", AnswerEffect::LineRefused(6, Answer::Garbage));
    bench.expect_answer("ok id=5", AnswerEffect::None);
    bench.end_input();
    bench.expect_step(FeedStep::Finish);
}

#[test]
fn lines_without_answer_are_sent_again_before_later_ones() {
    let mut bench = Bench::new();
    bench.input("a\nb\nc\n");
    bench.tell_room(100);
    bench.expect_sent(&["queue a", "queue b", "queue c"]);
    bench.accept(1..=1);
    bench.feed.on_closed(bench.now);
    assert!(!bench.feed.is_connected());
    bench.input("d\n");
    bench.expect_step(FeedStep::Wait);
    bench.wait(FULL_RETRY);
    bench.expect_step(FeedStep::Connect);
    bench.feed.on_connected();
    bench.tell_room(100);
    bench.expect_sent(&["queue b", "queue c", "queue d"]);
    bench.accept(2..=4);
}

#[test]
fn a_service_that_stops_answers_its_lines_and_the_next_one_gets_the_rest() {
    let mut bench = Bench::new();
    bench.input("a\nb\nc\n");
    bench.tell_room(100);
    bench.expect_sent(&["queue a", "queue b", "queue c"]);
    bench.accept(1..=1);
    bench.expect_answer("err stopping it stops", AnswerEffect::None);
    bench.feed.on_answers_taken(bench.now);
    assert!(bench.feed.is_connected());
    bench.expect_answer("err draining it drains", AnswerEffect::None);
    bench.feed.on_answers_taken(bench.now);
    assert!(!bench.feed.is_connected());
    bench.wait(FULL_RETRY);
    bench.expect_step(FeedStep::Connect);
    bench.feed.on_connected();
    bench.expect_sent(&["status"]);
    bench.expect_answer("ok pid=1 state=draining room=100", AnswerEffect::None);
    bench.feed.on_answers_taken(bench.now);
    assert!(!bench.feed.is_connected());
    bench.wait(FULL_RETRY);
    bench.expect_step(FeedStep::Connect);
    bench.feed.on_connected();
    bench.tell_room(100);
    bench.expect_sent(&["queue b", "queue c"]);
    bench.accept(2..=3);
}

#[test]
fn silence_is_reported_once_and_ends_with_an_answer() {
    let mut bench = Bench::new();
    bench.input("a\nb\n");
    bench.tell_room(1);
    bench.expect_sent(&["queue a"]);
    assert_eq!(bench.feed.next_deadline(), Some(bench.now + ANSWER_WAIT));
    bench.wait(ANSWER_WAIT);
    bench.expect_step(FeedStep::ReportSilence);
    bench.expect_step(FeedStep::Wait);
    assert_eq!(bench.feed.next_deadline(), None);
    bench.wait(ANSWER_WAIT);
    bench.expect_step(FeedStep::Wait);
    bench.expect_answer("ok id=1", resumed(1));
    bench.tell_room(100);
    bench.expect_sent(&["queue b"]);
}

#[test]
fn without_a_place_the_connection_is_left_and_tried_again() {
    let mut bench = Bench::new();
    bench.input("a\n");
    for first in [true, false] {
        bench.expect_sent(&["status"]);
        bench.expect_answer("err busy all places are taken", AnswerEffect::Busy(first));
        assert!(!bench.feed.is_connected());
        bench.feed.on_closed(bench.now);
        assert_eq!(bench.feed.next_deadline(), Some(bench.now + REFUSED_RETRY));
        bench.wait(REFUSED_RETRY);
        bench.expect_step(FeedStep::Connect);
        bench.feed.on_connected();
    }
    bench.tell_room(100);
    bench.expect_sent(&["queue a"]);
    bench.expect_answer("ok id=1", resumed(1));
}

#[test]
fn a_status_that_is_refused_ends_the_command() {
    let mut bench = Bench::new();
    bench.input("a\n");
    bench.expect_sent(&["status"]);
    let reason = refused("denied", "not you");
    bench.expect_answer("err denied not you", AnswerEffect::StatusRefused(reason));
    let mut bench = Bench::new();
    bench.input("a\n");
    bench.expect_sent(&["status"]);
    bench.expect_answer("hello", AnswerEffect::StatusRefused(Answer::Garbage));
}

#[test]
fn a_service_that_does_not_come_back_is_given_up_and_the_lines_are_counted() {
    let mut bench = Bench::with(100, 2100);
    // 13 lines are held, 3 more are in the input, of which the last has no newline.
    bench.input(&(1..=13).map(|number| format!("{number} {}\n\n", "x".repeat(70))).collect::<String>());
    bench.tell_room(1);
    let first = format!("queue 1 {}", "x".repeat(70));
    bench.expect_sent(&[&first]);
    bench.accept(1..=1);
    bench.input(&"y\n".repeat(2));
    bench.input("end");
    bench.feed.on_closed(bench.now);
    let lost_at = bench.now;
    while bench.now.since(lost_at) + FULL_RETRY < RESTART_WAIT {
        bench.wait(FULL_RETRY);
        bench.expect_step(FeedStep::Connect);
        bench.feed.on_connection_lost(bench.now);
        bench.expect_step(FeedStep::Wait);
    }
    bench.wait(FULL_RETRY);
    bench.expect_step(FeedStep::Connect);
    bench.feed.on_connection_lost(bench.now);
    bench.expect_step(FeedStep::GiveUp(15));
    assert_eq!(bench.now.since(lost_at), RESTART_WAIT);
}

#[test]
fn the_patience_starts_again_with_each_service_that_answers() {
    let mut bench = Bench::new();
    bench.input("a\n");
    for _ in 0..3 {
        bench.feed.on_closed(bench.now);
        bench.wait(Duration::from_ms(RESTART_WAIT.as_ms() - 1));
        bench.expect_step(FeedStep::Connect);
        bench.feed.on_connected();
        bench.tell_room(0);
    }
    bench.feed.on_closed(bench.now);
    bench.expect_step(FeedStep::Wait);
}

#[test]
fn a_connection_that_ends_without_lines_is_made_again_for_the_next_line() {
    let mut bench = Bench::new();
    bench.feed.on_closed(bench.now);
    bench.expect_step(FeedStep::Wait);
    bench.wait(RESTART_WAIT * 2);
    bench.input("a\n");
    bench.expect_step(FeedStep::Connect);
    bench.feed.on_connected();
    bench.tell_room(1);
    bench.expect_sent(&["queue a"]);
}

#[test]
fn stdin_waits_while_no_line_can_be_held() {
    let mut bench = Bench::with(100, 1100);
    bench.input(&format!("{}\n", "x".repeat(99)));
    assert!(!bench.feed.wants_input());
    bench.tell_room(1);
    bench.expect_sent(&[&format!("queue {}", "x".repeat(99))]);
    assert!(!bench.feed.wants_input());
    bench.accept(1..=1);
    assert!(bench.feed.wants_input());
}

#[test]
fn lines_that_are_no_jobs_are_rejected_with_their_numbers() {
    let mut bench = Bench::new();
    let longest = "x".repeat(1000);
    // One byte too long; far longer than the buffer, twice; as long as the buffer, and one
    // byte less.
    bench.input(&format!(
        "one\n{longest}y\n\n{}\na\0b\n{}\n{}\n\0\n{}",
        "z".repeat(70_000),
        "z".repeat(QUEUE_STDIN_INPUT_BYTES),
        "z".repeat(QUEUE_STDIN_INPUT_BYTES - 1),
        "w".repeat(5000),
    ));
    bench.end_input();
    let nul = "it holds a NUL byte";
    let expected =
        [(2, TOO_LONG), (4, TOO_LONG), (5, nul), (6, TOO_LONG), (7, TOO_LONG), (8, nul), (9, TOO_LONG)];
    assert_eq!(bench.rejected, expected);
    bench.tell_room(100);
    bench.expect_sent(&["queue one"]);
}

#[test]
fn requests_that_do_not_fit_the_output_are_sent_later() {
    let mut bench = Bench::new();
    let line = "x".repeat(900);
    bench.input(&format!("{line}\n{line}\n{line}\n"));
    bench.tell_room(100);
    let request = format!("queue {line}");
    bench.expect_sent(&[&request, &request]);
    bench.expect_sent(&[&request]);
    bench.expect_step(FeedStep::Wait);
}

/// Runs the feed against a service that fails in every way, with random times and answers.
#[test]
fn in_random_histories_no_line_is_lost_and_each_is_accepted_in_order() {
    let mut seed = 1u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % below
    };
    for _ in 0..300 {
        let mut bench = Bench::with(64, 1200);
        let (mut written, mut accepted, mut pending) = (0u64, Vec::new(), Vec::<String>::new());
        for _ in 0..400 {
            if bench.feed.wants_input() && written < 40 && random(3) == 0 {
                written += 1;
                bench.input(&format!("{written}\n"));
            }
            match bench.feed.step(bench.now) {
                FeedStep::Connect if random(2) == 0 => bench.feed.on_connected(),
                FeedStep::Connect => bench.feed.on_connection_lost(bench.now),
                FeedStep::Send => {
                    let mut buffer = [0; 40];
                    let mut out = Writer::new(&mut buffer);
                    bench.feed.write_requests(&mut out);
                    let text = String::from_utf8(out.as_bytes().to_vec()).unwrap();
                    pending.extend(text.lines().map(str::to_owned));
                }
                FeedStep::Finish | FeedStep::GiveUp(_) => panic!("stdin has not ended"),
                FeedStep::ReportSilence | FeedStep::Wait => {}
            }
            if random(12) == 0 {
                bench.feed.on_closed(bench.now);
            } else if !pending.is_empty() && random(2) == 0 {
                let request = pending.remove(0);
                let answer = match (request.as_str(), random(6)) {
                    ("status", 0) => "err busy x".to_owned(),
                    ("status", 1) => "ok state=draining room=9".to_owned(),
                    ("status", _) => format!("ok state=running room={}", random(4)),
                    (_, 0) => "err no-space x".to_owned(),
                    (_, 1) => "err stopping x".to_owned(),
                    (job, _) => {
                        accepted.push(job.strip_prefix("queue ").unwrap().parse::<u64>().unwrap());
                        format!("ok id={}", accepted.len())
                    }
                };
                bench.feed.on_answer(answer.as_bytes(), bench.now);
                bench.feed.on_answers_taken(bench.now);
            }
            if !bench.feed.is_connected() {
                pending.clear();
            }
            bench.wait(Duration::from_ms(random(700)));
        }
        // Each answer was given to the feed, so no line was accepted twice.
        let mut sorted = accepted.clone();
        sorted.sort_unstable();
        assert!(sorted.windows(2).all(|pair| pair[0] < pair[1]), "{accepted:?}");
        // The rest is accepted at last.
        bench.end_input();
        for _ in 0..1000 {
            match bench.feed.step(bench.now) {
                FeedStep::Finish => break,
                FeedStep::Connect => bench.feed.on_connected(),
                FeedStep::Send => {
                    let mut buffer = [0; 100];
                    let mut out = Writer::new(&mut buffer);
                    bench.feed.write_requests(&mut out);
                    let text = String::from_utf8(out.as_bytes().to_vec()).unwrap();
                    pending.extend(text.lines().map(str::to_owned));
                }
                _ => {}
            }
            for request in core::mem::take(&mut pending) {
                let job = request.strip_prefix("queue ").map(|job| job.parse::<u64>().unwrap());
                accepted.extend(job);
                bench.feed.on_answer(if job.is_some() { b"ok id=1" } else { b"ok room=9" }, bench.now);
            }
            bench.wait(REFUSED_RETRY);
        }
        bench.expect_step(FeedStep::Finish);
        accepted.sort_unstable();
        assert_eq!(accepted, (1..=written).collect::<Vec<_>>());
    }
}

#[test]
fn progress_is_shown_at_most_every_moment_and_always_at_the_end() {
    let mut progress = FeedProgress::default();
    let at = |ms| Instant::from_ms(1000 + ms);
    assert_eq!(progress.next_deadline(0), None);
    assert!(!progress.is_due(0, at(0), true) && !progress.has_shown());
    assert!(progress.is_due(1, at(0), false) && progress.has_shown());
    assert!(!progress.is_due(2, at(PROGRESS_EVERY.as_ms() - 1), false));
    assert_eq!(progress.next_deadline(2), Some(at(0) + PROGRESS_EVERY));
    assert!(progress.is_due(2, at(1), true));
    assert!(!progress.is_due(2, at(1) + PROGRESS_EVERY, true));
}
