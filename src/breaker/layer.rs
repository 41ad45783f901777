//! The layer, which owns the breaker.

use std::{fmt, sync::Arc};

use tower::Layer;

use super::{
    Breaker, BreakerHandle, BreakerOptions,
    live::Owner,
    service::{Judge, Shared},
};
use crate::{
    error::ErrorsFail,
    invalid::Invalid,
    outcome::Classify,
    random::{Entropy, Random},
    telemetry::{Observer, Observers},
    track::Track,
};

/// Puts one breaker around every service that one layer value, or a clone of it, is laid around.
///
/// The breaker belongs to the layer: its [`handle`](Self::handle) may force it before there is any service.
pub struct BreakerLayer<Res> {
    options: BreakerOptions,
    label: Arc<str>,
    judge: Judge<Res>,
    owner: Owner,
    handle: BreakerHandle,
}

impl<Res: 'static> BreakerLayer<Res> {
    /// A closed breaker of its own.
    ///
    /// # Errors
    /// [`Invalid`] with every option that breaks its rule.
    pub fn new(options: BreakerOptions) -> Result<Self, Invalid> {
        let label: Arc<str> = "breaker".into();
        let owner = Owner {
            client: label.clone(),
            observers: Arc::new(Observers::default()),
            random: Arc::new(Entropy),
        };
        let handle = BreakerHandle::new(label.clone(), options.clone(), owner.clone())?;
        Ok(Self {
            options,
            label,
            judge: Judge { classify: Arc::new(ErrorsFail), track: None },
            owner,
            handle,
        })
    }

    /// The same with a new breaker.
    fn anew(mut self) -> Self {
        self.owner.client = self.label.clone();
        if let Ok(handle) = BreakerHandle::new(self.label.clone(), self.options.clone(), self.owner.clone()) {
            self.handle = handle;
        }
        self
    }

    /// The name in errors and events \["breaker"\]. The breaker is a new one.
    #[must_use]
    pub fn label(mut self, label: impl Into<Arc<str>>) -> Self {
        self.label = label.into();
        self.anew()
    }

    /// What judges answers that no layer further in has judged \[errors fail\].
    #[must_use]
    pub fn classify(mut self, classify: impl Classify<Res>) -> Self {
        self.judge.classify = Arc::new(classify);
        self
    }

    /// Until when a call counts \[the head of the response\].
    #[must_use]
    pub fn track(mut self, track: impl Track<Res>) -> Self {
        self.judge.track = Some(Arc::new(track));
        self
    }

    /// Somebody to be told events.
    #[must_use]
    pub fn observe(self, observer: impl Observer) -> Self {
        self.owner.observers.add(Arc::new(observer));
        self
    }

    /// Where the jitter of a growing open time comes from \[the operating system, a generator per thread\]. The breaker is
    /// a new one.
    #[must_use]
    pub fn random(mut self, random: impl Random) -> Self {
        self.owner.random = Arc::new(random);
        self.anew()
    }

    /// The handle of its breaker.
    pub fn handle(&self) -> BreakerHandle {
        self.handle.clone()
    }
}

impl<S, Res> Layer<S> for BreakerLayer<Res> {
    type Service = Breaker<S, Res>;

    fn layer(&self, inner: S) -> Self::Service {
        let shared = Shared { live: self.handle.0.clone(), judge: self.judge.clone() };
        Breaker::new(inner, Arc::new(shared))
    }
}

impl<Res> Clone for BreakerLayer<Res> {
    fn clone(&self) -> Self {
        Self {
            options: self.options.clone(),
            label: self.label.clone(),
            judge: self.judge.clone(),
            owner: self.owner.clone(),
            handle: self.handle.clone(),
        }
    }
}

impl<Res> fmt::Debug for BreakerLayer<Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerLayer").field("handle", &self.handle).finish_non_exhaustive()
    }
}
