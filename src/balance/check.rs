//! How an endpoint is asked whether it is well, and how it is listened to.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use futures::Stream;
use tower::BoxError;

use crate::{Endpoint, health::ServingStatus};

/// A check under way.
pub(crate) type Asking = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;
/// What an endpoint says of itself unasked.
pub(crate) type Telling = Pin<Box<dyn Stream<Item = ServingStatus> + Send>>;

type Ask<S> = dyn Fn(&S, Arc<Endpoint>) -> Asking + Send + Sync;
type Watch<S> = dyn Fn(&S, Arc<Endpoint>) -> Telling + Send + Sync;

/// Asks an endpoint, and listens to it, over a clone of its service.
pub(crate) struct Checker<S> {
    ask: Option<Arc<Ask<S>>>,
    watch: Option<Arc<Watch<S>>>,
}

impl<S> Default for Checker<S> {
    fn default() -> Self {
        Self { ask: None, watch: None }
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

    pub(crate) fn asks(&self) -> bool {
        self.ask.is_some()
    }

    pub(crate) fn watches(&self) -> bool {
        self.watch.is_some()
    }

    pub(crate) fn ask(&self, service: &S, endpoint: Arc<Endpoint>) -> Option<Asking> {
        self.ask.as_ref().map(|ask| ask(service, endpoint))
    }

    pub(crate) fn watch(&self, service: &S, endpoint: Arc<Endpoint>) -> Option<Telling> {
        self.watch.as_ref().map(|watch| watch(service, endpoint))
    }
}

impl<S> fmt::Debug for Checker<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checker").field("asks", &self.asks()).field("watches", &self.watches()).finish()
    }
}
