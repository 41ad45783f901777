//! One server: slots, a queue in front of them, and a speed. No clock, no task: whoever owns it brings the time.

use std::{collections::VecDeque, time::Duration};

use super::Distribution;
use crate::invalid::{Check, Invalid};

/// How a server works.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ServerOptions {
    /// Requests that are worked on at the same time \[4\]; `None` for any number.
    pub slots: Option<u32>,
    /// Requests that may wait for a slot, first come first served \[`None`: any number\]. What comes on top is answered with
    /// an error at once.
    pub queue: Option<u32>,
    /// How much work a request is, at speed 1 \[exponential, mean 40 ms\].
    pub work: Distribution,
    /// By how much the work of a request grows with each request that is there when it comes, itself included \[nothing\].
    pub per_in_flight: Duration,
    /// How fast the work is done \[1\]; 0 stands still.
    pub speed: f64,
    /// How much work it is to accept a connection, in a slot like any other \[nothing: accepted at once\].
    pub handshake: Duration,
    /// Whether a request that is being worked on when its caller gives up keeps its slot to the end \[true\]. One that waits
    /// leaves the queue in any case.
    pub works_on: bool,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            slots: Some(4),
            queue: None,
            work: Distribution::exponential_ms(40),
            per_in_flight: Duration::ZERO,
            speed: 1.0,
            handshake: Duration::ZERO,
            works_on: true,
        }
    }
}

impl ServerOptions {
    /// Sets [`slots`](Self::slots).
    #[must_use]
    pub fn slots(mut self, slots: impl Into<Option<u32>>) -> Self {
        self.slots = slots.into();
        self
    }

    /// Sets [`queue`](Self::queue).
    #[must_use]
    pub fn queue(mut self, queue: impl Into<Option<u32>>) -> Self {
        self.queue = queue.into();
        self
    }

    /// Sets [`work`](Self::work).
    #[must_use]
    pub fn work(mut self, work: Distribution) -> Self {
        self.work = work;
        self
    }

    /// Sets [`per_in_flight`](Self::per_in_flight).
    #[must_use]
    pub fn per_in_flight(mut self, more: Duration) -> Self {
        self.per_in_flight = more;
        self
    }

    /// Sets [`speed`](Self::speed).
    #[must_use]
    pub fn speed(mut self, speed: f64) -> Self {
        self.speed = speed;
        self
    }

    /// Sets [`handshake`](Self::handshake).
    #[must_use]
    pub fn handshake(mut self, work: Duration) -> Self {
        self.handshake = work;
        self
    }

    /// Sets [`works_on`](Self::works_on).
    #[must_use]
    pub fn works_on(mut self, works_on: bool) -> Self {
        self.works_on = works_on;
        self
    }

    /// Checks every option.
    ///
    /// # Errors
    /// [`Invalid`] with all that is wrong.
    pub fn validate(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        self.check(&mut check);
        check.finish()
    }

    pub(super) fn check(&self, check: &mut Check) {
        check.rule(self.slots != Some(0), "slots", 0, "at least 1, or none for any number");
        check.rule(is_speed(self.speed), "speed", self.speed, "finite, from 0 up");
        check.part("work", |check| self.work.check(check));
    }
}

/// Whether a server can have this speed.
pub(super) fn is_speed(speed: f64) -> bool {
    speed.is_finite() && speed >= 0.0
}

/// A piece of work, known by its number to whoever owns the server.
pub(super) type Job = u64;

#[derive(Debug)]
struct Running {
    job: Job,
    /// Work in seconds at speed 1 that was left at `since`.
    left: f64,
    since: Duration,
    began: Duration,
    waited: Duration,
    /// Which of the ends that were announced for it counts.
    version: u64,
}

#[derive(Debug)]
struct Waiting {
    job: Job,
    work: Duration,
    since: Duration,
}

/// When a piece of work will be done, unless something changes before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Due {
    pub(super) at: Duration,
    pub(super) job: Job,
    pub(super) version: u64,
}

/// What a finished piece of work took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spent {
    pub(super) waited: Duration,
    pub(super) worked: Duration,
}

/// The state machine.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) options: ServerOptions,
    /// Until when it stands still.
    frozen: Option<Duration>,
    running: Vec<Running>,
    queue: VecDeque<Waiting>,
    versions: u64,
    due: Vec<Due>,
}

impl Server {
    pub(super) fn new(options: ServerOptions) -> Self {
        Self {
            options,
            frozen: None,
            running: Vec::new(),
            queue: VecDeque::new(),
            versions: 0,
            due: Vec::new(),
        }
    }

