//! The panic handler: one fixed line and an abort, because formatting a
//! message would cost kilobytes and could itself fail.

use core::panic::PanicInfo;
use zigsvc::sys::process;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    #[cfg(debug_assertions)]
    if let Some(place) = info.location() {
        process::write_stderr(b"zigsvc: panic at ");
        process::write_stderr(place.file().as_bytes());
        let mut digits = [0u8; 12];
        let mut out = zigsvc::util::text::Writer::new(&mut digits);
        let _ = ufmt::uwrite!(out, ":{}\n", place.line());
        process::write_stderr(out.as_bytes());
    }
    let _ = info;
    process::write_stderr(b"zigsvc: internal error, aborting\n");
    process::abort()
}
