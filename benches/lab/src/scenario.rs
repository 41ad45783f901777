//! What an experiment is.

use std::{collections::BTreeMap, fmt};

use crate::chart::Chart;

/// The numbers of one run, by the names in the table of metrics: `success` as a fraction, times in milliseconds where the
/// name says `_ms` and in seconds where it says `_s`. A metric that has no value in this run (a fault never detected) is
/// infinite; one that makes no sense here is left out.
pub type Metrics = BTreeMap<&'static str, f64>;

/// One value of the grid, by the names of its parameters, in the order of the grid.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Point(pub Vec<(&'static str, f64)>);

impl Point {
    /// The value of a parameter.
    ///
    /// # Panics
    /// If the scenario has no such parameter.
    pub fn get(&self, name: &str) -> f64 {
        let found = self.0.iter().find(|(own, _)| *own == name);
        found.unwrap_or_else(|| panic!("no parameter {name} in {self}")).1
    }

    /// The same point with another value of a parameter, if it has it.
    #[must_use]
    pub fn with(mut self, name: &str, value: f64) -> Self {
        self.0.iter_mut().filter(|(own, _)| *own == name).for_each(|(_, own)| *own = value);
        self
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.0.iter().enumerate() {
            write!(f, "{}{name} {value}", if index > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

/// A parameter of a scenario that `--set` can change.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    pub name: &'static str,
    /// The values of the grid; one value for a parameter that is the same at every point.
    pub values: &'static [f64],
    pub means: &'static str,
}

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Run {
    pub point: Point,
    pub contender: &'static str,
    pub seed: u64,
    /// A share of the usual length, from 0 to 1: the short version in the tests runs less.
    pub scale: f64,
}

/// One second, or any other step, in the life of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moment {
    /// Seconds since the start of the measurement.
    pub at: f64,
    pub requests: u64,
    /// A fraction; `NaN` without requests.
    pub success: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// Attempts that servers received, each second.
    pub attempts: f64,
}

/// What came out of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub metrics: Metrics,
    pub timeline: Vec<Moment>,
}

/// A run with what came out of it.
#[derive(Clone, Debug)]
pub struct Finished {
    pub run: Run,
    pub outcome: Outcome,
}

/// Everything that came out of a scenario.
#[derive(Clone, Debug, Default)]
pub struct Results(pub Vec<Finished>);

impl Results {
    /// The points of the grid, in order, each once.
    pub fn points(&self) -> Vec<Point> {
        let mut points: Vec<Point> = Vec::new();
        for finished in &self.0 {
            if !points.contains(&finished.run.point) {
                points.push(finished.run.point.clone());
            }
        }
        points
    }

    /// The contenders, in order, each once.
    pub fn contenders(&self) -> Vec<&'static str> {
        let mut contenders = Vec::new();
        for finished in &self.0 {
            if !contenders.contains(&finished.run.contender) {
                contenders.push(finished.run.contender);
            }
        }
        contenders
    }

    /// The runs of a contender at a point, in the order of their seeds.
    pub fn of<'a>(&'a self, point: &'a Point, contender: &'a str) -> impl Iterator<Item = &'a Finished> + 'a {
        self.0.iter().filter(move |run| run.run.contender == contender && run.run.point == *point)
    }

    /// A metric over the seeds; `None` if no run has it.
    pub fn spread(&self, point: &Point, contender: &str, metric: &str) -> Option<Spread> {
        Spread::of(self.of(point, contender).filter_map(|run| run.outcome.metrics.get(metric).copied()))
    }

    /// A metric of one contender by that of another, seed by seed.
    pub fn ratio(&self, point: &Point, contender: &str, rival: &str, metric: &str) -> Option<Spread> {
        let value = |run: &Finished| run.outcome.metrics.get(metric).copied();
        Spread::of(self.of(point, contender).filter_map(|own| {
            let other = self.of(point, rival).find(|other| other.run.seed == own.run.seed)?;
            Some(value(own)? / value(other)?)
        }))
    }
}

/// Least, median and greatest of the seeds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub least: f64,
    pub median: f64,
    pub greatest: f64,
}

impl Spread {
    /// Of these values; `None` without any. An even number has the mean of its two middle values as median.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (least, greatest) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            1 => values[middle],
            // Two that never came to pass have no mean.
            _ if values[middle - 1] == values[middle] => values[middle],
            _ => f64::midpoint(values[middle - 1], values[middle]),
        };
        Some(Self { least, median, greatest })
    }
}

/// Something owed, and whether it was met.
#[derive(Clone, Debug)]
pub struct Claim {
    /// What is owed, in a sentence with the bound in it.
    pub owed: String,
    /// What was found, as it is to be printed.
    pub found: String,
    pub met: bool,
}

impl Claim {
    /// That `found` is at most `bound`; a value that is missing is not met.
    pub fn at_most(owed: impl Into<String>, found: Option<f64>, bound: f64) -> Self {
        Self::new(owed, found, |value| value <= bound)
    }

    /// That `found` is at least `bound`; a value that is missing is not met.
    pub fn at_least(owed: impl Into<String>, found: Option<f64>, bound: f64) -> Self {
        Self::new(owed, found, |value| value >= bound)
    }

