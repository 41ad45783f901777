//! The files of a report.

use std::{fs, io, path::Path};

use crate::{runner::Ran, scenario::Waiting};

/// Writes a report into a folder, which is made if it is missing.
pub fn write(folder: &Path, command: &str, all: &[Ran<'_>], waiting: &[Waiting]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for ran in all.iter().filter(|ran| !ran.chart.panels.is_empty()) {
        let svg = super::svg(&ran.chart).map_err(io::Error::other)?;
        fs::write(folder.join(format!("{}.svg", ran.plan.scenario.name())), svg)?;
    }
    fs::write(folder.join("index.md"), super::index(command, all, waiting))?;
    fs::write(folder.join("results.json"), super::json(all))
}

/// Writes the summary alone.
pub fn write_summary(file: &Path, command: &str, all: &[Ran<'_>], waiting: &[Waiting]) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(file, super::summary(command, all, waiting))
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
    fn a_report_is_an_index_results_and_a_picture_for_each_scenario() {
        let folder = std::env::temp_dir().join(format!("lab-report-test-{}", std::process::id()));
        let plans = [Plan::new(&Fake, &Request::default()).unwrap()];
        write(&folder.join("deep"), "lab all", &run(&plans, 1, &Progress::hidden()), &[]).unwrap();
        let mut files: Vec<_> = fs::read_dir(folder.join("deep"))
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        fs::remove_dir_all(folder).unwrap();
        assert_eq!(files, ["fake.svg", "index.md", "results.json"]);
    }
}