    /// Takes a piece of work; false if there is no place for it.
    pub(super) fn arrive(&mut self, now: Duration, job: Job, work: Duration) -> bool {
        let work = work + self.options.per_in_flight * (self.in_flight() as u32 + 1);
        if self.has_slot() {
            self.start(now, Waiting { job, work, since: now });
        } else if self.options.queue.is_none_or(|most| self.queue.len() < most as usize) {
            self.queue.push_back(Waiting { job, work, since: now });
        } else {
            return false;
        }
        true
    }

    fn has_slot(&self) -> bool {
        self.options.slots.is_none_or(|slots| self.running.len() < slots as usize)
    }

    fn start(&mut self, now: Duration, next: Waiting) {
        let waited = now - next.since;
        let left = next.work.as_secs_f64();
        self.running.push(Running { job: next.job, left, since: now, began: now, waited, version: 0 });
        self.announce(self.running.len() - 1);
    }

    /// Says when the one at `index` will be done, which makes what was said before void.
    fn announce(&mut self, index: usize) {
        self.versions += 1;
        let (speed, version) = (self.pace(), self.versions);
        let running = &mut self.running[index];
        running.version = version;
        if let Ok(rest) = Duration::try_from_secs_f64(running.left / speed) {
            self.due.push(Due { at: running.since + rest, job: running.job, version });
        }
    }

    fn pace(&self) -> f64 {
        if self.frozen.is_some() { 0.0 } else { self.options.speed }
    }

    /// The ends that have been announced since this was last asked.
    pub(super) fn take_due(&mut self) -> Vec<Due> {
        std::mem::take(&mut self.due)
    }

    /// A piece of work is done, if `due` still counts; the next begins.
    pub(super) fn finish(&mut self, due: Due) -> Option<Spent> {
        let counts = |running: &Running| running.job == due.job && running.version == due.version;
        let index = self.running.iter().position(counts)?;
        let done = self.running.swap_remove(index);
        self.fill(due.at);
        Some(Spent { waited: done.waited, worked: due.at - done.began })
    }

    fn fill(&mut self, now: Duration) {
        while !self.queue.is_empty() && self.has_slot() {
            if let Some(next) = self.queue.pop_front() {
                self.start(now, next);
            }
        }
    }

    /// Whether it has this piece of work.
    pub(super) fn has(&self, job: Job) -> bool {
        self.running.iter().any(|running| running.job == job) || self.queue.iter().any(|own| own.job == job)
    }

    /// Nobody waits for this piece of work any more; true if the server has let go of it.
    pub(super) fn cancel(&mut self, now: Duration, job: Job) -> bool {
        if let Some(index) = self.queue.iter().position(|waiting| waiting.job == job) {
            self.queue.remove(index);
            return true;
        }
        let index = self.running.iter().position(|running| running.job == job);
        let Some(index) = index.filter(|_| !self.options.works_on) else { return false };
        self.running.swap_remove(index);
        self.fill(now);
        true
    }

    /// Everything that is there is lost. What starts next is another process, which does not stand still.
    pub(super) fn crash(&mut self) -> Vec<Job> {
        self.frozen = None;
        let running = std::mem::take(&mut self.running).into_iter().map(|running| running.job);
        running.chain(std::mem::take(&mut self.queue).into_iter().map(|waiting| waiting.job)).collect()
    }

    /// Changes the speed, for what is being worked on as well.
    pub(super) fn set_speed(&mut self, now: Duration, speed: f64) {
        self.change(now, |server| server.options.speed = speed);
    }

    /// Stands still until `until`, or longer if it does already.
    pub(super) fn freeze(&mut self, now: Duration, until: Duration) {
        self.change(now, |server| server.frozen = Some(server.frozen.map_or(until, |own| own.max(until))));
    }

    /// Goes on, if it need not stand still any longer.
    pub(super) fn thaw(&mut self, now: Duration) {
        if self.frozen.is_some_and(|until| until <= now) {
            self.change(now, |server| server.frozen = None);
        }
    }

    /// Whether nothing happens here.
    pub(super) fn is_still(&self) -> bool {
        self.pace() == 0.0
    }

    fn change(&mut self, now: Duration, change: impl FnOnce(&mut Self)) {
        let speed = self.pace();
        for running in &mut self.running {
            running.left = (running.left - (now - running.since).as_secs_f64() * speed).max(0.0);
            running.since = now;
        }
        change(self);
        (0..self.running.len()).for_each(|index| self.announce(index));
    }

    /// Changes the number of slots.
    pub(super) fn set_slots(&mut self, now: Duration, slots: Option<u32>) {
        self.options.slots = slots;
        self.fill(now);
    }

    /// Requests that are worked on or wait.
    pub(super) fn in_flight(&self) -> usize {
        self.running.len() + self.queue.len()
    }

