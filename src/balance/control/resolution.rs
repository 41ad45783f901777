//! What a resolution means for the endpoints: who comes, who stays, who goes.

use std::{sync::Arc, time::Duration};

use super::{BATCH, Control, Slot, arm};
use crate::{
    Endpoint,
    balance::member::Member,
    clock,
    endpoint::Reported,
    resolve::{Effective, Endpoints},
    telemetry::Event,
};

impl<S: Send + Sync + 'static> Control<S> {
    /// Makes what requests go by true: adds, changes and removes endpoints.
    pub(super) async fn apply(&mut self) {
        self.resolutions += 1;
        self.dirty = true;
        // Both stand until all is done: a runtime may end in the middle.
        let resolved = self.unapplied;
        let set = match self.steady.effective() {
            Effective::Bound(set) => set.clone(),
            Effective::Pending | Effective::Absent => Endpoints::from(Vec::new()),
        };
        // An endpoint works up to its share only where others have theirs.
        let ramps = set.iter().any(|endpoint| {
            let slot = self.known.get(endpoint.identity()).and_then(|id| self.slots.get(id));
            slot.is_some_and(|slot| slot.gone.is_none())
        });
        let all_unhealthy = set
            .iter()
            .all(|endpoint| matches!(endpoint.reported(), Reported::Unhealthy | Reported::Draining));
        let chosen = self.choose(&set).await;
        let used = chosen.as_ref().map_or(set.len(), Vec::len);
        let mut added = 0;
        for index in 0..used {
            let (endpoint, part) = match &chosen {
                None => (&set[index], 1.0),
                Some(chosen) => (&set[chosen[index].0], chosen[index].1),
            };
            if index % BATCH == BATCH - 1 {
                tokio::task::yield_now().await;
            }
            added += usize::from(self.admit(endpoint, part, ramps, all_unhealthy));
        }
        let lost: Vec<u64> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.gone.is_none() && slot.seen != self.resolutions)
            .map(|(id, _)| *id)
            .collect();
        let now = clock::now();
        let keep = self.fleet.options.load().keep_removed;
        for (index, id) in lost.iter().enumerate() {
            if index % BATCH == BATCH - 1 {
                tokio::task::yield_now().await;
            }
            if let Some(slot) = self.slots.get_mut(id) {
                slot.gone = Some(now);
                slot.service = None;
                slot.incarnation += 1;
                slot.redial = None;
                slot.dialing = false;
                // What failed then says nothing of the first connection after its return.
                slot.cause = None;
                slot.stands = None;
                self.fleet.ledger.leave(&slot.member.health);
                self.fleet.operations.all().iter().for_each(|own| own.present(*id, false));
                slot.member.health.connect(false, &self.fleet.ledger);
                self.checking.unwatch(*id);
                arm(&mut self.timers, slot, now + keep);
            }
        }
        let changed = added > 0 || !lost.is_empty();
        if chosen.is_some() && changed {
            self.fleet.tell(&Event::Subset { used, of: set.len() });
        }
        if resolved && changed {
            self.fleet.tell(&Event::Resolved { endpoints: set.len(), added, removed: lost.len() });
        }
        if set.len() == 1 && added + lost.len() > 0 {
            self.fleet.tell(&Event::SingleEndpoint);
        }
        (self.unapplied, self.unchosen) = (false, false);
    }

    /// Takes an endpoint of the resolution in; true if it was not there before.
    fn admit(&mut self, endpoint: &Arc<Endpoint>, part: f32, ramps: bool, all_unhealthy: bool) -> bool {
        let held = match endpoint.reported() {
            Reported::Draining => true,
            Reported::Unhealthy => !all_unhealthy,
            Reported::Unknown | Reported::Healthy => false,
        };
        let known = self.known.get(endpoint.identity()).and_then(|id| self.slots.get_mut(id));
        let (id, added) = match known {
            Some(slot) => {
                slot.seen = self.resolutions;
                slot.part = part;
                if !Arc::ptr_eq(&slot.endpoint, endpoint) {
                    slot.endpoint = endpoint.clone();
                    slot.member.set_endpoint(endpoint.clone());
                }
                let back = slot.gone.take().is_some();
                if back {
                    slot.ramps = ramps;
                    self.fleet.ledger.join(&slot.member.health);
                    self.fleet.operations.all().iter().for_each(|own| own.present(slot.member.id, true));
                    self.queue.push_back(slot.member.id);
                }
                (slot.member.id, back)
            }
            None => {
                self.last_id += 1;
                let id = self.last_id;
                let member = Arc::new(Member::new(id, endpoint.clone(), self.fleet.clone()));
                member.health.connect(false, &self.fleet.ledger);
                self.fleet.ledger.join(&member.health);
                if let Some(shared) = &self.fleet.shared {
                    shared.join(&member);
                }
                let slot = Slot {
                    member,
                    endpoint: endpoint.clone(),
                    service: None,
                    incarnation: 0,
                    dialing: false,
                    redial: None,
                    began: None,
                    failures: 0,
                    waited: Duration::ZERO,
                    stands: None,
                    cause: None,
                    armed: None,
                    gone: None,
                    ramps,
                    part,
                    measured: (0, 0),
                    seen: self.resolutions,
                };
                self.slots.insert(id, slot);
                self.known.insert(endpoint.identity().clone(), id);
                self.queue.push_back(id);
                (id, true)
            }
        };
        if let Some(slot) = self.slots.get(&id)
            && let Some(moved) = slot.member.health.hold(held, clock::now(), &self.fleet.ledger)
        {
            self.fleet.announce(&slot.member, moved);
        }
        added
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use tower::{BoxError, Service, service_fn};

    use super::*;
    use crate::{
        Describe,
        balance::{Balance, BalanceOptions, Distribution},
        health::OperationOptions,
        resolve,
    };

    struct Named;

    impl<Req> Describe<Req> for Named {
        fn operation<'a>(&self, _: &'a Req) -> Option<&'a str> {
            Some("get")
        }
    }

    /// A client of two endpoints, where every request fails after so long.
    fn failing(
        after: Duration,
        channel: resolve::Channel,
    ) -> Balance<impl Service<(), Response = (), Error = BoxError, Future: Send> + Clone + Send + Sync, ()>
    {
        let mut options = BalanceOptions { attempt_limit: None, ..BalanceOptions::default() };
        options.health.per_operation = Some(OperationOptions::default());
        Balance::builder(channel)
            .connect(move |_: &Endpoint| {
                service_fn(move |()| async move {
                    tokio::time::sleep(after).await;
                    Err::<(), BoxError>("failed".into())
                })
            })
            .describe(Named)
            .options(options)
            .build()
            .unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_operations_know_of_an_endpoint_that_is_removed_is_kept_as_long_as_its_state() {
        let (feed, channel) = resolve::channel();
        feed.set(["a:1", "b:1"]);
        let client = failing(Duration::ZERO, channel);
        for _ in 0..20 {
            assert!(client.send(()).await.is_err());
        }
        let operation = client.fleet().operations.get(1).unwrap();
        let known = || [1, 2].map(|id| operation.state(id).is_some());
        feed.set(["b:1"]);
        tokio::time::sleep(Duration::from_secs(59)).await;
        assert_eq!(known(), [true, true]);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(known(), [false, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_at_an_endpoint_that_is_forgotten_already_is_known_to_no_operation() {
        let (feed, channel) = resolve::channel();
        feed.set(["a:1", "b:1"]);
        let client = failing(Duration::from_secs(100), channel);
        let calls: Vec<_> = (0..8).map(|_| tokio::spawn(client.send(()))).collect();
        tokio::time::sleep(Duration::from_secs(1)).await;
        feed.set(["b:1"]);
        for call in calls {
            assert!(call.await.unwrap().is_err());
        }
        let operation = client.fleet().operations.get(1).unwrap();
        assert_eq!([1, 2].map(|id| operation.state(id).is_some()), [false, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_operations_keep_of_endpoints_that_are_well_again_goes_within_two_minutes() {
        // In turn, so that each endpoint sees as many.
        let mut options =
            BalanceOptions { distribution: Distribution::RoundRobin, ..BalanceOptions::default() };
        options.health.per_operation = Some(OperationOptions::default());
        let client = Balance::builder(resolve::fixed(["a:1", "b:1", "c:1"]))
            .connect(|_: &Endpoint| {
                service_fn(|fails: bool| async move {
                    if fails { Err::<(), BoxError>("failed".into()) } else { Ok(()) }
                })
            })
            .describe(Named)
            .options(options)
            .build()
            .unwrap();
        for _ in 0..6 {
            assert!(client.send(true).await.is_err());
            client.send(false).await.unwrap();
        }
        let operation = client.fleet().operations.get(1).unwrap();
        assert!(operation.has_failed());
        for _ in 0..120 {
            for _ in 0..3 {
                client.send(false).await.unwrap();
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!(!operation.has_failed());
    }
}
