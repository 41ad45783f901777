//! A connection to one member of the cluster.

use std::{
    error::Error,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use ::http::uri::PathAndQuery;
use ::tonic::{
    Code, Request, Status,
    client::Grpc,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};
use futures::{StreamExt as _, stream};
use hyper::rt::Executor;
use prost::Message;
use tokio::{task::AbortHandle, time::timeout};
use tonic_prost::ProstCodec;

use super::{
    EtcdCluster, Watch,
    messages::{
        AuthenticateRequest, AuthenticateResponse, Done, KeyValue, LeaseGrantRequest, LeaseGrantResponse,
        LeaseKeepAliveResponse, LeaseRequest, PutRequest, RangeRequest, RangeResponse, WatchCreate,
        WatchRequest, WatchResponse,
    },
};
use crate::{registry::Trouble, sync::lock};

/// How many keys are asked for at once.
const PAGE: i64 = 1_000;
/// The largest answer: a page of keys whose values are as large as etcd takes them by default.
const LARGEST: usize = 1 << 30;

/// A connection to one member, with the word that lets it in.
///
/// It has tasks of tonic's, which are ended when it is dropped.
pub(crate) struct Connection {
    /// Dropped with the connection, whatever state that is in.
    _tasks: Tasks,
    cluster: Arc<EtcdCluster>,
    at: String,
    grpc: Grpc<Channel>,
    token: Option<MetadataValue<Ascii>>,
}

/// All keys under a prefix, at one revision.
pub(crate) struct Listing {
    pub(crate) keys: Vec<KeyValue>,
    pub(crate) revision: i64,
}

impl Connection {
    /// Connects to the member of the number `turn`.
    pub(crate) async fn open(cluster: Arc<EtcdCluster>, turn: usize) -> Result<Self, Trouble> {
        let member = cluster.members[turn % cluster.members.len()].clone();
        let limit = cluster.timeout;
        let trouble = |reason| Trouble { registry: "etcd", at: member.clone(), doing: "connecting", reason };
        let tasks = Tasks::default();
        let channel = match timeout(limit, dial(&cluster, &member, &tasks)).await {
            Ok(dialed) => dialed.map_err(trouble)?,
            Err(_) => return Err(trouble(late(limit))),
        };
        let grpc = Grpc::new(channel).max_decoding_message_size(LARGEST);
        let mut connection = Self { _tasks: tasks, cluster, at: member, grpc, token: None };
        connection.authenticate().await?;
        Ok(connection)
    }

    async fn authenticate(&mut self) -> Result<(), Trouble> {
        const DOING: &str = "authenticating";
        let Some((name, password)) = self.cluster.user.clone() else { return Ok(()) };
        let password = password.word().await.map_err(|error| self.trouble(DOING, error.to_string()))?;
        self.token = None;
        let asked = AuthenticateRequest { name, password };
        let answer = self.once("/etcdserverpb.Auth/Authenticate", asked).await;
        let answer: AuthenticateResponse = answer.map_err(|status| self.refused(DOING, &status))?;
        let token = answer.token.parse::<MetadataValue<Ascii>>();
        let mut token = token.map_err(|_| self.trouble(DOING, "a token that cannot be sent".into()))?;
        token.set_sensitive(true);
        self.token = Some(token);
        Ok(())
    }

    /// All that is under `prefix`, as of one moment.
    pub(crate) async fn list(&mut self, prefix: &str) -> Result<Listing, Trouble> {
        let mut listing = Listing { keys: Vec::new(), revision: 0 };
        let mut key = prefix.as_bytes().to_vec();
        loop {
            let range_end = after(prefix);
            let asked = RangeRequest { key, range_end, limit: PAGE, revision: listing.revision };
            let answer: RangeResponse = self.ask("listing", "/etcdserverpb.KV/Range", asked).await?;
            if listing.revision == 0 {
                listing.revision = answer.header.map_or(0, |header| header.revision);
            }
            key = answer.kvs.last().map(|last| [&last.key[..], &[0]].concat()).unwrap_or_default();
            listing.keys.extend(answer.kvs);
            if !answer.more || key.is_empty() {
                return Ok(listing);
            }
        }
    }

    /// What is at `key`.
    pub(crate) async fn get(&mut self, key: &str) -> Result<Option<KeyValue>, Trouble> {
        let asked = RangeRequest { key: key.into(), ..RangeRequest::default() };
        let answer: RangeResponse = self.ask("reading", "/etcdserverpb.KV/Range", asked).await?;
        Ok(answer.kvs.into_iter().next())
    }

    /// Puts `value` at `key`, for as long as `lease` lasts.
    pub(crate) async fn put(&mut self, key: &str, value: Vec<u8>, lease: i64) -> Result<(), Trouble> {
        let asked = PutRequest { key: key.into(), value, lease };
        let _: Done = self.ask("writing", "/etcdserverpb.KV/Put", asked).await?;
        Ok(())
    }

    /// A lease that lasts for `ttl` without a word.
    pub(crate) async fn grant(&mut self, ttl: Duration) -> Result<i64, Trouble> {
        const DOING: &str = "asking for a lease";
        let ttl = i64::try_from(ttl.as_secs().max(1)).unwrap_or(i64::MAX);
        let answer: LeaseGrantResponse =
            self.ask(DOING, "/etcdserverpb.Lease/LeaseGrant", LeaseGrantRequest { ttl }).await?;
        if answer.error.is_empty() { Ok(answer.id) } else { Err(self.trouble(DOING, answer.error)) }
    }

    /// Whether `lease` still stands; if so it lasts anew.
    pub(crate) async fn keep_alive(&mut self, lease: i64) -> Result<bool, Trouble> {
        match self.keep_alive_once(lease).await {
            Err(status) if self.may_ask_anew(&status) => {
                self.authenticate().await?;
                self.keep_alive_once(lease).await
            }
            kept => kept,
        }
        .map_err(|status| self.refused("keeping a lease", &status))
    }

    async fn keep_alive_once(&mut self, lease: i64) -> Result<bool, Status> {
        let asked = self.request(stream::iter([LeaseRequest { id: lease }]));
        let kept = async {
            self.grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            let path = PathAndQuery::from_static("/etcdserverpb.Lease/LeaseKeepAlive");
            let codec = ProstCodec::<LeaseRequest, LeaseKeepAliveResponse>::default();
            let mut answers = self.grpc.streaming(asked, path, codec).await?.into_inner();
            answers.message().await?.ok_or_else(|| Status::unavailable("it broke off"))
        };
        in_time(self.cluster.timeout, kept).await.map(|answer| answer.ttl > 0)
    }

    /// Ends `lease`, and with it all keys that have it. One that has ended is no mistake.
    pub(crate) async fn revoke(&mut self, lease: i64) -> Result<(), Trouble> {
        let revoked: Result<Done, Status> =
            self.once("/etcdserverpb.Lease/LeaseRevoke", LeaseRequest { id: lease }).await;
        match revoked {
            Err(status) if status.code() != Code::NotFound => Err(self.refused("ending a lease", &status)),
            _ => Ok(()),
        }
    }

    /// Tells of every change under `prefix` from `revision` on.
    pub(crate) async fn watch(&mut self, prefix: &str, revision: i64) -> Result<Watch, Trouble> {
        let create = WatchCreate {
            key: prefix.as_bytes().to_vec(),
            range_end: after(prefix),
            start_revision: revision,
            progress_notify: true,
            fragment: true,
        };
        // The stream of requests must not end: etcd would end the watch.
        let asked = stream::iter([WatchRequest { create: Some(create) }]).chain(stream::pending());
        let mut asked = self.request(asked);
        // A member that has lost its quorum would otherwise go on as if nothing happened any more.
        asked.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        let opened = async {
            self.grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
            let codec = ProstCodec::<WatchRequest, WatchResponse>::default();
            Ok(self.grpc.streaming(asked, path, codec).await?.into_inner())
        };
        match in_time(self.cluster.timeout, opened).await {
            Ok(answers) => Ok(Watch::new(self.at.clone(), answers)),
            Err(status) => Err(self.refused("watching", &status)),
        }
    }

    /// One question; one more time with a new token if the old one is not known any more.
    async fn ask<Q, A>(&mut self, doing: &'static str, path: &'static str, asked: Q) -> Result<A, Trouble>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        match self.once(path, asked.clone()).await {
            Err(status) if self.may_ask_anew(&status) => {
                self.authenticate().await?;
                self.once(path, asked).await.map_err(|status| self.refused(doing, &status))
            }
            answer => answer.map_err(|status| self.refused(doing, &status)),
        }
    }

    async fn once<Q, A>(&mut self, path: &'static str, asked: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let request = self.request(asked);
        let answer = async {
            self.grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            let path = PathAndQuery::from_static(path);
            Ok(self.grpc.unary(request, path, ProstCodec::<Q, A>::default()).await?.into_inner())
        };
        in_time(self.cluster.timeout, answer).await
    }

    /// Whether the word that let it in is not known any more: it lasts for minutes only, unless it is used.
    fn may_ask_anew(&self, status: &Status) -> bool {
        status.code() == Code::Unauthenticated && self.token.is_some()
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }

    fn refused(&self, doing: &'static str, status: &Status) -> Trouble {
        self.trouble(doing, told(status))
    }

    pub(crate) fn trouble(&self, doing: &'static str, reason: String) -> Trouble {
        Trouble { registry: "etcd", at: self.at.clone(), doing, reason }
    }
}

