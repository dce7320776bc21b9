//! Fuzzes the health record, and the messages to the service manager with its variables in the
//! environment.

use super::{Choices, written};
use zigsvc::limits::WATCHDOG_MIN;
use zigsvc::proto::health::{BOOT_ID_BYTES, HealthRecord, RECORD_BYTES, Verdict};
use zigsvc::proto::notify::{NotifyMessage, NotifyState, watchdog_every};
use zigsvc::state::notify::NotifyQueue;
use zigsvc::util::time::{Duration, Instant};

fn record(choices: &mut Choices<'_>) -> HealthRecord {
    let mut boot = [b'0'; BOOT_ID_BYTES];
    for place in boot.iter_mut().take(4) {
        *place = b"0123456789abcdef"[usize::from(choices.byte() & 15)];
    }
    HealthRecord {
        wall: choices.number() as i64,
        seq: choices.number(),
        pid: choices.number() as u32,
        // The time stays below 2^56 ms. Near 2^64 ms, the seconds of one record and the
        // milliseconds of another would overflow.
        boottime_ms: choices.number() >> 8,
        boot,
    }
}

/// Checks that a record that was parsed is parsed again after it was written. Of a mix of two
/// records, either one of the two is accepted or none.
pub fn health(data: &[u8]) {
    if let Ok(record) = HealthRecord::parse(data) {
        let bytes = record.emit();
        assert_eq!(HealthRecord::parse(&bytes), Ok(record));
        judge(&record, data);
    }
    let mut choices = Choices(data);
    let (old, new) = (record(&mut choices), record(&mut choices));
    assert_eq!(HealthRecord::parse(&old.emit()), Ok(old));
    judge(&old, choices.0);
    let cut = choices.below(RECORD_BYTES);
    let mut torn = new.emit();
    torn[cut..].copy_from_slice(&old.emit()[cut..]);
    // The wall clock is left out, because no decision uses it.
    if let Ok(found) = HealthRecord::parse(&torn)
        && old.seq != new.seq
        && same_shape(&old, &new)
    {
        let decides = |record: &HealthRecord| (record.seq, record.pid, record.boottime_ms, record.boot);
        assert!([decides(&old), decides(&new)].contains(&decides(&found)), "{old:?} {new:?} at {cut}");
    }
}

/// Returns true if the fields of both records stand at the same places. Two heartbeats in a
/// row differ in that only if a number gets another digit.
fn same_shape(old: &HealthRecord, new: &HealthRecord) -> bool {
    let digits = |record: &HealthRecord| {
        let length = |number: u64| number.to_string().len();
        (record.wall.to_string().len(), length(record.seq), record.pid, length(record.boottime_ms / 1000))
    };
    digits(old) == digits(new) && old.boot == new.boot
}

fn judge(record: &HealthRecord, rest: &[u8]) {
    let mut choices = Choices(rest);
    let (now, stale) = (Instant::from_ms(choices.number()), Duration::from_ms(choices.number()));
    let written = Instant::from_ms(record.boottime_ms);
    match record.judge(record.pid, &record.boot, now, stale) {
        Verdict::Fresh(age) => assert!(age <= stale && now == written + age),
        Verdict::Stale(age) => assert!(age > stale && now == written + age),
        Verdict::Future => assert!(now < written),
        other => panic!("its own process and boot: {other:?}"),
    }
    assert_eq!(record.judge(!record.pid, &record.boot, now, stale), Verdict::OtherPid);
}

/// Checks that `WATCHDOG_USEC` and `WATCHDOG_PID` are read as numbers or ignored, that each
/// datagram consists of whole lines, and that no state follows a stop.
pub fn notify(data: &[u8]) {
    let mut choices = Choices(data);
    let (first, second) = (usize::from(choices.byte() % 24), usize::from(choices.byte() % 12));
    let (usec, pid) = (choices.take(first), choices.take(second));
    let number = |digits: &[u8]| -> Option<u64> {
        let text = core::str::from_utf8(digits).ok()?;
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
    };
    let every = watchdog_every(Some(usec), Some(pid), 77);
    let wanted = number(usec).filter(|usec| !matches!(*usec, 0 | u64::MAX) && number(pid) == Some(77));
    assert_eq!(every, wanted.map(|usec| Duration::from_ms(usec / 2000).max(WATCHDOG_MIN)));
    assert_eq!(watchdog_every(None, None, 77), None);
    states(every, &mut choices);
}

fn states(every: Option<Duration>, choices: &mut Choices<'_>) {
    let (mut now, mut stopped, mut told_stop) = (Instant::from_ms(choices.number()), false, false);
    let ten = Duration::from_ms(10);
    let mut queue = NotifyQueue::new(every.or(Some(ten).filter(|_| now.as_ms().is_multiple_of(2))), now);
    while !choices.is_over() {
        now += Duration::from_ms(choices.number());
        match choices.byte() % 7 {
            0 => queue.on_state(NotifyState::Ready),
            1 => queue.on_state(NotifyState::Reloading(now.as_ms())),
            2 => {
                queue.on_state(NotifyState::Stopping);
                stopped = true;
            }
            3 => queue.on_status(),
            4 => queue.on_refused(now),
            _ => {
                queue.on_turn(now);
                for round in 0.. {
                    let Some(message) = queue.next_message() else { break };
                    assert!(round < 4, "there is an end to what is to be told");
                    assert!(
                        !stopped
                            || !matches!(message.state, Some(NotifyState::Ready | NotifyState::Reloading(_)))
                    );
                    assert!(message.state != Some(NotifyState::Stopping) || !told_stop, "told twice");
                    told_stop |= message.state == Some(NotifyState::Stopping);
                    datagram(message);
                    queue.on_sent();
                }
            }
        }
        assert!(queue.next_deadline().is_none_or(|due| every.is_some() || due <= now + ten));
    }
}

fn datagram(message: NotifyMessage) {
    let text = written(512, |out| message.emit(u32::MAX, (b"well", ""), out));
    assert!(!text.is_empty() && text.len() < 200);
    let text = String::from_utf8(text).unwrap();
    assert!(text.ends_with('\n') && text.lines().all(|line| line.contains('=')), "{text:?}");
}
