//! How DNS is asked.

use std::{net::SocketAddr, time::Duration};

use crate::{
    Ratio,
    backoff::Backoff,
    invalid::Check,
    resolve::{PollOptions, system::is_host},
};

/// How DNS is asked, and how often.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DnsOptions {
    /// The servers to ask, each over UDP, and over TCP where an answer is too long, or none comes \[those of the system\].
    pub servers: Vec<SocketAddr>,
    /// Domains that are tried behind a name with few dots \[those of the system; none where servers are given\].
    pub search: Option<Vec<String>>,
    /// How many dots make a name that is tried as it is first \[what the system says; 1 where servers are given\].
    pub ndots: Option<usize>,
    /// Which addresses are looked up \[both families\].
    pub families: Families,
    /// Whether only TCP is used \[false\].
    pub tcp: bool,
    /// How long one server may take to answer once \[2 s\].
    pub timeout: Duration,
    /// How often a question is asked before the look-up has failed \[2\].
    pub attempts: usize,
    /// The shortest time that an answer is taken to hold, and between two early look-ups \[5 s\].
    pub floor: Duration,
    /// The longest \[5 min\].
    pub cap: Duration,
    /// How far the next look-up may be earlier or later than the answer says \[10 %, at most 50 %\].
    pub jitter: Ratio,
    /// How long to rest after a failure \[1 s, doubling to 30 s, equal jitter\].
    pub backoff: Backoff,
}

/// Families of addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Families {
    /// A and AAAA records. Where an answer has both, those of a family that this host has no route for are left out.
    #[default]
    Both,
    /// A records.
    V4,
    /// AAAA records.
    V6,
}

impl DnsOptions {
    /// Sets [`servers`](Self::servers).
    #[must_use]
    pub fn servers(mut self, servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.servers = servers.into_iter().collect();
        self
    }

    /// Sets [`search`](Self::search).
    #[must_use]
    pub fn search<D: Into<String>>(mut self, domains: impl IntoIterator<Item = D>) -> Self {
        self.search = Some(domains.into_iter().map(Into::into).collect());
        self
    }

    /// Sets [`ndots`](Self::ndots).
    #[must_use]
    pub fn ndots(mut self, ndots: usize) -> Self {
        self.ndots = Some(ndots);
        self
    }

    /// Sets [`families`](Self::families).
    #[must_use]
    pub fn families(mut self, families: Families) -> Self {
        self.families = families;
        self
    }

    /// Sets [`tcp`](Self::tcp).
    #[must_use]
    pub fn tcp(mut self, tcp: bool) -> Self {
        self.tcp = tcp;
        self
    }

    /// Sets [`timeout`](Self::timeout).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets [`attempts`](Self::attempts).
    #[must_use]
    pub fn attempts(mut self, attempts: usize) -> Self {
        self.attempts = attempts;
        self
    }

    /// Sets [`floor`](Self::floor).
    #[must_use]
    pub fn floor(mut self, floor: Duration) -> Self {
        self.floor = floor;
        self
    }

    /// Sets [`cap`](Self::cap).
    #[must_use]
    pub fn cap(mut self, cap: Duration) -> Self {
        self.cap = cap;
        self
    }

    /// Sets [`jitter`](Self::jitter).
    #[must_use]
    pub fn jitter(mut self, jitter: Ratio) -> Self {
        self.jitter = jitter;
        self
    }

    /// Sets [`backoff`](Self::backoff).
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// When to ask again, as far as no answer says.
    pub(super) fn pace(&self) -> PollOptions {
        // All tries of the addresses, after all those of an SRV record.
        let tries = u32::try_from(self.attempts.max(1)).unwrap_or(u32::MAX).saturating_add(1);
        PollOptions {
            interval: Duration::from_secs(30).clamp(self.floor, self.cap.max(self.floor)),
            jitter: self.jitter,
            floor: self.floor,
            timeout: self.timeout.saturating_mul(tries).saturating_mul(2).min(crate::invalid::FOREVER),
            backoff: self.backoff,
        }
    }

    /// For how long an answer is taken to hold.
    pub(super) fn holds(&self, ttl: Duration) -> Duration {
        ttl.clamp(self.floor, self.cap.max(self.floor))
    }

    pub(super) fn check(&self, check: &mut Check) {
        check
            .duration("timeout", self.timeout)
            .duration("floor", self.floor)
            .duration("cap", self.cap)
            .rule(self.floor <= self.cap, "floor", self.floor, format!("at most cap ({:?})", self.cap))
            .rule((1..=10).contains(&self.attempts), "attempts", self.attempts, "1 to 10")
            .rule(self.ndots.is_none_or(|ndots| ndots <= 15), "ndots", self.ndots, "at most 15");
        for server in &self.servers {
            check.rule(server.port() != 0, "servers", server, "a port from 1 to 65535");
        }
        for domain in self.search.iter().flatten() {
            check.rule(is_host(domain), "search", domain, "a domain, such as internal");
        }
        self.pace().check(check);
    }
}

impl Default for DnsOptions {
    fn default() -> Self {
        let pace = PollOptions::default();
        Self {
            servers: Vec::new(),
            search: None,
            ndots: None,
            families: Families::default(),
            tcp: false,
            timeout: Duration::from_secs(2),
            attempts: 2,
            floor: pace.floor,
            cap: Duration::from_secs(300),
            jitter: pace.jitter,
            backoff: pace.backoff,
        }
    }
}