    /// Requests that wait.
    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// When a request that comes now is to be expected to be done, knowing what is there and the speed, and of the work no
    /// more than its mean. In seconds; infinite while it stands still.
    pub(super) fn expected(&self) -> f64 {
        if self.is_still() {
            return f64::INFINITY;
        }
        let mean = self.options.work.mean().as_secs_f64() / self.pace();
        let ahead = match self.options.slots {
            // Each end of the `slots` that run lets one in.
            Some(slots) => (self.in_flight() + 1).saturating_sub(slots as usize) as f64 / f64::from(slots),
            None => 0.0,
        };
        mean * (1.0 + ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::ZERO;
    const MS: Duration = Duration::from_millis(1);

    fn one_slot() -> Server {
        Server::new(ServerOptions::default().slots(1))
    }

    fn only(server: &mut Server) -> Due {
        let due = server.take_due();
        assert_eq!(due.len(), 1, "{due:?}");
        due[0]
    }

    #[test]
    fn who_comes_first_is_served_first_and_waits_for_the_others() {
        let mut server = one_slot();
        assert!(server.arrive(START, 1, MS * 10) && server.arrive(MS * 2, 2, MS * 5));
        let first = only(&mut server);
        assert_eq!((first.at, first.job), (MS * 10, 1));
        assert_eq!(server.finish(first), Some(Spent { waited: START, worked: MS * 10 }));
        let second = only(&mut server);
        assert_eq!((second.at, second.job), (MS * 15, 2));
        assert_eq!(server.finish(second), Some(Spent { waited: MS * 8, worked: MS * 5 }));
        assert_eq!(server.in_flight(), 0);
    }

    #[test]
    fn a_change_of_speed_counts_for_what_is_left() {
        let mut server = one_slot();
        server.arrive(START, 1, MS * 10);
        let before = only(&mut server);
        server.set_speed(MS * 5, 0.5);
        let after = only(&mut server);
        assert_eq!(after.at, MS * 15);
        assert_eq!(server.finish(before), None, "what was announced before is void");
        assert!(server.finish(after).is_some());
    }

    #[test]
    fn a_frozen_server_goes_on_where_it_was() {
        let mut server = one_slot();
        server.arrive(START, 1, MS * 10);
        server.take_due();
        server.freeze(MS * 4, MS * 100);
        server.arrive(MS * 5, 2, MS * 1);
        assert_eq!(server.take_due(), [], "nothing ends");
        server.freeze(MS * 6, MS * 50);
        server.thaw(MS * 50);
        assert!(server.is_still(), "the longer of two counts");
        server.thaw(MS * 100);
        assert_eq!(only(&mut server).at, MS * 106);
    }

    #[test]
    fn one_who_gives_up_leaves_the_queue_and_keeps_a_slot() {
        let mut server = one_slot();
        server.arrive(START, 1, MS * 10);
        server.arrive(START, 2, MS * 10);
        assert!(server.cancel(MS * 1, 2));
        assert!(!server.cancel(MS * 1, 1));
        assert_eq!((server.in_flight(), server.queued()), (1, 0));
        server.options.works_on = false;
        assert!(server.cancel(MS * 2, 1));
        assert_eq!(server.in_flight(), 0);
    }

    #[test]
    fn a_full_queue_takes_no_more() {
        let mut server = Server::new(ServerOptions::default().slots(1).queue(1));
        assert!(server.arrive(MS, 1, MS) && server.arrive(MS, 2, MS));
        assert!(!server.arrive(MS, 3, MS));
    }

    #[test]
    fn work_grows_with_what_is_there() {
        let mut server = Server::new(ServerOptions::default().slots(None).per_in_flight(MS * 10));
        server.arrive(START, 1, MS * 100);
        server.arrive(START, 2, MS * 100);
        let ends: Vec<_> = server.take_due().iter().map(|due| due.at).collect();
        assert_eq!(ends, [MS * 110, MS * 120]);
    }

    #[test]
    fn a_crash_loses_everything_once() {
        let mut server = one_slot();
        server.arrive(START, 1, MS * 10);
        server.arrive(START, 2, MS * 10);
        let due = only(&mut server);
        assert_eq!(server.crash(), [1, 2]);
        assert_eq!(server.finish(due), None);
        assert_eq!(server.crash(), [0; 0]);
    }

    #[test]
    fn what_is_expected_knows_slots_queue_and_speed() {
        let mut server =
            Server::new(ServerOptions::default().slots(2).speed(0.5).work(Distribution::Constant(MS * 40)));
        assert!((server.expected() - 0.080).abs() < 1e-9);
        for job in 0..3 {
            server.arrive(START, job, MS * 40);
        }
        assert!((server.expected() - 0.080 * 2.0).abs() < 1e-9);
        server.freeze(MS * 1, MS * 100);
        assert!(server.expected().is_infinite());
    }
}
