//! Pictures, as data: what [`report`](crate::report) draws.

use std::collections::BTreeMap;

use crate::scenario::{Fault, Moment, Point, Results, Scenario, Spread};

/// As many points of a grid as a page can show over time.
const SHOWN: usize = 3;

/// A line of a panel; it is broken where a value is not finite.
#[derive(Clone, Debug, Default)]
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
    /// Drawn dashed and grey: a bound, a theory, something to compare with.
    pub reference: bool,
}

impl Line {
    /// What moments have of something at a point: the medians over the seeds, a line for each contender.
    pub fn over_time(results: &Results, point: &Point, value: fn(&Moment) -> f64) -> Vec<Self> {
        let line = |contender: &&'static str| {
            let mut values: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
            for moment in results.of(point, contender).flat_map(|run| &run.outcome.timeline) {
                let values = values.entry(moment.at.to_bits()).or_default();
                // Without requests there is no percentile, whatever stands there.
                if moment.requests > 0 && !value(moment).is_nan() {
                    values.push(value(moment));
                }
            }
            let median = |values| Spread::of(values).map_or(f64::NAN, |spread| spread.median);
            let mut points: Vec<_> =
                values.into_iter().map(|(at, values)| (f64::from_bits(at), median(values))).collect();
            points.sort_by(|(one, _), (other, _)| one.total_cmp(other));
            Self { name: (*contender).to_owned(), points, reference: false }
        };
        results.contenders().iter().map(line).filter(|line| !line.points.is_empty()).collect()
    }
}

/// One diagram.
#[derive(Clone, Debug, Default)]
pub struct Panel {
    pub title: String,
    pub x: String,
    pub y: String,
    pub log_y: bool,
    pub lines: Vec<Line>,
    /// From, to, and what it is.
    pub bands: Vec<(f64, f64, String)>,
}

/// Diagrams below each other, that share colours by the names of their lines.
#[derive(Clone, Debug, Default)]
pub struct Chart {
    pub title: String,
    pub panels: Vec<Panel>,
}

impl Chart {
    /// Success and 99th percentile over time, medians over the seeds, two panels for each point of the grid; of more
    /// than three points the first, the middle and the last.
    pub fn over_time<S: Scenario + ?Sized>(scenario: &S, results: &Results) -> Self {
        let points = results.points();
        let varies = varying(&points);
        let mut panels = Vec::new();
        for point in chosen(&points) {
            let own: Vec<_> = point.0.iter().filter(|(name, _)| varies.contains(name)).copied().collect();
            let place = if own.is_empty() { String::new() } else { format!(": {}", Point(own)) };
            let bands = scenario.faults(point);
            let panel = |what: &str, y: &str, log_y, value: fn(&Moment) -> f64| Panel {
                title: format!("{what}{place}"),
                x: "seconds".to_owned(),
                y: y.to_owned(),
                log_y,
                lines: Line::over_time(results, point, value),
                bands: bands.iter().cloned().map(Fault::into_band).collect(),
            };
            panels.push(panel("Success", "success", false, |moment| moment.success));
            panels.push(panel("99th percentile", "p99, ms", true, |moment| moment.p99_ms));
        }
        panels.retain(|panel| !panel.lines.is_empty());
        Self { title: scenario.name().to_owned(), panels }
    }
}

/// The parameters that are not the same at all of these points.
pub(crate) fn varying(points: &[Point]) -> Vec<&'static str> {
    let Some(first) = points.first() else { return Vec::new() };
    let names = first.0.iter().map(|(name, _)| *name);
    names.filter(|name| points.iter().any(|point| point.get(name) != first.get(name))).collect()
}

fn chosen(points: &[Point]) -> Vec<&Point> {
    match points {
        [first, .., last] if points.len() > SHOWN => vec![first, &points[points.len() / 2], last],
        _ => points.iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fake::Fake,
        scenario::{Finished, Outcome, Run},
    };

    fn run(load: f64, seed: u64, timeline: Vec<Moment>) -> Finished {
        let run = Run { point: Point(vec![("load", load)]), contender: "tower", seed, scale: 1.0 };
        Finished { run, outcome: Outcome { timeline, ..Outcome::default() } }
    }

    fn moment(at: f64, p99_ms: f64) -> Moment {
        Moment { at, requests: 10, success: 1.0, p99_ms, ..Moment::default() }
    }

    #[test]
    fn a_line_over_time_takes_the_median_of_the_seeds_at_each_moment() {
        let seeds = [[10.0, 1.0], [30.0, 5.0], [20.0, 3.0]];
        let runs = seeds
            .iter()
            .zip(1..)
            .map(|([first, second], seed)| run(0.7, seed, vec![moment(0.0, *first), moment(0.5, *second)]));
        let chart = Chart::over_time(&Fake, &Results(runs.collect()));
        assert_eq!(chart.panels[1].lines[0].points, [(0.0, 20.0), (0.5, 3.0)]);
        assert_eq!(chart.panels[1].bands, [(20.0, 40.0, "one server slow".to_owned())]);
    }

    #[test]
    fn a_line_is_broken_where_no_seed_had_a_request() {
        let silent = Moment { requests: 0, ..moment(1.0, 0.0) };
        let chart = Chart::over_time(&Fake, &Results(vec![run(0.7, 1, vec![moment(0.0, 2.0), silent])]));
        let points = &chart.panels[1].lines[0].points;
        assert_eq!(points[0], (0.0, 2.0));
        assert!(points[1].1.is_nan());
    }

    #[test]
    fn a_long_grid_shows_its_first_its_middle_and_its_last_point() {
        let loads = [0.1, 0.2, 0.3, 0.4, 0.5];
        let runs = loads.iter().map(|load| run(*load, 1, vec![moment(0.0, 2.0)])).collect();
        let chart = Chart::over_time(&Fake, &Results(runs));
        let titles: Vec<_> = chart.panels.iter().step_by(2).map(|panel| panel.title.as_str()).collect();
        assert_eq!(titles, ["Success: load 0.1", "Success: load 0.3", "Success: load 0.5"]);
    }
}
