//! See [`ilb_fuzz::import`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ilb_fuzz::import(data));
