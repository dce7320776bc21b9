use super::*;
use crate::limits::{COPY_INPUT_BYTES, COPY_READ_BYTES, COPY_WRITE_BYTES};

/// The files that a copied stream was written to, oldest first.
struct Copied {
    files: Vec<Vec<u8>>,
}

impl Copied {
    /// Copies `input`, which arrives in pieces of at most `arrives` bytes, into files of `max`
    /// bytes. `takes` returns the number of bytes that the disk accepts of a write.
    fn new(
        input: &[u8],
        arrives: usize,
        max: u64,
        stamp: TimestampFormat,
        mut takes: impl FnMut(usize) -> usize,
    ) -> Self {
        let mut copied = Self { files: vec![Vec::new()] };
        let (mut held, mut inside) = (Vec::new(), false);
        let mut stamper = Stamper::new(stamp);
        stamper.set_time(1_795_327_895);
        let mut pieces: Vec<Option<&[u8]>> = input.chunks(arrives.min(COPY_READ_BYTES)).map(Some).collect();
        pieces.push(None);
        for piece in pieces {
            let known = held.len();
            held.extend_from_slice(piece.unwrap_or(&[]));
            assert!(held.len() <= COPY_INPUT_BYTES, "the buffer is too small: {}", held.len());
            let count = ready(&held, known, inside, piece.is_none());
            let block: Vec<u8> = held.drain(..count).collect();
            assert!(held.len() < COPY_LINE_BYTES);
            assert!(!held.contains(&b'\n'));
            if let Some(last) = block.last() {
                inside = *last != b'\n';
            }
            copied.put_stamped(&mut stamper, &block, max, &mut takes);
        }
        copied
    }

    fn put_stamped(
        &mut self,
        stamper: &mut Stamper,
        mut block: &[u8],
        max: u64,
        takes: &mut dyn FnMut(usize) -> usize,
    ) {
        let mut out = vec![0; COPY_WRITE_BYTES + STAMP_MAX_BYTES + COPY_INPUT_BYTES];
        while !block.is_empty() {
            let (taken, filled) = stamper.copy(block, &mut out, COPY_WRITE_BYTES);
            assert!(taken > 0);
            block = &block[taken..];
            self.put(&out[..filled], max, takes);
        }
    }

    fn put(&mut self, mut block: &[u8], max: u64, takes: &mut dyn FnMut(usize) -> usize) {
        while !block.is_empty() {
            // The lines are counted over all files, because a file may begin inside a line.
            let inside = self.last_byte().is_some_and(|last| last != b'\n');
            let file = self.files.last_mut().unwrap();
            match next_action(block, inside, file.len() as u64, max) {
                StreamAction::Rotate => {
                    assert!(!file.is_empty());
                    self.files.push(Vec::new());
                }
                StreamAction::Write(count) => {
                    assert!((1..=block.len()).contains(&count));
                    let count = takes(count).min(count);
                    file.extend_from_slice(&block[..count]);
                    block = &block[count..];
                }
            }
        }
    }

    fn last_byte(&self) -> Option<u8> {
        self.files.iter().rev().find_map(|file| file.last().copied())
    }

    fn all(&self) -> Vec<u8> {
        self.files.concat()
    }
}

const ALL: fn(usize) -> usize = |count| count;

/// Returns lines of each length up to 40, some of them empty, some with control bytes.
fn sample() -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in 0..60u8 {
        bytes.extend((0..number % 41).map(|at| if at % 7 == 3 { 0 } else { at ^ number | 0x80 }));
        bytes.push(b'\n');
    }
    bytes.extend_from_slice(b"no newline");
    bytes
}

#[test]
fn whatever_the_pieces_and_the_limit_every_byte_is_there_and_lines_are_whole() {
    let input = sample();
    for arrives in [1, 2, 3, 7, 40, 41, 100, 5000] {
        for max in [0, 1, 2, 10, 41, 42, 100, 1000, 5000] {
            let copied = Copied::new(&input, arrives, max, TimestampFormat::None, ALL);
            assert_eq!(copied.all(), input, "{arrives} {max}");
            let last = copied.files.len() - 1;
            for (number, file) in copied.files.iter().enumerate() {
                assert!(number == last || file.ends_with(b"\n"), "{arrives} {max}");
                let lines = file.split_inclusive(|byte| *byte == b'\n').count();
                assert!(
                    max == 0 || file.len() as u64 <= max || lines == 1,
                    "{arrives} {max}: {}",
                    file.len()
                );
            }
            assert!(max != 0 || last == 0);
        }
    }
}

