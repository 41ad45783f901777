//! What every registry owes, whatever it is.

use std::{
    collections::BTreeSet,
    future::poll_fn,
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use mainstay::{
    Client, Endpoint,
    describe::Idempotent,
    resolve::{Resolution, Resolve},
};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};
use tower::service_fn;

use super::servers::{Servers, ask};

/// A registry, real or a stand-in, that can be changed and hurt, with one name in it.
pub(crate) trait World: Sized + Send {
    /// The longest that a change may take to be seen while the registry is well.
    const PATIENCE: Duration;
    /// The longest that it may take to be seen that a registry is in trouble, or well again.
    const RECOVERY: Duration = Duration::from_secs(20);
    /// How many updates the memory is watched over.
    const UPDATES: usize = 10_000;

    /// A resolver of the name.
    fn resolver(&self) -> Box<dyn Resolve>;
    /// Makes `instances` all there are. They have the same port.
    async fn publish(&mut self, instances: &[SocketAddr]);
    /// Removes the name.
    async fn remove(&mut self);
    /// Ends the registry without a goodbye. What a registry keeps on disk, it keeps.
    async fn kill(&mut self);
    /// Starts it again.
    async fn restart(&mut self);
    /// It stops answering, while its connections stay.
    async fn freeze(&mut self);
    /// It goes on.
    async fn thaw(&mut self);
    /// How often it was asked or connected to, where it can tell.
    fn asked(&self) -> Option<usize> {
        None
    }
    /// How often it may be asked in `RECOVERY` while it is in trouble.
    const ASKED_IN_TROUBLE: usize = 40;
    /// The same for this one.
    fn updates(&self) -> usize {
        Self::UPDATES
    }
    /// What must never be shown.
    fn secrets(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Runs the suite over the world that `$start`, a future of an `Option`, makes. `None` means that its server is not
/// installed, which it has said.
#[macro_export]
macro_rules! suite {
    ($start:expr) => {
        $crate::suite!(@ $start,
            every_change_is_told_as_a_whole_set,
            a_name_that_is_gone_is_told,
            a_dead_registry_loses_nothing_and_is_found_again,
            a_frozen_registry_loses_nothing_and_is_found_again,
            no_request_fails_while_instances_come_and_go_and_the_registry_dies,
            a_dropped_resolver_leaves_nothing_behind,
            what_is_shown_holds_no_secret,
        );

        #[test]
        fn memory_stays_flat_over_many_updates() {
            $crate::suite::alone(concat!(module_path!(), "::memory_stays_flat_over_many_updates"), async {
                if let Some(world) = $start.await {
                    $crate::suite::memory_stays_flat_over_many_updates(world).await;
                }
            });
        }
    };
    (@ $start:expr, $($claim:ident,)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $claim() {
            if let Some(world) = $start.await {
                $crate::suite::$claim(world).await;
            }
        }
    )*};
}

/// What a resolver has told so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// The last set.
    pub(crate) set: Option<BTreeSet<SocketAddr>>,
    /// Told after it that the name does not exist, or that there are none.
    pub(crate) gone: bool,
    /// What was told of trouble since the last set.
    pub(crate) failed: Option<String>,
    /// All that was ever shown of trouble.
    pub(crate) said: String,
    /// How many resolutions were told.
    pub(crate) told: usize,
}

/// A resolver, polled by a task as a client would.
pub(crate) struct Watching {
    seen: watch::Receiver<Seen>,
    task: JoinHandle<()>,
}

impl Watching {
    pub(crate) fn start(mut resolver: Box<dyn Resolve>) -> Self {
        let (tell, seen) = watch::channel(Seen::default());
        let task = tokio::spawn(async move {
            while let Some(resolution) = poll_fn(|cx| resolver.poll_next(cx)).await {
                tell.send_modify(|seen| seen.take(resolution));
            }
        });
        Self { seen, task }
    }

