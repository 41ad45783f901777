//! The request that decides over an endpoint's return. Only a layer that would send it again may offer one, so these
//! tests stand in for such a layer.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tower::{BoxError, util::BoxCloneSyncService};

use super::{Balance, BalanceOptions, Load};
use crate::{
    Endpoint, Verdict,
    context::{Call, EnterCall},
    error::ErrorsFail,
    health::State,
    random::Seeded,
    resolve,
    telemetry::Event,
    track::{Guard, Track},
};

type Conn = BoxCloneSyncService<(), Reply, BoxError>;

/// What `bad:1` does.
#[derive(Clone, Copy, Debug)]
enum Bad {
    Answers,
    Fails,
    Hangs,
    /// Says nothing about itself: a client below refused.
    Unclear,
}

#[derive(Debug, Default)]
struct Reply(Option<Guard>);

struct Keep;

impl Track<Reply> for Keep {
    fn track(&self, response: &mut Reply, guard: Guard) {
        response.0 = Some(guard);
    }
}

struct Stage {
    bad: Arc<Mutex<Bad>>,
    asked: Arc<AtomicUsize>,
    events: Arc<Mutex<Vec<Event>>>,
    client: Balance<Conn, ()>,
}

impl Stage {
    fn new(provisional: bool) -> Self {
        let (bad, asked) = (Arc::new(Mutex::new(Bad::Fails)), Arc::new(AtomicUsize::new(0)));
        let events = Arc::new(Mutex::new(Vec::new()));
        let (mode, count, heard) = (bad.clone(), asked.clone(), events.clone());
        let mut options = BalanceOptions { load: Load::InFlight, ..BalanceOptions::default() };
        options.max_waiting = 8;
        let builder = Balance::builder(resolve::fixed(["bad:1", "good:1", "good:2"]))
            .connect(move |endpoint: &Endpoint| {
                let bad = endpoint.address().to_string() == "bad:1";
                let (mode, count) = (mode.clone(), count.clone());
                BoxCloneSyncService::new(tower::service_fn(move |()| {
                    let mode = if bad { *mode.lock().unwrap() } else { Bad::Answers };
                    count.fetch_add(usize::from(bad), SeqCst);
                    async move {
                        match mode {
                            Bad::Answers => Ok(Reply::default()),
                            Bad::Fails => Err("failed".into()),
                            Bad::Unclear => Err(crate::Error::new(crate::Reason::Limit).into()),
                            Bad::Hangs => std::future::pending().await,
                        }
                    }
                }))
            })
            .options(options)
            .observe(move |_: &str, event: &Event| heard.lock().unwrap().push(event.clone()))
            .random(Seeded::new(5));
        let client = if provisional {
            builder
                .classify(|result: Result<&Reply, &BoxError>| match result {
                    Ok(_) => Verdict::success().provisional(),
                    Err(error) => crate::Classify::<Reply>::classify(&ErrorsFail, Err(error)),
                })
                .track(Keep)
                .build()
        } else {
            builder.build()
        };
        Self { bad, asked, events, client: client.unwrap() }
    }

    /// A stage whose bad endpoint waits for a request that decides.
    async fn in_probation(provisional: bool) -> Self {
        let stage = Self::new(provisional);
        while !matches!(stage.state(), State::Ejected { .. }) {
            let _ = stage.client.send(()).await;
            tokio::task::yield_now().await;
        }
        stage.until_probation().await;
        stage
    }

    async fn until_probation(&self) {
        while !matches!(self.state(), State::Probation { .. }) {
            assert!(matches!(self.state(), State::Ejected { .. }), "{:?}", self.state());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.asked.store(0, SeqCst);
    }

    fn set(&self, bad: Bad) {
        *self.bad.lock().unwrap() = bad;
    }

    fn state(&self) -> State {
        let status = self.client.status();
        status
            .endpoints
            .iter()
            .find(|endpoint| &*endpoint.name == "bad:1")
            .map_or(State::Available, |e| e.state)
    }

    fn asked(&self) -> usize {
        self.asked.load(SeqCst)
    }

    /// Sends as a layer would that keeps a copy.
    async fn repeatable(&self) -> (Result<Reply, BoxError>, Call) {
        let mut call = Call { repeatable: true, attempt: 1, ..Call::default() };
        let reply = self.within(&mut call).await;
        (reply, call)
    }

    async fn within(&self, call: &mut Call) -> Result<Reply, BoxError> {
        let mut sending = pin!(self.client.send(()));
        poll_fn(|cx| {
            let _entered = EnterCall::new(call);
            sending.as_mut().poll(cx)
        })
        .await
    }
}

async fn is_pending<F: Future>(mut future: std::pin::Pin<&mut F>) -> bool {
    poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_pending())).await
}

