//! The suite, and what is owed of etcd besides, over Debian's `etcd-server`. Keys are written by `etcdctl`, or by a client
//! of the tests' own.

mod client;
mod server;

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use mainstay::{
    Endpoint,
    registry::{Encoding, EtcdCluster, Source},
    resolve::{self, Resolution, Resolve},
};
use tokio::time::timeout;

use self::client::Client;
#[cfg(feature = "tls")]
use self::server::Certificates;
pub(crate) use self::server::Server;
use crate::{
    proxy::{Mode, Proxy},
    suite::{Watching, World, apart, next},
};

const SECOND: Duration = Duration::from_secs(1);
const PASSWORD: &str = "correct-horse-battery";

/// How tests speak to it: impatiently.
pub(crate) fn impatient(members: impl IntoIterator<Item = SocketAddr>) -> EtcdCluster {
    EtcdCluster::new(members.into_iter().map(|member| member.to_string())).timeout(SECOND).keep_alive(SECOND)
}

/// A protected etcd behind a network of its own.
struct Etcd {
    server: Server,
    proxy: Proxy,
    client: Option<Client>,
    published: BTreeSet<SocketAddr>,
}

impl Etcd {
    async fn start() -> Option<Self> {
        let mut server = Server::start().await?;
        server.protect(PASSWORD).await;
        let proxy = Proxy::to(server.address).await;
        Some(Self { server, proxy, client: None, published: BTreeSet::new() })
    }
}

impl World for Etcd {
    const PATIENCE: Duration = Duration::from_secs(2);

    fn resolver(&self) -> Box<dyn Resolve> {
        let cluster = impatient([self.proxy.address]).user("root", PASSWORD);
        Box::new(resolve::etcd("services/users").cluster(cluster))
    }

    async fn publish(&mut self, instances: &[SocketAddr]) {
        let wanted: BTreeSet<_> = instances.iter().copied().collect();
        let key = |address: &SocketAddr| format!("services/users/{address}");
        let put: Vec<_> = wanted
            .difference(&self.published)
            .map(|address| (key(address), format!("{{\"Op\":0,\"Addr\":\"{address}\",\"Metadata\":null}}")))
            .collect();
        let delete: Vec<_> = self.published.difference(&wanted).map(key).collect();
        if self.client.is_none() {
            // Its tasks are not those of a resolver.
            let url = format!("http://{}", self.server.address);
            let open = async move { Client::open(&url, Some(("root", PASSWORD))).await };
            self.client = Some(apart().spawn(open).await.unwrap());
        }
        self.client.as_mut().unwrap().change(&put, &delete).await.unwrap();
        self.published = wanted;
    }

    async fn remove(&mut self) {
        self.publish(&[]).await;
    }

    async fn kill(&mut self) {
        self.client = None;
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
        vec![PASSWORD.to_owned()]
    }
}

crate::suite!(Etcd::start());

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([127, 9, 9, last], 80))
}

async fn put(server: &Server, last: u8) {
    server.ctl(&["put", &format!("services/users/{last}"), &address(last).to_string()]).await;
}

fn users(cluster: EtcdCluster) -> Box<dyn Resolve> {
    Box::new(resolve::etcd("services/users").cluster(cluster))
}

