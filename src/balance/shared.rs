//! Services that cannot be cloned.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Wake, Waker},
};

use tower::Service;

use super::wake::{Place, WakeSet};

/// Makes any `Send` service `Clone + Sync`: the clones take turns.
///
/// A turn is one `poll_ready` and one `call` under a lock, so nothing is held between them, and a clone that is ready but
/// never called keeps nobody waiting. Whoever waits for readiness is woken with everybody else who does: a waiter that
/// goes away takes nobody's wake-up with it.
///
/// The price: `call` may find the service taken by another clone since `poll_ready` said it was ready; the response
/// future then waits for its turn.
pub struct Shared<S> {
    inner: Arc<Inner<S>>,
    place: Option<Place>,
}

struct Inner<S> {
    service: Mutex<S>,
    waiting: Arc<Fan>,
}

/// Wakes all clones that wait, whichever of them polled last.
struct Fan(WakeSet);

impl Wake for Fan {
    fn wake(self: Arc<Self>) {
        self.0.wake_all();
    }
}

impl<S> Shared<S> {
    /// Shares `service`.
    pub fn new(service: S) -> Self {
        let waiting = Arc::new(Fan(WakeSet::new()));
        Self { inner: Arc::new(Inner { service: Mutex::new(service), waiting }), place: None }
    }

    fn leave(&mut self) {
        if let Some(place) = self.place.take() {
            self.inner.waiting.0.leave(place);
        }
    }
}

impl<S> Inner<S> {
    /// Polls the service with a waker that wakes everybody who waits.
    fn poll_ready<Req>(&self, service: &mut S) -> Poll<Result<(), S::Error>>
    where
        S: Service<Req>,
    {
        let waker = Waker::from(self.waiting.clone());
        service.poll_ready(&mut Context::from_waker(&waker))
    }
}

impl<S, Req> Service<Req> for Shared<S>
where
    S: Service<Req>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = future::ResponseFuture<S, Req>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        // Registered before the look, so that readiness in between wakes us.
        match &self.place {
            Some(place) => self.inner.waiting.0.register(place, cx),
            None => self.place = self.inner.waiting.0.join(usize::MAX, cx),
        }
        let ready = {
            let mut service = self.inner.service.lock().unwrap_or_else(PoisonError::into_inner);
            self.inner.poll_ready(&mut service)
        };
        if ready.is_ready() {
            self.leave();
        }
        ready
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let turn = Self { inner: self.inner.clone(), place: None };
        future::ResponseFuture::new(turn, request)
    }
}

impl<S> Clone for Shared<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), place: None }
    }
}

impl<S> Drop for Shared<S> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl<S> fmt::Debug for Shared<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

mod future {
    //! The future of [`Shared`](super::Shared).

    use std::{
        fmt,
        future::Future,
        pin::Pin,
        sync::PoisonError,
        task::{Context, Poll},
    };

    use pin_project::pin_project;
    use tower::Service;

    use super::Shared;

    /// Waits for its turn, then for the response.
    #[pin_project]
    pub struct ResponseFuture<S, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        state: State<S, Req, S::Future>,
    }

    #[pin_project(project = StateProjection)]
    enum State<S, Req, F> {
        Turn(Shared<S>, Option<Req>),
        Called(#[pin] F),
    }

    impl<S, Req> ResponseFuture<S, Req>
    where
        S: Service<Req>,
    {
        pub(super) fn new(turn: Shared<S>, request: Req) -> Self {
            Self { state: State::Turn(turn, Some(request)) }
        }
    }

    impl<S, Req> Future for ResponseFuture<S, Req>
    where
        S: Service<Req>,
    {
        type Output = Result<S::Response, S::Error>;

        fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
            let mut state = self.project().state;
            loop {
                let future = match state.as_mut().project() {
                    StateProjection::Called(future) => return future.poll(cx),
                    StateProjection::Turn(turn, request) => {
                        match &turn.place {
                            Some(place) => turn.inner.waiting.0.register(place, cx),
                            None => turn.place = turn.inner.waiting.0.join(usize::MAX, cx),
                        }
                        let mut service = turn.inner.service.lock().unwrap_or_else(PoisonError::into_inner);
                        match turn.inner.poll_ready(&mut service) {
                            Poll::Pending => return Poll::Pending,
                            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                            Poll::Ready(Ok(())) => {}
                        }
                        match request.take() {
                            Some(request) => service.call(request),
                            None => return Poll::Pending,
                        }
                    }
                };
                state.set(State::Called(future));
            }
        }
    }

    impl<S, Req> fmt::Debug for ResponseFuture<S, Req>
    where
        S: Service<Req>,
    {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("ResponseFuture").finish_non_exhaustive()
        }
    }
}