async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_nobody_would_repeat_is_never_a_probe() {
    let stage = Stage::in_probation(false).await;
    for _ in 0..50 {
        stage.client.send(()).await.unwrap();
    }
    assert_eq!(stage.asked(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_next_repeatable_request_is_the_probe_and_its_success_brings_the_endpoint_back() {
    let stage = Stage::in_probation(false).await;
    stage.set(Bad::Answers);
    let (reply, call) = stage.repeatable().await;
    assert!(reply.is_ok() && call.probe, "the layer above learns that it was a probe");
    assert_eq!((stage.asked(), stage.state()), (1, State::Available));
    let restored = |event: &Event| matches!(event, Event::Restored { proven: true, .. });
    assert!(stage.events.lock().unwrap().iter().any(restored));
    let ramp = |endpoint: &&super::EndpointStatus| &*endpoint.name == "bad:1";
    assert!(stage.client.status().endpoints.iter().find(ramp).unwrap().ramp < 0.2);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_fails_ejects_for_longer_and_its_retry_is_no_probe() {
    let stage = Stage::in_probation(false).await;
    for _ in 0..4 {
        let mut call = Call { repeatable: true, attempt: 1, ..Call::default() };
        assert!(stage.within(&mut call).await.is_err());
        assert!(call.probe && matches!(stage.state(), State::Ejected { .. }));
        assert!(stage.within(&mut call).await.is_ok() && !call.probe);
        assert_eq!(stage.asked(), 1);
        stage.until_probation().await;
    }
    let lasted: Vec<_> = stage
        .events
        .lock()
        .unwrap()
        .iter()
        .filter_map(|event| match event {
            Event::Ejected { lasts, .. } => Some(*lasts),
            _ => None,
        })
        .collect();
    for (number, lasts) in lasted.iter().enumerate() {
        let full = Duration::from_secs(5) * 2_u32.pow(number as u32);
        assert!(*lasts >= full / 2 && *lasts <= full, "{number}: {lasts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_one_request_at_a_time_is_a_probe() {
    let stage = Stage::in_probation(false).await;
    stage.set(Bad::Hangs);
    let probe = stage.repeatable();
    let mut probe = pin!(probe);
    assert!(is_pending(probe.as_mut()).await);
    for _ in 0..20 {
        assert!(!stage.repeatable().await.1.probe);
    }
    assert!(stage.asked() == 1 && matches!(stage.state(), State::Probing { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_probe_passes_to_the_next_request() {
    let stage = Stage::in_probation(false).await;
    stage.set(Bad::Hangs);
    {
        let mut probe = pin!(stage.repeatable());
        assert!(is_pending(probe.as_mut()).await);
    }
    assert!(matches!(stage.state(), State::Probation { .. }));
    stage.set(Bad::Answers);
    assert!(stage.repeatable().await.1.probe);
    assert_eq!(stage.state(), State::Available);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_probe_is_a_failure_after_a_second() {
    let stage = Stage::in_probation(false).await;
    stage.set(Bad::Hangs);
    let start = crate::clock::now();
    assert!(stage.repeatable().await.0.is_err());
    assert_eq!(crate::clock::now().saturating_duration_since(start), Duration::from_secs(1));
    assert!(matches!(stage.state(), State::Ejected { .. }));
}

#[tokio::test(start_paused = true)]
async fn probes_that_prove_nothing_do_not_keep_an_endpoint_out() {
    let stage = Stage::in_probation(false).await;
    stage.set(Bad::Unclear);
    let start = crate::clock::now();
    while stage.state() != State::Available {
        assert!(
            crate::clock::now().saturating_duration_since(start) < Duration::from_secs(31),
            "{:?}",
            stage.state()
        );
        let _ = stage.repeatable().await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_probe_decides_where_its_head_proves_nothing() {
    for (end, available) in
        [(Some(Verdict::success()), true), (Some(Verdict::failure()), false), (None, false)]
    {
        let stage = Stage::in_probation(true).await;
        stage.set(Bad::Answers);
        let (reply, call) = stage.repeatable().await;
        let guard = reply.unwrap().0.unwrap();
        assert!(call.probe && matches!(stage.state(), State::Probing { .. }));
        match end {
            Some(verdict) => guard.end(verdict),
            None => drop(guard),
        }
        settle().await;
        assert_eq!(stage.state() == State::Available, available, "{:?}", stage.state());
        assert_eq!(end.is_none(), matches!(stage.state(), State::Probation { .. }));
        assert_eq!(stage.client.in_flight(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_ramp_begins_after_any_uptime() {
    let stage = Stage::new(false);
    let fleet = stage.client.fleet().clone();
    let member = super::member::Member::new(1, Arc::new(Endpoint::new("a:1")), fleet.clone());
    let late = fleet.epoch + Duration::from_secs(60 * 86_400);
    member.start_ramp(late, &fleet);
    let ramp = member.ramp(late + Duration::from_secs(5), &BalanceOptions::default().slow_start);
    assert!(ramp.is_some_and(|(share, _)| (share - 0.55).abs() < 0.01), "{ramp:?}");
}
