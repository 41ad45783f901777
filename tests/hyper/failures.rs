//! Requests when something is not well.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use crate::server::*;

fn all(fleet: &[Server]) -> Vec<Seen> {
    fleet.iter().flat_map(Server::seen).collect()
}

#[tokio::test]
async fn what_may_have_been_processed_is_repeated_elsewhere_only_if_that_is_harmless() {
    for protocol in PROTOCOLS {
        for mode in [Mode::Status(500, None), Mode::Break] {
            let fleet = fleet(protocol, 2).await;
            fleet[0].set(mode);
            let users = client(&fleet).await;
            let mut failed = 0;
            for _ in 0..12 {
                let before = all(&fleet).len();
                failed += usize::from(status(&users, post()).await.unwrap_or(500) == 500);
                assert_eq!(all(&fleet).len(), before + 1, "{protocol:?} {mode:?}");
            }
            assert_eq!(failed, fleet[0].count());
            assert!(failed > 0, "{protocol:?} {mode:?}");
            for _ in 0..12 {
                assert_eq!(status(&users, get()).await.unwrap(), 200, "{protocol:?} {mode:?}");
            }
        }
    }
}

#[tokio::test]
async fn the_number_of_the_attempt_is_on_the_second_and_not_on_the_first() {
    for protocol in PROTOCOLS {
        let fleet = fleet(protocol, 1).await;
        fleet[0].set(Mode::Status(500, None));
        let users = client(&fleet).await;
        assert_eq!(status(&users, get()).await.unwrap(), 500);
        let attempts: Vec<_> = all(&fleet).into_iter().map(|seen| seen.attempt).collect();
        assert_eq!(attempts, [None, Some("2".to_owned()), Some("3".to_owned())]);
    }
}

#[tokio::test]
async fn a_server_that_asks_for_time_gets_it() {
    for protocol in PROTOCOLS {
        let fleet = fleet(protocol, 2).await;
        fleet[0].set(Mode::Status(503, Some("300")));
        let users = client(&fleet).await;
        while fleet[0].count() == 0 {
            // The wait that it asks for does not fit the deadline: its answer comes at once.
            let answer = status(&users, get()).await.unwrap();
            assert_eq!(answer == 503, fleet[0].count() == 1);
        }
        for _ in 0..30 {
            assert_eq!(status(&users, get()).await.unwrap(), 200);
        }
        assert_eq!((fleet[0].count(), row(&users, &fleet[0]).word()), (1, "backing off"));
    }
}

#[tokio::test]
async fn a_server_that_is_killed_and_comes_back_costs_no_request() {
    for protocol in PROTOCOLS {
        let fleet = fleet(protocol, 3).await;
        let users = client(&fleet).await;
        let over = Arc::new(AtomicBool::new(false));
        let callers: Vec<_> = (0..4)
            .map(|_| {
                let (users, over) = (users.clone(), over.clone());
                tokio::spawn(async move {
                    while !over.load(SeqCst) {
                        assert_eq!(status(&users, get()).await.unwrap(), 200);
                    }
                })
            })
            .collect();
        for _ in 0..3 {
            fleet[0].kill().await;
            until(|| !row(&users, &fleet[0]).is_available()).await;
            fleet[0].revive().await;
            let before = fleet[0].count();
            until(|| fleet[0].count() > before).await;
        }
        over.store(true, SeqCst);
        for caller in callers {
            caller.await.unwrap();
        }
        assert_eq!(users.status().failures, 0);
    }
}

