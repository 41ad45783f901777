//! The balancer and the whole stack of this crate.

use std::{convert::Infallible, sync::LazyLock, time::Duration};

use http::HeaderValue;
use mainstay::{
    Classify, Client, Describe, Endpoint, Ratio, Verdict,
    balance::{
        Balance, BalanceOptions, Candidates, Distribution, Load, Localities, MaglevOptions, ReportedOptions,
        RingOptions,
    },
    describe::Idempotent,
    endpoint::Locality,
    health::OperationOptions,
    http::{BodyTrack, Classifier, Description, Replay, Tracked},
    report::{Report, Utilisation},
    resolve::{Fixed, fixed},
};
use tower::{BoxError, Service, service_fn};

use crate::{
    case::Case,
    endpoint::{AtOnce, Failed, SuspendOnce, request},
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::shared("balance_least_loaded", request, least_loaded).against("tower_buffer_balance_ewma"),
        Case::shared("balance_ewma", request, peak_of_two).against("tower_buffer_balance_ewma"),
        Case::shared("balance", request, balance).against("tower_buffer_balance_ewma"),
        Case::shared("balance_quantile", request, |endpoints| {
            let (share, half_life) = (Ratio::percent::<90>(), Duration::from_secs(10));
            loaded(endpoints, Load::Quantile { share, half_life })
        })
        .against("tower_buffer_balance_ewma"),
        Case::shared("balance_hot_cold", request, |endpoints| {
            let (cold, half_life) = (Ratio::percent::<84>(), Duration::from_secs(10));
            loaded(endpoints, Load::HotCold { cold, half_life })
        })
        .against("tower_buffer_balance_ewma"),
        Case::shared("balance_answered", request, answered).against("tower_buffer_balance_ewma"),
        Case::shared("balance_operations", request, operations).against("tower_buffer_balance_ewma"),
        Case::shared("balance_zones", request, zones).against("tower_buffer_balance_ewma"),
        Case::shared("balance_round_robin", request, |endpoints| spread(endpoints, Distribution::RoundRobin))
            .against("tower_buffer_balance_ewma"),
        Case::shared("balance_by_reports", request, |endpoints| {
            reporting(endpoints, |options| {
                options.distribution = Distribution::ByReports(ReportedOptions::default());
            })
        })
        .against("tower_buffer_balance_ewma"),
        Case::shared("balance_reports", request, |endpoints| {
            reporting(endpoints, |options| options.reports = true)
        })
        .against("tower_buffer_balance_ewma"),
        Case::shared("balance_ring", request, |endpoints| {
            spread(endpoints, Distribution::Ring(RingOptions::default()))
        })
        .against("tower_buffer_balance_ewma"),
        Case::shared("balance_maglev", request, |endpoints| {
            spread(endpoints, Distribution::Maglev(MaglevOptions::default()))
        })
        .against("tower_buffer_balance_ewma"),
        Case::shared("stack", request, |endpoints| stack(endpoints, AtOnce)).against("tower_stack"),
        Case::shared("stack_suspended", request, |endpoints| stack(endpoints, SuspendOnce))
            .against("tower_stack_suspended"),
        Case::shared("bare_http", http_request, bare_http),
        Case::shared("stack_http", http_request, stack_http).against("bare_http"),
    ]
}

fn resolver(endpoints: usize) -> Fixed {
    fixed(
        (0..endpoints).map(|index| {
            Endpoint::new(format!("10.{}.{}.{}:80", index >> 16, (index >> 8) & 255, index & 255))
        }),
    )
}

/// Nothing but the pick of two: no health, no statistics, so nobody asks how long anything takes.
fn least_loaded(endpoints: usize) -> Balance<AtOnce, u64> {
    let mut options = BalanceOptions::default();
    (options.load, options.choices) = (Load::InFlight, 2);
    options.health.enabled = false;
    options.statistics = false;
    options.attempt_limit = None;
    balanced(endpoints, options)
}

/// What tower's balancer does: the better of two by peak EWMA, with health and statistics besides.
fn peak_of_two(endpoints: usize) -> Balance<AtOnce, u64> {
    let mut options = BalanceOptions::default();
    (options.load, options.choices) = (Load::PeakEwma { decay: Duration::from_secs(10) }, 2);
    balanced(endpoints, options)
}

/// The balancer as it is by default: the best of four by mean latency, with health and statistics.
fn balance(endpoints: usize) -> Balance<AtOnce, u64> {
    balanced(endpoints, BalanceOptions::default())
}

/// The same by another estimate.
fn loaded(endpoints: usize, load: Load) -> Balance<AtOnce, u64> {
    let mut options = BalanceOptions::default();
    options.load = load;
    balanced(endpoints, options)
}

/// The same among those that have answered in the last second.
fn answered(endpoints: usize) -> Balance<AtOnce, u64> {
    let mut options = BalanceOptions::default();
    options.candidates = Candidates::Answered { within: Duration::from_secs(1) };
    balanced(endpoints, options)
}

