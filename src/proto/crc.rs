//! CRC-32 (IEEE 802.3, reflected, as in zlib and gzip). The table has 16 entries, 64 bytes
//! instead of the usual kilobyte, and is fast enough for records of a hundred bytes.

/// The remainders of the 16 nibbles for the polynomial 0xEDB88320.
const NIBBLES: [u32; 16] = {
    let mut table = [0u32; 16];
    let mut index = 0;
    while index < 16 {
        #[expect(clippy::cast_possible_truncation, reason = "below 16")]
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 4 {
            value = if value & 1 == 1 { 0xEDB8_8320 ^ (value >> 1) } else { value >> 1 };
            bit += 1;
        }
        #[expect(clippy::indexing_slicing, reason = "below 16, at compile time")]
        {
            table[index] = value;
        }
        index += 1;
    }
    table
};

/// Returns the CRC-32 of `parts`, taken as one string.
#[must_use]
pub fn crc32(parts: &[&[u8]]) -> u32 {
    let mut crc = u32::MAX;
    for byte in parts.iter().copied().flatten() {
        crc ^= u32::from(*byte);
        crc = step(step(crc));
    }
    !crc
}

/// Shifts four bits out of the register.
fn step(crc: u32) -> u32 {
    (crc >> 4) ^ NIBBLES.get((crc & 15) as usize).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_agrees_with_the_published_check_value() {
        assert_eq!(crc32(&[b"123456789"]), 0xCBF4_3926);
        assert_eq!(crc32(&[b""]), 0);
    }

    #[test]
    fn parts_count_as_one_string() {
        assert_eq!(crc32(&[b"1234", b"", b"56789"]), crc32(&[b"123456789"]));
    }
}
