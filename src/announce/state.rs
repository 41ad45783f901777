//! What an announcement is at.

use std::{fmt, pin::pin, sync::Arc};

use futures::future::select;
use tokio::sync::watch;

use super::check::Fitness;
use crate::{error::Cause, registry::Instance};

/// What an announcement is at.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum State {
    /// It is about to be announced, or no check has passed yet.
    Pending,
    /// It stands in the registry, as this key or node.
    Announced(Arc<str>),
    /// It should stand there, and may not: the registry is in trouble, or somebody else has its name. It is tried again.
    Lost(Cause),
    /// Its check fails, so it is not in the registry.
    Unwell(Cause),
    /// It is withdrawn for good.
    Withdrawn,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending => f.write_str("not announced yet"),
            Self::Announced(node) => write!(f, "announced as {node}"),
            Self::Lost(cause) => write!(f, "lost: {cause}"),
            Self::Unwell(cause) => write!(f, "not announced, its check fails: {cause}"),
            Self::Withdrawn => f.write_str("withdrawn"),
        }
    }
}

/// Tells states, to the handle and to `tracing`.
pub(super) struct Report {
    pub(super) what: String,
    pub(super) states: watch::Sender<State>,
}

impl Report {
    pub(super) fn tell(&self, state: State) {
        let told = state.to_string();
        let changed = self.states.borrow().to_string() != told;
        self.states.send_replace(state.clone());
        if !changed {
            return;
        }
        match state {
            State::Lost(_) | State::Unwell(_) => {
                tracing::warn!(target: "mainstay::announce", "{}: {told}", self.what)
            }
            _ => tracing::info!(target: "mainstay::announce", "{}: {told}", self.what),
        }
    }
}

/// What is wanted of an announcement.
#[derive(Clone, Debug)]
pub(super) enum Order {
    /// It stands as this.
    Stand(Arc<Instance>),
    Withdraw,
}

/// Whether it should stand: its check passes, and nobody has withdrawn it.
pub(super) struct Wanted {
    pub(super) order: watch::Receiver<Order>,
    /// What it stands as, as far as that was acted upon.
    pub(super) known: Arc<Instance>,
    /// `None` without a check.
    pub(super) fitness: Option<watch::Receiver<Fitness>>,
}

impl Wanted {
    pub(super) fn is(&self) -> bool {
        !self.is_over()
            && self.fitness.as_ref().is_none_or(|fitness| matches!(*fitness.borrow(), Fitness::Fit))
    }

    /// Whether it is withdrawn, or its handle dropped.
    pub(super) fn is_over(&self) -> bool {
        self.order.has_changed().is_err() || matches!(*self.order.borrow(), Order::Withdraw)
    }

    /// What it is to stand as from now on, if that has changed.
    pub(super) fn renewed(&mut self) -> Option<Arc<Instance>> {
        let Order::Stand(instance) = &*self.order.borrow() else { return None };
        if Arc::ptr_eq(instance, &self.known) {
            return None;
        }
        self.known = instance.clone();
        Some(instance.clone())
    }

    fn is_renewed(&self) -> bool {
        matches!(&*self.order.borrow(), Order::Stand(instance) if !Arc::ptr_eq(instance, &self.known))
    }

    /// What it is at if it is not wanted.
    pub(super) fn unwanted(&self) -> State {
        match self.fitness.as_ref().map(|fitness| fitness.borrow().clone()) {
            Some(Fitness::Unfit(cause)) => State::Unwell(cause),
            _ => State::Pending,
        }
    }

    /// Waits until [`is`](Self::is) says something else than `now`, or it is to stand as something else. It may be given up
    /// at any time.
    pub(super) async fn differs(&mut self, now: bool) {
        while self.is() == now && !self.is_over() && !self.is_renewed() {
            self.changed().await;
        }
    }

    /// Waits for the next word of checks and orders. It may be given up at any time.
    pub(super) async fn changed(&mut self) {
        let fitness = async {
            let changed = match &mut self.fitness {
                Some(fitness) => fitness.changed().await.is_ok(),
                None => false,
            };
            if !changed {
                std::future::pending::<()>().await;
            }
        };
        select(pin!(self.order.changed()), pin!(fitness)).await;
    }
}
