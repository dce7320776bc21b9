//! Arguments and environment as the kernel put them on the stack. They stay
//! where they are for the life of the process, so everything is `'static`.
#![expect(unsafe_code, reason = "reads the initial stack")]

use core::cell::Cell;
use core::ffi::{CStr, c_char};
use core::slice;
use heapless::Vec;

/// Variables that a service manager sets for the process that it started, and for no
/// other, because a child of that process is not the service that was asked for
/// (sd_notify(3)).
const PRIVATE: [&[u8]; 3] = [b"NOTIFY_SOCKET", b"WATCHDOG_USEC", b"WATCHDOG_PID"];

/// Maximum number of variables that a service gives to itself.
const ENVIRONMENT_MAX: usize = 256;

/// `argv` and `envp` of this process.
#[derive(Clone, Copy)]
pub struct Args {
    /// With the null pointer at its end.
    argv: &'static [Cell<*const c_char>],
    /// Without the variables of [`PRIVATE`]; with the null pointer at its end.
    envp: &'static [*const c_char],
    /// The variables of [`PRIVATE`].
    private: &'static [*const c_char],
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
            rustix::param::init(envp.cast());
            let kept = part(slice::from_raw_parts_mut(envp, count + 1));
            let (public, private) = slice::from_raw_parts(envp, count + 1).split_at(kept + 1);
            let argv = Cell::from_mut(slice::from_raw_parts_mut(argv, argc + 1)).as_slice_of_cells();
            Self { argv, envp: public, private }
        }
    }

    /// Returns arguments that are not from the kernel, without an environment.
    ///
    /// # Safety
    /// The last pointer must be null, and each other one that of a terminated string, which
    /// stays as long as anything that was read from the arguments.
    #[must_use]
    pub unsafe fn from_words(argv: &'static mut [*const c_char]) -> Self {
        let argv = Cell::from_mut(argv).as_slice_of_cells();
        Self { argv, envp: &[core::ptr::null()], private: &[] }
    }

    /// Returns the number of arguments, the program's own name included; it may be 0.
    #[must_use]
    pub fn len(&self) -> usize {
        self.argv.len().saturating_sub(1)
    }

    /// Returns true if there are no arguments, not even the program's name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the arguments from `index` on, with the null pointer that ends them, in the
    /// form that execve(2) takes.
    #[must_use]
    pub fn tail(&self, index: usize) -> &'static [*const c_char] {
        let cells = self.argv.get(index..).unwrap_or(&[]);
        // SAFETY: a cell is laid out as its value, and `move_before` is called only while the
        // command line is read, before any slice of it is taken.
        unsafe { slice::from_raw_parts(cells.as_ptr().cast(), cells.len()) }
    }

    /// Returns the arguments before index `end`, without the null pointer.
    #[must_use]
    pub fn up_to(&self, end: usize) -> Self {
        Self { argv: self.argv.get(..end).unwrap_or(self.argv), ..*self }
    }

    /// Moves `count` arguments from index `from` on to index `to`, which is not after `from`. The
    /// arguments between keep their order. It must not be called after [`Args::tail`].
    pub fn move_before(&self, from: usize, count: usize, to: usize) {
        let end = from.saturating_add(count).min(self.len());
        if let Some(cells) = self.argv.get(to..end) {
            for _ in from..end {
                for pair in cells.windows(2).rev() {
                    if let [left, right] = pair {
                        left.swap(right);
                    }
                }
            }
        }
    }

    /// Returns the environment for the programs that this process starts, with the null
    /// pointer that ends it, in the form that execve(2) takes.
    #[must_use]
    pub fn environment(&self) -> &'static [*const c_char] {
        self.envp
    }

    /// Returns the environment with the variables that the service manager set for this process
    /// alone, for this program only. `space` holds it; without room they are left out.
    pub fn whole_environment<'a>(
        &self,
        space: &'a mut Vec<*const c_char, ENVIRONMENT_MAX>,
    ) -> &'a [*const c_char] {
        let public = self.envp.split_last().map_or(&[][..], |(_, entries)| entries);
        space.clear();
        let parts = [self.private, public, &[core::ptr::null()]];
        if parts.iter().all(|part| space.extend_from_slice(part).is_ok()) { space } else { self.envp }
    }

    /// Returns the environment for the programs that this process starts, with `variable` in
    /// place of another one of its name. `space` holds it; without room the variable is left out.
    pub fn environment_with<'a>(
        &self,
        variable: &'a CStr,
        space: &'a mut Vec<*const c_char, ENVIRONMENT_MAX>,
    ) -> &'a [*const c_char] {
        let name = variable.to_bytes().split_inclusive(|byte| *byte == b'=').next().unwrap_or(b"");
        let is_other = |entry: &&*const c_char| entry.is_null() || !bytes(**entry).starts_with(name);
        space.clear();
        let entries = core::iter::once(variable.as_ptr()).chain(self.envp.iter().filter(is_other).copied());
        let mut fits = true;
        entries.for_each(|entry| fits &= space.push(entry).is_ok());
        if fits { space } else { self.envp }
    }

    /// Returns argument `index` without its terminator; 0 is the program's name.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&'static [u8]> {
        self.argv.get(index).map(Cell::get).filter(|arg| !arg.is_null()).map(bytes)
    }

    /// Returns the value of environment variable `name`, if it is set.
    #[must_use]
    pub fn env(&self, name: &[u8]) -> Option<&'static [u8]> {
        let public = self.envp.split_last().map_or(&[][..], |(_, entries)| entries);
        public
            .iter()
            .chain(self.private)
            .map(|entry| bytes(*entry))
            .find_map(|entry| entry.strip_prefix(name)?.strip_prefix(b"="))
    }

    /// Returns the path by which this program was executed (`AT_EXECFN`, getauxval(3)).
    #[must_use]
    pub fn executable(&self) -> &'static [u8] {
        rustix::param::linux_execfn().to_bytes()
    }
}

