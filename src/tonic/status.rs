//! Our errors in gRPC's words.

use std::{error::Error as StdError, io, sync::Arc};

use ::tonic::{Code, Status, metadata::MetadataKey};
use tower::BoxError;

use super::transport::find;
use crate::{Error, Reason};

/// What a generated client is told. A status stays what it is; an error of ours gets its code, and is kept in the chain;
/// any other is tonic's to translate, which leaves open what a connection that breaks is.
pub(super) fn status(error: BoxError) -> Status {
    let (code, pushback) = match Error::find(&*error) {
        Some(ours) => (code(ours.reason()), ours.retry_after()),
        None => return foreign(error),
    };
    let mut status = Status::new(code, error.to_string());
    if let Some(after) = pushback {
        let millis = u32::try_from(after.as_millis()).unwrap_or(u32::MAX);
        let key = MetadataKey::from_static("grpc-retry-pushback-ms");
        status.metadata_mut().insert(key, millis.into());
    }
    status.set_source(Arc::from(error));
    status
}

fn foreign(error: BoxError) -> Status {
    let is_broken = is_broken(&*error);
    let status = Status::from_error(error);
    if status.code() != Code::Unknown || !is_broken {
        return status;
    }
    // gRPC's word for a connection that breaks while a call is on its way.
    let mut unavailable = Status::unavailable(status.message());
    unavailable.set_source(Arc::new(status));
    unavailable
}

/// Whether it was the connection that failed, and not what was said on it.
fn is_broken(error: &(dyn StdError + 'static)) -> bool {
    find::<io::Error>(error).is_some()
        || find::<h2::Error>(error).is_some_and(h2::Error::is_io)
        || find::<hyper::Error>(error).is_some_and(|it| it.is_closed() || it.is_incomplete_message())
}

fn code(reason: Reason) -> Code {
    match reason {
        Reason::Deadline => Code::DeadlineExceeded,
        Reason::Limit
        | Reason::QueueFull
        | Reason::RateLimit
        | Reason::Throttled
        | Reason::NotReady
        | Reason::BackingOff => Code::ResourceExhausted,
        // The caller has time left: another call may well be answered.
        Reason::AttemptTimeout
        | Reason::Stalled
        | Reason::Unresolved
        | Reason::Absent
        | Reason::NoEndpoint
        | Reason::Connect
        | Reason::Breaker => Code::Unavailable,
        Reason::Closed => Code::Cancelled,
        Reason::NoRuntime => Code::Internal,
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn ours_gets_its_code_and_is_found_in_the_status_with_its_advice() {
        let ours = Error::new(Reason::RateLimit).with_retry_after(Duration::from_millis(250));
        let status = status(ours.into());
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.metadata().get(crate::grpc::PUSHBACK.as_str()).unwrap(), "250");
        assert_eq!(Error::find(&status).map(Error::reason), Some(Reason::RateLimit));
    }

    #[test]
    fn a_status_stays_what_it_is_and_what_is_foreign_is_unknown() {
        let not_found = status(Status::not_found("nobody").into());
        assert_eq!((not_found.code(), not_found.message()), (Code::NotFound, "nobody"));
        assert_eq!(status("broken".into()).code(), Code::Unknown);
        let broken = status(io::Error::from(io::ErrorKind::BrokenPipe).into());
        assert_eq!((broken.code(), broken.message()), (Code::Unavailable, "broken pipe"));
    }
}
