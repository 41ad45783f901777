//! gRPC's own cases, from gRFCs A2, A6 and A48 and from its documentation.

use std::time::Duration;

use proptest::prelude::*;

use super::{read::duration, *};
use crate::balance::ReportedOptions;

fn fields(text: &str) -> Vec<String> {
    let problems = ServiceConfig::parse(text).err().map(|invalid| invalid.problems().to_vec());
    problems.unwrap_or_default().into_iter().map(|problem| problem.field).collect()
}

fn method(inside: &str) -> String {
    format!(r#"{{"methodConfig": [{{"name": [{{"service": "a.A"}}], {inside}}}]}}"#)
}

fn retry(attempts: &str, initial: &str, max: &str, multiplier: &str, codes: &str) -> String {
    method(&format!(
        r#""retryPolicy": {{"maxAttempts": {attempts}, "initialBackoff": {initial}, "maxBackoff": {max},
            "backoffMultiplier": {multiplier}, "retryableStatusCodes": {codes}}}"#
    ))
}

/// Attempts and codes of a sound retry policy.
fn attempts(text: &str) -> (u32, Codes) {
    let config = ServiceConfig::parse(text).unwrap();
    match &config.method("/a.A/b").unwrap().attempts {
        Attempts::Retry { policy, on } => (policy.max_attempts, *on),
        Attempts::Hedge { options, on } => (options.max_attempts, *on),
        Attempts::Unsaid => panic!("nothing is said"),
    }
}

