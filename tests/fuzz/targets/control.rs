//! See [`ilb_fuzz::control`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ilb_fuzz::control(data));
