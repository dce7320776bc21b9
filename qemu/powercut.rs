//! Rebuilds a disk from the record of its writes as a power cut would have left
//! it, many times, and checks that zigsvc kept its promise there. Built and run by
//! qemu/powercut; uses std only.
//!
//!     powercut NAME LOG IMAGE ZIGSVC FOLDER CUTS SEED obey|ignore
//!
//! LOG is the output of QEMU's `blklogwrites`, in the format of Linux's dm-log-writes:
//! 512-byte sectors; a superblock, then for each write a header of four numbers
//! (sector, count of sectors, flags, 0) and the data; flag 1 is a flush, 2 FUA.
//! IMAGE is the disk before the first write.
//!
//! A cut is a moment in the record. Writes before the last flush are on the disk. The
//! later ones are dropped, kept, kept in part and in any order, or torn by sectors: a
//! cut takes one of these four ways. With `ignore`, which is for a control, flushes
//! have no effect: a write is on the disk after CACHE_WRITES later ones.
//!
//! e2fsprogs repairs the file system (its journal is replayed) and copies its files
//! out, so that no privilege is needed. Then the ZIGSVC of this machine is started on
//! them with a handler that logs each job.
//!
//! After the file system, at MARKS, the guest noted in single sectors each job that was
//! acknowledged (`A KEY UPTIME`) and each job that ran (`R KEY UPTIME`). A mark that is
//! in the record before the cut happened before the cut.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const SECTOR: usize = 512;
/// The offset at which the file system ends and the marks begin (mark.rs).
const MARKS: usize = 16 * 1024 * 1024;
/// The number at the beginning of a record.
const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
/// The number of writes in the cache of a disk that ignores flushes.
const CACHE_WRITES: usize = 64;
/// The time from the start of a job's successor until the end of the job has to be on
/// the disk. Jobs run one at a time. A power cut may undo the last second of ends; the
/// rest is for the slow emulated processor.
const UNDONE_SECONDS: f64 = 3.0;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

struct Write {
    offset: usize,
    data: Vec<u8>,
    flags: u64,
}

/// Reads the record up to its first invalid entry.
fn read_record(path: &Path, disk_bytes: usize) -> Result<Vec<Write>> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    let number =
        |at: usize| -> Option<u64> { Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?)) };
    if number(0) != Some(MAGIC) {
        return Err(format!("{}: not a record of writes", path.display()).into());
    }
    let mut writes = Vec::new();
    let mut at = SECTOR;
    while let (Some(sector), Some(count), Some(flags)) = (number(at), number(at + 8), number(at + 16)) {
        let (offset, length) = (sector as usize * SECTOR, count as usize * SECTOR);
        if flags > 15 || (length == 0 && flags == 0) || offset + length > disk_bytes {
            break;
        }
        let Some(data) = bytes.get(at + SECTOR..at + SECTOR + length) else { break };
        writes.push(Write { offset, data: data.to_vec(), flags });
        at += SECTOR + length;
    }
    Ok(writes)
}

/// The generator xorshift64*, which gives the same cuts for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// The effect of the cut on the writes that were not flushed.
#[derive(Clone, Copy)]
enum Way {
    Dropped,
    Kept,
    Some,
    Torn,
}

fn apply(image: &mut [u8], write: &Write) {
    image[write.offset..write.offset + write.data.len()].copy_from_slice(&write.data);
}

/// Returns the disk after the cut: the durable content, and the pending writes that
/// `way` leaves.
fn rebuild(durable: &[u8], pending: &[&Write], way: Way, random: &mut Random) -> Vec<u8> {
    let mut image = durable.to_vec();
    let mut pending = pending.to_vec();
    if matches!(way, Way::Some | Way::Torn) {
        for index in (1..pending.len()).rev() {
            pending.swap(index, random.below(index + 1));
        }
    }
    for write in pending {
        match way {
            Way::Dropped => {}
            Way::Kept => apply(&mut image, write),
            Way::Some => {
                if random.below(2) == 0 {
                    apply(&mut image, write);
                }
            }
            Way::Torn => {
                for (index, sector) in write.data.chunks(SECTOR).enumerate() {
                    if random.below(2) == 0 {
                        let at = write.offset + index * SECTOR;
                        image[at..at + SECTOR].copy_from_slice(sector);
                    }
                }
            }
        }
    }
    image
}

/// Returns the text of a job, as qemu/guest/powercut and mark.rs make it.
fn text_of(key: &str) -> Option<String> {
    let number: usize = key.rsplit_once('.')?.1.parse().ok()?;
    Some(format!("{key} {:0>1$}.", 0, number * 37 % 400 + 1))
}

