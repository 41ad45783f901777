//! The handle of a budget, and the guard of a withdrawal.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    BudgetOptions, SLOTS, concurrent::Concurrent, deposits::Deposits, ledger::Ledger, tokens::Tokens,
};
use crate::{
    Invalid, Ratio,
    estimate::slices::Slices,
    invalid::Check,
    sync::{Mutex, lock, stripe},
};

/// A shared allowance for extra load: retries, hedges and synthetic probes withdraw from it what successes deposit.
///
/// A clone is a handle to the same budget.
#[derive(Clone)]
pub struct Budget(Arc<Rule>);

/// What allows a withdrawal.
#[allow(
    clippy::large_enum_variant,
    reason = "there is one for each client, and the usual one is the largest"
)]
enum Rule {
    Share(Share),
    Tokens(Tokens),
    Concurrent(Concurrent),
}

/// A share of the successes of a window, and a reserve.
struct Share {
    slots: Slices,
    window: Duration,
    deposits: Deposits,
    ledger: Mutex<Ledger>,
}

impl Budget {
    /// A budget without deposits; its time is counted from now.
    ///
    /// # Errors
    /// [`Invalid`] if the window is shorter than 10 ms or longer than 10 years.
    pub fn new(options: BudgetOptions) -> Result<Self, Invalid> {
        Self::starting(options, crate::clock::now())
    }

    /// The throttle of gRFC A6, which calls its numbers `maxTokens` and `tokenRatio`. The tokens begin at their maximum. What
    /// fails and might be repeated takes one away, a success gives `token_ratio` of one, and there are retries and hedges
    /// while more than half of `max_tokens` are left. A retry itself costs nothing.
    ///
    /// As in A6 each client begins with a full bucket, so that many sparse clients together are hardly throttled at all.
    ///
    /// # Errors
    /// [`Invalid`] unless `max_tokens` is from 1 to 1,000 and `token_ratio`, of which three places count, is at least 0.001.
    pub fn grpc(max_tokens: u32, token_ratio: f64) -> Result<Self, Invalid> {
        Ok(Self(Arc::new(Rule::Tokens(Tokens::new(max_tokens, token_ratio)?))))
    }

    /// Envoy's `retry_budget`: as many retries and hedges may be waiting or under way as are `share` of the requests that are
    /// under way, or `least`, whichever is more. Envoy's own numbers are 20 % and 3.
    pub fn envoy(share: Ratio, least: u32) -> Self {
        Self(Arc::new(Rule::Concurrent(Concurrent::new(share, least))))
    }

    /// The same with time counted from `epoch`: what comes earlier counts as the epoch.
    pub(crate) fn starting(options: BudgetOptions, epoch: Instant) -> Result<Self, Invalid> {
        let mut check = Check::default();
        options.check(&mut check);
        check.finish()?;
        Ok(Self(Arc::new(Rule::Share(Share {
            slots: Slices::new(epoch, options.window / SLOTS as u32),
            window: options.window,
            deposits: Deposits::new(),
            ledger: Mutex::new(Ledger::new(&options)),
        }))))
    }

    /// Pays in one success: one load and one compare-and-swap on a cache line of the thread's own.
    #[inline]
    pub fn deposit(&self, now: Instant) {
        self.deposit_on(stripe(), now);
    }

    /// Pays in one success at the time of the current poll.
    #[inline]
    pub(crate) fn deposit_now(&self) {
        match &*self.0 {
            Rule::Share(share) => {
                let slots = &share.slots;
                share.deposits.add(stripe(), slots.divide(crate::context::nanos_since(slots.epoch())));
            }
            other => other.succeeded(),
        }
    }

    #[inline]
    pub(super) fn deposit_on(&self, stripe: usize, now: Instant) {
        match &*self.0 {
            Rule::Share(share) => share.deposits.add(stripe, share.slots.number(now)),
            other => other.succeeded(),
        }
    }

    /// Notes a failure that might be repeated: it drains the tokens of [`grpc`](Self::grpc), and says nothing to others.
    pub fn fail(&self) {
        if let Rule::Tokens(tokens) = &*self.0 {
            tokens.failed();
        }
    }

    /// Takes out one extra request, or `None` if that would break the rule.
    ///
    /// The withdrawal counts from here on, and is given back if the guard is dropped without being spent. Withdrawals take
    /// turns on a lock.
    #[must_use]
    pub fn withdraw(&self, now: Instant) -> Option<Withdrawal> {
        let slot = match &*self.0 {
            Rule::Share(share) => {
                let slot = share.slots.number(now);
                lock(&share.ledger).withdraw(slot, |slot| share.deposits.sum(slot))?
            }
            Rule::Tokens(tokens) => tokens.allows().then_some(0)?,
            Rule::Concurrent(concurrent) => concurrent.withdraw().then_some(0)?,
        };
        Some(Withdrawal { budget: self.clone(), slot, spent: false })
    }

    /// How many withdrawals would succeed now if nobody else came. For status; a later withdrawal may find otherwise. Of
    /// [`grpc`](Self::grpc) it is how many failures are left until there are no retries.
    pub fn available(&self, now: Instant) -> u32 {
        let available = match &*self.0 {
            Rule::Share(share) => {
                let slot = share.slots.number(now);
                lock(&share.ledger).available(slot, |slot| share.deposits.sum(slot))
            }
            Rule::Tokens(tokens) => u64::from(tokens.available()),
            Rule::Concurrent(concurrent) => concurrent.available(),
        };
        u32::try_from(available).unwrap_or(u32::MAX)
    }

