//! What the layers may know of a request of reqwest.

use ::reqwest::Request;

use crate::{
    describe::{Describe, Sending},
    http::{self, DescriptionOptions, is_idempotent_by},
    invalid::Invalid,
};

/// Describes `reqwest::Request`s.
///
/// Idempotent are GET, HEAD, OPTIONS, TRACE, PUT and DELETE, and what carries an `Idempotency-Key`. Requests whose body is
/// a stream cannot be copied.
#[derive(Clone, Debug, Default)]
pub struct Description(http::Description);

impl Description {
    /// A description that writes onto requests what `options` say.
    ///
    /// # Errors
    /// [`Invalid`] as [`DescriptionOptions::check`] says.
    pub fn new(options: DescriptionOptions) -> Result<Self, Invalid> {
        http::Description::new(options).map(Self)
    }
}

impl Describe<Request> for Description {
    fn copy(&self, request: &mut Request) -> Option<Request> {
        request.try_clone()
    }

    fn is_idempotent(&self, request: &Request) -> bool {
        is_idempotent_by(request.method(), request.headers())
    }

    fn hash_key(&self, request: &Request) -> Option<u64> {
        self.0.key_by(request.headers(), request.url().path(), request.url().query())
    }

    fn endpoint<'a>(&self, request: &'a Request) -> Option<&'a str> {
        self.0.endpoint_by(request.headers())
    }

    fn stamp(&self, request: &mut Request, sending: &Sending) {
        self.0.stamp_headers(request.headers_mut(), None, sending);
    }
}
