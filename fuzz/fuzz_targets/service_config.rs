//! gRPC service configs: no text panics, and what is read can be used.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mainstay::{balance::BalanceOptions, grpc::ServiceConfig};

fuzz_target!(|input: (&str, &str)| {
    if let Ok(config) = ServiceConfig::parse(input.0) {
        let _ = config.method(input.1);
        if let Some(throttling) = config.retry_throttling() {
            throttling.budget().expect("it was checked");
        }
        if let Some(policy) = config.load_balancing() {
            policy.over(BalanceOptions::default()).validate().expect("it was checked");
        }
    }
});
