#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| shotclock::fuzzing::elf(data));
