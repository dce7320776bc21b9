//! Decides if programs that wait for each other can all be started.

/// Finds an instance that would have to be started after itself. `needs` holds for each instance
/// the indexes of those that it is started after, as bits.
#[must_use]
pub fn find_circle(needs: &[u64]) -> Option<usize> {
    let all = needs.iter().enumerate();
    let circle = |from: usize, mask: u64| {
        let mut reached = mask;
        // Each round reaches one instance more, or none.
        for _ in 0..needs.len() {
            let more = needs.iter().enumerate().filter(|(at, _)| reached >> at & 1 != 0);
            reached = more.fold(reached, |reached, (_, mask)| reached | mask);
        }
        reached >> from & 1 != 0
    };
    all.clone().find(|(at, mask)| circle(*at, **mask)).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_is_found_whatever_its_length_and_a_chain_is_none() {
        assert_eq!(find_circle(&[]), None);
        assert_eq!(find_circle(&[0b1]), Some(0), "itself");
        assert_eq!(find_circle(&[0b10, 0b01]), Some(0));
        // A chain from the last to the first, as long as there can be one.
        let chain: Vec<u64> = (0..36u32).map(|at| if at == 0 { 0 } else { 1 << (at - 1) }).collect();
        assert_eq!(find_circle(&chain), None);
        let mut ring = chain.clone();
        ring[0] = 1 << 35;
        assert_eq!(find_circle(&ring), Some(0));
        // One that leads to a circle is in none.
        assert_eq!(find_circle(&[0b10, 0b100, 0b10]), Some(1));
        // A diamond.
        assert_eq!(find_circle(&[0, 0b1, 0b1, 0b110]), None);
    }
}
