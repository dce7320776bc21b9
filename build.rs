//! Links the binary without start files, because its entry point is `zigsvc_start` in
//! `src/rt`. It is linked static and not as a PIE, because no code in it applies relocations.

use std::env;

/// The architectures that `src/sys/arch.rs` and `src/rt/entry.rs` have, with the width of their
/// pointers. All are little-endian. Cargo.toml has the same list, so that no dependency fails first.
const ARCHITECTURES: &[(&str, &str)] =
    &[("x86_64", "64"), ("x86", "32"), ("aarch64", "64"), ("arm", "32"), ("riscv64", "64")];

/// Returns true if the target is one that the system calls are written for.
fn is_supported() -> bool {
    let value = |name: &str| env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    value("OS") == "linux"
        && value("ENDIAN") == "little"
        && ARCHITECTURES.contains(&(&value("ARCH"), &value("POINTER_WIDTH")))
}

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=link.ld");
    let script = format!("{}/link.ld", env::var("CARGO_MANIFEST_DIR").unwrap_or_default());
    let target = env::var("TARGET").unwrap_or_default();
    if env::var_os("CARGO_FEATURE_SYS").is_some() && !is_supported() {
        println!(
            "cargo::error=cannot be built for {target}: its system calls are written for Linux on x86_64, \
             i686, aarch64, arm and riscv64 (little-endian)"
        );
        return;
    }
    // Cargo does not give a package its target. The tests need it for the name of the variable
    // that holds the runner.
    println!("cargo:rustc-env=ZIGSVC_TARGET={target}");
    let setting = format!("CARGO_TARGET_{}_LINKER", target.to_uppercase().replace(['-', '.'], "_"));
    println!("cargo:rerun-if-env-changed={setting}");

    // The features in the order of Cargo.toml, for `version`.
    let all = ["jobs", "supervisor", "log", "hub", "collector", "opener", "doctor"];
    let is_on = |feature: &&str| env::var_os(format!("CARGO_FEATURE_{}", feature.to_uppercase())).is_some();
    let features: Vec<_> = all.into_iter().filter(is_on).collect();
    println!("cargo:rustc-check-cfg=cfg(all_features)");
    if features.len() == all.len() {
        println!("cargo:rustc-cfg=all_features");
    }
    println!("cargo:rustc-env=ZIGSVC_FEATURES={}", features.join(" "));

    // A linker takes these options as they are. A compiler driver passes them on after -Wl.
    let linker = env::var("RUSTC_LINKER").unwrap_or_default();
    let options = [
        "-e",
        "zigsvc_start",
        "-static",
        "-no-pie",
        "--gc-sections",
        "--build-id=none",
        "--no-eh-frame-hdr",
        "-z",
        "norelro",
        // GNU ld gives code pages of its own by default, which are 8 KiB of the file.
        "-z",
        "noseparate-code",
        "-T",
        &script,
    ];
    if linker.ends_with("lld") {
        for option in options {
            println!("cargo:rustc-link-arg-bins={option}");
        }
    } else {
        for option in ["-nostartfiles", "-nostdlib", "-static", "-no-pie"] {
            println!("cargo:rustc-link-arg-bins={option}");
        }
        println!("cargo:rustc-link-arg-bins=-Wl,{}", options.join(","));
    }
}
