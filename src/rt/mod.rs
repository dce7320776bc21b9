//! The C library's part of the binary: the entry point, the memory functions that
//! compiled code calls, and the panic handler. Nothing else in the program may depend on
//! this folder.

mod entry;
mod mem;
mod panic;
