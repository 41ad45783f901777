//! Pages and events of EndpointSlices, kubeconfigs, names: no text panics.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| mainstay::resolve::fuzz::kubernetes(bytes));
