//! A breaker for each key: a host, a tenant, a shard.

use std::{
    fmt::{self, Display},
    hash::Hash,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use tower::{BoxError, Layer, Service};

use super::{
    BreakerHandle, BreakerOptions, ResponseFuture,
    live::{Live, Owner},
    service::{Judge, Shared},
};
use crate::{
    clock, context,
    error::ErrorsFail,
    gated::Gated,
    invalid::{Check, Invalid},
    keyed::{KeyOptions, Keyed},
    outcome::Classify,
    random::{Entropy, Random},
    sync::Swap,
    telemetry::{Observer, Observers},
    track::Track,
};

/// Puts a breaker for each key around a service.
///
/// The number of keys is bounded. When it is reached, a new key takes the place of the longest unused one whose breaker is
/// closed and has no failure in its window; if there is none, calls of the new key pass unguarded. A key that was idle for
/// long goes too, unless somebody's hand holds its breaker: forced open, disabled, or only measuring.
pub struct KeyedBreakerLayer<K, Req, Res> {
    key: Arc<dyn Fn(&Req) -> K + Send + Sync>,
    options: BreakerOptions,
    keys: KeyOptions,
    judge: Judge<Res>,
    owner: Owner,
}

impl<K, Req, Res> KeyedBreakerLayer<K, Req, Res>
where
    K: Hash + Eq + Clone + Display,
    Res: 'static,
{
    /// Breakers by `options`, one for each value of `key`. Keys stand in errors and events: no secrets.
    ///
    /// # Errors
    /// [`Invalid`] with every option that breaks its rule.
    pub fn new(
        options: BreakerOptions,
        keys: KeyOptions,
        key: impl Fn(&Req) -> K + Send + Sync + 'static,
    ) -> Result<Self, Invalid> {
        let mut check = Check::default();
        options.check(&mut check);
        check.part("keys", |check| keys.check(check));
        check.finish()?;
        let owner = Owner {
            client: "breaker".into(),
            observers: Arc::new(Observers::default()),
            random: Arc::new(Entropy),
        };
        let judge = Judge { classify: Arc::new(ErrorsFail), track: None };
        Ok(Self { key: Arc::new(key), options, keys, judge, owner })
    }

    /// The name in errors and events, before that of the key \["breaker"\].
    #[must_use]
    pub fn label(mut self, label: impl Into<Arc<str>>) -> Self {
        self.owner.client = label.into();
        self
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

    /// Where the jitter of a growing open time comes from \[the operating system, a generator per thread\].
    #[must_use]
    pub fn random(mut self, random: impl Random) -> Self {
        self.owner.random = Arc::new(random);
        self
    }

    /// The breakers, and the layer that puts them around services.
    #[must_use]
    pub fn build(self) -> KeyedBreakers<K, Req, Res> {
        let unguarded = Live::new(self.owner.client.clone(), BreakerOptions::default(), self.owner.clone());
        let unguarded = unguarded.expect("the default options are valid");
        unguarded.circuit.force(super::State::Disabled, clock::now(), &*self.owner.random);
        let unguarded = Arc::new(Shared { live: Arc::new(unguarded), judge: self.judge.clone() });
        let keyed = Keyed::new(self.keys, clock::now());
        let options = Swap::new(self.options.clone());
        KeyedBreakers(Arc::new(Inside { layer: self, options, keyed, unguarded }))
    }
}

impl<K, Req, Res> fmt::Debug for KeyedBreakerLayer<K, Req, Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedBreakerLayer")
            .field("options", &self.options)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

struct Inside<K, Req, Res> {
    layer: KeyedBreakerLayer<K, Req, Res>,
    /// Of keys that come.
    options: Swap<BreakerOptions>,
    keyed: Keyed<K, Arc<Shared<Res>>>,
    unguarded: Arc<Shared<Res>>,
}

/// The breakers of all keys, as a layer and as a handle; made by [`KeyedBreakerLayer::build`]. A clone is the same.
pub struct KeyedBreakers<K, Req, Res>(Arc<Inside<K, Req, Res>>);

impl<K, Req, Res> KeyedBreakers<K, Req, Res>
where
    K: Hash + Eq + Clone + Display,
    Res: 'static,
{
    /// The breaker of a key, made if it is new: to force it before there is a call. `None` if there is no room for it.
    pub fn of_key(&self, key: &K) -> Option<BreakerHandle> {
        self.breaker(key, clock::now()).map(|shared| BreakerHandle(shared.live.clone()))
    }

    /// The breaker of a key that has been called. Looking does not keep it from going.
    pub fn get(&self, key: &K) -> Option<BreakerHandle> {
        self.0.keyed.peek(key).map(|shared| BreakerHandle(shared.live.clone()))
    }

    /// All the breakers there are, with their keys.
    pub fn all(&self) -> Vec<(K, BreakerHandle)> {
        let handle = |(key, shared): (K, Arc<Shared<Res>>)| (key, BreakerHandle(shared.live.clone()));
        self.0.keyed.all().into_iter().map(handle).collect()
    }

    /// The options in force, of all keys whose own were not replaced through their handle.
    pub fn options(&self) -> BreakerOptions {
        BreakerOptions::clone(&self.0.options.load())
    }

    /// Replaces the options of all breakers, of keys that are known and of keys that come, while calls go through; as
    /// [`BreakerHandle::update`] does of one.
    ///
    /// # Errors
    /// [`Invalid`] with every option that breaks its rule; nothing is changed then.
    pub fn update(&self, options: BreakerOptions) -> Result<(), Invalid> {
        options.validate()?;
        self.0.keyed.change(|known| {
            for (_, shared) in known {
                shared.live.update(options.clone()).expect("the options were checked");
            }
            self.0.options.store(options);
        });
        Ok(())
    }

    fn of(&self, request: &Req) -> Arc<Shared<Res>> {
        let key = (self.0.layer.key)(request);
        self.breaker(&key, context::now()).unwrap_or_else(|| self.0.unguarded.clone())
    }

    fn breaker(&self, key: &K, now: Instant) -> Option<Arc<Shared<Res>>> {
        let Inside { layer, options, keyed, .. } = &*self.0;
        let make = || {
            let options = BreakerOptions::clone(&options.load());
            let live = Live::new(key.to_string().into(), options, layer.owner.clone());
            let live = live.expect("the options were checked");
            Arc::new(Shared { live: Arc::new(live), judge: layer.judge.clone() })
        };
        keyed.get(key, now, make, |shared, idle| shared.live.circuit.may_go(idle, now))
    }
}

impl<K, Req, Res> Clone for KeyedBreakers<K, Req, Res> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, Req, Res> fmt::Debug for KeyedBreakers<K, Req, Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedBreakers")
            .field("options", &self.0.options.load())
            .field("keyed", &self.0.keyed)
            .finish_non_exhaustive()
    }
}

impl<S, K, Req, Res> Layer<S> for KeyedBreakers<K, Req, Res> {
    type Service = KeyedBreaker<S, K, Req, Res>;

    fn layer(&self, inner: S) -> Self::Service {
        KeyedBreaker { inner, breakers: self.clone() }
    }
}

/// A service with a breaker for each key of its requests.
pub struct KeyedBreaker<S, K, Req, Res> {
    inner: S,
    breakers: KeyedBreakers<K, Req, Res>,
}

impl<S, K, Req> Service<Req> for KeyedBreaker<S, K, Req, S::Response>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    S::Response: 'static,
    K: Hash + Eq + Clone + Display,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, Req>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let shared = self.breakers.of(&request);
        ResponseFuture::new(Gated::of(&mut self.inner, request), shared)
    }
}

impl<S: Clone, K, Req, Res> Clone for KeyedBreaker<S, K, Req, Res> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), breakers: self.breakers.clone() }
    }
}

impl<S: fmt::Debug, K, Req, Res> fmt::Debug for KeyedBreaker<S, K, Req, Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedBreaker").field("inner", &self.inner).field("breakers", &self.breakers).finish()
    }
}
