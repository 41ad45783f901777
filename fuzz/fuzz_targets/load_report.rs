//! Load reports: no bytes panic, and what is read is finite.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mainstay::grpc::LoadReport;

fuzz_target!(|input: (&[u8], &str)| {
    for report in [LoadReport::from_binary(input.0), LoadReport::parse(input.1)].into_iter().flatten() {
        assert!(report.cpu.is_finite() && report.cpu >= 0.0);
        let _ = report.to_text();
        assert_eq!(report.to_binary(), report.clone().to_binary());
    }
});
