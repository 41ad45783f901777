//! Every run in a form for programs.

use serde_json::{Map, Value};

use crate::{runner::Ran, scenario::Finished};

/// A list of flat objects, one for each run, each on its line: `scenario`, `contender`, `seed`, the parameters of the
/// point, the metrics. What is infinite is `null`.
pub fn json(all: &[Ran<'_>]) -> String {
    let lines: Vec<String> = all
        .iter()
        .flat_map(|ran| ran.results.0.iter().map(|run| object(ran.plan.scenario.name(), run).to_string()))
        .collect();
    format!("[\n{}\n]\n", lines.join(",\n"))
}

fn object(scenario: &str, Finished { run, outcome }: &Finished) -> Value {
    let mut object = Map::new();
    object.insert("scenario".to_owned(), scenario.into());
    object.insert("contender".to_owned(), run.contender.into());
    object.insert("seed".to_owned(), run.seed.into());
    let metrics = outcome.metrics.iter().map(|(name, value)| (*name, *value));
    // A value that is not finite becomes null.
    object.extend(
        run.point.0.iter().copied().chain(metrics).map(|(name, value)| (name.to_owned(), value.into())),
    );
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fake::Fake,
        plan::{Plan, Request},
        progress::Progress,
        runner::run,
    };

    #[test]
    fn each_run_is_a_flat_object_with_its_point_before_its_metrics() {
        let plans = [Plan::new(&Fake, &Request { first_seed: 5, ..Request::default() }).unwrap()];
        let text = json(&run(&plans, 3, &Progress::hidden()));
        let list: Vec<Map<String, Value>> = serde_json::from_str(&text).unwrap();
        assert_eq!(list.len(), 15);
        let keys: Vec<_> = list[0].keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            ["scenario", "contender", "seed", "load", "servers", "attempts", "detect_s", "p99_ms", "success"]
        );
        assert_eq!((&list[0]["contender"], &list[0]["seed"]), (&"tower".into(), &5.into()));
        assert_eq!(list[0]["success"], 0.9993);
    }

    #[test]
    fn what_never_came_to_pass_is_null() {
        let plans = [Plan::new(&Fake, &Request::default()).unwrap()];
        let text = json(&run(&plans, 1, &Progress::hidden()));
        assert!(text.lines().nth(1).unwrap().contains("\"detect_s\":null"), "{text}");
    }

    #[test]
    fn nothing_is_an_empty_list() {
        assert_eq!(serde_json::from_str::<Vec<Value>>(&json(&[])).unwrap(), Vec::<Value>::new());
    }
}
