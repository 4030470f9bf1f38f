//! See [`ilb_fuzz::process`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ilb_fuzz::process(data));
