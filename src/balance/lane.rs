//! What an attempt needs of its balancer.

use std::sync::Arc;

use tower::Service;

use super::roster::Roster;
use crate::{describe::Describe, outcome::Classify, track::Track};

/// What an attempt needs while it lasts. There is one for each stripe of threads, so that attempts on different threads
/// do not write the same reference count.
pub(crate) struct Lane<S, Req>
where
    S: Service<Req>,
{
    pub(super) roster: Arc<Roster<S>>,
    pub(super) describe: Arc<dyn Describe<Req>>,
    pub(super) classify: Arc<dyn Classify<S::Response>>,
    pub(super) track: Option<Arc<dyn Track<S::Response>>>,
}
