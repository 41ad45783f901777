//! What a service config says is done, method by method.

use std::time::Duration;

use mainstay::{
    Error, Reason,
    balance::Distribution,
    clock,
    grpc::ServiceConfig,
    tonic::{Client, ClientBuilder},
};
use tonic::{Code, Request};

use crate::{greeter::greeter_client::GreeterClient, server::*};

/// A document with this said of `SayHello`.
fn config(inside: &str) -> ServiceConfig {
    let text = format!(
        r#"{{"methodConfig": [{{"name": [{{"service": "greeter.Greeter", "method": "SayHello"}}], {inside}}}]}}"#
    );
    ServiceConfig::parse(&text).unwrap()
}

fn retries(attempts: u32, codes: &str) -> ServiceConfig {
    config(&format!(
        r#""retryPolicy": {{"maxAttempts": {attempts}, "initialBackoff": "0.001s", "maxBackoff": "0.001s",
            "backoffMultiplier": 1, "retryableStatusCodes": {codes}}}"#
    ))
}

/// Without a word of its own on what may be repeated.
fn unsaid(fleet: &[Server]) -> ClientBuilder {
    builder(fleet).description(Default::default())
}

/// How often a call is made whose every attempt ends with this code, and how it ends.
async fn attempts(config: &ServiceConfig, code: Code, pushback: Option<&'static str>) -> (usize, Code) {
    let fleet = Server::fleet(1);
    fleet[0].set(Mode::Fail(code, pushback));
    let (_, mut greeter) = connected(unsaid(&fleet).service_config(config), 1).await;
    let end = greeter.say_hello(hello("mast")).await.unwrap_err().code();
    (fleet[0].count(), end)
}

