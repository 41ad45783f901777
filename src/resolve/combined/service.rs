//! The resolver that merges others.

use std::{
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::task::coop::poll_proceed;

use super::{
    branch::Branch,
    merge::{Failover, First, Merge, Union},
};
use crate::{
    Invalid,
    alarm::Alarm,
    clock,
    invalid::Check,
    resolve::{Effective, Endpoints, Resolution, Resolve},
};

/// The endpoints of the first resolver, in the order in which they are added, that has any.
pub fn first() -> Combined<First> {
    Combined::new(First)
}

/// The endpoints of all; those of each resolver have their priorities behind those of the resolvers before it. Requests
/// go to the first as far as its endpoints are well, and spill to those behind it as between priorities.
pub fn failover() -> Combined<Failover> {
    Combined::new(Failover)
}

/// The endpoints of all. An endpoint that several tell, by its address, counts as the first of them has it.
pub fn union() -> Combined<Union> {
    Combined::new(Union)
}

/// How many words in a row one resolver is heard before the others are.
const BURST: usize = 16;

/// Several resolvers as one: what [`first`], [`failover`] and [`union`] make.
///
/// **Problem.** One name is often known to two registries: the old and the new one of a migration, the own data centre's and
/// the far one's, a blue and a green fleet. **Idea.** Each resolver stands for itself, with its own grace for losses, and
/// what they tell is merged by one of three rules.
///
/// | | requests go to | |
/// |---|---|---|
/// | [`first`] | the first that has endpoints | a registry, and where it is not there, another |
/// | [`failover`] | the first, and as far as its endpoints fail to those behind it | fleets in an order |
/// | [`union`] | all, in shares if wanted | a migration, a canary |
///
/// ```
/// use mainstay::resolve;
///
/// let blue = resolve::fixed(["10.0.0.1:80", "10.0.0.2:80"]);
/// let green = resolve::fixed(["10.0.1.1:80"]);
/// let canary = resolve::union().weighted(blue, 9.0).weighted(green, 1.0);
///
/// let here = resolve::fixed(["10.0.0.1:80", "10.0.0.2:80"]);
/// let there = resolve::fixed(["10.9.0.1:80"]);
/// let fleets = resolve::failover().with(here).with(there);
/// # let _ = (canary, fleets);
/// ```
///
/// **Trouble.** A resolver that fails keeps its last set; one that says that there is nothing keeps it for a grace period
/// \[30 s\]. What a merge tells of trouble names every resolver that is in it, beside the set that the others make. Only
/// when none has a set any more, or has yet had one and none is still to be heard, is that the merge's own answer: failed if
/// any failed, else absent or empty. At the start a resolver that is silent is waited for \[1 s\], where what it will say would come first.
///
/// **Sources.** Finagle's delegation by `|` (first) and `&` (weighted union) in a `Dtab`; Envoy's aggregate cluster
/// (failover).
#[derive(Debug)]
pub struct Combined<M> {
    merge: M,
    branches: Vec<Branch>,
    grace: Duration,
    patience: Duration,
    /// When silence is not waited for any more.
    until: Option<Instant>,
    alarm: Alarm,
    told: Option<Endpoints>,
    said: String,
    /// Trouble that is to be told after the set beside it.
    trouble: Option<Resolution>,
    ended: bool,
}

impl<M: Merge> Combined<M> {
    fn new(merge: M) -> Self {
        Self {
            merge,
            branches: Vec::new(),
            grace: Duration::from_secs(30),
            patience: Duration::from_secs(1),
            until: None,
            alarm: Alarm::default(),
            told: None,
            said: String::new(),
            trouble: None,
            ended: false,
        }
    }

    /// Adds a resolver behind the others.
    #[must_use]
    pub fn with(mut self, resolver: impl Resolve) -> Self {
        self.branches.push(Branch::new(Box::new(resolver), None, self.grace));
        self
    }

    /// How long a resolver that says that there is nothing keeps its endpoints \[30 s\].
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self.branches.iter_mut().for_each(|branch| branch.set_grace(grace));
        self
    }

    /// How long, at the start, a resolver is waited for whose endpoints would come before those of the others \[1 s\].
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// What there is to tell now, if it is something new.
    fn merged(&mut self, waited: bool) -> Option<Resolution> {
        if !waited && self.told.is_none() && self.merge.waits(&self.branches) {
            return None;
        }
        let mut said = String::new();
        self.branches.iter().for_each(|branch| branch.trouble(&mut said));
        let trouble = (!said.is_empty()).then(|| Resolution::Failed(Arc::new(Trouble(said.clone()))));
        let news = said != self.said;
        self.said = said;
        if let Some(set) = self.merge.merge(&mut self.branches) {
            let same = self.told.as_ref().is_some_and(|told| is_same(told, &set));
            if same && !news {
                return None;
            }
            self.told = Some(set.clone());
            self.trouble = trouble;
            return Some(Resolution::Bound(set));
        }
        self.trouble = None;
        // What was told is taken back, whoever may still be heard.
        let is_lost = self.told.take().is_some();
        if !is_lost && self.branches.iter().any(Branch::is_silent) {
            return None;
        }
        let is_absent = |branch: &Branch| matches!(branch.effective(), Effective::Absent);
        trouble.or_else(|| {
            let absent = self.branches.iter().all(is_absent);
            Some(if absent { Resolution::Absent } else { Resolution::Bound(Endpoints::from([])) })
        })
    }
}

