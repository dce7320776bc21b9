//! Links the binary without start files: its entry is `zigsvc_start` in
//! `src/rt`, and no relocation may need applying, because nobody would apply
//! it (hence no PIE).

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=link.ld");
    let script = format!("{}/link.ld", env::var("CARGO_MANIFEST_DIR").unwrap_or_default());
    let target = env::var("TARGET").unwrap_or_default();
    // Cargo does not tell a package for what it is compiled; the tests need it
    // for the name of the runner's environment variable.
    println!("cargo:rustc-env=ZIGSVC_TARGET={target}");
    let setting = format!("CARGO_TARGET_{}_LINKER", target.to_uppercase().replace(['-', '.'], "_"));
    println!("cargo:rerun-if-env-changed={setting}");

    // A linker proper takes its options as they are; a compiler driver passes
    // them on behind -Wl.
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
