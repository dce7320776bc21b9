//! The lines of the hub: `[pid N] text` from a client to all others, and the hub's own lines.
//! No client can imitate another one, because its control bytes are shown as `\xNN`.

use crate::limits::CHAT_LINE_BYTES;
use crate::util::text::{Writer, text_with_number};
use ufmt::uwrite;

/// The line that a client reads if all slots are taken. No line of a client can begin like it.
pub const FULL: &[u8] = b"server full\n";
/// The line that a client reads if it sent a line that is too long.
pub const TOO_LONG: &[u8] =
    text_with_number!("[hub] your line was not passed on: a line has at most ", CHAT_LINE_BYTES, " bytes\n")
        .as_bytes();

/// Appends `[pid N] text` and a newline. Control bytes of the text are escaped. A line that
/// gets too long by that is cut, and ends with `…`.
pub fn push_line(pid: u32, text: &[u8], out: &mut Writer<'_>) {
    let _ = uwrite!(out, "[pid {}] ", pid);
    out.push_visible(text.strip_suffix(b"\r").unwrap_or(text));
    out.end_line();
}

/// Appends `[hub] N lines lost` and a newline. N is the number of lines that this reader did
/// not get.
pub fn push_lost(lost: u32, out: &mut Writer<'_>) {
    let _ = uwrite!(out, "[hub] {} lines lost", lost);
    out.end_line();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::CLIENT_OUTPUT_BYTES;

    fn line(text: &[u8]) -> Vec<u8> {
        let mut bytes = [0; CLIENT_OUTPUT_BYTES];
        let mut out = Writer::new(&mut bytes);
        push_line(4_194_304, text, &mut out);
        out.as_bytes().to_vec()
    }

    #[test]
    fn a_line_says_who_sent_it() {
        assert_eq!(line(b"hello"), b"[pid 4194304] hello\n");
        assert_eq!(line("na\u{ef}ve\t\r".as_bytes()), "[pid 4194304] na\u{ef}ve\t\n".as_bytes());
        assert_eq!(line(b""), b"[pid 4194304] \n");
    }

    #[test]
    fn no_text_can_look_like_another_line_or_command_a_terminal() {
        assert_eq!(line(b"x\r[pid 1] y"), b"[pid 4194304] x\\x0d[pid 1] y\n");
        assert_eq!(line(b"\x1b[2J\0\xff"), b"[pid 4194304] \\x1b[2J\\x00\\xff\n");
    }

    #[test]
    fn the_longest_plain_line_is_whole_and_any_line_is_one() {
        let plain = line(&[b'x'; CHAT_LINE_BYTES]);
        assert_eq!(plain.len(), CHAT_LINE_BYTES + 15);
        for byte in [0u8, 0x1b, 0x80, 0xc3, b'x'] {
            for length in 0..=CHAT_LINE_BYTES {
                let line = line(&vec![byte; length]);
                assert!(line.len() <= CLIENT_OUTPUT_BYTES);
                assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
            }
        }
        assert!(line(&[0; CHAT_LINE_BYTES]).ends_with("\u{2026}\n".as_bytes()), "a cut line says so");
    }

    #[test]
    fn lost_lines_are_counted_in_one_line() {
        let mut bytes = [0; 64];
        let mut out = Writer::new(&mut bytes);
        push_lost(u32::MAX, &mut out);
        assert_eq!(out.as_bytes(), b"[hub] 4294967295 lines lost\n");
    }
}
