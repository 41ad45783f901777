//! What servers do to requests.

use std::time::Duration;

use mainstay::testing::{
    Connection, Distribution, Fault, FaultKind, Fleet, Request, Response, ServerOptions, Trouble, World,
    simulate,
};
use tower::{Service as _, ServiceExt as _};

const MS: Duration = Duration::from_millis(1);

/// Servers with one slot, whose requests are 20 ms of work, and a network of 1 ms.
fn fleet(world: &World, servers: usize) -> Fleet {
    let options = ServerOptions::default().slots(1).work(Distribution::Constant(MS * 20));
    Fleet::builder().servers(servers, options).build(world).unwrap()
}

async fn send(connection: &Connection, id: u64) -> Result<Response, Fault> {
    connection.clone().ready().await?.call(Request::new(id)).await
}

fn kind(result: &Result<Response, Fault>) -> Option<FaultKind> {
    result.as_ref().err().map(|fault| fault.kind)
}

#[test]
fn a_request_takes_its_work_its_wait_and_both_ways() {
    simulate(1, async |world| {
        let fleet = fleet(&world, 1);
        let connection = fleet.reach(0, 0);
        let (first, second) = tokio::join!(send(&connection, 1), send(&connection, 2));
        assert_eq!(world.now(), MS * 42);
        let (first, second) = (first.unwrap(), second.unwrap());
        assert_eq!((first.waited, first.worked, first.in_flight), (Duration::ZERO, MS * 20, 1));
        assert_eq!((second.waited, second.worked, second.in_flight), (MS * 20, MS * 20, 0));
        let tally = fleet.server(0).tally();
        assert_eq!((tally.received, tally.served, tally.worked), (2, 2, MS * 40));
    });
}

#[test]
fn each_trouble_is_told_as_what_it_is() {
    simulate(1, async |world| {
        let fleet = fleet(&world, 1);
        let (connection, server) = (fleet.reach(0, 0), fleet.server(0));
        let troubles = [
            (Trouble::Fail, FaultKind::Failed, 2),
            (Trouble::FailLate, FaultKind::Failed, 22),
            (Trouble::BackOff(Some(MS)), FaultKind::BackOff(Some(MS)), 2),
            (Trouble::Reject, FaultKind::Rejected, 2),
            (Trouble::Reset, FaultKind::Reset, 2),
        ];
        for (trouble, expected, millis) in troubles {
            server.trouble(1.0, trouble);
            let before = world.now();
            assert_eq!(kind(&send(&connection, 1).await), Some(expected));
            assert_eq!(world.now() - before, MS * millis, "{trouble:?}");
            server.recover();
        }
        server.trouble(1.0, Trouble::Hang);
        assert!(tokio::time::timeout(MS * 60_000, send(&connection, 1)).await.is_err());
        server.recover();
        send(&connection, 1).await.unwrap();
    });
}

#[test]
fn trouble_meets_the_share_and_the_operation_that_it_is_for() {
    simulate(1, async |world| {
        let fleet = fleet(&world, 1);
        let mut connection = fleet.reach(0, 0);
        fleet.server(0).trouble_for("search", 0.25, Trouble::Fail);
        let mut failed = 0;
        for id in 0..2_000 {
            failed += u32::from(connection.call(Request::new(id).operation("search")).await.is_err());
            connection.call(Request::new(id).operation("get")).await.unwrap();
        }
        assert!((440..560).contains(&failed), "{failed}");
    });
}

#[test]
fn a_frozen_server_answers_late_and_loses_nothing() {
    simulate(1, async |world| {
        let fleet = fleet(&world, 1);
        let (connection, server) = (fleet.reach(0, 0), fleet.server(0));
        world.at(MS * 11, move || server.freeze(MS * 500));
        send(&connection, 1).await.unwrap();
        assert_eq!(world.now(), MS * 522);
    });
}

