//! Files that packages contain. The packages themselves are checked by `packaging/check`.
//!
//! - `manual/`: the manual page and bash's completion, which are written from the lists
//! - `targets`: the targets that the program can be built for

mod manual;
mod targets;