    /// Withdrawals per deposit, or per request, from 0 to 1; `None` where there is no bound on that.
    pub(crate) fn share(&self) -> Option<f64> {
        match &*self.0 {
            Rule::Share(share) => Some(lock(&share.ledger).share()),
            Rule::Concurrent(concurrent) => Some(concurrent.share()),
            Rule::Tokens(_) => None,
        }
    }

    /// Withdrawals for each deposit of the window, where those are counted.
    pub(crate) fn drawn(&self, now: Instant) -> f64 {
        let Rule::Share(share) = &*self.0 else { return 0.0 };
        let slot = share.slots.number(now);
        let deposits = share.deposits.sum(slot).max(1);
        lock(&share.ledger).drawn(slot) as f64 / deposits as f64
    }

    /// Whether the rule goes by what is under way.
    #[inline]
    pub(crate) fn counts_requests(&self) -> bool {
        matches!(&*self.0, Rule::Concurrent(_))
    }

    /// Counts a request as under way, where the rule goes by that.
    pub(crate) fn enter(&self) -> Option<Box<Entered>> {
        match &*self.0 {
            Rule::Concurrent(concurrent) => Some(Entered::begin(self, concurrent, true)),
            _ => None,
        }
    }

    /// The same for a part of a request that counts already: what it spends is kept to its end.
    pub(crate) fn enter_within(&self) -> Option<Box<Entered>> {
        match &*self.0 {
            Rule::Concurrent(concurrent) => Some(Entered::begin(self, concurrent, false)),
            _ => None,
        }
    }

    /// Replaces share and reserve. What was deposited and withdrawn stays, so a smaller share may refuse until enough
    /// withdrawals have left the window.
    ///
    /// # Errors
    /// [`Invalid`] if the window differs from the present one: counts cannot be cut anew. Make a new budget for that. A
    /// budget by another's rule has no such options.
    pub fn update(&self, options: &BudgetOptions) -> Result<(), Invalid> {
        let mut check = Check::default();
        options.check(&mut check);
        let window = match &*self.0 {
            Rule::Share(share) => Some(share.window),
            _ => None,
        };
        check.rule(
            window.is_none_or(|window| options.window == window),
            "window",
            options.window,
            "the window of a running budget cannot change",
        );
        check.rule(window.is_some(), "", options, "the budget goes by another rule");
        check.finish()?;
        if let Rule::Share(share) = &*self.0 {
            lock(&share.ledger).set(options);
        }
        Ok(())
    }
}

impl Rule {
    /// A success, for those that do not count successes of a window.
    #[inline(never)]
    fn succeeded(&self) {
        if let Self::Tokens(tokens) = self {
            tokens.succeeded();
        }
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = f.debug_struct("Budget");
        match &*self.0 {
            Rule::Share(share) => told.field("window", &share.window),
            Rule::Tokens(tokens) => told.field("tokens", tokens),
            Rule::Concurrent(concurrent) => told.field("concurrent", concurrent),
        };
        told.finish_non_exhaustive()
    }
}

/// A request that is under way, and the retries and hedges of it that are, where a budget goes by that.
#[derive(Debug)]
pub(crate) struct Entered {
    budget: Budget,
    stripe: usize,
    /// Whether it counts as a request under way: not if it is part of one that does.
    counts: bool,
    retries: u32,
}

impl Entered {
    #[cold]
    fn begin(budget: &Budget, concurrent: &Concurrent, counts: bool) -> Box<Self> {
        let stripe = stripe();
        if counts {
            concurrent.began(stripe);
        }
        Box::new(Self { budget: budget.clone(), stripe, counts, retries: 0 })
    }

    /// A retry or hedge of this request is under way, until the request is over.
    pub(crate) fn keep(&mut self) {
        self.retries += 1;
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Rule::Concurrent(concurrent) = &*self.budget.0 {
            if self.counts {
                concurrent.ended(self.stripe);
            }
            (0..self.retries).for_each(|_| concurrent.give_back());
        }
    }
}

/// The right to one extra request. Dropped unspent it goes back to the budget.
#[must_use = "a withdrawal that is dropped goes back to the budget"]
pub struct Withdrawal {
    budget: Budget,
    slot: u64,
    spent: bool,
}

impl Withdrawal {
    /// Makes the withdrawal final: the extra request is sent. To a budget that counts what is under way it goes back at
    /// once: whoever keeps such a budget holds the withdrawal until that is over, and drops it.
    pub fn spend(mut self) {
        self.spent = !matches!(&*self.budget.0, Rule::Concurrent(_));
    }

    /// The same, but for a budget that counts what is under way: there it is held until that is over.
    pub(crate) fn spend_or_hold(self) -> Option<Self> {
        if self.budget.counts_requests() {
            return Some(self);
        }
        self.spend();
        None
    }

    /// The same, of a request that counts as under way to its end.
    pub(crate) fn spend_on(mut self, entered: Option<&mut Entered>) {
        // Where nobody keeps it, it goes back at once: a place that is never given back is lost for good.
        let Some(entered) = entered else { return self.spend() };
        entered.keep();
        self.spent = true;
    }
}

impl Drop for Withdrawal {
    fn drop(&mut self) {
        if self.spent {
            return;
        }
        match &*self.budget.0 {
            Rule::Share(share) => lock(&share.ledger).give_back(self.slot),
            Rule::Concurrent(concurrent) => concurrent.give_back(),
            Rule::Tokens(_) => {}
        }
    }
}

impl fmt::Debug for Withdrawal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Withdrawal").field("budget", &self.budget).finish_non_exhaustive()
    }
}
