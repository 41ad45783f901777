//! The suite, and what is owed of ZooKeeper besides, over Debian's `zookeeper`. Nodes are written by kazoo.

mod server;

use std::{net::SocketAddr, time::Duration};

use mainstay::{
    Endpoint,
    endpoint::Reported,
    registry::{Ensemble, Source},
    resolve::{self, Resolution, Resolve},
};
use serde_json::{Map, Value, json};
use tokio::time::timeout;

pub(crate) use self::server::{Kazoo, Server};
use crate::{
    proxy::{Mode, Proxy},
    suite::{Watching, World, next},
};

const SECOND: Duration = Duration::from_secs(1);
const PATH: &str = "/services/users";

/// How tests speak to it: impatiently.
pub(crate) fn impatient(servers: impl IntoIterator<Item = SocketAddr>) -> Ensemble {
    let servers = servers.into_iter().map(|server| server.to_string());
    Ensemble::new(servers).timeout(SECOND).session_timeout(SECOND * 2)
}

fn member(address: impl ToString, status: &str) -> String {
    let address = address.to_string();
    let (host, port) = address.rsplit_once(':').unwrap();
    let place = json!({"host": host, "port": port.parse::<u16>().unwrap()});
    json!({"serviceEndpoint": place, "additionalEndpoints": {}, "status": status}).to_string()
}

struct ZooKeeper {
    server: Server,
    proxy: Proxy,
    kazoo: Kazoo,
}

impl ZooKeeper {
    async fn start() -> Option<Self> {
        let server = Server::start().await?;
        let proxy = Proxy::to(server.address).await;
        let kazoo = server.kazoo(SECOND * 10, &["writer:hidden-word"]).await;
        Some(Self { server, proxy, kazoo })
    }
}

impl World for ZooKeeper {
    const PATIENCE: Duration = Duration::from_secs(2);

    fn resolver(&self) -> Box<dyn Resolve> {
        let ensemble = impatient([self.proxy.address]).digest("writer", "hidden-word");
        Box::new(resolve::zookeeper(PATH).ensemble(ensemble))
    }

    async fn publish(&mut self, instances: &[SocketAddr]) {
        let nodes: Map<String, Value> = instances
            .iter()
            .map(|address| (format!("member_{address}"), member(address, "ALIVE").into()))
            .collect();
        self.kazoo.tell("publish", json!({"path": PATH, "nodes": nodes})).await;
    }

    async fn remove(&mut self) {
        self.kazoo.tell("remove", json!({"path": PATH})).await;
    }

    async fn kill(&mut self) {
        self.server.kill().await;
    }

    async fn restart(&mut self) {
        self.server.restart().await;
    }

    async fn freeze(&mut self) {
        self.server.daemon().freeze();
    }

    async fn thaw(&mut self) {
        self.server.daemon().thaw();
    }

    fn asked(&self) -> Option<usize> {
        Some(self.proxy.connections())
    }

    fn secrets(&self) -> Vec<String> {
        vec!["hidden-word".to_owned()]
    }
}

crate::suite!(ZooKeeper::start());

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([127, 9, 9, last], 80))
}

async fn create(kazoo: &mut Kazoo, name: &str, data: &str) -> String {
    let created = kazoo.tell("create", json!({"path": format!("{PATH}/{name}"), "data": data})).await;
    created.as_str().unwrap().to_owned()
}

fn users(ensemble: Ensemble) -> Box<dyn Resolve> {
    Box::new(resolve::zookeeper(PATH).ensemble(ensemble))
}

/// The first set that `resolver` tells, and what it tells of trouble right after it.
pub(crate) async fn first(resolver: &mut dyn Resolve) -> (Vec<Endpoint>, Option<String>) {
    let told = timeout(SECOND * 10, next(resolver)).await;
    let Ok(Some(Resolution::Bound(set))) = told else { panic!("no set: {told:?}") };
    let after = match timeout(SECOND / 5, next(resolver)).await {
        Ok(Some(Resolution::Failed(cause))) => Some(cause.to_string()),
        _ => None,
    };
    (set.iter().map(|endpoint| Endpoint::clone(endpoint)).collect(), after)
}

