//! Which part of a large fleet a client uses.

use super::aperture::ApertureOptions;
use crate::{
    hash::{mix, xxh64},
    invalid::Check,
};

/// Which of the endpoints behind a name a client uses. It connects to those alone, and keeps state for no others.
///
/// A thousand clients of a thousand servers make a million connections, most of them idle; with a subset of twenty they make
/// twenty thousand. Each [priority](crate::Endpoint::with_priority), and each zone of it where
/// [zones are told apart](super::BalanceOptions::localities), has a subset of its own.
///
/// | | connections to a server | when one server comes or goes |
/// |---|---|---|
/// | `Rendezvous` | by chance: with *c* clients, *d* of *n* servers each, they scatter by sqrt(n / (c d)) of the mean | at most one entry of a client changes |
/// | `Deterministic` | the same for all | entries at the edges of most clients change |
/// | `Aperture` | as `Rendezvous`, and as many as the load needs | as `Rendezvous` |
///
/// Smaller subsets than about a dozen may be without an available endpoint when some are down.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Subset {
    /// All of them.
    #[default]
    All,
    /// So many, chosen by the hash of their names with a seed of the client's.
    Rendezvous(RendezvousOptions),
    /// A slice of the servers for each of a known number of clients.
    Deterministic(DeterministicOptions),
    /// As many as the load that the client offers needs, in the order of `Rendezvous`.
    Aperture(ApertureOptions),
}

impl Subset {
    /// `size` endpoints by rendezvous hashing, with a seed from chance.
    pub fn rendezvous(size: u32) -> Self {
        Self::Rendezvous(RendezvousOptions { size, seed: None })
    }

    /// About `size` endpoints for client `index` of `clients`, counted from 0.
    pub fn deterministic(index: u32, clients: u32, size: u32) -> Self {
        Self::Deterministic(DeterministicOptions { index, clients, size })
    }

    /// As many endpoints as the load needs, with defaults.
    pub fn aperture() -> Self {
        Self::Aperture(ApertureOptions::default())
    }

    pub(super) fn check(&self, check: &mut Check) {
        match self {
            Self::All => {}
            Self::Rendezvous(options) => {
                check.rule(options.size >= 1, "size", options.size, "at least 1");
            }
            Self::Deterministic(options) => {
                check
                    .rule(options.size >= 1, "size", options.size, "at least 1")
                    .rule(options.clients >= 1, "clients", options.clients, "at least 1")
                    .rule(
                        options.index < options.clients.max(1),
                        "index",
                        options.index,
                        "less than clients",
                    );
            }
            Self::Aperture(options) => options.check(check),
        }
    }
}

/// Rendezvous hashing.
///
/// Source: gRFC A68, random subsetting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RendezvousOptions {
    /// How many endpoints.
    pub size: u32,
    /// What tells this client from others; with the same seed the same endpoints are chosen after a restart \[by chance\].
    pub seed: Option<u64>,
}

impl RendezvousOptions {
    /// Chooses by this seed: the hash of a host's name, say.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }
}

/// Slices of a ring of servers.
///
/// The servers lie on a ring in an order that all clients know, each as long as its weight says; the clients stand at equal
/// distances around it, and each has what lies between it and the next one, or the next few, until it has `size`. The server
/// at an edge belongs to two clients, and gets from each as much as lies in its slice. So all servers get the same, exactly,
/// if all clients send the same and know the same servers.
///
/// Source: Finagle's deterministic aperture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeterministicOptions {
    /// Which client this is, counted from 0.
    pub index: u32,
    /// How many clients there are.
    pub clients: u32,
    /// How many endpoints, at least; it is rounded up so that the slices of all clients go round the ring a whole number of
    /// times.
    pub size: u32,
}

/// The endpoints in the order in which a client with this seed prefers them, the first so many of them, by their places.
pub(super) fn rendezvous<'a>(names: impl Iterator<Item = &'a str>, size: usize, seed: u64) -> Vec<usize> {
    let mut ranked: Vec<(u64, &str, usize)> =
        names.enumerate().map(|(place, name)| (xxh64(name.as_bytes(), seed), name, place)).collect();
    if size < ranked.len() {
        ranked.select_nth_unstable(size);
        ranked.truncate(size);
    }
    ranked.sort_unstable();
    ranked.into_iter().map(|(_, _, place)| place).collect()
}

