//! See [`ilb_fuzz::sync`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ilb_fuzz::sync(data));
