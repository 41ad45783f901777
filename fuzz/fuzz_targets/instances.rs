//! Nodes of registries in every encoding: no bytes panic, and what can be written reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| mainstay::registry::fuzzing::instances(input));
