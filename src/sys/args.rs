//! Arguments and environment as the kernel put them on the stack. They stay
//! where they are for the life of the process, so everything is `'static`.
#![expect(unsafe_code, reason = "reads the initial stack")]

use core::ffi::{CStr, c_char};
use core::slice;

/// `argv` and `envp` of this process.
#[derive(Clone, Copy)]
pub struct Args {
    /// With the null pointer at its end.
    argv: &'static [*const c_char],
    envp: &'static [*const c_char],
}

impl Args {
    /// Reads the initial stack and hands its auxiliary vector to rustix.
    ///
    /// # Safety
    /// `stack` must be the stack pointer that the kernel entered this process
    /// with, and nothing else of this library may have been called before.
    #[must_use]
    pub unsafe fn from_initial_stack(stack: *mut usize) -> Self {
        // SAFETY: the kernel lays out argc, argv, null, envp, null, auxv; all
        // of it stays mapped and unchanged for the life of the process.
        unsafe {
            let argc = *stack;
            let argv = stack.add(1).cast::<*const c_char>();
            let envp = argv.add(argc + 1);
            let mut count = 0;
            while !(*envp.add(count)).is_null() {
                count += 1;
            }
            rustix::param::init(envp.cast_mut().cast());
            Self { argv: slice::from_raw_parts(argv, argc + 1), envp: slice::from_raw_parts(envp, count) }
        }
    }

    /// How many arguments there are, the program's own name included; may be 0.
    #[must_use]
    pub fn len(&self) -> usize {
        self.argv.len().saturating_sub(1)
    }

    /// Whether there are no arguments at all, not even a name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The arguments from `index` on, with the null pointer that ends them: as
    /// execve(2) takes them.
    #[must_use]
    pub fn tail(&self, index: usize) -> &'static [*const c_char] {
        self.argv.get(index..).unwrap_or(&[])
    }

    /// The environment but for the variables whose names `without` has, each as
    /// execve(2) takes it.
    pub fn environment(&self, without: &'static [&'static [u8]]) -> impl Iterator<Item = *const c_char> {
        let is_left_out = move |entry: &*const c_char| {
            let entry = bytes(*entry);
            without
                .iter()
                .any(|name| entry.strip_prefix(*name).is_some_and(|rest| rest.first() == Some(&b'=')))
        };
        self.envp.iter().copied().filter(move |entry| !is_left_out(entry))
    }

    /// Argument `index` without its terminator; 0 is the program's name.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&'static [u8]> {
        self.argv.get(index).filter(|arg| !arg.is_null()).map(|arg| bytes(*arg))
    }

    /// The value of environment variable `name`, if it is set.
    #[must_use]
    pub fn env(&self, name: &[u8]) -> Option<&'static [u8]> {
        self.envp
            .iter()
            .map(|entry| bytes(*entry))
            .find_map(|entry| entry.strip_prefix(name)?.strip_prefix(b"="))
    }

    /// The path that this program was executed by (`AT_EXECFN`, getauxval(3)).
    #[must_use]
    pub fn executable(&self) -> &'static [u8] {
        rustix::param::linux_execfn().to_bytes()
    }
}

/// The bytes of a string of the initial stack.
fn bytes(string: *const c_char) -> &'static [u8] {
    // SAFETY: the kernel terminates each string, and they are never unmapped.
    unsafe { CStr::from_ptr(string) }.to_bytes()
}
