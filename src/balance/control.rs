//! The background task: it watches, dials, keeps time, and publishes.

mod checks;
mod dials;
mod outliers;
mod probes;
mod resolution;
mod subsets;
mod watches;
mod zones;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque},
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{Stream as _, stream::FuturesUnordered};
use tower::BoxError;

use self::{subsets::Subsets, zones::Fitness};
use super::{
    bell::Message,
    check::Checker,
    connect::Connector,
    fleet::Fleet,
    groups::LevelState,
    member::Member,
    options::Panic,
    pace::Pace,
    roster::{Roster, Running},
    snapshot::{Entry, Resolved, Snapshot, Unconnected},
    zone::Distance,
};
use crate::{
    Endpoint, clock,
    endpoint::Identity,
    error::Cause,
    hash::mix,
    health::Transition,
    resolve::{Effective, Resolution, Resolve, Steady},
    telemetry::Event,
};

/// Endpoints looked at between two yields to the runtime.
const BATCH: usize = 128;
/// How often it is looked whether the shares of zones are still right.
const MEASURE: Duration = Duration::from_millis(500);
/// How often it is looked what operations keep for nothing.
const TIDY: Duration = Duration::from_secs(60);
/// Things done between two publications, when there is a lot to do.
const BURST: usize = 64;

/// What the task knows of one endpoint.
struct Slot<S> {
    member: Arc<Member>,
    endpoint: Arc<Endpoint>,
    service: Option<Arc<S>>,
    /// Counts connections, so that news of an old one is not taken for news of this one.
    incarnation: u32,
    dialing: bool,
    redial: Option<Instant>,
    /// When the dial that is under way began.
    began: Option<Instant>,
    failures: u32,
    waited: Duration,
    /// When the connection was made, and how many attempts had succeeded by then.
    stands: Option<(Instant, u64)>,
    cause: Option<Cause>,
    /// The nearest time in the heap that this endpoint must be looked at.
    armed: Option<Instant>,
    /// Since when it is not in the resolution.
    gone: Option<Instant>,
    /// Whether it has to work up to its share once it is connected.
    ramps: bool,
    /// How much of it is this client's.
    part: f32,
    /// How many attempts had succeeded and failed when its zone was last measured.
    measured: (u64, u64),
    /// The resolution it was seen in last.
    seen: u64,
}

impl<S> Slot<S> {
    /// Made smaller, so that a million of the largest numbers have a finite sum.
    fn weight(&self) -> f64 {
        self.endpoint.weight() / 1e6 * f64::from(self.part)
    }
}

type Dialed<S> = Pin<Box<dyn Future<Output = (u64, u32, Result<S, BoxError>)> + Send>>;

/// The state of the background task.
pub(crate) struct Control<S> {
    fleet: Arc<Fleet>,
    resolver: Option<Box<dyn Resolve>>,
    steady: Steady,
    connector: Connector<S>,
    /// By the order in which they were first seen, so that a seed replays a run.
    slots: BTreeMap<u64, Slot<S>>,
    known: HashMap<Identity, u64>,
    /// Endpoints that are not known any more, but to operations.
    forgotten: Vec<u64>,
    timers: BinaryHeap<Reverse<(Instant, u64)>>,
    /// Endpoints to be connected for the first time, and to be connected again.
    queue: VecDeque<u64>,
    redials: BTreeMap<(u32, u64), u64>,
    /// Counts those that were queued to be redialled.
    turns: u64,
    pace: Pace,
    dials: FuturesUnordered<Dialed<S>>,
    resolutions: u64,
    /// What requests go by has changed and is not, or not wholly, true yet.
    unapplied: bool,
    /// Which endpoints this client uses is to be decided anew.
    unchosen: bool,
    subsets: Subsets,
    /// The resolver has ended, and observers do not know yet.
    ended_untold: bool,
    dirty: bool,
    /// The priorities that are in panic.
    panicking: BTreeSet<u32>,
    /// Whether some traffic leaves the first priority, or the own zone of a priority.
    spilling: BTreeSet<Arc<str>>,
    ramp_ends: Option<Instant>,
    /// When weights are computed anew, where they are what servers say of themselves.
    reweighs: Option<Instant>,
    /// When what operations keep of endpoints was last tidied.
    tidied: Instant,
    /// What the endpoints weighed by that when the last snapshot was published.
    weighed: u64,
    fitness: Fitness,
    /// When it is looked whether the shares of zones are still right, where there are zones.
    measures: Option<Instant>,
    comparison: outliers::Comparison,
    checking: checks::Checking<S>,
    probing: probes::Probing,
    last_id: u64,
    /// Who is asked first for something to do, so that nobody who always has something starves the others.
    turn: usize,
}

