//! Clients that send.

use std::{future::poll_fn, time::Duration};

use tower::{BoxError, Service};

use super::{Distribution, Recorder, Request, Response, World};
use crate::{
    invalid::{Check, Invalid},
    random::{Random as _, Seeded, unit},
};

/// Requests that come whether the ones before were answered or not, as from many independent users.
///
/// Each is due at its own absolute time and counts from then on, even if the service was not ready: a client that falls
/// behind cannot hide it.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenLoop {
    evenly: bool,
    client: u32,
    from: Option<Duration>,
    until: Duration,
    rate: f64,
    later: Vec<(Duration, f64)>,
    template: Request,
}

impl OpenLoop {
    fn new(rate: f64, until: Duration, evenly: bool) -> Self {
        let (later, template) = (Vec::new(), Request::new(0));
        Self { evenly, client: 0, from: None, until, rate, later, template }
    }

    /// So many requests a second on average, by a Poisson process, from when it is run until the world's time is `until`.
    pub fn poisson(rate: f64, until: Duration) -> Self {
        Self::new(rate, until, false)
    }

    /// So many requests a second at equal distances, from when it is run until the world's time is `until`.
    pub fn evenly(rate: f64, until: Duration) -> Self {
        Self::new(rate, until, true)
    }

    /// Which client it is \[0\]: each has its own times and its own requests.
    #[must_use]
    pub fn client(mut self, client: u32) -> Self {
        self.client = client;
        self
    }

    /// Begins when the world's time is `from`; if that is over, with those that were due before, which are late.
    #[must_use]
    pub fn from(mut self, from: Duration) -> Self {
        self.from = Some(from);
        self
    }

    /// Has another rate from `at` on. Times rise from call to call.
    #[must_use]
    pub fn then(mut self, at: Duration, rate: f64) -> Self {
        self.later.push((at, rate));
        self
    }

    /// What the requests are like, but for their ids.
    #[must_use]
    pub fn requests(mut self, template: Request) -> Self {
        self.template = template;
        self
    }

    /// Checks every option.
    ///
    /// # Errors
    /// [`Invalid`] with all that is wrong.
    pub fn validate(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        for rate in std::iter::once(&self.rate).chain(self.later.iter().map(|(_, rate)| rate)) {
            check.rule(rate.is_finite() && *rate >= 0.0, "rate", rate, "finite, from 0 up");
        }
        let rises = self.later.windows(2).all(|pair| pair[0].0 <= pair[1].0);
        check.rule(rises, "then", "earlier than the one before", "times that rise");
        check.finish()
    }

    /// The times at which requests are due.
    fn times(&self, start: Duration, random: Seeded) -> impl Iterator<Item = Duration> + use<> {
        let mut rates = self.later.clone().into_iter().peekable();
        let (mut now, mut rate, until, evenly) = (start, self.rate, self.until, self.evenly);
        std::iter::from_fn(move || {
            loop {
                let gap = if evenly { 1.0 } else { -(1.0 - unit(random.next())).ln() };
                let next = Duration::try_from_secs_f64(gap / rate).ok().and_then(|gap| now.checked_add(gap));
                match (rates.peek().copied(), next) {
                    // A process without memory begins anew where its rate changes.
                    (Some((at, new)), next) if next.is_none_or(|next| at <= next) => {
                        (now, rate) = (now.max(at), new);
                        rates.next();
                    }
                    (_, Some(next)) if next < until => {
                        now = next;
                        return Some(next);
                    }
                    _ => return None,
                }
            }
        })
    }

    /// Sends to `service` until the end, and returns when the last request was sent. [`Recorder::idle`] waits for the
    /// answers.
    ///
    /// # Errors
    /// [`Invalid`] as [`validate`](Self::validate) says.
    pub async fn run<S>(self, world: &World, mut service: S, recorder: &Recorder) -> Result<(), Invalid>
    where
        S: Service<Request, Response = Response>,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
    {
        self.validate()?;
        let client = u64::from(self.client);
        let start = self.from.unwrap_or_else(|| world.now());
        let times = self.times(start, world.random_of(&[ARRIVALS, client]));
        for (number, due) in (0_u64..).zip(times) {
            world.until(due).await;
            let id = world.random_of(&[OPEN, client, number]).next();
            let request = Request { id, ..self.template };
            let open = recorder.begin(world, &request, due);
            match poll_fn(|cx| service.poll_ready(cx)).await {
                Ok(()) => {
                    let call = service.call(request);
                    tokio::spawn(async move { open.end(call.await) });
                }
                Err(error) => open.end(Err(error)),
            }
        }
        Ok(())
    }
}

