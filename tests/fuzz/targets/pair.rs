//! See [`ilb_fuzz::pair`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ilb_fuzz::pair(data));
