//! A list that never changes.

use std::task::{Context, Poll};

use super::{Resolution, Resolve};
use crate::{
    Endpoint,
    invalid::{Check, Invalid},
};

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

    fn validate(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        if let Some(Resolution::Failed(cause)) = &self.resolution {
            check.rule(false, "endpoints", self.count, cause.to_string());
        }
        check.finish()
    }

    fn describe(&self) -> String {
        format!("a fixed list of {}", self.count)
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_weight_that_cannot_be_balanced_by_is_told_before_anything_is_built() {
        let invalid = fixed([Endpoint::new("a:1").with_weight(-1.0)]).validate().unwrap_err();
        assert_eq!(
            invalid.to_string(),
            "invalid options: endpoints = 1: endpoint a:1: weight = -1: a positive finite number"
        );
        assert!(fixed(["a:1"]).validate().is_ok());
    }
}
