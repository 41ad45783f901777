//! The gRPC library for Python as another client: the same service configs, the same server, and what comes of it side by side.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mainstay::{balance::BalanceOptions, grpc::ServiceConfig, resolve, tonic::Client};
use tokio::net::TcpListener;
use tower::BoxError;

use crate::{
    greeter::{HelloRequest, greeter_client::GreeterClient},
    grpcio::python,
    process::is_optional,
};

type Test = Result<(), BoxError>;

/// A server that does what it is told by the name that it greets: `key|step,step,..`, a step for each attempt, of which the last
/// holds for all that follow.
///
/// | step | what it does |
/// |---|---|
/// | `14` | ends the call with that code at once |
/// | `14:5` | the same, with that pushback |
/// | `h14` | sends headers first, and ends it in trailers |
/// | `0` | answers |
/// | `hang` | never answers |
/// | `refuse` | refuses the stream, unprocessed |
#[derive(Clone, Default)]
struct Script(Arc<Mutex<HashMap<String, Vec<String>>>>);

impl Script {
    /// The server, at its port of all addresses of the machine.
    async fn serve() -> (Self, u16) {
        let (script, listener) =
            (Self::default(), TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap());
        let (port, own) = (listener.local_addr().unwrap().port(), script.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let own = own.clone();
                tokio::spawn(async move {
                    let answer = service_fn(move |request| own.clone().answer(request));
                    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    drop(builder.serve_connection(TokioIo::new(stream), answer).await);
                });
            }
        });
        (script, port)
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Answer>, BoxError> {
        let before = request.headers().get("grpc-previous-rpc-attempts");
        let before = before.map_or("-", |value| value.to_str().unwrap()).to_owned();
        let question = request.into_body().collect().await?.to_bytes();
        // A frame, and in it a string of less than 128 bytes in field 1.
        let name = String::from_utf8(question[7..].to_vec())?;
        let (key, steps) = name.split_once('|').ok_or("a key and steps")?;
        let attempt = {
            let mut seen = self.0.lock().unwrap();
            let attempts = seen.entry(key.to_owned()).or_default();
            attempts.push(before);
            attempts.len() - 1
        };
        let steps: Vec<_> = steps.split(',').collect();
        let step = steps[attempt.min(steps.len() - 1)];
        let head = Response::builder().header("content-type", "application/grpc");
        Ok(match (step, step.strip_prefix('h'), step.split_once(':')) {
            ("hang", ..) => std::future::pending().await,
            ("refuse", ..) => return Err(h2::Error::from(h2::Reason::REFUSED_STREAM).into()),
            ("0", ..) => head.body(answer(Some(b"\0\0\0\0\x04\x0a\x02ok"), "0"))?,
            (_, Some(code), _) => head.body(answer(None, code))?,
            (_, _, Some((code, pushback))) => {
                let head = head.header("grpc-status", code).header("grpc-retry-pushback-ms", pushback);
                head.body(Answer::default())?
            }
            (code, None, None) => head.header("grpc-status", code).body(Answer::default())?,
        })
    }

    /// What each attempt of a call said of those before.
    fn attempts(&self, key: &str) -> Vec<String> {
        self.0.lock().unwrap().get(key).cloned().unwrap_or_default()
    }
}

type Answer = http_body_util::combinators::UnsyncBoxBody<Bytes, std::convert::Infallible>;

fn answer(message: Option<&'static [u8]>, code: &str) -> Answer {
    let status = HeaderMap::from_iter([(mainstay::grpc::STATUS, code.parse().unwrap())]);
    let data = message.map(|message| Frame::data(Bytes::from_static(message)));
    let frames = data.into_iter().chain([Frame::trailers(status)]).map(Ok);
    StreamBody::new(futures::stream::iter(frames)).boxed_unsync()
}

/// A client of the library, for as long as the test runs.
struct Python {
    child: Child,
    cases: ChildStdin,
    codes: BufReader<ChildStdout>,
}

impl Python {
    fn start() -> Option<Self> {
        let Some(python) = python() else {
            assert!(is_optional(), "no grpcio for python3");
            eprintln!("skipped: no grpcio for python3 here");
            return None;
        };
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/grpcio_client.py");
        let mut command = Command::new(python);
        command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (cases, codes) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Some(Self { child, cases, codes })
    }

