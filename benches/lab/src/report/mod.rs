//! Writes down what came out: `index.md`, `results.json` and one SVG for each scenario in a folder, or a summary in one
//! Markdown file.

mod axis;
pub mod digits;
mod json;
mod markdown;
mod plot;
mod style;
pub mod table;
mod write;

pub use json::json;
pub use markdown::{at_point, claims, fixed, index, place, summary};
pub use plot::svg;
pub use write::{write, write_summary};
