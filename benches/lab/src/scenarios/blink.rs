//! Beyond the rows: a fleet that is gone for a moment, and needed whole.

use std::time::Duration;

use mainstay::{
    balance::BalanceOptions,
    testing::{Fleet, OpenLoop, Recorder, ServerOptions, simulate},
};
use tower::{ServiceExt as _, util::BoxService};

use super::stage::{s, spawn_load};
use crate::{
    contender::{Terms, unconnected},
    measure::Measured,
    scenario::{Claim, Fault, Outcome, Parameter, Point, Results, Run, Scenario},
};

pub struct Blink;

const WARM_UP: Duration = s(5);
const MEASURED: Duration = s(40);
const GONE: Duration = s(10);
/// What a server does in a second: 4 slots, 40 ms.
const EACH: f64 = 100.0;
const MOST: f64 = 90_000.0;

impl Scenario for Blink {
    fn number(&self) -> u32 {
        21
    }

    fn name(&self) -> &'static str {
        "blink"
    }

    fn question(&self) -> &'static str {
        "All servers of a busy client restart for a moment, and accept at once: how long until it uses all of them again?"
    }

    fn setup(&self) -> String {
        "One client, connected to 5, 20 or 100 servers with 4 slots, work Exp(40 ms); load 0.6, Poisson, 40 s, or 90,000 requests \
         with 100 servers (15 s). At 10 s (5 s) all crash; they are back 0.2, 1 or 5 s later, and accept connections at once. \
         The counterpart of `reconnect_storm`: there it matters to be patient, here to be quick."
            .to_owned()
    }

    fn parameters(&self) -> &'static [Parameter] {
        &[
            Parameter { name: "servers", values: &[5.0, 20.0, 100.0], means: "how many" },
            Parameter { name: "down_s", values: &[0.2, 1.0, 5.0], means: "how long they are away" },
        ]
    }

    fn contenders(&self) -> &'static [&'static str] {
        &["each_for_itself", "mainstay"]
    }

    fn metrics(&self) -> &'static [&'static str] {
        &["recover_s", "success", "p99_ms", "p999_ms", "amplification"]
    }

    fn run(&self, run: &Run) -> Outcome {
        let servers = run.point.get("servers") as usize;
        let rate = 0.6 * EACH * servers as f64;
        let (measured, gone) = lasts(&run.point);
        let (crash, end) = (WARM_UP + gone, WARM_UP + measured);
        let back = crash + Duration::from_secs_f64(run.point.get("down_s"));
        simulate(run.seed, async |world| {
            let fleet = Fleet::builder()
                .servers(servers, ServerOptions::default())
                .build(&world)
                .expect("valid servers");
            for server in (0..servers).map(|server| fleet.server(server)) {
                world.at(crash, move || server.restart(back - crash));
            }
            let (recorder, terms) = (Recorder::new(), Terms::default());
            let mut options = BalanceOptions::default();
            if run.contender != "mainstay" {
                options.redial_spread = Duration::ZERO;
            }
            let client = unconnected(&fleet, terms, world.random("client 0"), options);
            let client = client.connect_with(fleet.dial()).build().expect("valid options");
            let service = BoxService::new(client.map_err(Into::into));
            spawn_load(OpenLoop::poisson(rate, end), service, &world, &recorder);
            world.until(end).await;
            recorder.idle().await;
            let measured = Measured::new(&recorder, &fleet, WARM_UP, end, terms.attempt_limit);
            let mut outcome = measured.outcome();
            outcome.metrics.insert("recover_s", measured.recovered(crash, back));
            outcome
        })
    }

    fn judge(&self, results: &Results) -> Vec<Claim> {
        let claims = results.points().into_iter().map(|point| {
            let recovered = results.spread(&point, "mainstay", "recover_s").map(|spread| spread.greatest);
            // As long as it was away, since backoffs grow with that, and two seconds.
            let bound = point.get("down_s") + 2.0;
            Claim::at_most(format!("{point}: recovers within {bound} s with every seed"), recovered, bound)
        });
        claims.collect()
    }

    fn faults(&self, point: &Point) -> Vec<Fault> {
        let from = lasts(point).1.as_secs_f64();
        vec![Fault { from, to: from + point.get("down_s"), what: "all servers away" }]
    }
}

/// How long a run is measured, and when in it the servers go.
fn lasts(point: &Point) -> (Duration, Duration) {
    let rate = 0.6 * EACH * point.get("servers");
    let lasts = MEASURED.min(Duration::from_secs((MOST / rate) as u64).saturating_sub(WARM_UP).max(s(15)));
    (lasts, GONE.min(lasts / 3))
}
