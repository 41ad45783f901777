//! One request of a client.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use pin_project::{pin_project, pinned_drop};
use tower::{BoxError, Service};

use super::{
    admission::Admission,
    attempt::Guarded,
    hedged::Beside,
    service::{ClientEnv, Lane, View},
};
use crate::{
    balance::Fleet,
    context::{self, EnterInherited, Inherited, Timer},
    error::{Error, Reason},
    limit::timed_out,
    outcome::Sent,
    retry::{Session, Wishes},
    telemetry::Counter,
};

type OwnSession<S, Req> = Session<ClientEnv<S, Req>, Guarded<S, Req>, Beside<S, Req>, Req>;

/// The future of a request: its deadline, its attempts, and what is counted of it.
#[pin_project(PinnedDrop)]
pub struct ResponseFuture<S, Req>
where
    S: Service<Req>,
{
    #[pin]
    session: OwnSession<S, Req>,
    #[pin]
    timer: Timer,
    total: Option<Duration>,
    operation: Option<Arc<str>>,
    began: Option<Began>,
    /// Where a rate or a throttle has to let the request in.
    admission: Option<Box<Admission>>,
    over: bool,
}

/// What is fixed when a request is first polled.
struct Began {
    /// In nanoseconds since the fleet's epoch.
    at: u64,
    inherited: Inherited,
    /// Only where somebody listens.
    span: Option<Box<tracing::Span>>,
}

impl<S, Req> ResponseFuture<S, Req>
where
    S: Service<Req>,
{
    // Always, or the future is made in one place and copied to another.
    #[inline(always)]
    pub(super) fn new(lane: &Arc<Lane<S, Req>>, view: &View, request: Req) -> Self {
        let total = view.deadline.or_else(|| lane.0.deadline());
        let max_attempts = view.max_attempts.unwrap_or_else(|| lane.0.max_attempts());
        let wishes = Wishes { max_attempts, steps_aside: false, idempotent: view.idempotent };
        Self {
            session: Session::new(
                ClientEnv { lane: lane.clone(), method: view.breaker.clone(), terms: view.terms.clone() },
                request,
                wishes,
            ),
            timer: Timer::default(),
            total,
            // Its reference count is one for all requests of the view: touched only where somebody listens.
            operation: view.operation.as_ref().filter(|_| is_traced()).cloned(),
            began: None,
            admission: lane.0.admission(),
            over: false,
        }
    }
}

/// Whether somebody listens to spans of requests.
#[inline]
fn is_traced() -> bool {
    tracing::enabled!(target: "mainstay", tracing::Level::DEBUG)
}

impl Began {
    /// Fixes the deadline of a request, and opens its span.
    #[inline]
    fn now(fleet: &Fleet, operation: Option<&str>, total: Option<Duration>) -> Self {
        let now = fleet.now();
        let inherited = context::inherited();
        let inherited = match total.and_then(|total| now.at.checked_add(total)) {
            Some(deadline) => inherited.with_deadline(deadline),
            None => inherited,
        };
        let span = is_traced().then(|| {
            Box::new(tracing::debug_span!(target: "mainstay", "request", client = &*fleet.label, operation))
        });
        Self { at: now.nanos, inherited, span }
    }
}

impl<S, Req> Future for ResponseFuture<S, Req>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Response: 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    type Output = Result<S::Response, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if *this.over {
            // Polled after its end: it may do anything then but count again.
            return Poll::Pending;
        }
        let (mut session, began, over) = (this.session, this.began, this.over);
        let (operation, total, admission) = (this.operation.as_deref(), *this.total, this.admission);
        this.timer.poll(cx, |cx| {
            let current = began
                .get_or_insert_with(|| Began::now(session.env().core().balance.fleet(), operation, total));
            let polled = {
                let _span = current.span.as_ref().map(|span| span.enter());
                let _inherited = EnterInherited::new(current.inherited);
                let way_in = match admission {
                    None => Poll::Ready(Ok(())),
                    Some(way_in) => admit(&session, way_in),
                };
                // In one place, or it is called where it could be inlined.
                match way_in {
                    Poll::Ready(Ok(())) => session.as_mut().poll(cx),
                    Poll::Ready(Err(refusal)) => Poll::Ready(Err(refusal.into())),
                    Poll::Pending => Poll::Pending,
                }
            };
            let result = match polled {
                Poll::Ready(result) => result,
                Poll::Pending => {
                    let Some(deadline) = current.inherited.deadline() else { return Poll::Pending };
                    if context::now() < deadline {
                        context::wake_at(deadline);
                        return Poll::Pending;
                    }
                    let fleet = session.env().core().balance.fleet();
                    let lasted = Duration::from_nanos(fleet.now().nanos.saturating_sub(current.at));
                    let error = Error::new(Reason::Deadline)
                        .with_client(fleet.label.clone())
                        .with_sent(Sent::Maybe)
                        .with_lasted(lasted);
                    session.as_mut().cancel();
                    Err(error.into())
                }
            };
            let core = session.env().core();
            if let Some(way_in) = admission.take() {
                way_in.ended(session.verdict(), timed_out(&result));
            }
            if session.succeeded() {
                core.latency(current.at);
                core.parts.tally.count(Counter::Successes);
            } else {
                core.parts.tally.count(Counter::Failures);
            }
            *began = None;
            *over = true;
            Poll::Ready(result)
        })
    }
}

/// Ready when a request is in.
#[cold]
fn admit<S, Req>(session: &OwnSession<S, Req>, way_in: &mut Admission) -> Poll<Result<(), Error>>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Response: 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    let core = session.env().core();
    let polled = way_in.poll(|| session.criticality(), &*core.parts.random);
    polled.map_err(|refusal| refusal.with_client(core.label.clone()))
}

/// A request that was polled and has not ended is cancelled when it is dropped.
#[pinned_drop]
impl<S, Req> PinnedDrop for ResponseFuture<S, Req>
where
    S: Service<Req>,
{
    fn drop(self: Pin<&mut Self>) {
        if self.began.is_some() {
            self.session.env().core().parts.tally.count(Counter::Cancelled);
        }
    }
}

impl<S, Req> fmt::Debug for ResponseFuture<S, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("client", &self.session.env().core().label)
            .field("attempts", &self.session.attempts())
            .finish_non_exhaustive()
    }
}
