//! Which part of an experiment is to be run.

use std::{error::Error, fmt, str::FromStr};

use crate::scenario::{Parameter, Point, Run, Scenario};

/// How the lab is called.
pub const PROGRAM: &str = "cargo run --release -p lab --";

/// A value that replaces those of the grid, as given: `load=0.8`.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    pub name: String,
    /// Not a number yet: whoever knows the parameters can say more about a wrong one.
    pub value: String,
}

impl FromStr for Setting {
    type Err = Mistake;

    fn from_str(text: &str) -> Result<Self, Mistake> {
        match text.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() => {
                Ok(Self { name: name.trim().to_owned(), value: value.trim().to_owned() })
            }
            _ => Err(Mistake("it must be KEY=VALUE, as in load=0.8".to_owned())),
        }
    }
}

/// What somebody asked for that cannot be run, and why.
#[derive(Debug)]
pub struct Mistake(String);

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Mistake {}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    pub settings: Vec<Setting>,
    /// The only point to be run, counted from 1 in the grid that the settings leave.
    pub point: Option<usize>,
    /// The only contenders to be run; all if empty.
    pub contenders: Vec<String>,
    pub first_seed: u64,
    /// How many seeds; those of the scenario by default.
    pub seeds: Option<u64>,
    /// That many times the scenario's own seeds.
    pub times: u64,
    /// See [`Run::scale`].
    pub scale: f64,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            settings: Vec::new(),
            point: None,
            contenders: Vec::new(),
            first_seed: 1,
            seeds: None,
            times: 1,
            scale: 1.0,
        }
    }
}

/// A scenario with the points, contenders and seeds to be run.
#[derive(Debug)]
pub struct Plan<'a> {
    pub scenario: &'a dyn Scenario,
    /// The grid that the settings leave, whether all of it is run or one point.
    pub points: Vec<Point>,
    pub first_seed: u64,
    pub seeds: u64,
    settings: Vec<(&'static str, f64)>,
    only: Option<usize>,
    contenders: Vec<&'static str>,
    scale: f64,
}