#[test]
fn an_empty_document_says_nothing_and_unknown_fields_are_ignored() {
    for text in ["{}", r#"{"methodConfig": []}"#, r#"{"methodConfig": null, "anything": {"else": 1}}"#] {
        assert_eq!(ServiceConfig::parse(text), Ok(ServiceConfig::default()), "{text}");
    }
    let config = ServiceConfig::parse(&method(r#""unknown": 1"#)).unwrap();
    assert_eq!(*config.method("/a.A/b").unwrap(), MethodPolicy::default());
}

#[test]
fn what_is_no_document_is_told_by_its_place() {
    for (text, field) in [
        ("", ""),
        ("{", ""),
        ("[]", ""),
        (r#"{"methodConfig": {}}"#, "methodConfig"),
        (r#"{"methodConfig": [1]}"#, "methodConfig[0]"),
        (r#"{"methodConfig": [{"name": [{"service": 1}]}]}"#, "methodConfig[0].name[0].service"),
    ] {
        assert_eq!(fields(text), [field], "{text}");
    }
}

#[test]
fn the_method_comes_before_its_service_and_the_service_before_all() {
    let config = ServiceConfig::parse(
        r#"{"methodConfig": [
            {"name": [{}], "timeout": "1s"},
            {"name": [{"service": "a.A"}], "timeout": "2s"},
            {"name": [{"service": "a.A", "method": "b"}, {"service": "c.C", "method": "d"}], "timeout": "3s"}
        ]}"#,
    )
    .unwrap();
    let timeout = |path| config.method(path).and_then(|policy| policy.timeout).map(|time| time.as_secs());
    for (path, seconds) in [
        ("/a.A/b", 3),
        ("a.A/b", 3),
        ("/c.C/d", 3),
        ("/a.A/c", 2),
        ("/c.C/e", 1),
        ("/x.X/y", 1),
        ("nonsense", 1),
        ("", 1),
        ("/", 1),
    ] {
        assert_eq!(timeout(path), Some(seconds), "{path}");
    }
    let other = ServiceConfig::parse(&method(r#""timeout": "1s""#)).unwrap();
    for path in ["/x.X/y", "/a.A", "", "/"] {
        assert_eq!(other.method(path), None, "{path}");
    }
}

#[test]
fn a_name_stands_once_and_a_method_needs_a_service() {
    for names in [
        r#"{"service": "a", "method": "b"}, {"method": "b", "service": "a"}"#,
        r#"{"service": "a"}, {"service": "a", "method": ""}"#,
        r#"{}, {"service": ""}"#,
    ] {
        let text = format!(r#"{{"methodConfig": [{{"name": [{names}]}}]}}"#);
        assert_eq!(fields(&text), ["methodConfig[0].name[1].service"], "{names}");
    }
    let twice = r#"{"methodConfig": [{"name": [{"service": "a"}]}, {"name": [{"service": "a"}]}]}"#;
    assert_eq!(fields(twice), ["methodConfig[1].name[0].service"]);
    let alone = r#"{"methodConfig": [{"name": [{"method": "b"}]}]}"#;
    assert_eq!(fields(alone), ["methodConfig[0].name[0].method"]);
}

#[test]
fn durations_are_those_of_proto3() {
    for (text, nanos) in [
        ("0s", 0),
        ("1s", 1_000_000_000),
        ("1.5s", 1_500_000_000),
        ("0.000000001s", 1),
        ("01.10s", 1_100_000_000),
    ] {
        assert_eq!(duration(text), Some(Duration::from_nanos(nanos)), "{text}");
    }
    assert_eq!(duration("315576000000s"), Some(crate::invalid::FOREVER));
    for bad in [
        "",
        "s",
        "1",
        "1m",
        "-1s",
        "+1s",
        "1.s",
        ".5s",
        "1.0000000001s",
        "1 s",
        " 1s",
        "315576000001s",
        "1e3s",
        "١s",
    ] {
        assert_eq!(duration(bad), None, "{bad:?}");
    }
    assert_eq!(fields(&method(r#""timeout": 1"#)), ["methodConfig[0].timeout"]);
    assert_eq!(fields(&method(r#""timeout": "-1s""#)), ["methodConfig[0].timeout"]);
}

#[test]
fn fewer_than_two_attempts_are_refused_and_more_than_five_are_five() {
    // C03, C04.
    let text = |attempts: &str| retry(attempts, r#""1s""#, r#""9s""#, "2", "[14]");
    for (given, taken) in [("2", 2), ("5", 5), ("10", 5), ("3.0", 3), (r#""4""#, 4), ("99999999999", 5)] {
        assert_eq!(attempts(&text(given)).0, taken, "{given}");
    }
    for bad in ["1", "0", "-2", "null", "2.5", "true", r#""two""#] {
        assert_eq!(fields(&text(bad)), ["methodConfig[0].retryPolicy.maxAttempts"], "{bad}");
    }
}

#[test]
fn status_codes_are_named_or_numbered_and_there_is_at_least_one() {
    // C05.
    let text = |codes: &str| retry("2", r#""1s""#, r#""9s""#, "2", codes);
    for same in ["[14]", r#"["UNAVAILABLE"]"#, r#"["unavailable"]"#, r#"["Unavailable", 14]"#] {
        let codes = attempts(&text(same)).1;
        assert_eq!(format!("{codes:?}"), r#"{"UNAVAILABLE"}"#, "{same}");
        assert!(codes.contains(14) && !codes.contains(13) && !codes.contains(200));
    }
    for (bad, place) in [
        ("[]", ""),
        ("null", ""),
        ("14", ""),
        ("[17]", "[0]"),
        ("[14, -1]", "[1]"),
        (r#"["NOT_AVAILABLE"]"#, "[0]"),
        ("[1.5]", "[0]"),
    ] {
        let expected = format!("methodConfig[0].retryPolicy.retryableStatusCodes{place}");
        assert!(fields(&text(bad)).contains(&expected), "{bad}: {:?}", fields(&text(bad)));
    }
}

#[test]
fn the_numbers_of_the_waits_are_more_than_nothing() {
    for (initial, max, multiplier, wrong) in [
        (r#""0s""#, r#""1s""#, "2", "initialBackoff"),
        ("null", r#""1s""#, "2", "initialBackoff"),
        (r#""1s""#, r#""0s""#, "2", "maxBackoff"),
        (r#""1s""#, "7", "2", "maxBackoff"),
        (r#""1s""#, r#""1s""#, "0", "backoffMultiplier"),
        (r#""1s""#, r#""1s""#, "-1", "backoffMultiplier"),
        (r#""1s""#, r#""1s""#, "null", "backoffMultiplier"),
        (r#""1s""#, r#""1s""#, r#""NaN""#, "backoffMultiplier"),
    ] {
        let text = retry("2", initial, max, multiplier, "[14]");
        assert_eq!(fields(&text), [format!("methodConfig[0].retryPolicy.{wrong}")], "{text}");
    }
    // A cap below the first wait is the wait, and waits may shrink.
    assert_eq!(attempts(&retry("2", r#""9s""#, r#""1s""#, "0.5", "[14]")).0, 2);
}

#[test]
fn retries_and_hedges_exclude_each_other() {
    let text = method(
        r#""retryPolicy": {"maxAttempts": 2, "initialBackoff": "1s", "maxBackoff": "1s", "backoffMultiplier": 1,
            "retryableStatusCodes": [14]}, "hedgingPolicy": {"maxAttempts": 2}"#,
    );
    assert_eq!(fields(&text), ["methodConfig[0].hedgingPolicy"]);
}

#[test]
fn a_hedging_policy_needs_only_the_number_of_attempts() {
    let text = |inside: &str| method(&format!(r#""hedgingPolicy": {{{inside}}}"#));
    assert_eq!(attempts(&text(r#""maxAttempts": 9"#)), (5, Codes::default()));
    let (most, on) = attempts(&text(
        r#""maxAttempts": 3, "hedgingDelay": "0.5s", "nonFatalStatusCodes": ["UNAVAILABLE", 13]"#,
    ));
    assert_eq!((most, on.contains(14), on.contains(13), on.contains(2)), (3, true, true, false));
    assert_eq!(fields(&text(r#""maxAttempts": 1"#)), ["methodConfig[0].hedgingPolicy.maxAttempts"]);
    let bad = text(r#""maxAttempts": 2, "hedgingDelay": "soon""#);
    assert_eq!(fields(&bad), ["methodConfig[0].hedgingPolicy.hedgingDelay"]);
}

#[test]
fn throttling_has_one_to_a_thousand_tokens_and_three_places_of_a_ratio() {
    // C13, C14.
    let text = |max: &str, ratio: &str| {
        format!(r#"{{"retryThrottling": {{"maxTokens": {max}, "tokenRatio": {ratio}}}}}"#)
    };
    for (max, ratio) in [("1", "0.001"), ("1000", "5000"), ("10", "0.5466"), (r#""10""#, r#""0.1""#)] {
        let config = ServiceConfig::parse(&text(max, ratio)).unwrap();
        assert!(config.retry_throttling().unwrap().budget().is_ok(), "{max} {ratio}");
    }
    for (max, ratio, wrong) in [
        ("0", "0.1", "maxTokens"),
        ("1001", "0.1", "maxTokens"),
        ("null", "0.1", "maxTokens"),
        ("-1", "0.1", "maxTokens"),
        ("10", "0", "tokenRatio"),
        ("10", "0.0009", "tokenRatio"),
        ("10", "-1", "tokenRatio"),
        ("10", "null", "tokenRatio"),
    ] {
        assert_eq!(fields(&text(max, ratio)), [format!("retryThrottling.{wrong}")], "{max} {ratio}");
    }
}

#[test]
fn the_first_balancing_policy_that_is_known_is_taken() {
    let taken = |list: &str| {
        let text = format!(r#"{{"loadBalancingConfig": {list}}}"#);
        ServiceConfig::parse(&text).ok().and_then(|config| config.load_balancing())
    };
    assert_eq!(taken("[]"), None);
    assert_eq!(taken(r#"[{"pick_first": {}}]"#), Some(LoadBalancing::PickFirst));
    assert_eq!(taken(r#"[{"their_own": {}}, {"round_robin": {}}]"#), Some(LoadBalancing::RoundRobin));
    assert_eq!(
        taken(r#"[{"weighted_round_robin": {}}, {"pick_first": {}}]"#),
        Some(LoadBalancing::WeightedRoundRobin(ReportedOptions::default()))
    );
    assert_eq!(taken(r#"[{"ring_hash_experimental": {}}]"#), Some(LoadBalancing::RingHash));
    // gRFC A48: 2 unless it is said, more than 10 are 10, fewer than 2 are refused.
    for (given, choices) in [("{}", 2), (r#"{"choiceCount": 5}"#, 5), (r#"{"choiceCount": 99}"#, 10)] {
        let text = format!(r#"[{{"least_request_experimental": {given}}}]"#);
        assert_eq!(taken(&text), Some(LoadBalancing::LeastRequest { choices }), "{given}");
    }
    for (bad, place) in [
        (r#"[{"theirs": {}}]"#, "loadBalancingConfig"),
        (r#"[{"least_request": {"choiceCount": 1}}]"#, "loadBalancingConfig[0].least_request.choiceCount"),
    ] {
        assert_eq!(fields(&format!(r#"{{"loadBalancingConfig": {bad}}}"#)), [place], "{bad}");
    }
    assert_eq!(fields(r#"{"loadBalancingPolicy": "theirs"}"#), ["loadBalancingPolicy"]);
    let old = ServiceConfig::parse(r#"{"loadBalancingPolicy": "ROUND_ROBIN"}"#).unwrap();
    assert_eq!(old.load_balancing(), Some(LoadBalancing::RoundRobin));
}

#[test]
fn the_options_of_weighted_round_robin_are_those_of_the_grfc() {
    let of = |options: &str| format!(r#"{{"loadBalancingConfig": [{{"weighted_round_robin": {options}}}]}}"#);
    let taken = |options: &str| ServiceConfig::parse(&of(options)).unwrap().load_balancing();
    let own = ReportedOptions::default();
    for (options, owed) in [
        (r#"{"enableOobLoadReport": true, "oobReportingPeriod": "5s"}"#, own),
        (r#"{"blackoutPeriod": "0s"}"#, own.blackout(Duration::ZERO)),
        (r#"{"weightExpirationPeriod": "60s"}"#, own.expiration(Duration::from_secs(60))),
        (r#"{"weightUpdatePeriod": "0.01s"}"#, own.every(Duration::from_millis(100))),
        (r#"{"weightUpdatePeriod": "2s"}"#, own.every(Duration::from_secs(2))),
        (r#"{"errorUtilizationPenalty": 0}"#, own.error_penalty(0.0)),
        (r#"{"errorUtilizationPenalty": "1.5"}"#, own.error_penalty(1.5)),
    ] {
        assert_eq!(taken(options), Some(LoadBalancing::WeightedRoundRobin(owed)), "{options}");
    }
    for (options, field) in [
        (r#"{"errorUtilizationPenalty": -1}"#, "errorUtilizationPenalty"),
        (r#"{"blackoutPeriod": "ten"}"#, "blackoutPeriod"),
    ] {
        let place = format!("loadBalancingConfig[0].weighted_round_robin.{field}");
        assert_eq!(fields(&of(options)), [place], "{options}");
    }
}

#[test]
fn the_service_whose_health_is_asked_for_may_have_no_name() {
    let health = |text: &str| ServiceConfig::parse(text).unwrap().health_service().map(ToOwned::to_owned);
    assert_eq!(health("{}"), None);
    assert_eq!(health(r#"{"healthCheckConfig": {}}"#), None);
    assert_eq!(health(r#"{"healthCheckConfig": {"serviceName": ""}}"#).as_deref(), Some(""));
    assert_eq!(health(r#"{"healthCheckConfig": {"serviceName": "a.A"}}"#).as_deref(), Some("a.A"));
    assert_eq!(fields(r#"{"healthCheckConfig": {"serviceName": 1}}"#), ["healthCheckConfig.serviceName"]);
}

#[test]
fn every_mistake_is_told_at_once_and_briefly() {
    let long = "x".repeat(10_000);
    let text = method(&format!(r#""timeout": "{long}", "waitForReady": 1, "hedgingPolicy": {{}}"#));
    let invalid = ServiceConfig::parse(&text).unwrap_err();
    assert_eq!(invalid.problems().len(), 3);
    assert!(invalid.to_string().len() < 1_000);
}

/// Pieces of documents, sound and not.
fn pieces() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("\"1s\"".to_owned()),
        Just("\"0.1s\"".to_owned()),
        Just("[14, \"ABORTED\"]".to_owned()),
        any::<f64>().prop_map(|number| if number.is_finite() {
            number.to_string()
        } else {
            "1e999".to_owned()
        }),
        any::<i64>().prop_map(|number| number.to_string()),
        "\"[ -!#-\\[\\]-~]{0,8}\"".prop_map(|text| text),
    ];
    let names = prop_oneof![
        "methodConfig|name|service|method|timeout|waitForReady|retryPolicy|hedgingPolicy|retryThrottling",
        "maxAttempts|initialBackoff|maxBackoff|backoffMultiplier|retryableStatusCodes|hedgingDelay|maxTokens|tokenRatio",
        "nonFatalStatusCodes|loadBalancingConfig|loadBalancingPolicy|round_robin|least_request|choiceCount|healthCheckConfig",
    ];
    leaf.prop_recursive(6, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|list| format!("[{}]", list.join(","))),
            prop::collection::vec((names.clone(), inner), 0..6).prop_map(|entries| {
                let entries: Vec<_> =
                    entries.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
                format!("{{{}}}", entries.join(","))
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_text_makes_reading_panic(text in "\\PC{0,64}") {
        let _ = ServiceConfig::parse(&text);
    }

    #[test]
    fn no_document_makes_reading_panic_and_what_is_read_can_be_used(text in pieces()) {
        if let Ok(config) = ServiceConfig::parse(&text) {
            let _ = config.method("/a.A/b");
            if let Some(throttling) = config.retry_throttling() {
                prop_assert!(throttling.budget().is_ok());
            }
            if let Some(policy) = config.load_balancing() {
                prop_assert!(policy.over(crate::balance::BalanceOptions::default()).validate().is_ok());
            }
        }
    }
}
