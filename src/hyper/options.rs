//! How connections are made and kept.

use std::{
    ops::RangeInclusive,
    time::{Duration, Instant},
};

#[cfg(feature = "tls")]
use super::tls::Tls;
use crate::{
    clock,
    invalid::{Check, Invalid},
    random::{Entropy, Random as _, unit},
};

/// The version of HTTP that the endpoints speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// HTTP/1.1: one request at a time on a connection.
    #[default]
    Http1,
    /// HTTP/2, without TLS by prior knowledge: all requests on one connection.
    Http2,
    /// HTTP/2 if the endpoint speaks it, else HTTP/1.1: asked when it is connected, by ALPN. Needs TLS.
    Negotiated,
}

/// How connections are made and kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectorOptions {
    /// The version of HTTP \[HTTP/1.1\].
    pub protocol: Protocol,
    /// HTTP/1.1: how many connections there are to an endpoint at most \[100\]. A request that finds all of them in use
    /// waits for one, within its deadline.
    pub connections_per_endpoint: usize,
    /// HTTP/2: how many connections there are to an endpoint at most \[2\]. There is one, and another is made when four fifths of
    /// the streams are open that the server allows on those there are. What is beyond the streams of the last waits inside of it.
    pub http2_connections: usize,
    /// How old a connection may become before it is given no further request, a tenth more or less \[any age\]: what it has goes on.
    /// For endpoints that stand for several machines, which a connection ties to one of them. Over HTTP/2 the next one is made first.
    pub max_age: Option<Duration>,
    /// How long a connection is kept without a request \[60 s\]. Keep it below what the servers keep, or they
    /// will close connections under requests. Over HTTP/2 the last one is kept.
    pub idle_connection: Duration,
    /// HTTP/2: how often the connection is asked whether it still lives \[10 s\]; `None` for never.
    pub ping_interval: Option<Duration>,
    /// HTTP/2: how long the answer may take before the connection counts as dead \[5 s\].
    pub ping_timeout: Duration,
    /// HTTP/2: whether the connection is asked while there is no request on it \[true\]. Some gRPC servers take offence.
    pub ping_while_idle: bool,
    /// Whether small writes go out at once (`TCP_NODELAY`) \[true\].
    pub nodelay: bool,
    /// After how long a silence the system asks the other end whether it is still there, and from then on every third of
    /// that time \[10 s\]; `None` for never. It finds connections of HTTP/1.1 whose other end is gone without a word.
    pub tcp_keepalive: Option<Duration>,
    /// How long what was sent, such a question included, may go without the system of the other end acknowledging it, before the
    /// connection is broken \[15 s\]; `None` for as long as this system is set to, usually a quarter of an hour. On Linux
    /// and Android; of no effect elsewhere.
    pub tcp_user_timeout: Option<Duration>,
    /// TLS, and the server that the endpoints must prove to be \[none: plain HTTP\].
    #[cfg(feature = "tls")]
    pub tls: Option<Tls>,
}