#[tokio::test]
async fn a_server_that_accepts_and_never_answers_is_cut_off_and_left_alone_after_five() {
    for protocol in PROTOCOLS {
        let fleet = fleet(protocol, 3).await;
        fleet[0].set(Mode::Hang);
        let users = client(&fleet).await;
        let mut options = users.options();
        options.balance.attempt_limit = Some(Duration::from_millis(400));
        users.update(options).unwrap();
        // None waits for another, so that all that hang are cut off at the same time.
        while row(&users, &fleet[0]).word() != "ejected" {
            let crowd = futures::future::join_all((0..12).map(|_| status(&users, get()))).await;
            assert!(crowd.iter().all(|answer| answer.as_ref().is_ok_and(|status| *status == 200)));
        }
        assert!(row(&users, &fleet[0]).failures >= 5);
        let before = fleet[0].count();
        for _ in 0..30 {
            assert_eq!(status(&users, get()).await.unwrap(), 200);
        }
        assert_eq!(fleet[0].count(), before);
        assert_eq!(row(&users, &fleet[0]).in_flight, 0);
    }
}

#[tokio::test]
async fn servers_that_shut_down_gracefully_cost_no_request_that_may_be_repeated() {
    for protocol in PROTOCOLS {
        let fleet = fleet(protocol, 2).await;
        let users = client(&fleet).await;
        let callers: Vec<_> = (0..8)
            .map(|_| {
                let users = users.clone();
                tokio::spawn(async move {
                    for _ in 0..100 {
                        assert_eq!(status(&users, get()).await.unwrap(), 200);
                    }
                })
            })
            .collect();
        // One after the other, as a rollout does.
        let mut turns = fleet.iter().cycle();
        while callers.iter().any(|caller| !caller.is_finished()) {
            turns.next().expect("it goes round").drain();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for caller in callers {
            caller.await.unwrap();
        }
        assert_eq!((users.status().successes, users.status().failures), (800, 0));
    }
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_costs_no_request_not_even_a_post() {
    for protocol in PROTOCOLS {
        let fleet = fleet(protocol, 2).await;
        let users = client(&fleet).await;
        for round in 0..20 {
            assert_eq!(status(&users, post()).await.unwrap(), 200, "{protocol:?} {round}");
            fleet.iter().for_each(Server::drain);
            until(|| fleet.iter().all(|server| server.connections() == 0)).await;
            // The runtime has nothing else to do: it looks at the sockets.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(all(&fleet).len(), 20);
    }
}

#[tokio::test]
async fn a_connection_that_closes_under_a_post_never_has_it_processed_twice() {
    for protocol in PROTOCOLS {
        let fleet = fleet(protocol, 2).await;
        let users = client(&fleet).await;
        for round in 0..50 {
            let before = all(&fleet).len();
            let answered = status(&users, post()).await.is_ok();
            // Over HTTP/1.1 nobody knows what became of a request that met the end of its connection.
            let processed = all(&fleet).len() - before;
            assert!(processed <= 1 && (processed == 1 || !answered), "{protocol:?} {round}");
            assert_eq!(status(&users, get()).await.unwrap(), 200, "{protocol:?} {round}");
            fleet.iter().for_each(Server::drain);
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
        }
    }
}

#[tokio::test]
async fn a_server_whose_health_page_fails_is_set_aside_before_a_request_finds_out() {
    use mainstay::{
        balance::BalanceOptions,
        health::{State, Trip},
        http::HttpCheck,
    };
    use std::time::Duration;
    for protocol in PROTOCOLS {
        let fleet = fleet(protocol, 3).await;
        fleet[1].set(Mode::Status(503, None));
        let mut options = BalanceOptions::default();
        options.connect_timeout = Duration::from_secs(30);
        let checks = &mut options.health.checks;
        (checks.interval, checks.timeout) = (Duration::from_millis(5), Duration::from_secs(30));
        (checks.unsure_interval, checks.idle_interval) = (checks.interval, checks.interval);
        let check = HttpCheck::get("http://users.internal:8080/healthz").unwrap();
        let users = builder(&fleet).balance(options).check(check).build().unwrap();
        users.ready().await.unwrap();
        until(|| matches!(row(&users, &fleet[1]).state, State::Ejected { why: Trip::Check, .. })).await;
        assert!(fleet[0].seen().iter().all(|seen| seen.host == "users.internal:8080"));
        assert_eq!(users.status().successes + users.status().failures, 0, "a check is no request");
    }
}
