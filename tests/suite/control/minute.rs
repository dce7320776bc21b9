//! Everything at once: hostile clients of every kind beside well-behaved ones,
//! while the heartbeat is watched. `ZIGSVC_HOSTILE_SECONDS` says for how long; the
//! gate runs a minute.

use crate::support::control::{Client, id_in, start_script, status};
use crate::support::random::Random;
use crate::support::{Dir, under_qemu, wait_until};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Makes one hostile connection of a random kind. Its errors are ignored, because it provokes
/// them.
fn misbehave(dir: &Dir, random: &mut Random) -> std::io::Result<()> {
    let mut stream = UnixStream::connect(dir.path("zigsvc.sock"))?;
    stream.set_write_timeout(Some(Duration::from_millis(50)))?;
    stream.set_read_timeout(Some(Duration::from_millis(50)))?;
    match random.below(9) {
        // Noise, with and without lines.
        0 => stream.write_all(&{
            let count = 1 + random.index(20_000);
            random.bytes(count)
        })?,
        // Half a request.
        1 => stream.write_all(b"queue half of a")?,
        // Never reads.
        2 => stream.write_all(&b"list\nstatus\nhelp\n".repeat(500))?,
        // Vanishes in the middle of an answer.
        3 => {
            stream.write_all(b"list\n")?;
            let _ = stream.read(&mut [0; 10])?;
        }
        // One byte at a time.
        4 => b"status\nwait 1\ncancel 999999\n".iter().try_for_each(|byte| stream.write_all(&[*byte]))?,
        // Too long.
        5 => stream.write_all(&[b'x'; 100_000])?,
        // Steers what is not there.
        6 => {
            stream.write_all(b"retry dead\nforget dead\ncancel 0\nretry x\nforget 18446744073709551616\n")?
        }
        // Watches and does not read.
        7 => stream.write_all(b"watch\n")?,
        // Connects and goes.
        _ => {}
    }
    if random.below(2) == 0 {
        let mut sink = [0; 4096];
        while stream.read(&mut sink)? > 0 {}
    }
    Ok(())
}

/// Returns the time that the test takes.
fn duration() -> Duration {
    let told = std::env::var("ZIGSVC_HOSTILE_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(told.unwrap_or(4))
}

#[test]
fn whatever_hostile_clients_do_the_heart_beats_and_no_job_is_lost() {
    let dir = Dir::new();
    // An idle heartbeat is due each 250 ms; one that is 5 s late is a stall.
    let options = ["interval=250ms", "stale_after=10s", "workers=2", "log_max=0", "queue_max=1000000"];
    start_script(&dir, "echo \"$ZIGSVC_JOB\" >> ran", &options);
    let (stop, began) = (AtomicBool::new(false), Instant::now());
    let mut accepted = BTreeSet::new();
    std::thread::scope(|scope| {
        for seed in 0..3 {
            let (dir, stop) = (&dir, &stop);
            scope.spawn(move || {
                let mut random = Random::new(seed);
                while !stop.load(Ordering::Relaxed) {
                    let _ = misbehave(dir, &mut random);
                }
            });
        }
        let mut beats = 0;
        let mut last = (String::new(), Instant::now());
        while began.elapsed() < duration() {
            let text = dir.read("zigsvc.health");
            if text != last.0 {
                last = (text, Instant::now());
                beats += 1;
            }
            assert!(
                last.1.elapsed() < Duration::from_secs(if under_qemu() { 30 } else { 5 }),
                "no heartbeat"
            );
            // A place may be taken: then it is asked again, as a user would.
            let Ok(stream) = UnixStream::connect(dir.path("zigsvc.sock")) else { continue };
            let mut client = Client::over(stream);
            let text = format!("job-{}", accepted.len());
            let _ = client.try_send(format!("queue {text}\n").as_bytes());
            if let Some(answer) = client.try_line().filter(|answer| answer.starts_with("ok ")) {
                accepted.insert((id_in(&answer), text));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        stop.store(true, Ordering::Relaxed);
        assert!(beats >= 4, "{beats} heartbeats");
    });
    assert!(accepted.len() > 10, "{} jobs were accepted among the noise", accepted.len());
    wait_until("the hostile are gone", || Client::new(&dir).ask("status").starts_with("ok "));
    wait_until("all jobs ran", || status(&dir, "waiting") + status(&dir, "running") == 0);
    let ran: Vec<String> = dir.read("ran").lines().map(str::to_owned).collect();
    for (id, text) in &accepted {
        assert_eq!(ran.iter().filter(|line| *line == text).count(), 1, "job {id} {text}");
    }
}