    fn new(owed: impl Into<String>, found: Option<f64>, met: impl Fn(f64) -> bool) -> Self {
        let text = match found {
            None => "nothing".to_owned(),
            Some(f64::INFINITY) => "never".to_owned(),
            // Rounded to four digits, .99946 would look as if it met .9995.
            Some(value) if value.abs() <= 1.0 => format!("{value:.5}"),
            Some(value) => format!("{value:.4}"),
        };
        Self { owed: owed.into(), found: text, met: found.is_some_and(met) }
    }
}

/// A stretch of time to be marked in the picture.
#[derive(Clone, Debug)]
pub struct Fault {
    pub from: f64,
    pub to: f64,
    pub what: &'static str,
}

impl Fault {
    /// As a picture marks it.
    pub fn into_band(self) -> (f64, f64, String) {
        (self.from, self.to, self.what.to_owned())
    }
}

/// An experiment.
pub trait Scenario: Sync {
    /// The row in the table of experiments.
    fn number(&self) -> u32;
    /// One word, as in the table.
    fn name(&self) -> &'static str;
    /// What is asked, in a sentence.
    fn question(&self) -> &'static str;
    /// How it is set up, for a reader who wants to repeat it. Markdown.
    fn setup(&self) -> String;
    /// What can be set, and the grid.
    fn parameters(&self) -> &'static [Parameter];
    fn contenders(&self) -> &'static [&'static str];
    /// The metrics in the order in which they are to be shown; a run may have others, which follow.
    fn metrics(&self) -> &'static [&'static str];
    /// Runs per point and contender \[5\], the usual number of seeds, in the short profile; the long one has ten times as many.
    fn seeds(&self) -> u64 {
        5
    }
    /// One run. The same run gives the same outcome bit for bit.
    fn run(&self, run: &Run) -> Outcome;
    /// What is owed, and whether the results meet it.
    fn judge(&self, results: &Results) -> Vec<Claim>;
    /// What is to be marked in the picture of a point.
    fn faults(&self, point: &Point) -> Vec<Fault> {
        let _ = point;
        Vec::new()
    }
    /// The picture: usually success and latency over time.
    fn chart(&self, results: &Results) -> Chart {
        Chart::over_time(self, results)
    }
    /// What a reader of the results must know: what falls short, and why. Markdown.
    fn remarks(&self) -> &'static str {
        ""
    }

    /// Whether a contender runs at a point; not all of them make sense everywhere.
    fn takes_part(&self, point: &Point, contender: &str) -> bool {
        let _ = (point, contender);
        true
    }
    /// The rule that a value given with `--set` breaks, as in "`load` must be ... at most 2". That it is finite, and not
    /// negative where the grid is not, is looked after already.
    fn refuses(&self, parameter: &str, value: f64) -> Option<&'static str> {
        let _ = (parameter, value);
        None
    }

    /// The points of the grid: every combination of the values of the parameters.
    fn points(&self) -> Vec<Point> {
        let mut points = vec![Point::default()];
        for parameter in self.parameters() {
            points = points
                .into_iter()
                .flat_map(|point| {
                    parameter.values.iter().map(move |value| {
                        let mut point = point.clone();
                        point.0.push((parameter.name, *value));
                        point
                    })
                })
                .collect();
        }
        points
    }
}

impl fmt::Debug for dyn Scenario + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A row of the table whose layer is not there yet.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    pub number: u32,
    pub name: &'static str,
    pub question: &'static str,
    pub waits_for: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(contender: &'static str, seed: u64, value: f64) -> Finished {
        let run = Run { point: Point::default(), contender, seed, scale: 1.0 };
        Finished {
            run,
            outcome: Outcome { metrics: Metrics::from([("p99_ms", value)]), timeline: Vec::new() },
        }
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_its_two_middle_values() {
        let spread = Spread::of([4.0, 1.0, 3.0, 10.0]).unwrap();
        assert_eq!(spread, Spread { least: 1.0, median: 3.5, greatest: 10.0 });
        assert_eq!(Spread::of([3.0, 1.0, 2.0]).unwrap().median, 2.0);
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn the_median_of_what_never_comes_to_pass_is_never() {
        let never = f64::INFINITY;
        assert_eq!(Spread::of([1.0, never, never, never]).unwrap().median, never);
    }

    #[test]
    fn a_ratio_pairs_the_runs_of_a_seed_and_leaves_out_those_without_a_partner() {
        let results = Results(vec![
            finished("mainstay", 1, 10.0),
            finished("mainstay", 2, 30.0),
            finished("mainstay", 3, 99.0),
            finished("tower", 2, 10.0),
            finished("tower", 1, 20.0),
        ]);
        let ratio = results.ratio(&Point::default(), "mainstay", "tower", "p99_ms").unwrap();
        assert_eq!((ratio.least, ratio.median, ratio.greatest), (0.5, 1.75, 3.0));
    }

    #[test]
    fn what_was_found_is_not_rounded_to_what_is_owed() {
        assert_eq!(Claim::at_least("success", Some(0.99946), 0.9995).found, "0.99946");
        assert_eq!(Claim::at_most("seconds", Some(f64::INFINITY), 5.0).found, "never");
    }

    #[test]
    fn a_claim_about_a_missing_value_is_not_met() {
        assert!(!Claim::at_most("little", None, 1.0).met);
        assert!(!Claim::at_most("little", Some(f64::INFINITY), 1.0).met);
        assert!(Claim::at_least("much", Some(1.0), 1.0).met);
    }
}
