//! Comparing the endpoints with each other, once in an interval.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{BATCH, Control};
use crate::{
    balance::member::Member,
    clock,
    estimate::Recent,
    health::{
        Sentence,
        outlier::{Outliers, Sample, Sweep},
    },
};

/// What the comparison remembers from one look to the next.
#[derive(Debug)]
pub(super) struct Comparison {
    sweep: Sweep,
    /// When the counts of this interval began, and when they were last looked at.
    began: Instant,
    looked: Instant,
    /// What each endpoint had counted when the interval began.
    before: HashMap<u64, Counted>,
}

/// What an endpoint has counted, in which generation of its health.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    successes: u64,
    failures: u64,
    generation: u32,
}

impl Comparison {
    pub(super) fn new(now: Instant) -> Self {
        Self { sweep: Sweep::new(), began: now, looked: now, before: HashMap::new() }
    }
}

impl<S: Send + Sync + 'static> Control<S> {
    /// When the endpoints are to be looked at, if there are enough to be compared.
    pub(super) fn next_comparison(&self) -> Option<Instant> {
        let options = self.fleet.options.load();
        let rules = options.health.outliers.as_ref().filter(|_| options.health.enabled)?;
        // The timer keeps its phase when the interval is changed.
        (self.endpoints() >= rules.least()).then(|| self.comparison.looked + rules.interval())
    }

    /// Compares the endpoints, if it is time to and enough is known.
    pub(super) async fn compare(&mut self) {
        let now = clock::now();
        if self.next_comparison().is_none_or(|at| at > now) {
            return;
        }
        let options = self.fleet.options.load_full();
        let Some(rules) = &options.health.outliers else { return };
        // Counts of a time in which nobody looked, because there were too few to compare, are no interval's.
        let late = now.saturating_duration_since(self.comparison.looked) > rules.interval() * 2;
        let members: Vec<_> =
            self.slots.values().filter(|slot| slot.gone.is_none()).map(|slot| slot.member.clone()).collect();
        let (mut samples, mut counts) =
            (Vec::with_capacity(members.len()), HashMap::with_capacity(members.len()));
        for (index, member) in members.iter().enumerate() {
            if index % BATCH == BATCH - 1 {
                tokio::task::yield_now().await;
            }
            // One that is not known is new in this interval, and all that it has counted is of it.
            let before = self.comparison.before.get(&member.id).copied().unwrap_or_default();
            let before = (!late).then_some(before);
            let (sample, counted) = sample(member, before, rules, now);
            samples.push(sample);
            counts.insert(member.id, counted);
        }
        let elapsed = now.saturating_duration_since(self.comparison.began);
        self.comparison.looked = now;
        if let Outliers::Robust(robust) = rules
            && !late
            && elapsed < rules.longest()
            && !robust.is_enough(&samples)
        {
            // The interval goes on; those that are new in it, or anew, begin here.
            for (id, counted) in counts {
                let own = self.comparison.before.entry(id).or_default();
                if own.generation != counted.generation {
                    *own = counted;
                }
            }
            return;
        }
        let by_id: HashMap<u64, &Arc<Member>> = members.iter().map(|member| (member.id, member)).collect();
        let (fleet, comparison) = (&*self.fleet, &mut self.comparison);
        comparison.sweep.run(rules, &samples, &*fleet.random, &mut |verdict| {
            let (Some(member), Some(counted)) = (by_id.get(&verdict.id), counts.get(&verdict.id)) else {
                return false;
            };
            let sentence = Sentence { why: verdict.why, lasts: verdict.lasts };
            let moved = member.health.judge(
                sentence,
                counted.generation,
                now,
                &options.health,
                &fleet.ledger,
                &*fleet.random,
            );
            if let Some(moved) = moved {
                fleet.changed(member, moved);
            }
            moved.is_some()
        });
        comparison.before.extend(counts);
        // One that is away may come back with all that it has counted.
        comparison.before.retain(|id, _| self.slots.contains_key(id));
        comparison.began = now;
    }

    /// Options were replaced: where endpoints are not compared any more, those that are out by that come back; where they are
    /// not ejected at all, those that are out by any rule.
    pub(super) fn stop_comparing(&mut self) {
        let options = self.fleet.options.load();
        let compares = match &options.health.outliers {
            Some(Outliers::Grpc(grpc)) => grpc.success_rate.is_some() || grpc.failure_percentage.is_some(),
            rules => rules.is_some(),
        };
        if compares && options.health.enabled {
            return;
        }
        self.comparison.sweep.reset();
        for slot in self.slots.values() {
            let (health, now) = (&slot.member.health, clock::now());
            let moved = if options.health.enabled {
                health.acquit(now, &self.fleet.ledger)
            } else {
                health.pardon(now, &self.fleet.ledger)
            };
            if let Some(moved) = moved {
                self.fleet.changed(&slot.member, moved);
            }
        }
    }
}

/// What `member` has shown since `before`, and what it has counted now.
fn sample(member: &Member, before: Option<Counted>, rules: &Outliers, now: Instant) -> (Sample, Counted) {
    let (successes, failures) = member.health.counted();
    let counted = Counted { successes, failures, generation: member.health.generation() };
    // What it did before it was set aside says nothing about it now that it is back.
    let since = before.filter(|before| before.generation == counted.generation).unwrap_or(counted);
    let mut sample = Sample::new(member.id, 0, 0);
    sample.successes = successes.saturating_sub(since.successes);
    sample.failures = failures.saturating_sub(since.failures);
    sample.out = member.health.is_ejected();
    // Latencies of the last minute are all of the present state only after a minute.
    let settled = || now.saturating_duration_since(member.health.state().1) >= Recent::PERIOD * 2;
    if let Outliers::Robust(robust) = rules
        && robust.latency.is_some()
        && settled()
    {
        let latencies = member.recent.counts(now);
        sample.latency = latencies.quantile(0.5).filter(|latency| *latency > Duration::ZERO);
        sample.latencies = latencies.total();
    }
    (sample, counted)
}
