//! Clients that send, and what they write down.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use mainstay::{
    Client,
    testing::{
        ClosedLoop, Connection, Description, Distribution, Fleet, OpenLoop, Recorder, Request, ServerOptions,
        Trouble, World, simulate,
    },
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn fleet(world: &World) -> Fleet {
    Fleet::builder().servers(3, ServerOptions::default()).build(world).unwrap()
}

fn client(world: &World, fleet: &Fleet) -> Client<Connection, Request> {
    Client::builder("test")
        .resolve(fleet.resolver())
        .connect(fleet.connect())
        .describe(Description)
        .random(world.random("client"))
        .build()
        .unwrap()
}

#[test]
fn an_open_loop_sends_at_its_times_whether_it_is_answered_or_not() {
    simulate(1, async |world| {
        let fleet = fleet(&world);
        (0..3).for_each(|server| fleet.server(server).trouble(1.0, Trouble::Hang));
        let recorder = Recorder::new();
        OpenLoop::evenly(100.0, SECOND * 10).run(&world, client(&world, &fleet), &recorder).await.unwrap();
        assert_eq!(world.now(), MS * 9_990, "the last is sent, and nobody has waited");
        recorder.idle().await;
        let summary = recorder.summary(Duration::ZERO, SECOND * 10);
        assert_eq!((summary.requests(), summary.successes()), (999, 0));
        let mut due: Vec<_> = recorder.records().iter().map(|record| record.due).collect();
        due.sort_unstable();
        assert!(due.iter().zip(1..).all(|(due, number)| *due == MS * 10 * number));
    });
}

#[test]
fn a_service_that_is_not_ready_does_not_make_requests_look_fast() {
    /// Ready once a second.
    struct Slow(tokio::time::Interval);
    impl tower::Service<Request> for Slow {
        type Response = mainstay::testing::Response;
        type Error = tower::BoxError;
        type Future = std::future::Ready<Result<Self::Response, Self::Error>>;
        fn poll_ready(
            &mut self,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Result<(), Self::Error>> {
            self.0.poll_tick(cx).map(|_| Ok(()))
        }
        fn call(&mut self, _: Request) -> Self::Future {
            std::future::ready(Err("no".into()))
        }
    }
    simulate(1, async |world| {
        let recorder = Recorder::new();
        let service = Slow(tokio::time::interval(SECOND));
        OpenLoop::evenly(10.0, SECOND * 2).run(&world, service, &recorder).await.unwrap();
        recorder.idle().await;
        let longest = recorder.summary(Duration::ZERO, SECOND * 2).quantile(1.0);
        assert!(longest > SECOND * 15, "{longest:?}");
    });
}

#[test]
fn a_closed_loop_has_so_many_in_flight_and_thinks_in_between() {
    simulate(1, async |world| {
        let options = ServerOptions::default().slots(None).work(Distribution::Constant(MS * 48));
        let fleet = Fleet::builder().servers(1, options).build(&world).unwrap();
        let recorder = Recorder::new();
        let load = ClosedLoop::new(4, SECOND).think(Distribution::Constant(MS * 50));
        load.run(&world, fleet.reach(0, 0), &recorder).await.unwrap();
        // Each takes 50 ms, and 50 ms pass before the next.
        let summary = recorder.summary(Duration::ZERO, SECOND);
        assert_eq!((summary.requests(), summary.quantile(1.0)), (40, MS * 50));
    });
}

#[test]
fn the_same_seed_gives_the_same_records_and_every_client_its_own() {
    let records = |seed, number| {
        simulate(seed, async move |world| {
            let (fleet, recorder) = (fleet(&world), Recorder::new());
            let load = OpenLoop::poisson(200.0, SECOND * 5).client(number);
            load.run(&world, client(&world, &fleet), &recorder).await.unwrap();
            recorder.idle().await;
            recorder.records()
        })
    };
    assert_eq!(records(1, 0), records(1, 0));
    assert_ne!(records(1, 0), records(2, 0));
    let times = |number| records(1, number).iter().map(|record| record.due).collect::<Vec<_>>();
    assert_ne!(times(0), times(1));
}

#[test]
fn work_and_trouble_follow_the_request_and_not_who_sends_it() {
    let worked = |others: u64| {
        simulate(3, async move |world| {
            let fleet = fleet(&world);
            let mut connection = fleet.reach(0, 1);
            for id in 0..others {
                let _ = tower::Service::call(&mut connection, Request::new(1_000 + id)).await;
            }
            tower::Service::call(&mut connection, Request::new(7)).await.unwrap().worked
        })
    };
    assert_eq!(worked(0), worked(5));
}

#[test]
fn an_action_of_the_world_may_trouble_a_server_while_requests_are_under_way() {
    simulate(1, async |world| {
        let fleet = fleet(&world);
        let (recorder, seen) = (Recorder::new(), Arc::new(Mutex::new(0)));
        for server in 0..3 {
            let (handle, own) = (fleet.server(server), seen.clone());
            world.at(SECOND * 2, move || {
                handle.set_speed(0.1).unwrap();
                *own.lock().unwrap() += handle.in_flight();
            });
        }
        OpenLoop::poisson(100.0, SECOND * 4).run(&world, client(&world, &fleet), &recorder).await.unwrap();
        recorder.idle().await;
        let before = recorder.summary(SECOND, SECOND * 2).quantile(0.5);
        let after = recorder.summary(SECOND * 3, SECOND * 4).quantile(0.5);
        assert!(after > before * 5 && *seen.lock().unwrap() > 0, "{before:?} {after:?}");
    });
}
