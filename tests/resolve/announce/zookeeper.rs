//! Announced in Debian's ZooKeeper; looked up by kazoo.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use mainstay::{
    announce::{Announce, AnnounceOptions, State},
    registry::{Acl, Encoding, Instance},
    resolve,
};
use serde_json::{Value, json};
use tokio::runtime::Builder;

use super::{
    SECOND, address, announced, checked, eventually, follows_its_check, instance, is_replaced_and_never_gone,
    until,
};
use crate::{
    proxy::{Mode, Proxy},
    suite::Watching,
    zookeeper::{Kazoo, Server, impatient},
};

const PATH: &str = "/services/users";

fn announce(servers: impl IntoIterator<Item = SocketAddr>, instance: Instance) -> Announce {
    Announce::zookeeper(impatient(servers), PATH, instance)
}

/// All that stands there: names and nodes.
async fn nodes(kazoo: &mut Kazoo) -> Vec<(String, Value)> {
    let Value::Object(found) = kazoo.tell("read", json!({"path": PATH})).await else { panic!("no object") };
    found.into_iter().collect()
}

async fn count(kazoo: &mut Kazoo) -> usize {
    nodes(kazoo).await.len()
}

fn data(node: &(String, Value)) -> Value {
    serde_json::from_str(node.1["data"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn it_stands_as_a_member_of_a_serverset_until_it_is_withdrawn() {
    let Some(server) = Server::start().await else { return };
    let mut kazoo = server.kazoo(SECOND * 10, &[]).await;
    let ensemble = impatient([server.address]);
    let mut watching = Watching::start(Box::new(resolve::zookeeper(PATH).ensemble(ensemble)));
    let member = instance(1).shard(3).additional("http", "127.9.9.1:8080").metadata("zone", "z");
    let announcement = announce([server.address], member).start().unwrap();
    let node = announced(&announcement).await;
    let found = nodes(&mut kazoo).await;
    assert_eq!(found.len(), 1);
    assert_eq!(node, format!("{PATH}/{}", found[0].0));
    assert!(found[0].0.strip_prefix("member_").is_some_and(|number| number.len() == 10));
    assert!(found[0].1["session"].as_i64().unwrap() != 0, "it is ephemeral");
    let owed = json!({
        "serviceEndpoint": {"host": "127.9.9.1", "port": 80},
        "additionalEndpoints": {"http": {"host": "127.9.9.1", "port": 8080}},
        "status": "ALIVE",
        "shard": 3,
        "metadata": {"zone": "z"},
    });
    assert_eq!(data(&found[0]), owed);
    watching.until_set(&[address(1)], SECOND * 5).await;
    // Longer than its session without a word.
    tokio::time::sleep(SECOND * 3).await;
    assert_eq!(count(&mut kazoo).await, 1);
    announcement.withdraw().await.unwrap();
    assert_eq!(count(&mut kazoo).await, 0);
    watching.until("gone", SECOND * 2, |seen| seen.gone).await;
}

#[tokio::test]
async fn it_stands_as_nerve_writes_it() {
    let Some(server) = Server::start().await else { return };
    let mut kazoo = server.kazoo(SECOND * 10, &[]).await;
    let named = || instance(1).name("users-1").weight(3.0).metadata("az", "x");
    let owed =
        json!({"host": "127.9.9.1", "port": 80, "name": "users-1", "weight": 3, "labels": {"az": "x"}});
    let plain = announce([server.address], named()).encoding(Encoding::Nerve).start().unwrap();
    announced(&plain).await;
    let found = nodes(&mut kazoo).await;
    assert!(found[0].0.starts_with("users-1_0"), "{found:?}");
    assert_eq!(data(&found[0]), owed);
    plain.withdraw().await.unwrap();

    let encoded = announce([server.address], named()).encoding(Encoding::NervePath).start().unwrap();
    announced(&encoded).await;
    let found = nodes(&mut kazoo).await;
    let (length, rest) = found[0].0.strip_prefix("base64_").unwrap().split_once('_').unwrap();
    let (text, number) = rest.split_at(length.parse().unwrap());
    assert!(number.starts_with("_0") && number.len() == 11, "{number}");
    // What `base64 -d` makes of it.
    assert_eq!(serde_json::from_str::<Value>(&foreign_base64(text)).unwrap(), owed);
    assert_eq!(found[0].1["data"], "");
    let mut watching =
        Watching::start(Box::new(resolve::zookeeper(PATH).ensemble(impatient([server.address]))));
    watching.until_set(&[address(1)], SECOND * 5).await;
}

fn foreign_base64(text: &str) -> String {
    let script = format!("printf %s '{text}' | tr -- '-_' '+/' | base64 -d");
    String::from_utf8(std::process::Command::new("sh").args(["-c", &script]).output().unwrap().stdout)
        .unwrap()
}

#[tokio::test]
async fn a_dropped_one_is_gone_within_a_second() {
    let Some(server) = Server::start().await else { return };
    let mut kazoo = server.kazoo(SECOND * 10, &[]).await;
    let announcement = announce([server.address], instance(1)).start().unwrap();
    announced(&announcement).await;
    drop(announcement);
    eventually(SECOND, 0, async || count(&mut kazoo).await).await;
}

#[tokio::test]
async fn a_lost_connection_keeps_the_node_and_a_lost_session_makes_one_and_no_second() {
    let Some(mut server) = Server::start().await else { return };
    let (mut kazoo, proxy) = (server.kazoo(SECOND * 10, &[]).await, Proxy::to(server.address).await);
    let announcement = announce([proxy.address], instance(1)).start().unwrap();
    let node = announced(&announcement).await;
    proxy.set(Mode::Cut);
    until(&announcement, "lost", |state| matches!(state, State::Lost(_))).await;
    proxy.set(Mode::Flow);
    assert_eq!(announced(&announcement).await, node, "the session went on");
    proxy.set(Mode::Lost);
    let lost = until(&announcement, "lost", |state| matches!(state, State::Lost(_))).await;
    assert!(lost.to_string().contains(&format!("zookeeper at {}", proxy.address)), "{lost}");
    eventually(SECOND * 8, 0, async || count(&mut kazoo).await).await;
    proxy.set(Mode::Flow);
    let again = announced(&announcement).await;
    assert_ne!(again, node);
    assert_eq!(count(&mut kazoo).await, 1);
    // A server that is started anew knows the sessions, and gives them their time again.
    server.kill().await;
    until(&announcement, "lost", |state| matches!(state, State::Lost(_))).await;
    server.restart().await;
    announced(&announcement).await;
    tokio::time::sleep(SECOND * 3).await;
    assert_eq!(count(&mut kazoo).await, 1);
}

#[tokio::test]
async fn a_goodbye_that_was_not_answered_is_said_again() {
    let Some(server) = Server::start().await else { return };
    let (mut kazoo, proxy) = (server.kazoo(SECOND * 10, &[]).await, Proxy::to(server.address).await);
    let ensemble = impatient([proxy.address]).session_timeout(SECOND * 30);
    let announcement = Announce::zookeeper(ensemble, PATH, instance(1)).start().unwrap();
    announced(&announcement).await;
    proxy.set(Mode::Held);
    let breaking = async {
        tokio::time::sleep(SECOND / 2).await;
        proxy.set(Mode::Cut);
        tokio::time::sleep(SECOND / 2).await;
        proxy.set(Mode::Flow);
    };
    let (withdrawn, ()) = tokio::join!(announcement.withdraw(), breaking);
    withdrawn.unwrap();
    assert_eq!(count(&mut kazoo).await, 0);
}

#[tokio::test]
async fn where_one_server_is_frozen_another_one_is_told_of_a_withdrawal() {
    let Some(server) = Server::start().await else { return };
    let mut kazoo = server.kazoo(SECOND * 10, &[]).await;
    let (one, other) = (Proxy::to(server.address).await, Proxy::to(server.address).await);
    let ensemble = impatient([one.address, other.address]).session_timeout(SECOND * 30);
    let announcement = Announce::zookeeper(ensemble, PATH, instance(1)).start().unwrap();
    announced(&announcement).await;
    let used = if one.connections() > 0 { &one } else { &other };
    used.set(Mode::Lost);
    announcement.withdraw().await.unwrap();
    assert_eq!(nodes(&mut kazoo).await, []);
}

#[tokio::test]
async fn what_a_server_that_was_started_anew_remembers_is_taken_out_too() {
    let Some(mut server) = Server::start().await else { return };
    let mut kazoo = server.kazoo(SECOND * 20, &[]).await;
    let is_well = Arc::new(AtomicBool::new(true));
    let ensemble = impatient([server.address]).session_timeout(SECOND * 4);
    let announce = checked(Announce::zookeeper(ensemble, PATH, instance(1)), &is_well);
    let announcement = announce.start().unwrap();
    announced(&announcement).await;
    server.kill().await;
    is_well.store(false, Relaxed);
    tokio::time::sleep(SECOND * 5).await;
    // It gives every session its time again.
    server.restart().await;
    until(&announcement, "unwell", |state| matches!(state, State::Unwell(_))).await;
    assert_eq!(count(&mut kazoo).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_comes_back_replaces_what_it_left_behind() {
    let Some(server) = Server::start().await else { return };
    let (mut kazoo, proxy) = (server.kazoo(SECOND * 10, &[]).await, Proxy::to(server.address).await);
    let other = announce([server.address], instance(2)).start().unwrap();
    announced(&other).await;
    for encoding in [Encoding::Serverset, Encoding::Nerve, Encoding::NervePath] {
        let old = announce([proxy.address], instance(1)).encoding(encoding);
        let (tell, told) = tokio::sync::oneshot::channel();
        let (die, death) = std::sync::mpsc::channel::<()>();
        proxy.set(Mode::Flow);
        let died = tokio::task::spawn_blocking(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let old = runtime.block_on(async {
                let old = old.start().unwrap();
                tell.send(announced(&old).await).unwrap();
                old
            });
            death.recv().unwrap();
            drop(runtime);
            drop(old);
        });
        let left = told.await.unwrap();
        // Its goodbye is not heard.
        proxy.set(Mode::Lost);
        die.send(()).unwrap();
        died.await.unwrap();
        assert_eq!(count(&mut kazoo).await, 2);
        let renewed = if encoding == Encoding::Serverset { instance(1) } else { instance(1).weight(2.0) };
        let back = announce([server.address], renewed).encoding(encoding).start().unwrap();
        assert_ne!(announced(&back).await, left);
        let found = nodes(&mut kazoo).await;
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found.iter().all(|(name, _)| format!("{PATH}/{name}") != left));
        back.withdraw().await.unwrap();
    }
}

#[tokio::test]
async fn a_node_that_somebody_removes_is_made_again() {
    let Some(server) = Server::start().await else { return };
    let mut kazoo = server.kazoo(SECOND * 10, &[]).await;
    let announcement = announce([server.address], instance(1)).start().unwrap();
    let node = announced(&announcement).await;
    kazoo.tell("delete", json!({"path": node})).await;
    eventually(SECOND * 2, 1, async || count(&mut kazoo).await).await;
    let again =
        until(&announcement, "made again", |state| matches!(state, State::Announced(now) if **now != *node));
    again.await;
}

#[tokio::test]
async fn it_is_replaced_by_an_update_and_never_gone() {
    let Some(server) = Server::start().await else { return };
    let mut kazoo = server.kazoo(SECOND * 10, &[]).await;
    for encoding in [Encoding::Nerve, Encoding::NervePath] {
        let resolver = resolve::zookeeper(PATH).ensemble(impatient([server.address])).encoding(encoding);
        let announce = |instance| announce([server.address], instance).encoding(encoding);
        is_replaced_and_never_gone(announce, Box::new(resolver)).await;
        assert_eq!(count(&mut kazoo).await, 0);
    }
}

#[tokio::test]
async fn its_node_is_protected_where_that_is_asked_for() {
    let Some(server) = Server::start().await else { return };
    let mut kazoo = server.kazoo(SECOND * 10, &["me:secret-word"]).await;
    let ensemble = impatient([server.address]).digest("me", "secret-word");
    let announcement = Announce::zookeeper(ensemble, PATH, instance(1))
        .options(AnnounceOptions::default().acl(Acl::CreatorAndReaders))
        .start()
        .unwrap();
    announced(&announcement).await;
    assert_eq!(nodes(&mut kazoo).await[0].1["acl"], json!(["digest:31", "world:1"]));
    assert!(!format!("{announcement:?}").contains("secret-word"));
    let nobody =
        announce([server.address], instance(1)).options(AnnounceOptions::default().acl(Acl::Creator));
    assert!(
        nobody.validate().unwrap_err().to_string().contains("announce.acl = Creator: needs Ensemble::digest")
    );
}

#[tokio::test]
async fn it_is_there_only_while_its_check_passes() {
    let Some(server) = Server::start().await else { return };
    let mut kazoo = server.kazoo(SECOND * 10, &[]).await;
    follows_its_check(announce([server.address], instance(1)), async || count(&mut kazoo).await > 0).await;
}
