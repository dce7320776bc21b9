//! Writes the notes of the power-cut test (qemu/powercut) to the board's disk, after
//! the file system. Each note is a single sector, written directly, so that it is in
//! the record of the writes in its place. Uses std only, and runs on the board.
//!
//!     mark acknowledged NAME SECTOR     a line of stdin: NAME.N was acknowledged
//!     mark write NAME SECTOR N FILE     appends jobs NAME.1 ... NAME.N to the
//!                                       queue FILE, each synced, then noted
//!     mark NAME.N TEXT                  (the handler) NAME.N runs

use std::fs::{File, OpenOptions, read_to_string};
use std::io::{BufRead as _, Result, Write as _, stdin};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::thread::sleep;
use std::time::Duration;

/// O_DIRECT of 32-bit ARM.
const O_DIRECT: i32 = 0o200_000;
const SECTOR: u64 = 512;
/// The sector at which the marks begin.
const MARKS: u64 = 16 * 1024 * 1024 / SECTOR;
/// The number of sectors of one writer. After the last one it begins at its first again.
const ROUND: u64 = 2048;

#[repr(align(4096))]
struct Aligned([u8; SECTOR as usize]);

struct Marks(File);

impl Marks {
    fn open() -> Result<Self> {
        OpenOptions::new().write(true).custom_flags(O_DIRECT).open("/dev/vda").map(Self)
    }

    fn put(&self, writer: u64, number: u64, text: &str) -> Result<()> {
        let uptime = read_to_string("/proc/uptime")?;
        let line = format!("{text} {}\n", uptime.split(' ').next().unwrap_or("0"));
        let mut sector = Aligned([0; SECTOR as usize]);
        sector.0[..line.len()].copy_from_slice(line.as_bytes());
        self.0.write_all_at(&sector.0, (MARKS + writer * ROUND + number % ROUND) * SECTOR)
    }
}

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let word = |index: usize| words.get(index).map_or("", String::as_str);
    let number = |index: usize| word(index).parse::<u64>().unwrap_or(0);
    let marks = Marks::open()?;
    match word(0) {
        "acknowledged" => {
            for (index, line) in stdin().lock().lines().enumerate() {
                line?;
                marks.put(number(2), index as u64, &format!("A {}.{}", word(1), index + 1))?;
            }
        }
        "write" => {
            for index in 1..=number(3) {
                let key = format!("{}.{index}", word(1));
                let length = index as usize * 37 % 400 + 1;
                // Opened each time, because the service takes the file away.
                let mut queue = OpenOptions::new().append(true).create(true).open(word(4))?;
                queue.write_all(format!("{key} {:0>length$}.\n", 0).as_bytes())?;
                queue.sync_all()?;
                marks.put(number(2), index, &format!("A {key}"))?;
                sleep(Duration::from_millis(300));
            }
        }
        text => {
            let id = std::env::var("ZIGSVC_JOB_ID").unwrap_or_default().parse().unwrap_or(0);
            marks.put(0, id, &format!("R {}", text.split(' ').next().unwrap_or("")))?;
        }
    }
    Ok(())
}
