#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| log_writer_service::targets::copy(data));
