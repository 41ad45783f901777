//! What `explain()` tells.

use mainstay::{
    balance::{Distribution, ReportedOptions},
    budget::Budget,
    client::Origin,
    resolve,
};

use crate::fleet::*;

fn told(client: &Client, option: &str) -> (String, Origin) {
    let explained = client.explain();
    let setting = explained.settings.iter().find(|setting| setting.option == option).unwrap();
    (setting.value.clone(), setting.origin)
}

#[tokio::test(start_paused = true)]
async fn it_says_of_every_option_where_it_comes_from() {
    let stage = Stage::default();
    let client = builder(&stage, resolve::fixed(["a:1", "b:1"])).attempt_limit(secs(1)).build().unwrap();
    assert_eq!(told(&client, "deadline"), ("10s".to_owned(), Origin::Default));
    assert_eq!(told(&client, "balance.attempt_limit"), ("1s".to_owned(), Origin::Builder));
    let mut options = client.options();
    options.budget.reserve = 7;
    client.update(options).unwrap();
    assert_eq!(told(&client, "budget.reserve"), ("7".to_owned(), Origin::Update));
    let view = client.clone().deadline(ms(200)).max_attempts(5);
    assert_eq!(told(&view, "deadline"), ("200ms".to_owned(), Origin::View));
    assert_eq!(told(&view, "retry.max_attempts"), ("5".to_owned(), Origin::View));
    assert_eq!(told(&client, "deadline").1, Origin::Default);
}

#[test]
fn it_leaves_no_option_out() {
    let stage = Stage::default();
    let client = client(&stage, resolve::fixed(["a:1"]));
    // The paths of the options as their debug output has them, down to the values that are told whole.
    let (mut path, mut paths): (Vec<String>, Vec<String>) = Default::default();
    for line in format!("{:#?}", client.options()).lines().skip(1) {
        let depth = (line.len() - line.trim_start().len()) / 4;
        let Some((name, value)) = line.trim().split_once(": ") else { continue };
        path.truncate(depth - 1);
        if path.len() != depth - 1 {
            continue;
        }
        if ["RetryPolicy {", "BudgetOptions {", "BalanceOptions {", "HealthOptions {"].contains(&value) {
            path.push(name.to_owned());
        } else {
            paths.push(path.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join("."));
        }
    }
    let explained = client.explain();
    let mut settings: Vec<_> = explained.settings.iter().map(|setting| setting.option.to_owned()).collect();
    settings.sort();
    paths.sort();
    assert_eq!(settings, paths);
    assert!(paths.len() > 25);
}

#[tokio::test(start_paused = true)]
async fn it_tells_the_worst_case_and_what_is_odd() {
    let stage = Stage::default();
    let client = client(&stage, resolve::fixed(["a:1"]));
    let worst = client.explain().worst_case;
    assert_eq!((worst.attempts, worst.time, worst.load_percent), (3, Some(secs(10)), 120));
    assert_eq!(client.clone().max_attempts(1).explain().worst_case.load_percent, 100);
    assert!(client.explain().remarks.is_empty());
    client.send(0).await.unwrap();
    assert!(client.explain().remarks[0].contains("single address, a:1"));
}

#[tokio::test(start_paused = true)]
async fn of_a_shared_budget_it_tells_the_share_that_is_in_effect() {
    let stage = Stage::default();
    let budget = Budget::new(reserve(5)).unwrap();
    let client = builder(&stage, resolve::fixed(["a:1"])).shared_budget(budget).build().unwrap();
    let explained = client.explain();
    assert_eq!(explained.worst_case.load_percent, 100);
    assert!(explained.remarks[0].contains("shared"));
}

#[test]
fn people_can_read_it() {
    let stage = Stage::default();
    let client = builder(&stage, resolve::fixed(["a:1"])).attempt_limit(None).build().unwrap();
    let text = client.deadline(ms(200)).explain().to_string();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("users, over "), "{text}");
    assert_eq!(lines[1], "  deadline");
    assert_eq!(lines[2].split_whitespace().collect::<Vec<_>>(), ["deadline", "view", "200ms"]);
    let limit = lines.iter().find(|line| line.contains("attempt_limit")).unwrap();
    assert_eq!(limit.split_whitespace().collect::<Vec<_>>(), ["balance.attempt_limit", "builder", "none"]);
    assert!(text.ends_with("at worst: 3 attempts, 200ms, 1.20 times the load"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn it_tells_that_reports_are_awaited_and_none_come() {
    let stage = Stage::default();
    let client = client(&stage, resolve::fixed(["a:1", "b:1"]));
    client.send(0).await.unwrap();
    let remarks = |client: &Client| client.explain().remarks.join("\n");
    assert!(!remarks(&client).contains("no server"));
    let mut options = client.options();
    options.balance.reports = true;
    client.update(options.clone()).unwrap();
    assert!(remarks(&client).contains("no server says what it has in flight"));
    options.balance.reports = false;
    options.balance.distribution = Distribution::ByReports(ReportedOptions::default());
    client.update(options).unwrap();
    assert!(remarks(&client).contains("no server has reported for long enough"));
}
