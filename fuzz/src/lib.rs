//! What is fuzzed; the programs of `fuzz_targets/` hand their input on to it.
#![forbid(unsafe_code)]

pub mod targets;