/// One thing to do.
enum Work<S> {
    Messages(Vec<Message>),
    Resolved(Option<Resolution>),
    Dialed(u64, u32, Result<S, BoxError>),
    Checked(checks::Checked),
    Probed(probes::Probed),
    /// Time has come for something, or something was left to do.
    Own,
}

/// Runs until the last handle is gone or the balancer is closed.
pub(crate) async fn run<S: Send + Sync + 'static>(mut running: Running<S>) {
    while let Some(control) = &mut running.control {
        let mut work = Some(control.work().await);
        let mut done = 0;
        while let Some(item) = work {
            if control.act(item).is_break() {
                // Nothing will start it again.
                running.control = None;
                return;
            }
            done += 1;
            work = if done < BURST { control.more() } else { None };
        }
        control.time().await;
        if control.unapplied || control.unchosen {
            control.apply().await;
        }
        // After what it has told last.
        if std::mem::take(&mut control.ended_untold) {
            control.fleet.tell(&Event::ResolutionEnded);
        }
        control.start_dials().await;
        if control.dirty || control.measures.is_some_and(|at| at <= clock::now()) {
            let Some(roster) = running.roster.upgrade() else {
                running.control = None;
                return;
            };
            if control.is_outdated(&roster) {
                control.publish(&roster);
            }
        }
        tokio::task::yield_now().await;
    }
}

