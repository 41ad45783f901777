//! The suite over a stand-in for Eureka's server, what is ugly in the real one's protocol, and an independent client that
//! uses the same stand-in.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io,
    net::SocketAddr,
    process::Stdio,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use mainstay::{
    clock,
    resolve::{self, EurekaOptions, PollOptions, Resolve},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::sleep,
};

use super::{
    suite::{Watching, World},
    web::{Asked, Out, Registry, Stand, addresses, longer_rests},
};

const PASSWORD: &str = "hidden-password";
/// `me:hidden-password`
const LOGIN: &str = "Basic bWU6aGlkZGVuLXBhc3N3b3Jk";

/// How the server misbehaves.
#[derive(Clone, Debug, Default)]
struct Manners {
    /// Every answer has this status.
    status: Option<u16>,
    /// Changes are forbidden.
    no_delta: bool,
    /// All of it is not told.
    no_full: bool,
    /// Changes are lost before they are told.
    lossy: bool,
    /// It has just begun and knows of nothing, so many times.
    empty: usize,
    /// Answers end in the middle, as whole answers do.
    half: bool,
    /// Answers come in pieces of so many bytes.
    piece: Option<usize>,
}

#[derive(Default)]
struct Server {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    instances: BTreeMap<(String, String), Value>,
    /// What changed of late.
    recent: Vec<(String, Value)>,
    manners: Manners,
    full: usize,
}

impl State {
    fn hash(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for instance in self.instances.values() {
            *counts.entry(instance["status"].as_str().unwrap()).or_default() += 1;
        }
        counts.iter().fold(String::new(), |mut hash, (status, count)| {
            let _ = write!(hash, "{status}_{count}_");
            hash
        })
    }

    fn change(&mut self, app: &str, id: &str, instance: Option<Value>) {
        let key = (app.to_owned(), id.to_owned());
        let (action, mut told) = match instance {
            Some(instance) => {
                let before = self.instances.insert(key, instance.clone());
                (if before.is_some() { "MODIFIED" } else { "ADDED" }, instance)
            }
            None => match self.instances.remove(&key) {
                Some(instance) => ("DELETED", instance),
                None => return,
            },
        };
        if self.manners.lossy {
            return;
        }
        told["actionType"] = action.into();
        self.recent.push((app.to_owned(), told));
        if self.recent.len() > 50 {
            self.recent.remove(0);
        }
    }
}

/// As the real server's library writes it: a list of one is that one.
fn list(mut many: Vec<Value>) -> Value {
    if many.len() == 1 { many.remove(0) } else { Value::from(many) }
}

fn document<'a>(hash: &str, instances: impl Iterator<Item = (&'a str, &'a Value)>) -> Value {
    let mut applications: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for (app, instance) in instances {
        applications.entry(app).or_default().push(instance.clone());
    }
    let applications: Vec<Value> =
        applications.into_iter().map(|(name, of)| json!({"name": name, "instance": list(of)})).collect();
    json!({"applications": {"versions__delta": "1", "apps__hashcode": hash, "application": list(applications)}})
}

fn xml(state: &State) -> String {
    let mut applications: BTreeMap<&str, String> = BTreeMap::new();
    for ((app, _), instance) in &state.instances {
        let text = |key: &str| instance[key].as_str().unwrap_or_default().to_owned();
        let port = |key: &str| {
            let (enabled, number) = (&instance[key]["@enabled"], &instance[key]["$"]);
            format!("<{key} enabled={enabled}>{number}</{key}>")
        };
        let of = applications.entry(app).or_default();
        let _ = write!(of, "<instance>");
        for key in ["instanceId", "hostName", "ipAddr", "status", "vipAddress", "secureVipAddress"] {
            let _ = write!(of, "<{key}>{}</{key}>", text(key));
        }
        let _ = write!(of, "<app>{app}</app>{}{}</instance>", port("port"), port("securePort"));
    }
    let all: String = applications
        .iter()
        .map(|(name, of)| format!("<application><name>{name}</name>{of}</application>"))
        .collect();
    let hash = state.hash();
    format!(
        "<applications><versions__delta>1</versions__delta><apps__hashcode>{hash}</apps__hashcode>{all}</applications>"
    )
}

