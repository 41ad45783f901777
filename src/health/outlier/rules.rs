//! Which rules there are to choose from.

use std::time::Duration;

use super::{Envoy, Grpc, Robust};
use crate::invalid::Check;

/// By which rules endpoints are compared with each other.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Outliers {
    /// By median and chance: the default.
    Robust(Robust),
    /// Exactly as gRPC does (gRFC A50), with its defaults unless set otherwise.
    Grpc(Grpc),
    /// Exactly as Envoy does, with its defaults unless set otherwise.
    Envoy(Envoy),
}

impl Default for Outliers {
    fn default() -> Self {
        Self::Robust(Robust::default())
    }
}

impl Outliers {
    /// How often endpoints are compared.
    pub fn interval(&self) -> Duration {
        match self {
            Self::Robust(robust) => robust.interval,
            Self::Grpc(grpc) => grpc.interval,
            Self::Envoy(envoy) => envoy.interval,
        }
    }

    /// Fewer endpoints than this are never compared: nobody needs to look.
    pub(crate) fn least(&self) -> usize {
        let least =
            |counts: [Option<u32>; 2]| counts.into_iter().flatten().min().unwrap_or(u32::MAX) as usize;
        match self {
            Self::Robust(robust) => robust.endpoints as usize,
            Self::Grpc(grpc) => least([
                grpc.success_rate.as_ref().map(|rule| rule.minimum_hosts),
                grpc.failure_percentage.as_ref().map(|rule| rule.minimum_hosts),
            ]),
            Self::Envoy(envoy) => {
                least([Some(envoy.success_rate_minimum_hosts), Some(envoy.failure_percentage_minimum_hosts)])
            }
        }
    }

    /// How long an interval may be stretched until enough is known; not at all under the rules of others.
    pub(crate) fn longest(&self) -> Duration {
        match self {
            Self::Robust(robust) => robust.longest,
            Self::Grpc(_) | Self::Envoy(_) => self.interval(),
        }
    }

    pub(crate) fn check(&self, check: &mut Check) {
        match self {
            Self::Robust(robust) => robust.check(check),
            Self::Grpc(grpc) => grpc.check(check),
            Self::Envoy(envoy) => envoy.check(check),
        }
    }
}
