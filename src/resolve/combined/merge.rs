//! The rules by which several resolvers are one.

use std::{collections::HashSet, sync::Arc};

use super::branch::{Branch, Change};
use crate::{Endpoint, resolve::Endpoints};

/// A rule. It is sealed: the three are [`First`], [`Failover`] and [`Union`].
pub trait Merge: sealed::Sealed + Send + 'static {
    #[doc(hidden)]
    const NAME: &'static str;

    /// The endpoints of all, or nothing if none has any.
    #[doc(hidden)]
    fn merge(&self, branches: &mut [Branch]) -> Option<Endpoints>;

    /// Whether what a silent one will say may come before what the others have said.
    #[doc(hidden)]
    fn waits(&self, branches: &[Branch]) -> bool;
}

mod sealed {
    pub trait Sealed {}
}

/// The first that has endpoints: [`first`](super::first).
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct First;

/// Each behind those before it: [`failover`](super::failover).
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Failover;

/// All of them: [`union`](super::union).
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Union;

impl sealed::Sealed for First {}
impl sealed::Sealed for Failover {}
impl sealed::Sealed for Union {}

impl Merge for First {
    const NAME: &'static str = "first";

    fn merge(&self, branches: &mut [Branch]) -> Option<Endpoints> {
        branches.iter().find_map(|branch| branch.set().cloned())
    }

    fn waits(&self, branches: &[Branch]) -> bool {
        is_silence_before_a_set(branches)
    }
}

impl Merge for Failover {
    const NAME: &'static str = "failover";

    fn merge(&self, branches: &mut [Branch]) -> Option<Endpoints> {
        let mut behind: u32 = 0;
        join(branches, |branch| {
            let set = branch.changed(Change { factor: 1.0, behind });
            let last = set.iter().map(|endpoint| endpoint.priority()).max();
            behind = last.map_or(behind, |last| last.saturating_add(1));
            set
        })
    }

    fn waits(&self, branches: &[Branch]) -> bool {
        is_silence_before_a_set(branches)
    }
}

impl Merge for Union {
    const NAME: &'static str = "union";

    fn merge(&self, branches: &mut [Branch]) -> Option<Endpoints> {
        join(branches, |branch| {
            let whole: f64 =
                branch.set().map_or(1.0, |set| set.iter().map(|endpoint| endpoint.weight()).sum());
            let factor = branch.weight.map_or(1.0, |weight| weight / whole);
            branch.changed(Change { factor, behind: 0 })
        })
    }

    fn waits(&self, branches: &[Branch]) -> bool {
        branches.iter().any(Branch::is_silent)
    }
}

fn is_silence_before_a_set(branches: &[Branch]) -> bool {
    branches.iter().take_while(|branch| branch.set().is_none()).any(Branch::is_silent)
}

/// All that `each` gives, an endpoint of several branches once, as the first of them has it. It is the same by its address
/// alone: what one registry calls an instance another one calls otherwise.
fn join(branches: &mut [Branch], mut each: impl FnMut(&mut Branch) -> Endpoints) -> Option<Endpoints> {
    let bound = branches.iter().filter(|branch| branch.set().is_some()).count();
    let mut sets = branches.iter_mut().map(&mut each).filter(|set| !set.is_empty());
    match bound {
        0 => None,
        1 => sets.next(),
        _ => {
            let all: Vec<Endpoints> = sets.collect();
            let mut seen = HashSet::new();
            let mut merged: Vec<Arc<Endpoint>> = Vec::new();
            for set in &all {
                merged.extend(set.iter().filter(|endpoint| !seen.contains(endpoint.address())).cloned());
                seen.extend(set.iter().map(|endpoint| endpoint.address()));
            }
            Some(merged.into())
        }
    }
}