#[test]
fn files_are_as_full_as_whole_lines_allow() {
    let input = b"123456789\n".repeat(100);
    for arrives in [1, 64, 1000] {
        let copied = Copied::new(&input, arrives, 35, TimestampFormat::None, ALL);
        assert!(copied.files[..33].iter().all(|file| file.len() == 30), "{arrives}");
        assert_eq!(copied.files.len(), 34);
    }
}

#[test]
fn every_truncation_of_a_stream_is_copied_to_its_last_byte() {
    let input = sample();
    for end in 0..=input.len() {
        let input = &input[..end];
        assert_eq!(Copied::new(input, 16, 50, TimestampFormat::None, ALL).all(), input);
    }
}

#[test]
fn a_stream_without_newlines_is_cut_where_a_file_is_full() {
    let input = vec![b'x'; 3 * COPY_LINE_BYTES + 17];
    for arrives in [1000, 4096, 65_536] {
        let copied = Copied::new(&input, arrives, 10_000, TimestampFormat::None, ALL);
        assert_eq!(copied.all(), input);
        // The first part is written like a line.
        assert!(copied.files[0].len() < COPY_LINE_BYTES + COPY_READ_BYTES, "{arrives}");
        for file in &copied.files[1..copied.files.len() - 1] {
            assert_eq!(file.len(), 10_000, "{arrives}");
        }
    }
}

#[test]
fn a_line_that_just_fits_the_buffer_is_in_one_file_and_has_one_stamp() {
    for length in [COPY_LINE_BYTES - 1, COPY_LINE_BYTES, COPY_LINE_BYTES + 1] {
        let line = [vec![b'x'; length], vec![b'\n']].concat();
        let input = [b"before\n", &line[..], b"after\n"].concat();
        for stamp in [TimestampFormat::None, TimestampFormat::Iso, TimestampFormat::Unix] {
            for arrives in [5000, 65_536] {
                let copied = Copied::new(&input, arrives, 100, stamp, ALL);
                let all = copied.all();
                let stamps = all.iter().filter(|byte| **byte == b'[').count();
                assert_eq!(stamps, if stamp == TimestampFormat::None { 0 } else { 3 });
                if length < COPY_LINE_BYTES {
                    assert_eq!(copied.files.len(), 3, "{length} {arrives}");
                    assert!(copied.files[1].ends_with(&line));
                }
            }
        }
    }
}

#[test]
fn every_line_gets_a_stamp_and_a_continued_one_only_once() {
    let input = sample();
    let stamp = b"[2026-11-22T06:11:35Z] ";
    let expected: Vec<u8> =
        input.split_inclusive(|byte| *byte == b'\n').flat_map(|line| [&stamp[..], line].concat()).collect();
    for arrives in [1, 5, 1000] {
        for max in [0, 1, 64, 500] {
            assert_eq!(Copied::new(&input, arrives, max, TimestampFormat::Iso, ALL).all(), expected);
        }
    }
    let long = [vec![b'y'; 3 * COPY_LINE_BYTES], b"\nz".to_vec()].concat();
    let copied = Copied::new(&long, 30_000, 1000, TimestampFormat::Iso, ALL).all();
    let expected = [&stamp[..], &long[..=3 * COPY_LINE_BYTES], stamp, b"z"].concat();
    assert_eq!(copied, expected);
}

#[test]
fn a_disk_that_takes_a_few_bytes_at_a_time_gets_every_byte_once() {
    let input = sample();
    for max in [0, 30, 100] {
        let mut turn = 0;
        let takes = |_| {
            turn += 1;
            turn % 3
        };
        assert_eq!(Copied::new(&input, 50, max, TimestampFormat::None, takes).all(), input, "{max}");
    }
}

#[test]
fn the_stamp_follows_the_clock() {
    let mut stamper = Stamper::new(TimestampFormat::Unix);
    let mut out = [0; 64];
    let mut stamped = |wall: i64, text: &[u8]| {
        stamper.set_time(wall);
        let (taken, filled) = stamper.copy(text, &mut out, 1);
        (taken, String::from_utf8(out[..filled].to_vec()).unwrap())
    };
    assert_eq!(stamped(7, b"a\nb\n"), (2, "[7] a\n".into()));
    assert_eq!(stamped(7, b"b\n"), (2, "[7] b\n".into()));
    assert_eq!(stamped(8, b"c"), (1, "[8] c".into()));
    assert_eq!(stamped(9, b"d\n"), (2, "d\n".into()));
    assert_eq!(stamped(6, b"e\n"), (2, "[6] e\n".into()));
    assert_eq!(stamped(-1, b"\n"), (1, "[-1] \n".into()));
}

#[test]
fn a_buffer_that_is_too_small_takes_nothing() {
    let mut stamper = Stamper::new(TimestampFormat::Iso);
    stamper.set_time(0);
    assert_eq!(stamper.copy(b"line\n", &mut [0; 20], 20), (0, 0));
}
