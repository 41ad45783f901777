//! Trouble on purpose.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use mainstay::{
    Ratio,
    random::Seeded,
    testing::{Chaos, ChaosFault, ChaosLayer, ChaosOptions, Distribution},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tower::{BoxError, Layer as _, Service as _, ServiceExt as _, service_fn};

const MS: Duration = Duration::from_millis(1);

fn ratio(share: f64) -> Ratio {
    Ratio::new(share).unwrap()
}

fn chaos(options: ChaosOptions) -> Chaos {
    Chaos::with_random(options, Seeded::new(5)).unwrap()
}

#[tokio::test(start_paused = true)]
async fn each_trouble_comes_at_its_rate() {
    let served = Arc::new(AtomicUsize::new(0));
    let own = served.clone();
    let inner = service_fn(move |_: u32| {
        own.fetch_add(1, SeqCst);
        async { Ok::<_, BoxError>(()) }
    });
    let slow = Distribution::Constant(MS * 100);
    let options = ChaosOptions::default().slow(ratio(0.3), slow).error(ratio(0.2)).hang(ratio(0.1));
    let mut service = ChaosLayer::new(chaos(options)).layer(inner);
    let (mut failed, mut hung, mut late) = (0, 0, 0);
    for request in 0..2_000 {
        let start = tokio::time::Instant::from_std(mainstay::clock::now());
        match tokio::time::timeout(MS * 1_000, service.call(request)).await {
            Err(_) => hung += 1,
            Ok(Err(error)) => failed += u32::from(error.is::<ChaosFault>()),
            Ok(Ok(())) => late += u32::from(start.elapsed() == MS * 100),
        }
    }
    assert!((340..460).contains(&failed) && (150..250).contains(&hung), "{failed} {hung}");
    assert!((360..480).contains(&late), "three in ten of those that are sent: {late}");
    assert_eq!(served.load(SeqCst), 2_000 - failed as usize - hung as usize, "what fails is not sent");
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_makes_the_same_trouble() {
    let run = || async {
        let service = service_fn(|request: u32| async move { Ok::<_, BoxError>(request) });
        let mut service = ChaosLayer::new(chaos(ChaosOptions::default().error(ratio(0.5)))).layer(service);
        let mut ends = Vec::new();
        for request in 0..64 {
            ends.push(service.call(request).await.is_ok());
        }
        ends
    };
    assert_eq!(run().await, run().await);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_dropped_while_it_is_held_up_is_never_sent() {
    let served = Arc::new(AtomicUsize::new(0));
    let own = served.clone();
    let inner = service_fn(move |_: u32| {
        own.fetch_add(1, SeqCst);
        async { Ok::<_, BoxError>(()) }
    });
    let options = ChaosOptions::default().slow(ratio(1.0), Distribution::Constant(MS * 100));
    let service = ChaosLayer::new(chaos(options)).layer(inner);
    assert!(tokio::time::timeout(MS * 50, service.clone().oneshot(1)).await.is_err());
    tokio::time::sleep(MS * 1_000).await;
    assert_eq!(served.load(SeqCst), 0);
    service.oneshot(2).await.unwrap();
}

#[test]
fn trouble_of_more_than_everything_is_told() {
    let invalid = ChaosOptions::default().error(ratio(0.7)).hang(ratio(0.7)).validate().unwrap_err();
    assert_eq!(invalid.problems()[0].field, "hang");
    let running = chaos(ChaosOptions::default().error(ratio(0.5)));
    assert!(running.update(ChaosOptions::default().error(ratio(0.7)).hang(ratio(0.7))).is_err());
    assert_eq!(running.options().error, ratio(0.5));
}

#[tokio::test]
async fn it_stands_before_a_real_server() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let own = accepted.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            own.fetch_add(1, SeqCst);
            let mut byte = [0];
            let _ = stream.read_exact(&mut byte).await;
            let _ = stream.write_all(&[byte[0] + 1]).await;
        }
    });
    let inner = service_fn(move |byte: u8| async move {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(&[byte]).await?;
        let mut answer = [0];
        stream.read_exact(&mut answer).await?;
        Ok::<_, BoxError>(answer[0])
    });
    let chaos = chaos(ChaosOptions::default().error(ratio(1.0)));
    let service = ChaosLayer::new(chaos.clone()).layer(inner);
    assert!(service.clone().oneshot(1).await.unwrap_err().is::<ChaosFault>());
    assert_eq!(accepted.load(SeqCst), 0);
    chaos.stop();
    assert_eq!(service.oneshot(1).await.unwrap(), 2);
}
