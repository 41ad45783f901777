//! The health of a service in Consul: no text panics.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| mainstay::resolve::fuzz::consul(bytes));
