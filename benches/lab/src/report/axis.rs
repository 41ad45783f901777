//! Ranges and ticks that a reader finds natural.

/// One direction of a panel: where values lie in it, and which are marked.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    /// Logarithms if `log`.
    from: f64,
    to: f64,
    log: bool,
    pub(super) ticks: Vec<Tick>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tick {
    pub(super) value: f64,
    pub(super) label: String,
}

impl Axis {
    /// From the least to the greatest value exactly, as time is shown.
    pub(super) fn exact(values: &[f64], count: usize) -> Self {
        let (least, greatest) = range(values).unwrap_or((0.0, 1.0));
        let (from, to) = if least < greatest { (least, greatest) } else { (least - 0.5, greatest + 0.5) };
        Self { from, to, log: false, ticks: linear_ticks(from, to, count) }
    }

    /// Fractions up to 1, from a little below the least.
    pub(super) fn share(values: &[f64], count: usize) -> Self {
        let (least, greatest) = range(values).unwrap_or((0.0, 1.0));
        let to = greatest.max(1.0);
        // If nothing ever failed, that shall look so: not as noise at the scale of the last digit.
        let span = (to - least).max(0.001);
        let (from, to) = (to - span * 1.06, to + span * 0.04);
        Self { from, to, log: false, ticks: linear_ticks(from, to, count) }
    }

    /// With room above and below, and from 0 unless the values are far from it.
    pub(super) fn linear(values: &[f64], count: usize) -> Self {
        let (least, greatest) = range(values).unwrap_or((0.0, 1.0));
        let from = if least > 0.0 && least < 0.6 * greatest { 0.0 } else { least };
        let to = if greatest < 0.0 && greatest > 0.6 * least { 0.0 } else { greatest };
        let span = if to > from { to - from } else { to.abs().max(1.0) * 0.2 };
        let below = if from == 0.0 { 0.0 } else { 0.06 * span };
        let (from, to) = (from - below, to + 0.06 * span);
        Self { from, to, log: false, ticks: linear_ticks(from, to, count) }
    }

    /// Logarithmic; values that are not above 0 have no place.
    pub(super) fn log(values: &[f64], count: usize) -> Self {
        let positive: Vec<f64> = values.iter().copied().filter(|value| *value > 0.0).collect();
        let (least, greatest) = range(&positive).unwrap_or((1.0, 10.0));
        // A factor of two at least, so that what is nearly level looks so.
        let short = (2.0 / (greatest / least)).max(1.0).sqrt();
        let (from, to) = (least / short / 1.08, greatest * short * 1.08);
        Self { from: from.log10(), to: to.log10(), log: true, ticks: log_ticks(from, to, count) }
    }

    /// Where a value lies, from 0 at the start to 1 at the end; `None` if it has no place.
    pub(super) fn place(&self, value: f64) -> Option<f64> {
        let value = if self.log { value.log10() } else { value };
        value.is_finite().then(|| (value - self.from) / (self.to - self.from))
    }
}

fn range(values: &[f64]) -> Option<(f64, f64)> {
    let finite = values.iter().copied().filter(|value| value.is_finite());
    let least = finite.clone().min_by(f64::total_cmp)?;
    Some((least, finite.max_by(f64::total_cmp)?))
}

/// Multiples of 1, 2 or 5 times a power of ten, `count` or so: the step is the one nearest in ratio.
fn linear_ticks(from: f64, to: f64, count: usize) -> Vec<Tick> {
    let rough = (to - from) / count as f64;
    let mut exponent = rough.log10().floor() as i32;
    let mantissa = rough / 10_f64.powi(exponent);
    let mantissa = match mantissa {
        ..1.4 => 1.0,
        ..3.2 => 2.0,
        ..7.1 => 5.0,
        _ => {
            exponent += 1;
            1.0
        }
    };
    let step = mantissa * 10_f64.powi(exponent);
    let decimals = usize::try_from(-exponent).unwrap_or(0);
    let (first, last) = ((from / step - 1e-6).ceil() as i64, (to / step + 1e-6).floor() as i64);
    let tick = |index: i64| {
        let value = index as f64 * step;
        Tick { value, label: format!("{value:.decimals$}") }
    };
    (first..=last).map(tick).collect()
}

/// As many of each decade as there is room for: 1, 2, 5; 1, 3; 1; every second 1; ... A short range is like a linear one.
fn log_ticks(from: f64, to: f64, count: usize) -> Vec<Tick> {
    let decades = (from.log10().floor() as i32)..=(to.log10().ceil() as i32);
    let choices: [(&[u8], u32); 5] = [(&[1, 2, 5], 1), (&[1, 3], 1), (&[1], 1), (&[1], 2), (&[1], 3)];
    for (mantissas, every) in choices {
        let ticks: Vec<Tick> = decades
            .clone()
            .filter(|exponent| exponent.unsigned_abs().is_multiple_of(every))
            .flat_map(|exponent| mantissas.iter().map(move |mantissa| format!("{mantissa}e{exponent}")))
            .filter_map(|text| text.parse::<f64>().ok())
            .filter(|value| (from..=to).contains(value))
            .map(|value| Tick { value, label: value.to_string() })
            .collect();
        if ticks.len() < 3 && mantissas.len() == 3 {
            return linear_ticks(from, to, count);
        }
        if ticks.len() <= count + 1 {
            return ticks;
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|tick| tick.label.as_str()).collect()
    }

    #[test]
    fn ticks_are_round_numbers_with_the_decimals_of_their_step() {
        assert_eq!(labels(&Axis::exact(&[0.0, 59.0], 8)), ["0", "10", "20", "30", "40", "50"]);
        let nearly_all = Axis::share(&[0.9992, 1.0], 5);
        assert_eq!(labels(&nearly_all), ["0.9990", "0.9992", "0.9994", "0.9996", "0.9998", "1.0000"]);
    }

    #[test]
    fn a_logarithmic_axis_marks_decades_and_halves_of_them() {
        assert_eq!(labels(&Axis::log(&[30.0, 900.0], 5)), ["50", "100", "200", "500"]);
        assert_eq!(labels(&Axis::log(&[0.02, 9000.0], 5)), ["0.1", "1", "10", "100", "1000"]);
        assert_eq!(labels(&Axis::log(&[60.0, 90.0], 5)), ["50", "60", "70", "80", "90", "100", "110"]);
    }

    #[test]
    fn every_value_has_a_place_within_the_axis() {
        for values in [&[3.0, 3.0][..], &[0.0], &[-4.0, 9.0], &[1e-9, 1e9], &[0.2, 1.0], &[5.0, f64::NAN]] {
            for axis in [
                Axis::linear(values, 5),
                Axis::exact(values, 5),
                Axis::share(values, 5),
                Axis::log(values, 5),
            ] {
                for place in values.iter().filter_map(|value| axis.place(*value)) {
                    assert!((0.0..=1.0).contains(&place), "{values:?} {axis:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_above_zero_has_no_place_on_a_logarithmic_axis() {
        assert_eq!(Axis::log(&[0.0, 10.0], 5).place(0.0), None);
        assert_eq!(Axis::log(&[0.0, 10.0], 5).place(-1.0), None);
    }
}