async fn failure(resolver: &mut dyn Resolve) -> String {
    match timeout(SECOND * 10, next(resolver)).await {
        Ok(Some(Resolution::Failed(cause))) => cause.to_string(),
        other => panic!("no failure: {other:?}"),
    }
}

#[tokio::test]
async fn a_serverset_is_read_with_statuses_shards_vectors_and_additional_endpoints() {
    let Some(server) = Server::start().await else { return };
    let mut kazoo = server.kazoo(SECOND * 10, &[]).await;
    let full = json!({
        "serviceEndpoint": {"host": "127.9.9.1", "port": 80},
        "additionalEndpoints": {"http": {"host": "127.9.9.1", "port": 8080}, "odd": {"host": 5}},
        "status": "ALIVE",
        "shard": 3,
        "metadata": {"zone": "eu-1a", "build": "77"},
    });
    create(&mut kazoo, "member_0000000001", &full.to_string()).await;
    for (last, status) in
        [(2, "STARTING"), (3, "STOPPING"), (4, "DEAD"), (5, "STOPPED"), (6, "WARNING"), (7, "NEW")]
    {
        create(&mut kazoo, &format!("member_000000000{last}"), &member(address(last), status)).await;
    }
    let vector = json!({"vector": [
        {"select": "shard=3", "weight": 0.5, "priority": 1},
        {"select": "inet=127.9.9.1:80", "weight": 4.0, "priority": 1},
        {"select": "member=member_0000000006", "weight": 3.0, "priority": 1},
        {"select": "member=member_0000000007", "weight": 0.0, "priority": 1},
        {"select": "color=red", "weight": 9.0},
    ]});
    create(&mut kazoo, "vector_0000000001", &vector.to_string()).await;
    create(&mut kazoo, "somebody_elses", "?").await;
    let mut resolver = resolve::name(format!("zookeeper://{}{PATH}?encoding=serverset", server.address));
    let (set, trouble) = first(&mut resolver).await;
    assert_eq!(trouble, None);
    let told: Vec<_> =
        set.iter().map(|one| (one.address().sockets()[0], one.weight(), one.reported())).collect();
    let owed = [
        (address(1), 2.0, Reported::Healthy),
        (address(2), 1.0, Reported::Unhealthy),
        (address(3), 1.0, Reported::Draining),
        (address(6), 3.0, Reported::Healthy),
        (address(7), 1.0, Reported::Draining),
    ];
    assert_eq!(told, owed);
    let meta = set[0].metadata();
    assert_eq!((&*meta["shard"], &*meta["build"], &*set[0].locality().zone), ("3", "77", "eu-1a"));

    let mut resolver =
        resolve::name(format!("zookeeper://{}{PATH}?encoding=serverset&endpoint=http", server.address));
    let (set, trouble) = first(&mut resolver).await;
    assert_eq!(set[0].address().to_string(), "127.9.9.1:8080");
    assert_eq!(set.len(), 1);
    assert!(trouble.unwrap().contains("no endpoint of the name \"http\""));
}

#[tokio::test]
async fn nodes_of_nerve_are_read_in_every_encoding() {
    let Some(server) = Server::start().await else { return };
    let mut kazoo = server.kazoo(SECOND * 10, &[]).await;
    let nerve = |last: u8| json!({"host": format!("127.9.9.{last}"), "port": 80, "name": format!("i-{last}"), "weight": last, "labels": {"az": "a"}});
    // What `printf '%s' JSON | base64 | tr '+/' '-_'` makes of {"host":"127.9.9.3","port":80,"name":"i-3"}.
    let encoded = "eyJob3N0IjoiMTI3LjkuOS4zIiwicG9ydCI6ODAsIm5hbWUiOiJpLTMifQ==";
    create(&mut kazoo, "i-1_0000000001", &nerve(1).to_string()).await;
    create(&mut kazoo, "i-2_0000000002", &nerve(2).to_string()).await;
    create(&mut kazoo, &format!("base64_{}_{encoded}_0000000003", encoded.len()), "").await;
    let (set, trouble) = first(&mut *users(impatient([server.address]))).await;
    assert_eq!(trouble, None);
    let told: Vec<_> =
        set.iter().map(|one| (one.address().sockets()[0], one.weight(), &*one.metadata()["name"])).collect();
    assert_eq!(told, [(address(1), 1.0, "i-1"), (address(2), 2.0, "i-2"), (address(3), 1.0, "i-3")]);
    assert_eq!(set[0].metadata()["az"], "a");
}

