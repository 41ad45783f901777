//! How long things take, by chance.

use std::{sync::Arc, time::Duration};

use crate::{
    invalid::Check,
    random::{Random, unit},
};

/// A distribution of durations.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Distribution {
    /// Always the same.
    Constant(Duration),
    /// Anything between the two, evenly.
    Uniform(Duration, Duration),
    /// Exponential with this mean: many short ones, no memory.
    Exponential(Duration),
    /// Normal with this mean and standard deviation; what would be negative is nothing.
    Normal(Duration, Duration),
    /// Log-normal with this median; `sigma` is the standard deviation of the logarithm, 0 to 5. From 1 on it has a heavy
    /// tail: at 1.5 the 99th percentile is 33 times the median.
    LogNormal {
        /// Half of the draws are shorter.
        median: Duration,
        /// How far they spread.
        sigma: f64,
    },
    /// Measured quantiles at equal steps, from the shortest to the longest, with straight lines in between.
    Quantiles(Arc<[Duration]>),
    /// One of these, by weight: a small share of requests that take very long, two kinds of requests.
    Mixture(Arc<[(f64, Distribution)]>),
}

impl Distribution {
    /// An [`Exponential`](Self::Exponential) with this mean in milliseconds.
    pub const fn exponential_ms(mean: u64) -> Self {
        Self::Exponential(Duration::from_millis(mean))
    }

    /// A [`Constant`](Self::Constant) in milliseconds.
    pub const fn constant_ms(value: u64) -> Self {
        Self::Constant(Duration::from_millis(value))
    }

    /// A duration drawn from it.
    pub fn draw(&self, random: &dyn Random) -> Duration {
        match self {
            Self::Constant(value) => *value,
            Self::Uniform(from, to) => {
                let (from, to) = (from.min(to), from.max(to));
                *from + (*to - *from).mul_f64(unit(random.next()))
            }
            Self::Exponential(mean) => mean.mul_f64(-open_unit(random).ln()),
            Self::Normal(mean, deviation) => {
                let seconds = mean.as_secs_f64() + deviation.as_secs_f64() * standard_normal(random);
                Duration::try_from_secs_f64(seconds).unwrap_or_default()
            }
            Self::LogNormal { median, sigma } => {
                let seconds = median.as_secs_f64() * (sigma * standard_normal(random)).exp();
                Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
            }
            Self::Quantiles(quantiles) => {
                let place = unit(random.next()) * quantiles.len().saturating_sub(1) as f64;
                let (below, rest) = (place as usize, place.fract());
                match (quantiles.get(below), quantiles.get(below + 1)) {
                    (Some(low), Some(high)) => *low + high.saturating_sub(*low).mul_f64(rest),
                    (Some(only), None) => *only,
                    _ => Duration::ZERO,
                }
            }
            Self::Mixture(parts) => {
                let mut left = unit(random.next()) * parts.iter().map(|(weight, _)| weight).sum::<f64>();
                let chosen = parts.iter().find(|(weight, _)| {
                    left -= weight;
                    left < 0.0
                });
                chosen.or(parts.last()).map_or(Duration::ZERO, |(_, part)| part.draw(random))
            }
        }
    }

