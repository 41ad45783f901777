//! A virtual fleet: servers, the network before them, and what they have done.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Duration,
};

use super::{
    Fault, FaultKind, Request, Response, ServerOptions, Trouble, World,
    connection::{Connection, Dial},
    network::Network,
    server::{Due, Job, Server},
    tally::{ServerTally, Timeline},
    trouble::{Risk, met},
};
use crate::{
    Endpoint,
    invalid::{Check, Invalid},
    random::{Random as _, unit},
    resolve::{Fixed, fixed},
};

/// A fleet of virtual servers in a [`World`]. A clone is a handle to the same fleet.
///
/// Its endpoints are named `server-0`, `server-1` and so on. [`connect`](Self::connect) gives services that reach them at
/// once, [`dial`](Self::dial) a service that connects to them first.
#[derive(Clone)]
pub struct Fleet {
    pub(super) world: World,
    state: Arc<Mutex<State>>,
}

pub(super) struct State {
    hosts: Vec<Host>,
    calls: Vec<Slot>,
    free: Vec<u32>,
    network: Network,
}

/// A server with what surrounds it.
struct Host {
    server: Server,
    risks: Vec<Risk>,
    up: bool,
    /// Whether it turns new requests and connections away, finishing what it has.
    draining: bool,
    /// Counts its lives: connections of an earlier one are gone.
    life: u32,
    tally: ServerTally,
    received: Timeline,
    dialled: Timeline,
    connected: Timeline,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    call: Option<Call>,
}

/// A request or a handshake on its way.
struct Call {
    server: usize,
    place: u32,
    request: Option<Request>,
    /// Whether somebody waits for the answer.
    awaited: bool,
    /// Whether the answer is on its way, or has arrived.
    answered: bool,
    waker: Option<Waker>,
    answer: Option<Result<Response, FaultKind>>,
}

/// Builds a [`Fleet`]; from [`Fleet::builder`].
#[derive(Clone, Debug)]
pub struct FleetBuilder {
    servers: Vec<ServerOptions>,
    delay: Duration,
}

impl FleetBuilder {
    /// Adds so many servers.
    #[must_use]
    pub fn servers(mut self, count: usize, options: ServerOptions) -> Self {
        self.servers.extend(std::iter::repeat_n(options, count));
        self
    }

    /// How long a message takes each way \[1 ms\].
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Puts the fleet into a world.
    ///
    /// # Errors
    /// [`Invalid`] with all that is wrong with the servers.
    pub fn build(self, world: &World) -> Result<Fleet, Invalid> {
        let mut check = Check::default();
        for options in &self.servers {
            check.part("servers", |check| options.check(check));
        }
        check.finish()?;
        let host = |options| Host {
            server: Server::new(options),
            risks: Vec::new(),
            up: true,
            draining: false,
            life: 0,
            tally: ServerTally::default(),
            received: Timeline::default(),
            dialled: Timeline::default(),
            connected: Timeline::default(),
        };
        let state = State {
            hosts: self.servers.into_iter().map(host).collect(),
            calls: Vec::new(),
            free: Vec::new(),
            network: Network::new(self.delay),
        };
        Ok(Fleet { world: world.clone(), state: Arc::new(Mutex::new(state)) })
    }
}

impl Fleet {
    /// A fleet without servers yet, whose network takes a millisecond each way.
    pub fn builder() -> FleetBuilder {
        FleetBuilder { servers: Vec::new(), delay: Duration::from_millis(1) }
    }

    /// How many servers there are.
    pub fn len(&self) -> usize {
        self.lock().hosts.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The endpoint of a server.
    pub fn endpoint(&self, server: usize) -> Endpoint {
        Endpoint::new(format!("server-{server}"))
    }

    /// The endpoints of all servers.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        (0..self.len()).map(|server| self.endpoint(server)).collect()
    }

    /// A resolver that tells all of them, for ever. For sets that change, see [`resolve::channel`](crate::resolve::channel).
    pub fn resolver(&self) -> Fixed {
        fixed(self.endpoints())
    }

