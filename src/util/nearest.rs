//! The name that is nearest to a misspelt one.

use super::text::Writer;

/// Writes "; the nearest is `NAME`", if one of the names is near to `word`.
#[inline(never)]
pub fn push_nearest(word: &[u8], names: &mut dyn Iterator<Item = &'static str>, out: &mut Writer<'_>) {
    let mut nearest = (3, "");
    for name in names {
        let distance = distance(word, name.as_bytes());
        if distance < nearest.0 {
            nearest = (distance, name);
        }
    }
    if nearest.0 < 3 {
        out.push_str("; the nearest is `");
        out.push_str(nearest.1);
        out.push_str("`");
    }
}

/// Returns the number of letters to insert, drop, replace or exchange with the next one to make
/// `name` of `word`, in any case of letters; 0 if `word` is its beginning. Words of another
/// length, or of one letter, are far.
#[expect(
    clippy::arithmetic_side_effects,
    reason = "an index above 0 is subtracted from, and each is below the length"
)]
fn distance(word: &[u8], name: &[u8]) -> u8 {
    const MAX: usize = 16;
    if word.len() < 2 || word.len() > MAX || word.len().abs_diff(name.len()) > 2 && !name.starts_with(word) {
        return u8::MAX;
    }
    if name.starts_with(word) {
        return 0;
    }
    let same = |at: usize, of: usize| match (word.get(at), name.get(of)) {
        (Some(letter), Some(other)) => letter.eq_ignore_ascii_case(other),
        _ => false,
    };
    // The distances of the beginnings of `word` from those of `name`: three rows are enough.
    let (mut before, mut last) = ([u8::MAX; MAX + 3], [0_u8; MAX + 3]);
    (0..).zip(&mut last).for_each(|(count, cell)| *cell = count);
    for at in 0..word.len() {
        let mut row = [u8::MAX; MAX + 3];
        let cell = |row: &[u8; MAX + 3], of: usize| row.get(of).copied().unwrap_or(u8::MAX);
        row[0] = cell(&last, 0).saturating_add(1);
        for of in 0..name.len() {
            let replaced = cell(&last, of).saturating_add(u8::from(!same(at, of)));
            let dropped = cell(&last, of + 1).min(cell(&row, of)).saturating_add(1);
            let is_exchanged = at > 0 && of > 0 && same(at, of - 1) && same(at - 1, of);
            let exchanged = if is_exchanged { cell(&before, of - 1).saturating_add(1) } else { u8::MAX };
            if let Some(cell) = row.get_mut(of + 1) {
                *cell = replaced.min(dropped).min(exchanged);
            }
        }
        (before, last) = (last, row);
    }
    last.get(name.len()).copied().unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_or_two_slips_are_near_and_another_word_is_not() {
        for (word, name, wanted) in [
            ("hanlder", "handler", 1),
            ("Workers", "workers", 0),
            ("log-file", "log_file", 1),
            ("check_intervall", "check_interval", 1),
            ("retrys", "retries", 2),
            ("queu", "queue", 0),
            ("x", "xy", u8::MAX),
            ("interval_of_checks", "check_interval", u8::MAX),
        ] {
            assert_eq!(distance(word.as_bytes(), name.as_bytes()), wanted, "{word}");
        }
        let mut text = [0; 60];
        let mut out = Writer::new(&mut text);
        push_nearest(b"hanlder", &mut ["spool", "handler", "chandler"].into_iter(), &mut out);
        push_nearest(b"colour", &mut ["spool", "handler"].into_iter(), &mut out);
        assert_eq!(out.as_bytes(), b"; the nearest is `handler`");
    }
}
