//! The attributes of a job, which its live record holds before its text: items of a tag, a
//! length and a value.
//!
//! A copy of a live record has the same attributes, so an item that this program does not know
//! is kept.
//!
//! # Changing this
//!
//! A new attribute is one row of the table below, and its row in `docs/design.md`.

use heapless::Vec;

/// Maximum number of bytes in the attributes of one job. All attributes of the table fit twice.
pub const ATTRIBUTES_MAX_BYTES: usize = 104;
/// Bytes of the value of [`Attribute::Due`].
pub const DUE_BYTES: usize = 40;
/// Bytes of an item before its value.
const ITEM_HEADER_BYTES: usize = 2;

/// The attributes of one job.
pub type Attributes = Vec<u8, ATTRIBUTES_MAX_BYTES>;

macro_rules! attributes {
    ($($(#[$doc:meta])* $variant:ident $tag:literal: $bytes:expr, $value:literal;)*) => {
        /// An attribute of a job.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Attribute {
            $($(#[$doc])* $variant = $tag),*
        }

        /// The rows of the table in `docs/design.md`.
        #[cfg(test)]
        const ROWS: &[(u8, usize, &str)] = &[$(($tag, $bytes, $value)),*];
    };
}

attributes! {
    /// The kind of the handler that was configured when the job was queued.
    Handler 1: 1, "kind of the handler for which the job was queued: 1 `log`, 2 `shell`, 3 a program, 4 a directory; any other is unknown";
    /// How often in a row the job was given back soon after its start.
    GivenBack 2: 1, "*given back*: stops in a row that came soon after the start of the job";
    /// When a delayed job is due.
    Due 3: DUE_BYTES, "due time: boot id, 16 bytes; boot clock at which the job is due, wall clock at which it is due, duration that is left, each 8 bytes of milliseconds";
    /// How many deaths of the service in a row have cut off the job.
    CutOff 4: 1, "*cut off*: deaths of the service in a row that ended an attempt of the job";
}

/// The kind of a handler.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[cfg_attr(test, derive(Hash))]
pub enum HandlerKind {
    /// The journal does not say it: an older version queued the job.
    #[default]
    Unknown = 0,
    /// The log.
    Log = 1,
    /// The shell.
    Shell = 2,
    /// A program.
    Program = 3,
    /// A directory of programs.
    Directory = 4,
}

impl HandlerKind {
    fn from_value(value: &[u8]) -> Self {
        match value {
            [1] => Self::Log,
            [2] => Self::Shell,
            [3] => Self::Program,
            [4] => Self::Directory,
            _ => Self::Unknown,
        }
    }

    /// Returns the attributes of a new job that is queued for this handler.
    #[must_use]
    pub fn attributes(self) -> Attributes {
        match self {
            Self::Unknown => Attributes::new(),
            _ => replace(&[], Attribute::Handler, &[self as u8]),
        }
    }
}

/// Returns the items of `attributes`. An item that is not whole ends them.
fn items(mut attributes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    core::iter::from_fn(move || {
        let (tag, rest) = attributes.split_first()?;
        let (length, rest) = rest.split_first()?;
        let (value, rest) = rest.split_at_checked(usize::from(*length))?;
        attributes = rest;
        Some((*tag, value))
    })
}

/// Returns the value of an attribute. It is empty if the attribute is not there.
#[must_use]
pub fn value_of(attributes: &[u8], wanted: Attribute) -> &[u8] {
    items(attributes).find(|(tag, _)| *tag == wanted as u8).map_or(&[], |(_, value)| value)
}

/// Returns the kind of the handler for which a job was queued.
#[must_use]
pub fn handler_of(attributes: &[u8]) -> HandlerKind {
    HandlerKind::from_value(value_of(attributes, Attribute::Handler))
}

/// Returns how often in a row a job was given back soon after its start.
#[must_use]
pub fn given_back_of(attributes: &[u8]) -> u8 {
    value_of(attributes, Attribute::GivenBack).first().copied().unwrap_or(0)
}

/// Returns how many deaths of the service in a row have cut off a job.
#[must_use]
pub fn cut_off_of(attributes: &[u8]) -> u8 {
    value_of(attributes, Attribute::CutOff).first().copied().unwrap_or(0)
}

/// Returns `attributes` with another value of one of them. An empty value removes it. The
/// others stay, in their order, as far as they fit.
#[must_use]
pub fn replace(attributes: &[u8], replaced: Attribute, value: &[u8]) -> Attributes {
    let mut out = Attributes::new();
    let new = (!value.is_empty()).then_some((replaced as u8, value));
    let others = items(attributes).filter(|(tag, _)| *tag != replaced as u8);
    for (tag, value) in new.into_iter().chain(others) {
        let Ok(length) = u8::try_from(value.len()) else { continue };
        if out.capacity().saturating_sub(out.len()) >= ITEM_HEADER_BYTES.saturating_add(value.len()) {
            let _ = out.extend_from_slice(&[tag, length]);
            let _ = out.extend_from_slice(value);
        }
    }
    out
}

/// When a delayed job is due. All times are in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Due {
    /// The boot in which the other fields were written.
    pub boot: [u8; 16],
    /// The boot clock at which the job is due in that boot.
    pub boot_clock: u64,
    /// The wall clock at which the job is due; 0 if the clock was not set.
    pub wall_clock: u64,
    /// The duration that was left when the record was written.
    pub left: u64,
}

impl Due {
    /// Returns the value of the attribute.
    #[must_use]
    pub fn emit(&self) -> [u8; DUE_BYTES] {
        let mut value = [0; DUE_BYTES];
        let (boot, rest) = value.split_at_mut(16);
        boot.copy_from_slice(&self.boot);
        for (to, number) in rest.chunks_exact_mut(8).zip([self.boot_clock, self.wall_clock, self.left]) {
            to.copy_from_slice(&number.to_le_bytes());
        }
        value
    }

    /// Parses the attribute of a job, if it has one.
    #[must_use]
    pub fn of(attributes: &[u8]) -> Option<Self> {
        let value: &[u8; DUE_BYTES] = value_of(attributes, Attribute::Due).try_into().ok()?;
        let (boot, rest) = value.split_first_chunk::<16>()?;
        let (numbers, _) = rest.as_chunks::<8>();
        let [boot_clock, wall_clock, left] = numbers else { return None };
        let number = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
        Some(Self {
            boot: *boot,
            boot_clock: number(boot_clock),
            wall_clock: number(wall_clock),
            left: number(left),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUE: Due = Due { boot: [7; 16], boot_clock: 1, wall_clock: u64::MAX, left: 3 << 40 };

    #[test]
    fn every_attribute_reads_back_and_unknown_ones_stay() {
        let unknown = [200, 2, b'x', b'y'];
        let block = replace(&unknown, Attribute::Handler, &[2]);
        let block = replace(&block, Attribute::GivenBack, &[3]);
        let block = replace(&block, Attribute::Due, &DUE.emit());
        let block = replace(&block, Attribute::CutOff, &[5]);
        assert_eq!(
            (handler_of(&block), given_back_of(&block), cut_off_of(&block), Due::of(&block)),
            (HandlerKind::Shell, 3, 5, Some(DUE))
        );
        assert!(block.windows(4).any(|bytes| bytes == unknown));
        let block = replace(&replace(&block, Attribute::Due, &[]), Attribute::GivenBack, &[]);
        let block = replace(&block, Attribute::CutOff, &[]);
        assert_eq!((given_back_of(&block), cut_off_of(&block), Due::of(&block)), (0, 0, None));
        assert_eq!(block, [1, 1, 2, 200, 2, b'x', b'y']);
    }

    #[test]
    fn kinds_read_back_and_others_are_unknown() {
        for kind in [HandlerKind::Log, HandlerKind::Shell, HandlerKind::Program, HandlerKind::Directory] {
            assert_eq!(handler_of(&kind.attributes()), kind);
        }
        assert!(HandlerKind::Unknown.attributes().is_empty());
        for bytes in [&[][..], &[1], &[1, 1], &[1, 1, 9], &[1, 2, 1, 1], &[5, 250, 1, 1, 1]] {
            assert_eq!(handler_of(bytes), HandlerKind::Unknown, "{bytes:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_left_out_whole() {
        let long = [&[9, 90][..], &[1; 90]].concat();
        let block = replace(&long, Attribute::Due, &DUE.emit());
        assert_eq!(block.len(), DUE_BYTES + ITEM_HEADER_BYTES);
    }

    #[test]
    fn the_document_lists_every_attribute() {
        let document = include_str!("../../docs/design.md");
        let rows = document.split("| tag | ").nth(1).unwrap().lines().skip(2);
        let rows = rows.take_while(|row| row.starts_with('|'));
        assert!(rows.eq(ROWS.iter().map(|(tag, bytes, value)| format!("| {tag} | {bytes} | {value} |"))));
        let all: usize = ROWS.iter().map(|(_, bytes, _)| bytes + ITEM_HEADER_BYTES).sum();
        assert!(2 * all <= ATTRIBUTES_MAX_BYTES);
    }
}