    /// Makes services that reach their server at once, from place 0. For `connect` of mainstay's builders.
    pub fn connect(&self) -> impl Fn(&Endpoint) -> Connection + Clone + Send + Sync + 'static {
        self.connect_from(0)
    }

    /// The same from another place.
    pub fn connect_from(
        &self,
        place: u32,
    ) -> impl Fn(&Endpoint) -> Connection + Clone + Send + Sync + 'static {
        let fleet = self.clone();
        move |endpoint| fleet.reach(place, fleet.number(endpoint))
    }

    /// A service that connects, from place 0, and gives a service over that connection. For `connect_with` of mainstay's
    /// builders.
    pub fn dial(&self) -> Dial {
        self.dial_from(0)
    }

    /// The same from another place.
    pub fn dial_from(&self, place: u32) -> Dial {
        Dial::new(self.clone(), place)
    }

    /// A service that reaches this server from `place` without connecting.
    pub fn reach(&self, place: u32, server: usize) -> Connection {
        Connection::new(self.clone(), place, server, None)
    }

    /// The number of an endpoint's server. An endpoint of nobody's is told apart by its number: nobody answers there.
    pub(super) fn number(&self, endpoint: &Endpoint) -> usize {
        let name = endpoint.address().to_string();
        name.strip_prefix("server-").and_then(|number| number.parse().ok()).unwrap_or(usize::MAX)
    }

    /// A server, to read and to trouble.
    pub fn server(&self, number: usize) -> ServerHandle {
        ServerHandle { fleet: self.clone(), number }
    }

    /// Changes how long a message takes each way, for those that set out from now on.
    pub fn set_delay(&self, delay: Duration) {
        self.lock().network.delay = delay;
    }

    /// How much longer messages between a place and a server take.
    pub fn set_more_delay(&self, place: u32, server: usize, more: Duration) {
        self.lock().network.set_more(place, server, more);
    }

    /// Loses every message between a place and a server, or loses none any more.
    pub fn cut(&self, place: u32, server: usize, cut: bool) {
        self.lock().network.set_cut(place, server, cut);
    }

    /// What each server has done.
    pub fn tallies(&self) -> Vec<ServerTally> {
        self.lock().hosts.iter().map(|host| host.tally).collect()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces to the world when what this server works on will be done.
    fn schedule(&self, server: usize, due: Vec<Due>) {
        for due in due {
            let fleet = self.clone();
            self.world.at(due.at, move || fleet.finish(server, due));
        }
    }

    /// Sends a request, or a handshake for none, on its way.
    pub(super) fn send(&self, place: u32, server: usize, request: Option<Request>) -> Job {
        let mut state = self.lock();
        let job = state.insert(Call {
            server,
            place,
            request,
            awaited: true,
            answered: false,
            waker: None,
            answer: None,
        });
        if let Some(delay) = state.network.passes(place, server) {
            drop(state);
            let fleet = self.clone();
            self.world.after(delay, move || fleet.arrive(job));
        }
        job
    }

    fn arrive(&self, job: Job) {
        let (now, mut guard) = (self.world.now(), self.lock());
        let state = &mut *guard;
        let Some(call) = state.call(job) else { return };
        let (server, request) = (call.server, call.request);
        let answer = match state.hosts.get_mut(server) {
            None => Some(Err(FaultKind::Refused)),
            Some(host) => {
                if request.is_some() {
                    host.tally.received += 1;
                    host.received.count(now);
                } else {
                    host.tally.handshakes += 1;
                    host.dialled.count(now);
                }
                match request {
                    _ if !host.up => Some(Err(FaultKind::Refused)),
                    _ if host.draining => Some(Err(FaultKind::Refused)),
                    None => host.handshake(now, job),
                    Some(request) => host.request(now, job, request, &self.world, server),
                }
            }
        };
        let due = state.hosts.get_mut(server).map_or_else(Vec::new, |host| host.server.take_due());
        if let Some(Err(kind)) = answer
            && let Some(host) = state.hosts.get_mut(server)
        {
            host.tally.turned_away += u64::from(kind != FaultKind::Failed);
            host.tally.failed += u64::from(kind == FaultKind::Failed);
        }
        drop(guard);
        self.schedule(server, due);
        if let Some(answer) = answer {
            self.answer(job, answer);
        }
    }

    fn finish(&self, server: usize, due: Due) {
        let mut state = self.lock();
        let host = &mut state.hosts[server];
        let Some(spent) = host.server.finish(due) else { return };
        host.tally.worked += spent.worked;
        let (more, in_flight) = (host.server.take_due(), host.server.in_flight() as u32);
        let Some(call) = state.call(due.job) else { return };
        let (wanted, request) = (call.awaited, call.request);
        let late = request.is_some_and(|request| {
            state.hosts[server].trouble(&self.world, server, request) == Some(Trouble::FailLate)
        });
        let host = &mut state.hosts[server];
        match (wanted, late) {
            (false, _) => host.tally.wasted += 1,
            (true, true) => host.tally.failed += 1,
            (true, false) if request.is_none() => host.connected.count(due.at),
            (true, false) => host.tally.served += 1,
        }
        drop(state);
        self.schedule(server, more);
        let answer = Response { server, in_flight, waited: spent.waited, worked: spent.worked };
        self.answer(due.job, if late { Err(FaultKind::Failed) } else { Ok(answer) });
    }

    /// Sends an answer on its way back.
    fn answer(&self, job: Job, answer: Result<Response, FaultKind>) {
        let mut state = self.lock();
        let Some(call) = state.call_mut(job) else { return };
        if !call.awaited {
            state.remove(job);
            return;
        }
        call.answered = true;
        let (place, server) = (call.place, call.server);
        if let Some(delay) = state.network.passes(place, server) {
            drop(state);
            let fleet = self.clone();
            self.world.after(delay, move || fleet.deliver(job, answer));
        }
    }

    fn deliver(&self, job: Job, answer: Result<Response, FaultKind>) {
        let mut state = self.lock();
        let Some(call) = state.call_mut(job) else { return };
        if !call.awaited {
            state.remove(job);
            return;
        }
        call.answer = Some(answer);
        let waker = call.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The answer to a call, once it is there.
    pub(super) fn poll_answer(&self, job: Job, waker: &Waker) -> Option<Result<Response, Fault>> {
        let mut state = self.lock();
        let call = state.call_mut(job)?;
        match call.answer.take() {
            Some(answer) => {
                let server = call.server;
                state.remove(job);
                Some(answer.map_err(|kind| Fault { server, kind }))
            }
            None => {
                if call.waker.as_ref().is_none_or(|own| !own.will_wake(waker)) {
                    call.waker = Some(waker.clone());
                }
                None
            }
        }
    }

    /// The caller gives up; the server learns of it when a message would arrive.
    pub(super) fn give_up(&self, job: Job) {
        let mut state = self.lock();
        let Some(call) = state.call_mut(job) else { return };
        if call.answer.is_some() {
            state.remove(job);
            return;
        }
        call.awaited = false;
        call.waker = None;
        let (place, server) = (call.place, call.server);
        if let Some(delay) = state.network.passes(place, server) {
            drop(state);
            let fleet = self.clone();
            self.world.after(delay, move || fleet.cancelled(job));
        }
    }

    fn cancelled(&self, job: Job) {
        let (now, mut state) = (self.world.now(), self.lock());
        let Some(call) = state.call(job) else { return };
        let (server, answered) = (call.server, call.answered);
        let Some(host) = state.hosts.get_mut(server) else { return };
        if answered {
            return;
        }
        let had = host.server.has(job);
        if !had || host.server.cancel(now, job) {
            host.tally.given_up += 1;
            let due = host.server.take_due();
            state.remove(job);
            drop(state);
            self.schedule(server, due);
        }
    }

    fn crash(&self, server: usize) {
        let mut state = self.lock();
        let Some(host) = state.hosts.get_mut(server) else { return };
        host.up = false;
        host.life += 1;
        let lost = host.server.crash();
        drop(state);
        for job in lost {
            self.answer(job, Err(FaultKind::Reset));
        }
    }

    /// The life of a server, if it is up.
    pub(super) fn life(&self, server: usize) -> Option<u32> {
        self.lock().hosts.get(server).filter(|host| host.up).map(|host| host.life)
    }
}

impl Host {
    fn handshake(&mut self, now: Duration, job: Job) -> Option<Result<Response, FaultKind>> {
        let work = self.server.options.handshake;
        if work.is_zero() {
            self.connected.count(now);
            return Some(Ok(Response { server: 0, in_flight: 0, waited: work, worked: work }));
        }
        (!self.server.arrive(now, job, work)).then_some(Err(FaultKind::Refused))
    }

    fn request(
        &mut self,
        now: Duration,
        job: Job,
        request: Request,
        world: &World,
        server: usize,
    ) -> Option<Result<Response, FaultKind>> {
        match self.trouble(world, server, request) {
            Some(Trouble::Fail) => return Some(Err(FaultKind::Failed)),
            Some(Trouble::BackOff(after)) => return Some(Err(FaultKind::BackOff(after))),
            Some(Trouble::Reject) => return Some(Err(FaultKind::Rejected)),
            Some(Trouble::Reset) => return Some(Err(FaultKind::Reset)),
            Some(Trouble::Hang) => return None,
            Some(Trouble::FailLate) | None => {}
        }
        let draws = world.random_of(&[WORK, request.id, u64::from(request.attempt)]);
        let work = self.server.options.work.draw(&draws);
        (!self.server.arrive(now, job, work)).then_some(Err(FaultKind::Failed))
    }

    /// The trouble that a request meets here: the same whenever it is asked.
    fn trouble(&self, world: &World, server: usize, request: Request) -> Option<Trouble> {
        if self.risks.is_empty() {
            return None;
        }
        let names = [TROUBLE, server as u64, request.id, u64::from(request.attempt)];
        met(&self.risks, request.operation, unit(world.random_of(&names).next()))
    }
}

/// What chance decides over, told apart.
const WORK: u64 = 1;
const TROUBLE: u64 = 2;

impl State {
    fn insert(&mut self, call: Call) -> Job {
        let index = self.free.pop().unwrap_or_else(|| {
            self.calls.push(Slot::default());
            (self.calls.len() - 1) as u32
        });
        let slot = &mut self.calls[index as usize];
        slot.call = Some(call);
        u64::from(slot.generation) << 32 | u64::from(index)
    }

    fn call(&self, job: Job) -> Option<&Call> {
        let slot = self.calls.get(job as u32 as usize)?;
        slot.call.as_ref().filter(|_| u64::from(slot.generation) == job >> 32)
    }

    fn call_mut(&mut self, job: Job) -> Option<&mut Call> {
        let slot = self.calls.get_mut(job as u32 as usize)?;
        slot.call.as_mut().filter(|_| u64::from(slot.generation) == job >> 32)
    }

    fn remove(&mut self, job: Job) {
        let slot = &mut self.calls[job as u32 as usize];
        slot.call = None;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(job as u32);
    }
}

/// One server of a fleet, to read and to trouble. Changes act at once.
#[derive(Clone)]
pub struct ServerHandle {
    fleet: Fleet,
    number: usize,
}

impl ServerHandle {
    fn change(&self, change: impl FnOnce(Duration, &mut Host)) {
        let (now, mut state) = (self.fleet.world.now(), self.fleet.lock());
        let Some(host) = state.hosts.get_mut(self.number) else { return };
        change(now, host);
        let due = host.server.take_due();
        drop(state);
        self.fleet.schedule(self.number, due);
    }

    fn read<T: Default>(&self, read: impl FnOnce(&Host) -> T) -> T {
        self.fleet.lock().hosts.get(self.number).map_or_else(T::default, read)
    }

    /// Changes how fast it works; what is being worked on feels it at once. 0 stands still.
    ///
    /// # Errors
    /// [`Invalid`] for a speed that is no number, infinite or negative.
    pub fn set_speed(&self, speed: f64) -> Result<(), Invalid> {
        let mut check = Check::default();
        check.rule(super::server::is_speed(speed), "speed", speed, "finite, from 0 up");
        check.finish()?;
        self.change(|now, host| host.server.set_speed(now, speed));
        Ok(())
    }

    /// Changes how much work the requests are that come from now on.
    pub fn set_work(&self, work: super::Distribution) {
        self.change(|_, host| host.server.options.work = work);
    }

    /// Changes how many requests are worked on at the same time.
    pub fn set_slots(&self, slots: impl Into<Option<u32>>) {
        let slots = slots.into().map(|slots| slots.max(1));
        self.change(|now, host| host.server.set_slots(now, slots));
    }

    /// Changes how much work it is to accept a connection.
    pub fn set_handshake(&self, work: Duration) {
        self.change(|_, host| host.server.options.handshake = work);
    }

    /// Stands still for so long, as in a garbage collection: requests queue, and nothing is lost.
    pub fn freeze(&self, lasts: Duration) {
        self.change(|now, host| host.server.freeze(now, true));
        let server = self.clone();
        self.fleet.world.after(lasts, move || server.change(|now, host| host.server.freeze(now, false)));
    }

    /// From now on a share of the requests, from 0 to 1, meets this trouble. Several add up.
    pub fn trouble(&self, share: f64, trouble: Trouble) {
        self.change(|_, host| host.risks.push(Risk { share, operation: None, trouble }));
    }

    /// The same for the requests of one operation alone.
    pub fn trouble_for(&self, operation: &'static str, share: f64, trouble: Trouble) {
        self.change(|_, host| host.risks.push(Risk { share, operation: Some(operation), trouble }));
    }

    /// No request meets trouble any more.
    pub fn recover(&self) {
        self.change(|_, host| host.risks.clear());
    }

    /// Turns new requests and connections away, and finishes what it has.
    pub fn drain(&self) {
        self.change(|_, host| host.draining = true);
    }

    /// Loses everything that it has, and every connection; nobody is there until [`start`](Self::start).
    pub fn crash(&self) {
        self.fleet.crash(self.number);
    }

    /// Is there again, after a crash or a drain, without troubles.
    pub fn start(&self) {
        self.change(|_, host| {
            (host.up, host.draining) = (true, false);
            host.risks.clear();
        });
    }

    /// Crashes, and starts again after so long.
    pub fn restart(&self, down: Duration) {
        self.crash();
        let server = self.clone();
        self.fleet.world.after(down, move || server.start());
    }

    /// Requests that are there, waiting or worked on.
    pub fn in_flight(&self) -> usize {
        self.read(|host| host.server.in_flight())
    }

    /// Requests that wait for a slot.
    pub fn queued(&self) -> usize {
        self.read(|host| host.server.queued())
    }

    /// How long a request that came now would take here, in seconds, for somebody who knows queue and speed, and of the
    /// work the mean. Infinite while nothing moves. What no real client can know: to compare with.
    pub fn expected(&self) -> f64 {
        self.fleet.lock().hosts.get(self.number).map_or(f64::INFINITY, |host| host.server.expected())
    }

    /// What it has done.
    pub fn tally(&self) -> ServerTally {
        self.read(|host| host.tally)
    }

    /// When requests arrived.
    pub fn received(&self) -> Timeline {
        self.read(|host| host.received.clone())
    }

    /// When handshakes arrived.
    pub fn dialled(&self) -> Timeline {
        self.read(|host| host.dialled.clone())
    }

    /// When connections were accepted that somebody still waited for.
    pub fn connected(&self) -> Timeline {
        self.read(|host| host.connected.clone())
    }
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerHandle").field("number", &self.number).field("tally", &self.tally()).finish()
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").field("servers", &self.len()).finish_non_exhaustive()
    }
}
