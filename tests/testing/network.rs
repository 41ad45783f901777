//! What lies between.

use std::time::Duration;

use mainstay::testing::{Distribution, Fleet, Request, ServerOptions, World, simulate};
use tower::Service as _;

const MS: Duration = Duration::from_millis(1);

fn fleet(world: &World) -> Fleet {
    let options = ServerOptions::default().work(Distribution::Constant(MS * 20));
    Fleet::builder().servers(2, options).delay(MS * 5).build(world).unwrap()
}

#[test]
fn a_delay_counts_both_ways_and_may_differ_by_link() {
    simulate(1, async |world| {
        let fleet = fleet(&world);
        let took = async |place, server| {
            let before = world.now();
            fleet.reach(place, server).call(Request::new(1)).await.unwrap();
            world.now() - before
        };
        assert_eq!(took(0, 0).await, MS * 30);
        fleet.set_more_delay(1, 0, MS * 10);
        assert_eq!((took(0, 0).await, took(1, 0).await, took(1, 1).await), (MS * 30, MS * 50, MS * 30));
        fleet.set_delay(MS);
        assert_eq!(took(0, 1).await, MS * 22);
    });
}

#[test]
fn a_cut_link_loses_messages_of_its_place_alone_even_those_on_their_way_back() {
    simulate(1, async |world| {
        let fleet = fleet(&world);
        let call = |place, server| {
            tokio::time::timeout(MS * 1_000, fleet.reach(place, server).call(Request::new(1)))
        };
        fleet.cut(1, 0, true);
        let (cut, other_server, other_place) = tokio::join!(call(1, 0), call(1, 1), call(0, 0));
        assert!(cut.is_err() && other_server.is_ok() && other_place.is_ok());
        assert_eq!(fleet.server(0).tally().received, 1);
        fleet.cut(1, 0, false);
        assert!(call(1, 0).await.is_ok());
        let while_it_works = fleet.clone();
        world.after(MS * 10, move || while_it_works.cut(0, 1, true));
        assert!(call(0, 1).await.is_err());
        assert_eq!(fleet.server(1).tally().served, 2);
    });
}
