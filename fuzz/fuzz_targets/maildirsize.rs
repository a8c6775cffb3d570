//! `maildirsize` of the table of targets.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| mailslot_fuzz::targets::run("maildirsize", octets));
