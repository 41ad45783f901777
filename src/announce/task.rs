//! The task that keeps an announcement.

use std::{pin::pin, sync::Arc, time::Duration};

use futures::future::{Either, select};
use tokio::sync::watch;

#[cfg(feature = "etcd")]
use super::etcd;
#[cfg(feature = "zookeeper")]
use super::zookeeper;
use super::{
    Announce, State,
    check::{Fitness, ask_for_ever},
    state::{Order, Report, Wanted},
};
use crate::{
    error::Cause,
    random::below,
    registry::{Instance, Pace, Trouble},
};

/// How long a withdrawal may take that somebody waits for.
const WITHDRAWAL: Duration = Duration::from_secs(5);
/// How long one may take that nobody waits for.
const FAREWELL: Duration = Duration::from_millis(800);
/// Which part of that one server may take: there may be another one that is well.
const SHARE: f32 = 0.4;
/// How long to rest at least before a registry is tried again.
const LEAST_REST: Duration = Duration::from_millis(20);

/// An entry in a registry.
pub(super) enum Registrar {
    #[cfg(feature = "etcd")]
    Etcd(etcd::Entry),
    #[cfg(feature = "zookeeper")]
    ZooKeeper(Box<zookeeper::Entry>),
}

impl Registrar {
    /// Enters it, and keeps it until it is not wanted any more; then takes it out.
    async fn hold(
        &mut self,
        turn: usize,
        wanted: &mut Wanted,
        report: &Report,
        pace: &mut Pace,
    ) -> Result<(), Trouble> {
        match self {
            #[cfg(feature = "etcd")]
            Self::Etcd(entry) => entry.hold(turn, wanted, report, pace).await,
            #[cfg(feature = "zookeeper")]
            Self::ZooKeeper(entry) => entry.hold(turn, wanted, report, pace).await,
        }
    }

    /// Whether it may stand in the registry although nobody holds it.
    fn remains(&self) -> bool {
        match self {
            #[cfg(feature = "etcd")]
            Self::Etcd(entry) => entry.remains(),
            #[cfg(feature = "zookeeper")]
            Self::ZooKeeper(entry) => entry.remains(),
        }
    }

    /// From now on it is entered as `instance`.
    fn renew(&mut self, instance: &Instance) {
        match self {
            #[cfg(feature = "etcd")]
            Self::Etcd(entry) => entry.renew(instance),
            #[cfg(feature = "zookeeper")]
            Self::ZooKeeper(entry) => entry.renew(instance),
        }
    }

    /// Takes out what remains.
    async fn remove(&mut self, turn: usize) -> Result<(), Trouble> {
        match self {
            #[cfg(feature = "etcd")]
            Self::Etcd(entry) => entry.remove(turn).await,
            #[cfg(feature = "zookeeper")]
            Self::ZooKeeper(entry) => entry.remove(turn).await,
        }
    }
}

/// Keeps the announcement until it is withdrawn or dropped.
pub(super) async fn run(announce: Announce, mut wanted: Wanted, report: Report) -> Result<(), Cause> {
    let end = wanted.order.clone();
    let registrar = announce.registrar();
    let Announce { options, check, random, .. } = announce;
    let turn = below(random.next() as u32, u32::from(u16::MAX)) as usize;
    let pace = Pace::new(options.backoff, random.clone());
    let checking = check.map(|(options, ask)| {
        let (tell, told) = watch::channel(Fitness::Unknown);
        wanted.fitness = Some(told);
        ask_for_ever(ask, options, tell, random)
    });
    let checking = async {
        if let Some(checking) = checking {
            checking.await;
        }
        std::future::pending::<()>().await;
    };
    let kept = {
        let (keeping, checking) = (pin!(keep(registrar, turn, wanted, &report, pace)), pin!(checking));
        let working = pin!(select(keeping, checking));
        match select(working, pin!(out_of_time(end, 1.0))).await {
            Either::Left((Either::Left(_), _)) => Ok(()),
            _ => Err(match &*report.states.borrow() {
                State::Lost(cause) => cause.clone(),
                _ => late(),
            }),
        }
    };
    report.tell(State::Withdrawn);
    kept
}

/// Until a withdrawal has taken `share` of the time that it may take.
async fn out_of_time(mut order: watch::Receiver<Order>, share: f32) {
    let patience = match order.wait_for(|order| matches!(order, Order::Withdraw)).await {
        Ok(_) => WITHDRAWAL,
        Err(_) => FAREWELL,
    };
    tokio::time::sleep(patience.mul_f32(share)).await;
}

fn late() -> Cause {
    Arc::from(tower::BoxError::from("no answer in time"))
}

async fn keep(
    mut registrar: Registrar,
    mut turn: usize,
    mut wanted: Wanted,
    report: &Report,
    mut pace: Pace,
) {
    loop {
        if let Some(instance) = wanted.renewed() {
            registrar.renew(&instance);
        }
        let is_wanted = wanted.is();
        if !is_wanted && !registrar.remains() {
            if wanted.is_over() {
                return;
            }
            report.tell(wanted.unwanted());
            wanted.changed().await;
            continue;
        }
        let end = wanted.order.clone();
        let trying = async {
            match is_wanted {
                true => registrar.hold(turn, &mut wanted, report, &mut pace).await,
                false => registrar.remove(turn).await,
            }
        };
        let done = match select(pin!(trying), pin!(out_of_time(end, SHARE))).await {
            Either::Left((done, _)) => done.map_err(|trouble| Arc::new(trouble) as Cause),
            Either::Right(_) => Err(late()),
        };
        if let Err(cause) = done {
            report.tell(State::Lost(cause));
            turn = turn.wrapping_add(1);
            // A change of what is wanted cuts the rest short, but never to nothing.
            select(pin!(pace.rest()), pin!(wanted.differs(is_wanted))).await;
            tokio::time::sleep(LEAST_REST).await;
        }
    }
}
