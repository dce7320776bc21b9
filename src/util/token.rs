//! The hash of a token, which shows that a process knows the token without showing the token.

/// The offset basis and the prime of FNV-1a with 64 bits.
const BASIS: u64 = 0xCBF2_9CE4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01B3;

/// Returns the hash of a token, in 48 bits, so that it is exact where numbers are floating-point.
/// The token has more bits, so the hash does not show it.
#[must_use]
pub fn hash(token: &[u8]) -> u64 {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
    token.iter().fold(BASIS, mix) >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_and_fits_a_floating_point_number() {
        assert_eq!(hash(b""), BASIS >> 16);
        assert_eq!(hash(b"a"), 0xAF63_DC4C_8601_EC8C >> 16);
        assert!(hash(b"0123456789abcdef0123456789abcdef") < 1 << 48);
        assert_ne!(hash(b"0123456789abcdef0123456789abcdef"), hash(b"0123456789abcdef0123456789abcdee"));
    }
}