fn e2fsprogs(name: &str) -> Command {
    let path = Path::new("/usr/sbin").join(name);
    let mut command = if path.exists() { Command::new(path) } else { Command::new(name) };
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn read_or_empty(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// Returns true if no job waits or runs and the queue file is empty.
fn is_idle(zigsvc: &Path, folder: &Path) -> bool {
    if fs::metadata(folder.join("queue")).is_ok_and(|queue| queue.len() > 0) {
        return false;
    }
    let Ok(output) = Command::new(zigsvc).arg("-d").arg(folder).args(["status", "--json"]).output() else {
        return false;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.contains("\"waiting\":0,\"jobs_running\":0,")
}

/// Starts zigsvc on the files, waits until it has run all jobs, and returns the texts
/// of the jobs. Fails if zigsvc did not start, or never became idle.
fn work_off(zigsvc: &Path, folder: &Path) -> Result<Vec<String>> {
    let log = folder.join("zigsvc.log");
    let start = Command::new(zigsvc)
        .arg("-d")
        .arg(folder)
        .args(["-o", "handler=log", "-o", "log_max=0", "-o", "interval=100ms", "start"])
        .stdout(Stdio::null())
        .status()?;
    if !start.success() {
        return Err(format!("start: {start}").into());
    }
    let began = Instant::now();
    let mut quiet = 0;
    while quiet < 2 && began.elapsed() < Duration::from_secs(20) {
        quiet = if is_idle(zigsvc, folder) { quiet + 1 } else { 0 };
        sleep(Duration::from_millis(10));
    }
    let stop = Command::new(zigsvc).arg("-d").arg(folder).arg("stop").stdout(Stdio::null()).status()?;
    if quiet < 2 || !stop.success() {
        return Err("it never became idle".into());
    }
    let marker = "processing job: ";
    Ok(read_or_empty(&log)
        .lines()
        .filter_map(|line| line.split_once(marker).map(|(_, text)| text.to_owned()))
        .collect())
}

#[derive(Default)]
struct Sums {
    cuts: usize,
    acknowledged: usize,
    pending: usize,
    lost: usize,
    doubled: usize,
    half_read: usize,
    unclean: usize,
    broken: usize,
    set_aside: usize,
}

/// The events before the power failed: the keys of acknowledged jobs, and of jobs that
/// ran with the uptime of the mark.
#[derive(Default)]
struct Past {
    acknowledged: BTreeSet<String>,
    ran: BTreeMap<String, f64>,
    uptime: f64,
}

impl Past {
    fn take(&mut self, write: &Write) {
        let text = String::from_utf8_lossy(&write.data).into_owned();
        let mut words = text.trim_end_matches('\0').split_whitespace();
        let (Some(kind), Some(key), Some(Ok(uptime))) =
            (words.next(), words.next(), words.next().map(str::parse::<f64>))
        else {
            return;
        };
        self.uptime = self.uptime.max(uptime);
        match kind {
            "A" => {
                self.acknowledged.insert(key.to_owned());
            }
            _ => {
                self.ran.insert(key.to_owned(), uptime);
            }
        }
    }
}

impl Past {
    /// Returns true if the end of a job that ran at `ran` has to be on the disk.
    fn is_over(&self, ran: f64) -> bool {
        self.ran.values().any(|next| *next > ran && self.uptime - next > UNDONE_SECONDS)
    }
}

struct Check<'a> {
    name: &'a str,
    zigsvc: &'a Path,
    folder: PathBuf,
    sums: Sums,
}

impl Check<'_> {
    fn complain(&self, at: usize, what: &str) {
        eprintln!("powercut: {}: cut at write {at}: {what}", self.name);
    }

    /// Checks one disk.
    fn look(&mut self, at: usize, image: &[u8], past: &Past) -> Result<()> {
        self.sums.cuts += 1;
        self.sums.acknowledged += past.acknowledged.len();
        self.sums.pending += past.acknowledged.iter().filter(|key| !past.ran.contains_key(*key)).count();
        let _ = fs::remove_dir_all(&self.folder);
        fs::create_dir_all(&self.folder)?;
        let disk = self.folder.join("disk");
        fs::write(&disk, &image[..MARKS])?;
        // The journal is replayed. If more is left to repair, this is counted, but it
        // is not a failure of zigsvc. The jobs have to be there nevertheless.
        e2fsprogs("e2fsck").args(["-E", "journal_only", "-y"]).arg(&disk).status()?;
        if !e2fsprogs("e2fsck").args(["-f", "-n"]).arg(&disk).status()?.success() {
            self.sums.unclean += 1;
            e2fsprogs("e2fsck").args(["-f", "-y"]).arg(&disk).status()?;
        }
        let dump = format!("rdump /z {}", self.folder.display());
        e2fsprogs("debugfs").args(["-R", &dump]).arg(&disk).status()?;
        let folder = self.folder.join("z");
        if !folder.is_dir() {
            // Nothing was acknowledged before the folder was made.
            if !past.acknowledged.is_empty() {
                self.sums.lost += past.acknowledged.len();
                self.complain(at, "the folder of the queue is gone");
            }
            return Ok(());
        }
        let processed = match work_off(self.zigsvc, &folder) {
            Ok(processed) => processed,
            Err(error) => {
                self.sums.broken += 1;
                self.complain(at, &error.to_string());
                return Ok(());
            }
        };
        self.judge(at, &processed, past);
        let aside = fs::read_dir(folder.join("spool"))?
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().contains(".bad-"));
        self.sums.set_aside += usize::from(aside);
        Ok(())
    }

    fn judge(&mut self, at: usize, processed: &[String], past: &Past) {
        let mut found = BTreeSet::new();
        for text in processed {
            let key = text.split(' ').next().unwrap_or("");
            if text_of(key).as_deref() != Some(text) {
                self.sums.half_read += 1;
                self.complain(at, &format!("half read: {text}"));
                continue;
            }
            let over = past.ran.get(key).is_some_and(|ran| past.is_over(*ran));
            if !found.insert(key) || over {
                self.sums.doubled += 1;
                self.complain(at, &format!("done before, and again: {key}"));
            }
        }
        let lost: Vec<&String> = past
            .acknowledged
            .iter()
            .filter(|key| !past.ran.contains_key(*key) && !found.contains(key.as_str()))
            .collect();
        if !lost.is_empty() {
            self.sums.lost += lost.len();
            self.complain(at, &format!("{} lost, the first is {}", lost.len(), lost[0]));
        }
    }
}

