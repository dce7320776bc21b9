//! Tables of strings that are kept as one text. A slice of `&str` takes 16 bytes for each
//! string on a 64-bit machine, in addition to the string; a table takes two.

/// Strings that stand one after the other in one text. Made by `string_table!`.
pub struct StringTable {
    text: &'static str,
    /// The end of each string in `text`. The next string starts there.
    ends: &'static [u16],
}

impl StringTable {
    /// Joins `text` and the ends of its strings. For `string_table!` only.
    ///
    /// # Panics
    /// At compile time, if the last string does not end where `text` does.
    #[must_use]
    pub const fn new(text: &'static str, ends: &'static [u16]) -> Self {
        let end = match ends.last() {
            Some(end) => *end as usize,
            None => 0,
        };
        assert!(end == text.len(), "the ends are those of another text");
        Self { text, ends }
    }

    /// Returns the string at `index`; an empty string if there is none.
    #[must_use]
    #[inline(never)]
    pub fn get(&self, index: usize) -> &'static str {
        let end = self.ends.get(index).copied().unwrap_or(0);
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        self.text.get(usize::from(start)..usize::from(end)).unwrap_or("")
    }

    /// Returns the number of strings.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns true if there are no strings.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns the index of the first string that equals `wanted`.
    #[must_use]
    pub fn find(&self, wanted: &[u8]) -> Option<usize> {
        (0..self.len()).find(|index| self.get(*index).as_bytes() == wanted)
    }

    /// Returns the strings in their order.
    pub fn iter(&self) -> impl Iterator<Item = &'static str> + Clone + '_ {
        (0..self.len()).map(|index| self.get(index))
    }
}

/// Returns the end of each string, from the lengths of all strings. For `string_table!`
/// only.
///
/// # Panics
/// At compile time, if the strings have more bytes together than 16 bits can count.
#[must_use]
#[expect(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, which refuses what is out of bounds"
)]
pub const fn ends<const COUNT: usize>(mut lengths: [usize; COUNT]) -> [u16; COUNT] {
    let mut ends = [0; COUNT];
    let mut index = 0;
    while index < COUNT {
        if index > 0 {
            lengths[index] += lengths[index - 1];
        }
        assert!(lengths[index] <= u16::MAX as usize, "the table is too long");
        ends[index] = lengths[index] as u16;
        index += 1;
    }
    ends
}

/// Joins strings that have `LENGTH` bytes together, for a table whose rows have conditions.
///
/// # Panics
/// At compile time, if the length is another one.
#[must_use]
#[expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, which refuses what is out of bounds"
)]
pub const fn join<const LENGTH: usize>(mut strings: &[&str]) -> [u8; LENGTH] {
    let (mut text, mut used) = ([0; LENGTH], 0);
    while let [string, rest @ ..] = strings {
        let mut index = 0;
        while index < string.len() {
            text[used] = string.as_bytes()[index];
            (used, index) = (used + 1, index + 1);
        }
        strings = rest;
    }
    assert!(used == LENGTH, "the length is another one");
    text
}

/// Returns the length of each string.
#[must_use]
#[expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, which refuses what is out of bounds"
)]
pub const fn lengths<const COUNT: usize>(strings: &[&str]) -> [usize; COUNT] {
    let (mut lengths, mut index) = ([0; COUNT], 0);
    while index < COUNT {
        lengths[index] = strings[index].len();
        index += 1;
    }
    lengths
}

/// Returns the bytes of all strings together.
#[must_use]
#[expect(clippy::arithmetic_side_effects, reason = "evaluated by the compiler")]
pub const fn total(mut strings: &[&str]) -> usize {
    let mut total = 0;
    while let [string, rest @ ..] = strings {
        total += string.len();
        strings = rest;
    }
    total
}

