//! What servers say of their own load, and what comes of it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use mainstay::{
    Classify, Endpoint, Ratio, Verdict,
    balance::{Balance, BalanceOptions, Distribution, Load, ReportedOptions, Subset},
    report::{Report, Utilisation},
    resolve,
};
use tower::BoxError;

use crate::stage::*;

/// What each server says on its answers, by name.
#[derive(Clone, Debug, Default)]
struct Says(Arc<Mutex<HashMap<String, Report>>>);

impl Says {
    fn set(&self, server: &str, report: impl Into<Option<Report>>) {
        match report.into() {
            Some(report) => drop(self.0.lock().unwrap().insert(server.to_owned(), report)),
            None => drop(self.0.lock().unwrap().remove(server)),
        }
    }
}

impl Classify<String> for Says {
    fn classify(&self, result: Result<&String, &BoxError>) -> Verdict {
        result.map_or(Verdict::failure(), |_| Verdict::success())
    }

    fn report(&self, answer: &String) -> Option<Report> {
        self.0.lock().unwrap().get(answer).copied()
    }
}

fn client(stage: &Stage, says: &Says, names: &[&str], options: BalanceOptions) -> Client {
    let builder = stage.builder(resolve::fixed(names.to_vec())).classify(says.clone());
    builder.options(options).build().unwrap()
}

struct Provisional;

impl Classify<Late> for Provisional {
    fn classify(&self, result: Result<&Late, &BoxError>) -> Verdict {
        result.map_or(Verdict::failure(), |_| Verdict::success().provisional())
    }
}

fn busy(in_flight: u32) -> Report {
    Report::default().in_flight(in_flight)
}

fn used(rate: f64, application: f64) -> Report {
    Report::default().utilisation(Utilisation::new(rate, application))
}

/// How many of so many requests, one after the other, each server answered.
async fn shares(client: &Client, count: usize) -> HashMap<String, usize> {
    let mut shares = HashMap::new();
    for _ in 0..count {
        *shares.entry(client.send(0).await.unwrap()).or_default() += 1;
    }
    shares
}

fn share(shares: &HashMap<String, usize>, name: &str) -> usize {
    shares.get(name).copied().unwrap_or_default()
}

const LOADS: [Load; 5] = [
    Load::Latency { half_life: Duration::from_secs(10) },
    Load::Quantile { share: Ratio::percent::<90>(), half_life: Duration::from_secs(10) },
    Load::HotCold { cold: Ratio::percent::<84>(), half_life: Duration::from_secs(10) },
    Load::PeakEwma { decay: Duration::from_secs(10) },
    Load::InFlight,
];

