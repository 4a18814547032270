#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ternwatch_fuzz::targets::hawkbit(data));