/// What lies in the slice of a client: places, and how much of each, from 0 to 1.
pub(super) fn deterministic(endpoints: &[(&str, f64)], options: DeterministicOptions) -> Vec<(usize, f64)> {
    let count = endpoints.len();
    let size = (options.size as usize).min(count);
    if count == 0 || options.clients == 0 {
        return Vec::new();
    }
    // In an order of its own, so that neighbours by name (a rack, a batch of a deployment) are not neighbours here.
    let mut ring: Vec<usize> = (0..count).collect();
    ring.sort_by_cached_key(|place| (mix(xxh64(endpoints[*place].0.as_bytes(), 0)), endpoints[*place].0));
    let total: f64 = endpoints.iter().map(|(_, weight)| *weight).sum();
    // In units of what lies between two clients, so that edges which meet are the same number.
    let clients = f64::from(options.clients);
    let width = (size as f64 * clients / count as f64 - 1e-9).ceil().clamp(1.0, clients);
    let (from, to) =
        (f64::from(options.index % options.clients), f64::from(options.index % options.clients) + width);
    let overlap = |from: f64, to: f64, start: f64, end: f64| (end.min(to) - start.max(from)).max(0.0);
    let mut chosen = Vec::new();
    let mut sum = 0.0;
    for place in ring {
        let start = sum / total * clients;
        sum += endpoints[place].1;
        let end = sum / total * clients;
        // The slice may go over the end of the ring, and on from its beginning.
        let inside = overlap(from, to, start, end) + overlap(from, to, start + clients, end + clients);
        let part = inside / (end - start);
        if part > 1e-6 {
            chosen.push((place, part.min(1.0)));
        }
    }
    chosen
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("10.0.{}.{}:80", number / 256, number % 256)).collect()
    }

    fn set<'a>(names: &'a [&str], size: usize, seed: u64) -> BTreeSet<&'a str> {
        rendezvous(names.iter().copied(), size, seed).into_iter().map(|place| names[place]).collect()
    }

    proptest! {
        #[test]
        fn one_server_more_or_less_alters_at_most_one_entry(
            count in 2_usize..200, size in 1_usize..40, gone in any::<prop::sample::Index>(), seed in any::<u64>(),
        ) {
            let (names, gone) = (names(count), gone.index(count));
            let all: Vec<&str> = names.iter().map(String::as_str).collect();
            let mut fewer = all.clone();
            fewer.remove(gone);
            let (before, after) = (set(&all, size, seed), set(&fewer, size, seed));
            prop_assert_eq!(before.len(), size.min(count));
            let kept = before.intersection(&after).count();
            prop_assert!(kept + 1 >= before.len().max(after.len()), "{kept} of {} and {}", before.len(), after.len());
            prop_assert!(before.contains(all[gone]) || before == after);
        }

        #[test]
        fn deterministic_slices_load_every_server_alike(
            servers in 1_usize..120, clients in 1_u32..60, size in 1_u32..40,
        ) {
            let names = names(servers);
            let endpoints: Vec<(&str, f64)> = names.iter().map(|name| (name.as_str(), 1.0)).collect();
            let mut load = vec![0.0; servers];
            for index in 0..clients {
                let slice = deterministic(&endpoints, DeterministicOptions { index, clients, size });
                let all: f64 = slice.iter().map(|(_, part)| part).sum();
                prop_assert!(all > f64::from(size.min(servers as u32)) - 1e-6, "{all} of {size}");
                for (place, part) in slice {
                    load[place] += part / all;
                }
            }
            let mean = f64::from(clients) / servers as f64;
            for load in &load {
                prop_assert!((load / mean - 1.0).abs() < 1e-6, "{load} for {mean}");
            }
        }

        #[test]
        fn deterministic_slices_load_servers_by_their_weight(
            weights in prop::collection::vec(0.2_f64..5.0, 1..40), clients in 1_u32..30, size in 1_u32..20,
        ) {
            let names = names(weights.len());
            let endpoints: Vec<(&str, f64)> =
                names.iter().map(String::as_str).zip(weights.iter().copied()).collect();
            let mut load = vec![0.0; weights.len()];
            for index in 0..clients {
                let slice = deterministic(&endpoints, DeterministicOptions { index, clients, size });
                let all: f64 = slice.iter().map(|(place, part)| part * weights[*place]).sum();
                slice.iter().for_each(|(place, part)| load[*place] += part * weights[*place] / all);
            }
            let total: f64 = weights.iter().sum();
            for (load, weight) in load.iter().zip(&weights) {
                let owed = weight / total * f64::from(clients);
                // Each client sends one; the slice of each is of the same length.
                prop_assert!((load / owed - 1.0).abs() < 1e-6, "{load} for {owed}");
            }
        }
    }

    #[test]
    fn slices_are_those_of_finagles_examples() {
        let of = |servers: usize, clients, index| {
            let names = names(servers);
            let endpoints: Vec<(&str, f64)> = names.iter().map(|name| (name.as_str(), 1.0)).collect();
            let slice = deterministic(&endpoints, DeterministicOptions { index, clients, size: 12 });
            (slice.len(), slice.iter().map(|(_, part)| part).sum::<f64>())
        };
        // 4 clients of 18 servers: three quarters of the ring, which begin in the middle of a server.
        let (servers, length) = of(18, 4, 1);
        assert!(servers == 14 && (length - 13.5).abs() < 1e-6, "{servers}, {length}");
        // 12 clients of 24 servers: twelve, whole ones.
        assert_eq!(of(24, 12, 0).0, 12);
    }

    #[test]
    fn clients_by_chance_scatter_over_servers_as_a_binomial_does() {
        // The coefficient of variation is = sqrt((1 - d / n) * n / (c * d)).
        let names = names(500);
        let all: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut counts = vec![0.0_f64; 500];
        for client in 0..200 {
            rendezvous(all.iter().copied(), 20, mix(client)).iter().for_each(|place| counts[*place] += 1.0);
        }
        let mean = counts.iter().sum::<f64>() / 500.0;
        let cv = (counts.iter().map(|count| (count - mean).powi(2)).sum::<f64>() / 500.0).sqrt() / mean;
        let owed = ((1.0 - 20.0 / 500.0) * 500.0 / (200.0 * 20.0_f64)).sqrt();
        assert!((cv / owed - 1.0).abs() < 0.15, "{cv} for {owed}");
    }
}
