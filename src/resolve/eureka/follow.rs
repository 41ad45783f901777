//! The whole registry once, then what changed of it.

use std::time::{Duration, Instant};

use super::{
    parse::applications,
    registry::Registry,
    resolver::{EurekaOptions, Wanted},
};
use crate::{
    clock,
    random::{Entropy, Random as _, unit},
    resolve::{
        Resolution, Teller,
        web::{Access, Base, Credential, Link, Rest, Trouble, WebError, escape},
    },
};

/// For how long a copy can be brought up to date by what changed. Servers tell the changes of three minutes, and from caches
/// that are half a minute old; what is older was missed, and the hash, which only counts, need not say so.
const CHANGES: Duration = Duration::from_secs(120);

/// Tells for ever.
pub(super) async fn follow(
    bases: Vec<Base>,
    access: Access,
    wanted: Wanted,
    options: EurekaOptions,
    tell: Teller,
) {
    let links = bases.into_iter().map(|base| Link::new(base, access.clone(), Credential::Bearer)).collect();
    let mut copy = Copy { links, at: 0, registry: None, fetched: None, told: 0, doubts: false };
    let mut rest = Rest::default();
    loop {
        match copy.refresh(&wanted, &options).await {
            Ok(Some(resolution)) => tell.tell(resolution),
            // Not believed yet.
            Ok(None) => {}
            Err(trouble) => {
                tell.failed(trouble);
                rest.after_failure(&options.poll.backoff).await;
                continue;
            }
        }
        rest.reset();
        pause(&options, &tell).await;
    }
}

/// Rests until the next look, which somebody may ask for early, but not before the floor.
async fn pause(options: &EurekaOptions, tell: &Teller) {
    let poll = &options.poll;
    let spread = poll.jitter.get() * (2.0 * unit(Entropy.next()) - 1.0);
    let (interval, now) = (poll.interval.mul_f64(1.0 + spread), clock::now());
    if tokio::time::timeout(interval, tell.refreshed()).await.is_ok() {
        let floor = poll.floor.min(interval);
        tokio::time::sleep_until((now + floor).into()).await;
    }
}

struct Copy {
    links: Vec<Link>,
    /// The server that answered last.
    at: usize,
    registry: Option<Registry>,
    /// When it was asked for what the copy holds.
    fetched: Option<Instant>,
    /// How many endpoints were told last.
    told: usize,
    /// More than half of them were missing last time.
    doubts: bool,
}

impl Copy {
    /// What there is now, by the first server that answers; `None` if it is not believed yet.
    async fn refresh(
        &mut self,
        wanted: &Wanted,
        options: &EurekaOptions,
    ) -> Result<Option<Resolution>, Trouble> {
        let (count, now) = (self.links.len(), clock::now());
        if self.fetched.is_none_or(|fetched| now.saturating_duration_since(fetched) > CHANGES) {
            self.registry = None;
        }
        let mut trouble = Trouble::new("eureka", WebError::document("it has no server"));
        for turn in 0..count {
            let at = (self.at + turn) % count;
            match fetch(&mut self.links[at], &mut self.registry, wanted, options).await {
                Ok(()) => {
                    self.at = at;
                    self.fetched = Some(now);
                    return Ok(self.believed(wanted, options));
                }
                Err(error) => {
                    trouble = Trouble::new(format_args!("eureka at {}", self.links[at].base()), error)
                }
            }
        }
        Err(trouble)
    }

    /// A server that has just begun, or has lost its peers, knows of fewer than there are: one that lost more than half at
    /// once is asked again, in full, and so is another one, if there is.
    fn believed(&mut self, wanted: &Wanted, options: &EurekaOptions) -> Option<Resolution> {
        let endpoints = self.registry.as_ref()?.endpoints(wanted, options);
        let now = endpoints.as_ref().map_or(0, Vec::len);
        if now * 2 < self.told && !self.doubts {
            self.doubts = true;
            self.registry = None;
            self.at = (self.at + 1) % self.links.len();
            return None;
        }
        self.doubts = false;
        self.told = now;
        Some(endpoints.map_or(Resolution::Absent, Resolution::bound))
    }
}

/// Brings `registry` up to date, by what changed if that is enough.
async fn fetch(
    link: &mut Link,
    registry: &mut Option<Registry>,
    wanted: &Wanted,
    options: &EurekaOptions,
) -> Result<(), WebError> {
    let limit = options.poll.timeout;
    if let Some(known) = registry {
        let reply = link.get(&path("/apps/delta", options), &[], limit).await?;
        // A server that tells no changes says that they are forbidden, or not there.
        if !matches!(reply.status.as_u16(), 403 | 404) {
            let delta = applications(&reply.success(limit).await?)?;
            if known.apply(delta, wanted) {
                return Ok(());
            }
            // Something was missed, which a later hash may not tell any more.
            *registry = None;
        }
    }
    let reply = link.get(&path("/apps", options), &[], limit).await?;
    let all = applications(&reply.success(limit).await?)?;
    *registry = Some(Registry::of(all, wanted));
    Ok(())
}

fn path(path: &str, options: &EurekaOptions) -> String {
    match &options.regions[..] {
        [] => path.to_owned(),
        regions => format!("{path}?regions={}", escape(&regions.join(","))),
    }
}
