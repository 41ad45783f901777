//! One allowance for all extra load of a client.
//!
//! # Problem
//! Retries help when a few requests fail and hurt when most do: three tries per request turn an outage into a triple
//! load on servers that already struggle. A limit per request does not bound the sum.
//!
//! # Idea
//! Every success deposits, every extra request withdraws, and a withdrawal is granted only if
//!
//! ```text
//! withdrawals of the window, this one included  <=  share x deposits of the window + reserve
//! ```
//!
//! This holds exactly at the moment of each withdrawal, under any concurrency. Without successes there are no deposits:
//! servers that fail everything see their normal load and the reserve.
//!
//! The window is cut into 32 slots. Deposits count for 31 to 32 of them, withdrawals for 32 to 33, so rounding never
//! grants too much; with ten slots a client with a request a second is refused a quarter more of the retries that it could have. Deposits are counted per stripe of threads without a lock; withdrawals, which are
//! rare, take turns. No call does more after an idle time.
//!
//! Others' budgets are there by name, for who has to keep their rules: [`Budget::grpc`], [`Budget::envoy`] and
//! [`BudgetOptions::finagle`]. Each is shared by retries and hedges in the same way.
//!
//! # When to use it
//! One for each client, or one that several clients of the same servers share. Not as a rate limit: it bounds a share.
//!
//! # Example
//! ```
//! use mainstay::{Ratio, budget::{Budget, BudgetOptions}};
//!
//! let budget = Budget::new(BudgetOptions::default().share(Ratio::percent::<50>()).reserve(0))?;
//! let now = mainstay::clock::now();
//! assert!(budget.withdraw(now).is_none());
//! budget.deposit(now);
//! budget.deposit(now);
//! let unused = budget.withdraw(now);
//! assert!(unused.is_some());
//! drop(unused); // goes back
//! if let Some(withdrawal) = budget.withdraw(now) {
//!     withdrawal.spend(); // the retry is sent
//! }
//! assert!(budget.withdraw(now).is_none());
//! # Ok::<(), mainstay::Invalid>(())
//! ```
//!
//! # Cost
//! A deposit is a multiplication, one load and one compare-and-swap on a cache line of its own. A withdrawal locks and
//! sums 32 words per stripe. Memory: 256 bytes per stripe, as many stripes as the machine has cores, up to 32.
//!
//! # Sources
//! Finagle's `RetryBudget` for deposits, share and reserve; deposits on success only, as it has had since 20.8. tower's
//! `TpsBudget` truncates a reciprocal, so that its 0.6 acts as 1.0 (tower #857), checks before it counts, and catches
//! up slot by slot after an idle time; the tests here hold those against this one. gRFC A6 for the throttle by tokens; Envoy's
//! `retry_budget`.

mod concurrent;
mod deposits;
mod handle;
mod ledger;
mod options;
mod tokens;

#[cfg(all(test, mainstay_loom))]
mod model;
#[cfg(all(test, not(mainstay_loom)))]
mod tests;

pub use handle::{Budget, Withdrawal};
pub use options::BudgetOptions;

pub(crate) use handle::Entered;

/// Into how many slots a window is cut; few in a model, so that it ends.
const SLOTS: usize = if cfg!(mainstay_loom) { 2 } else { 32 };
