//! Lists of endpoints in YAML, JSON and TOML: no text panics, and what is read makes a resolution.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mainstay::resolve::{Format, Resolution};

fuzz_target!(|input: (u8, &str)| {
    let format = [Format::Yaml, Format::Json, Format::Toml][usize::from(input.0 % 3)];
    if let Ok(endpoints) = format.parse(input.1) {
        let _ = Resolution::bound(endpoints);
    }
});