#[tokio::test]
async fn many_names_that_say_all_are_read_in_turns() {
    let Some(server) = Server::start().await else { return };
    let mut kazoo = server.kazoo(SECOND * 10, &[]).await;
    let encoded = "eyJob3N0IjoiMTI3LjkuOS4zIiwicG9ydCI6ODAsIm5hbWUiOiJpLTMifQ==";
    let name = |index| (format!("base64_{}_{encoded}_{index:010}", encoded.len()), Value::from(""));
    let nodes: Map<String, Value> = (0..1_280).map(name).collect();
    kazoo.tell("publish", json!({"path": PATH, "nodes": nodes})).await;
    let (mut resolver, mut polls) = (users(impatient([server.address])), 0);
    let told = std::future::poll_fn(|cx| {
        polls += 1;
        resolver.poll_next(cx)
    });
    assert!(matches!(told.await, Some(Resolution::Bound(set)) if set.len() == 1));
    // 64 are read in one turn, and put together in another.
    assert!(polls >= 2 * 1_280 / 64, "{polls} polls");
}

#[tokio::test]
async fn a_bad_child_is_skipped_and_named_and_a_changed_one_is_read_again() {
    let Some(server) = Server::start().await else { return };
    let mut kazoo = server.kazoo(SECOND * 10, &[]).await;
    create(&mut kazoo, "member_1", &member(address(1), "ALIVE")).await;
    create(&mut kazoo, "member_2", "{\"serviceEndpoint\":\"hidden\"}").await;
    let (set, trouble) = first(&mut *users(impatient([server.address]))).await;
    assert_eq!(set.len(), 1);
    let told = trouble.unwrap();
    assert!(told.ends_with("1 of 2 entries skipped: \"member_2\": no serviceEndpoint"), "{told}");

    let mut watching = Watching::start(users(impatient([server.address])));
    watching.until_set(&[address(1)], SECOND * 5).await;
    for last in [3, 4, 5] {
        kazoo
            .tell("put", json!({"path": format!("{PATH}/member_2"), "data": member(address(last), "ALIVE")}))
            .await;
        watching.until_set(&[address(1), address(last)], SECOND * 2).await;
    }
    kazoo.tell("put", json!({"path": format!("{PATH}/member_1"), "data": "?"})).await;
    kazoo.tell("put", json!({"path": format!("{PATH}/member_2"), "data": "?"})).await;
    let all = |seen: &crate::suite::Seen| seen.failed.as_ref().is_some_and(|told| told.contains("2 of 2"));
    let seen = watching.until("nothing is left", SECOND * 2, all).await;
    assert!(!seen.gone, "where nothing can be read, nothing is taken away");
}

#[tokio::test]
async fn a_process_that_dies_without_a_goodbye_is_gone_when_its_session_ends() {
    let Some(server) = Server::start().await else { return };
    let mut other = server.kazoo(SECOND, &[]).await;
    let node = json!({"path": format!("{PATH}/member_"), "data": member(address(1), "ALIVE"), "ephemeral": true, "sequence": true});
    other.tell("create", node).await;
    let mut kazoo = server.kazoo(SECOND * 10, &[]).await;
    create(&mut kazoo, "member_2", &member(address(2), "ALIVE")).await;
    let mut watching = Watching::start(users(impatient([server.address])));
    watching.until_set(&[address(1), address(2)], SECOND * 5).await;
    other.die().await;
    watching.until_set(&[address(2)], SECOND * 5).await;
}

#[tokio::test]
async fn over_a_slow_network_everything_is_told_and_nothing_is_given_up() {
    let Some(server) = Server::start().await else { return };
    let (mut kazoo, proxy) = (server.kazoo(SECOND * 10, &[]).await, Proxy::to(server.address).await);
    proxy.set(Mode::Slow);
    create(&mut kazoo, "member_1", &member(address(1), "ALIVE")).await;
    // Its silence would be noticed after two thirds of a second.
    let ensemble = impatient([proxy.address]).session_timeout(SECOND);
    let mut watching = Watching::start(users(ensemble));
    watching.until_set(&[address(1)], SECOND * 5).await;
    for last in 2..5 {
        tokio::time::sleep(SECOND / 2).await;
        create(&mut kazoo, &format!("member_{last}"), &member(address(last), "ALIVE")).await;
        let all: Vec<_> = (1..=last).map(address).collect();
        let seen = watching.until_set(&all, SECOND * 5).await;
        assert_eq!(seen.said, "");
    }
    assert_eq!(proxy.connections(), 1);
}

