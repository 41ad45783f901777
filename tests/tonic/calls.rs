//! Calls when all is well.

use std::time::Duration;

use mainstay::{
    clock,
    context::{self, Inherited},
    grpc::DescriptionOptions,
};
use tonic::Request;

use crate::{greeter::greeter_client::GreeterClient, server::*};

#[tokio::test]
async fn unary_calls_spread_over_the_servers_under_the_logical_name() -> Test {
    let fleet = Server::fleet(3);
    let (client, mut greeter) = connected(builder(&fleet), 3).await;
    for _ in 0..60 {
        assert_eq!(greeter.say_hello(hello("mast")).await?.into_inner().text, "hello mast");
    }
    for server in &fleet {
        assert!(server.count() >= 10, "{}", server.count());
        assert!(server.seen().iter().all(|seen| seen.authority == "greeter.internal:7"));
    }
    assert_eq!((client.status().successes, client.status().retries), (60, 0));
    Ok(())
}

#[tokio::test]
async fn a_stream_arrives_whole_with_its_trailers_and_is_in_flight_until_then() -> Test {
    let fleet = Server::fleet(1);
    let (client, mut greeter) = connected(builder(&fleet), 1).await;
    let mut stream = greeter.say_hellos(hello("mast")).await?.into_inner();
    assert_eq!(row(&client, &fleet[0]).in_flight, 1);
    let mut texts = Vec::new();
    while let Some(reply) = stream.message().await? {
        texts.push(reply.text);
    }
    assert_eq!(texts, (1..=5).map(|n| format!("hello mast {n}")).collect::<Vec<_>>());
    assert_eq!(stream.trailers().await?.ok_or("no trailers")?.get("said").ok_or("not said")?, "5");
    let row = row(&client, &fleet[0]);
    assert_eq!((row.in_flight, row.failures), (0, 0));
    Ok(())
}

#[tokio::test]
async fn a_stream_that_is_dropped_half_way_blames_nobody_and_is_not_in_flight_any_more() -> Test {
    let fleet = Server::fleet(1);
    let (client, mut greeter) = connected(builder(&fleet), 1).await;
    let mut stream = greeter.say_hellos(hello("mast")).await?.into_inner();
    stream.message().await?;
    drop(stream);
    let row = row(&client, &fleet[0]);
    assert_eq!((row.in_flight, row.failures), (0, 0));
    Ok(())
}

/// Microseconds, as far as eight digits go.
fn micros(seen: &Seen) -> u64 {
    let text = seen.header("grpc-timeout").expect("a deadline is told");
    assert!(text.len() <= 9, "{text}");
    text.strip_suffix('u').expect("less than 100 s").parse().unwrap()
}

#[tokio::test]
async fn what_is_left_of_the_earliest_deadline_goes_out_as_grpc_timeout() -> Test {
    let fleet = Server::fleet(1);
    let (client, mut greeter) = connected(builder(&fleet), 1).await;
    greeter.say_hello(hello("the client's")).await?;
    GreeterClient::new(client.clone().deadline(Duration::from_secs(20)))
        .say_hello(hello("the view's"))
        .await?;
    let mut own = Request::new(hello("the call's"));
    own.set_timeout(Duration::from_secs(10));
    greeter.say_hello(own).await?;
    let mut late = Request::new(hello("a call that wants more than the client allows"));
    late.set_timeout(Duration::from_secs(90));
    greeter.say_hello(late).await?;
    let inherited = Inherited::default().with_deadline(clock::now() + Duration::from_secs(5));
    context::scope(inherited, greeter.say_hello(hello("inherited"))).await?;
    for (seen, seconds) in fleet[0].seen().iter().zip([60, 20, 10, 60, 5]) {
        let left = micros(seen);
        assert!((seconds - 4) * 1_000_000 < left && left <= seconds * 1_000_000, "{left} of {seconds} s");
    }
    Ok(())
}

#[tokio::test]
async fn an_interceptor_around_the_client_sees_each_call_once() -> Test {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    };
    let fleet = Server::fleet(2);
    let (client, _) = connected(builder(&fleet), 2).await;
    fleet[0].set(Mode::Fail(tonic::Code::Unavailable, None));
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let intercept = move |mut request: Request<()>| {
        counted.fetch_add(1, SeqCst);
        request.metadata_mut().insert("who", "me".parse().expect("letters"));
        Ok(request)
    };
    let mut greeter = GreeterClient::with_interceptor(client, intercept);
    for _ in 0..10 {
        greeter.say_hello(hello("mast")).await?;
    }
    assert_eq!(calls.load(SeqCst), 10);
    let seen: Vec<_> = fleet.iter().flat_map(Server::seen).collect();
    assert!(seen.len() > 10, "what failed was sent again, with what the interceptor wrote");
    assert!(seen.iter().all(|seen| seen.header("who") == Some("me")));
    Ok(())
}

#[tokio::test]
async fn how_much_a_call_matters_is_told_where_a_header_is_named() -> Test {
    use mainstay::describe::Criticality;
    let fleet = Server::fleet(1);
    let header = http::HeaderName::from_static("x-criticality");
    let described = builder(&fleet).description(DescriptionOptions::default().criticality_header(header));
    let (_, mut greeter) = connected(described, 1).await;
    let mut request = Request::new(hello("mast"));
    request.extensions_mut().insert(Criticality::Sheddable);
    greeter.say_hello(request).await?;
    assert_eq!(fleet[0].seen()[0].header("x-criticality"), Some("sheddable"));
    Ok(())
}

#[tokio::test]
async fn every_mistake_is_told_at_once() {
    let endpoint = mainstay::tonic::endpoint("http://greeter.internal").unwrap();
    let invalid = mainstay::tonic::Client::builder("greeter", endpoint)
        .idempotent_methods(["SayHello"])
        .deadline(Duration::ZERO)
        .build()
        .unwrap_err();
    let fields: Vec<_> = invalid.problems().iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(fields, ["description.idempotent", "resolve", "deadline"], "{invalid}");
}
