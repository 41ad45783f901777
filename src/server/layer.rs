//! The layer, which owns the limit, and the service.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use ::http::{Request, Response};
use arc_swap::ArcSwap;
use tower::{Layer, Service};

use super::{body::Reported, future::ResponseFuture, meter::Meter, options::ServerOptions};
use crate::{
    clock,
    invalid::Invalid,
    limit::{Algorithm, LimitStatus, Limiter},
    sync::{Mutex, lock},
};

/// Reads what clients say of their requests, runs handlers within it, and refuses what is late or too much; see the
/// [module](super).
///
/// Every service that one layer value, or a clone of it, was laid around shares its limit, and its load.
#[derive(Clone)]
pub struct ServerLayer {
    shared: Arc<Shared>,
}

/// What all services of one layer share.
pub(super) struct Shared {
    pub(super) options: ArcSwap<ServerOptions>,
    /// From the first time on that one was wanted.
    limiter: OnceLock<Arc<Limiter>>,
    /// Held while options are replaced: the algorithm that the limit goes by, wanted or not.
    updating: Mutex<Option<Algorithm>>,
    pub(super) meter: Meter,
}

impl Shared {
    /// The limit, if `options` want one.
    pub(super) fn limiter(&self, options: &ServerOptions) -> Option<&Arc<Limiter>> {
        options.limit.as_ref().and_then(|_| self.limiter.get())
    }

    fn take_over(&self, options: ServerOptions, algorithm: &mut Option<Algorithm>) -> Result<(), Invalid> {
        if let Some(limit) = &options.limit {
            let before = algorithm.replace(limit.algorithm.clone());
            let same = before.is_none_or(|before| before == limit.algorithm);
            match self.limiter.get() {
                Some(limiter) => limiter.update(limit, same)?,
                None => drop(self.limiter.set(Arc::new(Limiter::new(limit, None)?))),
            }
        }
        self.options.store(Arc::new(options));
        Ok(())
    }
}

impl ServerLayer {
    /// A layer with a limit of its own, if `options` want one.
    ///
    /// # Errors
    /// [`Invalid`] with every option that breaks its rule.
    pub fn new(options: ServerOptions) -> Result<Self, Invalid> {
        options.validate()?;
        let shared = Shared {
            options: ArcSwap::from_pointee(options.clone()),
            limiter: OnceLock::new(),
            updating: Mutex::new(None),
            meter: Meter::new(clock::now()),
        };
        shared.take_over(options, &mut lock(&shared.updating))?;
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Replaces the options while requests run. What is in the handlers stays there; an algorithm that stays the same keeps what it
    /// has learnt.
    ///
    /// # Errors
    /// [`Invalid`] with every option that breaks its rule; nothing is changed then.
    pub fn update(&self, options: ServerOptions) -> Result<(), Invalid> {
        options.validate()?;
        self.shared.take_over(options, &mut lock(&self.shared.updating))
    }

    /// The options that are in force.
    pub fn options(&self) -> ServerOptions {
        ServerOptions::clone(&self.shared.options.load())
    }

    /// What the limit does, if there is one.
    pub fn status(&self) -> Option<LimitStatus> {
        self.shared.limiter(&self.shared.options.load()).map(|limiter| limiter.status())
    }
}

impl Default for ServerLayer {
    fn default() -> Self {
        Self::new(ServerOptions::default()).expect("the defaults hold together")
    }
}

impl fmt::Debug for ServerLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerLayer").field("options", &self.options()).finish_non_exhaustive()
    }
}

impl<S> Layer<S> for ServerLayer {
    type Service = Server<S>;

    fn layer(&self, inner: S) -> Server<S> {
        Server { inner, shared: Arc::clone(&self.shared) }
    }
}

/// Handlers behind a [`ServerLayer`].
///
/// Readiness is that of the handlers; a handle that is ready holds no place in the limit. Its errors are theirs: what it
/// refuses is an answer.
pub struct Server<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S, A, B> Service<Request<A>> for Server<S>
where
    S: Service<Request<A>, Response = Response<B>> + Clone,
    B: Default,
{
    type Response = Response<Reported<B>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, Request<A>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        // The one that was readied goes along; a clone, which was not, stays in its place.
        let clone = self.inner.clone();
        let readied = std::mem::replace(&mut self.inner, clone);
        ResponseFuture::new(readied, request, Arc::clone(&self.shared))
    }
}

impl<S: Clone> Clone for Server<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<S: fmt::Debug> fmt::Debug for Server<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("inner", &self.inner).finish_non_exhaustive()
    }
}
