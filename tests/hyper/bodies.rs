//! Bodies, both ways.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use mainstay::{Error, Reason, balance::BodyOptions};

use crate::server::*;

#[tokio::test]
async fn bodies_stream_both_ways_and_trailers_survive() {
    for protocol in PROTOCOLS {
        let fleet = fleet(protocol, 2).await;
        fleet.iter().for_each(|server| server.set(Mode::Echo));
        let users = client(&fleet).await;
        let (feed, chunks) = futures::channel::mpsc::unbounded::<Bytes>();
        let body =
            StreamBody::new(chunks.map(|chunk| Ok::<_, Infallible>(Frame::data(chunk)))).boxed_unsync();
        let mut echo = request("POST", body);
        echo.headers_mut().insert("te", "trailers".parse().unwrap());
        feed.unbounded_send(Bytes::from(vec![1; 100_000])).unwrap();
        let mut response = users.send(echo).await.unwrap().into_body();
        // The first part comes back before the last was sent: nothing waits for the whole.
        let mut received = 0;
        while received < 100_000 {
            received += response.frame().await.unwrap().unwrap().into_data().unwrap().len();
        }
        feed.unbounded_send(Bytes::from(vec![2; 400_000])).unwrap();
        drop(feed);
        let rest = response.collect().await.unwrap();
        assert_eq!(rest.trailers().unwrap()["x-sum"], "42", "{protocol:?}");
        assert_eq!(rest.to_bytes().len(), 400_000);
    }
}

#[tokio::test]
async fn a_short_body_is_replayed_and_a_long_one_is_sent_once() {
    for protocol in PROTOCOLS {
        for (length, sent) in [(10 * 1_024, 2), (100 * 1_024, 1)] {
            let fleet = fleet(protocol, 2).await;
            fleet.iter().for_each(|server| server.set(Mode::Status(503, None)));
            let users = client(&fleet).await.max_attempts(2);
            assert_eq!(status(&users, request("PUT", full(vec![7; length]))).await.unwrap(), 503);
            let seen: Vec<_> = fleet.iter().flat_map(Server::seen).collect();
            assert_eq!(seen.len(), sent, "{protocol:?} {length}");
            assert!(seen.iter().all(|seen| seen.body == length));
        }
    }
}

#[tokio::test]
async fn a_put_that_one_server_failed_is_answered_by_another() {
    for protocol in PROTOCOLS {
        let fleet = fleet(protocol, 2).await;
        fleet[0].set(Mode::Status(503, None));
        let users = client(&fleet).await;
        for _ in 0..20 {
            assert_eq!(status(&users, request("PUT", full(vec![7; 10 * 1_024]))).await.unwrap(), 200);
        }
        assert!(fleet[0].count() > 0);
        assert!(fleet.iter().flat_map(Server::seen).all(|seen| seen.body == 10 * 1_024));
    }
}

#[tokio::test]
async fn a_request_is_in_flight_until_the_end_of_its_body() {
    for protocol in PROTOCOLS {
        let fleet = fleet(protocol, 1).await;
        fleet[0].set(Mode::Endless);
        let users = client(&fleet).await;
        let mut response = users.send(get()).await.unwrap();
        assert_eq!(row(&users, &fleet[0]).in_flight, 1);
        response.body_mut().frame().await.unwrap().unwrap();
        assert_eq!(row(&users, &fleet[0]).in_flight, 1);
        drop(response);
        assert_eq!(row(&users, &fleet[0]).in_flight, 0);
        fleet[0].set(Mode::Ok);
        let response = users.send(get()).await.unwrap();
        response.into_body().collect().await.unwrap();
        assert_eq!(row(&users, &fleet[0]).in_flight, 0);
        assert_eq!(row(&users, &fleet[0]).failures, 0);
    }
}

#[tokio::test]
async fn a_body_that_stalls_or_outlasts_the_deadline_is_cut_off_where_that_is_asked() {
    for protocol in PROTOCOLS {
        let fleet = fleet(protocol, 1).await;
        fleet[0].set(Mode::Endless);
        let short = Duration::from_millis(100);
        let cut = [
            (BodyOptions::default().idle(short), None, Reason::Stalled, 1),
            (BodyOptions::default().within_deadline(true), Some(short), Reason::Deadline, 0),
        ];
        for (body, deadline, reason, failures) in cut {
            let users = builder(&fleet).body(body).build().unwrap();
            connected(&users, 1).await;
            let users = match deadline {
                Some(deadline) => users.deadline(deadline),
                None => users,
            };
            let mut response = users.send(get()).await.unwrap().into_body();
            assert!(response.frame().await.unwrap().is_ok());
            let error = response.frame().await.unwrap().unwrap_err();
            let error = Error::find(&*error).unwrap();
            assert_eq!((error.reason(), error.endpoint().is_some()), (reason, true), "{protocol:?}");
            let row = row(&users, &fleet[0]);
            assert_eq!((row.in_flight, row.failures), (0, failures), "{protocol:?} {reason:?}");
        }
    }
}