impl Server {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Status and body.
    fn answer_to(&self, asked: &Asked) -> (u16, String) {
        let mut state = self.state();
        let is_json = asked.header("accept") == Some("application/json");
        let parts: Vec<&str> = asked.path.trim_matches('/').split('/').collect();
        match (asked.method.as_str(), &parts[..]) {
            ("GET", ["eureka", "apps"]) if !is_json => (200, xml(&state)),
            ("GET", ["eureka", "apps"]) => {
                state.full += 1;
                if state.manners.no_full {
                    return (503, String::new());
                }
                if state.manners.empty > 0 {
                    state.manners.empty -= 1;
                    return (200, document("", std::iter::empty()).to_string());
                }
                let all = state.instances.iter().map(|((app, _), instance)| (app.as_str(), instance));
                (200, document(&state.hash(), all).to_string())
            }
            ("GET", ["eureka", "apps", "delta"]) => {
                if state.manners.no_delta {
                    return (403, String::new());
                }
                if state.manners.empty > 0 {
                    return (200, document("", std::iter::empty()).to_string());
                }
                let recent = state.recent.iter().map(|(app, instance)| (app.as_str(), instance));
                (200, document(&state.hash(), recent).to_string())
            }
            ("POST", ["eureka", "apps", app]) => {
                let body: Value = serde_json::from_str(&asked.body).unwrap();
                let id = body["instance"]["instanceId"].as_str().unwrap().to_owned();
                state.change(app, &id, Some(body["instance"].clone()));
                (204, String::new())
            }
            ("PUT", ["eureka", "apps", app, id]) => {
                let is_known = state.instances.contains_key(&((*app).to_owned(), (*id).to_owned()));
                (if is_known { 200 } else { 404 }, String::new())
            }
            ("PUT", ["eureka", "apps", app, id, "status"]) => {
                let known = state.instances.get(&((*app).to_owned(), (*id).to_owned())).cloned();
                let Some(mut instance) = known else { return (404, String::new()) };
                instance["status"] = asked.query("value").unwrap().into();
                state.change(app, id, Some(instance));
                (200, String::new())
            }
            ("DELETE", ["eureka", "apps", app, id]) => {
                state.change(app, id, None);
                (200, String::new())
            }
            _ => (404, String::new()),
        }
    }
}

impl Registry for Server {
    async fn answer(&self, asked: Asked, out: &mut Out) -> io::Result<()> {
        let manners = self.state().manners.clone();
        if asked.header("accept") == Some("application/json") && asked.header("authorization") != Some(LOGIN)
        {
            let said = asked.header("authorization").unwrap_or_default();
            return out.whole(401, "", &format!("not you: {said}")).await;
        }
        if let Some(status) = manners.status {
            return out.whole(status, "", "not now").await;
        }
        let (status, body) = self.answer_to(&asked);
        if status == 204 {
            return out.raw(b"HTTP/1.1 204 X\r\n\r\n").await;
        }
        if manners.half {
            return out.whole(status, "", &body[..body.len() / 2]).await;
        }
        let Some(piece) = manners.piece else { return out.whole(status, "", &body).await };
        out.begin().await?;
        for piece in body.as_bytes().chunks(piece) {
            out.chunk(piece).await?;
        }
        out.end().await
    }
}

struct Mesh {
    stand: Stand<Server>,
}

