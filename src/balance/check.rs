//! How an endpoint is asked whether it is well.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use tower::BoxError;

use crate::Endpoint;

/// A check under way.
pub(crate) type Asking = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

type Ask<S> = dyn Fn(&S, Arc<Endpoint>) -> Asking + Send + Sync;

/// Asks an endpoint, over a clone of its service.
pub(crate) struct Checker<S>(Arc<Ask<S>>);

impl<S> Checker<S> {
    pub(crate) fn new<F, A>(ask: F) -> Self
    where
        S: Clone,
        F: Fn(S, Arc<Endpoint>) -> A + Send + Sync + 'static,
        A: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        Self(Arc::new(move |service, endpoint| Box::pin(ask(service.clone(), endpoint))))
    }

    pub(crate) fn ask(&self, service: &S, endpoint: Arc<Endpoint>) -> Asking {
        (self.0)(service, endpoint)
    }
}

impl<S> fmt::Debug for Checker<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Checker")
    }
}
