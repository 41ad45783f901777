//! A list that never changes.

use std::task::{Context, Poll};

use super::{Resolution, Resolve};
use crate::Endpoint;

/// Resolves to `endpoints`, for ever.
pub fn fixed<E: Into<Endpoint>>(endpoints: impl IntoIterator<Item = E>) -> Fixed {
    let endpoints: Vec<Endpoint> = endpoints.into_iter().map(Into::into).collect();
    Fixed { count: endpoints.len(), resolution: Some(Resolution::bound(endpoints)) }
}

/// The resolver made by [`fixed`].
#[derive(Debug)]
pub struct Fixed {
    count: usize,
    resolution: Option<Resolution>,
}

impl Resolve for Fixed {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Resolution>> {
        Poll::Ready(self.resolution.take())
    }

    fn describe(&self) -> String {
        format!("a fixed list of {}", self.count)
    }
}
