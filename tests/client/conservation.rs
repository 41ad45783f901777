//! Whatever servers and callers do: how often a request is sent, and that nothing is left behind.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use mainstay::{
    Ratio,
    budget::{Budget, BudgetOptions},
    clock,
    describe::NotIdempotent,
    hedge::{Delay, HedgeOptions},
    random::{Random as _, Seeded},
    resolve,
};

use crate::fleet::*;

const NAMES: [&str; 4] = ["a:1", "b:1", "c:1", "d:1"];

/// Servers whose behaviour changes by chance.
struct Moody {
    stage: Stage,
    random: Seeded,
}

impl Moody {
    fn new(seed: u64) -> Self {
        Self { stage: Stage::default(), random: Seeded::new(seed) }
    }

    fn draw(&self, among: u64) -> u64 {
        self.random.next() % among
    }

    fn change(&self) {
        for name in NAMES {
            let time = ms(1 + self.draw(60));
            self.stage.server(name).set(match self.draw(8) {
                0 | 1 => Mode::Fail(time),
                2 => Mode::Hang,
                _ => Mode::Answer(time),
            });
        }
    }

    fn served(&self) -> usize {
        self.stage.served().iter().sum()
    }

    fn active(&self) -> usize {
        NAMES.iter().map(|name| self.stage.server(name).active()).sum()
    }
}

fn hedged() -> HedgeOptions {
    HedgeOptions::default().delay(Delay::Fixed(ms(15))).share(Ratio::percent::<50>()).max_attempts(3)
}

/// Sends requests to moody servers, each with the patience that is drawn for it.
async fn storm(moody: &Moody, client: &Client, rounds: u32) {
    for round in 0..rounds {
        moody.change();
        let patience: Vec<Duration> = (0..20).map(|_| ms(1 + moody.draw(250))).collect();
        stream::iter(patience)
            .map(|patience| tokio::time::timeout(patience, client.send(round)))
            .buffer_unordered(8)
            .for_each(|_| std::future::ready(()))
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_besides_is_never_more_than_the_budget_gives_hedges_included() {
    for seed in 0..12 {
        let moody = Moody::new(seed);
        let share = BudgetOptions::default().share(Ratio::percent::<20>()).reserve(5);
        let client = builder(&moody.stage, resolve::fixed(NAMES))
            .hedge(hedged())
            .budget(share)
            .retry(at_once(3))
            .attempt_limit(ms(100))
            .build()
            .unwrap();
        let start = clock::now();
        storm(&moody, &client, 60).await;
        let windows = clock::now().saturating_duration_since(start).as_secs() / 10 + 1;
        let status = client.status();
        let asked = status.successes + status.failures + status.cancelled;
        let (drawn, paid) = (status.hedges + status.retries, status.successes);
        // Probes are repeated free, at most as often as there were any: each endpoint that was set aside has one a while.
        let probes = 2 * NAMES.len() as u64 * (windows + 1);
        assert!(status.hedges > 0 && status.retries > 0, "seed {seed}: {status:?}");
        assert!(
            drawn as f64 <= 0.2 * paid as f64 + (5 * windows + probes) as f64,
            "seed {seed}: {drawn} of {paid} in {windows} windows"
        );
        assert!(moody.served() as u64 <= asked + drawn, "seed {seed}: nothing is sent that is not counted");
        assert!(status.hedges as f64 <= asked as f64 * 0.5, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_withdrawn_for_an_attempt_that_was_not_sent_comes_back() {
    for seed in 0..12 {
        let moody = Moody::new(seed);
        let budget = Budget::new(reserve(1_000_000)).unwrap();
        let client = builder(&moody.stage, resolve::fixed(NAMES))
            .hedge(hedged())
            .shared_budget(budget.clone())
            .retry(every(ms(30), 3))
            .attempt_limit(ms(100))
            .build()
            .unwrap();
        moody.stage.server("a:1").set(Mode::Answer(ms(5)));
        // Short of the window, so that nothing leaves it meanwhile.
        storm(&moody, &client, 6).await;
        let status = client.status();
        let spent = 1_000_000 - u64::from(budget.available(clock::now()));
        assert!(spent <= status.hedges + status.retries, "seed {seed}: {spent}, {status:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_that_may_have_been_processed_is_sent_twice_unless_that_is_harmless() {
    for seed in 0..12 {
        let moody = Moody::new(seed);
        let client = builder(&moody.stage, resolve::fixed(NAMES))
            .describe(NotIdempotent)
            .hedge(hedged().share(None))
            .budget(reserve(1_000_000))
            .retry(at_once(5))
            .attempt_limit(ms(100))
            .build()
            .unwrap();
        storm(&moody, &client, 60).await;
        let status = client.status();
        let asked = status.successes + status.failures + status.cancelled;
        assert!(moody.served() as u64 <= asked, "seed {seed}: {} of {asked}", moody.served());
        assert_eq!(status.hedges, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_gives_up_at_any_time_leaves_no_attempt_running() {
    for seed in 0..12 {
        let moody = Moody::new(seed);
        let client = builder(&moody.stage, resolve::fixed(NAMES))
            .hedge(hedged())
            .budget(reserve(1_000_000))
            .retry(every(ms(10), 3))
            .attempt_limit(ms(80))
            .build()
            .unwrap();
        storm(&moody, &client, 30).await;
        assert_eq!(moody.active(), 0, "seed {seed}");
        assert!(client.status().balance.endpoints.iter().all(|row| row.in_flight == 0), "seed {seed}");
        assert!(client.close(ms(0)).await, "seed {seed}");
    }
}
