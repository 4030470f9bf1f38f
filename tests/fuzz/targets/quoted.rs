//! See [`ilb_fuzz::quoted`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ilb_fuzz::quoted(data));
