//! See [`ilb_fuzz::document`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ilb_fuzz::document(data));