#[tokio::test(start_paused = true)]
async fn a_server_that_says_others_have_come_gets_less_at_once() {
    for load in LOADS {
        let (stage, says) = (Stage::default(), Says::default());
        says.set("a:1", busy(0));
        says.set("b:1", busy(0));
        let told = options(|options| (options.load, options.reports) = (load, true));
        let client = client(&stage, &says, &["a:1", "b:1"], told);
        let before = shares(&client, 100).await;
        assert!(share(&before, "a:1") >= 30, "{load:?}: {before:?}");
        says.set("a:1", busy(30));
        let after = shares(&client, 20).await;
        assert!(share(&after, "a:1") <= 2, "{load:?}: {after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_as_fast_with_many_others_there_is_a_bigger_one_and_gets_its_share() {
    let (stage, says) = (Stage::default(), Says::default());
    says.set("a:1", busy(30));
    says.set("b:1", busy(0));
    let client = client(&stage, &says, &["a:1", "b:1"], options(|options| options.reports = true));
    let shares = shares(&client, 400).await;
    assert!(share(&shares, "a:1") >= 100, "{shares:?}");
}

#[tokio::test(start_paused = true)]
async fn nobody_goes_by_what_servers_say_unless_asked() {
    let (stage, says) = (Stage::default(), Says::default());
    says.set("a:1", busy(30));
    says.set("b:1", busy(0));
    let client = client(&stage, &says, &["a:1", "b:1"], options(|_| {}));
    let shares = shares(&client, 200).await;
    assert!(share(&shares, "a:1") >= 60, "{shares:?}");
    assert_eq!(client.status().endpoints[0].others_in_flight, None);
}

#[tokio::test(start_paused = true)]
async fn it_is_asked_again_once_it_was_silent_and_gets_its_share_back() {
    let (stage, says) = (Stage::default(), Says::default());
    says.set("a:1", busy(10_000));
    says.set("b:1", busy(0));
    let client = client(&stage, &says, &["a:1", "b:1"], options(|options| options.reports = true));
    shares(&client, 100).await;
    says.set("a:1", busy(0));
    // Half of the half-life, and some requests more.
    let soon = shares(&client, 1_000).await;
    assert!(share(&soon, "a:1") >= 100, "{soon:?}");
    let later = shares(&client, 200).await;
    assert!((60..=140).contains(&share(&later, "a:1")), "{later:?}");
}

#[tokio::test(start_paused = true)]
async fn by_whatever_load_no_report_keeps_requests_away_for_ever() {
    for load in LOADS {
        let (stage, says) = (Stage::default(), Says::default());
        let names = ["a:1", "b:1", "c:1", "d:1", "e:1", "f:1", "g:1", "h:1", "i:1", "j:1"];
        names.iter().for_each(|name| says.set(name, busy(0)));
        says.set("a:1", busy(u32::MAX));
        let told = options(|options| (options.load, options.reports) = (load, true));
        let client = client(&stage, &says, &names, told);
        shares(&client, 100).await;
        says.set("a:1", busy(0));
        tokio::time::sleep(Duration::from_secs(600)).await;
        shares(&client, 1_000).await;
        let later = shares(&client, 1_000).await;
        assert!(share(&later, "a:1") >= 40, "{load:?}: {later:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_what_a_server_says_on_an_answer_ones_own_are_no_others() {
    let (stage, says) = (Stage::default(), Says::default());
    says.set("a:1", busy(7));
    let client = client(&stage, &says, &["a:1"], options(|options| options.reports = true));
    shares(&client, 1).await;
    stage.server("a:1").set(Mode::Answer(secs(2)));
    let under_way: Vec<_> = (0..3).map(|_| tokio::spawn(client.send(0))).collect();
    crate::stage::settle().await;
    stage.server("a:1").set(Mode::Answer(ms(10)));
    shares(&client, 1).await;
    assert_eq!(client.status().endpoints[0].others_in_flight, Some(4));
    under_way.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_tells_no_more_is_taken_for_one_that_never_did() {
    let (stage, says) = (Stage::default(), Says::default());
    says.set("a:1", busy(5));
    let client = client(&stage, &says, &["a:1"], options(|options| options.reports = true));
    shares(&client, 1).await;
    assert_eq!(client.status().endpoints[0].others_in_flight, Some(5));
    says.set("a:1", None);
    shares(&client, 15).await;
    assert_eq!(client.status().endpoints[0].others_in_flight, Some(5));
    shares(&client, 1).await;
    assert_eq!(client.status().endpoints[0].others_in_flight, None);
}

#[tokio::test(start_paused = true)]
async fn answers_whose_end_may_tell_say_nothing_only_then() {
    let client = Balance::builder(resolve::fixed(["a:1"]))
        .connect(|_: &Endpoint| {
            tower::service_fn(|_: u32| async {
                tokio::time::sleep(ms(10)).await;
                Ok::<_, BoxError>(Late::default())
            })
        })
        .track(Keep)
        .classify(Provisional)
        .options(options(|options| options.reports = true))
        .build()
        .unwrap();
    let heads = |count: usize| futures::future::join_all((0..count).map(|_| client.send(0)));
    let end = |late: Late, report: Option<Report>| {
        let guard = late.0.unwrap();
        if let Some(report) = report {
            guard.report(report);
        }
        guard.end(Verdict::success());
    };
    let told = || client.status().endpoints[0].others_in_flight;
    end(heads(1).await.pop().unwrap().unwrap(), Some(busy(50)));
    assert_eq!(told(), Some(50));
    let twenty = heads(20).await;
    assert_eq!(told(), Some(50), "they may tell yet");
    twenty.into_iter().for_each(|late| end(late.unwrap(), Some(busy(40))));
    assert_eq!(told(), Some(40));
    for _ in 0..14 {
        end(heads(1).await.pop().unwrap().unwrap(), None);
        assert_eq!(told(), Some(40));
    }
    end(heads(1).await.pop().unwrap().unwrap(), None);
    assert_eq!(told(), None);
}

#[tokio::test(start_paused = true)]
async fn a_burst_after_a_rest_does_not_go_to_the_one_that_was_the_busiest() {
    for load in LOADS {
        let (stage, says) = (Stage::default(), Says::default());
        let names = ["a:1", "b:1", "c:1", "d:1", "e:1", "f:1", "g:1", "h:1", "i:1", "j:1"];
        names.iter().for_each(|name| says.set(name, busy(0)));
        says.set("a:1", busy(100));
        stage.server("a:1").set(Mode::Answer(ms(210)));
        let told = options(|options| (options.load, options.reports) = (load, true));
        let client = client(&stage, &says, &names, told);
        shares(&client, 400).await;
        stage.server("a:1").set(Mode::Answer(ms(10)));
        // Nothing is known of latencies any more; what it has said is.
        tokio::time::sleep(secs(600)).await;
        stage.forget_served();
        crate::stage::load(&client, 100, 100).await;
        assert!(stage.server("a:1").served() <= 20, "{load:?}: {:?}", stage.served());
    }
}

#[tokio::test(start_paused = true)]
async fn those_that_say_nothing_are_taken_to_be_like_the_others() {
    for load in LOADS {
        let (stage, says) = (Stage::default(), Says::default());
        let names = ["a:1", "b:1", "c:1", "d:1", "e:1", "f:1", "g:1", "h:1"];
        names[..4].iter().for_each(|name| says.set(name, busy(8)));
        let told = options(|options| (options.load, options.reports) = (load, true));
        let client = client(&stage, &says, &names, told);
        shares(&client, 100).await;
        stage.forget_served();
        crate::stage::load(&client, 4, 800).await;
        let served = stage.served();
        assert!(served.iter().all(|own| (50..=200).contains(own)), "{load:?}: {served:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_says_nothing_among_many_that_are_busy_gets_what_the_others_get() {
    for load in LOADS {
        let (stage, says) = (Stage::default(), Says::default());
        let names = ["a:1", "b:1", "c:1", "d:1", "e:1", "f:1", "g:1", "h:1"];
        names[1..].iter().for_each(|name| says.set(name, busy(50)));
        names.iter().for_each(|name| stage.server(name).set(Mode::Answer(ms(50))));
        let told = options(|options| (options.load, options.reports) = (load, true));
        let client = client(&stage, &says, &names, told);
        crate::stage::load(&client, 16, 1_000).await;
        stage.forget_served();
        crate::stage::load(&client, 16, 1_600).await;
        assert!((130..=300).contains(&stage.server("a:1").served()), "{load:?}: {:?}", stage.served());
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_tells_only_now_and_then_is_not_kept_from_requests_for_it() {
    for load in LOADS {
        let (stage, says) = (Stage::default(), Says::default());
        let names = ["a:1", "b:1", "c:1", "d:1", "e:1", "f:1", "g:1", "h:1"];
        names.iter().for_each(|name| says.set(name, busy(50)));
        names.iter().for_each(|name| stage.server(name).set(Mode::Answer(ms(50))));
        let told = options(|options| (options.load, options.reports) = (load, true));
        let client = client(&stage, &says, &names, told);
        for round in 0..80 {
            says.set("a:1", None);
            crate::stage::load(&client, 16, 160).await;
            says.set("a:1", busy(50));
            crate::stage::load(&client, 16, 8).await;
            if round == 40 {
                stage.forget_served();
            }
        }
        let served = stage.served();
        assert!(served[0] * 8 >= served.iter().sum::<usize>() / 3, "{load:?}: {served:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_estimate_that_is_shown_is_what_a_request_takes_with_the_others_there() {
    let (stage, says) = (Stage::default(), Says::default());
    says.set("a:1", busy(15));
    let client = client(&stage, &says, &["a:1"], options(|options| options.reports = true));
    shares(&client, 50).await;
    let estimate = client.status().endpoints[0].estimate.unwrap();
    assert!((ms(9)..ms(11)).contains(&estimate), "{estimate:?}");
}

#[tokio::test(start_paused = true)]
async fn by_each_estimate_a_slow_endpoint_gets_less_and_the_others_the_rest() {
    for load in LOADS.into_iter().filter(|load| *load != Load::InFlight) {
        let stage = Stage::default();
        stage.server("a:1").set(Mode::Answer(ms(200)));
        let own = options(|options| options.load = load);
        let client = client(&stage, &Says::default(), &["a:1", "b:1", "c:1"], own);
        let shares = shares(&client, 300).await;
        assert!(share(&shares, "a:1") <= 30, "{load:?}: {shares:?}");
        assert!(share(&shares, "b:1").min(share(&shares, "c:1")) >= 30, "{load:?}: {shares:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_share_that_no_quantile_has_is_told_by_name() {
    let half_life = secs(10);
    for share in [Ratio::ZERO, Ratio::ONE] {
        for (load, field) in [
            (Load::Quantile { share, half_life }, "load.share"),
            (Load::HotCold { cold: share, half_life }, "load.cold"),
        ] {
            let wrong = options(|options| options.load = load);
            assert_eq!(wrong.validate().unwrap_err().problems()[0].field, field);
        }
    }
}

fn by_reports(change: impl FnOnce(ReportedOptions) -> ReportedOptions) -> BalanceOptions {
    let reported = change(ReportedOptions::default());
    options(|options| options.distribution = Distribution::ByReports(reported))
}

#[tokio::test(start_paused = true)]
async fn weights_from_reports_give_each_its_share_after_the_blackout() {
    let (stage, says) = (Stage::default(), Says::default());
    says.set("a:1", used(100.0, 0.25)); // 400
    says.set("b:1", used(100.0, 0.5)); // 200
    says.set("c:1", used(100.0, 1.0)); // 100
    let client = client(&stage, &says, &["a:1", "b:1", "c:1"], by_reports(|own| own));
    let before = shares(&client, 300).await;
    assert!(["a:1", "b:1", "c:1"].iter().all(|name| share(&before, name) == 100), "{before:?}");
    tokio::time::sleep(secs(11)).await;
    assert_eq!(client.status().endpoints[0].reported_weight, Some(400.0));
    let after = shares(&client, 700).await;
    for (name, owed) in [("a:1", 400), ("b:1", 200), ("c:1", 100)] {
        assert!(share(&after, name).abs_diff(owed) <= 7, "{after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_has_not_reported_is_given_the_mean_of_the_others() {
    let (stage, says) = (Stage::default(), Says::default());
    says.set("a:1", used(100.0, 0.25)); // 400
    says.set("b:1", used(100.0, 0.5)); // 200
    let client = client(&stage, &says, &["a:1", "b:1", "c:1"], by_reports(|own| own));
    shares(&client, 30).await;
    tokio::time::sleep(secs(11)).await;
    let after = shares(&client, 900).await;
    for (name, owed) in [("a:1", 400), ("b:1", 200), ("c:1", 300)] {
        assert!(share(&after, name).abs_diff(owed) <= 9, "{after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn weights_follow_reports_within_a_period_and_end_with_the_expiration() {
    let (stage, says) = (Stage::default(), Says::default());
    says.set("a:1", used(100.0, 0.2));
    says.set("b:1", used(100.0, 0.8));
    let short = by_reports(|own| own.blackout(Duration::ZERO).expiration(secs(20)).every(secs(2)));
    let client = client(&stage, &says, &["a:1", "b:1"], short);
    shares(&client, 10).await;
    tokio::time::sleep(ms(2_100)).await;
    let weighted = shares(&client, 100).await;
    assert!(share(&weighted, "a:1").abs_diff(80) <= 2, "{weighted:?}");
    says.set("a:1", used(100.0, 0.8));
    says.set("b:1", used(100.0, 0.2));
    shares(&client, 20).await;
    tokio::time::sleep(ms(2_100)).await;
    let turned = shares(&client, 100).await;
    assert!(share(&turned, "b:1").abs_diff(80) <= 2, "{turned:?}");
    // Silent for so long, nobody has a weight.
    says.set("a:1", None);
    says.set("b:1", None);
    tokio::time::sleep(secs(23)).await;
    let even = shares(&client, 100).await;
    assert_eq!(share(&even, "a:1"), 50, "{even:?}");
    assert_eq!(client.status().endpoints[0].reported_weight, None);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_connected_anew_must_have_reported_for_the_blackout_again() {
    let (stage, says) = (Stage::default(), Says::default());
    says.set("a:1", used(100.0, 0.5));
    let builder = stage.dialing(resolve::fixed(["a:1"])).classify(says).options(by_reports(|own| own));
    let client = builder.build().unwrap();
    let weight = || client.status().endpoints[0].reported_weight;
    shares(&client, 1).await;
    tokio::time::sleep(secs(11)).await;
    shares(&client, 1).await;
    assert_eq!(weight(), Some(200.0));
    stage.server("a:1").gate(Gate::Broken);
    let waiting = tokio::spawn(client.send(0));
    tokio::time::sleep(ms(1)).await;
    stage.server("a:1").gate(Gate::Open);
    waiting.await.unwrap().unwrap();
    assert_eq!(weight(), None);
    tokio::time::sleep(secs(11)).await;
    assert_eq!(weight(), Some(200.0));
}

#[tokio::test(start_paused = true)]
async fn what_one_had_in_flight_is_not_known_of_who_is_connected_anew() {
    let (stage, says) = (Stage::default(), Says::default());
    says.set("a:1", busy(500));
    let options = options(|options| options.reports = true);
    let builder = stage.dialing(resolve::fixed(["a:1", "b:1"])).classify(says).options(options);
    let client = builder.build().unwrap();
    client.ready().await.unwrap();
    let told = || status(&client, "a:1").others_in_flight;
    while told().is_none() {
        client.send(0).await.unwrap();
    }
    stage.server("a:1").gate(Gate::Broken);
    while status(&client, "a:1").is_available() {
        client.send(0).await.unwrap();
    }
    stage.server("a:1").gate(Gate::Open);
    tokio::time::sleep(secs(5)).await;
    assert!(status(&client, "a:1").is_available());
    assert_eq!(told(), None);
}

#[tokio::test(start_paused = true)]
async fn of_an_endpoint_that_is_partly_this_clients_the_reported_weight_counts_in_part() {
    let (stage, says) = (Stage::default(), Says::default());
    let names = ["a:1", "b:1", "c:1"];
    names.iter().for_each(|name| says.set(name, used(100.0, 0.5)));
    let mut own = by_reports(|own| own.blackout(Duration::ZERO));
    own.subset = Subset::deterministic(0, 2, 1);
    let client = client(&stage, &says, &names, own);
    shares(&client, 20).await;
    tokio::time::sleep(ms(1_100)).await;
    let mut shares: Vec<usize> = shares(&client, 300).await.into_values().collect();
    shares.sort_unstable();
    assert!(shares.len() == 2 && shares[0].abs_diff(100) <= 2, "a half and a whole: {shares:?}");
}

#[tokio::test(start_paused = true)]
async fn distribution_by_reports_can_be_put_in_and_taken_out_while_it_runs() {
    let (stage, says) = (Stage::default(), Says::default());
    says.set("a:1", used(100.0, 0.2));
    says.set("b:1", used(100.0, 0.8));
    let client = client(&stage, &says, &["a:1", "b:1"], options(|_| {}));
    shares(&client, 20).await;
    client.update(by_reports(|own| own.blackout(Duration::ZERO))).unwrap();
    shares(&client, 20).await;
    tokio::time::sleep(ms(1_100)).await;
    let weighted = shares(&client, 100).await;
    assert!(share(&weighted, "a:1").abs_diff(80) <= 2, "{weighted:?}");
    client.update(options(|options| options.distribution = Distribution::RoundRobin)).unwrap();
    let even = shares(&client, 100).await;
    assert_eq!(share(&even, "a:1"), 50, "{even:?}");
    let wrong = by_reports(|own| own.every(ms(1)));
    assert_eq!(client.update(wrong).unwrap_err().problems()[0].field, "distribution.every");
}

#[tokio::test(start_paused = true)]
async fn a_report_that_makes_no_sense_takes_no_more_than_ten_times_the_median() {
    let (stage, says) = (Stage::default(), Says::default());
    let names: Vec<String> = (0..20).map(|number| format!("{number:02}:1")).collect();
    names.iter().for_each(|name| says.set(name, used(100.0, 0.5)));
    says.set("00:1", used(1e12, 1e-9));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let client = client(&stage, &says, &names, by_reports(|own| own.blackout(Duration::ZERO)));
    shares(&client, 40).await;
    tokio::time::sleep(ms(1_100)).await;
    let shares = shares(&client, 1_000).await;
    assert!((300..400).contains(&share(&shares, "00:1")), "{shares:?}");
    assert!(names.iter().all(|name| share(&shares, name) > 0), "{shares:?}");
}

#[tokio::test(start_paused = true)]
async fn one_that_says_it_can_do_next_to_nothing_is_given_a_tenth_of_the_median() {
    let (stage, says) = (Stage::default(), Says::default());
    let names: Vec<String> = (0..20).map(|number| format!("{number:02}:1")).collect();
    names.iter().for_each(|name| says.set(name, used(100.0, 0.5)));
    says.set("00:1", used(1e-9, 1e12));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let client = client(&stage, &says, &names, by_reports(|own| own.blackout(Duration::ZERO)));
    shares(&client, 40).await;
    tokio::time::sleep(ms(1_100)).await;
    let shares = shares(&client, 1_910).await;
    assert!((9..=11).contains(&share(&shares, "00:1")), "{shares:?}");
}