#[test]
fn a_crash_resets_what_is_there_refuses_what_comes_and_ends_connections() {
    simulate(1, async |world| {
        let fleet = fleet(&world, 1);
        let (undialled, server) = (fleet.reach(0, 0), fleet.server(0));
        let endpoint = std::sync::Arc::new(fleet.endpoint(0));
        let dialled = fleet.dial().call(endpoint.clone()).await.unwrap();
        send(&dialled, 1).await.unwrap();
        let crash = server.clone();
        world.after(MS * 5, move || crash.restart(MS * 100));
        assert_eq!(kind(&send(&undialled, 2).await), Some(FaultKind::Reset));
        assert_eq!(kind(&send(&undialled, 3).await), Some(FaultKind::Refused));
        assert_eq!(kind(&send(&dialled, 4).await), Some(FaultKind::Closed));
        assert_eq!(fleet.dial().call(endpoint.clone()).await.unwrap_err().kind, FaultKind::Refused);
        world.until(MS * 200).await;
        send(&undialled, 5).await.unwrap();
        assert_eq!(kind(&send(&dialled, 6).await), Some(FaultKind::Closed), "of an earlier life");
        let again = fleet.dial().call(endpoint).await.unwrap();
        send(&again, 7).await.unwrap();
        assert_eq!(server.in_flight(), 0);
    });
}

#[test]
fn a_draining_server_finishes_what_it_has_and_takes_nothing_new() {
    simulate(1, async |world| {
        let fleet = fleet(&world, 1);
        let (connection, server) = (fleet.reach(0, 0), fleet.server(0));
        let drain = server.clone();
        world.at(MS * 5, move || drain.drain());
        send(&connection, 1).await.unwrap();
        assert_eq!(kind(&send(&connection, 2).await), Some(FaultKind::Refused));
        server.start();
        send(&connection, 3).await.unwrap();
    });
}

#[test]
fn who_gives_up_leaves_the_queue_when_the_server_hears_of_it() {
    simulate(1, async |world| {
        let fleet = fleet(&world, 1);
        let (connection, server) = (fleet.reach(0, 0), fleet.server(0));
        let first = tokio::spawn({
            let connection = connection.clone();
            async move { send(&connection, 1).await }
        });
        tokio::task::yield_now().await;
        let second = tokio::time::timeout(MS * 10, send(&connection, 2)).await;
        assert!(second.is_err());
        assert_eq!(server.queued(), 1, "the word is on its way");
        world.until(MS * 12).await;
        assert_eq!((server.queued(), server.tally().given_up), (0, 1));
        first.await.unwrap().unwrap();
        // One who is worked on keeps the slot to the end, for nobody.
        let third = tokio::time::timeout(MS * 10, send(&connection, 3)).await;
        assert!(third.is_err());
        send(&connection, 4).await.unwrap();
        assert_eq!(server.tally().wasted, 1);
    });
}

#[test]
fn a_connection_is_accepted_when_its_handshake_has_been_worked_on() {
    simulate(1, async |world| {
        let options = ServerOptions::default().slots(1).handshake(MS * 20);
        let fleet = Fleet::builder().servers(1, options).build(&world).unwrap();
        let dial = || fleet.dial().call(std::sync::Arc::new(fleet.endpoint(0)));
        let (one, other) = tokio::join!(dial(), dial());
        assert!(one.is_ok() && other.is_ok());
        assert_eq!(world.now(), MS * 42);
        let accepted: u64 = fleet.server(0).connected().steps().iter().sum();
        assert_eq!((accepted, fleet.server(0).tally().handshakes), (2, 2));
    });
}

#[test]
fn servers_that_make_no_sense_are_told_all_at_once() {
    simulate(1, async |world| {
        let wrong = ServerOptions::default().slots(0).speed(f64::NAN);
        let invalid = Fleet::builder().servers(1, wrong).build(&world).unwrap_err();
        let fields: Vec<_> = invalid.problems().iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(fields, ["servers.slots", "servers.speed"]);
        assert!(fleet(&world, 1).server(0).set_speed(-1.0).is_err());
    });
}
