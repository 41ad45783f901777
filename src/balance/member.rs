//! One endpoint of one balancer: all the state that belongs to it.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::{
    estimator::{At, Latency},
    fleet::Fleet,
    options::SlowStart,
    reported::{ReportedOptions, ReportedWeight},
    told::{self, Told, slowed},
    width::Width,
};
use crate::{
    Endpoint,
    estimate::{Known, Recent},
    health::{Blame, Evidence, Health, Successes},
    outcome::{Again, Class, Verdict},
    report::Report,
    sync::{AtomicU32, AtomicU64, Mutex, Ordering::Relaxed, lock},
    telemetry::Counter,
    track::Ends,
};

/// An endpoint that answers loses to a hedge once in a hundred times, so this often in a row next to never.
const BEATEN: u32 = 5;

/// The state of an endpoint. It outlives resolutions, reconnections and policies; its service does not.
///
/// In this order: what a pick looks at, of as many endpoints as it draws, is on one cache line.
#[repr(C, align(128))]
pub(crate) struct Member {
    pub(crate) in_flight: AtomicU32,
    pub(crate) told: Told,
    latency: Latency,
    pub(crate) health: Health,
    /// When the ramp began, in ms since the fleet's epoch plus 1; 0 for none.
    ramp: AtomicU64,
    pub(crate) id: u64,
    pub(crate) cancelled: AtomicU64,
    /// Which operations have succeeded, where they have a health of their own.
    successes: Successes,
    /// How often in a row another endpoint answered first (the low 8 bits), and how many answers there were before.
    beaten: AtomicU32,
    /// Where it stands in the snapshot, or stood last; told where somebody goes by it.
    pub(crate) place: AtomicU32,
    pub(crate) recent: Recent,
    pub(crate) name: Arc<str>,
    endpoint: ArcSwap<Endpoint>,
    pub(crate) fleet: Arc<Fleet>,
    /// Where its limit is found out.
    pub(crate) width: Option<Box<Width>>,
    /// Its weight, where that is what servers say of themselves: a word until then.
    weight: ArcSwapOption<Mutex<ReportedWeight>>,
}

impl Member {
    pub(crate) fn new(id: u64, endpoint: Arc<Endpoint>, fleet: Arc<Fleet>) -> Self {
        let now = crate::clock::now();
        let width = fleet.options.load().limit.as_ref().and_then(Width::new);
        Self {
            width,
            in_flight: AtomicU32::new(0),
            told: Told::new(),
            latency: Latency::new(),
            health: Health::starting(fleet.epoch, now, &fleet.options.load().health),
            ramp: AtomicU64::new(0),
            id,
            cancelled: AtomicU64::new(0),
            successes: Successes::new(),
            beaten: AtomicU32::new(0),
            place: AtomicU32::new(0),
            recent: Recent::new(fleet.epoch, Recent::PERIOD),
            name: endpoint.identity().to_string().into(),
            endpoint: ArcSwap::new(endpoint),
            fleet,
            weight: ArcSwapOption::empty(),
        }
    }

    pub(crate) fn endpoint(&self) -> Arc<Endpoint> {
        self.endpoint.load_full()
    }

    pub(crate) fn set_endpoint(&self, endpoint: Arc<Endpoint>) {
        self.endpoint.store(endpoint);
    }

    /// Another endpoint has answered first, though it was asked later. Whether that is so for the [`BEATEN`]th time with no
    /// answer between. Two that count at once may count once: then it takes another.
    pub(crate) fn is_beaten(&self) -> bool {
        let (answers, found) = ((self.health.totals().0 as u32) << 8, self.beaten.load(Relaxed));
        let times = if found & !0xFF == answers { (found & 0xFF) + 1 } else { 1 };
        let over = times >= BEATEN;
        self.beaten.store(answers | if over { 0 } else { times }, Relaxed);
        over
    }

