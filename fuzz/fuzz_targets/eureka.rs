//! Applications of Eureka, and what changed of them: no text panics.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| mainstay::resolve::fuzz::eureka(bytes));