fn instance(address: &SocketAddr, status: &str) -> Value {
    json!({
        "instanceId": format!("i-{address}"), "hostName": "größe.internal", "app": "USERS", "ipAddr": address.ip().to_string(),
        "status": status, "overriddenStatus": "UNKNOWN", "vipAddress": "users.vip", "secureVipAddress": "users.svip",
        "port": {"$": address.port(), "@enabled": "true"}, "securePort": {"$": 8443, "@enabled": "true"},
        "dataCenterInfo": {"@class": "com.netflix.appinfo.AmazonInfo", "name": "Amazon", "metadata": {"availability-zone": "eu-1a"}},
        "metadata": {"@class": "java.util.Collections$EmptyMap"},
    })
}

impl Mesh {
    async fn start() -> Option<Self> {
        let mesh = Self { stand: Stand::start(Server::default()).await };
        let other = SocketAddr::from(([10, 9, 9, 9], 80));
        mesh.state().change("OTHERS", "other", Some(instance(&other, "DOWN")));
        Some(mesh)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.stand.registry.state()
    }

    fn manners(&self, change: impl FnOnce(&mut Manners)) {
        change(&mut self.state().manners);
    }

    fn put(&self, instances: &[SocketAddr]) {
        let mut state = self.state();
        let known: Vec<String> =
            state.instances.keys().filter(|(app, _)| app == "USERS").map(|(_, id)| id.clone()).collect();
        for id in known {
            if !instances.iter().any(|address| format!("i-{address}") == id) {
                state.change("USERS", &id, None);
            }
        }
        for address in instances {
            let id = format!("i-{address}");
            if !state.instances.contains_key(&("USERS".to_owned(), id.clone())) {
                state.change("USERS", &id, Some(instance(address, "UP")));
            }
        }
    }

    fn url(&self) -> String {
        format!("http://me:{PASSWORD}@{}", self.stand.address)
    }

    fn built(&self) -> resolve::Eureka {
        let poll =
            PollOptions::default().interval(Duration::from_millis(200)).timeout(Duration::from_secs(2));
        resolve::eureka("USERS").server(&self.url()).options(EurekaOptions::default().poll(poll))
    }
}

impl World for Mesh {
    const PATIENCE: Duration = Duration::from_secs(4);

    fn resolver(&self) -> Box<dyn Resolve> {
        Box::new(self.built())
    }

    async fn publish(&mut self, instances: &[SocketAddr]) {
        self.put(instances);
    }

    async fn remove(&mut self) {
        self.put(&[]);
    }

    crate::as_its_stand_in!();

    fn secrets(&self) -> Vec<String> {
        vec![PASSWORD.to_owned(), LOGIN.trim_start_matches("Basic ").to_owned()]
    }
}

crate::suite!(Mesh::start());

#[tokio::test]
async fn changes_are_enough_until_one_is_missed() {
    let mesh = Mesh::start().await.unwrap();
    let all = addresses(3, 6);
    mesh.put(&all[..3]);
    let mut watching = Watching::start(mesh.resolver());
    watching.until_set(&all[..3], Mesh::RECOVERY).await;
    mesh.put(&all[1..5]);
    watching.until_set(&all[1..5], Mesh::PATIENCE).await;
    assert_eq!(mesh.state().full, 1, "the hash was right");
    mesh.manners(|manners| manners.lossy = true);
    mesh.put(&all);
    watching.until_set(&all, Mesh::PATIENCE).await;
    assert_eq!(mesh.state().full, 2, "the hash was wrong, once");
}

#[tokio::test]
async fn a_copy_that_missed_something_is_not_trusted_again() {
    let mesh = Mesh::start().await.unwrap();
    let all = addresses(3, 4);
    mesh.put(&all[..2]);
    let mut watching = Watching::start(mesh.resolver());
    watching.until_set(&all[..2], Mesh::RECOVERY).await;
    mesh.manners(|manners| {
        manners.lossy = true;
        manners.no_full = true;
    });
    mesh.put(&[all[0], all[2], all[3]]);
    watching.until("trouble", Mesh::RECOVERY, |seen| seen.failed.is_some()).await;
    // By the hash alone the old copy is right again: there are as many as there were.
    mesh.manners(|manners| manners.lossy = false);
    mesh.put(&[all[0], all[2]]);
    sleep(Duration::from_secs(1)).await;
    mesh.manners(|manners| manners.no_full = false);
    watching.until_set(&[all[0], all[2]], Mesh::RECOVERY).await;
}