/// The first set that `resolver` tells, and what it tells of trouble right after it.
pub(crate) async fn first(resolver: &mut dyn Resolve) -> (Vec<Endpoint>, Option<String>) {
    let Ok(Some(Resolution::Bound(set))) = timeout(SECOND * 10, next(resolver)).await else {
        panic!("no set")
    };
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
async fn a_process_that_dies_without_a_goodbye_is_gone_when_its_lease_ends() {
    let Some(server) = Server::start().await else { return };
    put(&server, 1).await;
    let granted = server.ctl(&["lease", "grant", "2"]).await;
    let lease = format!("--lease={}", granted.split_whitespace().nth(1).unwrap());
    server.ctl(&["put", &lease, "services/users/2", &address(2).to_string()]).await;
    let mut watching = Watching::start(users(impatient([server.address])));
    watching.until_set(&[address(1), address(2)], SECOND * 5).await;
    watching.until_set(&[address(1)], SECOND * 8).await;
}

#[tokio::test]
async fn what_was_compacted_before_it_was_watched_is_listed_anew() {
    let Some(server) = Server::start().await else { return };
    let proxy = Proxy::to(server.address).await;
    put(&server, 1).await;
    proxy.set(Mode::HoldAfter(address(1).to_string().into_bytes()));
    let mut watching = Watching::start(users(impatient([proxy.address]).timeout(SECOND * 20)));
    proxy.held().await;
    // It has listed, and its watch is on the way.
    let mut client = server.client(None).await;
    let key = |last: u8| (format!("services/users/{last}"), address(last).to_string());
    client.change(&[key(2)], &["services/users/1".to_owned()]).await.unwrap();
    let revision = client.change(&[key(3)], &[]).await.unwrap();
    client.compact(revision).await;
    proxy.set(Mode::Flow);
    let seen = watching.until_set(&[address(2), address(3)], SECOND * 5).await;
    assert!(seen.said.is_empty(), "a compaction is no trouble: {}", seen.said);
}

#[tokio::test]
async fn over_a_slow_network_everything_is_told_and_nothing_is_given_up() {
    let Some(server) = Server::start().await else { return };
    let proxy = Proxy::to(server.address).await;
    proxy.set(Mode::Slow);
    put(&server, 1).await;
    let mut watching = Watching::start(users(impatient([proxy.address]).timeout(SECOND * 3)));
    watching.until_set(&[address(1)], SECOND * 10).await;
    for last in 2..5 {
        put(&server, last).await;
        let all: Vec<_> = (1..=last).map(address).collect();
        let seen = watching.until_set(&all, SECOND * 5).await;
        assert_eq!(seen.said, "");
    }
    assert_eq!(proxy.connections(), 1);
}

#[tokio::test]
async fn a_cut_network_is_noticed_and_nothing_that_happened_meanwhile_is_missed() {
    let Some(server) = Server::start().await else { return };
    let proxy = Proxy::to(server.address).await;
    put(&server, 1).await;
    let mut watching = Watching::start(users(impatient([proxy.address])));
    watching.until_set(&[address(1)], SECOND * 5).await;
    proxy.set(Mode::Lost);
    put(&server, 2).await;
    server.ctl(&["del", "services/users/1"]).await;
    let seen = watching.until("trouble is told", SECOND * 5, |seen| seen.failed.is_some()).await;
    assert_eq!(seen.set, Some([address(1)].into()), "the last good set stays");
    let told = seen.failed.unwrap();
    assert!(told.contains(&format!("etcd at {}", proxy.address)), "{told}");
    proxy.set(Mode::Flow);
    watching.until_set(&[address(2)], SECOND * 15).await;
}

#[tokio::test]
async fn a_frozen_member_is_noticed_and_another_one_takes_over() {
    let Some(server) = Server::start().await else { return };
    let (one, other) = (Proxy::to(server.address).await, Proxy::to(server.address).await);
    put(&server, 1).await;
    let mut watching = Watching::start(users(impatient([one.address, other.address])));
    watching.until_set(&[address(1)], SECOND * 5).await;
    let (used, spare) = if one.connections() > 0 { (one, other) } else { (other, one) };
    assert_eq!(spare.connections(), 0);
    used.set(Mode::Lost);
    put(&server, 2).await;
    watching.until_set(&[address(1), address(2)], SECOND * 6).await;
    assert_eq!(spare.connections(), 1);
}

#[tokio::test]
async fn a_member_that_dies_is_left_and_one_that_has_lost_its_quorum_is_not_believed() {
    let Some([first, second, third]) = Server::start_three().await else { return };
    let mut servers = [Some(first), Some(second), Some(third)];
    let mut proxies = Vec::new();
    for server in servers.iter().flatten() {
        proxies.push(Proxy::to(server.address).await);
    }
    put(servers[0].as_ref().unwrap(), 1).await;
    let members: Vec<_> = proxies.iter().map(|proxy| proxy.address).collect();
    let mut watching = Watching::start(users(impatient(members)));
    watching.until_set(&[address(1)], SECOND * 5).await;
    let used = proxies.iter().position(|proxy| proxy.connections() > 0).unwrap();
    let mut killed = servers[used].take().unwrap();
    killed.kill().await;
    let (last, rest) = servers.split_last_mut().unwrap();
    let mut left = rest.iter_mut().chain([last]).filter_map(Option::take);
    let (stays, mut dies) = (left.next().unwrap(), left.next().unwrap());
    // It may have to elect a leader first.
    stays.patiently(&["put", "services/users/2", &address(2).to_string()]).await;
    watching.until_set(&[address(1), address(2)], SECOND * 10).await;

    dies.kill().await;
    let seen = watching.until("trouble is told", SECOND * 10, |seen| seen.failed.is_some()).await;
    assert_eq!(seen.set, Some([address(1), address(2)].into()), "the last good set stays");
    dies.restart().await;
    stays.patiently(&["put", "services/users/3", &address(3).to_string()]).await;
    watching.until_set(&[address(1), address(2), address(3)], SECOND * 15).await;
}

#[tokio::test]
async fn members_that_are_dead_are_passed_over() {
    let Some(server) = Server::start().await else { return };
    put(&server, 1).await;
    let dead = [crate::daemon::free(), crate::daemon::free()];
    let mut watching = Watching::start(users(impatient([dead[0], dead[1], server.address])));
    watching.until_set(&[address(1)], SECOND * 5).await;
}

#[tokio::test]
async fn only_who_is_let_in_sees_anything_and_a_wrong_password_is_told_and_not_shown() {
    let Some(mut server) = Server::start().await else { return };
    put(&server, 1).await;
    server.protect(PASSWORD).await;
    let file = server.directory().file("password", &format!("{PASSWORD}\n"));
    let cluster = impatient([server.address]);
    let let_in = [Source::from(PASSWORD), Source::file(file)];
    for password in let_in {
        let mut resolver = users(cluster.clone().user("root", password));
        assert_eq!(first(&mut *resolver).await.0.len(), 1);
    }
    let told = failure(&mut *users(cluster.clone().user("root", "wrong-secret"))).await;
    assert!(told.contains("authenticating") && told.contains("authentication failed"), "{told}");
    assert!(!told.contains("wrong-secret"), "{told}");
    let told = failure(&mut *users(cluster)).await;
    assert!(told.contains("listing") && told.contains("user name is empty"), "{told}");
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn over_tls_both_sides_prove_who_they_are() {
    let certificates = Certificates::new();
    let Some(server) = Server::start_tls(&certificates).await else { return };
    put(&server, 1).await;
    let cluster = impatient([server.address]);
    let mut resolver = users(cluster.clone().tls(certificates.tls()));
    assert_eq!(first(&mut *resolver).await.0[0].address().sockets(), [address(1)]);

    let file = |name, text: &str| server.directory().file(name, text).display().to_string();
    let (certificate, key) = &certificates.client;
    let named = format!(
        "etcd://{}/services/users?ca_file={}&cert_file={}&key_file={}",
        server.address,
        file("a", &certificates.ca),
        file("b", certificate),
        file("c", key)
    );
    assert_eq!(first(&mut resolve::name(named)).await.0.len(), 1);

    let strangers = Certificates::new();
    let told = failure(&mut *users(cluster.clone().tls(strangers.tls()))).await;
    assert!(told.contains("etcd at") && told.contains("certificate"), "{told}");
    let told = failure(&mut *users(cluster.tls(mainstay::registry::Tls::new().ca(&*certificates.ca)))).await;
    assert!(told.contains("etcd at"), "{told}");
}

#[tokio::test]
async fn a_bad_key_is_skipped_and_named_and_hides_no_other() {
    let Some(server) = Server::start().await else { return };
    put(&server, 1).await;
    server.ctl(&["put", "services/users/broken", "{\"host\":\"hidden"]).await;
    server.ctl(&["put", "services/users-old/5", "127.9.9.5:80"]).await;
    let cluster = impatient([server.address]);
    let (set, trouble) = first(&mut *users(cluster.clone())).await;
    assert_eq!(set.len(), 1);
    let told = trouble.unwrap();
    let wanted =
        "1 of 2 entries skipped: \"broken\": no JSON: it breaks off or goes wrong at line 1, column 15";
    assert!(told.ends_with(wanted), "{told}");
    assert!(!told.contains("hidden"));

    // Where nothing can be read, nothing is taken away.
    let mut watching = Watching::start(users(cluster));
    watching.until_set(&[address(1)], SECOND * 5).await;
    server.ctl(&["del", "services/users/1"]).await;
    let wanted = "1 of 1 entries skipped";
    let told = |seen: &crate::suite::Seen| seen.failed.as_ref().is_some_and(|told| told.contains(wanted));
    let seen = watching.until("nothing is left", SECOND * 5, told).await;
    assert!(!seen.gone && seen.set == Some([address(1)].into()));
    put(&server, 2).await;
    watching.until_set(&[address(2)], SECOND * 5).await;
}

#[tokio::test]
async fn every_encoding_is_read_with_what_it_says() {
    let Some(server) = Server::start().await else { return };
    let put = async |key: &str, value: &str| {
        _ = server.ctl(&["put", &format!("services/users/{key}"), value]).await
    };
    put("a", "127.9.9.1:80").await;
    put("b", r#"{"Op":0,"Addr":"127.9.9.2:80","Metadata":{"weight":3,"zone":"z","lane":7}}"#).await;
    put("c", r#"{"host":"127.9.9.3","port":80,"name":"three","weight":5,"labels":{"az":"x"}}"#).await;
    let path = r#"{"host":"::1","port":80,"name":"four"}"#;
    put(&format!("base64_{}_{}_0000000004", 52, base64(path)), "").await;
    put("member_5", r#"{"serviceEndpoint":{"host":"127.9.9.5","port":80},"additionalEndpoints":{},"status":"ALIVE","shard":4}"#).await;
    put("vector_0", r#"{"vector":[{"select":"shard=4","weight":0.5,"priority":1}]}"#).await;
    put("gone", r#"{"Op":1,"Addr":"127.9.9.6:80"}"#).await;
    let (set, trouble) = first(&mut *users(impatient([server.address]))).await;
    assert_eq!(trouble, None);
    let told: Vec<_> = set.iter().map(|one| (one.address().to_string(), one.weight())).collect();
    let owed = [
        ("127.9.9.1:80", 1.0),
        ("127.9.9.2:80", 3.0),
        ("127.9.9.3:80", 5.0),
        ("127.9.9.5:80", 0.5),
        ("[::1]:80", 1.0),
    ];
    assert_eq!(told, owed.map(|(address, weight)| (address.to_owned(), weight)));
    assert_eq!(set[1].locality().zone, "z");
    assert_eq!(set[1].metadata()["lane"], "7");
    assert_eq!((&*set[2].metadata()["name"], &*set[2].metadata()["az"]), ("three", "x"));
    assert_eq!(set[3].metadata()["shard"], "4");

    // Who says which encoding it is takes the others for mistakes.
    let mut resolver =
        resolve::etcd("services/users").cluster(impatient([server.address])).encoding(Encoding::Grpc);
    let (set, trouble) = first(&mut resolver).await;
    assert_eq!(set.len(), 1);
    assert!(trouble.unwrap().contains("5 of 7 entries skipped"));
}

fn base64(text: &str) -> String {
    use tonic::metadata::{BinaryMetadataValue, MetadataValue};
    let value: BinaryMetadataValue = MetadataValue::from_bytes(text.as_bytes());
    let unpadded = String::from_utf8(value.as_encoded_bytes().to_vec()).unwrap();
    let padding = "=".repeat((4 - unpadded.len() % 4) % 4);
    format!("{unpadded}{padding}").replace('+', "-").replace('/', "_")
}

#[tokio::test]
async fn more_keys_than_one_answer_holds_are_all_seen() {
    let Some(server) = Server::start().await else { return };
    let mut client = server.client(None).await;
    let key = |index: u32| {
        let address = SocketAddr::from(([127, 8, (index >> 8) as u8, index as u8], 80));
        (format!("services/users/{index}"), address.to_string())
    };
    for hundred in 0..25 {
        let keys: Vec<_> = (0..100).map(|index| key(hundred * 100 + index)).collect();
        client.change(&keys, &[]).await.unwrap();
    }
    assert_eq!(first(&mut *users(impatient([server.address]))).await.0.len(), 2_500);
}

#[tokio::test]
async fn what_a_name_says_is_checked() {
    for (name, told) in [
        ("etcd:///", "name = \"etcd:///\""),
        ("etcd://host/", "prefix"),
        ("etcd://host/users", "members"),
        ("etcd:///users?encoding=x", "name.encoding"),
        ("etcd:///users?user=a", "user and password_file go together"),
        ("etcd:///users?cert_file=a", "cert_file and key_file go together"),
        ("etcd:///users?ttl=5", "name.query"),
    ] {
        let error = resolve::name(name).validate().unwrap_err().to_string();
        assert!(error.contains(told), "{name}: {error}");
    }
    let mut bad = resolve::name("etcd://a,b:x/users?encoding=no&user=me");
    assert!(matches!(next(&mut bad).await, Some(Resolution::Failed(_))));
    assert!(next(&mut bad).await.is_none());
}