    /// Waits until what was seen is as `want` says.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        patience: Duration,
        want: impl FnMut(&Seen) -> bool,
    ) -> Seen {
        if let Ok(seen) = timeout(patience, self.seen.wait_for(want)).await {
            return seen.unwrap_or_else(|_| panic!("the resolver ended before: {what}")).clone();
        }
        panic!("not within {patience:?}: {what}; last seen {:?}", self.seen.borrow())
    }

    /// Waits until just `instances` are told.
    pub(crate) async fn until_set(&mut self, instances: &[SocketAddr], patience: Duration) -> Seen {
        let want: BTreeSet<_> = instances.iter().copied().collect();
        self.until(&format!("{want:?}"), patience, |seen| !seen.gone && seen.set.as_ref() == Some(&want))
            .await
    }

    pub(crate) fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Seen {
    fn take(&mut self, resolution: Resolution) {
        self.told += 1;
        match resolution {
            Resolution::Bound(set) if set.is_empty() => self.gone = true,
            Resolution::Bound(set) => {
                let address = |endpoint: &Arc<Endpoint>| endpoint.address().sockets()[0];
                *self = Self {
                    set: Some(set.iter().map(address).collect()),
                    gone: false,
                    failed: None,
                    ..std::mem::take(self)
                };
            }
            Resolution::Absent => self.gone = true,
            Resolution::Failed(cause) => {
                let mut text = cause.to_string();
                let mut source = cause.source();
                while let Some(error) = source {
                    text = format!("{text}: {error}");
                    source = error.source();
                }
                self.said = format!("{}{text}{cause:?}\n", self.said);
                self.said.truncate(100_000);
                self.failed = Some(text);
            }
            _ => {}
        }
    }
}

fn addresses(port: u16, last: std::ops::RangeInclusive<u8>) -> Vec<SocketAddr> {
    last.map(|last| SocketAddr::from(([127, 9, 9, last], port))).collect()
}

pub(crate) async fn every_change_is_told_as_a_whole_set<W: World>(mut world: W) {
    let all = addresses(80, 1..=5);
    world.publish(&all[..3]).await;
    let mut watching = Watching::start(world.resolver());
    watching.until_set(&all[..3], W::RECOVERY).await;
    for set in [&all[..4], &all[1..4], &all[1..5], &all[4..], &all[..]] {
        world.publish(set).await;
        watching.until_set(set, W::PATIENCE).await;
    }
}

pub(crate) async fn a_name_that_is_gone_is_told<W: World>(mut world: W) {
    let all = addresses(80, 1..=2);
    world.publish(&all).await;
    let mut watching = Watching::start(world.resolver());
    watching.until_set(&all, W::RECOVERY).await;
    world.remove().await;
    let seen = watching.until("gone", W::PATIENCE, |seen| seen.gone || seen.failed.is_some()).await;
    assert!(seen.gone, "an absence was told as {:?}", seen.failed);
    world.publish(&all[..1]).await;
    watching.until_set(&all[..1], W::RECOVERY.max(W::PATIENCE)).await;
}

pub(crate) async fn a_dead_registry_loses_nothing_and_is_found_again<W: World>(mut world: W) {
    let all = addresses(80, 1..=4);
    world.publish(&all[..3]).await;
    let mut watching = Watching::start(world.resolver());
    watching.until_set(&all[..3], W::RECOVERY).await;
    let before = world.asked();
    world.kill().await;
    let seen =
        watching.until("trouble is told", W::RECOVERY, |seen| seen.failed.is_some() || seen.gone).await;
    assert!(!seen.gone, "a dead registry was taken for one that knows of nothing");
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.restart().await;
    world.publish(&all[1..]).await;
    let seen = watching.until_set(&all[1..], W::RECOVERY + W::PATIENCE).await;
    assert!(!seen.gone);
    if let (Some(before), Some(after)) = (before, world.asked()) {
        assert!(after - before <= W::ASKED_IN_TROUBLE, "asked {} times", after - before);
    }
}

pub(crate) async fn a_frozen_registry_loses_nothing_and_is_found_again<W: World>(mut world: W) {
    let all = addresses(80, 1..=4);
    world.publish(&all[..3]).await;
    let mut watching = Watching::start(world.resolver());
    watching.until_set(&all[..3], W::RECOVERY).await;
    world.freeze().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!watching.seen().gone, "a frozen registry was taken for one that knows of nothing");
    world.thaw().await;
    world.publish(&all[1..]).await;
    watching.until_set(&all[1..], W::RECOVERY + W::PATIENCE).await;
}