    /// The codes that the calls end with.
    fn call(&mut self, address: SocketAddr, config: Option<&str>, calls: &[(&str, String)]) -> Vec<i32> {
        let config: serde_json::Value =
            config.map_or(serde_json::Value::Null, |text| serde_json::from_str(text).unwrap());
        let case = serde_json::json!({ "address": address, "config": config, "calls": calls });
        writeln!(self.cases, "{}", case).unwrap();
        let mut codes = String::new();
        self.codes.read_line(&mut codes).unwrap();
        serde_json::from_str(&codes).unwrap()
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn call_ours(address: SocketAddr, config: Option<&str>, calls: &[(&str, String)]) -> Vec<i32> {
    let mut balance = BalanceOptions::default();
    balance.attempt_limit = Some(Duration::from_secs(30));
    balance.connect_timeout = Duration::from_secs(30);
    let mut builder =
        Client::builder("greeter", mainstay::tonic::endpoint("http://greeter.internal").unwrap())
            .resolve(resolve::fixed([address]))
            .deadline(Duration::from_secs(60))
            .balance(balance)
            // gRPC bounds retries by the config alone.
            .budget(mainstay::budget::BudgetOptions::default().reserve(10_000));
    if let Some(config) = config {
        builder = builder.service_config(&ServiceConfig::parse(config).unwrap());
    }
    let mut greeter = GreeterClient::new(builder.build().unwrap());
    let mut codes = Vec::new();
    for (method, name) in calls {
        let request = HelloRequest { name: name.clone(), times: 0 };
        let ended = if *method == "SayHello" {
            greeter.say_hello(request).await.map(drop)
        } else {
            match greeter.say_hellos(request).await {
                Err(status) => Err(status),
                Ok(stream) => {
                    let mut stream = stream.into_inner();
                    loop {
                        match stream.message().await {
                            Ok(Some(_)) => {}
                            Ok(None) => break Ok(()),
                            Err(status) => break Err(status),
                        }
                    }
                }
            }
        };
        codes.push(ended.map_or_else(|status| status.code() as i32, |()| 0));
    }
    codes
}

/// A config, and calls with the steps that their attempts are answered by.
struct Case {
    what: &'static str,
    config: Option<String>,
    method: &'static str,
    calls: &'static [&'static str],
    /// Why the two may differ.
    differ: Option<&'static str>,
}

impl Case {
    fn may_differ(mut self, why: &'static str) -> Self {
        self.differ = Some(why);
        self
    }
}

fn case(what: &'static str, config: Option<String>, calls: &'static [&'static str]) -> Case {
    Case { what, config, method: "SayHello", calls, differ: None }
}

/// What this says of all methods.
fn all(inside: &str) -> Option<String> {
    Some(format!(r#"{{"methodConfig": [{{"name": [{{}}], {inside}}}]}}"#))
}

fn policy(attempts: u32, codes: &str) -> String {
    format!(
        r#""retryPolicy": {{"maxAttempts": {attempts}, "initialBackoff": "0.010s", "maxBackoff": "0.020s",
            "backoffMultiplier": 2, "retryableStatusCodes": [{codes}]}}"#
    )
}

fn retries(attempts: u32, codes: &str) -> Option<String> {
    all(&policy(attempts, codes))
}

fn cases() -> Vec<Case> {
    let unavailable = |attempts| retries(attempts, r#""UNAVAILABLE""#);
    let throttled = |tokens: u32| {
        let methods = unavailable(4).unwrap();
        let throttling = format!(r#""retryThrottling": {{"maxTokens": {tokens}, "tokenRatio": 0.5}}"#);
        Some(format!("{}, {throttling}}}", methods.strip_suffix('}').unwrap()))
    };
    let by_name = format!(
        r#"{{"methodConfig": [
            {{"name": [{{}}], {}}},
            {{"name": [{{"service": "greeter.Greeter"}}], {}}},
            {{"name": [{{"service": "greeter.Greeter", "method": "SayHello"}}, {{"service": "other"}}], {}}}
        ]}}"#,
        policy(5, r#""UNAVAILABLE""#),
        policy(4, r#""UNAVAILABLE""#),
        policy(2, r#""UNAVAILABLE""#),
    );
    vec![
        case("no config", None, &["14", "0"]),
        case("no config, refused unprocessed", None, &["refuse,0"]).may_differ(
            "what was not processed is free to go out once more, as A6 has it; C-core wants a policy",
        ),
        case("all is well", unavailable(3), &["0"]),
        case("the second answers", unavailable(3), &["14,0"]),
        case("the third answers", unavailable(3), &["14,14,0"]),
        case("none answers", unavailable(3), &["14"]),
        case("two attempts", unavailable(2), &["14"]),
        case("nine attempts are five", unavailable(9), &["14"]),
        case("a code that is not named", unavailable(3), &["5", "13", "2", "10"]),
        case("a code that is not named, later", unavailable(3), &["14,5", "14,14,13"]),
        case("other codes", retries(3, r#""ABORTED", "UNKNOWN", "CANCELLED""#), &["10,0", "2,1,0", "14"]),
        case("RESOURCE_EXHAUSTED is named", retries(3, r#""RESOURCE_EXHAUSTED""#), &["8,0"])
            .may_differ("who is exhausted is left alone for a second, and there is no other endpoint"),
        case("INVALID_ARGUMENT is named", retries(3, r#""INVALID_ARGUMENT""#), &["3,3,0"]),
        case("codes in small letters", retries(3, r#""unavailable""#), &["14,0"])
            .may_differ("A6 has them in any case; C-core refuses the whole config"),
        case("pushback of 0", unavailable(3), &["14:0,0"]),
        case("pushback of 50 ms", unavailable(3), &["14:50,14:50,0"]),
        case("pushback of -1", unavailable(3), &["14:-1"]),
        case("pushback that is no number", unavailable(3), &["14:soon"]),
        case("pushback beside another code", unavailable(3), &["5:0"]),
        case("headers came", unavailable(3), &["h14"]),
        case("headers came the second time", unavailable(3), &["14,h14"]),
        case("refused unprocessed", unavailable(3), &["refuse,0", "refuse,14,0", "refuse,14,14,14"]),
        // C-core 1.51 counts a timeout of a config from up to a second and a half before the call.
        case("a timeout", all(r#""timeout": "3s""#), &["hang", "0"]),
        case(
            "a timeout over retries",
            all(&format!(r#""timeout": "3s", {}"#, policy(3, r#""UNAVAILABLE""#))),
            &["14,hang", "14,0"],
        ),
        case("throttled", throttled(4), &["14", "14", "14"]),
        case(
            "throttled, with answers between",
            throttled(10),
            &["14", "14", "14", "0", "0", "0", "0", "0", "0", "14"],
        ),
        case("throttled: what is not repeated counts not", throttled(4), &["5", "5", "5", "14,0"]),
        case("throttled: pushback to stop counts", throttled(4), &["14:-1", "14:-1", "14,0"]),
        case("the method's policy", Some(by_name.clone()), &["14"]),
        Case { method: "SayHellos", ..case("the service's policy", Some(by_name), &["14"]) },
        Case { method: "SayHellos", ..case("a stream", unavailable(3), &["14,0", "14,h14", "14"]) },
    ]
}

#[tokio::test]
async fn attempts_and_statuses_are_those_of_grpcs_library_for_the_same_config() -> Test {
    let (script, port) = Script::serve().await;
    let Some(mut python) = Python::start() else { return Ok(()) };
    println!("{:46} {:24} {:>30} {:>30}", "case", "steps", "mainstay", "grpcio");
    let mut differ = Vec::new();
    for (number, case) in cases().into_iter().enumerate() {
        let calls = |who: &str| -> Vec<_> {
            let named =
                |(call, steps): (usize, &&str)| (case.method, format!("{who}{number}.{call}|{steps}"));
            case.calls.iter().enumerate().map(named).collect()
        };
        let config = case.config.as_deref();
        // The library has one throttle for each name: that of the last case is none of this one's.
        let address = SocketAddr::from(([127, 0, 1, number as u8 + 1], port));
        let ours = call_ours(address, config, &calls("m")).await;
        let (theirs, back) = tokio::task::spawn_blocking({
            let (config, calls) = (case.config.clone(), calls("g"));
            move || (python.call(address, config.as_deref(), &calls), python)
        })
        .await?;
        python = back;
        for (call, steps) in case.calls.iter().enumerate() {
            let told = |who: &str, code: i32| {
                let attempts = script.attempts(&format!("{who}{number}.{call}"));
                format!("{} [{}] code {code}", attempts.len(), attempts.join(" "))
            };
            let (ours, theirs) = (told("m", ours[call]), told("g", theirs[call]));
            let why = case.differ.filter(|_| ours != theirs);
            println!("{:46} {steps:24} {ours:>30} {theirs:>30}  {}", case.what, why.unwrap_or_default());
            if ours != theirs && why.is_none() {
                differ.push(format!("{} {steps}: {ours}, and there {theirs}", case.what));
            }
        }
    }
    assert!(differ.is_empty(), "{differ:#?}");
    Ok(())
}
