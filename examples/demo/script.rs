//! What happens to the servers, and when.

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::sleep_until;

use crate::{
    client::Client,
    server::{Mode, Server},
};

/// Servers at the start, and servers in all: the last two join later.
pub(crate) const AT_FIRST: usize = 10;
pub(crate) const IN_ALL: usize = 12;

/// From here on connections stand and the healthy p99 is measured ...
pub(crate) const WARM: Duration = Duration::from_millis(500);
/// ... until here, where the first server falls ill and the clients' figures begin.
pub(crate) const TROUBLE: Duration = STEPS[1].at;
/// The last request is sent.
pub(crate) const END: Duration = Duration::from_secs(27);

/// One line of the script.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) at: Duration,
    pub(crate) text: &'static str,
    action: Action,
}

#[derive(Clone, Debug)]
enum Action {
    Watch,
    Turn(usize, Mode),
    Recover(Range<usize>),
    Join(Range<usize>),
}

/// The script. The faults overlap: from 11.5 s to 17 s four servers of ten are bad at the same time.
pub(crate) const STEPS: [Step; 7] = [
    step(0, "ten healthy servers, two clients, the same load", Action::Watch),
    step(4_000, "server c becomes 100 times slower", Action::Turn(2, Mode::Slow)),
    step(6_500, "server e answers 500 at once", Action::Turn(4, Mode::Failing)),
    step(9_000, "server g is killed", Action::Turn(6, Mode::Down)),
    step(11_500, "server i accepts and never answers", Action::Turn(8, Mode::Hanging)),
    step(17_000, "all four recover", Action::Recover(0..AT_FIRST)),
    step(20_000, "two new servers join: k and l", Action::Join(AT_FIRST..IN_ALL)),
];

const fn step(milliseconds: u64, text: &'static str, action: Action) -> Step {
    Step { at: Duration::from_millis(milliseconds), text, action }
}

/// A server's name, by its place.
pub(crate) fn name(index: usize) -> char {
    ('a'..='z').nth(index).unwrap_or('?')
}

/// Plays the script to its last step.
pub(crate) async fn play<P: Client, M: Client>(
    start: Instant,
    servers: Arc<[Arc<Server>]>,
    plain: Arc<P>,
    mainstay: Arc<M>,
) {
    for step in &STEPS {
        sleep_until((start + step.at).into()).await;
        match step.action.clone() {
            Action::Watch => {}
            Action::Turn(index, mode) => servers[index].turn(mode),
            Action::Recover(those) => servers[those].iter().for_each(|server| server.turn(Mode::Normal)),
            Action::Join(those) => {
                servers[those.clone()].iter().for_each(|server| server.turn(Mode::Normal));
                let addresses: Vec<_> = servers[..those.end].iter().map(|server| server.address()).collect();
                plain.update(&addresses);
                mainstay.update(&addresses);
            }
        }
    }
}
