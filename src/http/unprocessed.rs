//! The word of a server that it has not begun with a request.

use ::http::{HeaderMap, HeaderName};

/// The header by which a server says that it turned a request away before it began with it, so that another may have it
/// even if it must not be processed twice. Servers behind mainstay's `server` layer write it; what its value is does not
/// matter.
pub const UNPROCESSED: HeaderName = HeaderName::from_static("x-unprocessed");

/// Finagle's servers say the same by this one.
const NACK: HeaderName = HeaderName::from_static("finagle-http-nack");

/// Whether the server says so. Only asked of answers that are no success.
pub(crate) fn is_unprocessed(headers: &HeaderMap) -> bool {
    headers.contains_key(UNPROCESSED) || headers.contains_key(NACK)
}
