//! Row 18: everybody wants to connect at once.

use std::time::Duration;

use mainstay::{
    backoff::Backoff,
    balance::BalanceOptions,
    testing::{
        Distribution, Fleet, OpenLoop, Recorder, Request, ServerHandle, ServerOptions, Timeline, World,
        simulate,
    },
};
use tower::{Service as _, ServiceExt as _, util::BoxService};

use super::stage::{s, scaled, spawn_load};
use crate::{
    chart::{Chart, Line, Panel},
    contender::{Sender, Terms, unconnected},
    measure::Measured,
    scenario::{Claim, Fault, Moment, Outcome, Parameter, Point, Results, Run, Scenario},
};

pub struct ReconnectStorm;

const SERVERS: usize = 10;
const CLIENTS: u32 = 1_000;
/// CPU that a server needs to accept a connection; it has one core.
const HANDSHAKE: Duration = Duration::from_millis(20);
/// Connections that the ten can accept in a second.
const CAPACITY: f64 = SERVERS as f64 / 0.02;
/// When clients begin to send.
const START: Duration = s(1);
/// When all crash.
const DOWN: u64 = 5;
/// What the CPU needs at all: 10,000 x 20 ms / 10.
const NEEDED: f64 = 20.0;

impl Scenario for ReconnectStorm {
    fn number(&self) -> u32 {
        18
    }

