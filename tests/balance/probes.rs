//! Asking endpoints for their load beside the requests.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use mainstay::{
    Endpoint, Ratio,
    balance::{Balance, BalanceOptions, ProbeOptions},
    budget::{Budget, BudgetOptions},
    report::Report,
    resolve::{self, Channel, Resolution, Resolve},
};
use tokio::runtime::Builder;
use tower::BoxError;

use crate::stage::*;

/// Whom it was that was asked.
#[derive(Clone, Debug, Default)]
struct Asked(Arc<Mutex<BTreeMap<String, u32>>>);

impl Asked {
    fn note(&self, endpoint: &Endpoint) {
        *self.0.lock().unwrap().entry(endpoint.address().to_string()).or_default() += 1;
    }

    fn all(&self) -> u32 {
        self.0.lock().unwrap().values().sum()
    }

    fn of(&self, name: &str) -> u32 {
        self.0.lock().unwrap().get(name).copied().unwrap_or_default()
    }
}

fn asking(change: impl FnOnce(ProbeOptions) -> ProbeOptions) -> BalanceOptions {
    let probes = change(ProbeOptions::default().share(Ratio::percent::<50>()));
    options(|options| (options.reports, options.probes) = (true, probes))
}

fn ample() -> Budget {
    Budget::new(BudgetOptions::default().reserve(1_000_000)).unwrap()
}

/// A client of these, of whom all say that seven requests are there.
fn client(stage: &Stage, names: &[&str], asked: &Asked, budget: Budget, options: BalanceOptions) -> Client {
    let asked = asked.clone();
    let builder = stage.builder(resolve::fixed(names.to_vec())).options(options);
    let builder = builder.probe(budget, move |_, endpoint| {
        asked.note(&endpoint);
        async { Some(Report::default().in_flight(7)) }
    });
    builder.build().unwrap()
}

