//! What the caller says about one request, in the extensions of the request.

use std::{fmt, sync::Arc};

/// The caller's word on whether processing the request twice does no more than processing it once.
///
/// It overrides the method and the `Idempotency-Key` header, both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Idempotent(pub bool);

/// Requests with the same key go to the same endpoint under a hashing balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HashKey(pub u64);

/// The endpoint that a request wants, by its address or its registry's instance id; several are separated by commas.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Wanted(Arc<str>);

impl Wanted {
    /// As it was said.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Arc<str>> for Wanted {
    fn from(name: Arc<str>) -> Self {
        Self(name)
    }
}

impl From<&str> for Wanted {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

/// The operation that a request asks for: a route, a method. It becomes a label, so it comes from a small fixed set;
/// never put an id or a whole path into it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Operation(Name);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Name {
    Static(&'static str),
    Shared(Arc<str>),
}

impl Operation {
    /// The name of the operation.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Name::Static(name) => name,
            Name::Shared(name) => name,
        }
    }
}

impl From<&'static str> for Operation {
    fn from(name: &'static str) -> Self {
        Self(Name::Static(name))
    }
}

impl From<Arc<str>> for Operation {
    fn from(name: Arc<str>) -> Self {
        Self(Name::Shared(name))
    }
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Operation").field(&self.as_str()).finish()
    }
}
