//! Fuzzes the queue file: any bytes, written in any pieces, while the service claims and reads
//! them, and is killed at times.

use super::Choices;
use super::disk::fake::{DEAD, FakeDisk};
use super::journal::Service;
use zigsvc::limits::CLAIM_QUIET;
use zigsvc::util::lines::{Line, classify};
use zigsvc::util::time::{Duration, Instant};

/// Checks that each line that is a job runs once, in order and unchanged. Each other line that
/// is not empty is kept in `rejected`.
pub fn queue_file(data: &[u8]) {
    let mut choices = Choices(data);
    let kills = choices.byte() % 3;
    let pieces = 1 + choices.byte() % 6;
    let steps: Vec<(u8, usize)> = (0..pieces).map(|_| (choices.byte(), choices.below(6000))).collect();
    // The byte 0xfe begins a run of one byte, so that long lines occur.
    let mut bytes = Vec::new();
    while !choices.is_over() && bytes.len() < 30_000 {
        match choices.byte() {
            0xfe => {
                let (byte, count) = (choices.byte(), choices.below(5000));
                bytes.extend(core::iter::repeat_n(byte, count));
            }
            byte => bytes.push(byte),
        }
    }
    let mut disk = FakeDisk::new(1);
    let mut service = Service::start(&mut disk, Instant::BOOT).unwrap().0;
    let mut rest = &bytes[..];
    let mut inode = None;
    let mut written_at = Instant::BOOT;
    let still = Duration::from_ms(CLAIM_QUIET.as_ms() - 1);
    for (what, length) in steps {
        let (piece, after) = rest.split_at(length.min(rest.len()));
        rest = after;
        // There is one writer, which keeps its file open, so that the order of the lines is
        // known.
        append(&mut disk, &mut inode, piece);
        if kills > 0 && what % 4 == 3 {
            disk.die_at = Some(disk.operations + 1 + u32::from(what >> 4));
        }
        if !piece.is_empty() {
            written_at = service.now;
        }
        // A writer that is quiet for longer must not continue to write to the same file.
        let later =
            service.now + [Duration::from_ms(1), Duration::from_ms(600), still][usize::from(what % 3)];
        service.now = later.min(written_at + still);
        service = turn(service, &mut disk);
    }
    append(&mut disk, &mut inode, rest);
    disk.die_at = None;
    let now = service.now;
    if kills > 1 {
        disk.restart();
        service = Service::start(&mut disk, now).unwrap().0;
    }
    let ran = service.run_to_the_end(&mut disk);
    judge(&bytes, &ran, &disk.rejected, kills > 0);
}

fn append(disk: &mut FakeDisk, inode: &mut Option<usize>, bytes: &[u8]) {
    match *inode {
        Some(inode) => disk.append_bytes(inode, bytes),
        None if bytes.is_empty() => {}
        None => {
            let opened = disk.append_to_queue("");
            disk.append_bytes(opened, bytes);
            *inode = Some(opened);
        }
    }
}

/// Ingests lines and commits. Starts another service if this one was killed.
fn turn(mut service: Service, disk: &mut FakeDisk) -> Service {
    service.spool.claims.look_at_queue();
    service.spool.claims.look_at_claims();
    let result = service.ingest(disk).and_then(|_| service.commit(disk));
    assert!(result.is_ok() || result == Err(DEAD), "{result:?}");
    if !disk.is_dead() {
        return service;
    }
    disk.restart();
    Service::start(disk, service.now).unwrap().0
}

fn judge(bytes: &[u8], ran: &[String], rejected: &[u8], killed: bool) {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let (mut jobs, mut refused) = (Vec::new(), 0usize);
    for line in bytes.split(|byte| *byte == b'\n') {
        match classify(line) {
            Line::Job(text) if line.len() < 4096 => jobs.push(String::from_utf8_lossy(text).into_owned()),
            // With its blanks, the line is longer than one read of the service, which does not
            // look at its end. The result is not checked then.
            Line::Job(_) => return,
            Line::Rejected(_) => refused += 1,
            Line::Empty if line.len() >= 4096 => return,
            Line::Empty => {}
        }
    }
    assert_eq!(ran, jobs, "{}", bytes.escape_ascii());
    let kept = rejected.split(|byte| *byte == b'\n').count() - 1;
    assert!(kept >= refused && (killed || kept == refused), "{kept} of {refused} rejected lines");
}
