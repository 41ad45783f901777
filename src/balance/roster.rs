//! Where the background task publishes and requests read.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use arc_swap::ArcSwap;

use super::{
    bell::Message,
    check::Checker,
    connect::Connector,
    control::{self, Control},
    fleet::Fleet,
    options::BalanceOptions,
    snapshot::Snapshot,
};
use crate::{
    error::{Error, Reason},
    invalid::{Check, Invalid},
    resolve::Resolve,
    sync::{
        AtomicBool, Mutex, Ordering::Acquire, Ordering::Relaxed, Ordering::Release, Ordering::SeqCst, lock,
    },
    telemetry::Event,
};

/// The published snapshot of a balancer, and the background task while it does not run.
///
/// It lives as long as a handle or an attempt does. The task knows it only weakly.
pub(crate) struct Roster<S> {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) snapshot: ArcSwap<Snapshot<S>>,
    /// Whoever publishes holds this, so that options and endpoints never overwrite each other.
    publishing: Mutex<()>,
    running: AtomicBool,
    parked: Mutex<Option<Control<S>>>,
    pub(crate) resolver: String,
    pub(crate) dials: bool,
}

impl<S: Send + Sync + 'static> Roster<S> {
    pub(crate) fn new(
        fleet: Arc<Fleet>,
        resolver: Box<dyn Resolve>,
        connector: Connector<S>,
        checker: Option<Checker<S>>,
    ) -> Self {
        let options = fleet.options.load_full();
        Self {
            snapshot: ArcSwap::from_pointee(Snapshot::empty(options)),
            publishing: Mutex::new(()),
            running: AtomicBool::new(false),
            resolver: resolver.describe(),
            dials: connector.dials(),
            parked: Mutex::new(Some(Control::new(fleet.clone(), resolver, connector, checker))),
            fleet,
        }
    }

    /// Whether the background task runs.
    #[inline]
    pub(crate) fn is_running(&self) -> bool {
        self.running.load(Acquire)
    }

    /// Starts the background task on the current runtime, unless it runs.
    pub(crate) fn ensure_running(self: &Arc<Self>) -> Result<(), Error> {
        if self.is_running() { Ok(()) } else { self.start() }
    }

    #[cold]
    fn start(self: &Arc<Self>) -> Result<(), Error> {
        if self.fleet.is_closed() {
            return Err(self.refusal(Reason::Closed));
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return Err(self.refusal(Reason::NoRuntime));
        };
        let mut parked = lock(&self.parked);
        // Somebody else may have started it since.
        let Some(control) = parked.take() else { return Ok(()) };
        self.running.store(true, Release);
        drop(parked);
        runtime.spawn(control::run(Running { control: Some(control), roster: Arc::downgrade(self) }));
        // A runtime that is shutting down drops what it is given: the task is parked again by now.
        if self.running.load(Acquire) { Ok(()) } else { Err(self.refusal(Reason::NoRuntime)) }
    }

    /// Publishes what `picture` makes of the snapshot before.
    pub(crate) fn publish<T>(&self, picture: impl FnOnce(&Snapshot<S>) -> (Snapshot<S>, T)) -> T {
        let publishing = lock(&self.publishing);
        let (snapshot, also) = picture(&self.snapshot.load());
        snapshot.tell_places();
        let old = self.snapshot.swap(Arc::new(snapshot));
        drop(publishing);
        // A service may do anything when it is dropped.
        drop(old);
        self.fleet.wake();
        also
    }

    /// Replaces the options, if they hold together; whoever calls tells of it.
    pub(crate) fn replace(&self, options: BalanceOptions) -> Result<(), Invalid> {
        let mut check = Check::default();
        self.fleet.options.load().check_update(&options, &mut check);
        check.finish()?;
        let options = Arc::new(options);
        self.publish(|before| {
            self.fleet.options.store(options.clone());
            self.fleet.estimator.set(options.load);
            self.fleet.operations.reconsider();
            self.fleet.go_by(&options);
            (before.with_options(options, crate::clock::now()), ())
        });
        self.fleet.bell.ring(Message::Options);
        Ok(())
    }

    /// Refuses new requests from now on and ends the background task.
    pub(crate) fn close(&self) {
        if !self.fleet.closed.swap(true, SeqCst) {
            self.fleet.bell.ring(Message::Over);
            let never_started = lock(&self.parked).take();
            drop(never_started);
            self.fleet.wake();
            self.fleet.tell(&Event::Closed);
        }
    }

    /// Lets go of all connections, once nobody needs them any more.
    pub(crate) fn let_go(&self) {
        self.publish(|before| (Snapshot::empty(before.options.clone()), ()));
    }

    pub(crate) fn refusal(&self, reason: Reason) -> Error {
        Error::new(reason).with_client(self.fleet.label.clone())
    }
}

impl<S> Drop for Roster<S> {
    fn drop(&mut self) {
        self.fleet.bell.ring(Message::Over);
    }
}

impl<S> fmt::Debug for Roster<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roster")
            .field("label", &self.fleet.label)
            .field("running", &self.running.load(Relaxed))
            .finish_non_exhaustive()
    }
}

/// The background task's state while it runs. When its runtime ends it goes back to be started again on another.
pub(crate) struct Running<S> {
    pub(crate) control: Option<Control<S>>,
    pub(crate) roster: Weak<Roster<S>>,
}

impl<S> Drop for Running<S> {
    fn drop(&mut self) {
        if let (Some(mut control), Some(roster)) = (self.control.take(), self.roster.upgrade()) {
            control.park();
            let mut parked = lock(&roster.parked);
            roster.running.store(false, Release);
            if !roster.fleet.is_closed() {
                *parked = Some(control);
            }
            drop(parked);
            // Who waits on another runtime starts it there. What has panicked would only do so again: the next request
            // tries.
            if !std::thread::panicking() {
                roster.fleet.wake();
            }
        }
    }
}
