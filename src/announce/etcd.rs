//! An entry in etcd: a key that hangs on a lease.

use std::{pin::pin, sync::Arc, time::Duration};

use super::{
    State,
    state::{Report, Wanted},
};
use crate::registry::{Encoding, EtcdCluster, Instance, Pace, Trouble, etcd::Connection};

pub(super) struct Entry {
    cluster: Arc<EtcdCluster>,
    prefix: String,
    encoding: Encoding,
    key: String,
    value: Vec<u8>,
    ttl: Duration,
    /// What it hangs on, as far as is known.
    lease: Option<i64>,
    /// What it hung on under other keys.
    old: Vec<i64>,
    /// Whether it was put by this process: from then on the key of somebody else is not taken over.
    was_put: bool,
    /// Whether it was put as it is now.
    is_fresh: bool,
}

impl Entry {
    pub(super) fn new(
        cluster: Arc<EtcdCluster>,
        prefix: String,
        instance: &Instance,
        encoding: Encoding,
        ttl: Duration,
    ) -> Self {
        let key = format!("{prefix}/{}", encoding.key(instance));
        let value = encoding.write(instance);
        Self {
            cluster,
            prefix,
            encoding,
            key,
            value,
            ttl,
            lease: None,
            old: Vec::new(),
            was_put: false,
            is_fresh: false,
        }
    }

    /// From now on it is put as `instance`. Where the key says what the instance does, it is another key, with another
    /// lease, and the old one goes when that stands.
    pub(super) fn renew(&mut self, instance: &Instance) {
        let key = format!("{}/{}", self.prefix, self.encoding.key(instance));
        if key != self.key {
            self.old.extend(self.lease.take());
            (self.key, self.was_put) = (key, false);
        }
        (self.value, self.is_fresh) = (self.encoding.write(instance), false);
    }

    pub(super) fn remains(&self) -> bool {
        self.lease.is_some() || !self.old.is_empty()
    }

    pub(super) async fn remove(&mut self, turn: usize) -> Result<(), Trouble> {
        let mut connection = Connection::open(self.cluster.clone(), turn).await?;
        self.end(&mut connection).await
    }

    async fn end(&mut self, connection: &mut Connection) -> Result<(), Trouble> {
        self.end_old(connection).await?;
        if let Some(lease) = self.lease {
            connection.revoke(lease).await?;
            self.lease = None;
        }
        Ok(())
    }

    async fn end_old(&mut self, connection: &mut Connection) -> Result<(), Trouble> {
        while let Some(lease) = self.old.last() {
            connection.revoke(*lease).await?;
            self.old.pop();
        }
        Ok(())
    }

    pub(super) async fn hold(
        &mut self,
        turn: usize,
        wanted: &mut Wanted,
        report: &Report,
        pace: &mut Pace,
    ) -> Result<(), Trouble> {
        let mut connection = Connection::open(self.cluster.clone(), turn).await?;
        loop {
            if let Some(instance) = wanted.renewed() {
                self.renew(&instance);
            }
            if !wanted.is() {
                return self.end(&mut connection).await;
            }
            match self.keep(&mut connection).await? {
                Standing::Ours => {
                    pace.stands();
                    report.tell(State::Announced(self.key.as_str().into()));
                }
                Standing::Taken => {
                    let reason = format!("{} was put by somebody else", self.key);
                    report.tell(State::Lost(Arc::new(connection.trouble("announcing", reason))));
                }
            }
            let rest = pin!(tokio::time::sleep(self.ttl / 3));
            futures::future::select(rest, pin!(wanted.differs(true))).await;
        }
    }

    /// Keeps the lease, or gets a new one, and sees that the key hangs on it.
    async fn keep(&mut self, connection: &mut Connection) -> Result<Standing, Trouble> {
        if let Some(lease) = self.lease
            && !connection.keep_alive(lease).await?
        {
            self.lease = None;
        }
        let lease = match self.lease {
            Some(lease) => lease,
            None => connection.grant(self.ttl).await?,
        };
        self.lease = Some(lease);
        // The first time whatever is there is taken over: it is what this process left behind when it died.
        let found = if self.was_put { connection.get(&self.key).await? } else { None };
        match found {
            Some(found) if found.lease != lease => return Ok(Standing::Taken),
            Some(_) if self.is_fresh => {}
            _ => {
                connection.put(&self.key, self.value.clone(), lease).await?;
                (self.was_put, self.is_fresh) = (true, true);
            }
        }
        self.end_old(connection).await?;
        Ok(Standing::Ours)
    }
}

/// Whose the key is.
enum Standing {
    Ours,
    Taken,
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;

    #[test]
    fn whatever_it_hung_on_remains_until_it_was_ended() {
        let instance = |weight| Instance::new("10.0.0.7:80").weight(weight);
        let (cluster, second) = (Arc::default(), Duration::from_secs(1));
        let mut entry = Entry::new(cluster, "users".into(), &instance(1.0), Encoding::NervePath, second);
        for lease in 1..=3 {
            entry.lease = Some(lease);
            // The one before could not be ended meanwhile.
            entry.renew(&instance(lease as f64 + 1.0));
        }
        assert_eq!((entry.old, entry.lease), (vec![1, 2, 3], None));
    }
}
