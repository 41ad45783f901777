//! Trouble on purpose, in front of any service.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use pin_project::pin_project;
use tower::{BoxError, Layer, Service};

use super::Distribution;
use crate::{
    Ratio,
    invalid::{Check, Invalid},
    random::{Entropy, Random, unit},
};

/// How much trouble, and which.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ChaosOptions {
    /// The share of the requests that are held up before they are sent \[0\].
    pub slow: Ratio,
    /// For how long \[exponential, mean 100 ms\].
    pub latency: Distribution,
    /// The share of the requests that end with a [`ChaosFault`] instead of being sent, after having been held up \[0\].
    pub error: Ratio,
    /// The share of the requests that are never answered \[0\], and not sent either.
    pub hang: Ratio,
}

impl Default for ChaosOptions {
    fn default() -> Self {
        let none = Ratio::percent::<0>();
        Self { slow: none, latency: Distribution::exponential_ms(100), error: none, hang: none }
    }
}

impl ChaosOptions {
    /// Holds up a share of the requests for so long.
    #[must_use]
    pub fn slow(mut self, share: Ratio, latency: Distribution) -> Self {
        (self.slow, self.latency) = (share, latency);
        self
    }

    /// Sets [`error`](Self::error).
    #[must_use]
    pub fn error(mut self, share: Ratio) -> Self {
        self.error = share;
        self
    }

    /// Sets [`hang`](Self::hang).
    #[must_use]
    pub fn hang(mut self, share: Ratio) -> Self {
        self.hang = share;
        self
    }

    /// Checks every option.
    ///
    /// # Errors
    /// [`Invalid`] with all that is wrong.
    pub fn validate(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        check.part("latency", |check| self.latency.check(check));
        let both = self.error.get() + self.hang.get();
        check.rule(both <= 1.0, "hang", self.hang, format!("with error ({}) at most 100 %", self.error));
        check.finish()
    }
}

/// The handle to the trouble that a [`ChaosLayer`] makes: change it, or end it, while it runs.
#[derive(Clone)]
pub struct Chaos(Arc<Inner>);

struct Inner {
    options: Mutex<Arc<ChaosOptions>>,
    random: Box<dyn Random>,
}

impl Chaos {
    /// Trouble from now on, by chance that the operating system seeds.
    ///
    /// # Errors
    /// [`Invalid`] with all that is wrong with the options.
    pub fn new(options: ChaosOptions) -> Result<Self, Invalid> {
        Self::with_random(options, Entropy)
    }

    /// The same with chance of your own: the same seed and order of requests, the same trouble.
    ///
    /// # Errors
    /// [`Invalid`] with all that is wrong with the options.
    pub fn with_random(options: ChaosOptions, random: impl Random) -> Result<Self, Invalid> {
        options.validate()?;
        Ok(Self(Arc::new(Inner { options: Mutex::new(Arc::new(options)), random: Box::new(random) })))
    }

    /// Other trouble for the requests that are sent from now on.
    ///
    /// # Errors
    /// [`Invalid`] with all that is wrong; then everything stays as it was.
    pub fn update(&self, options: ChaosOptions) -> Result<(), Invalid> {
        options.validate()?;
        *self.0.options.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(options);
        Ok(())
    }

    /// No more trouble for the requests that are sent from now on. What hangs goes on hanging.
    pub fn stop(&self) {
        let mut options = self.0.options.lock().unwrap_or_else(PoisonError::into_inner);
        *options = Arc::new(ChaosOptions::default());
    }

    /// The trouble that is being made.
    pub fn options(&self) -> ChaosOptions {
        ChaosOptions::clone(&self.current())
    }

    fn current(&self) -> Arc<ChaosOptions> {
        self.0.options.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What happens to the next request: how long it is held up, and how it ends if it is not sent.
    fn draw(&self) -> (Duration, Fate) {
        let (options, random) = (self.current(), &*self.0.random);
        // Always the same number of draws, so that one share does not move what another decides.
        let (slow, end) = (unit(random.next()), unit(random.next()));
        let latency = options.latency.draw(random);
        let wait = if slow < options.slow.get() { latency } else { Duration::ZERO };
        let fate = if end < options.error.get() {
            Fate::Fail
        } else if end < options.error.get() + options.hang.get() {
            Fate::Hang
        } else {
            Fate::Send
        };
        (wait, fate)
    }
}

impl fmt::Debug for Chaos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chaos").field("options", &self.current()).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Send,
    Fail,
    Hang,
}

