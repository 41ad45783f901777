//! What the lab prints on a terminal.

use std::time::Duration;

use crate::{
    plan::described,
    report::{at_point, claims, fixed, place, table::Table},
    runner::{Failure, Ran},
    scenario::{Scenario, Waiting},
};

/// Every experiment: number, name, question, size of the grid, contenders, parameters; then those that wait.
pub fn list(scenarios: &[&dyn Scenario], waiting: &[Waiting]) -> String {
    let mut text = String::new();
    for scenario in scenarios {
        let points = scenario.points().len();
        text += &format!("{:>2}  {}: {}\n", scenario.number(), scenario.name(), scenario.question());
        text += &format!("      {points} {}, ", if points == 1 { "point" } else { "points" });
        text += &format!("{} seeds, contenders: {}\n", scenario.seeds(), scenario.contenders().join(", "));
        for parameter in scenario.parameters() {
            text += &format!("      {}\n", described(parameter));
        }
        text.push('\n');
    }
    if !waiting.is_empty() {
        let mut table = Table::new(["waiting", "scenario", "for", "question"]);
        for row in waiting {
            table.row([&row.number.to_string(), row.name, row.waits_for, row.question]);
        }
        text += &table.plain(usize::MAX);
    }
    text
}

/// A table for each point, and what is owed and met.
pub fn results(ran: &Ran<'_>, columns: usize) -> String {
    let scenario = ran.plan.scenario;
    let mut text = format!("{}. {}: {}\n", scenario.number(), scenario.name(), scenario.question());
    let fixed = fixed(ran.plan);
    if !fixed.is_empty() {
        text += &format!("At every point: {fixed}.\n");
    }
    if !ran.plan.set().is_empty() {
        text += &format!("Set by hand, not as documented: {}.\n", ran.plan.set());
    }
    for point in ran.results.points() {
        text += &format!("\n{}\n\n{}", place(ran.plan, &point), at_point(ran, &point).plain(columns));
    }
    text.push('\n');
    match claims(ran) {
        None => text += "Not judged: this is a part of the grid or of the contenders.\n",
        Some(table) if table.is_empty() => text += "Nothing is owed here.\n",
        Some(table) => text += &table.plain(usize::MAX),
    }
    text
}

/// One line for each scenario: how much of what is owed is met.
pub fn overview(all: &[Ran<'_>]) -> String {
    let mut table = Table::new(["scenario", "runs", "failed", "owed", "met", "CPU, s"]).numbers_from(1);
    for ran in all {
        let claims = ran.claims.as_deref().unwrap_or_default();
        table.row([
            ran.plan.scenario.name().to_owned(),
            ran.plan.runs().len().to_string(),
            ran.failures.len().to_string(),
            claims.len().to_string(),
            claims.iter().filter(|claim| claim.met).count().to_string(),
            format!("{:.1}", ran.cpu.as_secs_f64()),
        ]);
    }
    let cpu: Duration = all.iter().map(|ran| ran.cpu).sum();
    table.plain(usize::MAX) + &format!("{:.1} s of CPU time in all\n", cpu.as_secs_f64())
}

/// What failed, and how to see it again.
pub fn failures<'a>(failures: impl Iterator<Item = &'a Failure>) -> String {
    failures
        .map(|failure| {
            format!("failed: {}\n  {}\n  again: {}\n", failure.what, failure.message, failure.repeat)
        })
        .collect()
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
    fn the_list_tells_everything_that_can_be_asked_for() {
        let waiting = [Waiting { number: 8, name: "gc_pauses", question: "Why?", waits_for: "hedging" }];
        let told = list(&[&Fake], &waiting);
        for part in [
            " 4  fake: Who is hurt least by a slow server?",
            "2 points, 3 seeds, contenders: tower, mainstay, oracle",
            "load [0.7, 0.9]: share of the capacity",
            "8        gc_pauses  hedging  Why?",
        ] {
            assert!(told.contains(part), "{told}");
        }
    }

    #[test]
    fn the_overview_counts_what_failed_and_what_is_met() {
        let settings = vec!["load=2".parse().unwrap()];
        let plans = [Plan::new(&Fake, &Request { settings, ..Request::default() }).unwrap()];
        let told = overview(&run(&plans, 1, &Progress::hidden()));
        let row: Vec<&str> = told.lines().nth(1).unwrap().split_whitespace().take(5).collect();
        assert_eq!(row, ["fake", "9", "3", "2", "1"]);
    }
}
