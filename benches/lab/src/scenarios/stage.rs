//! What most experiments have in common.

use std::time::Duration;

use mainstay::testing::{Fleet, OpenLoop, Recorder, World, simulate};

use crate::{
    contender::{Terms, sender},
    measure::Measured,
    scenario::{Outcome, Run},
};

/// How long a run goes before it is measured.
pub const WARM_UP: Duration = Duration::from_secs(5);
/// How long it is measured.
pub const MEASURED: Duration = Duration::from_secs(60);

/// Clients that send Poisson streams to a fleet, each with the same share of the rate.
pub struct Stage {
    pub clients: u32,
    /// Requests a second, of all clients together.
    pub rate: f64,
    pub terms: Terms,
    pub warm_up: Duration,
    pub measured: Duration,
}

impl Stage {
    /// With the usual terms and times.
    pub fn new(clients: u32, rate: f64) -> Self {
        Self { clients, rate, terms: Terms::default(), warm_up: WARM_UP, measured: MEASURED }
    }

    /// When the measurement ends.
    pub fn end(&self) -> Duration {
        self.warm_up + self.measured
    }

    /// Measures a share of the usual time.
    #[must_use]
    pub fn scaled(mut self, scale: f64) -> Self {
        self.measured = scaled(self.measured, scale);
        self
    }

    /// When so much of the measurement is over, in the world's time.
    pub fn at(&self, measured: Duration) -> Duration {
        self.warm_up + measured
    }

    /// Lets `run`'s contender send to the fleet that `fleet` makes, and measures.
    pub fn play(self, run: &Run, fleet: impl FnOnce(&World) -> Fleet) -> Outcome {
        self.play_and(run, fleet, |measured| measured.outcome())
    }

    /// The same with more to be measured.
    pub fn play_and(
        self,
        run: &Run,
        fleet: impl FnOnce(&World) -> Fleet,
        measure: impl FnOnce(&Measured<'_>) -> Outcome,
    ) -> Outcome {
        simulate(run.seed, async |world| {
            let (fleet, recorder) = (fleet(&world), Recorder::new());
            let end = self.end();
            for client in 0..self.clients {
                let service = sender(run.contender, &world, &fleet, client, self.terms);
                let load = OpenLoop::poisson(self.rate / f64::from(self.clients), end).client(client);
                spawn_load(load, service, &world, &recorder);
            }
            world.until(end).await;
            recorder.idle().await;
            measure(&Measured::new(&recorder, &fleet, self.warm_up, end, self.terms.attempt_limit))
        })
    }
}

/// Sends in the background.
pub fn spawn_load(load: OpenLoop, service: crate::contender::Sender, world: &World, recorder: &Recorder) {
    let (world, recorder) = (world.clone(), recorder.clone());
    tokio::spawn(async move {
        load.run(&world, service, &recorder).await.expect("the loads of the scenarios hold together");
    });
}

/// A share of a length of time: the short version of a run.
pub fn scaled(time: Duration, scale: f64) -> Duration {
    Duration::from_millis((time.as_secs_f64() * scale * 1e3) as u64)
}

/// Seconds.
pub const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