/// The error of a request that chaos did not let through. Nothing was sent; layers that do not know it take it for any
/// other error of the service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("failed on purpose")]
pub struct ChaosFault;

/// Makes trouble in front of a service: latency, errors and silence, each by rate. In front of real servers too.
///
/// Put it below the layers that are to be tried, around your transport. All services of one layer, and all its clones, obey
/// the same [`Chaos`].
///
/// ```
/// use mainstay::{Ratio, testing::{Chaos, ChaosLayer, ChaosOptions}};
/// use tower::{BoxError, ServiceBuilder, ServiceExt as _, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let chaos = Chaos::new(ChaosOptions::default().error(Ratio::percent::<100>()))?;
/// let service = ServiceBuilder::new()
///     .layer(ChaosLayer::new(chaos.clone()))
///     .service(service_fn(|n: u64| async move { Ok::<_, BoxError>(n + 1) }));
/// assert!(service.clone().oneshot(1).await.is_err());
/// chaos.stop();
/// assert_eq!(service.oneshot(1).await?, 2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ChaosLayer {
    chaos: Chaos,
}

impl ChaosLayer {
    /// A layer that obeys this handle.
    pub fn new(chaos: Chaos) -> Self {
        Self { chaos }
    }
}

impl<S> Layer<S> for ChaosLayer {
    type Service = ChaosService<S>;

    fn layer(&self, inner: S) -> ChaosService<S> {
        ChaosService { inner, chaos: self.chaos.clone() }
    }
}

/// The service made by [`ChaosLayer`].
#[derive(Clone, Debug)]
pub struct ChaosService<S> {
    inner: S,
    chaos: Chaos,
}

impl<S, Req> Service<Req> for ChaosService<S>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ChaosFuture<S, Req>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let (wait, fate) = self.chaos.draw();
        // The one that was made ready is called; a clone takes its place.
        let clone = self.inner.clone();
        let service = std::mem::replace(&mut self.inner, clone);
        let wait = (!wait.is_zero()).then(|| tokio::time::sleep(wait));
        ChaosFuture { state: State::Waiting { wait, held: Some((service, request)), fate } }
    }
}

/// The future of [`ChaosService`].
#[pin_project]
pub struct ChaosFuture<S: Service<Req>, Req> {
    #[pin]
    state: State<S, Req>,
}

#[pin_project(project = StateProjection)]
enum State<S: Service<Req>, Req> {
    Waiting {
        #[pin]
        wait: Option<tokio::time::Sleep>,
        held: Option<(S, Req)>,
        fate: Fate,
    },
    Calling(#[pin] S::Future),
}

impl<S, Req> Future for ChaosFuture<S, Req>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
{
    type Output = Result<S::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            match state.as_mut().project() {
                StateProjection::Waiting { wait, held, fate } => {
                    if let Some(wait) = wait.as_pin_mut()
                        && wait.poll(cx).is_pending()
                    {
                        return Poll::Pending;
                    }
                    match (*fate, held.take()) {
                        (Fate::Fail, _) => return Poll::Ready(Err(ChaosFault.into())),
                        (Fate::Send, Some((mut service, request))) => {
                            let call = service.call(request);
                            state.set(State::Calling(call));
                        }
                        (Fate::Hang, _) | (Fate::Send, None) => return Poll::Pending,
                    }
                }
                StateProjection::Calling(call) => return call.poll(cx).map_err(Into::into),
            }
        }
    }
}

impl<S: Service<Req>, Req> fmt::Debug for ChaosFuture<S, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Waiting { fate, .. } => format!("waiting, then {fate:?}"),
            State::Calling(_) => "calling".to_owned(),
        };
        f.debug_struct("ChaosFuture").field("state", &state).finish()
    }
}
