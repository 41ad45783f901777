//! What is owed by every registry, shown by one suite that is run over all of them.

#[cfg(any(feature = "etcd", feature = "zookeeper"))]
mod announce;
#[cfg(feature = "consul")]
mod consul;
#[cfg(any(feature = "dns", feature = "etcd", feature = "file", feature = "zookeeper"))]
#[allow(dead_code, reason = "each registry uses its part of it")]
mod daemon;
#[cfg(feature = "dns")]
mod dns;
#[cfg(feature = "dns")]
mod dns_answers;
#[cfg(feature = "etcd")]
mod etcd;
#[cfg(feature = "eureka")]
mod eureka;
#[cfg(feature = "file")]
mod file;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod ledger;
#[cfg(any(feature = "etcd", feature = "zookeeper"))]
mod proxy;
#[cfg(feature = "kubernetes")]
mod secured;
mod servers;
mod suite;
#[cfg(feature = "web")]
#[allow(dead_code, reason = "each registry uses its part of it")]
mod web;
#[cfg(feature = "zookeeper")]
mod zookeeper;
