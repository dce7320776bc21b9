#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| zigsvc_fuzz::fuzzing::run("note", data));
