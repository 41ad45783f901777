//! Whether this process is well, by its own word.

use std::{future::Future, panic::AssertUnwindSafe, pin::Pin, sync::Arc, time::Duration};

use futures::FutureExt as _;
use tokio::{sync::watch, time::timeout};
use tower::BoxError;

use crate::{
    error::Cause,
    invalid::Check,
    random::{Random, unit},
};

/// When the process is asked whether it is well, and what is made of its answers.
///
/// Nerve asks every 500 ms, for 100 ms, and believes the first answer. Here one slow answer takes nothing away.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckOptions {
    /// How long to rest between checks \[1 s, spread by 10 %\].
    pub interval: Duration,
    /// How long a check may take \[1 s\]. Longer is a failure.
    pub timeout: Duration,
    /// How many checks in a row must pass until it is announced \[1\].
    pub rise: u32,
    /// How many checks in a row must fail until it is withdrawn \[3\].
    pub fall: u32,
}

impl CheckOptions {
    /// Sets [`interval`](Self::interval).
    pub const fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Sets [`timeout`](Self::timeout).
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets [`rise`](Self::rise).
    pub const fn rise(mut self, rise: u32) -> Self {
        self.rise = rise;
        self
    }

    /// Sets [`fall`](Self::fall).
    pub const fn fall(mut self, fall: u32) -> Self {
        self.fall = fall;
        self
    }

    pub(super) fn check(&self, check: &mut Check) {
        check
            .duration("interval", self.interval)
            .duration("timeout", self.timeout)
            .rule(self.rise > 0, "rise", self.rise, "at least 1")
            .rule(self.fall > 0, "fall", self.fall, "at least 1");
    }
}

impl Default for CheckOptions {
    fn default() -> Self {
        let second = Duration::from_secs(1);
        Self { interval: second, timeout: second, rise: 1, fall: 3 }
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;
/// What asks the process.
pub(super) type Ask = Box<dyn FnMut() -> Answer + Send>;

/// `ask`, erased.
pub(super) fn erased<F, A, E>(mut ask: F) -> Ask
where
    F: FnMut() -> A + Send + 'static,
    A: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<BoxError>,
{
    Box::new(move || {
        let answer = ask();
        Box::pin(async { answer.await.map_err(Into::into) })
    })
}

/// What the checks say together.
#[derive(Clone, Debug, Default)]
pub(super) enum Fitness {
    /// Nothing yet.
    #[default]
    Unknown,
    Fit,
    Unfit(Cause),
}

/// Turns runs of answers into a fitness.
#[derive(Debug)]
struct Runs {
    rise: u32,
    fall: u32,
    is_fit: bool,
    /// Answers in a row that contradict it.
    against: u32,
}

impl Runs {
    fn new(options: &CheckOptions) -> Self {
        Self { rise: options.rise, fall: options.fall, is_fit: false, against: 0 }
    }

    /// Takes an answer in, and says whether it turned what is believed.
    fn take(&mut self, passed: bool) -> bool {
        if passed == self.is_fit {
            self.against = 0;
            return false;
        }
        self.against += 1;
        let turns = self.against >= if passed { self.rise } else { self.fall };
        if turns {
            (self.is_fit, self.against) = (passed, 0);
        }
        turns
    }
}

/// Asks for ever, and tells `fitness`.
pub(super) async fn ask_for_ever(
    mut ask: Ask,
    options: CheckOptions,
    fitness: watch::Sender<Fitness>,
    random: Arc<dyn Random>,
) {
    let mut runs = Runs::new(&options);
    loop {
        let answer = AssertUnwindSafe(async { ask().await }).catch_unwind();
        let answer: Result<(), BoxError> = match timeout(options.timeout, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err("the check has panicked".into()),
            Err(_) => Err(format!("the check took longer than {:?}", options.timeout).into()),
        };
        let turned = runs.take(answer.is_ok());
        match answer {
            Ok(()) if turned => _ = fitness.send(Fitness::Fit),
            Err(cause) if turned || matches!(&*fitness.borrow(), Fitness::Unknown) => {
                _ = fitness.send(Fitness::Unfit(Arc::from(cause)));
            }
            _ => {}
        }
        let spread = 0.9 + 0.2 * unit(random.next());
        tokio::time::sleep(options.interval.mul_f64(spread)).await;
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;
    use crate::random::Seeded;

    fn turns(rise: u32, fall: u32, answers: &str) -> String {
        let mut runs = Runs::new(&CheckOptions::default().rise(rise).fall(fall));
        answers
            .chars()
            .map(|answer| {
                runs.take(answer == '+');
                if runs.is_fit { '#' } else { '.' }
            })
            .collect()
    }

    #[test]
    fn it_rises_and_falls_after_as_many_answers_in_a_row_as_asked() {
        assert_eq!(turns(1, 1, "-+-+"), ".#.#");
        assert_eq!(turns(2, 3, "+-++--+---++"), "...######..#");
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_or_panics_has_failed() {
        static ASKED: AtomicU32 = AtomicU32::new(0);
        let ask = erased::<_, _, BoxError>(|| {
            let turn = ASKED.fetch_add(1, Relaxed);
            async move {
                match turn {
                    0 => Ok(()),
                    1 => std::future::pending().await,
                    2 => panic!("unwell"),
                    _ => Err("no".into()),
                }
            }
        });
        let (tell, mut told) = watch::channel(Fitness::Unknown);
        let options = CheckOptions::default().fall(2);
        let checking = tokio::spawn(ask_for_ever(ask, options, tell, Arc::new(Seeded::new(1))));
        assert!(told.wait_for(|fitness| matches!(fitness, Fitness::Fit)).await.is_ok());
        let unfit = told.wait_for(|fitness| matches!(fitness, Fitness::Unfit(_))).await.unwrap().clone();
        let Fitness::Unfit(cause) = unfit else { unreachable!() };
        assert_eq!(cause.to_string(), "the check has panicked");
        checking.abort();
    }
}