/// The same with health per operation, of which there are four.
fn operations(endpoints: usize) -> Balance<AtOnce, u64> {
    struct Named;

    impl Describe<u64> for Named {
        fn operation<'a>(&self, request: &'a u64) -> Option<&'a str> {
            Some(
                ["users.Users/Get", "users.Users/Put", "users.Users/List", "users.Users/Drop"]
                    [*request as usize % 4],
            )
        }
    }

    let mut options = BalanceOptions::default();
    options.health.per_operation = Some(OperationOptions::default());
    Balance::builder(resolver(endpoints))
        .connect(|_: &Endpoint| AtOnce)
        .describe(Named)
        .options(options)
        .build()
        .expect("sound options")
}

/// The same from within a zone, where the endpoints stand in two.
fn zones(endpoints: usize) -> Balance<AtOnce, u64> {
    let mut options = BalanceOptions::default();
    options.localities = Localities::at(Locality::new("region", "zone 0", ""));
    let addresses = (0..endpoints).map(|index| {
        let address = format!("10.{}.{}.{}:80", index >> 16, (index >> 8) & 255, index & 255);
        Endpoint::new(address).with_locality("region", &format!("zone {}", index % 2), "")
    });
    Balance::builder(fixed(addresses))
        .connect(|_: &Endpoint| AtOnce)
        .options(options)
        .build()
        .expect("sound options")
}

/// The same by another rule; a request's key is its number.
fn spread(endpoints: usize, distribution: Distribution) -> Balance<AtOnce, u64> {
    struct Numbered;

    impl Describe<u64> for Numbered {
        fn hash_key(&self, request: &u64) -> Option<u64> {
            Some(request.wrapping_mul(0x9E37_79B9_7F4A_7C15))
        }
    }

    let mut options = BalanceOptions::default();
    options.distribution = distribution;
    Balance::builder(resolver(endpoints))
        .connect(|_: &Endpoint| AtOnce)
        .describe(Numbered)
        .options(options)
        .build()
        .expect("sound options")
}

/// The balancer over servers that say with each answer how much they have in flight, and how busy they are.
fn reporting(endpoints: usize, change: impl FnOnce(&mut BalanceOptions)) -> Balance<AtOnce, u64> {
    struct Reporting;

    impl Classify<u64> for Reporting {
        fn classify(&self, result: Result<&u64, &BoxError>) -> Verdict {
            result.map_or(Verdict::failure(), |_| Verdict::success())
        }

        fn report(&self, answer: &u64) -> Option<Report> {
            let busy = Utilisation::new(100.0, 0.25 + (answer % 4) as f64 / 8.0);
            Some(Report::default().in_flight((answer % 16) as u32).utilisation(busy))
        }
    }

    let mut options = BalanceOptions::default();
    change(&mut options);
    Balance::builder(resolver(endpoints))
        .connect(|_: &Endpoint| AtOnce)
        .classify(Reporting)
        .options(options)
        .build()
        .expect("sound options")
}

fn balanced(endpoints: usize, options: BalanceOptions) -> Balance<AtOnce, u64> {
    Balance::builder(resolver(endpoints))
        .connect(|_: &Endpoint| AtOnce)
        .options(options)
        .build()
        .expect("sound options")
}

/// Everything there is by default, for requests that are copied for a retry.
fn stack<S>(endpoints: usize, service: S) -> Client<S, u64>
where
    S: Service<u64, Response = u64, Error = Failed> + Clone + Send + Sync + 'static,
{
    Client::builder("bench")
        .resolve(resolver(endpoints))
        .connect(move |_: &Endpoint| service.clone())
        .describe(Idempotent)
        .build()
        .expect("sound options")
}

type Body = Replay<http_body_util::Empty<bytes::Bytes>>;
type Request = http::Request<Body>;
type Response = http::Response<Tracked<http_body_util::Empty<bytes::Bytes>>>;

/// The service of the row below without anything around it: what making the request and the response costs.
fn bare_http(
    _: usize,
) -> impl Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send {
    service_fn(answer)
}

/// The same over HTTP types.
fn stack_http(
    endpoints: usize,
) -> impl Service<Request, Response = Response, Error = tower::BoxError, Future: Send> + Clone + Send + 'static
{
    Client::builder("bench")
        .resolve(resolver(endpoints))
        .connect(|_: &Endpoint| service_fn(answer))
        .classify(Classifier)
        .describe(Description::default())
        .track(BodyTrack)
        .build()
        .expect("sound options")
}

async fn answer(request: Request) -> Result<Response, Infallible> {
    drop(request);
    Ok(http::Response::new(Tracked::default()))
}

/// A request with eight headers: a clone of one that was made before.
fn http_request(_: u64) -> Request {
    static MADE: LazyLock<http::request::Parts> = LazyLock::new(|| {
        let request = http::Request::get("http://users.internal/users/1?fields=name")
            .header("host", HeaderValue::from_static("users.internal"))
            .header("accept", HeaderValue::from_static("application/json"))
            .header("accept-encoding", HeaderValue::from_static("gzip"))
            .header("user-agent", HeaderValue::from_static("bench/1"))
            .header(
                "traceparent",
                HeaderValue::from_static("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            )
            .header("authorization", HeaderValue::from_static("Bearer 0123456789abcdef"))
            .header("x-request-id", HeaderValue::from_static("1e9f"))
            .header("cache-control", HeaderValue::from_static("no-cache"));
        request.body(()).expect("a request").into_parts().0
    });
    Request::from_parts(MADE.clone(), Body::default())
}
