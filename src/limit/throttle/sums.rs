//! How much of what is sent the servers turn away, and how much should not be sent therefore.

use std::time::Instant;

use super::{Formula, ThrottleOptions};
use crate::{
    describe::Criticality,
    estimate::slices::{Ring, Slices},
    outcome::{Class, Verdict},
    random::{Random, unit},
    sync::{AtomicU64, Ordering::Relaxed, Padded, Swap, stripe, stripes},
};

/// In so many steps the window slides.
const STEPS: usize = if cfg!(mainstay_loom) { 2 } else { 10 };

/// How a request ended, for a throttle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// The servers took it, whatever came of it.
    Accepted,
    /// The servers turned it away for load.
    Overloaded,
}

impl Answer {
    /// What an attempt with this verdict says; `timed_out` if its limit cut it off. Nothing, if it never got there, or nobody
    /// knows.
    pub(crate) fn of(verdict: Verdict, timed_out: bool) -> Option<Self> {
        match verdict.class() {
            _ if timed_out => Some(Self::Overloaded),
            Class::BackOff => Some(Self::Overloaded),
            Class::Success | Class::Failure => Some(Self::Accepted),
            Class::Inconclusive => None,
        }
    }
}

/// Refuses locally the more, the more the servers turn away. A plain type: the time and chance are arguments.
///
/// As long as the servers turn nothing away, a request reads one word when it begins and counts on a word of the thread's own
/// when it ends.
#[derive(Debug)]
pub struct Throttle {
    slices: Slices,
    accepted: Box<[Padded<Ring<STEPS>>]>,
    overloaded: Ring<STEPS>,
    /// Those that were refused here.
    refused: Ring<STEPS>,
    /// What came of each class, counted only in trouble.
    classes: [Ring<STEPS>; 4],
    /// The step in which the servers last turned something away, plus one.
    trouble: AtomicU64,
    options: Swap<ThrottleOptions>,
}

impl Throttle {
    /// A throttle that knows of nothing, its window's steps counted from `epoch`.
    pub fn new(options: ThrottleOptions, epoch: Instant) -> Self {
        Self {
            slices: Slices::new(epoch, options.window / STEPS as u32),
            accepted: (0..stripes()).map(|_| Padded(Ring::new())).collect(),
            overloaded: Ring::new(),
            refused: Ring::new(),
            classes: std::array::from_fn(|_| Ring::new()),
            trouble: AtomicU64::new(0),
            options: Swap::new(options),
        }
    }

    /// Whether a request of `class` may be sent; if not, it was counted as refused.
    #[inline]
    pub fn admit(&self, now: Instant, class: Criticality, random: &dyn Random) -> bool {
        let trouble = self.trouble.load(Relaxed);
        if trouble == 0 {
            return true;
        }
        let number = self.slices.number(now);
        number >= trouble - 1 + STEPS as u64 || self.draw(number, class, random)
    }

    #[cold]
    fn draw(&self, number: u64, class: Criticality, random: &dyn Random) -> bool {
        self.classes[class as usize].add(number);
        let probability = self.of_class(number, class);
        let admitted = probability <= 0.0 || unit(random.next()) >= probability;
        if !admitted {
            self.refused.add(number);
        }
        admitted
    }

    /// A request has ended.
    #[inline]
    pub fn ended(&self, now: Instant, answer: Answer) {
        let number = self.slices.number(now);
        match answer {
            Answer::Accepted => self.accepted[stripe() & (self.accepted.len() - 1)].0.add(number),
            Answer::Overloaded => {
                self.overloaded.add(number);
                self.trouble.fetch_max(number + 1, Relaxed);
            }
        }
    }

    /// The share of requests that is refused at `now`, from 0 to 1, over all classes.
    pub fn probability(&self, now: Instant) -> f64 {
        self.share(self.slices.number(now), &self.options.load())
    }

    fn share(&self, number: u64, options: &ThrottleOptions) -> f64 {
        let accepted: u64 = self.accepted.iter().map(|ring| ring.0.sum(number)).sum();
        let (overloaded, refused) = (self.overloaded.sum(number), self.refused.sum(number));
        let share = match options.formula {
            Formula::Sre { factor } => {
                let requests = (accepted + overloaded + refused) as f64;
                (requests - factor * accepted as f64) / (requests + 1.0)
            }
            Formula::Nack { threshold, least_per_second } => {
                let sent = (accepted + overloaded) as f64;
                let busy = sent >= least_per_second * options.window.as_secs_f64();
                let ratio = accepted as f64 / sent.max(1.0);
                if busy && ratio < threshold.get() { 1.0 - ratio / threshold.get() } else { 0.0 }
            }
        };
        share.clamp(0.0, options.most.get())
    }

    /// The share of `class` that is refused: that of all, taken from the least important first.
    fn of_class(&self, number: u64, class: Criticality) -> f64 {
        let options = self.options.load();
        let share = self.share(number, &options);
        if share <= 0.0 || !options.by_criticality {
            return share;
        }
        let counts = [0, 1, 2, 3].map(|class: usize| self.classes[class].sum(number) as f64);
        let all: f64 = counts.iter().sum();
        let (class, below) = (class as usize, counts[..class as usize].iter().sum::<f64>());
        let own = counts[class];
        if own <= 0.0 { share } else { ((share * all - below) / own).clamp(0.0, 1.0) }
    }

    /// Other options from now on. The window keeps its length.
    pub fn set(&self, options: ThrottleOptions) {
        self.options.store(options);
    }

    pub(crate) fn window(&self) -> std::time::Duration {
        self.options.load().window
    }
}
