//! Answers of ZooKeeper: no bytes panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| mainstay::registry::fuzzing::zookeeper(input));
