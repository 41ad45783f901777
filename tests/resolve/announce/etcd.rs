//! Announced in Debian's etcd; looked up by `etcdctl`.

use std::{net::SocketAddr, time::Duration};

use mainstay::{
    announce::{Announce, AnnounceOptions, State},
    registry::{Encoding, EtcdCluster, Instance},
    resolve,
};
use tokio::runtime::Builder;

use super::{
    SECOND, address, announced, eventually, follows_its_check, instance, is_replaced_and_never_gone, until,
};
use crate::{
    etcd::{Server, impatient},
    proxy::{Mode, Proxy},
    suite::Watching,
};

fn announce(members: impl IntoIterator<Item = SocketAddr>, instance: Instance) -> Announce {
    Announce::etcd(impatient(members), "services/users", instance)
        .options(AnnounceOptions::default().lease(SECOND * 2))
}

/// All that stands there.
async fn keys(server: &Server) -> Vec<String> {
    let listed = server.ctl(&["get", "services/users/", "--prefix", "--keys-only"]).await;
    listed.split_whitespace().map(str::to_owned).collect()
}

fn key(last: u8) -> String {
    format!("services/users/{}", address(last))
}

#[tokio::test]
async fn it_stands_as_grpc_writes_it_until_it_is_withdrawn() {
    let Some(server) = Server::start().await else { return };
    let cluster = impatient([server.address]);
    let mut watching = Watching::start(Box::new(resolve::etcd("services/users").cluster(cluster)));
    let announcement =
        announce([server.address], instance(1).weight(2.0).metadata("zone", "z")).start().unwrap();
    assert_eq!(announced(&announcement).await, key(1));
    let value = server.ctl(&["get", &key(1), "--print-value-only"]).await;
    let value: serde_json::Value = serde_json::from_str(&value).unwrap();
    assert_eq!(
        value,
        serde_json::json!({"Op": 0, "Addr": "127.9.9.1:80", "Metadata": {"weight": 2.0, "zone": "z"}})
    );
    watching.until_set(&[address(1)], SECOND * 5).await;
    // Longer than its lease.
    tokio::time::sleep(SECOND * 4).await;
    assert_eq!(keys(&server).await, [key(1)]);
    announcement.withdraw().await.unwrap();
    assert!(keys(&server).await.is_empty());
    watching.until("gone", SECOND * 2, |seen| seen.gone).await;
}

#[tokio::test]
async fn every_encoding_is_found_again() {
    let Some(server) = Server::start().await else { return };
    for (last, encoding) in
        [Encoding::Plain, Encoding::Grpc, Encoding::Nerve, Encoding::NervePath, Encoding::Serverset]
            .into_iter()
            .enumerate()
    {
        let last = u8::try_from(last).unwrap() + 1;
        let announcement = announce([server.address], instance(last)).encoding(encoding).start().unwrap();
        announced(&announcement).await;
        for asked in [Some(encoding), None] {
            let resolver = resolve::etcd("services/users").cluster(impatient([server.address]));
            let resolver = asked.map(|encoding| resolver.encoding(encoding));
            let resolver = resolver
                .unwrap_or_else(|| resolve::etcd("services/users").cluster(impatient([server.address])));
            Watching::start(Box::new(resolver)).until_set(&[address(last)], SECOND * 5).await;
        }
        announcement.withdraw().await.unwrap();
    }
}

