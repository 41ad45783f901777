//! The layer.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use tower::Layer;

use super::{
    policy::RetryPolicy,
    service::{Retry, Shared},
    session::Parts,
};
use crate::{
    Invalid,
    budget::{Budget, BudgetOptions},
    describe::{Describe, Opaque},
    error::ErrorsFail,
    estimate::Recent,
    invalid::Check,
    outcome::Classify,
    random::{Entropy, Random},
    sync::{Padded, stripes},
    telemetry::Tally,
};

/// Sends requests again that failed, where that is safe and within budget.
///
/// All state lives in the layer: every service it makes shares it. Of requests nothing is known unless
/// [`describe`](Self::describe) says more, so without it nothing is retried.
pub struct RetryLayer<Req, Res> {
    policy: RetryPolicy,
    budget: Budget,
    describe: Arc<dyn Describe<Req>>,
    classify: Arc<dyn Classify<Res>>,
    random: Arc<dyn Random>,
    /// What the services share, made with the first of them.
    shared: Arc<OnceLock<Arc<Shared<Req, Res>>>>,
}

impl<Req: 'static, Res: 'static> RetryLayer<Req, Res> {
    /// Retries by `policy`, with a default budget.
    ///
    /// # Errors
    /// [`Invalid`] with all that is wrong with the policy.
    pub fn new(policy: RetryPolicy) -> Result<Self, Invalid> {
        let mut check = Check::default();
        policy.check(&mut check);
        let rule = "a layer measures no capacity: a client does";
        check.rule(policy.max_utilisation.is_none(), "max_utilisation", policy.max_utilisation, rule);
        check.finish()?;
        Ok(Self {
            policy,
            budget: Budget::new(BudgetOptions::default())?,
            describe: Arc::new(Opaque),
            classify: Arc::new(ErrorsFail),
            random: Arc::new(Entropy),
            shared: Arc::default(),
        })
    }

    /// Services made from here on share nothing with those made before.
    fn anew(mut self) -> Self {
        self.shared = Arc::default();
        self
    }

    /// The budget that retries are paid from; clones of one budget share it \[20 % of successes + 1 per 10 s\].
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self.anew()
    }

    /// What is known of requests \[nothing\].
    #[must_use]
    pub fn describe(mut self, describe: impl Describe<Req>) -> Self {
        self.describe = Arc::new(describe);
        self.anew()
    }

    /// What judges responses that no layer below has judged \[errors fail\].
    #[must_use]
    pub fn classify(mut self, classify: impl Classify<Res>) -> Self {
        self.classify = Arc::new(classify);
        self.anew()
    }

    /// Where chance comes from \[the operating system, a generator per thread\].
    #[must_use]
    pub fn random(mut self, random: impl Random) -> Self {
        self.random = Arc::new(random);
        self.anew()
    }
}

impl<S, Req, Res> Layer<S> for RetryLayer<Req, Res> {
    type Service = Retry<S, Req, Res>;

    fn layer(&self, inner: S) -> Self::Service {
        let shared = self.shared.get_or_init(|| {
            let epoch = crate::clock::now();
            Arc::new(Shared {
                policy: self.policy.clone(),
                latencies: (0..stripes()).map(|_| Padded(Recent::new(epoch, Recent::PERIOD))).collect(),
                parts: Parts {
                    budget: self.budget.clone(),
                    describe: self.describe.clone(),
                    classify: self.classify.clone(),
                    random: self.random.clone(),
                    tally: Tally::new(),
                },
            })
        });
        Retry::new(inner, shared.clone())
    }
}

impl<Req, Res> Clone for RetryLayer<Req, Res> {
    fn clone(&self) -> Self {
        Self {
            policy: self.policy.clone(),
            budget: self.budget.clone(),
            describe: self.describe.clone(),
            classify: self.classify.clone(),
            random: self.random.clone(),
            shared: self.shared.clone(),
        }
    }
}

impl<Req, Res> fmt::Debug for RetryLayer<Req, Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryLayer")
            .field("policy", &self.policy)
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}
