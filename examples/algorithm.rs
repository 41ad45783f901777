//! Only the algorithms, without tower and without a runtime.
//!
//! Shows a retry budget, a backoff, a success rate and the rules for ejection in a loop of one's own. Each is a plain type
//! that takes the time as an argument, so an outage of half a minute is over at once here.

use std::time::Duration;

use mainstay::{
    Invalid, Outcome,
    backoff::Backoff,
    budget::{Budget, BudgetOptions},
    clock,
    estimate::SuccessRate,
    health::{Accrual, HealthOptions},
    random::Seeded,
};

/// The server works, fails a tenth of its requests, fails all of them, and works again.
fn answers(second: u64, n: u64) -> Outcome {
    let good = match second {
        10..20 => !n.is_multiple_of(10),
        20..40 => false,
        _ => true,
    };
    if good { Outcome::Success } else { Outcome::Failure }
}

fn main() -> Result<(), Invalid> {
    let start = clock::now();
    let budget = Budget::new(BudgetOptions::default())?; // 20 % of the successes of 10 s, and 1
    let rate = SuccessRate::over(Duration::from_secs(10), start);
    let accrual = Accrual::new(start, Duration::from_secs(30));
    let (health, backoff, random) = (HealthOptions::default(), Backoff::default(), Seeded::new(7));

    println!("second  requests  good   retries  refused  waited  would eject");
    for decade in 0..6 {
        let (mut retries, mut refused, mut waited, mut tripped) = (0, 0, Duration::ZERO, None);
        for n in 0..1_000 {
            let now = start + Duration::from_secs(decade * 10) + Duration::from_millis(n * 10);
            let outcome = answers(decade * 10 + n / 100, n);
            rate.record(now, outcome);
            if outcome == Outcome::Success {
                budget.deposit(now);
                accrual.success(now);
                continue;
            }
            tripped = tripped.or(accrual.failure(now, &health));
            match budget.withdraw(now) {
                Some(withdrawal) => {
                    waited += backoff.delay(1, Duration::ZERO, &random);
                    withdrawal.spend(); // here the request would be sent again
                    retries += 1;
                }
                None => refused += 1,
            }
        }
        let now = start + Duration::from_millis(decade * 10_000 + 9_999);
        let good = rate.rate(now).unwrap_or(1.0) * 100.0;
        let waited = format!("{:.1}", waited.as_secs_f64());
        let rule = tripped.map_or_else(|| "-".to_owned(), |trip| format!("{trip:?}"));
        let second = decade * 10;
        println!(
            "{second:>6}  {:>8}  {good:>3.0} %  {retries:>7}  {refused:>7}  {waited:>5}s  {rule}",
            1_000
        );
    }
    Ok(())
}