    /// The mean.
    pub fn mean(&self) -> Duration {
        match self {
            Self::Constant(value) | Self::Exponential(value) => *value,
            Self::Uniform(from, to) => (*from + *to) / 2,
            Self::Normal(mean, deviation) => {
                // The part below nothing is cut off, which raises the mean.
                let (mean, deviation) = (mean.as_secs_f64(), deviation.as_secs_f64());
                if deviation == 0.0 {
                    return Duration::from_secs_f64(mean);
                }
                let z = mean / deviation;
                let density = (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
                Duration::try_from_secs_f64(mean * normal_below(z) + deviation * density).unwrap_or_default()
            }
            Self::LogNormal { median, sigma } => {
                let seconds = median.as_secs_f64() * (sigma * sigma / 2.0).exp();
                Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
            }
            Self::Quantiles(quantiles) => match quantiles.len() {
                0 => Duration::ZERO,
                1 => quantiles[0],
                steps => {
                    let areas = quantiles.windows(2).map(|pair| (pair[0] + pair[1]) / 2);
                    areas.sum::<Duration>() / (steps - 1) as u32
                }
            },
            Self::Mixture(parts) => {
                let total: f64 = parts.iter().map(|(weight, _)| weight).sum();
                parts.iter().map(|(weight, part)| part.mean().mul_f64(weight / total)).sum()
            }
        }
    }

    pub(super) fn check(&self, check: &mut Check) {
        match self {
            Self::LogNormal { sigma, .. } => {
                check.rule((0.0..=5.0).contains(sigma), "sigma", sigma, "0 to 5");
            }
            Self::Quantiles(quantiles) => {
                check.rule(!quantiles.is_empty(), "quantiles", "none", "at least one");
                let rises = quantiles.windows(2).all(|pair| pair[0] <= pair[1]);
                check.rule(rises, "quantiles", "falling", "from the shortest to the longest");
            }
            Self::Mixture(parts) => {
                check.rule(!parts.is_empty(), "mixture", "nothing", "at least one part");
                for (weight, part) in parts.iter() {
                    check.rule(weight.is_finite() && *weight > 0.0, "weight", weight, "finite and positive");
                    part.check(check);
                }
            }
            _ => {}
        }
    }
}

/// Within (0, 1]: its logarithm is a number.
fn open_unit(random: &dyn Random) -> f64 {
    1.0 - unit(random.next())
}

/// By Box and Muller.
fn standard_normal(random: &dyn Random) -> f64 {
    let radius = (-2.0 * open_unit(random).ln()).sqrt();
    radius * (2.0 * std::f64::consts::PI * unit(random.next())).cos()
}

/// The share of a standard normal below `z`, by Simpson's rule.
fn normal_below(z: f64) -> f64 {
    let z = z.clamp(-8.0, 8.0);
    let density = |x: f64| (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let (steps, from) = (400, -8.0);
    let width = (z - from) / f64::from(steps);
    let inner: f64 = (1..steps)
        .map(|step| if step % 2 == 1 { 4.0 } else { 2.0 } * density(from + width * f64::from(step)))
        .sum();
    (density(from) + inner + density(z)) * width / 3.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Seeded;

    fn all() -> Vec<Distribution> {
        let ms = Duration::from_millis;
        vec![
            Distribution::Constant(ms(40)),
            Distribution::Uniform(ms(50), ms(500)),
            Distribution::Exponential(ms(40)),
            Distribution::Normal(ms(40), ms(40)),
            Distribution::LogNormal { median: ms(40), sigma: 0.8 },
            Distribution::Quantiles([ms(160), ms(165), ms(170), ms(200)].into()),
            Distribution::Mixture(
                [(0.99, Distribution::Exponential(ms(20))), (0.01, Distribution::Constant(ms(400)))].into(),
            ),
        ]
    }

    #[test]
    fn each_has_the_mean_that_it_says() {
        for distribution in all() {
            let random = Seeded::new(3);
            let draws = 200_000_u32;
            let total: Duration = (0..draws).map(|_| distribution.draw(&random)).sum();
            let (found, said) = ((total / draws).as_secs_f64(), distribution.mean().as_secs_f64());
            assert!((found / said - 1.0).abs() < 0.01, "{distribution:?}: {found} for {said}");
        }
    }

    #[test]
    fn quantiles_are_met() {
        let ms = Duration::from_millis;
        let (distribution, random) =
            (Distribution::Quantiles([ms(100), ms(200), ms(400)].into()), Seeded::new(1));
        let mut draws: Vec<_> = (0..20_000).map(|_| distribution.draw(&random)).collect();
        draws.sort();
        assert!(draws[0] >= ms(100) && draws[19_999] <= ms(400));
        assert!((draws[10_000].as_secs_f64() / 0.2 - 1.0).abs() < 0.02);
    }

    #[test]
    fn nonsense_is_told_and_never_drawn_from() {
        let mut check = Check::default();
        Distribution::LogNormal { median: Duration::ZERO, sigma: f64::NAN }.check(&mut check);
        Distribution::Quantiles([].into()).check(&mut check);
        Distribution::Mixture([(-1.0, Distribution::Constant(Duration::ZERO))].into()).check(&mut check);
        let invalid = check.finish().unwrap_err();
        assert_eq!(invalid.problems().len(), 3, "{invalid}");
        assert_eq!(Distribution::Quantiles([].into()).draw(&Seeded::new(1)), Duration::ZERO);
    }
}
