//! The lab: mainstay and its rivals in the same storms, on virtual fleets.
//!
//! A [`Scenario`](scenario::Scenario) is one experiment: the points of its grid, the contenders, one run for a seed, and
//! what is owed. [`runner`] runs them, [`report`] writes down what came out.

pub mod chart;
pub mod contender;
pub mod measure;
pub mod report;
pub mod runner;
pub mod scenario;
pub mod scenarios;
