//! The layer, which owns the limit.

use std::{fmt, hash::Hash, sync::Arc};

use tower::Layer;

use super::{Gcra, One, PerKey, RateLimit, RateLimitOptions, Whole, meters::Terms};
use crate::{Error, Invalid, KeyOptions, clock, invalid::Check};

/// Limits how many requests go in a time, over every service that one layer value, or a clone of it, was laid around.
pub struct RateLimitLayer<L = Whole, W = One> {
    pub(super) shared: Arc<Shared<L, W>>,
}

/// What all services of one layer share.
pub(super) struct Shared<L, W> {
    pub(super) limits: Arc<L>,
    pub(super) weigh: Arc<W>,
    pub(super) terms: Arc<Terms>,
    label: Option<Arc<str>>,
}

impl<L, W> Shared<L, W> {
    #[cold]
    pub(super) fn named(&self, error: Error) -> Error {
        match &self.label {
            Some(label) => error.with_client(label.clone()),
            None => error,
        }
    }
}

impl RateLimitLayer {
    /// A limit of its own.
    ///
    /// # Errors
    /// [`Invalid`] with every option that breaks its rule.
    pub fn new(options: RateLimitOptions) -> Result<Self, Invalid> {
        options.validate()?;
        let limit = Gcra::new(&options, clock::now());
        Ok(Self::of(Whole(Arc::new(limit)), &options))
    }
}

impl<W> RateLimitLayer<Whole, W> {
    /// Replaces the options while requests run. As much as was taken stays taken, and comes back at the new rate; who waits
    /// keeps its time.
    ///
    /// # Errors
    /// [`Invalid`] with every option that breaks its rule; nothing is changed then.
    pub fn update(&self, options: &RateLimitOptions) -> Result<(), Invalid> {
        options.validate()?;
        let Shared { terms, limits, .. } = &*self.shared;
        terms.set(options, || limits.0.set(options, clock::now()));
        Ok(())
    }

    /// The limit itself. What is taken from it by hand counts.
    pub fn limit(&self) -> &Gcra {
        &self.shared.limits.0
    }
}

impl<K, Req> RateLimitLayer<PerKey<K, Req>>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    Req: 'static,
{
    /// A limit for each value of `key`.
    ///
    /// # Errors
    /// [`Invalid`] with every option that breaks its rule.
    pub fn keyed(
        options: RateLimitOptions,
        keys: KeyOptions,
        key: impl Fn(&Req) -> K + Send + Sync + 'static,
    ) -> Result<Self, Invalid> {
        let mut check = Check::default();
        options.check(&mut check);
        check.part("keys", |check| keys.check(check));
        check.finish()?;
        Ok(Self::of(PerKey::new(&options, keys, clock::now(), key), &options))
    }
}

impl<K: Hash + Eq + Clone, Req, W> RateLimitLayer<PerKey<K, Req>, W> {
    /// Replaces the options of all keys, known ones and those that come, while requests run. As much as was taken stays taken,
    /// and comes back at the new rate; who waits keeps its time.
    ///
    /// # Errors
    /// [`Invalid`] with every option that breaks its rule; nothing is changed then.
    pub fn update(&self, options: &RateLimitOptions) -> Result<(), Invalid> {
        options.validate()?;
        let Shared { terms, limits, .. } = &*self.shared;
        terms.set(options, || limits.set(options));
        Ok(())
    }
}

impl<L> RateLimitLayer<L> {
    fn of(limits: L, options: &RateLimitOptions) -> Self {
        let terms = Arc::new(Terms::new(options));
        Self {
            shared: Arc::new(Shared { limits: Arc::new(limits), weigh: Arc::new(One), terms, label: None }),
        }
    }
}

impl<L, W> RateLimitLayer<L, W> {
    /// The same limit, of which requests take as much as `weigh` says \[1\].
    #[must_use]
    pub fn weigh<V>(self, weigh: V) -> RateLimitLayer<L, V> {
        let Shared { limits, terms, label, .. } = &*self.shared;
        let (limits, terms, label) = (limits.clone(), terms.clone(), label.clone());
        RateLimitLayer { shared: Arc::new(Shared { limits, weigh: Arc::new(weigh), terms, label }) }
    }

    /// The same limit under a name that its refusals tell.
    #[must_use]
    pub fn label(self, label: impl Into<Arc<str>>) -> Self {
        let Shared { limits, weigh, terms, .. } = &*self.shared;
        let (limits, weigh, terms) = (limits.clone(), weigh.clone(), terms.clone());
        Self { shared: Arc::new(Shared { limits, weigh, terms, label: Some(label.into()) }) }
    }

    /// Which limits requests go by.
    pub fn limits(&self) -> &L {
        &self.shared.limits
    }
}

impl<S, L, W> Layer<S> for RateLimitLayer<L, W> {
    type Service = RateLimit<S, L, W>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimit::new(inner, self.clone())
    }
}

impl<L, W> Clone for RateLimitLayer<L, W> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<L: fmt::Debug, W> fmt::Debug for RateLimitLayer<L, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitLayer").field("limits", &self.shared.limits).finish_non_exhaustive()
    }
}
