//! What travels with a request through the layers, and across clients, without being part of it.
//!
//! The context is ambient: it belongs to the task that is being polled and is entered around every inner `call` and
//! every poll. It has two parts. What is *inherited* crosses clients: a server that scopes an incoming request with its
//! deadline has that deadline kept by every client it calls. What belongs to *this call* is started anew by every
//! client: which attempt it is, which endpoints were tried, how the attempt ended.
//!
//! ```
//! use std::time::Duration;
//! use mainstay::{clock, context::{self, Inherited}};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let incoming = Inherited::default().with_deadline(clock::now() + Duration::from_millis(200));
//! context::scope(incoming, async {
//!     assert!(context::inherited().deadline().is_some()); // every client called here keeps within it
//! })
//! .await;
//! assert!(context::inherited().deadline().is_none());
//! # }
//! ```
//!
//! Entering costs a few loads and stores of a thread-local, no allocation and no clock read.

mod frame;
mod scope;
mod timer;

use std::{cell::Cell, time::Instant};

pub use scope::{Scope, scope, spawn};

pub(crate) use frame::{forget_now, fresh_now, nanos_since, now, wake_at};
pub(crate) use timer::Timer;

use crate::{describe::Criticality, outcome::Verdict};

/// The part of the context that crosses clients.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Inherited {
    deadline: Option<Instant>,
    criticality: Option<Criticality>,
    retry: bool,
}

impl Inherited {
    /// The same with `deadline`, or the deadline it has already if that one is earlier.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(self.deadline.map_or(deadline, |own| own.min(deadline)));
        self
    }

    /// The same with how much the work matters.
    #[must_use]
    pub fn with_criticality(mut self, criticality: Criticality) -> Self {
        self.criticality = Some(criticality);
        self
    }

    /// The same, saying whether this work is itself a retry by somebody above.
    #[must_use]
    pub fn with_retry(mut self, retry: bool) -> Self {
        self.retry = retry;
        self
    }

    /// When the work must be done.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// How much the work matters, where somebody said so.
    pub fn criticality(&self) -> Option<Criticality> {
        self.criticality
    }

    /// Whether this work is itself a retry by somebody above. Every attempt of a retry layer or client but the first runs
    /// with this set, for what it calls to see.
    pub fn is_retry(&self) -> bool {
        self.retry
    }
}

/// The part of the context that belongs to one call of one client.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Call {
    /// How many endpoints this call has tried.
    pub(crate) tries: u8,
    /// Which, by the low bits of their ids: in a fleet that has seen 65,536 endpoints one may be passed over for another.
    pub(crate) tried: [u16; TRIED],
    /// How the last attempt ended, if an attempt was made at all.
    pub(crate) verdict: Option<Verdict>,
    /// 1 for the first attempt.
    pub(crate) attempt: u32,
    /// Whether the layer above keeps a copy and would send the request again: only then may it serve as a probe.
    pub(crate) repeatable: bool,
    /// How many attempts may follow this one.
    pub(crate) more: u8,
    /// Whether the last attempt was a probe: its retry elsewhere costs no budget.
    pub(crate) probe: bool,
    /// Whether this attempt runs beside others of the same request: it goes to an endpoint that none of them has, or nowhere.
    pub(crate) hedge: bool,
    /// Whether another attempt has answered first: what is cut off now was slower than that.
    pub(crate) superseded: bool,
}

/// What the longest retry policy comes to: ten attempts, and four more of which nothing was sent. What four hedges have
/// tried on top of that is forgotten: a copy of this is made at each poll.
const TRIED: usize = 14;

impl Call {
    /// Notes that endpoint `id` is being tried.
    #[inline]
    pub(crate) fn tried(&mut self, id: u64) {
        if let Some(place) = self.tried.get_mut(usize::from(self.tries)) {
            *place = id as u16;
            self.tries += 1;
        }
    }

    /// Takes over what another attempt of the same request has tried.
    pub(crate) fn tried_too(&mut self, other: &Self) {
        for id in &other.tried[..usize::from(other.tries)] {
            if !self.has_tried(u64::from(*id)) {
                self.tried(u64::from(*id));
            }
        }
    }

    /// Whether no endpoint was tried.
    #[inline]
    pub(crate) fn is_untried(&self) -> bool {
        self.tries == 0
    }

    /// Whether endpoint `id` was tried.
    #[inline]
    pub(crate) fn has_tried(&self, id: u64) -> bool {
        self.tries > 0 && self.tried[..usize::from(self.tries)].contains(&(id as u16))
    }
}