#[tokio::test]
async fn a_copy_that_is_older_than_the_changes_that_are_told_is_fetched_anew() {
    let mut mesh = Mesh::start().await.unwrap();
    let all = addresses(3, 3);
    mesh.put(&all[..2]);
    let mut watching = Watching::start(mesh.resolver());
    watching.until_set(&all[..2], Mesh::RECOVERY).await;
    mesh.stand.kill().await;
    watching.until("trouble", Mesh::RECOVERY, |seen| seen.failed.is_some()).await;
    // Every change of the last minutes is over, and there are as many as before.
    mesh.manners(|manners| manners.lossy = true);
    mesh.put(&all[1..]);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(180)).await;
    tokio::time::resume();
    mesh.stand.restart().await;
    watching.until_set(&all[1..], Mesh::RECOVERY).await;
}

#[tokio::test]
async fn a_server_that_tells_no_changes_is_asked_for_all() {
    let mesh = Mesh::start().await.unwrap();
    let all = addresses(3, 3);
    mesh.manners(|manners| manners.no_delta = true);
    mesh.put(&all[..2]);
    let mut watching = Watching::start(mesh.resolver());
    watching.until_set(&all[..2], Mesh::RECOVERY).await;
    mesh.put(&all);
    let seen = watching.until_set(&all, Mesh::PATIENCE).await;
    assert_eq!(seen.said, "");
}

#[tokio::test]
async fn a_server_that_has_just_begun_is_not_believed_at_once() {
    let mesh = Mesh::start().await.unwrap();
    let all = addresses(3, 4);
    mesh.put(&all);
    let mut watching = Watching::start(mesh.resolver());
    watching.until_set(&all, Mesh::RECOVERY).await;
    mesh.manners(|manners| manners.empty = 1);
    sleep(Duration::from_secs(1)).await;
    assert!(mesh.state().manners.empty == 0 && !watching.seen().gone, "{:?}", watching.seen());
    // One that says so again is.
    mesh.manners(|manners| manners.empty = 1000);
    watching.until("gone", Mesh::PATIENCE, |seen| seen.gone).await;
}

#[tokio::test]
async fn a_server_that_lost_its_peers_is_held_against_another() {
    let (first, second) = (Mesh::start().await.unwrap(), Mesh::start().await.unwrap());
    let all = addresses(3, 6);
    first.put(&all);
    second.put(&all);
    let mut watching = Watching::start(Box::new(first.built().server(&second.url())));
    watching.until_set(&all, Mesh::RECOVERY).await;
    first.put(&all[..2]);
    sleep(Duration::from_secs(1)).await;
    assert!(second.stand.asked() > 0);
    assert_eq!(watching.seen().set.map(|set| set.len()), Some(all.len()), "the other one knows better");
}

#[tokio::test]
async fn what_is_not_believed_at_once_is_asked_for_in_full() {
    let mesh = Mesh::start().await.unwrap();
    let all = addresses(3, 6);
    mesh.put(&all);
    let mut watching = Watching::start(mesh.resolver());
    watching.until_set(&all, Mesh::RECOVERY).await;
    mesh.put(&all[..2]);
    watching.until_set(&all[..2], Mesh::PATIENCE).await;
    assert_eq!(mesh.state().full, 2);
}

