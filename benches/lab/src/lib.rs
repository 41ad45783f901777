//! The lab: mainstay and its rivals in the same storms, on virtual fleets.
//!
//! A [`Scenario`](scenario::Scenario) is one experiment: the points of its grid, the contenders, one run for a seed, and
//! what is owed. A [`Plan`](plan::Plan) says which part of it is to be run, [`runner`] runs it, [`report`] writes down
//! what came out.

pub mod chart;
pub mod contender;
#[cfg(test)]
mod fake;
pub mod measure;
mod panics;
pub mod plan;
pub mod progress;
pub mod report;
pub mod runner;
pub mod scenario;
pub mod scenarios;
pub mod terminal;