struct Ambient {
    inherited: Cell<Inherited>,
    /// Whether a layer of ours above has started a call; without, each layer stands alone.
    active: Cell<bool>,
    call: Cell<Call>,
}

thread_local!(static AMBIENT: Ambient = const {
    Ambient {
        inherited: Cell::new(Inherited { deadline: None, criticality: None, retry: false }),
        active: Cell::new(false),
        call: Cell::new(Call {
            tries: 0, tried: [0; TRIED], verdict: None, attempt: 0, repeatable: false, more: 0, probe: false, hedge: false,
            superseded: false,
        }),
    }
});

/// What the current task inherited.
#[inline]
pub fn inherited() -> Inherited {
    AMBIENT.with(|ambient| ambient.inherited.get())
}

/// The deadline that the current task inherited.
#[inline]
pub(crate) fn deadline() -> Option<Instant> {
    AMBIENT.with(|ambient| ambient.inherited.get().deadline)
}

/// The current call, if a layer above has started one.
#[inline]
pub(crate) fn call() -> Option<Call> {
    AMBIENT.with(|ambient| ambient.active.get().then(|| ambient.call.get()))
}

/// How many attempts may follow this one.
pub(crate) fn attempts_left() -> u32 {
    AMBIENT.with(|ambient| if ambient.active.get() { u32::from(ambient.call.get().more) } else { 0 })
}

/// The verdict on the attempt that has just ended, and whether it was given only now: by a layer further in, or by `judge`, whose
/// word is left to those further out.
#[inline]
pub(crate) fn judged(judge: impl FnOnce() -> Verdict) -> (Verdict, bool) {
    AMBIENT.with(|ambient| {
        if !ambient.active.get() {
            return (judge(), true);
        }
        let mut call = ambient.call.get();
        match call.verdict {
            Some(verdict) => (verdict, false),
            None => {
                let verdict = judge();
                call.verdict = Some(verdict);
                ambient.call.set(call);
                (verdict, true)
            }
        }
    })
}

/// Whether the current call, if there is one, has tried an endpoint already.
#[inline]
pub(crate) fn has_tried() -> bool {
    AMBIENT.with(|ambient| ambient.active.get() && !ambient.call.get().is_untried())
}

/// Whether this is another attempt of a call that was begun before.
pub(crate) fn is_again() -> bool {
    AMBIENT.with(|ambient| ambient.active.get() && ambient.call.get().attempt > 1)
}

/// Changes the current call, if there is one, for the layers above and below to see.
#[inline]
pub(crate) fn change_call(change: impl FnOnce(&mut Call)) {
    AMBIENT.with(|ambient| {
        if ambient.active.get() {
            let mut call = ambient.call.get();
            change(&mut call);
            ambient.call.set(call);
        }
    });
}

/// Puts `inherited` in place until dropped.
pub(crate) struct EnterInherited(Inherited);

impl EnterInherited {
    #[inline]
    pub(crate) fn new(inherited: Inherited) -> Self {
        Self(AMBIENT.with(|ambient| ambient.inherited.replace(inherited)))
    }
}

impl Drop for EnterInherited {
    #[inline]
    fn drop(&mut self) {
        AMBIENT.with(|ambient| ambient.inherited.set(self.0));
    }
}

/// Puts a call in place until dropped; what the layers below made of it goes back to its owner then.
pub(crate) struct EnterCall<'a> {
    own: &'a mut Call,
    before: Call,
    active: bool,
}

impl<'a> EnterCall<'a> {
    #[inline]
    pub(crate) fn new(own: &'a mut Call) -> Self {
        AMBIENT.with(|ambient| {
            let before = ambient.call.replace(*own);
            Self { own, before, active: ambient.active.replace(true) }
        })
    }
}

impl Drop for EnterCall<'_> {
    #[inline]
    fn drop(&mut self) {
        AMBIENT.with(|ambient| {
            *self.own = ambient.call.replace(self.before);
            ambient.active.set(self.active);
        });
    }
}

/// Hides the current call from the service below until dropped: a client inside it starts its own.
pub(crate) struct HideCall(bool);

impl HideCall {
    #[inline]
    pub(crate) fn new() -> Self {
        Self(AMBIENT.with(|ambient| ambient.active.replace(false)))
    }
}

impl Drop for HideCall {
    #[inline]
    fn drop(&mut self) {
        AMBIENT.with(|ambient| ambient.active.set(self.0));
    }
}
