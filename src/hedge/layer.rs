//! The layer.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use tower::Layer;

use super::{
    options::HedgeOptions,
    pace::Pace,
    service::{Hedge, Shared},
};
use crate::{
    Invalid,
    budget::{Budget, BudgetOptions},
    describe::{Describe, Opaque},
    error::ErrorsFail,
    estimate::Recent,
    outcome::Classify,
    random::Entropy,
    retry::Parts,
    sync::{Padded, stripes},
    telemetry::Tally,
};

/// Sends requests again whose attempt takes long, while that goes on, where it is safe and within budget.
///
/// All state lives in the layer: every service it makes shares it. Of requests nothing is known unless
/// [`describe`](Self::describe) says more, so without it nothing is hedged. Over a
/// [`Balance`](crate::balance::Balance) a hedge goes to another endpoint than the first; over anything else, wherever that
/// sends it.
pub struct HedgeLayer<Req, Res> {
    options: HedgeOptions,
    budget: Budget,
    describe: Arc<dyn Describe<Req>>,
    classify: Arc<dyn Classify<Res>>,
    /// What the services share, made with the first of them.
    shared: Arc<OnceLock<Arc<Shared<Req, Res>>>>,
}

impl<Req: 'static, Res: 'static> HedgeLayer<Req, Res> {
    /// Hedges by `options`, with a default budget.
    ///
    /// # Errors
    /// [`Invalid`] with all that is wrong with the options.
    pub fn new(options: HedgeOptions) -> Result<Self, Invalid> {
        options.validate()?;
        Ok(Self {
            options,
            budget: Budget::new(BudgetOptions::default())?,
            describe: Arc::new(Opaque),
            classify: Arc::new(ErrorsFail),
            shared: Arc::default(),
        })
    }

    /// Services made from here on share nothing with those made before.
    fn anew(mut self) -> Self {
        self.shared = Arc::default();
        self
    }

    /// The budget that hedges are paid from besides their own share: give it the one of the
    /// [`RetryLayer`](crate::retry::RetryLayer) above \[20 % of successes + 1 per 10 s\].
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
}

impl<S, Req, Res> Layer<S> for HedgeLayer<Req, Res> {
    type Service = Hedge<S, Req, Res>;

    fn layer(&self, inner: S) -> Self::Service {
        let shared = self.shared.get_or_init(|| {
            let epoch = crate::clock::now();
            let recent = || (0..stripes()).map(|_| Padded(Recent::new(epoch, Recent::PERIOD))).collect();
            Arc::new(Shared {
                pace: Pace::new(&self.options, epoch).expect("the options were checked"),
                epoch,
                ended: recent(),
                cut: recent(),
                parts: Parts {
                    budget: self.budget.clone(),
                    describe: self.describe.clone(),
                    classify: self.classify.clone(),
                    random: Arc::new(Entropy),
                    tally: Tally::new(),
                },
            })
        });
        Hedge::new(inner, shared.clone())
    }
}

impl<Req, Res> Clone for HedgeLayer<Req, Res> {
    fn clone(&self) -> Self {
        Self {
            options: self.options.clone(),
            budget: self.budget.clone(),
            describe: self.describe.clone(),
            classify: self.classify.clone(),
            shared: self.shared.clone(),
        }
    }
}

impl<Req, Res> fmt::Debug for HedgeLayer<Req, Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HedgeLayer")
            .field("options", &self.options)
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}