impl Combined<Union> {
    /// Adds a resolver whose endpoints together get `weight`, beside the weights of the others, however many they are:
    /// of 9 and 1 the second gets a tenth of the requests. Endpoints of resolvers added by [`with`](Self::with) keep
    /// their own weights, 1 each where nothing else is said. While a resolver has no endpoints the others share what
    /// would be its own.
    #[must_use]
    pub fn weighted(mut self, resolver: impl Resolve, weight: f64) -> Self {
        self.branches.push(Branch::new(Box::new(resolver), Some(weight), self.grace));
        self
    }
}

impl<M: Merge> Resolve for Combined<M> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Resolution>> {
        if let Some(trouble) = self.trouble.take() {
            return Poll::Ready(Some(trouble));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        if self.until.is_none()
            && let Err(invalid) = self.validate()
        {
            self.ended = true;
            return Poll::Ready(Some(Resolution::Failed(Arc::new(invalid))));
        }
        let until = *self.until.get_or_insert_with(|| clock::now() + self.patience);
        let budget = ready!(poll_proceed(cx));
        let mut heard = false;
        for branch in &mut self.branches {
            let words = (0..BURST).take_while(|_| branch.poll(cx)).count();
            heard |= words > 0;
            if words == BURST {
                cx.waker().wake_by_ref();
            }
        }
        let was_waiting = self.told.is_none() && self.merge.waits(&self.branches);
        let waited = clock::now() >= until || (was_waiting && self.alarm.poll(cx, Some(until)));
        if (heard || (waited && was_waiting))
            && let Some(resolution) = self.merged(waited)
        {
            budget.made_progress();
            return Poll::Ready(Some(resolution));
        }
        if self.branches.iter().all(Branch::is_over) && !was_waiting {
            self.ended = true;
            return Poll::Ready(None);
        }
        Poll::Pending
    }

    fn refresh(&mut self) {
        self.branches.iter_mut().for_each(Branch::refresh);
    }

    fn describe(&self) -> String {
        let all: Vec<String> = self.branches.iter().map(|branch| branch.resolver().describe()).collect();
        format!("{} of [{}]", M::NAME, all.join(", "))
    }

    fn validate(&self) -> Result<(), Invalid> {
        Check::of(|check| {
            check.part(M::NAME, |check| {
                let rule = "at least one resolver, added by `with`";
                check.rule(!self.branches.is_empty(), "resolvers", self.branches.len(), rule);
                check.duration("grace", self.grace).duration("patience", self.patience);
                for (index, branch) in self.branches.iter().enumerate() {
                    let weight = branch.weight.unwrap_or(1.0);
                    let part = format!("resolvers[{index}]");
                    let rule = "a positive finite number";
                    check.rule(weight.is_finite() && weight > 0.0, &format!("{part}.weight"), weight, rule);
                    check.absorb(&format!("{}.{part}", M::NAME), branch.resolver().validate());
                }
            });
        })
    }
}

fn is_same(one: &Endpoints, other: &Endpoints) -> bool {
    one.len() == other.len() && one.iter().zip(other.iter()).all(|(one, other)| Arc::ptr_eq(one, other))
}

/// What is wrong with some of the resolvers.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Trouble(String);