    /// Starts the ramp: from now on it works up to its share.
    pub(crate) fn start_ramp(&self, now: Instant, fleet: &Fleet) {
        let passed = now.saturating_duration_since(fleet.epoch).as_millis() as u64;
        self.ramp.store(passed + 1, Relaxed);
    }

    /// The share of its weight that it has at `now`, and when that will be all of it.
    pub(crate) fn ramp(&self, now: Instant, slow_start: &SlowStart) -> Option<(f64, Instant)> {
        let began = self.ramp.load(Relaxed);
        if began == 0 || slow_start.lasts.is_zero() {
            return None;
        }
        let began = self.fleet.epoch + Duration::from_millis(began - 1);
        let passed = now.saturating_duration_since(began).as_secs_f64() / slow_start.lasts.as_secs_f64();
        if passed >= 1.0 {
            return None;
        }
        let from = slow_start.from.get();
        Some((from + (1.0 - from) * passed, began + slow_start.lasts))
    }

    /// Whether it may be given requests: where ejections are set aside, all but what has asked to be left alone.
    #[inline]
    pub(crate) fn is_allowed(&self, panic: bool) -> bool {
        self.health.is_available() || (panic && self.is_allowed_in_panic())
    }

    #[cold]
    fn is_allowed_in_panic(&self) -> bool {
        self.health.is_usable_in_panic()
    }

    /// The head of an answer has come, with what the server says of itself; the attempt still counts in flight.
    /// One whose end is still to come, and may say it, says nothing only [then](Self::hear_no_more).
    #[cold]
    pub(crate) fn hear(&self, report: Option<Report>, later: bool) {
        self.fleet.count(Counter::Heard);
        if report.is_some() || !later {
            self.take(report.unwrap_or_default(), self.others_of_ours(), Told::report);
        }
    }

    /// Such an answer has ended.
    #[cold]
    fn hear_no_more(&self) {
        if self.wants_report() {
            // After a report at the end this is the first answer of those for which that one holds.
            self.take(Report::default(), self.others_of_ours(), Told::report);
        }
    }

    /// The same of what it has said beside its answers.
    pub(crate) fn hear_beside(&self, report: Report) {
        let fleet = &self.fleet;
        if fleet.notes_answers.load(Relaxed) {
            fleet
                .answered
                .note_everywhere(self.place.load(Relaxed), fleet.stamp(crate::context::now()).nanos);
        }
        self.take(report, self.in_flight.load(Relaxed), Told::report_beside);
    }

    /// Takes a report in, while so many other requests of ours are there.
    fn take(&self, report: Report, ours: u32, note: fn(&Told, u32, u32) -> bool) {
        // What was known of how long it takes alone was how long it takes, or is from now on.
        match report.in_flight {
            Some(in_flight) => {
                if note(&self.told, in_flight, ours) {
                    let others = in_flight.saturating_sub(ours);
                    self.latency.scale(1.0 / self.slowed(others, ours));
                }
            }
            None => {
                let beside = || told::beside(self.fleet.options.load().probes.share);
                if let Some(others) = self.told.silence(beside) {
                    self.latency.scale(self.slowed(others, ours));
                }
            }
        }
        if let Some(utilisation) = report.utilisation
            && let Some(options) = self.fleet.options.load().distribution.by_reports()
        {
            if self.weight.load().is_none() {
                // Of two that are first one's report is lost.
                self.weight.store(Some(Arc::new(Mutex::new(ReportedWeight::default()))));
            }
            // Who meets another here leaves its report: the next is as good.
            if let Some(weight) = &*self.weight.load()
                && let Ok(mut weight) = weight.try_lock()
            {
                weight.report(crate::context::now(), utilisation, options);
            }
        }
    }

    /// Requests of this client in flight there, without the one that is answered.
    fn others_of_ours(&self) -> u32 {
        self.in_flight.load(Relaxed).saturating_sub(1)
    }

    /// The weight that its reports give it, if there is one.
    pub(crate) fn weight(&self, now: Instant, options: &ReportedOptions) -> Option<f64> {
        lock(self.weight.load().as_ref()?).at(now, options)
    }

