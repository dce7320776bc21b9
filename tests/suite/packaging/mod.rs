//! Files that packages contain. The packages themselves are checked by `packaging/check`.
//!
//! - `manual/`: the manual page and bash's completion, which are written from the lists

mod manual;
