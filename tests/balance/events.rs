//! What is told, and that telling harms nobody.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use mainstay::{
    Reason,
    balance::{Load, Panic},
    resolve,
    telemetry::Event,
};

use crate::stage::*;

async fn three_of_four_fail(stage: &Stage, client: &Client) {
    for name in ["a:1", "b:1", "c:1"] {
        stage.server(name).set(Mode::Fail(ms(1)));
    }
    load(client, 8, 200).await;
    settle().await;
}

#[tokio::test(start_paused = true)]
async fn panic_is_entered_and_left_with_an_event_each() {
    let stage = Stage::default();
    let heard = Heard::default();
    let client = stage
        .builder(resolve::fixed(["a:1", "b:1", "c:1", "d:1"]))
        .observe(heard.observer())
        .build()
        .unwrap();
    three_of_four_fail(&stage, &client).await;
    assert!(client.status().panic);
    let entered = heard.all().into_iter().find(|event| event.kind() == "panic_entered");
    assert!(
        matches!(
            entered,
            Some(Event::PanicEntered { priority: 0, available: 1, endpoints: 4, fail_open: true })
        ),
        "{entered:?}"
    );
    for name in ["a:1", "b:1", "c:1"] {
        stage.server(name).set(Mode::Answer(ms(1)));
    }
    tokio::time::sleep(secs(60)).await;
    assert!(!client.status().panic);
    assert_eq!((heard.count("panic_entered"), heard.count("panic_left")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn in_panic_ejections_are_set_aside() {
    let stage = Stage::default();
    // By requests in flight alone: what has failed looks slow besides, and gets something when the rest is busy.
    for (load, callers) in [(Load::InFlight, 8), (Load::default(), 64)] {
        let builder = stage.builder(resolve::fixed(["a:1", "b:1", "c:1", "d:1"]));
        let client = builder.options(options(|options| options.load = load)).build().unwrap();
        three_of_four_fail(&stage, &client).await;
        stage.forget_served();
        crate::stage::load(&client, callers, 400).await;
        assert!(stage.served().iter().all(|served| *served > 0), "{load:?}: {:?}", stage.served());
    }
}

#[tokio::test(start_paused = true)]
async fn fail_closed_says_so_and_keeps_to_what_is_available() {
    let stage = Stage::default();
    let heard = Heard::default();
    let client = stage
        .builder(resolve::fixed(["a:1", "b:1", "c:1", "d:1"]))
        .options(options(|options| options.panic = Panic::FailClosed))
        .observe(heard.observer())
        .build()
        .unwrap();
    three_of_four_fail(&stage, &client).await;
    assert!(
        heard.all().iter().any(|event| matches!(event, Event::PanicEntered { fail_open: false, .. })),
        "{:?}",
        heard.all()
    );
    stage.forget_served();
    assert_eq!(load(&client, 8, 100).await, 0);
    assert_eq!(stage.served(), [0, 0, 0, 100]);
    stage.server("d:1").set(Mode::Fail(ms(1)));
    load(&client, 1, 5).await;
    assert_eq!(reason(&client.send(0).await), Some(Reason::NoEndpoint));
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_panics_harms_nobody() {
    let stage = Stage::default();
    let heard = Heard::default();
    let client = stage
        .builder(resolve::fixed(["a:1", "b:1", "c:1"]))
        .observe(|_: &str, _: &Event| panic!("an observer"))
        .observe(heard.observer())
        .build()
        .unwrap();
    eject(&stage, &client, "a:1").await;
    assert_eq!(heard.count("ejected"), 1);
    assert_eq!(load(&client, 3, 60).await, 0);
    assert_eq!(status(&client, "a:1").in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn an_observer_may_call_back() {
    let stage = Stage::default();
    let (handle, calls) = (Arc::new(Mutex::new(None::<Client>)), Arc::new(AtomicUsize::new(0)));
    let client = {
        let (handle, calls) = (handle.clone(), calls.clone());
        stage
            .builder(resolve::fixed(["a:1", "b:1", "c:1"]))
            .observe(move |_: &str, event: &Event| {
                let client = handle.lock().unwrap().clone();
                if let Some(client) = client {
                    let _ = (client.status(), client.in_flight());
                    if event.kind() == "ejected" {
                        client.update(client.options()).unwrap();
                    }
                    calls.fetch_add(1, SeqCst);
                }
            })
            .build()
            .unwrap()
    };
    *handle.lock().unwrap() = Some(client.clone());
    eject(&stage, &client, "a:1").await;
    stage.server("b:1").set(Mode::BackOff(None));
    load(&client, 3, 20).await;
    tokio::time::sleep(secs(60)).await;
    assert!(calls.load(SeqCst) >= 5, "{calls:?}");
    handle.lock().unwrap().take();
}

#[tokio::test(start_paused = true)]
async fn a_resolution_to_a_single_address_is_told() {
    let stage = Stage::default();
    let heard = Heard::default();
    let client = stage.builder(resolve::fixed(["a:1"])).observe(heard.observer()).build().unwrap();
    client.send(0).await.unwrap();
    assert_eq!((heard.count("resolved"), heard.count("single_endpoint")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_observer_may_replace_the_options_of_the_client_that_tells_it() {
    let client = mainstay::Client::builder("users")
        .resolve(resolve::fixed(["a:1", "b:1"]))
        .connect(|_: &mainstay::Endpoint| {
            tower::service_fn(|n: u32| async move { Ok::<_, tower::BoxError>(n) })
        })
        .build()
        .unwrap();
    let told = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (inner, counted) = (client.clone(), told.clone());
    client.observe(move |_: &str, event: &Event| {
        if event.kind() == "updated" && counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 {
            inner.update(inner.options()).unwrap();
        }
    });
    client.update(client.options()).unwrap();
    assert_eq!(told.load(std::sync::atomic::Ordering::SeqCst), 2);
}