/// Callers that each wait for an answer before they send again.
#[derive(Clone, Debug, PartialEq)]
pub struct ClosedLoop {
    callers: u32,
    until: Duration,
    client: u32,
    think: Distribution,
    template: Request,
}

impl ClosedLoop {
    /// So many callers, until the world's time is `until`, who send again at once.
    pub fn new(callers: u32, until: Duration) -> Self {
        let think = Distribution::Constant(Duration::ZERO);
        Self { callers, until, client: 0, think, template: Request::new(0) }
    }

    /// How long a caller waits before it sends again.
    #[must_use]
    pub fn think(mut self, think: Distribution) -> Self {
        self.think = think;
        self
    }

    /// Which client it is \[0\].
    #[must_use]
    pub fn client(mut self, client: u32) -> Self {
        self.client = client;
        self
    }

    /// What the requests are like, but for their ids.
    #[must_use]
    pub fn requests(mut self, template: Request) -> Self {
        self.template = template;
        self
    }

    /// Checks every option.
    ///
    /// # Errors
    /// [`Invalid`] with all that is wrong.
    pub fn validate(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        check.part("think", |check| self.think.check(check));
        check.finish()
    }

    /// Sends to clones of `service` until the end, and returns when the last request has ended: a caller whose request hangs
    /// for ever waits for ever, so give the service a timeout.
    ///
    /// # Errors
    /// [`Invalid`] as [`validate`](Self::validate) says.
    pub async fn run<S>(self, world: &World, service: S, recorder: &Recorder) -> Result<(), Invalid>
    where
        S: Service<Request, Response = Response> + Clone + Send + 'static,
        S::Error: Into<BoxError> + Send,
        S::Future: Send + 'static,
    {
        self.validate()?;
        let callers: Vec<_> = (0..self.callers)
            .map(|caller| {
                let own = self.clone();
                tokio::spawn(own.call(caller, world.clone(), service.clone(), recorder.clone()))
            })
            .collect();
        for caller in callers {
            // A caller that panics has told so.
            let _ = caller.await;
        }
        Ok(())
    }

    async fn call<S>(self, caller: u32, world: World, mut service: S, recorder: Recorder)
    where
        S: Service<Request, Response = Response>,
        S::Error: Into<BoxError>,
    {
        let random = world.random_of(&[THOUGHTS, u64::from(self.client), u64::from(caller)]);
        for number in 0_u64.. {
            let due = world.now();
            if due >= self.until {
                return;
            }
            let id = world.random_of(&[CLOSED, u64::from(self.client), u64::from(caller), number]).next();
            let request = Request { id, ..self.template };
            let open = recorder.begin(&world, &request, due);
            match poll_fn(|cx| service.poll_ready(cx)).await {
                Ok(()) => open.end(service.call(request).await),
                Err(error) => open.end(Err(error)),
            }
            let now = world.now();
            let pause = self.think.draw(&random);
            // Who fails at once and does not think lets time pass all the same.
            let least = if now == due { Duration::from_millis(1) } else { Duration::ZERO };
            world.until(now + pause.max(least)).await;
        }
    }
}

/// What chance decides over, told apart.
const ARRIVALS: u64 = 3;
const THOUGHTS: u64 = 4;
const OPEN: u64 = 5;
const CLOSED: u64 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_poisson_process_has_its_rate_and_its_spread() {
        let times: Vec<_> =
            OpenLoop::poisson(100.0, SECOND * 100).times(Duration::ZERO, Seeded::new(1)).collect();
        assert!((9_700..10_300).contains(&times.len()), "{}", times.len());
        let mut counts = [0_u32; 100];
        times.iter().for_each(|at| counts[at.as_secs() as usize] += 1);
        let mean = times.len() as f64 / 100.0;
        let variance = counts.iter().map(|count| (f64::from(*count) - mean).powi(2)).sum::<f64>() / 99.0;
        assert!((0.6..1.6).contains(&(variance / mean)), "{variance} for {mean}");
    }

    #[test]
    fn rates_change_when_they_are_told_to() {
        let load = OpenLoop::evenly(10.0, SECOND * 30).then(SECOND * 10, 20.0).then(SECOND * 20, 0.0);
        let times: Vec<_> = load.times(Duration::ZERO, Seeded::new(1)).collect();
        let within = |from, to| times.iter().filter(|at| (SECOND * from..SECOND * to).contains(at)).count();
        assert_eq!((within(0, 10), within(20, 30)), (99, 0));
        assert!((199..=200).contains(&within(10, 20)));
    }

    #[test]
    fn a_rate_that_is_no_rate_is_told() {
        assert!(OpenLoop::poisson(f64::NAN, SECOND).validate().is_err());
        assert!(OpenLoop::poisson(1.0, SECOND).then(SECOND, -1.0).validate().is_err());
    }
}