impl<'a> Plan<'a> {
    /// Checks a request against what the scenario knows.
    pub fn new(scenario: &'a dyn Scenario, request: &Request) -> Result<Self, Mistake> {
        let mut settings: Vec<(&'static str, f64)> = Vec::new();
        for setting in &request.settings {
            let (name, value) = checked(scenario, setting)?;
            if settings.iter().any(|(other, _)| *other == name) {
                return Err(Mistake(format!("--set {name} is given twice: one value can be set")));
            }
            settings.push((name, value));
        }
        let mut points: Vec<Point> = Vec::new();
        for point in scenario.points() {
            let point = settings.iter().fold(point, |point, (name, value)| point.with(name, *value));
            if !points.contains(&point) {
                points.push(point);
            }
        }
        if let Some(number) = request.point
            && !(1..=points.len()).contains(&number)
        {
            let (name, last) = (scenario.name(), points.len());
            return Err(Mistake(format!("--point {number}: {name} has the points 1 to {last} here")));
        }
        let contenders = contenders(scenario, &request.contenders)?;
        let seeds = request.seeds.unwrap_or(scenario.seeds() * request.times);
        if request.first_seed.checked_add(seeds).is_none() {
            return Err(Mistake(format!(
                "--seed {}: {seeds} seeds from there do not fit",
                request.first_seed
            )));
        }
        let only = request.point;
        let (first_seed, scale) = (request.first_seed, request.scale);
        let plan = Self { scenario, points, first_seed, seeds, settings, only, contenders, scale };
        if plan.runs().is_empty() {
            return Err(Mistake(format!(
                "nothing to run in {}: no contender that was asked for takes part",
                scenario.name()
            )));
        }
        Ok(plan)
    }

    /// Whether the whole grid is run with every contender, so that the results can be judged.
    pub fn is_whole(&self) -> bool {
        self.only.is_none() && self.contenders.len() == self.scenario.contenders().len()
    }

    /// What was set away from the documented grid, as in "load 0.8"; empty if nothing was.
    pub fn set(&self) -> String {
        Point(self.settings.clone()).to_string()
    }

    /// Every run, by point, contender and seed.
    pub fn runs(&self) -> Vec<Run> {
        let mut runs = Vec::new();
        for (index, point) in self.points.iter().enumerate() {
            if self.only.is_some_and(|only| only != index + 1) {
                continue;
            }
            for contender in &self.contenders {
                if !self.scenario.takes_part(point, contender) {
                    continue;
                }
                runs.extend((self.first_seed..self.first_seed + self.seeds).map(|seed| Run {
                    point: point.clone(),
                    contender,
                    seed,
                    scale: self.scale,
                }));
            }
        }
        runs
    }

    /// The command that repeats one run.
    pub fn repeat(&self, run: &Run) -> String {
        let mut command = format!("{PROGRAM} run {}", self.scenario.name());
        for (name, value) in &self.settings {
            command += &format!(" --set {name}={value}");
        }
        let point = self.points.iter().position(|point| *point == run.point).map_or(0, |index| index + 1);
        command + &format!(" --point {point} --contender {} --seed {} --seeds 1", run.contender, run.seed)
    }
}

fn checked(scenario: &dyn Scenario, setting: &Setting) -> Result<(&'static str, f64), Mistake> {
    let (name, text) = (&setting.name, &setting.value);
    let wrong = |what: String| {
        Mistake(format!(
            "--set {name}={text}: {what}\n\nThe parameters of {}:\n{}",
            scenario.name(),
            known(scenario)
        ))
    };
    let Some(parameter) = scenario.parameters().iter().find(|parameter| parameter.name == name) else {
        return Err(wrong(format!("{} has no parameter `{name}`", scenario.name())));
    };
    let value: f64 = text.parse().map_err(|_| wrong(format!("`{name}` must be a number, not `{text}`")))?;
    if !value.is_finite() {
        return Err(wrong(format!("`{name}` must be finite, not {value}")));
    }
    if value < 0.0 && parameter.values.iter().all(|usual| *usual >= 0.0) {
        return Err(wrong(format!("`{name}` must be at least 0, not {value}")));
    }
    if let Some(rule) = scenario.refuses(name, value) {
        return Err(wrong(format!("`{name}` must be {rule}, not {value}")));
    }
    Ok((parameter.name, value))
}

fn known(scenario: &dyn Scenario) -> String {
    let lines = scenario.parameters().iter().map(|parameter| format!("  {}", described(parameter)));
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() { "  none".to_owned() } else { lines.join("\n") }
}

/// A parameter in a line: its name, its values and what it means.
pub fn described(parameter: &Parameter) -> String {
    let values: Vec<String> = parameter.values.iter().map(f64::to_string).collect();
    format!("{} [{}]: {}", parameter.name, values.join(", "), parameter.means)
}

fn contenders(scenario: &dyn Scenario, asked: &[String]) -> Result<Vec<&'static str>, Mistake> {
    let known = scenario.contenders();
    for name in asked {
        if !known.contains(&name.as_str()) {
            return Err(Mistake(format!(
                "--contender {name}: {} has no such contender, but {}",
                scenario.name(),
                known.join(", ")
            )));
        }
    }
    Ok(known.iter().copied().filter(|own| asked.is_empty() || asked.iter().any(|name| name == own)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;

    fn mistake(setting: &str) -> String {
        let settings = vec![setting.parse().unwrap()];
        Plan::new(&Fake, &Request { settings, ..Request::default() }).unwrap_err().to_string()
    }

    #[test]
    fn a_setting_without_a_value_is_refused() {
        assert!("load".parse::<Setting>().is_err());
        assert!("=1".parse::<Setting>().is_err());
    }

    #[test]
    fn an_unknown_parameter_is_named_and_the_known_ones_are_listed() {
        let told = mistake("lod=0.8");
        assert!(told.contains("fake has no parameter `lod`"), "{told}");
        assert!(told.contains("load [0.7, 0.9]: share of the capacity"), "{told}");
    }

    #[test]
    fn a_value_that_is_no_number_is_named_with_its_field_and_the_rule() {
        assert!(mistake("load=high").contains("`load` must be a number, not `high`"));
        assert!(mistake("load=inf").contains("`load` must be finite, not inf"));
        assert!(mistake("load=-1").contains("`load` must be at least 0, not -1"));
    }

    #[test]
    fn a_value_that_the_scenario_refuses_is_named_with_its_rule() {
        assert!(mistake("servers=2.5").contains("`servers` must be a whole number, not 2.5"));
    }

    #[test]
    fn a_setting_holds_at_every_point_and_leaves_each_point_once() {
        let settings = vec!["load=0.8".parse().unwrap()];
        let plan = Plan::new(&Fake, &Request { settings, ..Request::default() }).unwrap();
        assert_eq!(plan.points, [Point(vec![("load", 0.8), ("servers", 20.0)])]);
        assert_eq!(plan.set(), "load 0.8");
    }

    #[test]
    fn a_contender_that_takes_no_part_at_a_point_is_left_out_there() {
        let plan = Plan::new(&Fake, &Request::default()).unwrap();
        let oracles: Vec<_> = plan.runs().into_iter().filter(|run| run.contender == "oracle").collect();
        assert!(!oracles.is_empty() && oracles.iter().all(|run| run.point.get("load") == 0.9));
    }

    #[test]
    fn points_and_contenders_that_do_not_exist_are_refused() {
        let request = Request { point: Some(3), ..Request::default() };
        let told = Plan::new(&Fake, &request).unwrap_err().to_string();
        assert_eq!(told, "--point 3: fake has the points 1 to 2 here");
        let request = Request { contenders: vec!["towr".to_owned()], ..Request::default() };
        let told = Plan::new(&Fake, &request).unwrap_err().to_string();
        assert!(told.contains("no such contender, but tower, mainstay, oracle"), "{told}");
    }

    #[test]
    fn the_command_that_repeats_a_run_gives_that_run_alone() {
        let plan = Plan::new(&Fake, &Request { first_seed: 7, ..Request::default() }).unwrap();
        let run = plan.runs().pop().unwrap();
        assert_eq!(
            plan.repeat(&run),
            format!("{PROGRAM} run fake --point 2 --contender oracle --seed 9 --seeds 1")
        );
    }
}
