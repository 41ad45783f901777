//! How many digits a reader needs.

use crate::scenario::Spread;

/// The value of a metric. Infinite is "never", what makes no sense is "-".
pub fn number(metric: &str, value: f64) -> String {
    if value.is_nan() {
        "-".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "never".to_owned() } else { "-never".to_owned() }
    } else if is_share(metric) {
        share(value)
    } else if metric.ends_with("_ms") || metric.ends_with("_s") {
        plain(value, [0, 1, 2])
    } else if value.fract() == 0.0 && value.abs() < 1e15 {
        format!("{value:.0}")
    } else {
        plain(value, [1, 2, 3])
    }
}

/// A metric over the seeds: `median (least to greatest)`, or one number where they agree.
pub fn cell(metric: &str, spread: Option<Spread>) -> String {
    let Some(Spread { least, median, greatest }) = spread else { return "-".to_owned() };
    let [least, median, greatest] = [least, median, greatest].map(|value| number(metric, value));
    if least == median && median == greatest { median } else { format!("{median} ({least} to {greatest})") }
}

/// Whether a metric is a fraction of which the distance to 1 matters.
pub(super) fn is_share(metric: &str) -> bool {
    metric.contains("success") || metric.ends_with("_share")
}

/// Five digits tell .9995 from .9999 and one failure in 90,000 from none; more where they would hide a failure.
fn share(value: f64) -> String {
    let text = format!("{value:.5}");
    if value < 1.0 && text.starts_with('1') { format!("{value:.8}") } else { text }
}

/// Decimals from 100 on, from 10 on, and below; very small values keep three significant digits.
fn plain(value: f64, [large, middle, small]: [usize; 3]) -> String {
    match value.abs() {
        100.0.. => format!("{value:.large$}"),
        10.0.. => format!("{value:.middle$}"),
        0.01.. => format!("{value:.small$}"),
        0.0 => "0".to_owned(),
        tiny if tiny < 1e-6 => format!("{value:.2e}"),
        tiny => format!("{value:.*}", (2.0 - tiny.log10().floor()) as usize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_has_digits_enough_to_tell_four_nines_from_less() {
        assert_eq!(number("success", 0.999_54), "0.99954");
        assert_eq!(number("success", 0.9999), "0.99990");
        assert_eq!(number("success", 1.0), "1.00000");
    }

    #[test]
    fn a_single_failure_is_never_rounded_away() {
        assert_eq!(number("success", 1.0 - 1e-6), "0.99999900");
    }

    #[test]
    fn times_have_no_decimals_from_a_hundred_on() {
        assert_eq!(number("p99_ms", 1234.5), "1234");
        assert_eq!(number("p99_ms", 71.04), "71.0");
        assert_eq!(number("p99_ms", 7.123), "7.12");
    }

    #[test]
    fn what_never_comes_to_pass_is_never_and_what_is_missing_is_a_dash() {
        assert_eq!(number("detect_s", f64::INFINITY), "never");
        assert_eq!(cell("detect_s", None), "-");
        assert_eq!(number("ratio", f64::NAN), "-");
    }

    #[test]
    fn seeds_that_agree_show_one_number() {
        let spread = Spread { least: 71.01, median: 71.02, greatest: 71.03 };
        assert_eq!(cell("p99_ms", Some(spread)), "71.0");
        let spread = Spread { least: 60.0, ..spread };
        assert_eq!(cell("p99_ms", Some(spread)), "71.0 (60.0 to 71.0)");
    }
}
