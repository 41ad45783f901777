//! What holds an announcement.

use std::{fmt, sync::Arc};

use tokio::{runtime::Handle, sync::watch, task::JoinHandle};

use super::{
    Announce, State,
    builder::named,
    state::{Order, Report, Wanted},
    task,
};
use crate::{
    Invalid,
    error::Cause,
    invalid::Check,
    registry::{Encoding, Instance},
};

/// An instance that is announced as long as this lives.
///
/// Dropping it withdraws it as well, in the background and within a second; if the registry cannot be told in that time, or
/// the runtime has ended, the entry goes with its lease or session.
pub struct Announcement {
    shown: String,
    encoding: Encoding,
    order: watch::Sender<Order>,
    states: watch::Receiver<State>,
    task: JoinHandle<Result<(), Cause>>,
}

impl Announcement {
    pub(super) fn start(announce: Announce, runtime: &Handle) -> Self {
        let shown = announce.shown();
        let encoding = announce.encoding;
        let known = Arc::new(announce.instance.clone());
        let (order, ordered) = watch::channel(Order::Stand(known.clone()));
        let (states, seen) = watch::channel(State::Pending);
        let report = Report { what: shown.clone(), states };
        let wanted = Wanted { order: ordered, known, fitness: None };
        let task = runtime.spawn(task::run(announce, wanted, report));
        Self { shown, encoding, order, states: seen, task }
    }

    /// What it is at.
    pub fn state(&self) -> State {
        self.states.borrow().clone()
    }

    /// Waits until what it is at is as `want` says, now or later. If it ends before, the last state is returned.
    pub async fn until(&self, want: impl FnMut(&State) -> bool) -> State {
        let mut states = self.states.clone();
        match states.wait_for(want).await {
            Ok(state) => state.clone(),
            Err(_) => self.state(),
        }
    }

    /// Announces it as `instance` from now on: with another weight or other metadata, and the same address and name. The entry is
    /// replaced, and not gone meanwhile.
    ///
    /// # Errors
    /// [`Invalid`] with all that cannot be announced.
    pub fn update(&self, instance: Instance) -> Result<(), Invalid> {
        let instance = named(instance, self.encoding);
        let Order::Stand(known) = self.order.borrow().clone() else { return Ok(()) };
        Check::of(|check| {
            check.part("announce", |check| {
                check.part("instance", |check| {
                    instance.check(check, self.encoding);
                    let rule = "another instance is another announcement";
                    check.rule(instance.address == known.address, "address", &instance.address, rule);
                    check.rule(instance.id() == known.id(), "name", instance.id(), rule);
                });
            });
        })?;
        self.order.send_replace(Order::Stand(Arc::new(instance)));
        Ok(())
    }

    /// Takes it out of the registry, and waits until that is done: from then on no look-up finds it. Who has found it before
    /// still sends requests for a moment, so finish those that come before you end.
    ///
    /// # Errors
    /// [`NotWithdrawn`] if the registry does not say within 5 s that it is done. The entry goes with its lease or session.
    pub async fn withdraw(self) -> Result<(), NotWithdrawn> {
        self.order.send_replace(Order::Withdraw);
        match self.task.await {
            Ok(withdrawn) => withdrawn.map_err(|cause| NotWithdrawn { what: self.shown, cause: Some(cause) }),
            // Its runtime has ended.
            Err(_) => Err(NotWithdrawn { what: self.shown, cause: None }),
        }
    }
}

impl fmt::Debug for Announcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Announcement({}: {})", self.shown, self.state())
    }
}

/// An entry that may stand until its lease or session ends.
#[derive(Debug)]
pub struct NotWithdrawn {
    what: String,
    cause: Option<Cause>,
}

impl fmt::Display for NotWithdrawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: not withdrawn, it goes with its lease or session", self.what)?;
        match &self.cause {
            Some(cause) => write!(f, ": {cause}"),
            None => f.write_str(": its runtime has ended"),
        }
    }
}

impl std::error::Error for NotWithdrawn {}
