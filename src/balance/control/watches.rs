//! Listening to endpoints that say of themselves whether they serve, from when they are connected until they are not.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use futures::{
    Stream, StreamExt as _,
    stream::{self, AbortHandle, SelectAll},
};

use super::{Control, checks::Checking};
use crate::{
    balance::check::Checker,
    clock,
    health::{Checks, ServingStatus},
    telemetry::Event,
};

/// What an endpoint has said over one of its connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said {
    id: u64,
    incarnation: u32,
    status: ServingStatus,
}

type Heard = Pin<Box<dyn Stream<Item = Said> + Send>>;

/// All that is listened to.
#[derive(Default)]
pub(super) struct Watches {
    heard: SelectAll<Heard>,
    /// Those to begin with, and since when.
    to_begin: Vec<(u64, Instant)>,
}

impl Watches {
    /// Listens to an endpoint that is connected.
    pub(super) fn begin(&mut self, id: u64, now: Instant) {
        self.to_begin.push((id, now));
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.to_begin.first().map(|(_, since)| *since)
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Said> {
        match Pin::new(&mut self.heard).poll_next(cx) {
            Poll::Ready(Some(said)) => Poll::Ready(said),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

/// What is known of an endpoint that is listened to. Dropped, it is not listened to any more.
#[derive(Debug)]
pub(super) struct Watch {
    incarnation: u32,
    pub(super) said: ServingStatus,
    /// Its word, as a run of checks.
    checks: Checks,
    listening: AbortHandle,
}

impl Watch {
    pub(super) fn checks(&self) -> &Checks {
        &self.checks
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl<S> Checking<S> {
    /// Does not listen any more to an endpoint that is not connected.
    pub(super) fn unwatch(&mut self, id: u64) {
        if self.checker.as_ref().is_some_and(Checker::asks) {
            // Its checks are forgotten when the next is due.
            self.own.entry(id).and_modify(|own| own.watch = None);
        } else {
            self.own.remove(&id);
        }
    }
}

impl<S: Send + Sync + 'static> Control<S> {
    /// Listens to those that have just been connected.
    pub(super) fn begin_watches(&mut self) {
        for (id, _) in std::mem::take(&mut self.checking.watches.to_begin) {
            let slot = self.slots.get(&id).filter(|slot| slot.gone.is_none());
            let Some((slot, service)) = slot.and_then(|slot| Some((slot, slot.service.as_ref()?))) else {
                continue;
            };
            let checking = &mut self.checking;
            let telling =
                checking.checker.as_ref().and_then(|it| it.watch(service.clone(), slot.endpoint.clone()));
            let (Some(telling), Some(own)) = (telling, checking.own.get_mut(&id)) else { continue };
            let incarnation = slot.incarnation;
            let (heard, listening) =
                stream::abortable(telling.map(move |status| Said { id, incarnation, status }));
            checking.watches.heard.push(Box::pin(heard));
            let (said, checks) = (ServingStatus::NotKnown, Checks::new());
            own.watch = Some(Watch { incarnation, said, checks, listening });
        }
    }

    /// Takes the word of an endpoint.
    pub(super) fn told(&mut self, said: Said) {
        let Said { id, incarnation, status } = said;
        let (now, options) = (clock::now(), self.fleet.options.load_full());
        let checks = &options.health.checks;
        let (Some(slot), Some(own)) = (self.slots.get(&id), self.checking.own.get_mut(&id)) else { return };
        let Some(watch) = own.watch.as_mut().filter(|watch| watch.incarnation == incarnation) else { return };
        let before = std::mem::replace(&mut watch.said, status);
        let counted = slot.member.health.counted();
        let found = match status {
            ServingStatus::NotKnown => {
                watch.checks = Checks::new();
                None
            }
            // To say it once more is no news.
            ServingStatus::NotServing if before == status => watch.checks.note(false, counted, checks),
            ServingStatus::NotServing => Some(watch.checks.told(false, counted, checks)),
            ServingStatus::Serving | ServingStatus::Unimplemented => {
                Some(watch.checks.told(true, counted, checks))
            }
        };
        if status == ServingStatus::Unimplemented && before != status {
            self.fleet.tell(&Event::Unwatched { endpoint: slot.member.name.clone() });
        }
        let found = found.filter(|found| !own.is_contradicted(*found, true, checks));
        self.find(id, found, now);
        self.repeat_later(id, now);
    }

    /// While an endpoint says that it does not serve, that stands as a check that fails each time.
    pub(super) fn repeat_word(&mut self, id: u64, now: Instant) {
        let options = self.fleet.options.load_full();
        let (Some(slot), Some(own)) = (self.slots.get(&id), self.checking.own.get_mut(&id)) else { return };
        let Some(watch) = own.watch.as_mut().filter(|watch| watch.said == ServingStatus::NotServing) else {
            return;
        };
        let found = watch.checks.note(false, slot.member.health.counted(), &options.health.checks);
        self.find(id, found, now);
        self.repeat_later(id, now);
    }

    /// Sees to it that the word is repeated, unless a check that is under way does.
    fn repeat_later(&mut self, id: u64, now: Instant) {
        let (Some(slot), Some(own)) = (self.slots.get(&id), self.checking.own.get(&id)) else { return };
        let Some(watch) = &own.watch else { return };
        if watch.said == ServingStatus::NotServing && !own.running && !own.is_due() {
            let (options, is_ejected) = (self.fleet.options.load(), slot.member.health.is_ejected());
            let at = watch.checks.next(now, is_ejected, &options.health.checks, &*self.fleet.random);
            self.checking.look(id, at);
        }
    }
}