/// The tasks that tonic has for a channel. Left to themselves they end when the server has heard the goodbye, which one that
/// is frozen never does.
#[derive(Default)]
struct Tasks(Arc<Mutex<Vec<AbortHandle>>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        lock(&self.0).iter().for_each(AbortHandle::abort);
    }
}

/// What spawns them.
struct Spawn(Arc<Mutex<Vec<AbortHandle>>>);

impl Executor<Pin<Box<dyn Future<Output = ()> + Send>>> for Spawn {
    fn execute(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        let mut tasks = lock(&self.0);
        tasks.retain(|task| !task.is_finished());
        tasks.push(tokio::spawn(task).abort_handle());
    }
}

async fn dial(cluster: &EtcdCluster, member: &str, tasks: &Tasks) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(cluster.url(member)).map_err(|error| whole(&error))?;
    let endpoint = endpoint
        .executor(Spawn(tasks.0.clone()))
        .connect_timeout(cluster.timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(cluster.keep_alive)
        .keep_alive_timeout(cluster.timeout)
        .keep_alive_while_idle(true);
    #[cfg(feature = "tls")]
    let endpoint = match &cluster.tls {
        Some(tls) => endpoint.tls_config(trusting(tls).await?).map_err(|error| whole(&error))?,
        None => endpoint,
    };
    endpoint.connect().await.map_err(|error| whole(&error))
}

