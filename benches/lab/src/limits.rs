//! What parameters may be set to: the same name means the same in every scenario.

/// The rule that a value breaks, if it breaks one.
pub fn refuses(parameter: &str, value: f64) -> Option<&'static str> {
    let whole = value.fract() == 0.0;
    let (kept, rule) = match parameter {
        "load" => (value > 0.0 && value <= 3.0, "more than 0 and at most 3"),
        "rps" | "rate" | "spike" => {
            (value > 0.0 && value <= 5_000.0, "more than 0 and at most 5,000 a second")
        }
        "clients" => (whole && (1.0..=2_000.0).contains(&value), "a whole number from 1 to 2,000"),
        "servers" => (whole && (1.0..=200.0).contains(&value), "a whole number from 1 to 200"),
        "endpoints" => (whole && (200.0..=20_000.0).contains(&value), "a whole number from 200 to 20,000"),
        "slots" => (whole && (1.0..=100.0).contains(&value), "a whole number from 1 to 100"),
        "half" | "partial" | "exponential" => (value == 0.0 || value == 1.0, "0 or 1"),
        "noisy" => (whole && (0.0..=20.0).contains(&value), "a whole number from 0 to 20"),
        "case" => (whole && (1.0..=6.0).contains(&value), "a whole number from 1 to 6"),
        "fails" | "errors" => ((0.0..=1.0).contains(&value), "a share from 0 to 1"),
        "network_ms" => ((0.0..=1_000.0).contains(&value), "0 to 1,000 ms"),
        "slow_ms" => (whole && (1.0..=60_000.0).contains(&value), "a whole number from 1 to 60,000 ms"),
        // A server that is back before clients know that it went never was away to them.
        "told_s" => (value > 0.0 && value <= 15.0, "more than 0 and at most 15 s"),
        "down_s" => (value > 0.0 && value <= 60.0, "more than 0 and at most 60 s"),
        _ => return None,
    };
    (!kept).then_some(rule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenarios::ALL;

    #[test]
    fn every_parameter_of_every_scenario_has_a_rule_that_its_grid_keeps() {
        for scenario in ALL {
            for parameter in scenario.parameters() {
                let wild = refuses(parameter.name, 1e12);
                assert!(wild.is_some(), "{}: {}", scenario.name(), parameter.name);
                let kept = |value: &f64| scenario.refuses(parameter.name, *value).is_none();
                assert!(parameter.values.iter().all(kept), "{}: {}", scenario.name(), parameter.name);
            }
        }
    }
}