#[tokio::test]
async fn a_dropped_one_is_gone_within_a_second() {
    let Some(server) = Server::start().await else { return };
    let announcement = announce([server.address], instance(1)).start().unwrap();
    announced(&announcement).await;
    drop(announcement);
    eventually(SECOND, Vec::<String>::new(), async || keys(&server).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_is_gone_with_its_lease_and_one_that_comes_back_takes_over() {
    let Some(server) = Server::start().await else { return };
    let die_announcing = |last: u8| {
        let server = server.address;
        tokio::task::spawn_blocking(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let announcement = runtime.block_on(async {
                let announcement = announce([server], instance(last)).start().unwrap();
                announced(&announcement).await;
                announcement
            });
            // Without a word: the task is not run any more.
            drop(runtime);
            announcement.state()
        })
    };
    assert!(matches!(die_announcing(1).await.unwrap(), State::Announced(_)));
    assert!(matches!(die_announcing(2).await.unwrap(), State::Announced(_)));
    let back = announce([server.address], instance(2)).start().unwrap();
    announced(&back).await;
    assert_eq!(keys(&server).await, [key(1), key(2)]);
    eventually(SECOND * 6, vec![key(2)], async || keys(&server).await).await;
    tokio::time::sleep(SECOND * 2).await;
    assert_eq!(keys(&server).await, [key(2)], "the end of the old lease takes nothing of the new one");
}

#[tokio::test]
async fn a_lost_lease_is_replaced() {
    let Some(server) = Server::start().await else { return };
    let announcement = announce([server.address], instance(1)).start().unwrap();
    announced(&announcement).await;
    let leases = server.ctl(&["lease", "list"]).await;
    server.ctl(&["lease", "revoke", leases.split_whitespace().last().unwrap()]).await;
    assert!(keys(&server).await.is_empty());
    eventually(SECOND * 3, vec![key(1)], async || keys(&server).await).await;
    server.ctl(&["del", &key(1)]).await;
    eventually(SECOND * 3, vec![key(1)], async || keys(&server).await).await;
    announcement.withdraw().await.unwrap();
    assert!(server.ctl(&["lease", "list"]).await.contains("found 0 leases"), "a lease was left behind");
}

#[tokio::test]
async fn who_is_forgotten_between_two_words_is_let_in_again() {
    let Some(mut server) = Server::start_forgetful().await else { return };
    server.protect("secret-word").await;
    let cluster = impatient([server.address]).user("root", "secret-word");
    let announcement = Announce::etcd(cluster, "services/users", instance(1))
        .options(AnnounceOptions::default().lease(SECOND * 9))
        .start()
        .unwrap();
    announced(&announcement).await;
    let lost = announcement.until(|state| !matches!(state, State::Announced(_)));
    assert!(tokio::time::timeout(SECOND * 4, lost).await.is_err(), "{announcement:?}");
    tokio::time::sleep(SECOND * 3 / 2).await;
    announcement.withdraw().await.unwrap();
    assert!(keys(&server).await.is_empty());
}

#[tokio::test]
async fn it_comes_back_after_an_outage_and_after_a_cut_longer_than_its_lease() {
    let Some(mut server) = Server::start().await else { return };
    let proxy = Proxy::to(server.address).await;
    let announcement = announce([proxy.address], instance(1)).start().unwrap();
    announced(&announcement).await;
    proxy.set(Mode::Lost);
    let lost = until(&announcement, "lost", |state| matches!(state, State::Lost(_))).await;
    assert!(lost.to_string().contains(&format!("etcd at {}", proxy.address)), "{lost}");
    eventually(SECOND * 5, Vec::<String>::new(), async || keys(&server).await).await;
    proxy.set(Mode::Flow);
    announced(&announcement).await;
    assert_eq!(keys(&server).await, [key(1)]);
    server.kill().await;
    until(&announcement, "lost", |state| matches!(state, State::Lost(_))).await;
    server.restart().await;
    announced(&announcement).await;
    assert_eq!(keys(&server).await, [key(1)]);
    // Where the registry is out of reach, a withdrawal says that it may not have been heard.
    proxy.set(Mode::Lost);
    let error = announcement.withdraw().await.unwrap_err().to_string();
    assert!(error.contains("not withdrawn, it goes with its lease or session: "), "{error}");
    eventually(SECOND * 5, Vec::<String>::new(), async || keys(&server).await).await;
}

#[tokio::test]
async fn where_one_member_is_frozen_another_one_is_told_of_a_withdrawal() {
    let Some(server) = Server::start().await else { return };
    let (one, other) = (Proxy::to(server.address).await, Proxy::to(server.address).await);
    let cluster = impatient([one.address, other.address]).timeout(SECOND * 5).keep_alive(SECOND * 5);
    let announcement = Announce::etcd(cluster, "services/users", instance(1)).start().unwrap();
    announced(&announcement).await;
    let used = if one.connections() > 0 { &one } else { &other };
    used.set(Mode::Lost);
    announcement.withdraw().await.unwrap();
    assert!(keys(&server).await.is_empty());
}

#[tokio::test]
async fn of_two_of_one_name_the_later_stands_and_the_other_says_so_and_waits() {
    let Some(server) = Server::start().await else { return };
    let first = announce([server.address], instance(1).name("users-1")).start().unwrap();
    announced(&first).await;
    let second = announce([server.address], instance(2).name("users-1")).start().unwrap();
    announced(&second).await;
    let lost = until(&first, "lost", |state| matches!(state, State::Lost(_))).await;
    assert!(lost.to_string().contains("services/users/users-1 was put by somebody else"), "{lost}");
    let value = || server.ctl(&["get", "services/users/users-1", "--print-value-only"]);
    assert!(value().await.contains("127.9.9.2:80"));
    second.withdraw().await.unwrap();
    announced(&first).await;
    assert!(value().await.contains("127.9.9.1:80"));
}

#[tokio::test]
async fn it_is_there_only_while_its_check_passes() {
    let Some(server) = Server::start().await else { return };
    follows_its_check(announce([server.address], instance(1)), async || !keys(&server).await.is_empty())
        .await;
}

#[tokio::test]
async fn it_is_replaced_by_an_update_and_never_gone() {
    let Some(server) = Server::start().await else { return };
    for encoding in [Encoding::Grpc, Encoding::Nerve, Encoding::NervePath] {
        let resolver =
            resolve::etcd("services/users").cluster(impatient([server.address])).encoding(encoding);
        let announce = |instance| announce([server.address], instance).encoding(encoding);
        is_replaced_and_never_gone(announce, Box::new(resolver)).await;
        assert!(keys(&server).await.is_empty());
    }
}

#[tokio::test]
async fn all_mistakes_are_told_at_once() {
    let instance = Instance::new("nowhere").name("a/b").shard(3);
    let bad = Announce::etcd(EtcdCluster::new([""]).timeout(Duration::ZERO), "/", instance)
        .options(AnnounceOptions::default().lease(SECOND / 2));
    let told = bad.start().unwrap_err().to_string();
    for field in [
        "prefix",
        "etcd.members",
        "etcd.timeout",
        "instance.address",
        "instance.name",
        "instance.shard",
        "lease",
    ] {
        assert!(told.contains(&format!("announce.{field} = ")), "{field}: {told}");
    }
}
