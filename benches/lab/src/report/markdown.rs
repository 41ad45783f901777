//! What came out, to be read.

use std::time::Duration;

use super::{digits::cell, table::Table};
use crate::{
    chart::varying,
    plan::Plan,
    runner::Ran,
    scenario::{Point, Results, Waiting},
};

/// The whole report. But for its last section, the same seeds give the same text.
pub fn index(command: &str, all: &[Ran<'_>], waiting: &[Waiting]) -> String {
    let runs: usize = all.iter().map(|ran| ran.results.0.len() + ran.failures.len()).sum();
    let mut text = format!("# The lab's report\n\n{}\n", made_by(command));
    text += &format!(
        "{} scenarios, {runs} runs, {}. Numbers are medians over the seeds, with the least and the greatest in \
         brackets. The runs one by one are in [`results.json`](results.json).\n\n",
        all.len(),
        seeds(all)
    );
    text += &format!("## Owed and met\n\n{}\n", owed(all).markdown());
    for ran in all {
        text += &section(ran);
    }
    if !waiting.is_empty() {
        text += &format!("## Waiting\n\n{}\n", waits(waiting).markdown());
    }
    text + &format!("## What it took\n\n{}", took(all).markdown())
}

/// For the documentation: of each scenario one table with its own metrics, and what is owed and met.
pub fn summary(command: &str, all: &[Ran<'_>], waiting: &[Waiting]) -> String {
    let mut text = made_by(command);
    text += &format!("\nMedians over {}, with the least and the greatest in brackets.\n\n", seeds(all));
    for ran in all {
        let scenario = ran.plan.scenario;
        text += &format!("### {}. `{}`\n\n", scenario.number(), scenario.name());
        text += &format!("{}\n\n{}\n", scenario.question(), grid(ran).markdown());
        text += &verdicts(ran);
        text += &failures(ran);
        text += &paragraph(scenario.remarks());
    }
    if !waiting.is_empty() {
        text += &format!("### Waiting\n\n{}", waits(waiting).markdown());
    }
    text
}

/// What is owed by one scenario and whether it is met, or why that is not known.
pub fn claims(ran: &Ran<'_>) -> Option<Table> {
    let mut table = Table::new(["owed", "found", "met"]);
    for claim in ran.claims.as_ref()? {
        table.row([&claim.owed, &claim.found, met(claim.met)]);
    }
    Some(table)
}

/// The contenders at a point, with one column for each metric.
pub fn at_point(ran: &Ran<'_>, point: &Point) -> Table {
    let metrics = every_metric(ran);
    let mut table = Table::new(["contender"].into_iter().chain(metrics.iter().copied())).numbers_from(1);
    for contender in present(&ran.results, point) {
        let cells = metrics.iter().map(|metric| cell(metric, ran.results.spread(point, contender, metric)));
        table.row([contender.to_owned()].into_iter().chain(cells));
    }
    table
}

/// A point among the others: its number, and the parameters in which they differ; a title.
pub fn place(plan: &Plan<'_>, point: &Point) -> String {
    let number = plan.points.iter().position(|own| own == point).map_or(0, |index| index + 1);
    let own = differing(plan, point);
    if own.0.is_empty() {
        "Results".to_owned()
    } else {
        format!("Point {number} of {}: {own}", plan.points.len())
    }
}

/// The parameters that are the same at every point, as in "servers 20"; empty without any.
pub fn fixed(plan: &Plan<'_>) -> String {
    let varies = varying(&plan.points);
    let fixed = plan.points.first().map(|point| point.0.iter().filter(|(name, _)| !varies.contains(name)));
    Point(fixed.into_iter().flatten().copied().collect()).to_string()
}

fn section(ran: &Ran<'_>) -> String {
    let scenario = ran.plan.scenario;
    let name = scenario.name();
    let mut text = format!("## {name}\n\n**{}. {}**\n\n", scenario.number(), scenario.question());
    text += &paragraph(&scenario.setup());
    let fixed = fixed(ran.plan);
    if !fixed.is_empty() {
        text += &format!("At every point: {fixed}.\n\n");
    }
    if !ran.plan.set().is_empty() {
        text += &format!("Set by hand, not as documented: {}.\n\n", ran.plan.set());
    }
    text += &verdicts(ran);
    text += &failures(ran);
    for point in ran.results.points() {
        text += &format!("### {}\n\n{}\n", place(ran.plan, &point), at_point(ran, &point).markdown());
    }
    if !ran.chart.panels.is_empty() {
        text += &format!("![{name}]({name}.svg)\n\n");
    }
    text + &paragraph(scenario.remarks())
}

fn verdicts(ran: &Ran<'_>) -> String {
    match claims(ran) {
        None => "Not judged: this is a part of the grid or of the contenders.\n\n".to_owned(),
        Some(table) if table.is_empty() => "Nothing is owed here.\n\n".to_owned(),
        Some(table) => format!("{}\n", table.markdown()),
    }
}

fn failures(ran: &Ran<'_>) -> String {
    let mut text = String::new();
    for failure in &ran.failures {
        text +=
            &format!("**Failed**: {}: {}. Again: `{}`\n\n", failure.what, failure.message, failure.repeat);
    }
    text
}

fn owed(all: &[Ran<'_>]) -> Table {
    let mut table = Table::new(["#", "scenario", "owed", "found", "met"]);
    for ran in all {
        let scenario = ran.plan.scenario;
        let mut first = [scenario.number().to_string(), format!("[{0}](#{0})", scenario.name())];
        match &ran.claims {
            Some(claims) if !claims.is_empty() => {
                for claim in claims {
                    let [number, name] = std::mem::take(&mut first);
                    table.row([&number, &name, &claim.owed, &claim.found, met(claim.met)]);
                }
            }
            Some(_) => table.row([&first[0], &first[1], "nothing", "-", "-"]),
            None => table.row([&first[0], &first[1], "not judged: a part of the grid", "-", "-"]),
        }
    }
    table
}

fn met(met: bool) -> &'static str {
    if met { "yes" } else { "**no**" }
}

/// Every point and contender with the metrics that the scenario names.
fn grid(ran: &Ran<'_>) -> Table {
    let metrics = ran.plan.scenario.metrics();
    let points = ran.results.points();
    let varies = varying(&points);
    let header = varies.iter().copied().chain(["contender"]).chain(metrics.iter().copied());
    let mut table = Table::new(header).numbers_from(varies.len() + 1);
    for point in &points {
        for contender in present(&ran.results, point) {
            let parameters = varies.iter().map(|name| point.get(name).to_string());
            let cells =
                metrics.iter().map(|metric| cell(metric, ran.results.spread(point, contender, metric)));
            table.row(parameters.chain([contender.to_owned()]).chain(cells));
        }
    }
    table
}

fn differing(plan: &Plan<'_>, point: &Point) -> Point {
    let varies = varying(&plan.points);
    Point(point.0.iter().filter(|(name, _)| varies.contains(name)).copied().collect())
}

/// Those who ran at a point, in order.
fn present(results: &Results, point: &Point) -> Vec<&'static str> {
    let mut contenders = results.contenders();
    contenders.retain(|contender| results.of(point, contender).any(|run| !run.outcome.metrics.is_empty()));
    contenders
}

/// Those that the scenario names, then any others; none that no run has.
fn every_metric(ran: &Ran<'_>) -> Vec<&'static str> {
    let found = |metric: &&str| ran.results.0.iter().any(|run| run.outcome.metrics.contains_key(*metric));
    let mut metrics: Vec<&'static str> = ran.plan.scenario.metrics().iter().copied().filter(found).collect();
    for name in ran.results.0.iter().flat_map(|run| run.outcome.metrics.keys().copied()) {
        if !metrics.contains(&name) {
            metrics.push(name);
        }
    }
    metrics
}

fn waits(waiting: &[Waiting]) -> Table {
    let mut table = Table::new(["#", "scenario", "question", "waits for"]);
    for row in waiting {
        table.row([&row.number.to_string(), row.name, row.question, row.waits_for]);
    }
    table
}

fn took(all: &[Ran<'_>]) -> Table {
    let seconds = |time: Duration| format!("{:.1}", time.as_secs_f64());
    let mut table = Table::new(["scenario", "runs", "CPU, s"]).numbers_from(1);
    for ran in all {
        let runs = ran.plan.runs().len().to_string();
        table.row([ran.plan.scenario.name(), &runs, &seconds(ran.cpu)]);
    }
    let runs: usize = all.iter().map(|ran| ran.plan.runs().len()).sum();
    table.row(["all", &runs.to_string(), &seconds(all.iter().map(|ran| ran.cpu).sum())]);
    table
}

fn made_by(command: &str) -> String {
    format!("Made by:\n\n```sh\n{command}\n```\n")
}

/// The seeds in words; how many there are may differ between scenarios.
fn seeds(all: &[Ran<'_>]) -> String {
    let first = all.first().map_or(1, |ran| ran.plan.first_seed);
    let counts = all.iter().map(|ran| ran.plan.seeds);
    let (least, most) = (counts.clone().min().unwrap_or_default(), counts.max().unwrap_or_default());
    match (least, most) {
        (1, 1) => format!("seed {first}"),
        _ if least == most => format!("seeds {first} to {}", first + most - 1),
        _ => format!("seeds {first} and up ({least} to {most} of them)"),
    }
}

fn paragraph(markdown: &str) -> String {
    let trimmed = markdown.trim();
    if trimmed.is_empty() { String::new() } else { format!("{trimmed}\n\n") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fake::Fake, plan::Request, progress::Progress, runner::run};

    const WAITING: &[Waiting] =
        &[Waiting { number: 8, name: "gc_pauses", question: "Why?", waits_for: "hedging" }];

    fn told(request: &Request, write: impl Fn(&[Ran<'_>]) -> String) -> String {
        let plans = [Plan::new(&Fake, request).unwrap()];
        write(&run(&plans, 2, &Progress::hidden()))
    }

    fn whole(request: &Request) -> String {
        told(request, |all| index("lab all", all, WAITING))
    }

    #[test]
    fn what_is_owed_and_not_met_stands_out_under_a_link_to_its_section() {
        let text = whole(&Request::default());
        assert!(text.contains("| 4   | [fake](#fake) | p99 at most .86 of tower's"), "{text}");
        assert!(text.contains("success \\| goodput at least .9999 | 0.99979 | **no** |"), "{text}");
        assert!(text.contains("\n## fake\n"), "{text}");
    }

    #[test]
    fn a_point_shows_those_who_ran_there_with_declared_metrics_first() {
        let text = whole(&Request::default());
        let start = text.find("### Point 1 of 2: load 0.7").unwrap();
        let table: Vec<&str> = text[start..].lines().skip(2).take(5).collect();
        let lines = [
            "| contender | success |           p99_ms |       detect_s | attempts |",
            "| --------- | ------: | ---------------: | -------------: | -------: |",
            "| tower     | 0.99930 | 282 (281 to 283) |          never |     1000 |",
            "| mainstay  | 0.99979 | 86.0 (85.0 to 87.0) | 3.00 (1.50 to 4.50) | 1000 |",
            "",
        ];
        let cells = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        for (found, owed) in table.iter().zip(lines) {
            let (found, owed) = (cells(found), cells(owed));
            assert!(found == owed || found.contains("---"), "{found}\n{owed}\n{text}");
        }
        assert!(text.contains("At every point: servers 20."), "{text}");
    }

    #[test]
    fn the_same_seeds_give_the_same_text_but_for_what_it_took() {
        let before_the_end = |text: String| text.split("## What it took").next().map(str::to_owned);
        assert_eq!(before_the_end(whole(&Request::default())), before_the_end(whole(&Request::default())));
    }

    #[test]
    fn a_failed_run_is_told_with_the_command_that_repeats_it() {
        let settings = vec!["load=2".parse().unwrap()];
        let text = whole(&Request { settings, ..Request::default() });
        assert!(
            text.contains("**Failed**: fake, load 2, servers 20, tower, seed 2: the queue is full"),
            "{text}"
        );
        assert!(text.contains("--set load=2 --point 1 --contender tower --seed 2 --seeds 1`"), "{text}");
    }

    #[test]
    fn a_part_of_a_grid_says_that_it_is_not_judged() {
        assert!(whole(&Request { point: Some(2), ..Request::default() }).contains("Not judged"));
    }

    #[test]
    fn a_summary_has_one_table_with_the_parameters_that_differ_in_front() {
        let text = told(&Request::default(), |all| summary("lab all", all, WAITING));
        assert!(text.contains("| load | contender | success |"), "{text}");
        assert!(!text.contains("attempts") && text.contains("waits for"), "{text}");
    }
}
