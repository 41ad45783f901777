//! One request of a client.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use pin_project::{pin_project, pinned_drop};
use tower::{BoxError, Service};

use super::service::{ClientEnv, Lane, View};
use crate::{
    context::{self, EnterInherited, Inherited, Timer},
    error::{Error, Reason},
    outcome::Sent,
    retry::{Session, Wishes},
    telemetry::Counter,
};

/// The future of a request: its deadline, its attempts, and what is counted of it.
#[pin_project(PinnedDrop)]
pub struct ResponseFuture<S, Req>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Response: 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    /// Dropped as soon as the deadline has passed.
    #[pin]
    session: Option<Session<ClientEnv<S, Req>, Req>>,
    #[pin]
    timer: Timer,
    lane: Arc<Lane<S, Req>>,
    total: Option<Duration>,
    operation: Option<Arc<str>>,
    began: Option<Began>,
}

/// What is fixed when a request is first polled.
struct Began {
    at: Instant,
    inherited: Inherited,
    span: tracing::Span,
}

impl<S, Req> ResponseFuture<S, Req>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Response: 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    pub(super) fn new(lane: Arc<Lane<S, Req>>, view: &View, request: Req) -> Self {
        let (total, max_attempts) = {
            let options = lane.0.options.load();
            (view.deadline.or(options.deadline), view.max_attempts.unwrap_or(options.retry.max_attempts))
        };
        let wishes = Wishes { max_attempts, steps_aside: false, idempotent: view.idempotent };
        let session = Session::new(ClientEnv(lane.clone()), request, wishes);
        Self {
            session: Some(session),
            timer: Timer::default(),
            lane,
            total,
            operation: view.operation.clone(),
            began: None,
        }
    }
}

/// Begins a request: fixes its deadline and opens its span.
fn begin(label: &str, operation: Option<&str>, total: Option<Duration>) -> Began {
    let at = context::now();
    let inherited = context::inherited();
    let inherited = match total.and_then(|total| at.checked_add(total)) {
        Some(deadline) => inherited.with_deadline(deadline),
        None => inherited,
    };
    let span = tracing::debug_span!(target: "mainstay", "request", client = label, operation);
    Began { at, inherited, span }
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
        let (mut session, core) = (this.session, &*this.lane.0);
        let (began, operation, total) = (this.began, this.operation.as_deref(), *this.total);
        this.timer.poll(cx, |cx| {
            let current = began.get_or_insert_with(|| begin(&core.label, operation, total));
            let Some(mut running) = session.as_mut().as_pin_mut() else { return Poll::Pending };
            let polled = {
                let _span = current.span.enter();
                let _inherited = EnterInherited::new(current.inherited);
                running.as_mut().poll(cx)
            };
            let succeeded = running.succeeded();
            let result = match polled {
                Poll::Ready(result) => result,
                Poll::Pending => {
                    let Some(deadline) = current.inherited.deadline() else { return Poll::Pending };
                    let now = context::now();
                    if now < deadline {
                        context::wake_at(deadline);
                        return Poll::Pending;
                    }
                    let lasted = now.saturating_duration_since(current.at);
                    let error = Error::new(Reason::Deadline)
                        .with_client(core.label.clone())
                        .with_sent(Sent::Maybe)
                        .with_lasted(lasted);
                    session.set(None);
                    Err(error.into())
                }
            };
            if succeeded {
                let now = context::now();
                core.latency(now, now.saturating_duration_since(current.at));
                core.parts.tally.count(Counter::Successes);
            } else {
                core.parts.tally.count(Counter::Failures);
            }
            *began = None;
            Poll::Ready(result)
        })
    }
}

/// A request that was polled and has not ended is cancelled when it is dropped.
#[pinned_drop]
impl<S, Req> PinnedDrop for ResponseFuture<S, Req>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Response: 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    fn drop(self: Pin<&mut Self>) {
        if self.began.is_some() {
            self.lane.0.parts.tally.count(Counter::Cancelled);
        }
    }
}

impl<S, Req> fmt::Debug for ResponseFuture<S, Req>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Response: 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("client", &self.lane.0.label)
            .field("attempts", &self.session.as_ref().map(Session::attempts))
            .finish_non_exhaustive()
    }
}
