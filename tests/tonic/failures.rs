//! Calls when something is not well.

use std::time::{Duration, Instant};

use mainstay::{Error, Reason, clock, http::Idempotent, outcome::Sent};
use tonic::{Code, Request};

use crate::{greeter::greeter_client::GreeterClient, server::*};

#[tokio::test]
async fn a_unary_failure_is_repeated_elsewhere_if_the_method_allows_it() -> Test {
    let fleet = Server::fleet(2);
    fleet[0].set(Mode::Fail(Code::Unavailable, None));
    let (client, mut greeter) = connected(builder(&fleet), 2).await;
    for _ in 0..20 {
        greeter.say_hello(hello("mast")).await?;
    }
    assert_eq!(row(&client, &fleet[0]).failures, 5, "ejected after five");
    assert_eq!(client.status().retries, 5);
    let previous: Vec<_> = fleet[1]
        .seen()
        .iter()
        .filter_map(|seen| seen.header("grpc-previous-rpc-attempts").map(ToOwned::to_owned))
        .collect();
    assert_eq!(previous, ["1"; 5]);
    Ok(())
}

#[tokio::test]
async fn a_call_that_must_not_be_processed_twice_is_sent_once() -> Test {
    let fleet = Server::fleet(2);
    for server in &fleet {
        server.set(Mode::Fail(Code::Unavailable, None));
    }
    let (client, mut greeter) = connected(builder(&fleet), 2).await;
    let mut once = Request::new(hello("mast"));
    once.extensions_mut().insert(Idempotent(false));
    assert_eq!(greeter.say_hello(once).await.unwrap_err().code(), Code::Unavailable);
    let mut view = GreeterClient::new(client.not_idempotent());
    assert_eq!(view.say_hello(hello("mast")).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(fleet.iter().map(Server::count).sum::<usize>(), 2);
    Ok(())
}

#[tokio::test]
async fn a_status_of_a_server_arrives_as_it_is_after_the_last_attempt() -> Test {
    let fleet = Server::fleet(1);
    fleet[0].set(Mode::Fail(Code::DataLoss, None));
    let (_, mut greeter) = connected(builder(&fleet), 1).await;
    let status = greeter.say_hello(hello("mast")).await.unwrap_err();
    assert_eq!((status.code(), status.message(), fleet[0].count()), (Code::DataLoss, "as told", 3));
    assert!(Error::find(&status).is_none());
    Ok(())
}

#[tokio::test]
async fn the_callers_mistake_is_not_repeated_and_blames_nobody() -> Test {
    let fleet = Server::fleet(1);
    let (client, mut greeter) = connected(builder(&fleet), 1).await;
    fleet[0].set(Mode::Fail(Code::NotFound, None));
    for _ in 0..10 {
        assert_eq!(greeter.say_hello(hello("mast")).await.unwrap_err().code(), Code::NotFound);
    }
    assert_eq!((fleet[0].count(), row(&client, &fleet[0]).failures), (10, 0));
    Ok(())
}

#[tokio::test]
async fn streams_that_end_badly_are_failures_of_their_server_and_are_not_begun_again() -> Test {
    let fleet = Server::fleet(2);
    let (client, mut greeter) = connected(builder(&fleet), 2).await;
    fleet[0].set(Mode::Fail(Code::Unavailable, None));
    let mut broken = 0;
    for _ in 0..40 {
        let mut stream = greeter.say_hellos(hello("mast")).await?.into_inner();
        let mut messages = 0;
        let end = loop {
            match stream.message().await {
                Ok(Some(_)) => messages += 1,
                Ok(None) => break None,
                Err(status) => break Some(status.code()),
            }
        };
        match end {
            None => assert_eq!(messages, 5),
            Some(code) => {
                assert_eq!((messages, code), (2, Code::Unavailable));
                broken += 1;
            }
        }
    }
    assert_eq!((broken, row(&client, &fleet[0]).failures), (5, 5));
    assert!(!row(&client, &fleet[0]).is_available());
    assert_eq!(client.status().retries, 0);
    Ok(())
}

#[tokio::test]
async fn pushback_sets_a_server_aside_and_a_negative_one_stops_retries() -> Test {
    let fleet = Server::fleet(2);
    fleet[0].set(Mode::Fail(Code::Unavailable, Some("300000")));
    let (client, mut greeter) = connected(builder(&fleet), 2).await;
    while fleet[0].count() == 0 {
        // The wait that is asked for does not fit the deadline: the answer comes at once.
        let answer = greeter.say_hello(hello("mast")).await;
        assert_eq!(answer.is_err(), fleet[0].count() == 1);
    }
    for _ in 0..20 {
        greeter.say_hello(hello("mast")).await?;
    }
    let row = row(&client, &fleet[0]);
    assert_eq!((fleet[0].count(), row.word(), row.failures), (1, "backing off", 0));

    fleet[1].set(Mode::Fail(Code::Unavailable, Some("-1")));
    let before = fleet[1].count();
    assert_eq!(greeter.say_hello(hello("mast")).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(fleet[1].count(), before + 1);
    Ok(())
}

#[tokio::test]
async fn when_all_servers_push_back_calls_are_refused_with_the_time_that_is_left() -> Test {
    let fleet = Server::fleet(1);
    fleet[0].set(Mode::Fail(Code::ResourceExhausted, Some("300000")));
    let (_, mut greeter) = connected(builder(&fleet), 1).await;
    assert_eq!(greeter.say_hello(hello("mast")).await.unwrap_err().code(), Code::ResourceExhausted);
    let status = greeter.say_hello(hello("mast")).await.unwrap_err();
    let ours = Error::find(&status).expect("refused by the client");
    assert_eq!((status.code(), ours.reason()), (Code::ResourceExhausted, Reason::BackingOff));
    let pushback: u32 = status.metadata().get("grpc-retry-pushback-ms").unwrap().to_str()?.parse()?;
    assert!((200_000..=300_000).contains(&pushback), "{pushback}");
    assert_eq!(fleet[0].count(), 1);
    Ok(())
}

#[tokio::test]
async fn a_call_that_hangs_is_cut_off_at_its_deadline_and_says_so() -> Test {
    let fleet = Server::fleet(1);
    let (_, mut greeter) = connected(builder(&fleet), 1).await;
    fleet[0].set(Mode::Hang);
    let mut request = Request::new(hello("mast"));
    request.set_timeout(Duration::from_millis(100));
    let start: Instant = clock::now();
    let status = greeter.say_hello(request).await.unwrap_err();
    assert!(clock::now() - start < Duration::from_secs(20));
    let ours = Error::find(&status).expect("cut off by the client");
    assert_eq!((status.code(), ours.reason()), (Code::DeadlineExceeded, Reason::Deadline));
    assert_eq!((ours.sent(), fleet[0].count()), (Sent::Maybe, 1));
    Ok(())
}

#[tokio::test]
async fn tonics_own_timeout_bounds_an_attempt() -> Test {
    let fleet = Server::fleet(2);
    fleet[0].set(Mode::Hang);
    let endpoint = mainstay::tonic::endpoint("http://greeter.internal")?.timeout(Duration::from_millis(50));
    let builder = mainstay::tonic::Client::builder("greeter", endpoint)
        .resolve(mainstay::resolve::fixed(fleet.iter().map(|server| server.address)))
        .idempotent_methods(["greeter.Greeter/*"]);
    let (client, mut greeter) = connected(builder, 2).await;
    while fleet[0].count() == 0 {
        greeter.say_hello(hello("mast")).await?;
    }
    assert_eq!(row(&client, &fleet[0]).failures, 1);
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_killed_and_comes_back_costs_no_call() -> Test {
    let mut fleet = Server::fleet(3);
    let (client, mut greeter) = connected(builder(&fleet), 3).await;
    for _ in 0..2 {
        for call in 0..60 {
            if call == 20 {
                fleet[1].kill();
            }
            greeter.say_hello(hello("mast")).await?;
        }
        let name = fleet[1].address.to_string();
        let away =
            || client.status().balance.endpoints.iter().any(|row| *row.name == *name && !row.is_available());
        until(away).await;
        fleet[1].revive();
        until(|| !away()).await;
        let before = fleet[1].count();
        for _ in 0..60 {
            greeter.say_hello(hello("mast")).await?;
        }
        assert!(fleet[1].count() > before);
    }
    Ok(())
}

#[tokio::test]
async fn a_call_that_must_not_be_repeated_is_lost_with_its_connection_at_the_most() -> Test {
    let mut fleet = Server::fleet(2);
    let (client, _) = connected(builder(&fleet), 2).await;
    let mut greeter = GreeterClient::new(client.clone().not_idempotent());
    fleet[0].kill();
    let mut lost = 0;
    for _ in 0..20 {
        lost += usize::from(greeter.say_hello(hello("mast")).await.is_err());
    }
    // What was given to a connection whose end had not been seen may have been processed; all else went elsewhere.
    assert!(lost <= 1, "{lost}");
    assert_eq!(fleet[1].count() + lost, 20);
    Ok(())
}

#[tokio::test]
async fn a_closed_client_says_cancelled() -> Test {
    let fleet = Server::fleet(1);
    let (client, mut greeter) = connected(builder(&fleet), 1).await;
    assert!(client.close(Duration::from_secs(30)).await);
    let status = greeter.say_hello(hello("mast")).await.unwrap_err();
    assert_eq!(status.code(), Code::Cancelled);
    assert_eq!(Error::find(&status).map(Error::reason), Some(Reason::Closed));
    Ok(())
}

#[tokio::test]
async fn a_hundred_calls_under_way_survive_the_end_of_half_of_them_if_they_may_be_repeated() -> Test {
    for may_be_repeated in [true, false] {
        let mut fleet = Server::fleet(2);
        fleet[0].set(Mode::Hang);
        let (client, _) = connected(builder(&fleet), 2).await;
        let view = if may_be_repeated { client.clone() } else { client.clone().not_idempotent() };
        let calls: Vec<_> = (0..100)
            .map(|_| {
                let mut greeter = GreeterClient::new(view.clone());
                tokio::spawn(async move { greeter.say_hello(hello("mast")).await })
            })
            .collect();
        let hanging = || row(&client, &fleet[0]).in_flight as usize;
        until(|| hanging() > 0 && fleet[0].count() == hanging() && fleet[1].count() + hanging() == 100).await;
        let cut = hanging();
        fleet[0].kill();
        let mut failed = 0;
        for call in calls {
            if let Err(status) = call.await? {
                assert!(!may_be_repeated, "{status}");
                assert_eq!(
                    (status.code(), status.message().is_empty()),
                    (Code::Unavailable, false),
                    "{status}"
                );
                failed += 1;
            }
        }
        assert_eq!(failed, if may_be_repeated { 0 } else { cut });
        assert_eq!(fleet[1].count(), if may_be_repeated { 100 } else { 100 - cut });
        assert!(client.status().balance.endpoints.iter().all(|row| row.in_flight == 0));
    }
    Ok(())
}
