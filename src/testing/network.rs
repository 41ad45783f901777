//! What lies between clients and servers.

use std::{collections::BTreeMap, time::Duration};

/// Delays and broken links. Clients stand in places; a link goes from a place to a server.
#[derive(Clone, Debug)]
pub(super) struct Network {
    pub(super) delay: Duration,
    links: BTreeMap<(u32, usize), Link>,
}

/// One link, where it differs from the others.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    more: Duration,
    cut: bool,
}

impl Network {
    pub(super) fn new(delay: Duration) -> Self {
        Self { delay, links: BTreeMap::new() }
    }

    pub(super) fn set_more(&mut self, place: u32, server: usize, more: Duration) {
        self.links.entry((place, server)).or_default().more = more;
    }

    pub(super) fn set_cut(&mut self, place: u32, server: usize, cut: bool) {
        self.links.entry((place, server)).or_default().cut = cut;
    }

    /// How long a message takes now, in either direction; `None` if it is lost.
    pub(super) fn passes(&self, place: u32, server: usize) -> Option<Duration> {
        // Almost no fleet has links of its own.
        let link = if self.links.is_empty() { None } else { self.links.get(&(place, server)) };
        match link {
            None => Some(self.delay),
            Some(link) if link.cut => None,
            Some(link) => Some(self.delay + link.more),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_link_is_as_all_are_unless_told_otherwise() {
        let mut network = Network::new(MS);
        network.set_more(1, 2, MS * 5);
        network.set_cut(1, 3, true);
        assert_eq!(network.passes(0, 2), Some(MS));
        assert_eq!(network.passes(1, 2), Some(MS * 6));
        assert_eq!(network.passes(1, 3), None);
        network.set_cut(1, 3, false);
        assert_eq!(network.passes(1, 3), Some(MS));
    }
}
