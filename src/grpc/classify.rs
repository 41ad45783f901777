//! The verdict at the head, and at the end.

use ::http::{HeaderMap, Response, StatusCode};
use http_body::Body;
use tower::BoxError;

use super::{load_report::LoadReport, status::judge};
use crate::{
    http::{self, Tracked, of_error},
    outcome::{Classify, Verdict},
    report::Report,
    track::{Guard, Track},
};

/// Judges the answers of gRPC servers by their `grpc-status`.
///
/// | answer | verdict |
/// |---|---|
/// | an error | [`http::of_error`](of_error) |
/// | UNAVAILABLE, INTERNAL, UNKNOWN, DATA_LOSS, a status that is no code | failure |
/// | DEADLINE_EXCEEDED | failure; nothing, if the caller's own deadline is over |
/// | RESOURCE_EXHAUSTED; any of the above with `grpc-retry-pushback-ms` | back-off, for the time asked |
/// | any other status | success: the caller's fault is not the endpoint's |
/// | a head without a status | a success so far; the trailers decide, if [`BodyTrack`] looks at them |
/// | 429, and 503 with `Retry-After`, without a status | back-off |
/// | 401, 403, 404 without a status | success, as the codes that they stand for |
/// | any other HTTP status than 200 without a status | failure |
///
/// A pushback that is negative or malformed stops retries. A status with
/// [`UNPROCESSED`](crate::http::UNPROCESSED) beside it was refused by a server that did not begin with the call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Classifier;

impl<B> Classify<Response<B>> for Classifier {
    fn classify(&self, result: Result<&Response<B>, &BoxError>) -> Verdict {
        let response = match result {
            Ok(response) => response,
            Err(error) => return of_error(error),
        };
        if let Some(verdict) = judge(response.headers()) {
            return verdict;
        }
        match response.status() {
            StatusCode::OK => Verdict::success().provisional(),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Verdict::success(),
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                http::Classifier.classify(Ok(response))
            }
            _ => Verdict::failure(),
        }
    }

    fn report(&self, response: &Response<B>) -> Option<Report> {
        LoadReport::read(response.headers()).map(|report| report.summary())
    }
}

/// Lasts an attempt to the end of the response body, judges it by the `grpc-status` in the trailers, and reads
/// [`LoadReport`]s there.
///
/// A body that ends without a status is a failure, as one that breaks off; one that is dropped before its end says
/// nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct BodyTrack;

impl<B> Track<Response<Tracked<B>>> for BodyTrack
where
    B: Body + 'static,
{
    fn track(&self, response: &mut Response<Tracked<B>>, guard: Guard) {
        response.body_mut().hold(guard, at_end);
    }
}