/// Makes a [`StringTable`](crate::util::string_table::StringTable) of a constant slice of
/// strings.
#[cfg(any(feature = "sys", test))]
macro_rules! joined_table {
    ($strings:expr) => {{
        use $crate::util::string_table::{ends, join, lengths, total};
        const STRINGS: &[&str] = $strings;
        const TEXT: &[u8] = &join::<{ total(STRINGS) }>(STRINGS);
        $crate::util::string_table::StringTable::new(
            match core::str::from_utf8(TEXT) {
                Ok(text) => text,
                Err(_) => "",
            },
            const { &ends::<{ STRINGS.len() }>(lengths(STRINGS)) },
        )
    }};
}

#[cfg(any(feature = "sys", test))]
#[allow(unused_imports, reason = "a build without system calls has no table of this kind")]
pub(crate) use joined_table;

/// Makes a [`StringTable`](crate::util::string_table::StringTable) of literals. Its place is a
/// `static`, so that the table exists once.
macro_rules! string_table {
    ($($text:literal),* $(,)?) => {
        $crate::util::string_table::StringTable::new(
            concat!($($text),*),
            const { &$crate::util::string_table::ends([$($text.len()),*]) },
        )
    };
}

pub(crate) use string_table;

/// Declares an enum of one byte whose values have names, with `ALL`, `name` and `from_name`.
/// The names are in one [`StringTable`](crate::util::string_table::StringTable).
macro_rules! named_enum {
    ($(#[$meta:meta])* $vis:vis enum $type:ident {
        $($(#[$value_meta:meta])* $value:ident = $name:literal),+ $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        $vis enum $type {
            $($(#[$value_meta])* $value),+
        }

        #[allow(dead_code, reason = "not every enum needs all of them")]
        impl $type {
            /// All values in their order.
            $vis const ALL: [Self; [$(Self::$value),+].len()] = [$(Self::$value),+];

            /// Returns the name.
            #[must_use]
            $vis fn name(self) -> &'static str {
                Self::names().get(self as usize)
            }

            /// Returns the value that has this name.
            #[must_use]
            $vis fn from_name(name: &[u8]) -> Option<Self> {
                Self::ALL.get(Self::names().find(name)?).copied()
            }

            /// Returns the names in the order of the values.
            $vis fn names() -> &'static $crate::util::string_table::StringTable {
                static NAMES: $crate::util::string_table::StringTable = $crate::util::string_table::string_table![$($name),+];
                &NAMES
            }
        }
    };
}

pub(crate) use named_enum;

#[cfg(test)]
mod tests {
    use super::*;

    static TABLE: StringTable = string_table!["", "one", "", "zwölf", "one"];

    named_enum! {
        /// A value of the test.
        enum Letter {
            /// The first one.
            Alpha = "a",
            /// The second one.
            Beta = "bb",
        }
    }

    #[test]
    fn each_string_of_a_table_is_the_one_that_was_given() {
        assert_eq!(TABLE.iter().collect::<Vec<_>>(), ["", "one", "", "zwölf", "one"]);
        assert_eq!((TABLE.len(), TABLE.is_empty(), TABLE.get(5), TABLE.get(usize::MAX)), (5, false, "", ""));
        assert_eq!(
            [&b""[..], b"one", b"on", b"oneone"].map(|name| TABLE.find(name)),
            [Some(0), Some(1), None, None]
        );
        const ROWS: &[[&str; 2]] = &[
            ["", "one"],
            #[cfg(not(test))]
            ["left", "out"],
            ["", "zwölf"],
        ];
        static JOINED: StringTable = joined_table!(ROWS.as_flattened());
        assert_eq!(JOINED.iter().collect::<Vec<_>>(), ["", "one", "", "zwölf"]);
        let empty = string_table![];
        assert!(empty.is_empty() && empty.find(b"").is_none());
    }

    #[test]
    fn a_value_is_found_by_its_name_alone() {
        for value in Letter::ALL {
            assert_eq!(Letter::from_name(value.name().as_bytes()), Some(value));
        }
        assert_eq!((Letter::Alpha.name(), Letter::Beta.name()), ("a", "bb"));
        assert_eq!([&b""[..], b"b", b"abb", b"A"].map(Letter::from_name), [None; 4]);
        assert_eq!(size_of::<Letter>(), 1);
    }
}
