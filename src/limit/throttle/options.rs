//! The options of a throttle.

use std::time::Duration;

use crate::{
    Ratio,
    invalid::{Check, FOREVER, Invalid},
};

/// Which share of the requests is refused.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Formula {
    /// Google's: `(requests - factor x accepts) / (requests + 1)`, where what is refused here counts among the requests.
    Sre {
        /// How many times what the servers accept may be tried \[2, 1 to 100\]. Of a server that accepts nothing all but one in
        /// ever more requests are kept; of one that accepts half, none.
        factor: f64,
    },
    /// Finagle's: `1 - accepts / (accepts + nacks) / threshold`, of what was sent.
    Nack {
        /// Nothing is refused while the servers accept at least this share \[50 %, more than 0\].
        threshold: Ratio,
        /// Nor while fewer requests than this are sent in a second, on average over the window \[5\].
        least_per_second: f64,
    },
}

/// How much is refused locally of what the servers would turn away.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ThrottleOptions {
    /// Which share is refused \[Google's, factor 2\].
    pub formula: Formula,
    /// How long an answer counts \[2 min, 10 ms to 10 years\]; it slides in steps of a tenth.
    pub window: Duration,
    /// The largest share that is ever refused \[100 %; 75 % for Finagle's\].
    pub most: Ratio,
    /// Whether the least important requests are refused first \[true\].
    pub by_criticality: bool,
}

impl ThrottleOptions {
    /// Finagle's nack admission: threshold 50 %, at least 5 a second, at most 75 % refused.
    pub fn nack() -> Self {
        Self {
            formula: Formula::Nack { threshold: Ratio::percent::<50>(), least_per_second: 5.0 },
            most: Ratio::percent::<75>(),
            ..Self::default()
        }
    }

    /// Sets [`formula`](Self::formula).
    pub const fn formula(mut self, formula: Formula) -> Self {
        self.formula = formula;
        self
    }

    /// Sets [`window`](Self::window).
    pub const fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Sets [`most`](Self::most).
    pub const fn most(mut self, most: Ratio) -> Self {
        self.most = most;
        self
    }

    /// Sets [`by_criticality`](Self::by_criticality).
    pub const fn by_criticality(mut self, by_criticality: bool) -> Self {
        self.by_criticality = by_criticality;
        self
    }

    /// Checks every option.
    ///
    /// # Errors
    /// [`Invalid`] with all that is wrong.
    pub fn validate(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        self.check(&mut check);
        check.finish()
    }

    pub(crate) fn check(&self, check: &mut Check) {
        match self.formula {
            Formula::Sre { factor } => {
                check.rule((1.0..=100.0).contains(&factor), "formula.factor", factor, "1 to 100");
            }
            Formula::Nack { threshold, least_per_second } => {
                check.rule(threshold > Ratio::ZERO, "formula.threshold", threshold, "more than 0").rule(
                    least_per_second.is_finite() && least_per_second >= 0.0,
                    "formula.least_per_second",
                    least_per_second,
                    "a finite number, at least 0",
                );
            }
        }
        let fits = self.window >= Duration::from_millis(10) && self.window <= FOREVER;
        check.rule(fits, "window", self.window, "at least 10 ms and at most 10 years");
    }
}

impl Default for ThrottleOptions {
    fn default() -> Self {
        Self {
            formula: Formula::Sre { factor: 2.0 },
            window: Duration::from_secs(120),
            most: Ratio::ONE,
            by_criticality: true,
        }
    }
}