    fn name(&self) -> &'static str {
        "reconnect_storm"
    }

    fn question(&self) -> &'static str {
        "Ten servers restart together, and ten thousand connections want to be made again: how fast are they, and how hard do \
         clients knock?"
    }

    fn setup(&self) -> String {
        "10 servers with one slot each, whose requests are next to no work (1 ms); 1,000 clients, each with a connection to each \
         server, send one request a second. At 5 s all servers crash, 2, 10 or 30 s later they are back, and from then on a handshake \
         takes 20 ms of the slot. 500 connections a second can be accepted, so 10,000 take 20 s at least. Connecting may take \
         1 s."
            .to_owned()
    }

    fn parameters(&self) -> &'static [Parameter] {
        &[Parameter { name: "down_s", values: &[2.0, 10.0, 30.0], means: "how long the servers are away" }]
    }

    fn contenders(&self) -> &'static [&'static str] {
        &["every_second", "each_for_itself", "mainstay"]
    }

    fn metrics(&self) -> &'static [&'static str] {
        &["connected95_s", "offered_peak", "offered", "recover_s", "success"]
    }

    fn run(&self, run: &Run) -> Outcome {
        let (down, back) = (s(DOWN), s(DOWN) + Duration::from_secs_f64(run.point.get("down_s")));
        let clients = ((f64::from(CLIENTS) * run.scale) as u32).max(10);
        let end = back + scaled(s(75), run.scale.max(0.5));
        simulate(run.seed, async |world| {
            let server = ServerOptions::default().slots(1).work(Distribution::constant_ms(1));
            let fleet = Fleet::builder().servers(SERVERS, server).build(&world).expect("valid servers");
            for server in (0..SERVERS).map(|server| fleet.server(server)) {
                world.at(down, move || {
                    server.set_handshake(HANDSHAKE);
                    server.crash();
                });
            }
            for server in (0..SERVERS).map(|server| fleet.server(server)) {
                world.at(back, move || server.start());
            }
            let recorder = Recorder::new();
            for client in 0..clients {
                let load = OpenLoop::poisson(1.0, end).client(client).from(START);
                let service = dialling(run.contender, &world, &fleet, client);
                let (world, recorder) = (world.clone(), recorder.clone());
                tokio::spawn(async move {
                    // One request to begin with, so that everybody is connected before the storm.
                    let service = started(service, u64::from(client)).await;
                    spawn_load(load, service, &world, &recorder);
                });
            }
            world.until(end).await;
            let measured = Measured::new(&recorder, &fleet, Duration::ZERO, end, s(1));
            let mut outcome = measured.outcome();
            let wanted = (u64::from(clients) * SERVERS as u64) as f64;
            let counts = |of: fn(&ServerHandle) -> Timeline| -> Vec<Timeline> {
                (0..SERVERS).map(|server| of(&fleet.server(server))).collect()
            };
            let (dialled, connected) =
                (counts(|server| server.dialled()), counts(|server| server.connected()));
            let between =
                |of: &[Timeline], from, to| of.iter().map(|one| one.between(from, to)).sum::<u64>() as f64;
            let steps = ((end - back).as_millis() / Timeline::STEP.as_millis()) as u32;
            let at = |step: u32| back + Timeline::STEP * step;
            let done = (1..=steps).find(|step| between(&connected, back, at(*step)) >= 0.95 * wanted);
            let peak = (0..steps.saturating_sub(9))
                .map(|step| between(&dialled, at(step), at(step) + s(1)))
                .fold(0.0, f64::max);
            outcome
                .metrics
                .insert("connected95_s", done.map_or(f64::INFINITY, |step| (at(step) - back).as_secs_f64()));
            outcome.metrics.insert("recover_s", measured.recovered(down, back));
            outcome.metrics.insert("offered_peak", peak / CAPACITY);
            outcome.metrics.insert("offered", between(&dialled, back, end) / wanted);
            for moment in &mut outcome.timeline {
                let from = Duration::from_secs_f64(moment.at);
                moment.attempts = between(&dialled, from, from + s(1));
            }
            outcome
        })
    }

    fn judge(&self, results: &Results) -> Vec<Claim> {
        let mut claims = Vec::new();
        for point in results.points() {
            let median = |metric| results.spread(&point, "mainstay", metric).map(|spread| spread.median);
            let owed = format!("{point}: 95 % connected within 3 x 20 s");
            claims.push(Claim::at_most(owed, median("connected95_s"), 3.0 * NEEDED));
            let owed = format!("{point}: never more than 2x what can be accepted offered in a second");
            claims.push(Claim::at_most(owed, median("offered_peak"), 2.0));
        }
        claims
    }

    fn remarks(&self) -> &'static str {
        "`every_second` is mainstay with a fixed redial of 1 s; `each_for_itself` has the default backoff of each endpoint and \
         no spread over the client. tower's `Reconnect` is left out: it dials again as soon as it is refused, 500 times a second \
         for each connection, which is more than a run may cost. Success is bounded by the time that the servers are away."
    }

    fn faults(&self, point: &Point) -> Vec<Fault> {
        vec![Fault { from: DOWN as f64, to: DOWN as f64 + point.get("down_s"), what: "all servers away" }]
    }

    fn chart(&self, results: &Results) -> Chart {
        let mut chart = Chart::over_time(self, results);
        for point in results.points() {
            let offered = |moment: &Moment| moment.attempts / CAPACITY;
            chart.panels.push(Panel {
                title: format!("Handshakes: {point}"),
                x: "seconds".to_owned(),
                y: "offered, by what can be accepted".to_owned(),
                lines: Line::over_time(results, &point, offered),
                bands: self.faults(&point).into_iter().map(Fault::into_band).collect(),
                ..Panel::default()
            });
        }
        chart
    }
}

/// A client that connects before it sends.
fn dialling(contender: &str, world: &World, fleet: &Fleet, number: u32) -> Sender {
    let (random, terms) = (world.random(format!("client {number}")), Terms::default());
    let mut options = BalanceOptions::default();
    if contender == "every_second" {
        options.redial = Backoff::fixed(s(1));
    }
    if contender != "mainstay" {
        options.redial_spread = Duration::ZERO;
    }
    let client =
        unconnected(fleet, terms, random, options).connect_with(fleet.dial()).build().expect("valid options");
    BoxService::new(client.map_err(Into::into))
}

/// Has sent its first request before anybody asks it to.
async fn started(mut service: Sender, client: u64) -> Sender {
    // That nobody answers well yet is no matter.
    let _ = match service.ready().await {
        Ok(service) => service.call(Request::new(u64::MAX - client)).await,
        Err(error) => Err(error),
    };
    service
}
