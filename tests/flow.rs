//! Limits and classes in a virtual fleet: 20 servers of four slots, 20 clients, twice the load that the fleet can do.
#![allow(missing_docs)]

use std::time::Duration;

use futures::future::join_all;
use mainstay::{
    Client, Invalid,
    describe::Criticality,
    limit::{Algorithm, ConcurrencyLimitOptions, control::EbbOptions},
    retry::RetryPolicy,
    testing::{
        Classifier, Connection, Description, Fleet, OpenLoop, Recorder, Request, ServerOptions, Summary,
        World, simulate,
    },
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// Requests a second: 80 slots, 40 ms each.
const CAPACITY: f64 = 2_000.0;

fn client(
    world: &World,
    fleet: &Fleet,
    number: u32,
    limit: Option<ConcurrencyLimitOptions>,
) -> Result<Client<Connection, Request>, Invalid> {
    Client::builder(format!("client {number}"))
        .resolve(fleet.resolver())
        .connect(fleet.connect())
        .describe(Description)
        .classify(Classifier)
        .retry(RetryPolicy::default().max_attempts(1))
        .attempt_limit(SECOND)
        .deadline(SECOND)
        .limit(limit)
        .random(world.random(format!("client {number}")))
        .build()
}

/// An adaptive limit, and a short line before it.
fn adaptive(ebb: EbbOptions) -> ConcurrencyLimitOptions {
    ConcurrencyLimitOptions::default().algorithm(Algorithm::Ebb(ebb)).max_waiting(8).max_wait(MS * 500)
}

/// That is told how long latency may be: three times what it is without a queue.
fn bounded() -> ConcurrencyLimitOptions {
    adaptive(EbbOptions::default().range(8, 3, 200).longest(MS * 126))
}

/// What twenty clients see from second 3 on, who ask for these shares of the capacity by requests of these classes.
fn storm(
    seed: u64,
    classes: &[(Criticality, f64)],
    limit: Option<ConcurrencyLimitOptions>,
) -> Vec<(usize, Summary)> {
    let until = SECOND * 15;
    simulate(seed, async |world| {
        let fleet = Fleet::builder().servers(20, ServerOptions::default()).delay(MS).build(&world)?;
        let recorders: Vec<Recorder> = classes.iter().map(|_| Recorder::new()).collect();
        let mut loads = Vec::new();
        for number in 0..20 {
            let client = client(&world, &fleet, number, limit.clone())?;
            for (at, (class, load)) in (0..).zip(classes) {
                let requests = Request::new(0).criticality(*class);
                let load = OpenLoop::poisson(CAPACITY * load / 20.0, until)
                    .client(number * 8 + at)
                    .requests(requests);
                let (world, client, recorder) =
                    (world.clone(), client.clone(), recorders[at as usize].clone());
                loads.push(async move { load.run(&world, client, &recorder).await });
            }
        }
        join_all(loads).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut told = Vec::new();
        for recorder in recorders {
            recorder.idle().await;
            let records = recorder.records();
            let late = records.iter().filter(|record| record.due >= SECOND * 3);
            told.push((late.clone().count(), Summary::of(late.filter(|record| record.is_success()))));
        }
        Ok::<_, Invalid>(told)
    })
    .unwrap()
}

#[test]
fn at_twice_the_load_the_fleet_stays_busy_and_its_answers_quick() {
    let all = |load: f64, limit| storm(1, &[(Criticality::Critical, load)], limit).remove(0).1;
    let goodput = |summary: &Summary| summary.successes() as f64 / (CAPACITY * 12.0);
    let (unloaded, without) = (all(0.5, None).quantile(0.99), goodput(&all(2.0, None)));
    for limit in [bounded(), adaptive(EbbOptions::default())] {
        let limited = all(2.0, Some(limit));
        let (with, p99) = (goodput(&limited), limited.quantile(0.99));
        assert!(with > 0.95 && without < 0.5, "{with:.3} of capacity, without a limit {without:.3}");
        assert!(p99 < unloaded * 3, "{p99:?}, unloaded {unloaded:?}");
    }
}

#[test]
fn at_twice_the_load_the_highest_class_loses_next_to_nothing() {
    let classes =
        [(Criticality::CriticalPlus, 0.2), (Criticality::Critical, 0.6), (Criticality::Sheddable, 1.2)];
    for limit in [bounded(), adaptive(EbbOptions::default())] {
        let told = storm(1, &classes, Some(limit));
        let success: Vec<f64> =
            told.iter().map(|(asked, good)| good.successes() as f64 / *asked as f64).collect();
        assert!(success[0] > 0.99 && success[1] > 0.75 && success[2] < 0.3, "{success:?}");
    }
}
