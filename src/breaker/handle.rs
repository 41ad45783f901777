//! The handle for people and programs.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    BreakerOptions, BreakerStatus, State,
    live::{Live, Owner, Pass},
};
use crate::{Error, clock, invalid::Invalid, telemetry::Observer};

/// Reads and moves one breaker while calls go through it. A clone is a handle to the same.
#[derive(Clone)]
pub struct BreakerHandle(pub(super) Arc<Live>);

impl BreakerHandle {
    pub(crate) fn new(name: Arc<str>, options: BreakerOptions, owner: Owner) -> Result<Self, Invalid> {
        Live::new(name, options, owner).map(|live| Self(Arc::new(live)))
    }

    /// What it guards, as events call it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What it does with calls. Looking changes nothing.
    pub fn state(&self) -> State {
        self.0.circuit.state()
    }

    /// Everything it knows. Looking changes nothing.
    pub fn status(&self) -> BreakerStatus {
        self.0.circuit.status(clock::now())
    }

    /// The options in force.
    pub fn options(&self) -> BreakerOptions {
        self.0.circuit.options()
    }

    /// Replaces the options while calls go through. State, what remains of it, and the window stay; a window of another
    /// kind or length begins empty. Half-open ends if what its probes have shown is enough by the new options.
    ///
    /// # Errors
    /// [`Invalid`] with every option that breaks its rule; nothing is changed then.
    pub fn update(&self, options: BreakerOptions) -> Result<(), Invalid> {
        self.0.update(options)
    }

    /// Closes it, with an empty window.
    pub fn reset(&self) {
        self.force(State::Closed);
    }

    /// Opens it for `time` (at most 10 years); then a few calls decide, as ever.
    pub fn open_for(&self, time: Duration) {
        let change = self.0.circuit.force_open_for(time, clock::now());
        self.0.changed(Some(change));
    }

    /// Refuses every call until somebody says otherwise.
    pub fn force_open(&self) {
        self.force(State::ForcedOpen);
    }

    /// Lets every call pass and counts none, until somebody says otherwise.
    pub fn disable(&self) {
        self.force(State::Disabled);
    }

    /// Lets every call pass and counts them, and tells when it would have opened, until somebody says otherwise.
    pub fn measure_only(&self) {
        self.force(State::MetricsOnly);
    }

    fn force(&self, state: State) {
        let change = self.0.circuit.force(state, clock::now(), &*self.0.owner.random);
        self.0.changed(Some(change));
    }

    /// Has `observer` told about everything that happens from now on to the breakers of the same layer or client.
    pub fn observe(&self, observer: impl Observer) {
        self.0.owner.observers.add(Arc::new(observer));
    }

    /// Lets a call pass, or says why not.
    #[inline]
    pub(crate) fn admit(&self) -> Result<Pass, Error> {
        self.0.admit().map(|admission| Pass::new(self.0.clone(), admission))
    }
}

impl fmt::Debug for BreakerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BreakerHandle").field(&self.0).finish()
    }
}