/// Moves the variables of [`PRIVATE`] to the end of `envp`, after the null pointer, so that
/// the others need no copy, however many they are. Returns the number of the others.
fn part(envp: &mut [*const c_char]) -> usize {
    let is_private = |entry: *const c_char| {
        PRIVATE
            .iter()
            .any(|name| bytes(entry).strip_prefix(*name).is_some_and(|rest| rest.first() == Some(&b'=')))
    };
    let end = envp.len().saturating_sub(1);
    let mut kept = 0;
    for index in 0..end {
        if envp.get(index).is_some_and(|entry| !is_private(*entry)) {
            envp.swap(index, kept);
            kept = kept.saturating_add(1);
        }
    }
    envp.swap(kept, end);
    kept
}

/// Returns the bytes of a string of the initial stack, without its terminator.
fn bytes(string: *const c_char) -> &'static [u8] {
    // SAFETY: the kernel terminates each string, and they are never unmapped.
    unsafe { CStr::from_ptr(string) }.to_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_in_place_of_another_of_its_name_if_there_is_room() {
        let with = |entries: &[&'static CStr]| {
            let mut envp: std::vec::Vec<_> = entries.iter().map(|entry| entry.as_ptr()).collect();
            envp.push(core::ptr::null());
            let args = Args { argv: &[], envp: envp.leak(), private: &[] };
            let mut space = Vec::new();
            let (last, found) = args.environment_with(c"T=1", &mut space).split_last().unwrap();
            assert!(last.is_null());
            found
                .iter()
                .map(|entry| String::from_utf8_lossy(bytes(*entry)).into_owned())
                .collect::<std::vec::Vec<_>>()
        };
        assert_eq!(with(&[]), ["T=1"]);
        assert_eq!(with(&[c"A=1", c"T=0", c"TT=2", c"T"]), ["T=1", "A=1", "TT=2", "T"]);
        assert_eq!(with(&[c"A=1"; ENVIRONMENT_MAX - 2]).len(), ENVIRONMENT_MAX - 1);
        assert_eq!(with(&[c"A=1"; ENVIRONMENT_MAX - 1]), ["A=1"; ENVIRONMENT_MAX - 1], "no room");
    }

    #[test]
    fn what_is_private_goes_behind_the_end_and_the_rest_keeps_its_order() {
        let names = |entries: &[*const c_char]| -> std::vec::Vec<String> {
            entries.iter().map(|entry| String::from_utf8_lossy(bytes(*entry)).into_owned()).collect()
        };
        let cases: [(&[&CStr], &[&str]); 5] = [
            (&[], &[]),
            (&[c"A=1", c"B=2"], &["A=1", "B=2"]),
            (&[c"NOTIFY_SOCKET=/n"], &[]),
            (&[c"WATCHDOG_PID=1", c"A=1", c"NOTIFY_SOCKET=", c"B=2", c"WATCHDOG_USEC=3"], &["A=1", "B=2"]),
            (
                &[c"A=1", c"NOTIFY_SOCKETS=1", c"WATCHDOG_PID=1", c"NOTIFY_SOCKET"],
                &["A=1", "NOTIFY_SOCKETS=1", "NOTIFY_SOCKET"],
            ),
        ];
        for (entries, expected) in cases {
            let mut envp: std::vec::Vec<_> = entries.iter().map(|entry| entry.as_ptr()).collect();
            envp.push(core::ptr::null());
            let kept = part(&mut envp);
            assert_eq!(names(&envp[..kept]), expected);
            assert!(envp[kept].is_null());
            assert_eq!(names(&envp[kept + 1..]).len(), entries.len() - kept);
        }
    }
}