#[tokio::test]
async fn an_expired_session_is_replaced_and_nothing_that_happened_meanwhile_is_missed() {
    let Some(server) = Server::start().await else { return };
    let (mut kazoo, proxy) = (server.kazoo(SECOND * 10, &[]).await, Proxy::to(server.address).await);
    create(&mut kazoo, "member_1", &member(address(1), "ALIVE")).await;
    let mut watching = Watching::start(users(impatient([proxy.address])));
    watching.until_set(&[address(1)], SECOND * 5).await;
    assert_eq!(kazoo.tell("sessions", json!({})).await, 2);
    proxy.set(Mode::Lost);
    kazoo.tell("delete", json!({"path": format!("{PATH}/member_1")})).await;
    create(&mut kazoo, "member_2", &member(address(2), "ALIVE")).await;
    let seen = watching.until("trouble is told", SECOND * 4, |seen| seen.failed.is_some()).await;
    let told = seen.failed.unwrap();
    assert!(told.contains(&format!("zookeeper at {}", proxy.address)), "{told}");
    assert!(!seen.gone && seen.set == Some([address(1)].into()), "the last good set stays");
    for _ in 0..40 {
        tokio::time::sleep(SECOND / 10).await;
        if kazoo.tell("sessions", json!({})).await == 1 {
            break;
        }
    }
    assert_eq!(kazoo.tell("sessions", json!({})).await, 1, "the session has expired");
    proxy.set(Mode::Flow);
    watching.until_set(&[address(2)], SECOND * 15).await;
    assert_eq!(kazoo.tell("sessions", json!({})).await, 2);
}

#[tokio::test]
async fn a_broken_connection_is_replaced_within_the_same_session_which_a_drop_ends() {
    let Some(server) = Server::start().await else { return };
    let mut kazoo = server.kazoo(SECOND * 10, &[]).await;
    let (one, other) = (Proxy::to(server.address).await, Proxy::to(server.address).await);
    create(&mut kazoo, "member_1", &member(address(1), "ALIVE")).await;
    // Longer than the test, so that no session ends by itself.
    let ensemble = impatient([one.address, other.address]).session_timeout(SECOND * 50);
    let mut watching = Watching::start(users(ensemble));
    watching.until_set(&[address(1)], SECOND * 5).await;
    let (used, spare) = if one.connections() > 0 { (one, other) } else { (other, one) };
    used.set(Mode::Cut);
    watching.until("trouble is told", SECOND * 5, |seen| seen.failed.is_some()).await;
    create(&mut kazoo, "member_2", &member(address(2), "ALIVE")).await;
    watching.until_set(&[address(1), address(2)], SECOND * 5).await;
    assert_eq!(spare.connections(), 1);
    assert_eq!(kazoo.tell("sessions", json!({})).await, 2, "the session went on");
    drop(watching);
    for _ in 0..40 {
        if kazoo.tell("sessions", json!({})).await == 1 {
            return;
        }
        tokio::time::sleep(SECOND / 20).await;
    }
    panic!("the session was left behind");
}

#[tokio::test]
async fn what_is_protected_is_read_by_those_who_may_and_under_a_chroot() {
    let Some(server) = Server::start().await else { return };
    let mut kazoo = server.kazoo(SECOND * 10, &["reader:secret-word"]).await;
    let node = |path: &str, data: &str| json!({"path": format!("/mesh{PATH}{path}"), "data": data, "digest": "reader:secret-word"});
    kazoo.tell("create", node("", "")).await;
    kazoo.tell("create", node("/member_1", &member(address(1), "ALIVE"))).await;
    let password = server.directory().file("password", "secret-word\n");
    let ensemble = impatient([server.address]).chroot("/mesh");
    let (set, _) = first(&mut *users(ensemble.clone().digest("reader", Source::file(&password)))).await;
    assert_eq!(set.len(), 1);
    let name = format!(
        "zookeeper://{}{PATH}?chroot=/mesh&user=reader&password_file={}",
        server.address,
        password.display()
    );
    assert_eq!(first(&mut resolve::name(name)).await.0.len(), 1);
    for wrong in [ensemble.clone(), ensemble.digest("reader", "other-word")] {
        let told = failure(&mut *users(wrong)).await;
        assert_eq!(told, format!("zookeeper at {}: listing: not permitted", server.address));
    }
}