pub(crate) async fn no_request_fails_while_instances_come_and_go_and_the_registry_dies<W: World>(
    mut world: W,
) {
    let servers = Servers::start(5).await;
    let all = servers.addresses.clone();
    world.publish(&all[..3]).await;
    let mut watching = Watching::start(world.resolver());
    watching.until_set(&all[..3], W::RECOVERY).await;
    let client = Client::builder("users")
        .resolve(world.resolver())
        .connect(|endpoint: &Endpoint| {
            let address = endpoint.address().sockets()[0];
            service_fn(move |word: u32| ask(address, word))
        })
        .describe(Idempotent)
        .build()
        .unwrap();
    // What is shown is what happens to a client that works; how long a registry takes to be found is another claim.
    tokio::time::timeout(W::RECOVERY, client.ready()).await.unwrap().unwrap();
    let failures = Arc::new(Mutex::new(Vec::new()));
    let load = tokio::spawn({
        let (client, failures) = (client.clone(), failures.clone());
        async move {
            for word in 0_u32.. {
                match client.send(word).await {
                    Ok(answer) => assert_eq!(answer, word),
                    Err(error) => failures.lock().unwrap().push(error.to_string()),
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    });
    for set in [&all[1..4], &all[2..5]] {
        world.publish(set).await;
        watching.until_set(set, W::PATIENCE).await;
    }
    world.kill().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.restart().await;
    world.publish(&all[..2]).await;
    watching.until_set(&all[..2], W::RECOVERY + W::PATIENCE).await;
    world.freeze().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.thaw().await;
    load.abort();
    let failures = failures.lock().unwrap();
    assert!(failures.is_empty(), "{} requests failed: {:?}", failures.len(), failures.first());
    assert!(client.status().successes > 100, "there was no load");
}

pub(crate) async fn a_dropped_resolver_leaves_nothing_behind<W: World>(mut world: W) {
    world.publish(&addresses(80, 1..=2)).await;
    let metrics = Handle::current().metrics();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let before = metrics.num_alive_tasks();
    for _ in 0..3 {
        let mut watching = Watching::start(world.resolver());
        watching.until_set(&addresses(80, 1..=2), W::RECOVERY).await;
        drop(watching);
    }
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if metrics.num_alive_tasks() <= before {
            return;
        }
    }
    panic!("{} tasks before, {} after", before, metrics.num_alive_tasks());
}

pub(crate) async fn what_is_shown_holds_no_secret<W: World>(mut world: W) {
    world.publish(&addresses(80, 1..=2)).await;
    let resolver = world.resolver();
    let mut shown = format!("{} {resolver:?} {:?}", resolver.describe(), resolver.validate());
    let mut watching = Watching::start(resolver);
    watching.until_set(&addresses(80, 1..=2), W::RECOVERY).await;
    world.kill().await;
    let seen = watching.until("trouble is told", W::RECOVERY, |seen| seen.failed.is_some()).await;
    shown += &seen.said;
    for secret in world.secrets() {
        assert!(!shown.contains(&secret), "{secret} is shown in {shown}");
    }
}

pub(crate) async fn memory_stays_flat_over_many_updates<W: World>(mut world: W) {
    let all = addresses(80, 1..=50);
    world.publish(&all).await;
    let mut watching = Watching::start(world.resolver());
    watching.until_set(&all, W::RECOVERY).await;
    let (mut settled, updates) = (0, world.updates());
    for update in 0..updates {
        if update == updates / 5 {
            settled = resident();
        }
        let first = update % 40;
        world.publish(&all[first..first + 10]).await;
    }
    world.publish(&all[..7]).await;
    watching.until_set(&all[..7], W::RECOVERY + W::PATIENCE).await;
    let grown = resident().saturating_sub(settled);
    assert!(grown < 8 << 20, "{} KiB more than after a fifth of the updates", grown >> 10);
}

/// The next that `resolver` tells.
#[cfg(any(feature = "etcd", feature = "zookeeper"))]
pub(crate) async fn next(resolver: &mut dyn Resolve) -> Option<Resolution> {
    poll_fn(|cx| resolver.poll_next(cx)).await
}

/// The runtime of stand-ins, so that their tasks are not taken for those of a resolver.
pub(crate) fn apart() -> &'static Handle {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let start = || Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    RUNTIME.get_or_init(start).handle()
}

/// Runs a test in a process of its own, whose memory is its own, too.
pub(crate) fn alone(name: &str, test: impl Future<Output = ()>) {
    if std::env::var_os("MAINSTAY_ALONE").is_some() {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        return runtime.block_on(test);
    }
    let name = name.split_once("::").map_or(name, |(_, name)| name);
    let run = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env("MAINSTAY_ALONE", "1")
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success() && said.contains("1 passed"), "{said}");
}

/// The memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}