#[tokio::test]
async fn early_looks_keep_to_the_floor_and_an_answer_ends_the_rests() {
    let mesh = Mesh::start().await.unwrap();
    mesh.put(&addresses(3, 2));
    let poll = PollOptions::default()
        .interval(Duration::from_secs(3600))
        .floor(Duration::from_millis(400))
        .backoff(longer_rests().backoff);
    let mut resolver =
        resolve::eureka("USERS").server(&mesh.url()).options(EurekaOptions::default().poll(poll));
    let mut told = 0;
    let start = clock::now();
    while clock::now() - start < Duration::from_secs(2) {
        resolver.refresh();
        let next = std::future::poll_fn(|cx| resolver.poll_next(cx));
        if tokio::time::timeout(Duration::from_millis(10), next).await.is_ok() {
            told += 1;
        }
    }
    assert!((4..=6).contains(&told) && mesh.stand.asked() <= 6, "{told} {}", mesh.stand.asked());
    let failures = async |resolver: &mut resolve::Eureka, count: usize| {
        mesh.manners(|manners| manners.status = Some(500));
        for _ in 0..count {
            resolver.refresh();
            let told = std::future::poll_fn(|cx| resolver.poll_next(cx)).await;
            assert!(matches!(told, Some(resolve::Resolution::Failed(_))));
        }
        mesh.manners(|manners| manners.status = None);
        let start = clock::now();
        let told = std::future::poll_fn(|cx| resolver.poll_next(cx)).await;
        assert!(matches!(told, Some(resolve::Resolution::Bound(_))));
        clock::now() - start
    };
    assert!(failures(&mut resolver, 6).await > Duration::from_secs(1));
    assert!(failures(&mut resolver, 1).await < Duration::from_secs(1));
}

#[tokio::test]
async fn the_next_server_is_asked_when_one_is_gone() {
    let (mut first, second) = (Mesh::start().await.unwrap(), Mesh::start().await.unwrap());
    let all = addresses(3, 3);
    first.put(&all);
    second.put(&all);
    let mut watching = Watching::start(Box::new(first.built().server(&second.url())));
    watching.until_set(&all, Mesh::RECOVERY).await;
    assert_eq!(second.stand.asked(), 0);
    first.stand.kill().await;
    second.put(&all[1..]);
    let seen = watching.until_set(&all[1..], Mesh::PATIENCE).await;
    assert_eq!(seen.said, "", "there was one that answered all the time");
}

#[tokio::test]
async fn half_an_answer_and_a_refusal_lose_nothing() {
    let mesh = Mesh::start().await.unwrap();
    let all = addresses(3, 5000);
    mesh.manners(|manners| manners.piece = Some(997));
    mesh.put(&all);
    let mut watching = Watching::start(mesh.resolver());
    watching.until_set(&all, Mesh::RECOVERY).await;
    for change in
        [|manners: &mut Manners| manners.half = true, |manners: &mut Manners| manners.status = Some(429)]
    {
        mesh.manners(change);
        let seen = watching.until("trouble", Mesh::RECOVERY, |seen| seen.failed.is_some()).await;
        let told = seen.failed.unwrap();
        assert!(told.starts_with(&format!("eureka at http://{}/eureka: ", mesh.stand.address)), "{told}");
        mesh.manners(|manners| *manners = Manners { piece: Some(997), ..Manners::default() });
        watching.until("well again", Mesh::RECOVERY, |seen| seen.failed.is_none()).await;
    }
}

#[tokio::test]
async fn virtual_addresses_and_statuses_choose_who_is_told() {
    let mesh = Mesh::start().await.unwrap();
    let all = addresses(3, 3);
    mesh.put(&all);
    mesh.state().change("USERS", &format!("i-{}", all[2]), Some(instance(&all[2], "OUT_OF_SERVICE")));
    let mut watching = Watching::start(mesh.resolver());
    watching.until_set(&all[..2], Mesh::RECOVERY).await;
    let mut secure: Vec<SocketAddr> = all[..2].to_vec();
    secure.iter_mut().for_each(|address| address.set_port(8443));
    let mut watching = Watching::start(Box::new(mesh.built().secure_vip("users.svip")));
    watching.until_set(&secure, Mesh::RECOVERY).await;
    let options = EurekaOptions::default().all(true);
    let mut watching = Watching::start(Box::new(mesh.built().options(options)));
    watching.until_set(&all, Mesh::RECOVERY).await;
}