#[tokio::test]
async fn a_node_that_is_not_there_is_absent_until_it_is() {
    let Some(server) = Server::start().await else { return };
    let mut kazoo = server.kazoo(SECOND * 10, &[]).await;
    let mut resolver = users(impatient([server.address]));
    assert!(matches!(next(&mut *resolver).await, Some(Resolution::Absent)));
    let mut watching = Watching::start(resolver);
    create(&mut kazoo, "member_1", &member(address(1), "ALIVE")).await;
    watching.until_set(&[address(1)], SECOND * 5).await;
}

#[tokio::test]
async fn many_children_are_all_read_and_those_that_go_meanwhile_are_no_mistake() {
    let Some(server) = Server::start().await else { return };
    let mut kazoo = server.kazoo(SECOND * 10, &[]).await;
    let nodes = |range: std::ops::Range<u16>| -> Map<String, Value> {
        let node = |index: u16| {
            let [high, low] = index.to_be_bytes();
            let address = SocketAddr::from(([127, 8, high, low], 80));
            (format!("member_{index:05}"), member(address, "ALIVE").into())
        };
        range.map(node).collect()
    };
    kazoo.tell("publish", json!({"path": PATH, "nodes": nodes(0..2_000)})).await;
    let (set, trouble) = first(&mut *users(impatient([server.address]))).await;
    assert_eq!((set.len(), trouble), (2_000, None));
    let mut watching = Watching::start(users(impatient([server.address])));
    // Children go and come while they are being read.
    for start in 1..10 {
        kazoo.tell("publish", json!({"path": PATH, "nodes": nodes(start * 100..start * 100 + 2_000)})).await;
    }
    let all = |seen: &crate::suite::Seen| {
        seen.set
            .as_ref()
            .is_some_and(|set| set.len() == 2_000 && set.contains(&SocketAddr::from(([127, 8, 11, 83], 80))))
    };
    let seen = watching.until("the last two thousand", SECOND * 10, all).await;
    assert_eq!(seen.said, "");
}

#[tokio::test]
async fn a_child_that_goes_and_comes_back_while_the_others_are_listed_is_not_lost() {
    let Some(server) = Server::start().await else { return };
    let (mut kazoo, proxy) = (server.kazoo(SECOND * 10, &[]).await, Proxy::to(server.address).await);
    create(&mut kazoo, "users-1", &address(1).to_string()).await;
    let mut watching = Watching::start(users(impatient([proxy.address]).session_timeout(SECOND * 20)));
    watching.until_set(&[address(1)], SECOND * 5).await;
    // What it asks waits once it is told that the children have changed.
    let changed = [4_u32, 3, PATH.len() as u32].map(u32::to_be_bytes).concat();
    proxy.set(Mode::HoldAfter([&changed, PATH.as_bytes()].concat()));
    create(&mut kazoo, "users-2", &address(2).to_string()).await;
    proxy.held().await;
    kazoo.tell("delete", json!({"path": format!("{PATH}/users-1")})).await;
    create(&mut kazoo, "users-1", &address(3).to_string()).await;
    proxy.set(Mode::Flow);
    watching.until_set(&[address(2), address(3)], SECOND * 5).await;
}

#[tokio::test]
async fn what_a_name_says_is_checked() {
    for (name, told) in [
        ("zookeeper://zk:2181/", "path"),
        ("zookeeper://zk/users", "servers"),
        ("zookeeper:///a//b", "path"),
        ("zookeeper:///a/../b", "path"),
        ("zookeeper:///users?encoding=x", "name.encoding"),
        ("zookeeper:///users?password_file=x", "user and password_file go together"),
        ("zookeeper:///users?tls=true", "name.query"),
    ] {
        let error = resolve::name(name).validate().unwrap_err().to_string();
        assert!(error.contains(told), "{name}: {error}");
    }
}