impl<S: Send + Sync + 'static> Control<S> {
    pub(crate) fn new(
        fleet: Arc<Fleet>,
        resolver: Box<dyn Resolve>,
        connector: Connector<S>,
        checker: Option<Checker<S>>,
    ) -> Self {
        let grace = fleet.options.load().grace;
        Self {
            fleet,
            resolver: Some(resolver),
            steady: Steady::new(grace),
            connector,
            slots: BTreeMap::new(),
            known: HashMap::new(),
            forgotten: Vec::new(),
            timers: BinaryHeap::new(),
            queue: VecDeque::new(),
            redials: BTreeMap::new(),
            turns: 0,
            pace: Pace::default(),
            dials: FuturesUnordered::new(),
            resolutions: 0,
            unapplied: false,
            unchosen: false,
            subsets: Subsets::default(),
            ended_untold: false,
            turn: 0,
            dirty: false,
            panicking: BTreeSet::new(),
            spilling: BTreeSet::new(),
            ramp_ends: None,
            reweighs: None,
            weighed: 0,
            tidied: clock::now(),
            fitness: Fitness::default(),
            measures: None,
            comparison: outliers::Comparison::new(clock::now()),
            checking: checks::Checking::new(checker),
            probing: probes::Probing::default(),
            last_id: 0,
        }
    }

    /// Whether there is something left to do that nothing outside will tell of.
    fn has_own_work(&self) -> bool {
        self.unapplied || self.unchosen || self.dirty || self.has_dial_to_begin()
    }

    /// The next thing to do.
    async fn work(&mut self) -> Work<S> {
        if self.has_own_work() {
            return Work::Own;
        }
        let next = self.next_time();
        let mut sleep = std::pin::pin!(next.map(|at| tokio::time::sleep_until(at.into())));
        poll_fn(|cx| {
            if let Poll::Ready(work) = self.poll_work(cx) {
                return Poll::Ready(work);
            }
            match sleep.as_mut().as_pin_mut() {
                Some(sleep) => sleep.poll(cx).map(|()| Work::Own),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Another thing to do, if there is one right now.
    fn more(&mut self) -> Option<Work<S>> {
        match self.poll_work(&mut Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(work) => Some(work),
            Poll::Pending => None,
        }
    }

    fn poll_work(&mut self, cx: &mut Context<'_>) -> Poll<Work<S>> {
        if let Poll::Ready(messages) = self.fleet.bell.poll(cx) {
            return Poll::Ready(Work::Messages(messages));
        }
        self.turn += 1;
        for turn in self.turn..self.turn + 2 {
            if turn % 2 == 0 {
                if let Some(resolver) = &mut self.resolver
                    && let Poll::Ready(resolution) = resolver.poll_next(cx)
                {
                    return Poll::Ready(Work::Resolved(resolution));
                }
            } else if let Poll::Ready(Some((id, incarnation, dialed))) =
                Pin::new(&mut self.dials).poll_next(cx)
            {
                return Poll::Ready(Work::Dialed(id, incarnation, dialed));
            }
        }
        if let Poll::Ready(checked) = self.checking.poll(cx) {
            return Poll::Ready(Work::Checked(checked));
        }
        if let Poll::Ready(probed) = self.probing.poll(cx) {
            return Poll::Ready(Work::Probed(probed));
        }
        Poll::Pending
    }

    fn next_time(&self) -> Option<Instant> {
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        let own = [self.steady.next(), self.ramp_ends, self.reweighs, self.next_redial()];
        let looks = [
            self.next_comparison(),
            self.checking.next(),
            self.next_probes(),
            self.measures,
            self.subsets.next(),
            self.next_tidying(),
        ];
        own.into_iter().chain(looks).chain([timer]).flatten().min()
    }

    fn act(&mut self, work: Work<S>) -> std::ops::ControlFlow<()> {
        match work {
            Work::Messages(messages) => {
                for message in messages {
                    match message {
                        Message::Over => return std::ops::ControlFlow::Break(()),
                        Message::Options => {
                            self.steady.set_grace(self.fleet.options.load().grace);
                            self.unchosen |= self.subsets.are_outdated(&self.fleet.options.load());
                            self.stop_comparing();
                            self.forget_operations();
                            self.hasten_forgetting();
                            self.hasten_checks(clock::now());
                            self.hasten_probes(clock::now());
                            self.reweighs = None;
                            self.dirty = true;
                        }
                        Message::Changed(member) => self.look_at(member.id, clock::now()),
                        Message::Broken(member, incarnation, cause) => {
                            self.broken(member.id, incarnation, cause);
                        }
                    }
                }
            }
            Work::Resolved(None) => {
                self.resolver = None;
                self.ended_untold = true;
            }
            Work::Resolved(Some(resolution)) => {
                if let Resolution::Failed(cause) = &resolution {
                    self.fleet.tell(&Event::ResolutionFailed { cause: cause.clone() });
                }
                // Of many in a burst only the last is applied.
                self.unapplied |= self.steady.take(clock::now(), resolution);
                self.dirty = true;
            }
            Work::Dialed(id, incarnation, dialed) => self.dialed(id, incarnation, dialed),
            Work::Checked(checked) => self.checked(&checked),
            Work::Probed(probed) => self.probed(probed),
            Work::Own => {}
        }
        std::ops::ControlFlow::Continue(())
    }

    /// Does what time has brought.
    async fn time(&mut self) {
        let now = clock::now();
        self.unapplied |= self.steady.due(now);
        self.look_at_width(now);
        if self.ramp_ends.is_some_and(|at| at <= now) {
            self.ramp_ends = None;
            self.dirty = true;
        }
        if self.reweighs.is_some_and(|at| at <= now) {
            // Where all weigh what they did, as at rest, the picture stands.
            self.dirty |= self.weights(now) != self.weighed;
            let every = self.fleet.options.load().distribution.by_reports().map(|options| options.every);
            self.reweighs = every.filter(|_| !self.dirty).map(|every| now + every);
        }
        self.tidy_operations(now).await;
        let mut looked = 0;
        while let Some(Reverse((at, id))) = self.timers.peek().copied() {
            if at > now {
                break;
            }
            self.timers.pop();
            // A time that was superseded by an earlier one has been looked at then.
            if self.slots.get(&id).is_some_and(|slot| slot.armed == Some(at)) {
                self.look_at(id, now);
            }
            looked += 1;
            if looked % BATCH == 0 {
                tokio::task::yield_now().await;
            }
        }
        self.forget_gone().await;
        self.compare().await;
        self.start_checks(now);
        self.start_probes(now);
    }

    /// Looks whether time has brought something to this endpoint.
    fn look_at(&mut self, id: u64, now: Instant) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let options = self.fleet.options.load();
        if slot.armed.is_some_and(|at| at <= now) {
            slot.armed = None;
        }
        let forgotten = slot.gone.map(|gone| gone + options.keep_removed);
        if forgotten.is_some_and(|at| at <= now) {
            self.known.remove(slot.endpoint.identity());
            self.forgotten.push(id);
            self.slots.remove(&id);
            return;
        }
        if slot.redial.is_some_and(|at| at <= now) {
            slot.redial = None;
            self.queue_redial(id);
        }
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let (moved, next) = slot.member.health.due(now, &options.health, &self.fleet.ledger);
        let mut own = None;
        for operation in self.fleet.operations.all() {
            let (moved, next) = operation.due(id, now, &options.health);
            own = [own, next].into_iter().flatten().min();
            if let Some(moved) = moved {
                self.fleet.wake();
                if slot.gone.is_none() {
                    self.fleet.announce_operation(&slot.member, &operation, moved);
                }
            }
        }
        if let Some(at) = [next, own, slot.redial, forgotten].into_iter().flatten().min() {
            arm(&mut self.timers, slot, at);
        }
        for transition in moved.into_iter().flatten() {
            self.fleet.begin_ramp(&slot.member, transition);
            if slot.gone.is_none() {
                self.fleet.announce(&slot.member, transition);
            }
        }
        self.dirty = true;
    }

    /// Options were replaced: operations that have no health of their own any more, or that are not set aside at all, have no
    /// past when they have one again.
    fn forget_operations(&self) {
        let health = &self.fleet.options.load().health;
        let own = health.per_operation.filter(|_| health.enabled);
        let most = own.map_or(0, |options| options.most as usize);
        let ids: Vec<u64> = self.slots.keys().copied().collect();
        for operation in self.fleet.operations.all().iter().skip(most) {
            for id in operation.forget_all(&ids) {
                if let Some(slot) = self.slots.get(&id) {
                    let back = Transition::Restored { proven: false };
                    self.fleet.operation_changed(&slot.member, operation, back);
                }
            }
        }
    }

    /// When it is looked next what operations keep for nothing; never where they keep nothing.
    fn next_tidying(&self) -> Option<Instant> {
        self.fleet.options.load().health.per_operation?;
        let keep = self.fleet.operations.all().iter().any(|operation| operation.has_failed());
        keep.then(|| self.tidied + TIDY)
    }

    async fn tidy_operations(&mut self, now: Instant) {
        if self.next_tidying().is_none_or(|at| at > now) {
            return;
        }
        self.tidied = now;
        let options = self.fleet.options.load_full();
        for operation in self.fleet.operations.all() {
            operation.tidy(now, &options.health);
            tokio::task::yield_now().await;
        }
    }

    /// Options were replaced: what is not in the resolution is kept no longer than they say.
    fn hasten_forgetting(&mut self) {
        let keep = self.fleet.options.load().keep_removed;
        for slot in self.slots.values_mut() {
            if let Some(gone) = slot.gone {
                arm(&mut self.timers, slot, gone + keep);
            }
        }
    }

    /// Has operations forget the endpoints that are not known any more, all at once: each time what an operation knows is copied.
    async fn forget_gone(&mut self) {
        if self.forgotten.is_empty() {
            return;
        }
        for operation in self.fleet.operations.all() {
            operation.forget_all(&self.forgotten);
            tokio::task::yield_now().await;
        }
        self.forgotten.clear();
    }

    /// A fingerprint of what the endpoints weigh by their reports; 0 where nobody goes by that.
    fn weights(&self, now: Instant) -> u64 {
        let options = self.fleet.options.load();
        let Some(by_reports) = options.distribution.by_reports() else { return 0 };
        let own = |(id, slot): (&u64, &Slot<S>)| {
            let weight = slot.member.weight(now, by_reports)?;
            Some(mix(mix(*id) ^ weight.to_bits()))
        };
        // In any order.
        self.slots.iter().filter_map(own).fold(0, u64::wrapping_add)
    }

    /// Whether the picture is not true any more.
    fn is_outdated(&mut self, roster: &Roster<S>) -> bool {
        let now = clock::now();
        if !self.dirty && self.measures.is_some_and(|at| at <= now) {
            self.measures = Some(now + MEASURE);
            self.measure_zones();
            self.dirty = roster.snapshot.load().has_drifted(self.fitness.own(), now);
        }
        self.dirty
    }

    fn publish(&mut self, roster: &Roster<S>) {
        self.dirty = false;
        let now = clock::now();
        let present = || self.slots.values().filter(|slot| slot.gone.is_none());
        let resolved = match self.steady.effective() {
            Effective::Pending => Resolved::Pending,
            Effective::Absent => Resolved::Absent,
            Effective::Bound(set) => Resolved::To(set.len()),
        };
        let (total, count) =
            present().fold((0.0, 0_u32), |(total, count), slot| (total + slot.weight(), count + 1));
        let mean = total / f64::from(count.max(1));
        let entries = present()
            .filter_map(|slot| {
                Some(Entry {
                    member: slot.member.clone(),
                    service: slot.service.clone()?,
                    endpoint: slot.endpoint.clone(),
                    weight: Entry::<S>::relative(slot.weight() / mean),
                    part: slot.part,
                    incarnation: slot.incarnation,
                })
            })
            .collect();
        let unconnected = present()
            .filter(|slot| slot.service.is_none())
            .map(|slot| Unconnected {
                member: slot.member.clone(),
                endpoint: slot.endpoint.clone(),
                part: slot.part,
                redial: slot.redial,
                cause: slot.cause.clone(),
            })
            .collect();
        let (failure, fit) = (self.steady.failure().cloned(), self.fitness.own());
        let (ramp_ends, levels) = roster.publish(|before| {
            let options = self.fleet.options.load_full();
            let (mut snapshot, ramp_ends) =
                Snapshot::of(resolved, entries, unconnected, options, before, fit, now);
            snapshot.failure = failure;
            let levels = snapshot.levels.clone();
            (snapshot, (ramp_ends, levels))
        });
        self.ramp_ends = ramp_ends;
        let every = self.fleet.options.load().distribution.by_reports().map(|options| options.every);
        self.reweighs = every.map(|every| self.reweighs.unwrap_or(now + every));
        self.weighed = self.weights(now);
        let zones = levels.iter().any(|level| !level.zones.is_empty());
        self.measures = zones.then(|| self.measures.filter(|at| *at > now).unwrap_or(now + MEASURE));
        self.list_there(&levels);
        self.tell_panic(&levels);
        self.tell_spill(&levels);
    }

    /// Tells which priorities are in panic now, and which are not any more.
    fn tell_panic(&mut self, levels: &[LevelState]) {
        let fail_open = self.fleet.options.load().panic == Panic::FailOpen;
        let before = std::mem::take(&mut self.panicking);
        self.panicking = levels.iter().filter(|level| level.too_few).map(|level| level.priority).collect();
        for priority in before.symmetric_difference(&self.panicking).copied() {
            let level = levels.iter().find(|level| level.priority == priority);
            let (available, endpoints) = level.map_or((0, 0), |level| (level.available, level.endpoints));
            self.fleet.tell(&if self.panicking.contains(&priority) {
                Event::PanicEntered { priority, available, endpoints, fail_open }
            } else {
                Event::PanicLeft { priority, available, endpoints }
            });
        }
    }

    /// Tells when traffic begins to leave where it belongs, and when it is back.
    fn tell_spill(&mut self, levels: &[LevelState]) {
        let elsewhere = self.fleet.options.load().localities.elsewhere.get();
        let mut away: BTreeMap<Arc<str>, f64> = BTreeMap::new();
        let given: u32 = levels.iter().map(|level| level.percent).sum();
        if let ([first, _, ..], 1..) = (levels, given) {
            away.insert(
                format!("priority {}", first.priority).into(),
                1.0 - f64::from(first.percent) / 100.0,
            );
        }
        for level in levels.iter().filter(|level| level.percent > 0) {
            if let Some(own) = level.zones.first().filter(|zone| zone.distance == Distance::Own) {
                // What goes elsewhere in any case has not left.
                let left = (1.0 - own.share - elsewhere).max(0.0);
                away.insert(format!("{} of priority {}", own.locality, level.priority).into(), left);
            }
        }
        let before = std::mem::take(&mut self.spilling);
        for (from, share) in away {
            // Back is what is wholly back: around the border there is one event, not many.
            let (was, percent) = (before.contains(&from), (share * 100.0).round() as u32);
            let is = if was { share > 1e-9 } else { percent >= 1 };
            if was != is {
                self.fleet
                    .tell(&Event::Spill { from: from.clone(), percent: if is { percent.max(1) } else { 0 } });
            }
            if is {
                self.spilling.insert(from);
            }
        }
    }
}

impl<S> Control<S> {
    /// Gets ready to go on in another runtime: what this one has begun will not end.
    pub(crate) fn park(&mut self) {
        self.dials = FuturesUnordered::new();
        self.checking.park(clock::now());
        self.probing.park();
        self.queue.clear();
        self.redials.clear();
        for (id, slot) in &mut self.slots {
            if std::mem::take(&mut slot.dialing) {
                slot.incarnation += 1;
            }
            if slot.gone.is_none() && slot.service.is_none() && slot.redial.is_none() {
                if slot.failures > 0 {
                    self.turns += 1;
                    self.redials.insert((slot.failures, self.turns), *id);
                } else {
                    self.queue.push_back(*id);
                }
            }
        }
    }
}

/// Sees to it that `slot` is looked at when `at` has come.
fn arm<S>(timers: &mut BinaryHeap<Reverse<(Instant, u64)>>, slot: &mut Slot<S>, at: Instant) {
    if slot.armed.is_none_or(|armed| at < armed) {
        slot.armed = Some(at);
        timers.push(Reverse((at, slot.member.id)));
    }
}

impl<S> std::fmt::Debug for Control<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("endpoints", &self.slots.len()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use tower::{BoxError, service_fn};

    use crate::{
        Classify, Endpoint, Verdict,
        balance::{Balance, BalanceOptions, Distribution, ReportedOptions},
        report::{Report, Utilisation},
        resolve,
    };

    struct Says;

    impl Classify<f64> for Says {
        fn classify(&self, result: Result<&f64, &BoxError>) -> Verdict {
            result.map_or(Verdict::failure(), |_| Verdict::success())
        }

        fn report(&self, answer: &f64) -> Option<Report> {
            Some(Report::default().utilisation(Utilisation::new(*answer, 0.5)))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_at_rest_publishes_no_picture_for_its_weights_and_one_where_they_change_does() {
        let options = BalanceOptions {
            distribution: Distribution::ByReports(ReportedOptions::default()),
            ..BalanceOptions::default()
        };
        let client = Balance::builder(resolve::fixed(["a:1", "b:1"]))
            .connect(|_: &Endpoint| service_fn(|rate: f64| async move { Ok::<_, BoxError>(rate) }))
            .classify(Says)
            .options(options)
            .build()
            .unwrap();
        let published = || client.lane().roster.snapshot.load().generation;
        let rest = |seconds| tokio::time::sleep(std::time::Duration::from_secs(seconds));
        for _ in 0..15 {
            client.send(100.0).await.unwrap();
            client.send(100.0).await.unwrap();
            rest(1).await;
        }
        let before = published();
        rest(60).await;
        assert_eq!(published(), before);
        client.send(200.0).await.unwrap();
        rest(2).await;
        assert_eq!(published(), before + 1);
        // What nobody says any more expires.
        rest(300).await;
        assert!((before + 2..=before + 3).contains(&published()), "{} after {before}", published());
    }
}
