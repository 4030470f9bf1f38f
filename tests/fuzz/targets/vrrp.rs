//! See [`ilb_fuzz::vrrp`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ilb_fuzz::vrrp(data));
