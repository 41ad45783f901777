//! Each endpoint looked at, changed, or left out.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use super::{Resolution, Resolve};
use crate::{Endpoint, Invalid};

type Change = Box<dyn FnMut(&Arc<Endpoint>) -> Option<Arc<Endpoint>> + Send>;

/// The endpoints of another resolver, looked at one by one: what [`ResolveExt::filter`](super::ResolveExt::filter) and
/// [`ResolveExt::map`](super::ResolveExt::map) make.
pub struct Each<R> {
    resolver: R,
    what: &'static str,
    change: Change,
}

impl<R: Resolve> Each<R> {
    pub(super) fn filter(resolver: R, mut keep: impl FnMut(&Endpoint) -> bool + Send + 'static) -> Self {
        let change = move |endpoint: &Arc<Endpoint>| keep(endpoint).then(|| endpoint.clone());
        Self { resolver, what: "some of", change: Box::new(change) }
    }

    pub(super) fn map(resolver: R, mut change: impl FnMut(Endpoint) -> Endpoint + Send + 'static) -> Self {
        let change = move |endpoint: &Arc<Endpoint>| {
            let changed = change(Endpoint::clone(endpoint));
            Some(if changed == **endpoint { endpoint.clone() } else { Arc::new(changed) })
        };
        Self { resolver, what: "changed", change: Box::new(change) }
    }
}

impl<R: Resolve> Resolve for Each<R> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Resolution>> {
        self.resolver.poll_next(cx).map(|told| {
            told.map(|resolution| match resolution {
                // Put together anew: a change may give two endpoints the same address, or one a weight that is none.
                Resolution::Bound(set) => Resolution::shared(set.iter().filter_map(&mut self.change)),
                other => other,
            })
        })
    }

    fn refresh(&mut self) {
        self.resolver.refresh();
    }

    fn describe(&self) -> String {
        format!("{} {}", self.what, self.resolver.describe())
    }

    fn validate(&self) -> Result<(), Invalid> {
        self.resolver.validate()
    }
}

impl<R: Resolve> fmt::Debug for Each<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Each({})", self.describe())
    }
}
