//! Which of the endpoints of the resolution are used.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{BATCH, Control};
use crate::{
    Endpoint,
    balance::{
        aperture::Aperture,
        options::BalanceOptions,
        subset::{self, Subset},
    },
    endpoint::Locality,
    sync::Ordering::Relaxed,
};

/// How often the width of an aperture is looked at, and how often while nothing is in flight.
const LOOK: Duration = Duration::from_millis(250);
const IDLE: Duration = Duration::from_secs(1);

/// What the choice of endpoints goes by.
#[derive(Debug, Default)]
pub(super) struct Subsets {
    /// Drawn when it is needed first, and kept.
    seed: Option<u64>,
    aperture: Option<Aperture>,
    /// When the aperture is looked at next.
    look: Option<Instant>,
    /// The options that were gone by last.
    applied: (Subset, Option<Locality>),
    /// How many were chosen, and how many of them were not available.
    used: Option<usize>,
    away: usize,
}

impl Subsets {
    pub(super) fn next(&self) -> Option<Instant> {
        self.look
    }

    /// How many endpoints are used, if not all.
    pub(super) fn used(&self) -> Option<usize> {
        self.used
    }

    /// Whether other options would choose others.
    pub(super) fn are_outdated(&self, options: &BalanceOptions) -> bool {
        let (subset, own) = &self.applied;
        *subset != options.subset || (*subset != Subset::All && *own != options.localities.own)
    }
}

impl<S: Send + Sync + 'static> Control<S> {
    /// The places in `set` of the endpoints that are used, and how much of each; `None` for all of them.
    pub(super) async fn choose(&mut self, set: &[Arc<Endpoint>]) -> Option<Vec<(usize, f32)>> {
        let options = self.fleet.options.load_full();
        self.subsets.applied = (options.subset, options.localities.own.clone());
        if !matches!(options.subset, Subset::Aperture(_)) {
            (self.subsets.aperture, self.subsets.look) = (None, None);
        }
        if options.subset == Subset::All {
            self.subsets.used = None;
            return None;
        }
        let mut groups: BTreeMap<_, Vec<(usize, String)>> = BTreeMap::new();
        for (place, endpoint) in set.iter().enumerate() {
            if place % BATCH == BATCH - 1 {
                tokio::task::yield_now().await;
            }
            let locality = endpoint.locality();
            let zone = options.localities.own.is_some().then_some((&*locality.region, &*locality.zone));
            let group = groups.entry((endpoint.priority(), zone)).or_default();
            group.push((place, endpoint.identity().to_string()));
        }
        let random = &self.fleet.random;
        let seed = |given: Option<u64>, own: &mut Option<u64>| {
            given.unwrap_or_else(|| *own.get_or_insert_with(|| random.next()))
        };
        let mut chosen: Vec<(usize, f32)> = Vec::new();
        match options.subset {
            Subset::All => {}
            Subset::Rendezvous(wanted) => {
                let seed = seed(wanted.seed, &mut self.subsets.seed);
                for group in groups.values() {
                    let names = group.iter().map(|(_, name)| name.as_str());
                    let ranked = subset::rendezvous(names, wanted.size as usize, seed);
                    chosen.extend(ranked.into_iter().map(|index| (group[index].0, 1.0)));
                    tokio::task::yield_now().await;
                }
            }
            Subset::Deterministic(wanted) => {
                for group in groups.values() {
                    let named: Vec<(&str, f64)> = group
                        .iter()
                        .map(|(place, name)| (name.as_str(), set[*place].weight() / 1e6))
                        .collect();
                    let slice = subset::deterministic(&named, wanted);
                    chosen.extend(slice.into_iter().map(|(index, part)| (group[index].0, part as f32)));
                    tokio::task::yield_now().await;
                }
            }
            Subset::Aperture(wanted) => {
                let seed = seed(wanted.seed, &mut self.subsets.seed);
                let aperture = self.subsets.aperture.get_or_insert_with(|| Aperture::new(&wanted));
                self.subsets.look.get_or_insert_with(|| crate::clock::now() + LOOK);
                let width = aperture.width() as usize;
                for group in groups.values() {
                    let names = group.iter().map(|(_, name)| name.as_str());
                    let ranked = subset::rendezvous(names, group.len(), seed);
                    // One that is not available is made up for by the next.
                    let mut left = width;
                    for index in ranked {
                        if left == 0 {
                            break;
                        }
                        let place = group[index].0;
                        left -= usize::from(!self.is_away(&set[place]));
                        chosen.push((place, 1.0));
                    }
                    tokio::task::yield_now().await;
                }
            }
        }
        self.subsets.used = Some(chosen.len());
        self.subsets.away = self.away();
        Some(chosen)
    }

    /// Whether an endpoint is used and found not to be available.
    fn is_away(&self, endpoint: &Endpoint) -> bool {
        let slot = self.known.get(endpoint.identity()).and_then(|id| self.slots.get(id));
        slot.is_some_and(|slot| slot.gone.is_none() && is_away(slot))
    }

    /// How many of those that are used are not available.
    fn away(&self) -> usize {
        self.slots.values().filter(|slot| slot.gone.is_none() && is_away(slot)).count()
    }

    /// Looks whether the load of this client needs more endpoints, or fewer.
    pub(super) fn look_at_width(&mut self, now: Instant) {
        if self.subsets.look.is_none_or(|at| at > now) {
            return;
        }
        let Subset::Aperture(options) = self.fleet.options.load().subset else { return };
        let used = || self.slots.values().filter(|slot| slot.gone.is_none());
        let in_flight: u32 = used().map(|slot| slot.member.in_flight.load(Relaxed)).sum();
        let away = self.away();
        let Some(aperture) = &mut self.subsets.aperture else { return };
        let before = aperture.width();
        aperture.look(now, in_flight, &options);
        self.subsets.look = Some(now + if aperture.is_idle() { IDLE } else { LOOK });
        self.unchosen |= aperture.width() != before || away != self.subsets.away;
    }
}

/// Whether it was tried and cannot be used now. What is being connected for the first time is not away.
fn is_away<S>(slot: &super::Slot<S>) -> bool {
    if slot.service.is_some() { !slot.member.health.is_available() } else { slot.cause.is_some() }
}
