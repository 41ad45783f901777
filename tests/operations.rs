//! Health per operation in a virtual fleet: five servers, of which one fails a method for half a minute.
#![allow(missing_docs)]

use std::time::Duration;

use mainstay::{
    Client, Ratio,
    balance::BalanceOptions,
    health::OperationOptions,
    testing::{
        Classifier, Description, Fleet, OpenLoop, Record, Recorder, Request, ServerOptions, Trouble, simulate,
    },
};

const SECOND: Duration = Duration::from_secs(1);
const METHODS: [&str; 2] = ["get", "put"];
/// When `get` begins to fail at server 0, and when it is mended.
const BREAKS: Duration = Duration::from_secs(10);
const MENDED: Duration = Duration::from_secs(40);
const END: Duration = Duration::from_secs(120);

/// What a client saw of the methods in turn, 50 requests a second of each; and how many requests of server 0 failed.
fn played(seed: u64, operations: Option<OperationOptions>) -> Vec<Record> {
    simulate(seed, async |world| {
        let fleet = Fleet::builder().servers(5, ServerOptions::default()).build(&world).unwrap();
        let mut options = BalanceOptions::default();
        options.health.per_operation = operations;
        let client = Client::builder("lab")
            .resolve(fleet.resolver())
            .connect(fleet.connect())
            .describe(Description)
            .classify(Classifier)
            .balance(options)
            .random(world.random("client"))
            .build()
            .unwrap();
        let (breaks, mended) = (fleet.server(0), fleet.server(0));
        world.at(BREAKS, move || breaks.trouble_for("get", Ratio::ONE, Trouble::Fail));
        world.at(MENDED, move || mended.recover());
        let recorder = Recorder::new();
        for (number, method) in (0..).zip(METHODS) {
            let load =
                OpenLoop::poisson(50.0, END).client(number).requests(Request::new(0).operation(method));
            let (world, client, recorder) = (world.clone(), client.clone(), recorder.clone());
            tokio::spawn(async move { load.run(&world, client, &recorder).await.unwrap() });
        }
        world.until(END).await;
        recorder.idle().await;
        recorder.records()
    })
}

/// Server 0's share of the answers of a method, to requests of this time.
fn share(records: &[Record], method: &str, from: Duration, to: Duration) -> f64 {
    let answers = records.iter().filter(|record| {
        record.operation == method && record.is_success() && record.due >= from && record.due < to
    });
    let (own, all) = answers.fold((0.0, 0.0), |(own, all), record| {
        (own + f64::from(u8::from(record.server == Some(0))), all + 1.0)
    });
    own / all
}

#[test]
fn a_method_that_fails_on_one_server_leaves_the_others_their_share_and_comes_back_when_it_is_mended() {
    for seed in 1..=5 {
        let records = played(seed, Some(OperationOptions::default()));
        assert!(records.iter().all(Record::is_success), "retries cover what trips it, and its probes");
        let put = share(&records, "put", BREAKS + SECOND * 5, MENDED);
        assert!(put > 0.15, "seed {seed}: {put} of put, where a fifth is fair");
        assert_eq!(share(&records, "get", BREAKS, MENDED), 0.0);
        // The last ejection lasts 40 s at most.
        let get = share(&records, "get", MENDED + SECOND * 41, END);
        assert!(get > 0.1, "seed {seed}: {get} of get");
    }
}

#[test]
fn without_it_the_whole_server_goes_with_the_method() {
    for seed in 1..=5 {
        let records = played(seed, None);
        let put = share(&records, "put", BREAKS + SECOND * 5, MENDED);
        assert!(put < 0.1, "seed {seed}: {put} of put");
    }
}
