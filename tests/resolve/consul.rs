//! The suite over a stand-in for Consul's agent, and what is ugly in the real one's protocol.

use std::{
    fs, io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use mainstay::resolve::{self, Access, ConsulOptions, Reading, Resolve, Secret, WatchOptions};
use serde_json::{Value, json};
use tokio::{sync::watch, time::sleep};

use super::{
    suite::{Watching, World},
    web::{Asked, Out, Registry, Stand, addresses, longer_rests},
};

const TOKEN: &str = "hidden-acl-token";

/// How the agent misbehaves.
#[derive(Clone, Debug, Default)]
struct Manners {
    /// Every answer has this status.
    status: Option<u16>,
    /// It never waits.
    hasty: bool,
    /// Answers end in the middle of their JSON, as whole answers do.
    half: bool,
    /// Answers come in pieces of so many bytes.
    piece: Option<usize>,
    /// No index is told, or 0.
    index: Option<&'static str>,
}

struct Agent {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

struct State {
    index: u64,
    entries: Vec<Value>,
    token: String,
    manners: Manners,
    asked: Vec<Asked>,
}

impl Agent {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn put(&self, entries: Vec<Value>) {
        let mut state = self.state();
        state.index += 3;
        state.entries = entries;
        self.changed.send_replace(state.index);
    }
}

impl Registry for Agent {
    async fn answer(&self, asked: Asked, out: &mut Out) -> io::Result<()> {
        let (manners, token) = {
            let mut state = self.state();
            state.asked.push(asked.clone());
            // Ten thousand updates are not to be kept.
            if state.asked.len() > 100 {
                state.asked.remove(0);
            }
            (state.manners.clone(), state.token.clone())
        };
        if asked.header("x-consul-token") != Some(&token) {
            let said = format!("ACL not found: {}", asked.header("x-consul-token").unwrap_or_default());
            return out.whole(403, "", &said).await;
        }
        if let Some(status) = manners.status {
            return out.whole(status, "", "rpc error: No cluster leader").await;
        }
        assert_eq!(asked.path, "/v1/health/service/users");
        let mut changed = self.changed.subscribe();
        if let Some(index) = asked.query("index").map(|text| text.parse::<u64>().unwrap()) {
            assert!(index > 0, "an index of 0 does not wait");
            let wait = asked.query("wait").unwrap().strip_suffix("ms").unwrap().parse().unwrap();
            let over = sleep(Duration::from_millis(wait));
            tokio::pin!(over);
            while !manners.hasty && self.state().index <= index {
                tokio::select! {
                    _ = changed.changed() => {}
                    () = &mut over => break,
                }
            }
        }
        let (index, body) = {
            let state = self.state();
            let tags = asked.all("tag");
            let has_tags = |entry: &&Value| {
                let own: Vec<&str> = entry["Service"]["Tags"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .collect();
                tags.iter().all(|tag| own.contains(tag))
            };
            let told: Vec<&Value> = state.entries.iter().filter(has_tags).collect();
            (state.index, json!(told).to_string())
        };
        let index = manners.index.map_or_else(|| index.to_string(), str::to_owned);
        let headers = if index.is_empty() { String::new() } else { format!("X-Consul-Index: {index}\r\n") };
        if manners.half {
            return out.whole(200, &headers, &body[..body.len() / 2]).await;
        }
        let Some(piece) = manners.piece else { return out.whole(200, &headers, &body).await };
        out.raw(format!("HTTP/1.1 200 OK\r\n{headers}transfer-encoding: chunked\r\n\r\n").as_bytes()).await?;
        for piece in body.as_bytes().chunks(piece) {
            out.chunk(piece).await?;
        }
        out.end().await
    }
}

struct Datacenter {
    stand: Stand<Agent>,
    folder: PathBuf,
}

fn entry(address: &SocketAddr) -> Value {
    json!({
        "Node": {"Node": "knoten-ä", "Address": address.ip().to_string(), "Meta": {"zone": "eu-1"}},
        "Service": {"ID": format!("users-{address}"), "Service": "users", "Tags": ["v2", "blue"], "Address": "",
            "Port": address.port(), "Weights": {"Passing": 5, "Warning": 1}},
        "Checks": [{"CheckID": "serfHealth", "Status": "passing"}, {"CheckID": "service:users", "Status": "passing"}],
    })
}

impl Datacenter {
    async fn start() -> Option<Self> {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let unique = (std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(format!("mainstay-consul-{}-{}", unique.0, unique.1));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("token"), format!("{TOKEN}\n")).unwrap();
        let state = State {
            index: 1000,
            entries: Vec::new(),
            token: TOKEN.to_owned(),
            manners: Manners::default(),
            asked: Vec::new(),
        };
        let agent = Agent { state: Mutex::new(state), changed: watch::channel(0).0 };
        Some(Self { stand: Stand::start(agent).await, folder })
    }

    fn manners(&self, change: impl FnOnce(&mut Manners)) {
        change(&mut self.stand.registry.state().manners);
    }

    fn put(&self, instances: &[SocketAddr]) {
        self.stand.registry.put(instances.iter().map(entry).collect());
    }

    fn resolver_with(&self, options: ConsulOptions) -> Box<dyn Resolve> {
        let access = Access::default().token(Secret::file(self.folder.join("token")));
        let url = format!("http://{}", self.stand.address);
        Box::new(resolve::consul("users").server(&url).access(access).options(options))
    }
}

impl Drop for Datacenter {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl World for Datacenter {
    const PATIENCE: Duration = Duration::from_secs(3);

    fn resolver(&self) -> Box<dyn Resolve> {
        self.resolver_with(ConsulOptions::default().wait(Duration::from_secs(2)))
    }

    async fn publish(&mut self, instances: &[SocketAddr]) {
        self.put(instances);
        tokio::task::yield_now().await;
    }

    async fn remove(&mut self) {
        self.put(&[]);
    }

    crate::as_its_stand_in!();

    fn secrets(&self) -> Vec<String> {
        vec![TOKEN.to_owned()]
    }
}

crate::suite!(Datacenter::start());

#[tokio::test]
async fn an_index_that_goes_backwards_is_not_waited_for() {
    let datacenter = Datacenter::start().await.unwrap();
    let all = addresses(2, 4);
    datacenter.put(&all[..2]);
    let mut watching = Watching::start(datacenter.resolver());
    watching.until_set(&all[..2], Datacenter::RECOVERY).await;
    // A server that was restored from a snapshot counts from below, and would not reach the old index for days.
    {
        let mut state = datacenter.stand.registry.state();
        state.index = 4;
        state.entries = all.iter().map(entry).collect();
        state.asked.clear();
    }
    watching.until_set(&all, Datacenter::PATIENCE).await;
    sleep(Duration::from_millis(200)).await;
    let asked: Vec<Option<String>> = {
        let state = datacenter.stand.registry.state();
        state.asked.iter().map(|asked| asked.query("index").map(str::to_owned)).collect()
    };
    assert_eq!(asked[asked.len() - 2..], [None, Some("4".to_owned())], "{asked:?}");
    datacenter.put(&all[..1]);
    watching.until_set(&all[..1], Duration::from_secs(1)).await;
}

#[tokio::test]
async fn answers_at_once_for_ever_are_not_a_storm() {
    for index in [None, Some("0"), Some("")] {
        let datacenter = Datacenter::start().await.unwrap();
        let all = addresses(2, 2);
        datacenter.put(&all);
        datacenter.manners(|manners| {
            manners.hasty = true;
            manners.index = index;
        });
        let mut watching = Watching::start(datacenter.resolver());
        watching.until_set(&all, Datacenter::RECOVERY).await;
        sleep(Duration::from_secs(2)).await;
        let asked = datacenter.stand.asked();
        assert!((10..=20).contains(&asked), "asked {asked} times, index {index:?}");
        datacenter.put(&all[..1]);
        watching.until_set(&all[..1], Datacenter::PATIENCE).await;
    }
}

#[tokio::test]
async fn half_an_answer_loses_nothing() {
    let datacenter = Datacenter::start().await.unwrap();
    let all = addresses(2, 3);
    datacenter.put(&all);
    let mut watching = Watching::start(datacenter.resolver());
    watching.until_set(&all, Datacenter::RECOVERY).await;
    datacenter.manners(|manners| manners.half = true);
    datacenter.put(&all[..1]);
    let seen = watching.until("trouble", Datacenter::RECOVERY, |seen| seen.failed.is_some()).await;
    let told = seen.failed.unwrap();
    assert!(
        told.starts_with(&format!(
            "consul at http://{}: what it says is not understood",
            datacenter.stand.address
        )),
        "{told}"
    );
    assert_eq!(seen.set.map(|set| set.len()), Some(3));
    datacenter.manners(|manners| {
        manners.half = false;
        manners.piece = Some(1);
    });
    watching.until_set(&all[..1], Datacenter::RECOVERY).await;
}

#[tokio::test]
async fn a_large_answer_is_read() {
    let datacenter = Datacenter::start().await.unwrap();
    let all = addresses(2, 5000);
    datacenter.put(&all);
    datacenter.manners(|manners| manners.piece = Some(1000));
    let mut watching = Watching::start(datacenter.resolver());
    watching.until_set(&all, Datacenter::RECOVERY).await;
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_given_up() {
    for piece in [None, Some(100)] {
        let datacenter = Datacenter::start().await.unwrap();
        datacenter.manners(|manners| manners.piece = piece);
        datacenter.put(&addresses(2, 100));
        let access = Access::default().token(Secret::value(TOKEN)).largest(1_000);
        let url = format!("http://{}", datacenter.stand.address);
        let resolver = resolve::consul("users").server(&url).access(access);
        let mut watching = Watching::start(Box::new(resolver));
        let seen = watching.until("trouble", Datacenter::RECOVERY, |seen| seen.failed.is_some()).await;
        let told = seen.failed.unwrap();
        assert!(told.ends_with("an answer of more than 1000 bytes"), "{told}");
        datacenter.put(&addresses(2, 1));
        watching.until_set(&addresses(2, 1), Datacenter::RECOVERY).await;
    }
}

#[tokio::test]
async fn an_agent_that_has_nothing_new_is_waited_for_as_long_as_it_was_asked_to_wait() {
    let datacenter = Datacenter::start().await.unwrap();
    let all = addresses(2, 2);
    datacenter.put(&all);
    let watch = WatchOptions::default().timeout(Duration::from_millis(300));
    let options = ConsulOptions::default().wait(Duration::from_secs(1)).watch(watch);
    let mut watching = Watching::start(datacenter.resolver_with(options));
    watching.until_set(&all, Datacenter::RECOVERY).await;
    sleep(Duration::from_millis(2_500)).await;
    let seen = watching.seen();
    assert!(seen.said.is_empty() && seen.told > 1, "{seen:?}");
}

#[tokio::test]
async fn an_error_forgets_the_index_and_an_answer_the_rests() {
    let datacenter = Datacenter::start().await.unwrap();
    let all = addresses(2, 2);
    datacenter.put(&all);
    let options = ConsulOptions::default().wait(Duration::from_secs(1)).watch(longer_rests());
    let mut watching = Watching::start(datacenter.resolver_with(options));
    watching.until_set(&all, Datacenter::RECOVERY).await;
    datacenter.manners(|manners| manners.status = Some(500));
    watching.until("rests", Datacenter::RECOVERY, |seen| seen.told > 7).await;
    {
        let mut state = datacenter.stand.registry.state();
        state.manners.status = None;
        state.asked.clear();
    }
    watching.until("well again", Datacenter::RECOVERY, |seen| seen.failed.is_none()).await;
    assert_eq!(datacenter.stand.registry.state().asked[0].query("index"), None);
    datacenter.manners(|manners| manners.status = Some(500));
    watching.until("trouble", Datacenter::RECOVERY, |seen| seen.failed.is_some()).await;
    datacenter.manners(|manners| manners.status = None);
    watching.until("well again", Duration::from_secs(2), |seen| seen.failed.is_none()).await;
}

#[tokio::test]
async fn a_token_that_is_refused_is_read_again() {
    let datacenter = Datacenter::start().await.unwrap();
    let all = addresses(2, 2);
    datacenter.put(&all);
    fs::write(datacenter.folder.join("token"), "hidden-and-old").unwrap();
    let mut watching = Watching::start(datacenter.resolver());
    let seen = watching.until("trouble", Datacenter::RECOVERY, |seen| seen.failed.is_some()).await;
    let told = seen.failed.unwrap();
    assert!(told.contains("403 Forbidden: ACL not found: ***"), "{told}");
    fs::write(datacenter.folder.join("token"), TOKEN).unwrap();
    let seen = watching.until_set(&all, Datacenter::RECOVERY).await;
    assert!(!seen.said.contains("hidden"), "{}", seen.said);
}

#[tokio::test]
async fn an_agent_without_a_leader_is_told_and_asked_with_rests() {
    for status in [500, 429] {
        let datacenter = Datacenter::start().await.unwrap();
        let all = addresses(2, 2);
        datacenter.put(&all);
        datacenter.manners(|manners| manners.status = Some(status));
        let mut watching = Watching::start(datacenter.resolver());
        let seen = watching.until("trouble", Datacenter::RECOVERY, |seen| seen.failed.is_some()).await;
        let told = seen.failed.unwrap();
        assert!(told.contains(&status.to_string()) && told.contains("No cluster leader"), "{told}");
        sleep(Duration::from_secs(2)).await;
        assert!(datacenter.stand.asked() < 40, "{}", datacenter.stand.asked());
        datacenter.manners(|manners| manners.status = None);
        watching.until_set(&all, Datacenter::RECOVERY).await;
    }
}

#[tokio::test]
async fn what_a_name_says_is_asked_for() {
    let datacenter = Datacenter::start().await.unwrap();
    let name = format!(
        "consul://{}/users?tag=v2&tag=blue&passing&dc=eu&near=_agent&stale",
        datacenter.stand.address
    );
    let all = addresses(2, 2);
    let mut entries: Vec<Value> = all.iter().map(entry).collect();
    entries[1]["Service"]["Tags"] = json!(["v2"]);
    datacenter.stand.registry.put(entries);
    datacenter.stand.registry.state().token = "none".to_owned();
    let options = ConsulOptions::default()
        .tag("v2")
        .tag("blue")
        .passing(true)
        .datacenter("eu")
        .near("_agent")
        .reading(Reading::Stale);
    let access = Access::default().token(Secret::value("none"));
    let url = format!("http://{}", datacenter.stand.address);
    let built = resolve::consul("users").server(&url).access(access).options(options);
    assert_eq!(resolve::name(&name).validate(), Ok(()));
    let mut watching = Watching::start(Box::new(built));
    watching.until_set(&all[..1], Datacenter::RECOVERY).await;
    let asked = datacenter.stand.registry.state().asked[0].clone();
    assert_eq!(asked.all("tag"), ["v2", "blue"]);
    let told = ["passing", "dc", "near", "stale"].map(|key| asked.query(key));
    assert_eq!(told, [Some("1"), Some("eu"), Some("_agent"), Some("")]);
}

#[test]
fn all_mistakes_are_told_at_once() {
    let options = ConsulOptions::default().wait(Duration::from_secs(3600)).pace(Duration::ZERO).tag("");
    let wrong = resolve::consul("").server("ftp://me:hidden@there").options(options);
    let told = wrong.validate().unwrap_err();
    assert_eq!(told.problems().len(), 5, "{told}");
    assert!(!format!("{told} {wrong:?}").contains("hidden"));
    for (name, is_good) in [
        ("consul:///users?tag=v2&passing=true", true),
        ("consul:///users?passing=perhaps", false),
        ("consul:///users?stale&cached", false),
        ("consul:///users?tags=v2", false),
        ("consul://a:b:c/users", false),
    ] {
        assert_eq!(resolve::name(name).validate().is_ok(), is_good, "{name}");
    }
}
