//! The fuzz targets; the programs of `fuzz_targets/` pass their input to them.
#![forbid(unsafe_code)]

pub mod targets;
