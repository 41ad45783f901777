//! What may be done to every resolver.

use super::{Each, Resolve, Shared, Stable, StableOptions};
use crate::Endpoint;

/// Changes what a resolver tells, or how.
///
/// ```
/// use mainstay::resolve::{self, ResolveExt as _, StableOptions};
///
/// let users = resolve::fixed(["10.0.0.1:80", "10.0.0.2:80"])
///     .filter(|endpoint| endpoint.metadata().get("version").is_none_or(|version| version == "v2"))
///     .map(|endpoint| endpoint.with_locality("eu", "a", ""))
///     .stable(StableOptions::default())
///     .shared();
/// let for_another_client = users.clone();
/// # let _ = for_another_client;
/// ```
pub trait ResolveExt: Resolve + Sized {
    /// Only the endpoints that `keep` keeps. If it keeps none that is an empty set, which takes effect after the grace
    /// period of the client.
    fn filter(self, keep: impl FnMut(&Endpoint) -> bool + Send + 'static) -> Each<Self> {
        Each::filter(self, keep)
    }

    /// Each endpoint as `change` makes it. Of endpoints that it gives the same identity the first one counts.
    fn map(self, change: impl FnMut(Endpoint) -> Endpoint + Send + 'static) -> Each<Self> {
        Each::map(self, change)
    }

    /// Removes endpoints only after a delay, and does not believe at once that most of them are gone.
    fn stable(self, options: StableOptions) -> Stable<Self> {
        Stable::new(self, options)
    }

    /// Keeps the last good set in the file at `path`, and starts from it while the registry is down. Two clients of one
    /// name may share the path; two names may not.
    #[cfg(feature = "file")]
    fn saved(self, path: impl Into<std::path::PathBuf>, options: super::SavedOptions) -> super::Saved<Self> {
        super::Saved::new(self, path.into(), options)
    }

    /// One resolution for many clients, each of which gets a clone.
    fn shared(self) -> Shared {
        Shared::new(self)
    }
}

impl<R: Resolve> ResolveExt for R {}
