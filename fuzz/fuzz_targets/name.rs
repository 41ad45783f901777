//! Names of what is to be resolved, and the service configs of TXT records: no text panics, and what a name hides stays
//! hidden.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mainstay::resolve::{ServiceConfigs, Target};

fuzz_target!(|text: &str| {
    if let Ok(target) = Target::parse(text) {
        let _ = (target.to_string(), target.only(&[]), target.value("tag"));
    }
    let _ = ServiceConfigs::choose([text.as_bytes()], Some("host"), 7);
    let _ = ServiceConfigs::choose([format!("grpc_config={text}")], None, 99);
});
