//! One request, on its way to its handler and in it.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use ::http::{Request, Response};
use pin_project::pin_project;
use tower::Service;

use super::{
    body::Reported,
    incoming::{self, Protocol},
    layer::Shared,
    meter::Counted,
    options::ServerOptions,
    refusal::Refusal,
};
use crate::{
    Classify as _, Reason,
    context::{self, EnterInherited, Inherited, Timer},
    grpc, http,
    limit::{Entering, Place},
    outcome::Verdict,
};

/// The future of [`Server`](super::Server).
#[pin_project]
pub struct ResponseFuture<S: Service<Req>, Req> {
    #[pin]
    timer: Timer,
    #[pin]
    state: State<S, Req>,
    /// What the request says of itself, once it was read.
    said: Option<Said>,
    /// The way into the limit, and the place there: given up after the handler is.
    entering: Entering,
    place: Option<Place>,
    /// What is counted of it, if its load is told.
    counted: Option<Counted>,
    shared: Arc<Shared>,
}

#[derive(Clone, Copy)]
struct Said {
    protocol: Protocol,
    inherited: Inherited,
}

#[pin_project(project = Projected)]
enum State<S: Service<Req>, Req> {
    Outside(Option<(S, Req)>),
    Inside(#[pin] S::Future),
    Done,
}

impl<S: Service<Req>, Req> ResponseFuture<S, Req> {
    pub(super) fn new(readied: S, request: Req, shared: Arc<Shared>) -> Self {
        Self {
            timer: Timer::default(),
            state: State::Outside(Some((readied, request))),
            said: None,
            entering: Entering::default(),
            place: None,
            counted: None,
            shared,
        }
    }
}

/// Whether the request may go in: with a place, if there is a limit.
fn enter(
    entering: &mut Entering,
    shared: &Arc<Shared>,
    cx: &mut Context<'_>,
) -> Poll<Result<Option<Place>, Refusal>> {
    if context::deadline().is_some_and(|deadline| deadline <= context::now()) {
        return Poll::Ready(Err(Refusal::Late));
    }
    let options = shared.options.load();
    let Some(limiter) = shared.limiter(&options) else { return Poll::Ready(Ok(None)) };
    Poll::Ready(match ready!(entering.poll(limiter, cx)) {
        Ok(place) => Ok(Some(place)),
        Err(error) if error.reason() == Reason::Deadline => Err(Refusal::Late),
        Err(_) => Err(Refusal::Full(options.retry_after)),
    })
}

impl<S, A, B> Future for ResponseFuture<S, Request<A>>
where
    S: Service<Request<A>, Response = Response<B>>,
    B: Default,
{
    type Output = Result<Response<Reported<B>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (mut state, said, entering) = (this.state, this.said, this.entering);
        let (place, counted, shared) = (this.place, this.counted, this.shared);
        this.timer.poll(cx, |cx| {
            loop {
                match state.as_mut().project() {
                    Projected::Outside(call) => {
                        let Some((_, request)) = call else { return Poll::Pending };
                        let said = said.get_or_insert_with(|| {
                            let options = shared.options.load();
                            *counted = Counted::of(shared, &options);
                            read(request, &options)
                        });
                        let _inherited = EnterInherited::new(said.inherited);
                        match (ready!(enter(entering, shared, cx)), call.take()) {
                            (Ok(entered), Some((mut service, request))) => {
                                *place = entered;
                                counted.iter_mut().for_each(Counted::begins);
                                let response = service.call(request);
                                state.set(State::Inside(response));
                            }
                            (Err(refusal), _) => {
                                state.set(State::Done);
                                *entering = Entering::default();
                                let answer = refusal.answer(said.protocol);
                                return Poll::Ready(Ok(told(counted.take(), answer, said.protocol)));
                            }
                            (Ok(_), None) => return Poll::Pending,
                        }
                    }
                    Projected::Inside(response) => {
                        let Some(said) = said else { return Poll::Pending };
                        let polled = {
                            let _inherited = EnterInherited::new(said.inherited);
                            response.poll(cx)
                        };
                        let result = ready!(polled);
                        state.set(State::Done);
                        let (place, mut counted) = (place.take(), counted.take());
                        if place.is_some() || counted.is_some() {
                            // Handlers do not read our clock.
                            context::forget_now();
                            let verdict = verdict(&result, said.protocol);
                            counted.iter_mut().for_each(|counted| counted.ends(verdict));
                            if let Some(mut place) = place {
                                place.show(verdict, false);
                            }
                        }
                        let protocol = said.protocol;
                        return Poll::Ready(result.map(|response| told(counted, response, protocol)));
                    }
                    Projected::Done => return Poll::Pending,
                }
            }
        })
    }
}

/// The answer, with what it says of the load.
fn told<B>(counted: Option<Counted>, response: Response<B>, protocol: Protocol) -> Response<Reported<B>> {
    match counted {
        Some(counted) => counted.answer(response, protocol),
        None => response.map(Reported::plain),
    }
}

fn read<A>(request: &Request<A>, options: &ServerOptions) -> Said {
    let protocol = Protocol::of(request.headers());
    let (base, now) = (context::inherited(), context::now());
    let inherited = incoming::inherited(base, request.headers(), protocol, options, now);
    Said { protocol, inherited }
}

/// What the answer says to an adaptive limit: one that asks for time is a sign of overload further in.
fn verdict<B, E>(result: &Result<Response<B>, E>, protocol: Protocol) -> Verdict {
    match (result, protocol) {
        (Ok(response), Protocol::Http) => http::Classifier.classify(Ok(response)),
        (Ok(response), Protocol::Grpc) => grpc::Classifier.classify(Ok(response)),
        (Err(_), _) => Verdict::failure(),
    }
}

impl<S: Service<Req>, Req> fmt::Debug for ResponseFuture<S, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Outside(_) => "outside",
            State::Inside(_) => "inside",
            State::Done => "done",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}