    /// It is connected anew, and may be another server: what it has in flight is not known, and what it has reported is no weight
    /// until it has reported for a while.
    pub(crate) fn reconnected(&self) {
        if let Some(others) = self.told.forget() {
            self.latency.scale(self.slowed(others, self.in_flight.load(Relaxed)));
        }
        if let Some(weight) = &*self.weight.load() {
            lock(weight).reconnected();
        }
    }

    /// By how much what is in flight at the server makes a request take longer, where it says what that is.
    #[cold]
    fn slowed(&self, others: u32, ours: u32) -> f32 {
        if self.wants_report() { slowed(others.saturating_add(ours)) } else { 1.0 }
    }

    /// What of `nanos` a request would have taken alone, as far as the server says who else was there.
    #[inline]
    fn alone(&self, nanos: u64) -> u64 {
        let Some(others) = self.told.others() else { return nanos };
        (nanos as f64 / f64::from(self.slowed(others, self.others_of_ours()))) as u64
    }

    fn alone_for(&self, time: Duration) -> Duration {
        Duration::from_nanos(self.alone(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// An attempt has ended well after so many nanoseconds.
    #[inline]
    pub(crate) fn took(&self, at: At, nanos: u64) {
        self.latency.observe(at, self.alone(nanos));
    }

    /// An attempt was cut off, or says nothing but that it would have taken at least so long.
    pub(crate) fn took_at_least(&self, at: At, lasted: Duration) {
        self.latency.observe_at_least(at, self.alone_for(lasted));
    }

    /// An attempt has failed; see [`Latency::fail`].
    pub(crate) fn took_for_nothing(&self, at: At, lasted: Duration, penalty: Duration, most: f32) {
        self.latency.fail(at, self.alone_for(lasted), self.alone_for(penalty), most);
    }

    /// What is known of how long a request takes there alone: all of it, where servers tell nothing.
    #[inline]
    pub(crate) fn known(&self, at: At) -> Option<Known> {
        self.latency.known(at)
    }

    /// What is known of how long a request takes there now.
    pub(crate) fn expected(&self, at: At) -> Option<Known> {
        let known = self.known(at)?;
        let ours = self.in_flight.load(Relaxed);
        let slowed = self.told.others().map_or(1.0, |others| self.slowed(others, ours));
        Some(Known { mean: known.mean * slowed, ..known })
    }

    /// Gives the place in flight back, and tells nobody.
    #[inline]
    pub(crate) fn release_untold(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// Gives the place in flight back, and tells who waits for one.
    #[inline]
    pub(crate) fn release(&self) {
        self.release_untold();
        if self.fleet.limited.load(Relaxed) {
            self.fleet.waiters.wake_next();
        }
    }

    /// Counts a success that is over, at its end.
    #[inline]
    pub(crate) fn succeeded(&self, nanos: u64) {
        self.health.success_at(nanos);
    }

    /// The same of an operation, by its number, besides.
    #[cold]
    pub(crate) fn operation_succeeded(&self, operation: u16, nanos: u64) {
        self.successes.note(operation, nanos);
        self.fleet.operations.success(operation, self.id, nanos);
    }
}

/// What attempts are attempts of: the generation of the endpoint's health, and the operation, in one word.
#[inline]
pub(crate) fn era(generation: u32, operation: u16) -> u32 {
    generation | u32::from(operation) << 16
}

#[inline]
pub(crate) fn generation_of(era: u32) -> u32 {
    era & 0xFFFF
}

/// The number of the operation; 0 where none has a health of its own.
#[inline]
pub(crate) fn operation_of(era: u32) -> u16 {
    (era >> 16) as u16
}

impl Ends for Member {
    fn wants_report(&self) -> bool {
        self.fleet.reports.load(Relaxed)
    }

    fn reported(&self, report: Report) {
        if self.wants_report() {
            self.take(report, self.others_of_ours(), Told::report);
        }
    }

    fn endpoint(&self) -> Option<&Arc<str>> {
        Some(&self.name)
    }

    fn ended(self: Arc<Self>, head: Verdict, end: Option<Verdict>) {
        let generation = self.health.generation();
        self.ended_in(generation, head, end);
    }

    fn ended_in(self: Arc<Self>, era: u32, head: Verdict, end: Option<Verdict>) {
        self.fleet.count(Counter::BodiesEnded);
        if head.is_provisional() {
            self.hear_no_more();
        }
        self.release();
        let verdict = end.unwrap_or(head);
        match verdict.class() {
            Class::Success => {
                let nanos = self.fleet.stamp(crate::context::now()).nanos;
                self.succeeded(nanos);
                if operation_of(era) != 0 {
                    self.operation_succeeded(operation_of(era), nanos);
                }
            }
            // What was bad at the head was told then.
            _ if end.is_none() => {}
            Class::Failure => self.failed(crate::context::now(), era, None),
            Class::BackOff => self.back_off(crate::context::now(), verdict),
            Class::Inconclusive => {}
        }
    }
}

impl Member {
    /// It has asked to be left alone.
    pub(crate) fn back_off(self: &Arc<Self>, now: Instant, verdict: Verdict) {
        let asked = match verdict.may_repeat() {
            Again::After(after) => Some(after),
            _ => None,
        };
        let (fleet, options) = (&self.fleet, self.fleet.options.load());
        if let Some(moved) = self.health.back_off(asked, now, &options.health, &fleet.ledger) {
            fleet.changed_by_requests(self, moved);
        }
    }

    /// Counts a failure of an attempt of this [`era`], that began then if that is known.
    pub(crate) fn failed(self: &Arc<Self>, now: Instant, era: u32, began: Option<Instant>) {
        let fleet = &self.fleet;
        let options = fleet.options.load();
        let (generation, operation) = (generation_of(era), operation_of(era));
        if operation != 0 && self.is_to_blame(operation, now, generation, began) {
            return;
        }
        let transition = self.health.failure_of(
            operation,
            now,
            generation,
            &options.health,
            &fleet.ledger,
            &*fleet.random,
        );
        if let Some(transition) = transition {
            fleet.changed_by_requests(self, transition);
        }
    }
}

impl Member {
    /// Whether a failure is not held against the endpoint, but against the operation alone, or nobody.
    fn is_to_blame(
        self: &Arc<Self>,
        operation: u16,
        now: Instant,
        generation: u32,
        began: Option<Instant>,
    ) -> bool {
        let (fleet, options) = (&self.fleet, self.fleet.options.load());
        let current = generation == self.health.generation();
        let own = options.health.per_operation.and_then(|_| fleet.operations.get(operation));
        // Of one that is removed nothing is kept apart.
        let Some(own) = own.filter(|_| current && self.health.is_member()) else { return false };
        let evidence = Evidence {
            now,
            began,
            generation,
            others_succeed: self.successes.others(operation, fleet.epoch, now, options.health.window),
            endpoints: fleet.ledger.available().0,
        };
        match own.failure(self.id, evidence, &options.health, &*fleet.random) {
            Blame::Endpoint => return false,
            Blame::Operation(moved) => {
                self.health.forgive(operation);
                if let Some(moved) = moved {
                    fleet.operation_changed(self, &own, moved);
                }
            }
            // What it has shown since it was back stays with the endpoint.
            Blame::Nobody => {}
        }
        self.health.failed_otherwise();
        true
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("name", &self.name)
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;

    #[test]
    fn without_traffic_it_takes_no_more_than_four_cache_line_pairs() {
        assert!(size_of::<Member>() <= 512, "{}", size_of::<Member>());
    }

    #[test]
    fn what_a_pick_looks_at_is_on_one_cache_line() {
        assert_eq!(std::mem::offset_of!(Member, in_flight), 0);
        assert!(std::mem::offset_of!(Member, health) + size_of::<AtomicU32>() <= 64);
    }
}