fn at_end(trailers: Option<&HeaderMap>, guard: &Guard) -> Verdict {
    if let Some(trailers) = trailers.filter(|_| guard.wants_report())
        && let Some(report) = LoadReport::read(trailers)
    {
        guard.report(report.summary());
    }
    let head = guard.head();
    // What the headers said stands: there is one status to a call.
    if !head.is_provisional() {
        return head;
    }
    trailers.and_then(judge).unwrap_or(Verdict::failure())
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use std::{
        convert::Infallible,
        sync::{Arc, Mutex},
    };

    use ::http::HeaderValue;
    use bytes::Bytes;
    use http_body::Frame;
    use http_body_util::{BodyExt as _, Full, StreamBody};

    use super::*;
    use crate::{
        grpc::{LOAD_METRICS_BIN, STATUS},
        outcome::{Again, Class},
        track::Ends,
    };

    fn head(status: u16, grpc: Option<u8>) -> Verdict {
        let mut builder = Response::builder().status(status);
        if let Some(code) = grpc {
            builder = builder.header(STATUS, u16::from(code));
        }
        Classifier.classify(Ok(&builder.body(()).unwrap()))
    }

    #[test]
    fn a_status_in_the_headers_is_the_last_word_and_a_head_without_one_proves_nothing() {
        assert_eq!(head(200, Some(14)), Verdict::failure());
        assert_eq!(head(200, Some(0)), Verdict::success());
        assert_eq!(head(200, None), Verdict::success().provisional());
        assert_eq!(head(503, Some(5)), Verdict::success(), "the status counts, not what a proxy makes of it");
    }

    #[test]
    fn without_a_status_http_has_the_word() {
        for (status, class) in [
            (400, Class::Failure),
            (401, Class::Success),
            (403, Class::Success),
            (404, Class::Success),
            (429, Class::BackOff),
            (302, Class::Failure),
            (500, Class::Failure),
            (502, Class::Failure),
            (503, Class::Failure),
            (204, Class::Failure),
        ] {
            assert_eq!(head(status, None).class(), class, "{status}");
        }
        assert_eq!(head(501, None).may_repeat(), Again::Never);
    }

    #[derive(Default)]
    struct Ended(Mutex<Vec<Option<Verdict>>>);

    impl Ends for Ended {
        fn ended(self: Arc<Self>, _: Verdict, end: Option<Verdict>) {
            self.0.lock().unwrap().push(end);
        }
    }

    /// Goes by reports.
    #[derive(Default)]
    struct Listens(Mutex<Vec<Report>>);

    impl Ends for Listens {
        fn ended(self: Arc<Self>, _: Verdict, _: Option<Verdict>) {}

        fn wants_report(&self) -> bool {
            true
        }

        fn reported(&self, report: Report) {
            self.0.lock().unwrap().push(report);
        }
    }

    #[tokio::test]
    async fn a_report_in_the_trailers_is_handed_to_each_that_goes_by_it() {
        let mut report = LoadReport::default();
        report.named.insert("in_flight".to_owned(), 9.0);
        let trailers = HeaderMap::from_iter([
            (STATUS, HeaderValue::from_static("0")),
            (LOAD_METRICS_BIN, report.to_binary()),
        ]);
        let frames = [Ok::<_, Infallible>(Frame::<Bytes>::trailers(trailers))];
        let (outer, inner) = (Arc::new(Listens::default()), Arc::new(Listens::default()));
        let mut response = Response::new(Tracked::new(StreamBody::new(futures::stream::iter(frames))));
        BodyTrack.track(&mut response, Guard::new(inner.clone(), SO_FAR));
        BodyTrack.track(&mut response, Guard::new(outer.clone(), SO_FAR));
        response.into_body().collect().await.unwrap();
        for one in [outer, inner] {
            assert_eq!(*one.0.lock().unwrap(), [Report::default().in_flight(9)]);
        }
    }

    fn tracked<B: Body + 'static>(body: B, head: Verdict) -> (Tracked<B>, Arc<Ended>) {
        let ended = Arc::new(Ended::default());
        let mut response = Response::new(Tracked::new(body));
        BodyTrack.track(&mut response, Guard::new(ended.clone(), head));
        (response.into_body(), ended)
    }

    fn stream(status: Option<&'static str>) -> impl Body<Data = Bytes, Error = Infallible> + Unpin {
        let data = Ok(Frame::data(Bytes::from_static(b"message")));
        let trailers = status.map(|status| {
            Ok(Frame::trailers(HeaderMap::from_iter([(STATUS, HeaderValue::from_static(status))])))
        });
        StreamBody::new(futures::stream::iter([data].into_iter().chain(trailers)))
    }

    const SO_FAR: Verdict = Verdict::success().provisional();

    #[tokio::test]
    async fn the_status_in_the_trailers_decides() {
        for (status, expected) in [
            (Some("0"), Verdict::success()),
            (Some("14"), Verdict::failure()),
            (Some("8"), Verdict::back_off(None)),
            (Some("5"), Verdict::success()),
            (None, Verdict::failure()),
        ] {
            let (body, ended) = tracked(stream(status), SO_FAR);
            body.collect().await.unwrap();
            assert_eq!(*ended.0.lock().unwrap(), [Some(expected)], "{status:?}");
        }
    }

    #[tokio::test]
    async fn a_body_of_known_length_without_a_status_is_a_failure() {
        let (mut body, ended) = tracked(Full::<Bytes>::from("message"), SO_FAR);
        body.frame().await.unwrap().unwrap();
        assert_eq!(*ended.0.lock().unwrap(), [Some(Verdict::failure())]);
    }

    #[test]
    fn a_stream_that_is_dropped_early_says_nothing() {
        let (body, ended) = tracked(stream(Some("0")), SO_FAR);
        drop(body);
        assert_eq!(*ended.0.lock().unwrap(), [Some(Verdict::inconclusive())]);
    }

    #[test]
    fn a_call_that_ends_with_its_headers_ends_with_their_verdict() {
        let (_body, ended) = tracked(Full::<Bytes>::default(), Verdict::failure());
        assert_eq!(*ended.0.lock().unwrap(), [None]);
    }
}