async fn send(client: &Client, count: usize) {
    for _ in 0..count {
        client.send(0).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_share_of_the_requests_is_asked_of_all_of_them_alike_and_its_answer_counts() {
    let (stage, asked) = (Stage::default(), Asked::default());
    let client = client(&stage, &["a:1", "b:1", "c:1", "d:1"], &asked, ample(), asking(|own| own));
    send(&client, 1_000).await;
    tokio::time::sleep(ms(60)).await;
    assert!((490..=500).contains(&asked.all()), "{asked:?}");
    assert!(["a:1", "b:1", "c:1", "d:1"].iter().all(|name| (85..170).contains(&asked.of(name))), "{asked:?}");
    let status = client.status();
    assert_eq!(status.probes, u64::from(asked.all()));
    assert!(status.endpoints.iter().all(|endpoint| endpoint.others_in_flight == Some(7)), "{status:?}");
}

/// A resolver that counts how often it is polled: as often as the background task is awake.
struct Counting(Channel, Arc<AtomicUsize>);

impl Resolve for Counting {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Resolution>> {
        self.1.fetch_add(1, SeqCst);
        self.0.poll_next(cx)
    }

    fn describe(&self) -> String {
        self.0.describe()
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_at_rest_is_hardly_woken_to_look_how_many_are_due_and_asks_again_after_it() {
    let (stage, asked, polled) = (Stage::default(), Asked::default(), Arc::new(AtomicUsize::new(0)));
    let (_feed, channel) = fed(["a:1", "b:1"]);
    let noting = asked.clone();
    let client = stage
        .builder(Counting(channel, polled.clone()))
        .options(asking(|own| own))
        .probe(ample(), move |_, endpoint| {
            noting.note(&endpoint);
            async { None }
        })
        .build()
        .unwrap();
    send(&client, 100).await;
    assert!(asked.all() >= 35, "{asked:?}");
    tokio::time::sleep(secs(2)).await;
    polled.store(0, SeqCst);
    let before = asked.all();
    tokio::time::sleep(secs(60)).await;
    assert!(polled.load(SeqCst) <= 200, "{polled:?}");
    assert_eq!(asked.all(), before);
    send(&client, 200).await;
    assert!(asked.all() >= before + 35, "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_while_there_are_no_requests_or_nothing_goes_by_it() {
    let (stage, asked) = (Stage::default(), Asked::default());
    let client = client(&stage, &["a:1", "b:1"], &asked, ample(), asking(|own| own));
    send(&client, 1).await;
    tokio::time::sleep(secs(60)).await;
    assert_eq!(asked.all(), 0);
    let mut off = client.options();
    off.reports = false;
    client.update(off).unwrap();
    send(&client, 100).await;
    tokio::time::sleep(secs(1)).await;
    assert_eq!(asked.all(), 0);
    client.update(asking(|own| own)).unwrap();
    send(&client, 100).await;
    tokio::time::sleep(secs(1)).await;
    assert!(asked.all() >= 35, "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn it_is_looked_as_often_as_the_options_say_that_are_in_force() {
    let (stage, asked) = (Stage::default(), Asked::default());
    let rarely = asking(|own| own.every(secs(36_000)));
    let client = client(&stage, &["a:1", "b:1"], &asked, ample(), rarely);
    send(&client, 1).await;
    tokio::time::sleep(secs(1)).await;
    client.update(asking(|own| own)).unwrap();
    send(&client, 100).await;
    tokio::time::sleep(secs(1)).await;
    assert!(asked.all() >= 10, "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn each_question_is_paid_for() {
    let (stage, asked) = (Stage::default(), Asked::default());
    let budget = Budget::new(BudgetOptions::default().reserve(7)).unwrap();
    let client = client(&stage, &["a:1", "b:1"], &asked, budget.clone(), asking(|own| own));
    send(&client, 400).await;
    tokio::time::sleep(ms(60)).await;
    // Nobody has paid in.
    assert_eq!(asked.all(), 7);
    assert_eq!(budget.available(mainstay::clock::now()), 0);
}

#[test]
fn what_was_asked_stays_paid_for_when_its_runtime_ends_and_is_under_way_no_more() {
    let budget = Budget::new(BudgetOptions::default().reserve(50)).unwrap();
    for (budget, returned) in [(budget, false), (Budget::envoy(Ratio::ZERO, 50), true)] {
        let (stage, asked) = (Stage::default(), Asked::default());
        let noting = asked.clone();
        let client = stage
            .builder(resolve::fixed(["a:1", "b:1"]))
            .options(asking(|own| own.timeout(secs(3_600))))
            .probe(budget.clone(), move |_, endpoint| {
                noting.note(&endpoint);
                std::future::pending()
            })
            .build()
            .unwrap();
        let available = || budget.available(mainstay::clock::now());
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(send(&client, 100));
        assert!(asked.all() >= 10, "{asked:?}");
        drop(runtime);
        assert_eq!(available(), if returned { 50 } else { 50 - asked.all() });
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_late_says_nothing_and_no_more_than_so_many_are_waited_for() {
    let (stage, asked) = (Stage::default(), Asked::default());
    let noting = asked.clone();
    let slow = asking(|own| own.most(3).timeout(secs(1)));
    let builder = stage.builder(resolve::fixed(["a:1", "b:1", "c:1", "d:1", "e:1"])).options(slow);
    let client = builder
        .probe(ample(), move |_, endpoint| {
            noting.note(&endpoint);
            async {
                tokio::time::sleep(Duration::from_secs(2)).await;
                Some(Report::default().in_flight(7))
            }
        })
        .build()
        .unwrap();
    send(&client, 60).await;
    assert_eq!(asked.all(), 3, "within the first second");
    tokio::time::sleep(secs(5)).await;
    assert!(client.status().endpoints.iter().all(|endpoint| endpoint.others_in_flight.is_none()));
}

#[tokio::test(start_paused = true)]
async fn one_that_is_set_aside_is_not_asked() {
    let (stage, asked) = (Stage::default(), Asked::default());
    let client = client(&stage, &["a:1", "b:1"], &asked, ample(), asking(|own| own));
    send(&client, 1).await;
    let aside = client.status().endpoints[0].endpoint.identity().clone();
    client.endpoint(&aside).unwrap().drain();
    tokio::time::sleep(ms(60)).await;
    send(&client, 200).await;
    assert_eq!(asked.of("a:1"), 0);
    assert!(asked.of("b:1") >= 20, "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn those_of_a_priority_that_no_request_goes_to_are_not_asked_until_one_does() {
    let (stage, asked) = (Stage::default(), Asked::default());
    let noting = asked.clone();
    let (feed, channel) = resolve::channel();
    let of = |name: &str, priority| Endpoint::new(name).with_priority(priority);
    feed.set([of("a:1", 0), of("b:1", 1), of("c:1", 1), of("d:1", 1)]);
    let client = stage
        .builder(channel)
        .options(asking(|own| own))
        .probe(ample(), move |_, endpoint| {
            noting.note(&endpoint);
            async { None }
        })
        .build()
        .unwrap();
    send(&client, 100).await;
    assert!(asked.of("a:1") >= 15 && asked.all() == asked.of("a:1"), "{asked:?}");
    let first = client.status().endpoints[0].endpoint.identity().clone();
    client.endpoint(&first).unwrap().drain();
    let before = asked.of("a:1");
    send(&client, 100).await;
    assert!(asked.of("a:1") <= before + 1 && asked.of("b:1") >= 5, "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_ends_with_the_last_handle() {
    let (stage, held) = (Stage::default(), Arc::new(()));
    let in_question = held.clone();
    let builder =
        stage.builder(resolve::fixed(["a:1", "b:1"])).options(asking(|own| own.timeout(secs(3_600))));
    let client = builder
        .probe(ample(), move |_, _| {
            let held = in_question.clone();
            async move {
                std::future::pending::<()>().await;
                drop(held);
                None
            }
        })
        .build()
        .unwrap();
    send(&client, 100).await;
    assert!(Arc::strong_count(&held) > 2);
    drop(client);
    tokio::time::sleep(secs(1)).await;
    assert_eq!(Arc::strong_count(&held), 1);
}

/// The paused clock stands still while the background task works; this one does not.
#[tokio::test]
async fn on_a_clock_that_runs_endpoints_are_asked_too() {
    let (stage, asked) = (Stage::default(), Asked::default());
    ["a:1", "b:1"].iter().for_each(|name| stage.server(name).set(Mode::Answer(ms(1))));
    let client = client(&stage, &["a:1", "b:1"], &asked, ample(), asking(|own| own.every(ms(10))));
    let until_asked = async {
        while asked.all() == 0 {
            send(&client, 1).await;
        }
    };
    tokio::time::timeout(secs(10), until_asked).await.expect("somebody is asked");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_tells_its_load_at_its_end_counts_once() {
    let asked = Asked::default();
    let noting = asked.clone();
    let client = Balance::builder(resolve::fixed(["a:1", "b:1", "c:1", "d:1", "e:1", "f:1", "g:1", "h:1"]))
        .connect(|_: &Endpoint| {
            tower::service_fn(|_: u32| async {
                tokio::time::sleep(ms(10)).await;
                Ok::<_, BoxError>(Late::default())
            })
        })
        .track(Keep)
        .options(asking(|own| own))
        .probe(ample(), move |_, endpoint| {
            noting.note(&endpoint);
            async { None }
        })
        .build()
        .unwrap();
    for _ in 0..200 {
        let guard = client.send(0).await.unwrap().0.unwrap();
        guard.report(Report::default().in_flight(3));
    }
    tokio::time::sleep(ms(60)).await;
    assert!((90..=100).contains(&asked.all()), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn a_question_that_panics_says_nothing_and_is_paid_for_and_all_else_goes_on() {
    let (stage, asked) = (Stage::default(), Asked::default());
    let (feed, channel) = fed(["a:1", "b:1"]);
    let budget = Budget::new(BudgetOptions::default().reserve(1_000)).unwrap();
    let noting = asked.clone();
    let client = stage
        .builder(channel)
        .options(asking(|own| own))
        .probe(budget.clone(), move |_, endpoint| {
            noting.note(&endpoint);
            assert!(noting.all() % 2 == 0, "at once");
            async {
                tokio::time::sleep(ms(1)).await;
                panic!("later");
            }
        })
        .build()
        .unwrap();
    send(&client, 8).await;
    ["a:1", "b:1"].iter().for_each(|name| stage.server(name).gate(Gate::Shut));
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.send(0).await }
    });
    tokio::time::sleep(ms(100)).await;
    assert!(asked.all() >= 2, "{asked:?}");
    assert_eq!(budget.available(mainstay::clock::now()), 1_000 - asked.all());
    feed.set(["a:1", "b:1", "c:1"]);
    let found = tokio::time::timeout(secs(1), waiting).await.expect("what is new is used").unwrap();
    assert_eq!(found.unwrap(), "c:1");
}

#[tokio::test(start_paused = true)]
async fn what_servers_have_said_when_asked_holds_until_they_are_asked_again_and_those_alike_get_alike() {
    let (stage, asked) = (Stage::default(), Asked::default());
    let names = ["a:1", "b:1", "c:1", "d:1", "e:1", "f:1", "g:1", "h:1"];
    names.iter().for_each(|name| stage.server(name).set(Mode::Answer(ms(50))));
    let usual = asking(|own| own.share(ProbeOptions::default().share));
    let client = client(&stage, &names, &asked, ample(), usual);
    load(&client, 32, 2_000).await;
    for _ in 0..50 {
        stage.forget_served();
        load(&client, 32, 320).await;
        let (served, status) = (stage.served(), client.status());
        assert!(served.iter().all(|own| *own <= 60), "of 40 in the mean: {served:?}");
        assert!(status.endpoints.iter().all(|endpoint| endpoint.others_in_flight.is_some()), "{status:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_old_connection_has_said_is_not_noted_of_a_new_one() {
    for breaks in [false, true] {
        let (stage, asked) = (Stage::default(), Asked::default());
        let noting = asked.clone();
        let slowly = asking(|own| own.timeout(secs(5)).most(1));
        let client = stage
            .dialing(resolve::fixed(["a:1"]))
            .options(slowly)
            .probe(ample(), move |_, endpoint| {
                noting.note(&endpoint);
                async {
                    tokio::time::sleep(secs(4)).await;
                    Some(Report::default().in_flight(7))
                }
            })
            .build()
            .unwrap();
        send(&client, 10).await;
        assert_eq!(asked.all(), 1);
        if breaks {
            let made = stage.server("a:1").made();
            stage.server("a:1").gate(Gate::Broken);
            let waiting = tokio::spawn(client.send(0));
            tokio::time::sleep(ms(1)).await;
            stage.server("a:1").gate(Gate::Open);
            waiting.await.unwrap().unwrap();
            assert_eq!(stage.server("a:1").made(), made + 1);
        }
        tokio::time::sleep(secs(5)).await;
        let owed = if breaks { None } else { Some(7) };
        assert_eq!(client.status().endpoints[0].others_in_flight, owed);
    }
}

#[tokio::test(start_paused = true)]
async fn of_what_a_server_says_when_asked_ones_own_are_no_others() {
    let (stage, asked) = (Stage::default(), Asked::default());
    let always = asking(|own| own.share(Ratio::ONE));
    let client = client(&stage, &["a:1"], &asked, ample(), always);
    send(&client, 23).await;
    stage.server("a:1").set(Mode::Answer(secs(2)));
    let under_way: Vec<_> = (0..5).map(|_| tokio::spawn(client.send(0))).collect();
    tokio::time::sleep(ms(60)).await;
    assert_eq!(client.status().endpoints[0].others_in_flight, Some(2));
    under_way.iter().for_each(tokio::task::JoinHandle::abort);
}