/// Chooses the moments of the cuts. Half of them are flushes, in turn just before and just
/// after the flush. The others are at random.
fn choose(writes: &[Write], cuts: usize, random: &mut Random) -> BTreeSet<usize> {
    let flushes: Vec<usize> =
        writes.iter().enumerate().filter(|(_, write)| write.flags & FLUSH != 0).map(|(at, _)| at).collect();
    let mut chosen = BTreeSet::new();
    for index in 0..cuts / 2 {
        if !flushes.is_empty() {
            chosen.insert(flushes[index * flushes.len() / (cuts / 2)] + index % 2);
        }
    }
    for _ in 0..cuts * 4 {
        if chosen.len() < cuts {
            chosen.insert(random.below(writes.len()) + 1);
        }
    }
    chosen
}

fn run() -> Result<bool> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, log, image, zigsvc, folder, cuts, seed, flushes] = &arguments[..] else {
        return Err("usage: powercut NAME LOG IMAGE ZIGSVC FOLDER CUTS SEED obey|ignore".into());
    };
    let obey = flushes == "obey";
    let mut durable = fs::read(image)?;
    let writes = read_record(Path::new(log), durable.len())?;
    let mut random = Random(seed.parse::<u64>()? | 1);
    let chosen = choose(&writes, cuts.parse()?, &mut random);
    let mut check =
        Check { name, zigsvc: Path::new(zigsvc), folder: PathBuf::from(folder), sums: Sums::default() };
    let mut past = Past::default();
    let mut pending: Vec<&Write> = Vec::new();
    let mut flushed = 0;
    let ways = [Way::Dropped, Way::Some, Way::Torn, Way::Kept];
    for (at, write) in writes.iter().enumerate() {
        // A cut at N comes after N writes.
        if chosen.contains(&at) {
            let way = ways[random.below(ways.len())];
            let image = rebuild(&durable, &pending, way, &mut random);
            check.look(at, &image, &past)?;
        }
        if write.offset >= MARKS {
            past.take(write);
            continue;
        }
        if write.flags & FLUSH != 0 {
            flushed += 1;
            if obey {
                pending.drain(..).for_each(|write| apply(&mut durable, write));
            }
        }
        if !write.data.is_empty() {
            if write.flags & FUA != 0 && obey {
                apply(&mut durable, write);
            } else {
                pending.push(write);
            }
        }
        if !obey && pending.len() > CACHE_WRITES {
            apply(&mut durable, pending.remove(0));
        }
    }
    let _ = fs::remove_dir_all(&check.folder);
    let sums = check.sums;
    println!(
        "| {name} | {} | {flushed} | {} | {} | {} | {} | {} | {} | {} | {} |",
        writes.len(),
        sums.cuts,
        past.acknowledged.len(),
        sums.pending,
        sums.lost,
        sums.doubled,
        sums.half_read,
        sums.unclean,
        sums.broken
    );
    eprintln!(
        "powercut: {name}: {} acknowledged over all cuts; damaged records, never acknowledged, set aside in {}",
        sums.acknowledged, sums.set_aside
    );
    Ok(sums.cuts > 0 && sums.pending > 0 && sums.lost + sums.doubled + sums.half_read + sums.broken == 0)
}

/// Ends with 0 if the promise was kept, with 1 if it was broken, and with 2 if the test
/// itself failed.
fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            let _ = io::Write::write_all(&mut io::stderr(), format!("powercut: {error}\n").as_bytes());
            ExitCode::from(2)
        }
    }
}
