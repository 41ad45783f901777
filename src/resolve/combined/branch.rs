//! One resolver among several.

use std::{
    fmt::Write as _,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use crate::{
    Endpoint,
    alarm::Alarm,
    clock,
    resolve::{Effective, Endpoints, Resolve, Steady},
};

/// One resolver, and what requests would go by if it were alone.
#[derive(Debug)]
pub struct Branch {
    resolver: Box<dyn Resolve>,
    ended: bool,
    steady: Steady,
    alarm: Alarm,
    /// The share of the requests that the whole branch gets beside others.
    pub(super) weight: Option<f64>,
    /// Its endpoints as they were merged last, and what they were made from.
    merged: Option<(Endpoints, Change, Endpoints)>,
}

/// What a merge changes of each endpoint of a branch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Change {
    /// Its weight is multiplied by this.
    pub(super) factor: f64,
    /// Its priority comes this much later.
    pub(super) behind: u32,
}

impl Change {
    pub(super) const NONE: Self = Self { factor: 1.0, behind: 0 };
}

impl Branch {
    pub(super) fn new(resolver: Box<dyn Resolve>, weight: Option<f64>, grace: Duration) -> Self {
        Self {
            resolver,
            ended: false,
            steady: Steady::new(grace),
            alarm: Alarm::default(),
            weight,
            merged: None,
        }
    }

    pub(super) fn set_grace(&mut self, grace: Duration) {
        self.steady.set_grace(grace);
    }

    pub(super) fn resolver(&self) -> &dyn Resolve {
        &*self.resolver
    }

    pub(super) fn refresh(&mut self) {
        if !self.ended {
            self.resolver.refresh();
        }
    }

    /// Hears one word of the resolver, or what time has brought, and says whether there was any.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.ended {
            match self.resolver.poll_next(cx) {
                Poll::Ready(Some(resolution)) => {
                    self.steady.take(clock::now(), resolution);
                    return true;
                }
                Poll::Ready(None) => {
                    self.ended = true;
                    return true;
                }
                Poll::Pending => {}
            }
        }
        self.alarm.poll(cx, self.steady.next()) && self.steady.due(clock::now())
    }

    /// Whether it will say nothing more.
    pub(super) fn is_over(&self) -> bool {
        self.ended && self.steady.next().is_none()
    }

    /// Whether it has yet to say anything at all.
    pub(super) fn is_silent(&self) -> bool {
        !self.ended
            && matches!(self.steady.effective(), Effective::Pending)
            && self.steady.failure().is_none()
    }

    pub(super) fn effective(&self) -> &Effective {
        self.steady.effective()
    }

    /// Its endpoints, if there are any.
    pub(super) fn set(&self) -> Option<&Endpoints> {
        match self.steady.effective() {
            Effective::Bound(set) if !set.is_empty() => Some(set),
            _ => None,
        }
    }

    /// Its endpoints with `change`. What is told twice is the same memory twice, which spares the balancer work.
    pub(super) fn changed(&mut self, change: Change) -> Endpoints {
        let Some(set) = self.set().cloned() else { return Endpoints::from([]) };
        if change == Change::NONE {
            return set;
        }
        if let Some((from, by, merged)) = &self.merged
            && Arc::ptr_eq(from, &set)
            && *by == change
        {
            return merged.clone();
        }
        let one = |endpoint: &Arc<Endpoint>| {
            let plain = Endpoint::clone(endpoint);
            let (weight, priority) = (plain.weight(), plain.priority());
            Arc::new(
                plain
                    .with_weight(weight * change.factor)
                    .with_priority(priority.saturating_add(change.behind)),
            )
        };
        let merged: Endpoints = set.iter().map(one).collect();
        self.merged = Some((set, change, merged.clone()));
        merged
    }

    /// Writes its trouble to `said`, if it is in any.
    pub(super) fn trouble(&self, said: &mut String) {
        if let Some(cause) = self.steady.failure() {
            let between = if said.is_empty() { "" } else { "; " };
            let _ = write!(said, "{between}{}: {cause}", self.resolver.describe());
            let mut source = cause.source();
            while let Some(error) = source {
                let _ = write!(said, ": {error}");
                source = error.source();
            }
        }
    }
}
