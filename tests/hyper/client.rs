//! Requests when all is well.

use crate::server::*;

#[tokio::test]
async fn requests_spread_over_the_servers_and_keep_their_host() {
    for protocol in PROTOCOLS {
        let fleet = fleet(protocol, 3).await;
        let users = client(&fleet).await;
        for _ in 0..60 {
            assert_eq!(status(&users, get()).await.unwrap(), 200);
        }
        for server in &fleet {
            assert!((5..40).contains(&server.count()), "{}", server.count());
            assert!(server.seen().iter().all(|seen| seen.host == "users.internal:8080"));
            assert!(server.seen().iter().all(|seen| seen.attempt.is_none()));
        }
        assert_eq!((users.status().successes, users.status().retries), (60, 0));
    }
}

#[tokio::test]
async fn it_is_a_tower_service_and_its_views_are_the_same_client() {
    use tower::ServiceExt as _;
    let fleet = fleet(PROTOCOLS[0], 2).await;
    let users = client(&fleet).await;
    let boxed = tower::util::BoxCloneSyncService::new(users.clone());
    assert!(boxed.oneshot(get()).await.is_ok());
    let view = users.method("GetUser").max_attempts(1);
    assert_eq!(status(&view, get()).await.unwrap(), 200);
    assert_eq!(users.status().successes, 2);
    assert!(users.explain().to_string().contains("users, over"));
}

#[tokio::test]
async fn every_mistake_of_client_connector_and_description_is_told_at_once() {
    use mainstay::{http::DescriptionOptions, hyper::ConnectorOptions};
    let invalid = mainstay::hyper::Client::builder("users")
        .connector(ConnectorOptions::default().connections_per_endpoint(0))
        .description(DescriptionOptions::default().attempt_header(http::header::HOST))
        .deadline(std::time::Duration::ZERO)
        .build()
        .unwrap_err();
    let fields: Vec<_> = invalid.problems().iter().map(|problem| problem.field.as_str()).collect();
    let expected =
        ["connector.connections_per_endpoint", "description.attempt_header", "resolve", "deadline"];
    assert_eq!(fields, expected, "{invalid}");
}

#[tokio::test]
async fn closing_waits_for_a_body_that_is_still_read() {
    use std::time::Duration;
    let fleet = fleet(PROTOCOLS[0], 1).await;
    fleet[0].set(Mode::Endless);
    let users = client(&fleet).await;
    let response = users.send(get()).await.unwrap();
    assert!(!users.close(Duration::from_millis(20)).await);
    drop(response);
    assert!(users.close(Duration::from_secs(30)).await);
}

#[tokio::test]
async fn one_client_sends_bodies_of_any_kind_from_spawned_blocks() {
    use bytes::Bytes;
    use http_body_util::{BodyExt as _, Empty, Full};
    let fleet = fleet(PROTOCOLS[0], 1).await;
    let client = client(&fleet).await;
    let sent = tokio::spawn(async move {
        let boxed =
            Full::new(Bytes::from("four")).map_err(|never| -> tower::BoxError { match never {} }).boxed();
        let put = http::Request::put("http://users.internal/").body(boxed).unwrap();
        let get = http::Request::get("http://users.internal/").body(Empty::<Bytes>::new()).unwrap();
        (client.send(put).await.unwrap().status(), client.send(get).await.unwrap().status())
    });
    let (put, get) = sent.await.unwrap();
    assert!(put.is_success() && get.is_success());
}