#[test]
fn all_mistakes_are_told_at_once() {
    let poll = PollOptions::default().interval(Duration::ZERO);
    let options = EurekaOptions::default().poll(poll);
    let wrong = resolve::eureka("").vip("").server("ftp://me:hidden@there/").options(options);
    let told = wrong.validate().unwrap_err();
    assert_eq!(told.problems().len(), 3, "{told}");
    assert!(!format!("{told} {wrong:?}").contains("hidden"));
    for (name, is_good) in [
        ("eureka:///USERS", true),
        ("eureka:///?vip=users.vip", true),
        ("eureka://a:1,b:2/USERS?svip=x&region=r", true),
        ("eureka:///USERS?zone=a", false),
        ("eureka://a:b:c/USERS", false),
    ] {
        assert_eq!(
            resolve::name(name).validate().is_ok(),
            is_good,
            "{name}: {:?}",
            resolve::name(name).validate()
        );
    }
}

/// The independent client, which does as it is told.
struct Foreign {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Foreign {
    /// `None` if it is not installed, which it has said.
    async fn start(server: &str) -> Option<Self> {
        for python in ["python3", "/usr/bin/python3"] {
            let import = Command::new(python).args(["-c", "import py_eureka_client"]).output().await;
            if !import.is_ok_and(|done| done.status.success()) {
                continue;
            }
            let mut child = Command::new(python)
                .args([concat!(env!("CARGO_MANIFEST_DIR"), "/tests/resolve/eureka.py"), server])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .unwrap();
            let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
            return Some(Self { _child: child, input, output: BufReader::new(output).lines() });
        }
        assert!(std::env::var_os("CI").is_none(), "py-eureka-client is not installed");
        println!("py-eureka-client is not installed: nothing is held against it");
        None
    }

    async fn tell(&mut self, word: &str) -> String {
        self.input.write_all(format!("{word}\n").as_bytes()).await.unwrap();
        let said = tokio::time::timeout(Duration::from_secs(20), self.output.next_line()).await;
        said.expect("an answer in time").unwrap().expect("an answer")
    }
}

#[tokio::test]
async fn an_independent_client_writes_what_is_resolved_and_reads_the_same() {
    let mesh = Mesh::start().await.unwrap();
    let all = addresses(3, 2);
    mesh.put(&all);
    let Some(mut foreign) = Foreign::start(&format!("http://{}/eureka", mesh.stand.address)).await else {
        return;
    };
    let mut watching = Watching::start(mesh.resolver());
    watching.until_set(&all, Mesh::RECOVERY).await;
    assert_eq!(foreign.tell("register").await, "done");
    let both: Vec<SocketAddr> =
        all.iter().copied().chain([SocketAddr::from(([10, 0, 0, 77], 8077))]).collect();
    watching.until_set(&both, Mesh::PATIENCE).await;
    assert_eq!(foreign.tell("heartbeat").await, "done");
    let read = foreign.tell("read").await;
    let words = "DOWN_1_UP_3_ OTHERS=10.9.9.9:80:DOWN USERS=10.0.0.77:8077:UP USERS=10.3.0.0:8080:UP USERS=10.3.0.1:8080:UP";
    assert_eq!(read, words);
    foreign.tell("out").await;
    watching.until_set(&all, Mesh::PATIENCE).await;
    foreign.tell("cancel").await;
    assert!(foreign.tell("read").await.starts_with("DOWN_1_UP_2_ "));
    assert_eq!(mesh.state().full, 1, "all of it was told by changes");
}