impl Default for ConnectorOptions {
    fn default() -> Self {
        Self {
            protocol: Protocol::Http1,
            connections_per_endpoint: 100,
            http2_connections: 2,
            max_age: None,
            idle_connection: Duration::from_secs(60),
            ping_interval: Some(Duration::from_secs(10)),
            ping_timeout: Duration::from_secs(5),
            ping_while_idle: true,
            nodelay: true,
            tcp_keepalive: Some(Duration::from_secs(10)),
            tcp_user_timeout: Some(Duration::from_secs(15)),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

/// What systems take: whole seconds, a third of which is one at least, up to 32,767.
const WHOLE: RangeInclusive<Duration> = Duration::from_secs(3)..=Duration::from_secs(9 * 3_600);
/// Milliseconds in an `int`.
const MILLIS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(24 * 24 * 3_600);

/// The longest until an old connection is tried to be replaced again.
const AGAIN: Duration = Duration::from_secs(60);

/// More than a machine has ports.
const MOST_CONNECTIONS: usize = 65_535;

impl ConnectorOptions {
    /// The version of HTTP.
    #[must_use]
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// How many HTTP/1.1 connections there are to an endpoint at most.
    #[must_use]
    pub fn connections_per_endpoint(mut self, connections: usize) -> Self {
        self.connections_per_endpoint = connections;
        self
    }

    /// How many HTTP/2 connections there are to an endpoint at most.
    #[must_use]
    pub fn http2_connections(mut self, connections: usize) -> Self {
        self.http2_connections = connections;
        self
    }

    /// How old a connection may become, a tenth more or less.
    #[must_use]
    pub fn max_age(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.max_age = age.into();
        self
    }

    /// How long a connection is kept without a request.
    #[must_use]
    pub fn idle_connection(mut self, idle: Duration) -> Self {
        self.idle_connection = idle;
        self
    }

    /// How often an HTTP/2 connection is asked whether it still lives.
    #[must_use]
    pub fn ping_interval(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.ping_interval = interval.into();
        self
    }

    /// How long the answer to a ping may take.
    #[must_use]
    pub fn ping_timeout(mut self, timeout: Duration) -> Self {
        self.ping_timeout = timeout;
        self
    }

    /// Whether an HTTP/2 connection without a request is asked too.
    #[must_use]
    pub fn ping_while_idle(mut self, ping: bool) -> Self {
        self.ping_while_idle = ping;
        self
    }

    /// Whether small writes go out at once.
    #[must_use]
    pub fn nodelay(mut self, nodelay: bool) -> Self {
        self.nodelay = nodelay;
        self
    }

    /// After how long a silence the system asks the other end whether it is still there.
    #[must_use]
    pub fn tcp_keepalive(mut self, silence: impl Into<Option<Duration>>) -> Self {
        self.tcp_keepalive = silence.into();
        self
    }

    /// How long what was sent may go unacknowledged.
    #[must_use]
    pub fn tcp_user_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.tcp_user_timeout = timeout.into();
        self
    }

    /// Speaks TLS to the endpoints.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: impl Into<Option<Tls>>) -> Self {
        self.tls = tls.into();
        self
    }

    /// When a connection that is made now is given no further request. By chance, so that connections that were made at the same time
    /// are not made anew at the same time.
    pub(super) fn retires(&self) -> Option<Instant> {
        self.max_age.map(|age| clock::now() + age.mul_f64(0.9 + 0.2 * unit(Entropy.next())))
    }

    /// The same, of one for which there was no other.
    pub(super) fn retires_later(&self) -> Option<Instant> {
        self.max_age.map(|age| clock::now() + age.div_f64(10.0).clamp(Duration::from_secs(1), AGAIN))
    }

    /// Whether the endpoints are spoken to with TLS.
    pub(super) fn is_secure(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        false
    }

    /// Checks the options.
    ///
    /// # Errors
    /// [`Invalid`] with every option that is out of its range.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        check
            .rule(
                (1..=MOST_CONNECTIONS).contains(&self.connections_per_endpoint),
                "connections_per_endpoint",
                self.connections_per_endpoint,
                "from 1 to 65,535",
            )
            .rule(
                (1..=MOST_CONNECTIONS).contains(&self.http2_connections),
                "http2_connections",
                self.http2_connections,
                "from 1 to 65,535",
            )
            .duration("idle_connection", self.idle_connection);
        if let Some(age) = self.max_age {
            check.duration("max_age", age);
        }
        if let Some(interval) = self.ping_interval {
            check.duration("ping_interval", interval);
        }
        if let Some(silence) = self.tcp_keepalive {
            check.rule(WHOLE.contains(&silence), "tcp_keepalive", silence, "from 3 s to 9 h");
        }
        if let Some(timeout) = self.tcp_user_timeout {
            check.rule(MILLIS.contains(&timeout), "tcp_user_timeout", timeout, "from 1 ms to 24 days");
        }
        check.duration("ping_timeout", self.ping_timeout).rule(
            self.protocol != Protocol::Negotiated || self.is_secure(),
            "protocol",
            self.protocol,
            "with tls: what is spoken is negotiated there",
        );
        check.finish()
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_hold_together_and_are_what_is_documented() {
        let options = ConnectorOptions::default();
        assert_eq!(options.check(), Ok(()));
        assert_eq!(options.protocol, Protocol::Http1);
        assert_eq!((options.connections_per_endpoint, options.idle_connection.as_secs()), (100, 60));
        assert_eq!((options.http2_connections, options.max_age), (2, None));
        assert_eq!(
            (options.ping_interval, options.ping_timeout.as_secs()),
            (Some(Duration::from_secs(10)), 5)
        );
        assert!(options.ping_while_idle && options.nodelay);
        let (silence, unacknowledged) = (Duration::from_secs(10), Duration::from_secs(15));
        assert_eq!((options.tcp_keepalive, options.tcp_user_timeout), (Some(silence), Some(unacknowledged)));
    }

    #[test]
    fn every_mistake_is_told() {
        let options = ConnectorOptions::default()
            .connections_per_endpoint(0)
            .http2_connections(0)
            .max_age(Duration::ZERO)
            .idle_connection(Duration::ZERO)
            .ping_interval(Duration::ZERO)
            .ping_timeout(Duration::MAX)
            .tcp_keepalive(Duration::from_secs(2))
            .tcp_user_timeout(Duration::MAX)
            .protocol(Protocol::Negotiated);
        assert_eq!(options.check().unwrap_err().problems().len(), 9);
    }
}
