//! How many endpoints the load of a client needs.

use std::time::{Duration, Instant};

use crate::invalid::Check;

/// When an aperture grows and shrinks.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct ApertureOptions {
    /// At least so many endpoints \[12\]: with fewer, one without an available endpoint is not unlikely when some are down.
    pub min: u32,
    /// At most so many \[all\].
    pub max: Option<u32>,
    /// Below so many requests in flight at an endpoint, on average, it shrinks \[0.875\].
    pub low: f64,
    /// Above so many it grows \[1.125\].
    pub high: f64,
    /// Over how long the requests in flight are averaged \[15 s\].
    pub smooth: Duration,
    /// What tells this client from others, as for [`RendezvousOptions`](super::RendezvousOptions) \[by chance\].
    pub seed: Option<u64>,
}

impl ApertureOptions {
    /// At least so many endpoints.
    #[must_use]
    pub fn min(mut self, endpoints: u32) -> Self {
        self.min = endpoints;
        self
    }

    /// At most so many.
    #[must_use]
    pub fn max(mut self, endpoints: impl Into<Option<u32>>) -> Self {
        self.max = endpoints.into();
        self
    }

    /// Keeps the requests in flight at an endpoint between these, on average.
    #[must_use]
    pub fn band(mut self, low: f64, high: f64) -> Self {
        (self.low, self.high) = (low, high);
        self
    }

    /// Averages over so long.
    #[must_use]
    pub fn smooth(mut self, over: Duration) -> Self {
        self.smooth = over;
        self
    }

    /// Chooses by this seed.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    pub(super) fn check(&self, check: &mut Check) {
        let high = self.high;
        check
            .rule(self.min >= 1, "min", self.min, "at least 1")
            .rule(self.max.is_none_or(|max| max >= self.min), "max", self.max, "at least min")
            .rule(self.low >= 0.0 && self.low < high, "low", self.low, "from 0 up, and less than high")
            .rule(high.is_finite() && high > 0.0, "high", high, "finite, more than 0")
            .duration("smooth", self.smooth);
    }
}

impl Default for ApertureOptions {
    fn default() -> Self {
        Self { min: 12, max: None, low: 0.875, high: 1.125, smooth: Duration::from_secs(15), seed: None }
    }
}

/// How wide an aperture is.
///
/// What is in flight at all endpoints together is averaged, with weights that fade; by how many endpoints there are, that is
/// the load of one. Outside of the band the width moves to where the load is in the middle of it, by an endpoint at least and
/// by a quarter at most at a time.
///
/// Source: Finagle's `LoadBand`, which moves by one at each request and response.
#[derive(Clone, Copy, Debug)]
pub(super) struct Aperture {
    width: u32,
    /// Requests in flight, on average, and when that was true.
    load: Option<(f64, Instant)>,
}

impl Aperture {
    pub(super) fn new(options: &ApertureOptions) -> Self {
        Self { width: options.min, load: None }
    }

    /// How many endpoints there are to be.
    pub(super) fn width(&self) -> u32 {
        self.width
    }

    /// Whether nothing is in flight, and has not been for long.
    pub(super) fn is_idle(&self) -> bool {
        self.load.is_none_or(|(load, _)| load < 0.01)
    }

    /// So many requests are in flight at `now`.
    pub(super) fn look(&mut self, now: Instant, in_flight: u32, options: &ApertureOptions) {
        let load = match self.load {
            None => f64::from(in_flight),
            Some((load, at)) => {
                let passed = now.saturating_duration_since(at).as_secs_f64();
                let kept = (-passed / options.smooth.as_secs_f64()).exp();
                load * kept + f64::from(in_flight) * (1.0 - kept)
            }
        };
        self.load = Some((load, now));
        let each = load / f64::from(self.width.max(1));
        if each > options.high || each < options.low {
            let wanted = load / f64::midpoint(options.low, options.high);
            let step = (f64::from(self.width) / 4.0).max(1.0);
            let width = f64::from(self.width);
            self.width = wanted.clamp(width - step, width + step).round().max(1.0) as u32;
        }
        self.width = self.width.clamp(options.min, options.max.unwrap_or(u32::MAX));
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;

    /// The width after `seconds` of so many in flight.
    fn after(aperture: &mut Aperture, now: &mut Instant, seconds: u32, in_flight: u32) -> u32 {
        for _ in 0..seconds * 4 {
            *now += Duration::from_millis(250);
            aperture.look(*now, in_flight, &ApertureOptions::default());
        }
        aperture.width()
    }

    #[test]
    fn it_grows_and_shrinks_with_what_is_in_flight() {
        let (mut aperture, mut now) = (Aperture::new(&ApertureOptions::default()), crate::clock::now());
        assert_eq!(after(&mut aperture, &mut now, 10, 5), 12, "the least");
        let grown = after(&mut aperture, &mut now, 90, 100);
        assert!((88..=115).contains(&grown), "{grown}");
        assert_eq!(after(&mut aperture, &mut now, 120, 100), grown, "in the band nothing moves");
        assert_eq!(after(&mut aperture, &mut now, 90, 0), 12);
        assert!(!aperture.is_idle() || after(&mut aperture, &mut now, 90, 0) == 12);
    }

    #[test]
    fn a_short_burst_hardly_moves_it() {
        let (mut aperture, mut now) = (Aperture::new(&ApertureOptions::default()), crate::clock::now());
        after(&mut aperture, &mut now, 60, 12);
        assert!(after(&mut aperture, &mut now, 1, 50) <= 16);
    }

    #[test]
    fn it_keeps_within_its_bounds() {
        let (options, now) = (ApertureOptions::default().min(3).max(7), crate::clock::now());
        let mut aperture = Aperture::new(&options);
        for step in 0..1_000 {
            aperture.look(now + Duration::from_secs(step), 1_000, &options);
            assert!((3..=7).contains(&aperture.width()));
        }
        assert_eq!(aperture.width(), 7);
    }
}
