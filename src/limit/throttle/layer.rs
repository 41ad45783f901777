//! The layer, which owns the throttle, and its service.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project::pin_project;
use tower::{BoxError, Layer, Service};

use super::{Answer, Throttle, ThrottleOptions};
use crate::{
    Error, Invalid, Reason, clock, context,
    error::ErrorsFail,
    invalid::Check,
    limit::timed_out,
    outcome::Classify,
    random::{Entropy, Random},
};

/// Keeps back a part of the requests while the servers turn requests away, over every service that one layer value, or a
/// clone of it, was laid around.
pub struct ThrottleLayer<C = ErrorsFail> {
    shared: Arc<Shared<C>>,
}

struct Shared<C> {
    throttle: Arc<Throttle>,
    classify: C,
    random: Arc<dyn Random>,
    label: Option<Arc<str>>,
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
        Throttled { inner, layer: self.clone() }
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

/// A service whose requests are kept back in part while the servers turn requests away; made by [`ThrottleLayer`].
pub struct Throttled<S, C = ErrorsFail> {
    inner: S,
    layer: ThrottleLayer<C>,
}

impl<S, C, Req> Service<Req> for Throttled<S, C>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    C: Classify<S::Response>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, Req, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        // The clone has not been readied: it stays, and the readied one goes.
        let clone = self.inner.clone();
        let readied = std::mem::replace(&mut self.inner, clone);
        ResponseFuture { state: State::Start(Some((readied, request))), shared: self.layer.shared.clone() }
    }
}

impl<S: Clone, C> Clone for Throttled<S, C> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), layer: self.layer.clone() }
    }
}

impl<S: fmt::Debug, C> fmt::Debug for Throttled<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttled").field("inner", &self.inner).field("layer", &self.layer).finish()
    }
}

/// The response of a [`Throttled`] service.
#[pin_project]
pub struct ResponseFuture<S: Service<Req>, Req, C = ErrorsFail> {
    #[pin]
    state: State<S, Req>,
    shared: Arc<Shared<C>>,
}

#[pin_project(project = Projected)]
enum State<S: Service<Req>, Req> {
    Start(Option<(S, Req)>),
    Calling(#[pin] S::Future),
    Done,
}

impl<C> Shared<C> {
    fn admit(&self) -> Result<(), Error> {
        let class = context::inherited().criticality().unwrap_or_default();
        if self.throttle.admit(context::now(), class, &*self.random) {
            return Ok(());
        }
        let error = Error::new(Reason::Throttled);
        Err(match &self.label {
            Some(label) => error.with_client(label.clone()),
            None => error,
        })
    }

    fn ended<Res>(&self, result: &Result<Res, BoxError>)
    where
        C: Classify<Res>,
    {
        let (verdict, unread) = context::judged(|| self.classify.classify(result.as_ref()));
        if unread {
            // What is further in has not read the clock when the answer came.
            context::forget_now();
        }
        if let Some(answer) = Answer::of(verdict, timed_out(result)) {
            self.throttle.ended(context::now(), answer);
        }
    }
}

impl<S, Req, C> Future for ResponseFuture<S, Req, C>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    C: Classify<S::Response>,
{
    type Output = Result<S::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                Projected::Start(call) => {
                    if let Err(refusal) = this.shared.admit() {
                        this.state.set(State::Done);
                        return Poll::Ready(Err(refusal.into()));
                    }
                    match call.take() {
                        Some((mut readied, request)) => State::Calling(readied.call(request)),
                        None => State::Done,
                    }
                }
                Projected::Calling(response) => {
                    let result = ready!(response.poll(cx)).map_err(Into::into);
                    this.state.set(State::Done);
                    this.shared.ended(&result);
                    return Poll::Ready(result);
                }
                Projected::Done => panic!("polled after completion"),
            };
            this.state.set(next);
        }
    }
}

impl<S: Service<Req>, Req, C> fmt::Debug for ResponseFuture<S, Req, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Start(_) => "new",
            State::Calling(_) => "calling",
            State::Done => "done",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}
