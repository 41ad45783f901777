//! The suite over a stand-in for the API of Kubernetes, and what is ugly in the real one's protocol.

use std::{
    collections::{BTreeMap, VecDeque},
    fs, io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use mainstay::resolve::{self, Access, KubernetesOptions, Resolve, Secret};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{
    suite::{Watching, World},
    web::{Asked, Out, Registry, Stand, addresses, longer_rests},
};

const TOKEN: &str = "hidden-token-of-the-account";

/// How the API misbehaves.
#[derive(Clone, Debug, Default)]
struct Manners {
    /// Every answer has this status.
    status: Option<u16>,
    /// What is old is told by the status of a watch, and not by an event.
    gone_by_status: bool,
    /// Watches say that they are there, and nothing else, and do not end.
    blank: bool,
    /// Watches say nothing, not even bookmarks.
    mute: bool,
    /// Watches end as soon as they have begun.
    short: bool,
    /// Whatever a watch begins with is too old.
    always_gone: bool,
    /// A watch is cut in the middle of its first event.
    half: bool,
    /// Events come slowly, in pieces of so many bytes.
    piece: Option<usize>,
    /// The largest page.
    page: Option<usize>,
    /// What is too old is told by this code, and not by 410.
    gone_code: Option<u16>,
    /// Every page has another one behind it.
    endless: bool,
    /// Every page after the first is too late, so many times.
    late_pages: usize,
}

pub(crate) struct Api {
    store: Mutex<Store>,
    changed: watch::Sender<u64>,
    lists: AtomicUsize,
    watches: AtomicUsize,
}

struct Store {
    version: u64,
    slices: BTreeMap<String, Value>,
    log: VecDeque<(u64, String)>,
    /// Versions before it are forgotten.
    kept_since: u64,
    token: String,
    manners: Manners,
}

impl Api {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }

    fn put(&self, slices: BTreeMap<String, Value>) {
        let mut store = self.store();
        let mut events = Vec::new();
        for (name, slice) in &slices {
            match store.slices.get(name) {
                Some(known) if known["endpoints"] == slice["endpoints"] => {}
                Some(_) => events.push(("MODIFIED", name.clone(), slice.clone())),
                None => events.push(("ADDED", name.clone(), slice.clone())),
            }
        }
        for (name, slice) in &store.slices {
            if !slices.contains_key(name) {
                events.push(("DELETED", name.clone(), slice.clone()));
            }
        }
        for (kind, name, mut slice) in events {
            store.version += 1;
            slice["metadata"]["resourceVersion"] = store.version.to_string().into();
            let line = json!({"type": kind, "object": slice}).to_string() + "\n";
            let version = store.version;
            store.log.push_back((version, line));
            if store.log.len() > 500 {
                store.log.pop_front();
                store.kept_since = store.log[0].0 - 1;
            }
            match kind {
                "DELETED" => store.slices.remove(&name),
                _ => store.slices.insert(name, slice),
            };
        }
        self.changed.send_replace(store.version);
    }

    /// A change to something else, and all that was before is forgotten.
    fn compact(&self) {
        let mut store = self.store();
        store.version += 1;
        store.log.clear();
        store.kept_since = store.version;
        self.changed.send_replace(store.version);
    }

    async fn list(&self, asked: &Asked, out: &mut Out) -> io::Result<()> {
        let body = {
            let mut store = self.store();
            let limit: usize = asked.query("limit").unwrap().parse().unwrap();
            let limit = limit.min(store.manners.page.unwrap_or(limit));
            let from: usize = asked.query("continue").map_or(0, |token| token.parse().unwrap());
            if from > 0 && store.manners.late_pages > 0 {
                store.manners.late_pages -= 1;
                None
            } else {
                if from == 0 {
                    self.lists.fetch_add(1, Ordering::Relaxed);
                }
                let items: Vec<&Value> = store.slices.values().skip(from).take(limit).collect();
                let end = from + items.len();
                let is_last = end >= store.slices.len() && !store.manners.endless;
                let next = if is_last { String::new() } else { end.max(from + 1).to_string() };
                let metadata = json!({"resourceVersion": store.version.to_string(), "continue": next});
                Some(json!({"kind": "EndpointSliceList", "metadata": metadata, "items": items}).to_string())
            }
        };
        match body {
            Some(body) => out.whole(200, "", &body).await,
            None => out.whole(410, "", &gone().to_string()).await,
        }
    }

    async fn watch(&self, asked: &Asked, out: &mut Out) -> io::Result<()> {
        self.watches.fetch_add(1, Ordering::Relaxed);
        assert_eq!(asked.query("allowWatchBookmarks"), Some("true"));
        let mut version: u64 = asked.query("resourceVersion").unwrap().parse().unwrap();
        let (manners, is_gone) = {
            let store = self.store();
            (store.manners.clone(), version < store.kept_since || store.manners.always_gone)
        };
        let code = manners.gone_code.unwrap_or(410);
        if is_gone && manners.gone_by_status {
            return out.whole(code, "", &gone().to_string()).await;
        }
        out.begin().await?;
        if is_gone {
            let mut object = gone();
            object["code"] = code.into();
            if manners.gone_code.is_some() {
                // One that says too much.
                let shown = asked.header("authorization").unwrap_or_default();
                object["message"] = format!("{shown}\n{}", "x".repeat(100_000)).into();
            }
            let line = json!({"type": "ERROR", "object": object}).to_string() + "\n";
            out.chunk(line.as_bytes()).await?;
            return out.end().await;
        }
        if manners.short {
            return out.end().await;
        }
        if manners.blank {
            loop {
                out.chunk(b"\n").await?;
                sleep(Duration::from_millis(100)).await;
            }
        }
        let mut changed = self.changed.subscribe();
        let life = sleep(Duration::from_secs(asked.query("timeoutSeconds").unwrap().parse().unwrap()));
        tokio::pin!(life);
        loop {
            let told: Vec<String> = {
                let store = self.store();
                let at = store.version;
                let told =
                    store.log.iter().filter(|(at, _)| *at > version).map(|(_, line)| line.clone()).collect();
                version = at;
                told
            };
            if !told.is_empty() && !manners.mute {
                let bytes = told.concat().into_bytes();
                if manners.half {
                    out.chunk(&bytes[..bytes.len() / 2]).await?;
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                for piece in bytes.chunks(manners.piece.unwrap_or(bytes.len())) {
                    out.chunk(piece).await?;
                    if manners.piece.is_some() {
                        sleep(Duration::from_millis(1)).await;
                    }
                }
            }
            tokio::select! {
                _ = changed.changed() => {}
                () = &mut life => return out.end().await,
                () = sleep(Duration::from_millis(500)), if !manners.mute => {
                    let object = json!({"kind": "EndpointSlice", "metadata": {"resourceVersion": version.to_string()}});
                    let line = json!({"type": "BOOKMARK", "object": object}).to_string() + "\n";
                    out.chunk(line.as_bytes()).await?;
                }
            }
        }
    }
}

fn gone() -> Value {
    json!({"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old resource version"})
}

impl Registry for Api {
    async fn answer(&self, asked: Asked, out: &mut Out) -> io::Result<()> {
        let (status, token) = {
            let store = self.store();
            (store.manners.status, format!("Bearer {}", store.token))
        };
        if asked.header("authorization") != Some(&token) {
            // A server that says too much.
            let shown = asked.header("authorization").unwrap_or_default();
            return out.whole(401, "", &format!("{{\"message\": \"not {shown}\"}}")).await;
        }
        if let Some(status) = status {
            return out.whole(status, "retry-after: 1\r\n", "{\"message\": \"not now\"}").await;
        }
        assert_eq!(asked.path, "/apis/discovery.k8s.io/v1/namespaces/prod/endpointslices");
        assert_eq!(asked.query("labelSelector"), Some("kubernetes.io/service-name=users"));
        match asked.query("watch") {
            Some(_) => self.watch(&asked, out).await,
            None => self.list(&asked, out).await,
        }
    }
}

pub(crate) struct Cluster {
    pub(crate) stand: Stand<Api>,
    pub(crate) folder: PathBuf,
}

impl Cluster {
    async fn start() -> Option<Self> {
        Some(Self::with_tls(None).await)
    }

    pub(crate) async fn with_tls(tls: Option<TlsAcceptor>) -> Self {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let unique = (std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(format!("mainstay-kubernetes-{}-{}", unique.0, unique.1));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("token"), format!("{TOKEN}\n")).unwrap();
        let store = Store {
            version: 100,
            slices: BTreeMap::new(),
            log: VecDeque::new(),
            kept_since: 100,
            token: TOKEN.to_owned(),
            manners: Manners::default(),
        };
        let api = Api {
            store: Mutex::new(store),
            changed: watch::channel(0).0,
            lists: AtomicUsize::new(0),
            watches: AtomicUsize::new(0),
        };
        Self { stand: Stand::with_tls(api, tls).await, folder }
    }

    fn api(&self) -> &Api {
        &self.stand.registry
    }

    fn manners(&self, change: impl FnOnce(&mut Manners)) {
        change(&mut self.api().store().manners);
    }

    /// In slices of at most `size`.
    pub(crate) fn put(&self, instances: &[SocketAddr], size: usize) {
        let slice = |(index, part): (usize, &[SocketAddr])| {
            let endpoint = |address: &SocketAddr| {
                json!({"addresses": [address.ip().to_string()], "conditions": {"ready": true}, "zone": "zürich-1",
                    "targetRef": {"kind": "Pod", "name": format!("users-{}", address.ip()), "uid": format!("uid-{}", address.ip())}})
            };
            let name = format!("users-{index:03}");
            let value = json!({
                "metadata": {"name": name, "namespace": "prod", "labels": {"kubernetes.io/service-name": "users"}},
                "addressType": "IPv4",
                "endpoints": part.iter().map(endpoint).collect::<Vec<_>>(),
                "ports": [{"name": "http", "port": part[0].port(), "protocol": "TCP"}],
            });
            (name, value)
        };
        self.api().put(instances.chunks(size).enumerate().map(slice).collect());
    }

    fn lists(&self) -> usize {
        self.api().lists.load(Ordering::Relaxed)
    }

    /// Watches until the first watch is there.
    async fn watching(&self, instances: &[SocketAddr]) -> Watching {
        let mut watching = Watching::start(self.resolver());
        watching.until_set(instances, Self::RECOVERY).await;
        let watched = async {
            while self.api().watches.load(Ordering::Relaxed) == 0 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Self::RECOVERY, watched).await.unwrap();
        watching
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl World for Cluster {
    const PATIENCE: Duration = Duration::from_secs(3);

    fn resolver(&self) -> Box<dyn Resolve> {
        let access = Access::default().token(Secret::file(self.folder.join("token")));
        let options = KubernetesOptions::default().silence(Duration::from_secs(2));
        Box::new(
            resolve::kubernetes("users.prod:http")
                .server(&format!("http://{}", self.stand.address), access)
                .options(options),
        )
    }

    async fn publish(&mut self, instances: &[SocketAddr]) {
        self.put(instances, 3);
        // As fast as a watch is read, and not as fast as memory is written.
        tokio::task::yield_now().await;
    }

    async fn remove(&mut self) {
        self.api().put(BTreeMap::new());
    }

    crate::as_its_stand_in!();

    fn secrets(&self) -> Vec<String> {
        vec![TOKEN.to_owned()]
    }
}

crate::suite!(Cluster::start());

#[tokio::test]
async fn what_is_too_old_is_listed_anew_however_it_is_told() {
    for gone_by_status in [true, false] {
        let mut cluster = Cluster::start().await.unwrap();
        let all = addresses(1, 4);
        cluster.put(&all[..2], 3);
        let mut watching = cluster.watching(&all[..2]).await;
        cluster.manners(|manners| manners.gone_by_status = gone_by_status);
        cluster.stand.kill().await;
        cluster.put(&all[1..], 3);
        cluster.api().compact();
        cluster.stand.restart().await;
        watching.until_set(&all[1..], Cluster::RECOVERY).await;
        assert_eq!(cluster.lists(), 2, "by status {gone_by_status}");
    }
}

#[tokio::test]
async fn what_a_watch_cannot_go_on_from_is_listed_anew() {
    // A version that is none is told by the status of a watch; what the API cannot read any more by an event.
    for (gone_by_status, code) in [(true, 400), (false, 500)] {
        let mut cluster = Cluster::start().await.unwrap();
        let all = addresses(1, 4);
        cluster.put(&all[..2], 3);
        let mut watching = cluster.watching(&all[..2]).await;
        cluster.manners(|manners| {
            manners.gone_by_status = gone_by_status;
            manners.gone_code = Some(code);
        });
        cluster.stand.kill().await;
        cluster.put(&all[1..], 3);
        cluster.api().compact();
        cluster.stand.restart().await;
        let seen = watching.until_set(&all[1..], Cluster::RECOVERY).await;
        assert!(!seen.said.contains("hidden"), "{}", seen.said);
        assert!(seen.said.contains(&code.to_string()) && seen.said.len() < 10_000, "{}", seen.said);
    }
}

#[tokio::test]
async fn an_event_that_is_too_large_is_listed() {
    let cluster = Cluster::start().await.unwrap();
    let all = addresses(1, 50);
    cluster.put(&all[..2], 100);
    cluster.manners(|manners| manners.piece = Some(500));
    let access = Access::default().token(Secret::value(TOKEN));
    let resolver = resolve::kubernetes("users.prod:http")
        .server(&format!("http://{}", cluster.stand.address), access)
        .options(KubernetesOptions::default().largest_event(2_000));
    let mut watching = Watching::start(Box::new(resolver));
    watching.until_set(&all[..2], Cluster::RECOVERY).await;
    cluster.put(&all, 100);
    let seen = watching.until_set(&all, Cluster::RECOVERY).await;
    assert!(seen.said.contains("an answer of more than 2000 bytes"), "{}", seen.said);
}

#[tokio::test]
async fn a_list_that_never_ends_is_given_up() {
    let cluster = Cluster::start().await.unwrap();
    cluster.put(&addresses(1, 20), 3);
    cluster.manners(|manners| manners.endless = true);
    let access = Access::default().token(Secret::value(TOKEN)).largest(50_000);
    let url = format!("http://{}", cluster.stand.address);
    let mut watching = Watching::start(Box::new(resolve::kubernetes("users.prod:http").server(&url, access)));
    let seen = watching.until("trouble", Cluster::RECOVERY, |seen| seen.failed.is_some()).await;
    assert!(seen.failed.unwrap().contains("an answer of more than 50000 bytes"));
    cluster.manners(|manners| manners.endless = false);
    watching.until_set(&addresses(1, 20), Cluster::RECOVERY).await;
}

#[tokio::test]
async fn a_kubeconfig_that_leads_elsewhere_is_another_cluster() {
    let (mut here, there) = (Cluster::start().await.unwrap(), Cluster::start().await.unwrap());
    let all = addresses(1, 4);
    here.put(&all[..2], 3);
    there.put(&all[2..], 3);
    let config = here.folder.join("config");
    let lead_to = |cluster: &Cluster| {
        let text = format!(
            "current-context: it\nclusters: [{{name: a, cluster: {{server: 'http://{}'}}}}]\n\
             contexts: [{{name: it, context: {{cluster: a, user: me, namespace: prod}}}}]\n\
             users: [{{name: me, user: {{tokenFile: token}}}}]\n",
            cluster.stand.address
        );
        fs::write(&config, text).unwrap();
    };
    lead_to(&here);
    let mut watching =
        Watching::start(Box::new(resolve::kubernetes("users:http").kubeconfig(config.clone())));
    watching.until_set(&all[..2], Cluster::RECOVERY).await;
    lead_to(&there);
    here.stand.kill().await;
    watching.until_set(&all[2..], Cluster::RECOVERY).await;
}

#[tokio::test]
async fn a_list_whose_pages_are_too_late_is_begun_again() {
    let cluster = Cluster::start().await.unwrap();
    let all = addresses(1, 5000);
    cluster.put(&all, 100);
    cluster.manners(|manners| {
        manners.page = Some(7);
        manners.late_pages = 2;
    });
    let mut watching = Watching::start(cluster.resolver());
    watching.until_set(&all, Cluster::RECOVERY).await;
    assert_eq!(cluster.lists(), 3);
    cluster.put(&all[..4950], 100);
    watching.until_set(&all[..4950], Cluster::PATIENCE).await;
}

#[tokio::test]
async fn a_watch_that_breaks_within_an_event_loses_nothing() {
    let cluster = Cluster::start().await.unwrap();
    let all = addresses(1, 5);
    cluster.put(&all[..2], 2);
    cluster.manners(|manners| manners.half = true);
    let mut watching = cluster.watching(&all[..2]).await;
    cluster.put(&all, 2);
    let seen = watching.until("trouble", Cluster::RECOVERY, |seen| seen.failed.is_some()).await;
    let told = seen.failed.unwrap();
    assert!(
        told.contains(&format!("kubernetes API at http://{}: the connection broke", cluster.stand.address)),
        "{told}"
    );
    cluster.manners(|manners| manners.half = false);
    watching.until_set(&all, Cluster::RECOVERY).await;
    assert_eq!(cluster.lists(), 1, "what was known was watched on from");
}

#[tokio::test]
async fn events_may_be_slow_and_cut_anywhere() {
    let cluster = Cluster::start().await.unwrap();
    let all = addresses(1, 5);
    cluster.put(&all[..2], 2);
    cluster.manners(|manners| manners.piece = Some(3));
    let mut watching = cluster.watching(&all[..2]).await;
    cluster.put(&all, 2);
    let seen = watching.until_set(&all, Cluster::PATIENCE).await;
    assert_eq!((seen.said.as_str(), cluster.lists()), ("", 1));
}

#[tokio::test]
async fn bookmarks_keep_a_quiet_watch_young() {
    let mut cluster = Cluster::start().await.unwrap();
    let all = addresses(1, 3);
    cluster.put(&all, 3);
    let mut watching = cluster.watching(&all).await;
    cluster.api().compact();
    sleep(Duration::from_millis(1200)).await;
    cluster.stand.kill().await;
    cluster.stand.restart().await;
    watching.until("trouble", Cluster::RECOVERY, |seen| seen.failed.is_some()).await;
    cluster.put(&all[1..], 3);
    watching.until_set(&all[1..], Cluster::RECOVERY).await;
    assert_eq!(cluster.lists(), 1, "the version was that of a bookmark");
}

#[tokio::test]
async fn a_watch_that_is_silent_is_begun_anew_without_a_gap() {
    let cluster = Cluster::start().await.unwrap();
    let all = addresses(1, 3);
    cluster.put(&all, 3);
    cluster.manners(|manners| manners.mute = true);
    let mut watching = cluster.watching(&all).await;
    cluster.manners(|manners| manners.mute = false);
    cluster.put(&all[1..], 3);
    let seen = watching.until_set(&all[1..], Duration::from_secs(6)).await;
    assert_eq!((seen.said.as_str(), cluster.lists()), ("", 1));
}

#[tokio::test]
async fn a_watch_that_never_ends_is_begun_anew_all_the_same() {
    let cluster = Cluster::start().await.unwrap();
    let all = addresses(1, 3);
    cluster.put(&all, 3);
    cluster.manners(|manners| manners.blank = true);
    let access = Access::default().token(Secret::value(TOKEN));
    let second = Duration::from_secs(1);
    let options = KubernetesOptions::default().longest(second).silence(second);
    let url = format!("http://{}", cluster.stand.address);
    let resolver = resolve::kubernetes("users.prod:http").server(&url, access).options(options);
    let mut watching = Watching::start(Box::new(resolver));
    watching.until_set(&all, Cluster::RECOVERY).await;
    while cluster.api().watches.load(Ordering::Relaxed) == 0 {
        sleep(Duration::from_millis(10)).await;
    }
    cluster.manners(|manners| manners.blank = false);
    cluster.put(&all[1..], 3);
    let seen = watching.until_set(&all[1..], Cluster::RECOVERY).await;
    assert_eq!((seen.said.as_str(), cluster.lists()), ("", 1));
}

#[tokio::test]
async fn an_api_that_is_back_is_well_again_though_nothing_changed() {
    let mut cluster = Cluster::start().await.unwrap();
    let all = addresses(1, 2);
    cluster.put(&all, 3);
    let access = Access::default().token(Secret::value(TOKEN));
    let url = format!("http://{}", cluster.stand.address);
    let options = KubernetesOptions::default().watch(longer_rests());
    let resolver = resolve::kubernetes("users.prod:http").server(&url, access).options(options);
    let mut watching = Watching::start(Box::new(resolver));
    watching.until("a watch", Cluster::RECOVERY, |seen| seen.told == 2).await;
    cluster.stand.kill().await;
    watching.until("rests", Cluster::RECOVERY, |seen| seen.told > 8).await;
    cluster.stand.restart().await;
    watching.until("well again", Cluster::RECOVERY, |seen| seen.failed.is_none()).await;
    assert_eq!(cluster.lists(), 1);
    // A watch that lasted has ended the trouble, and its rests.
    sleep(Duration::from_millis(1_200)).await;
    cluster.stand.kill().await;
    watching.until("trouble", Cluster::RECOVERY, |seen| seen.failed.is_some()).await;
    cluster.stand.restart().await;
    watching.until("well again", Duration::from_secs(2), |seen| seen.failed.is_none()).await;
}

#[tokio::test]
async fn a_token_that_is_refused_is_read_again() {
    let cluster = Cluster::start().await.unwrap();
    let all = addresses(1, 2);
    cluster.put(&all, 3);
    fs::write(cluster.folder.join("token"), "hidden-and-old").unwrap();
    let mut watching = Watching::start(cluster.resolver());
    let seen = watching.until("trouble", Cluster::RECOVERY, |seen| seen.failed.is_some()).await;
    let told = seen.failed.unwrap();
    assert!(told.contains("401 Unauthorized: {\"message\": \"not Bearer ***\"}"), "{told}");
    fs::write(cluster.folder.join("token"), TOKEN).unwrap();
    let seen = watching.until_set(&all, Cluster::RECOVERY).await;
    assert!(!seen.said.contains("hidden"), "{}", seen.said);
}

#[tokio::test]
async fn an_api_that_is_too_busy_is_told_and_asked_with_rests() {
    for status in [429, 500, 403] {
        let cluster = Cluster::start().await.unwrap();
        let all = addresses(1, 2);
        cluster.put(&all, 3);
        cluster.manners(|manners| manners.status = Some(status));
        let mut watching = Watching::start(cluster.resolver());
        let seen = watching.until("trouble", Cluster::RECOVERY, |seen| seen.failed.is_some()).await;
        let told = seen.failed.unwrap();
        assert!(told.contains(&status.to_string()) && told.contains("not now"), "{told}");
        sleep(Duration::from_secs(2)).await;
        assert!(cluster.stand.asked() < 40, "{}", cluster.stand.asked());
        cluster.manners(|manners| manners.status = None);
        watching.until_set(&all, Cluster::RECOVERY).await;
    }
}

#[tokio::test]
async fn watches_that_come_to_nothing_are_not_a_storm() {
    for change in
        [|manners: &mut Manners| manners.short = true, |manners: &mut Manners| manners.always_gone = true]
    {
        let cluster = Cluster::start().await.unwrap();
        let all = addresses(1, 3);
        cluster.put(&all[..2], 3);
        cluster.manners(change);
        let mut watching = Watching::start(cluster.resolver());
        watching.until("trouble", Cluster::RECOVERY, |seen| seen.failed.is_some()).await;
        sleep(Duration::from_secs(3)).await;
        assert!(cluster.stand.asked() < 60, "{}", cluster.stand.asked());
        cluster.manners(|manners| *manners = Manners::default());
        cluster.put(&all, 3);
        watching.until_set(&all, Cluster::RECOVERY).await;
    }
}

#[tokio::test]
async fn a_port_that_the_service_lacks_is_told_with_those_it_has() {
    let cluster = Cluster::start().await.unwrap();
    cluster.put(&addresses(1, 2), 3);
    let access = Access::default().token(Secret::value(TOKEN));
    let url = format!("http://{}", cluster.stand.address);
    let mut watching = Watching::start(Box::new(resolve::kubernetes("users.prod:grpc").server(&url, access)));
    let seen = watching.until("trouble", Cluster::RECOVERY, |seen| seen.failed.is_some()).await;
    assert!(seen.failed.unwrap().contains("no port \"grpc\" of TCP: the service has http"));
}

#[test]
fn all_mistakes_are_told_at_once() {
    let options = KubernetesOptions::default().silence(Duration::ZERO).largest_event(0);
    let wrong =
        resolve::kubernetes("Users:0").server("ftp://me:hidden@there", Access::default()).options(options);
    let told = wrong.validate().unwrap_err();
    assert_eq!(told.problems().len(), 5, "{told}");
    assert!(!format!("{told} {wrong:?}").contains("hidden"));
    for (name, is_good) in [
        ("kubernetes:///users.prod:http", true),
        ("kubernetes:///users?zone=a", true),
        ("kubernetes:///users?zon=a", false),
        ("kubernetes://here/users", false),
    ] {
        assert_eq!(resolve::name(name).validate().is_ok(), is_good, "{name}");
    }
}