#[tokio::test]
async fn a_retry_policy_repeats_its_codes_and_no_others() {
    let config = retries(3, r#"["UNAVAILABLE", "ABORTED"]"#);
    for (code, pushback, made) in [
        (Code::Unavailable, None, 3),
        // To its endpoint no failure, and repeated all the same.
        (Code::Aborted, None, 3),
        // To its endpoint a failure, and the answer all the same.
        (Code::Internal, None, 1),
        (Code::InvalidArgument, None, 1),
        (Code::Unavailable, Some("-1"), 1),
        (Code::Aborted, Some("soon"), 1),
        (Code::Aborted, Some("1"), 3),
    ] {
        assert_eq!(attempts(&config, code, pushback).await, (made, code), "{code:?} {pushback:?}");
    }
}

#[tokio::test]
async fn more_than_five_attempts_are_five() {
    assert_eq!(attempts(&retries(9, "[14]"), Code::Unavailable, None).await, (5, Code::Unavailable));
}

#[tokio::test]
async fn a_method_of_which_nothing_is_said_is_called_as_the_client_is_set_to() {
    let fleet = Server::fleet(1);
    fleet[0].set(Mode::Fail(Code::Unavailable, None));
    let other = ServiceConfig::parse(
        r#"{"methodConfig": [{"name": [{"service": "other.Other"}], "timeout": "0s"}]}"#,
    );
    let (client, mut greeter) = connected(unsaid(&fleet).service_config(&other.unwrap()), 1).await;
    greeter.say_hello(hello("mast")).await.unwrap_err();
    assert_eq!(fleet[0].count(), 1);
    GreeterClient::new(client.idempotent()).say_hello(hello("mast")).await.unwrap_err();
    assert_eq!(fleet[0].count(), 4);
}

#[tokio::test]
async fn the_callers_word_against_repeating_is_above_the_document() {
    let fleet = Server::fleet(1);
    fleet[0].set(Mode::Fail(Code::Unavailable, None));
    let (client, _) = connected(unsaid(&fleet).service_config(&retries(5, "[14]")), 1).await;
    GreeterClient::new(client.clone().not_idempotent()).say_hello(hello("mast")).await.unwrap_err();
    assert_eq!(fleet[0].count(), 1);
    GreeterClient::new(client.max_attempts(2)).say_hello(hello("mast")).await.unwrap_err();
    assert_eq!(fleet[0].count(), 3);
}

#[tokio::test]
async fn a_timeout_stands_in_place_of_the_clients_and_the_earliest_counts() -> Test {
    let fleet = Server::fleet(1);
    let config = config(r#""timeout": "90s""#);
    let (client, mut greeter) = connected(unsaid(&fleet).service_config(&config), 1).await;
    let left = |fleet: &[Server]| -> u64 {
        let seen = fleet[0].seen().pop().unwrap();
        seen.header("grpc-timeout").unwrap().trim_end_matches('u').parse::<u64>().unwrap() / 1_000_000
    };
    // The client's own are 60 s.
    greeter.say_hello(hello("the document's")).await?;
    assert!((60..=90).contains(&left(&fleet)), "{}", left(&fleet));
    let mut own = Request::new(hello("the call's"));
    own.set_timeout(Duration::from_secs(50));
    greeter.say_hello(own).await?;
    assert!((20..=50).contains(&left(&fleet)), "{}", left(&fleet));
    let view = client.clone().deadline(Duration::from_secs(40));
    GreeterClient::new(view).say_hello(hello("the view's")).await?;
    assert!((10..=40).contains(&left(&fleet)), "{}", left(&fleet));

    client.update_config(&self::config(r#""timeout": "0.2s""#))?;
    fleet[0].set(Mode::Hang);
    let began = clock::now();
    let status = greeter.say_hello(hello("hangs")).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let lasted = clock::now().saturating_duration_since(began);
    assert!(lasted < Duration::from_secs(20), "{lasted:?}");
    if let Some(ours) = Error::find(&status) {
        assert_eq!(ours.reason(), Reason::Deadline);
    }
    Ok(())
}

#[tokio::test]
async fn throttling_stops_retries_at_half_of_its_tokens() {
    let fleet = Server::fleet(1);
    fleet[0].set(Mode::Fail(Code::Unavailable, None));
    let text = r#"{"retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1}, "methodConfig": [{"name": [{}],
        "retryPolicy": {"maxAttempts": 3, "initialBackoff": "0.001s", "maxBackoff": "0.001s", "backoffMultiplier": 1,
            "retryableStatusCodes": [14]}}]}"#;
    let config = ServiceConfig::parse(text).unwrap();
    let (client, mut greeter) = connected(unsaid(&fleet).service_config(&config), 1).await;
    // Each attempt takes a token: after the fifth, 5 are left, which is not more than half.
    for made in [3, 5, 6] {
        greeter.say_hello(hello("mast")).await.unwrap_err();
        assert_eq!(fleet[0].count(), made);
    }
    let other = ServiceConfig::parse("{}").unwrap();
    let invalid = client.update_config(&other).unwrap_err();
    assert_eq!(invalid.problems()[0].field, "retryThrottling");
}

#[tokio::test]
async fn hedges_go_out_as_the_policy_says_and_a_fatal_code_ends_the_race() {
    let policy = |delay: &str| {
        config(&format!(
            r#""hedgingPolicy": {{"maxAttempts": 3, "hedgingDelay": "{delay}", "nonFatalStatusCodes": ["UNAVAILABLE"]}}"#
        ))
    };
    let fleet = Server::fleet(3);
    let (client, mut greeter) = connected(unsaid(&fleet).service_config(&policy("0.05s")), 3).await;
    let count = || fleet.iter().map(Server::count).sum::<usize>();
    fleet[0].set(Mode::Hang);
    fleet[1].set(Mode::Hang);
    assert_eq!(greeter.say_hello(hello("mast")).await.unwrap().into_inner().server, 2);
    // Whichever it began with, it need not have met both that hang.
    assert!((1..=3).contains(&count()), "{}", count());

    client.update_config(&policy("600s")).unwrap();
    let before = count();
    fleet.iter().for_each(|server| server.set(Mode::Fail(Code::Unavailable, None)));
    assert_eq!(greeter.say_hello(hello("mast")).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(count() - before, 3);
    let before = count();
    fleet.iter().for_each(|server| server.set(Mode::Fail(Code::PermissionDenied, None)));
    assert_eq!(greeter.say_hello(hello("mast")).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(count() - before, 1);
}

#[tokio::test]
async fn a_document_may_be_replaced_while_it_runs_and_names_the_balancing() {
    let fleet = Server::fleet(1);
    fleet[0].set(Mode::Fail(Code::Unavailable, None));
    let (client, mut greeter) = connected(unsaid(&fleet).service_config(&retries(2, "[14]")), 1).await;
    greeter.say_hello(hello("mast")).await.unwrap_err();
    assert_eq!(fleet[0].count(), 2);
    client.update_config(&retries(4, "[14]")).unwrap();
    greeter.say_hello(hello("mast")).await.unwrap_err();
    assert_eq!(fleet[0].count(), 6);
    let balanced =
        ServiceConfig::parse(r#"{"loadBalancingConfig": [{"theirs": {}}, {"round_robin": {}}]}"#).unwrap();
    client.update_config(&balanced).unwrap();
    assert_eq!(client.options().balance.distribution, Distribution::RoundRobin);
    greeter.say_hello(hello("mast")).await.unwrap_err();
    assert_eq!(fleet[0].count(), 7);

    let built = |config| -> Client { unsaid(&fleet).service_config(config).build().unwrap() };
    assert_eq!(built(&balanced).options().balance.distribution, Distribution::RoundRobin);
}
