//! The targets that the program can be built for, and the one line that any other one gets.

use crate::support::{Dir, finish, program, require_native, require_tool};

/// The architectures of Rust with their pointers, their byte order and their system.
const TARGETS: &[(&str, &str, &str, &str, bool)] = &[
    ("x86_64", "64", "little", "linux", true),
    ("x86", "32", "little", "linux", true),
    ("aarch64", "64", "little", "linux", true),
    ("arm", "32", "little", "linux", true),
    ("riscv64", "64", "little", "linux", true),
    // x32, big-endian ARM and AArch64, architectures without our code, and other systems.
    ("x86_64", "32", "little", "linux", false),
    ("arm", "32", "big", "linux", false),
    ("aarch64", "64", "big", "linux", false),
    ("mips", "32", "big", "linux", false),
    ("mips", "32", "little", "linux", false),
    ("powerpc64", "64", "little", "linux", false),
    ("riscv32", "32", "little", "linux", false),
    ("aarch64", "64", "little", "macos", false),
    ("x86_64", "64", "little", "android", false),
];

#[test]
fn a_target_without_our_system_calls_is_refused_in_one_line() {
    if !require_tool("rustc") || !require_native("rustc is the host's") {
        return;
    }
    let dir = Dir::new();
    let script = dir.path("build");
    let mut command = program("rustc");
    command.args(["--edition", "2024", "-o"]).arg(&script);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/build.rs"));
    finish(command, None).expect(0);
    for (arch, width, endian, system, supported) in TARGETS {
        let lines = |with_calls: bool| {
            let mut command = program(&script);
            command.env_clear().env("TARGET", format!("{arch}-some")).env("CARGO_CFG_TARGET_ARCH", arch);
            command.env("CARGO_CFG_TARGET_POINTER_WIDTH", width).env("CARGO_CFG_TARGET_ENDIAN", endian);
            command.env("CARGO_CFG_TARGET_OS", system);
            if with_calls {
                command.env("CARGO_FEATURE_SYS", "1");
            }
            let out = finish(command, None).expect(0).out;
            out.lines()
                .filter_map(|line| line.strip_prefix("cargo::error="))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let errors = lines(true);
        if *supported {
            assert!(errors.is_empty(), "{arch}: {errors:?}");
        } else {
            assert_eq!(errors.len(), 1, "{arch} {endian}");
            assert!(errors[0].starts_with(&format!("cannot be built for {arch}-some: ")), "{errors:?}");
        }
        // The pure layers build for any.
        assert!(lines(false).is_empty(), "{arch}");
    }
}
