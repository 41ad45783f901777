//! What reads what registries say, for the fuzzer alone: nothing of it may panic.

/// Pages, events and kubeconfigs.
pub fn kubernetes(bytes: &[u8]) {
    super::kubernetes::fuzz_slices(bytes);
    super::kubernetes::fuzz_config(&String::from_utf8_lossy(bytes));
}

/// The health of a service.
pub fn consul(bytes: &[u8]) {
    super::consul::fuzz(bytes);
}

/// Applications and changes.
pub fn eureka(bytes: &[u8]) {
    super::eureka::fuzz(bytes);
}
