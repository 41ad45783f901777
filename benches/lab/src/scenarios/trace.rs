//! The latencies that Finagle's simulator replays.

use std::time::Duration;

use mainstay::testing::Distribution;

/// A measured service, by its published quantiles: 50 % within 167.5 ms, 90 % within 176.7, 99 % within 192.3, and none
/// longer than 200 ms.
///
/// Source: `real_latencies.data` of twitter/finagle, 86,333 samples.
pub fn latencies() -> Distribution {
    let between =
        |from: u64, to: u64| Distribution::Uniform(Duration::from_micros(from), Duration::from_micros(to));
    Distribution::Mixture(
        [
            (0.5, between(164_100, 167_500)),
            (0.4, between(167_500, 176_700)),
            (0.05, between(176_700, 181_700)),
            (0.04, between(181_700, 192_300)),
            (0.009, between(192_300, 198_800)),
            (0.001, between(198_800, 200_000)),
        ]
        .into(),
    )
}