#[cfg(feature = "tls")]
async fn trusting(tls: &crate::registry::Tls) -> Result<::tonic::transport::ClientTlsConfig, String> {
    use ::tonic::transport::{Certificate, ClientTlsConfig, Identity};
    let text = |source: &crate::registry::Source| {
        let source = source.clone();
        async move { source.text().await.map_err(|error| error.to_string()) }
    };
    let mut config = match &tls.ca {
        Some(ca) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&*text(ca).await?)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    if let Some((certificate, key)) = &tls.identity {
        config = config.identity(Identity::from_pem(&*text(certificate).await?, &*text(key).await?));
    }
    if let Some(name) = &tls.server_name {
        config = config.domain_name(name);
    }
    Ok(config)
}

async fn in_time<T>(limit: Duration, answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    timeout(limit, answer).await.unwrap_or_else(|_| Err(Status::deadline_exceeded(late(limit))))
}

fn late(limit: Duration) -> String {
    format!("no answer within {limit:?}")
}

/// `error` and what is under it, in one line. A text that an error of tonic repeats is told once.
fn whole(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = error.source();
    }
    text
}

/// What `status` says, for people.
pub(super) fn told(status: &Status) -> String {
    let under = Error::source(status).map(|error| format!(": {}", whole(error)));
    format!("{:?}: {}{}", status.code(), status.message(), under.unwrap_or_default())
}

/// The first key after all that begin with `prefix`; without one, the end of all keys.
fn after(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_its_neighbour() {
        assert_eq!(after("services/users/"), b"services/users0");
        assert_eq!(after("a\u{7f}"), b"a\x80");
        assert_eq!(after(""), [0]);
    }
}
