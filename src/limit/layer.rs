//! The layer, which owns the limit.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use tower::Layer;

use super::{
    Algorithm, AtEnd, AtHead, ConcurrencyLimit, ConcurrencyLimitOptions, Gate, control::Controller,
    limiter::Limiter,
};
use crate::{Error, Invalid, track::Track};

/// Limits how many requests run at a time, over every service that one layer value, or a clone of it, was laid around.
#[derive(Clone)]
pub struct ConcurrencyLimitLayer<J = AtHead> {
    shared: Arc<Shared<J>>,
}

/// What all services of one layer share.
pub(super) struct Shared<J> {
    pub(super) limiter: Arc<Limiter>,
    pub(super) judge: J,
    /// What decides now; `None` for a controller that somebody has made.
    algorithm: Arc<Mutex<Option<Algorithm>>>,
    label: Option<Arc<str>>,
}

impl<J> Shared<J> {
    pub(super) fn named(&self, error: Error) -> Error {
        match &self.label {
            Some(label) => error.with_client(label.clone()),
            None => error,
        }
    }
}

impl ConcurrencyLimitLayer {
    /// A limit of its own.
    ///
    /// # Errors
    /// [`Invalid`] with every option that breaks its rule.
    pub fn new(options: ConcurrencyLimitOptions) -> Result<Self, Invalid> {
        let limiter = Limiter::new(&options, None)?;
        Ok(Self::of(limiter, Some(options.algorithm)))
    }

    /// A limit that `controller` decides upon; [`limit`](ConcurrencyLimitOptions::limit) and
    /// [`algorithm`](ConcurrencyLimitOptions::algorithm) have no effect.
    ///
    /// # Errors
    /// [`Invalid`] with every option that breaks its rule.
    pub fn controlled(
        options: ConcurrencyLimitOptions,
        controller: impl Controller + 'static,
    ) -> Result<Self, Invalid> {
        Ok(Self::of(Limiter::new(&options, Some(Box::new(controller)))?, None))
    }

    fn of(limiter: Limiter, algorithm: Option<Algorithm>) -> Self {
        let algorithm = Arc::new(Mutex::new(algorithm));
        let shared = Shared { limiter: Arc::new(limiter), judge: AtHead::default(), algorithm, label: None };
        Self { shared: Arc::new(shared) }
    }
}

impl<C> ConcurrencyLimitLayer<AtHead<C>> {
    /// The same limit, told by `classify` what is overload: answers that ask to be left alone. Only an adaptive limit wants
    /// to know, and a layer further in that has judged an answer has the say \[errors fail\].
    #[must_use]
    pub fn classify<D>(self, classify: D) -> ConcurrencyLimitLayer<AtHead<D>> {
        self.judged(AtHead(classify))
    }

    /// The same limit with places that are kept until the body of the response has ended, as `track` knows.
    #[must_use]
    pub fn track<Res>(self, track: impl Track<Res>) -> ConcurrencyLimitLayer<AtEnd<Res, C>>
    where
        C: Clone,
    {
        let classify = self.shared.judge.0.clone();
        self.judged(AtEnd(classify, Arc::new(track)))
    }
}

impl<J> ConcurrencyLimitLayer<J> {
    fn judged<K>(self, judge: K) -> ConcurrencyLimitLayer<K> {
        let Shared { limiter, algorithm, label, .. } = &*self.shared;
        let (limiter, algorithm, label) = (limiter.clone(), algorithm.clone(), label.clone());
        ConcurrencyLimitLayer { shared: Arc::new(Shared { limiter, judge, algorithm, label }) }
    }

    /// The same limit under a name that its refusals tell.
    #[must_use]
    pub fn label(self, label: impl Into<Arc<str>>) -> Self
    where
        J: Clone,
    {
        let Shared { limiter, judge, algorithm, .. } = &*self.shared;
        let (limiter, judge, algorithm) = (limiter.clone(), judge.clone(), algorithm.clone());
        Self { shared: Arc::new(Shared { limiter, judge, algorithm, label: Some(label.into()) }) }
    }

    /// Replaces the options while requests run. A higher limit lets waiting requests go at once; a lower one cuts nobody
    /// off. Who waits already keeps its place and its time. An algorithm that stays the same keeps what it has learnt, and a
    /// layer that was made with a controller ([`controlled`](ConcurrencyLimitLayer::controlled)) keeps that:
    /// [`limit`](ConcurrencyLimitOptions::limit) and [`algorithm`](ConcurrencyLimitOptions::algorithm) still have no effect.
    ///
    /// # Errors
    /// [`Invalid`] with every option that breaks its rule; nothing is changed then.
    pub fn update(&self, options: &ConcurrencyLimitOptions) -> Result<(), Invalid> {
        options.validate()?;
        let mut algorithm = self.shared.algorithm.lock().unwrap_or_else(PoisonError::into_inner);
        let same = algorithm.as_ref().is_none_or(|known| *known == options.algorithm);
        self.shared.limiter.update(options, same)?;
        if let Some(known) = &mut *algorithm {
            *known = options.algorithm.clone();
        }
        Ok(())
    }

    /// The gate that requests go through: what it shows is how many run and wait. Permits taken from it by hand count.
    pub fn gate(&self) -> &Gate {
        &self.shared.limiter.gate
    }
}

impl<S, J> Layer<S> for ConcurrencyLimitLayer<J> {
    type Service = ConcurrencyLimit<S, J>;

    fn layer(&self, inner: S) -> Self::Service {
        ConcurrencyLimit::new(inner, self.shared.clone())
    }
}

impl<J> fmt::Debug for ConcurrencyLimitLayer<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrencyLimitLayer").field("gate", self.gate()).finish_non_exhaustive()
    }
}
