//! How an endpoint is asked whether it is well, or for its load, and how it is listened to.

use std::{any::Any, fmt, future::Future, panic::AssertUnwindSafe, pin::Pin, sync::Arc};

use futures::{FutureExt as _, Stream, StreamExt as _, future, stream};
use tower::BoxError;

use crate::{Endpoint, health::ServingStatus, report::Report};

/// A check under way.
pub(crate) type Asking = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;
/// What an endpoint says of itself unasked.
pub(crate) type Telling = Pin<Box<dyn Stream<Item = ServingStatus> + Send>>;

/// A question for its load.
pub(crate) type Probing = Pin<Box<dyn Future<Output = Option<Report>> + Send>>;

type Call<S, T> = dyn Fn(&S, Arc<Endpoint>) -> Pin<Box<dyn Future<Output = T> + Send>> + Send + Sync;
type Watch<S> = dyn Fn(&S, Arc<Endpoint>) -> Telling + Send + Sync;

/// Asks an endpoint, and listens to it, over a clone of its service.
pub(crate) struct Checker<S> {
    ask: Option<Arc<Call<S, Result<(), BoxError>>>>,
    watch: Option<Arc<Watch<S>>>,
    probe: Option<Arc<Call<S, Option<Report>>>>,
}

impl<S> Default for Checker<S> {
    fn default() -> Self {
        Self { ask: None, watch: None, probe: None }
    }
}

impl<S> Checker<S> {
    pub(crate) fn set_ask<F, A>(&mut self, ask: F)
    where
        S: Clone,
        F: Fn(S, Arc<Endpoint>) -> A + Send + Sync + 'static,
        A: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.ask = Some(Arc::new(move |service, endpoint| Box::pin(ask(service.clone(), endpoint))));
    }

    pub(crate) fn set_watch<F, W>(&mut self, watch: F)
    where
        S: Clone,
        F: Fn(S, Arc<Endpoint>) -> W + Send + Sync + 'static,
        W: Stream<Item = ServingStatus> + Send + 'static,
    {
        self.watch = Some(Arc::new(move |service, endpoint| Box::pin(watch(service.clone(), endpoint))));
    }

    pub(crate) fn set_probe<F, A>(&mut self, probe: F)
    where
        S: Clone,
        F: Fn(S, Arc<Endpoint>) -> A + Send + Sync + 'static,
        A: Future<Output = Option<Report>> + Send + 'static,
    {
        self.probe = Some(Arc::new(move |service, endpoint| Box::pin(probe(service.clone(), endpoint))));
    }

    pub(crate) fn probes(&self) -> bool {
        self.probe.is_some()
    }

    pub(crate) fn asks(&self) -> bool {
        self.ask.is_some()
    }

    pub(crate) fn watches(&self) -> bool {
        self.watch.is_some()
    }
}

/// Calls what a user gave when it is first polled. It takes nobody along when it panics.
fn called<S, T>(
    call: Arc<Call<S, T>>,
    service: Arc<S>,
    endpoint: Arc<Endpoint>,
) -> impl Future<Output = Result<T, Box<dyn Any + Send>>> + Send
where
    S: Send + Sync + 'static,
    T: 'static,
{
    let asking = async move {
        let asking = call(&service, endpoint);
        drop(service);
        asking.await
    };
    AssertUnwindSafe(asking).catch_unwind()
}

impl<S: Send + Sync + 'static> Checker<S> {
    /// A check that panics has failed.
    pub(crate) fn ask(&self, service: Arc<S>, endpoint: Arc<Endpoint>) -> Option<Asking> {
        let asking = called(self.ask.clone()?, service, endpoint);
        Some(Box::pin(asking.map(|ended| ended.unwrap_or(Err("the check has panicked".into())))))
    }

    /// A question for the load that panics says nothing.
    pub(crate) fn probe(&self, service: Arc<S>, endpoint: Arc<Endpoint>) -> Option<Probing> {
        let asking = called(self.probe.clone()?, service, endpoint);
        Some(Box::pin(asking.map(|ended| ended.ok().flatten())))
    }

    /// What panics says no more.
    pub(crate) fn watch(&self, service: Arc<S>, endpoint: Arc<Endpoint>) -> Option<Telling> {
        let watch = self.watch.clone()?;
        let telling = stream::once(async move { watch(&service, endpoint) }).flatten();
        Some(Box::pin(AssertUnwindSafe(telling).catch_unwind().filter_map(|said| future::ready(said.ok()))))
    }
}

impl<S> fmt::Debug for Checker<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checker")
            .field("asks", &self.asks())
            .field("watches", &self.watches())
            .field("probes", &self.probes())
            .finish()
    }
}
