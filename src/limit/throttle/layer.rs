//! The layer, which owns the throttle.

use std::{fmt, sync::Arc};

use tower::Layer;

use super::{Throttle, ThrottleOptions, Throttled};
use crate::{
    Invalid, clock,
    error::ErrorsFail,
    invalid::Check,
    random::{Entropy, Random},
};

/// Keeps back a part of the requests while the servers turn requests away, over every service that one layer value, or a
/// clone of it, was laid around.
pub struct ThrottleLayer<C = ErrorsFail> {
    pub(super) shared: Arc<Shared<C>>,
}

/// What all services of one layer share.
pub(super) struct Shared<C> {
    pub(super) throttle: Arc<Throttle>,
    pub(super) classify: C,
    pub(super) random: Arc<dyn Random>,
    pub(super) label: Option<Arc<str>>,
}

impl ThrottleLayer {
    /// A throttle of its own.
    ///
    /// # Errors
    /// [`Invalid`] with every option that breaks its rule.
    pub fn new(options: ThrottleOptions) -> Result<Self, Invalid> {
        options.validate()?;
        let throttle = Arc::new(Throttle::new(options, clock::now()));
        let shared = Shared { throttle, classify: ErrorsFail, random: Arc::new(Entropy), label: None };
        Ok(Self { shared: Arc::new(shared) })
    }
}

impl<C> ThrottleLayer<C> {
    /// The same throttle, told by `classify` which answers ask to be left alone, unless a layer further in has judged them
    /// \[errors of this crate that say so\].
    #[must_use]
    pub fn classify<D>(self, classify: D) -> ThrottleLayer<D> {
        let Shared { throttle, random, label, .. } = &*self.shared;
        let (throttle, random, label) = (throttle.clone(), random.clone(), label.clone());
        ThrottleLayer { shared: Arc::new(Shared { throttle, classify, random, label }) }
    }

    /// The same throttle under a name that its refusals tell.
    #[must_use]
    pub fn label(self, label: impl Into<Arc<str>>) -> Self
    where
        C: Clone,
    {
        let Shared { throttle, classify, random, .. } = &*self.shared;
        let (throttle, classify, random) = (throttle.clone(), classify.clone(), random.clone());
        Self { shared: Arc::new(Shared { throttle, classify, random, label: Some(label.into()) }) }
    }

    /// Where chance comes from \[the operating system, a generator per thread\].
    #[must_use]
    pub fn random(self, random: impl Random) -> Self
    where
        C: Clone,
    {
        let Shared { throttle, classify, label, .. } = &*self.shared;
        let (throttle, classify, label) = (throttle.clone(), classify.clone(), label.clone());
        Self { shared: Arc::new(Shared { throttle, classify, random: Arc::new(random), label }) }
    }

    /// The throttle itself: what it shows is how much it refuses.
    pub fn throttle(&self) -> &Throttle {
        &self.shared.throttle
    }

    /// Replaces the options while requests run.
    ///
    /// # Errors
    /// [`Invalid`] with every option that breaks its rule, and if the window is another: counts cannot be cut anew.
    pub fn update(&self, options: ThrottleOptions) -> Result<(), Invalid> {
        let mut check = Check::default();
        options.check(&mut check);
        let window = self.throttle().window();
        check.rule(
            options.window == window,
            "window",
            options.window,
            format!("cannot change while requests run ({window:?})"),
        );
        check.finish()?;
        self.throttle().set(options);
        Ok(())
    }
}

impl<S, C> Layer<S> for ThrottleLayer<C> {
    type Service = Throttled<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        Throttled::new(inner, self.clone())
    }
}

impl<C> Clone for ThrottleLayer<C> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<C> fmt::Debug for ThrottleLayer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThrottleLayer").field("throttle", self.throttle()).finish_non_exhaustive()
    }
}
