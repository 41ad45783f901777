//! A registry whose servers come and go, and servers that are cold when they come.

use std::{
    collections::BTreeSet,
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use mainstay::{
    resolve::{Channel, Feed, channel},
    testing::{Fleet, ServerHandle, World},
};

use super::stage::s;

/// A server that has just started is slower by 1 + 4 e^(-t / 10 s): told to it in steps, until that is next to nothing.
const STEP: Duration = Duration::from_millis(500);
const WARMS: Duration = s(50);

/// Who is there, and the clients that are told.
#[derive(Clone)]
pub struct Registry {
    fleet: Fleet,
    state: Arc<Mutex<(BTreeSet<usize>, Vec<Feed>)>>,
}

impl Registry {
    /// These servers are there.
    pub fn of(fleet: &Fleet, servers: Range<usize>) -> Self {
        let state = Arc::new(Mutex::new((servers.collect(), Vec::new())));
        Self { fleet: fleet.clone(), state }
    }

    /// What one client sees.
    pub fn watched(&self) -> Channel {
        let (feed, channel) = channel();
        let mut state = self.state.lock().expect("nobody panics");
        self.tell(&state.0, &feed);
        state.1.push(feed);
        channel
    }

    fn tell(&self, present: &BTreeSet<usize>, feed: &Feed) {
        feed.set(present.iter().map(|server| self.fleet.endpoint(*server)));
    }

    /// A server comes or goes, for all clients at once.
    pub fn change(&self, server: usize, present: bool) {
        let mut state = self.state.lock().expect("nobody panics");
        if present {
            state.0.insert(server);
        } else {
            state.0.remove(&server);
        }
        state.1.iter().for_each(|feed| self.tell(&state.0, feed));
    }
}

/// `server` is cold at `start`, and gets warm.
pub fn warms_up(world: &World, server: ServerHandle, start: Duration) {
    for step in 0..(WARMS.as_millis() / STEP.as_millis()) as u32 {
        let (cold, since) = (server.clone(), STEP * step);
        let slower = 1.0 + 4.0 * (-since.as_secs_f64() / 10.0).exp();
        world.at(start + since, move || cold.set_speed(1.0 / slower).expect("a valid speed"));
    }
    world.at(start + WARMS, move || server.set_speed(1.0).expect("a valid speed"));
}
