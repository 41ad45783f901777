//! The options of a budget.

use std::time::Duration;

use crate::{
    Ratio,
    invalid::{Check, FOREVER},
};

/// How much extra load a [`Budget`](super::Budget) allows.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct BudgetOptions {
    /// Withdrawals per deposit \[20 %\], to a billionth.
    pub share: Ratio,
    /// How long deposits and withdrawals count \[10 s\]: from 10 ms to 10 years, rounded down to 10 ns.
    pub window: Duration,
    /// Withdrawals per window that need no deposit \[1\], so that a client with little traffic can retry at all.
    pub reserve: u32,
}

impl BudgetOptions {
    /// Sets [`share`](Self::share).
    pub const fn share(mut self, share: Ratio) -> Self {
        self.share = share;
        self
    }

    /// Sets [`window`](Self::window).
    pub const fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Sets [`reserve`](Self::reserve).
    pub const fn reserve(mut self, reserve: u32) -> Self {
        self.reserve = reserve;
        self
    }

    /// Finagle's `RetryBudget` with its numbers: 20 % of the successes of 10 s, and 10 a second besides, which are 100 in that
    /// time. Every client has the whole of the reserve: with many sparse ones it is a multiple of their load.
    pub const fn finagle() -> Self {
        Self { share: Ratio::percent::<20>(), window: Duration::from_secs(10), reserve: 100 }
    }

    pub(crate) fn check(&self, check: &mut Check) {
        check.rule(
            self.window >= Duration::from_millis(10) && self.window <= FOREVER,
            "window",
            self.window,
            "at least 10 ms and at most 10 years",
        );
    }
}

impl Default for BudgetOptions {
    fn default() -> Self {
        Self { share: Ratio::percent::<20>(), window: Duration::from_secs(10), reserve: 1 }
    }
}
