//! Names through the system's resolver.

use std::{
    io,
    net::{Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket},
    sync::Arc,
    task::{Context, Poll},
};

use super::{PollOptions, Resolution, Resolve, periodic::Periodic};
use crate::{Invalid, invalid::Check, random::Random};

/// Resolves `name`, a host and a port such as `users.internal:8080`, through the system's resolver (`getaddrinfo`): hosts
/// file, search domains, and whatever else the system is set up to ask. Every address is one endpoint.
///
/// What that resolver does not tell, this one cannot know; [`dns`](fn@super::dns) knows all of it:
/// - **How long an answer holds.** The name is looked up every \[30 s\] instead, and early when asked to, at most once per
///   floor \[5 s\]; see [`PollOptions`].
/// - **Whether a name does not exist** or its servers are out of reach: systems tell both in words of their own. Every
///   error is [`Resolution::Failed`], which keeps the last good set; [`Resolution::Absent`] is never told.
/// - **Weights, priorities and ports** of SRV records.
///
/// IPv4 and IPv6 addresses are used alike. Where the answer has both, IPv6 addresses that this host has no route to are
/// left out, as are IPv4 ones on a host that has none for them.
///
/// A look-up blocks one of the runtime's blocking threads. One that is given up, after \[5 s\] or because the resolver was
/// dropped, still keeps its thread until the system's resolver has given up, too.
///
/// ```
/// use std::time::Duration;
/// use mainstay::resolve::{self, PollOptions, Resolve};
///
/// let users = resolve::system("users.internal:8080")
///     .options(PollOptions::default().interval(Duration::from_secs(10)));
/// assert!(users.validate().is_ok());
/// assert!(resolve::system("users.internal").validate().is_err()); // no port
/// ```
pub fn system(name: impl Into<String>) -> System {
    let name: Arc<str> = name.into().into();
    let looked_up = name.clone();
    let periodic = Periodic::new(PollOptions::default(), move || {
        let name = looked_up.clone();
        Box::pin(async move {
            let found = tokio::task::spawn_blocking(move || look_up(&name)).await;
            match found.map_err(io::Error::from).and_then(|found| found) {
                Ok(found) => Resolution::bound(found).into(),
                Err(error) => Resolution::Failed(Arc::new(error)).into(),
            }
        })
    });
    System { name, periodic }
}

/// The resolver made by [`system`].
#[derive(Debug)]
pub struct System {
    name: Arc<str>,
    periodic: Periodic,
}

impl System {
    /// Replaces the options.
    #[must_use]
    pub fn options(mut self, options: PollOptions) -> Self {
        self.periodic.set_options(options);
        self
    }

    /// Draws jitter from `random` instead of [`Entropy`](crate::random::Entropy).
    #[must_use]
    pub fn random(mut self, random: impl Random) -> Self {
        self.periodic.set_random(Arc::new(random));
        self
    }
}

impl Resolve for System {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Resolution>> {
        if self.periodic.is_new()
            && let Err(invalid) = self.validate()
        {
            return self.periodic.refuse(invalid);
        }
        self.periodic.poll(cx)
    }

    fn refresh(&mut self) {
        self.periodic.refresh();
    }

    fn describe(&self) -> String {
        format!("system {}", self.name)
    }

    fn validate(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        check.part("system", |check| {
            let rule = "a host and a port from 1 to 65535, such as users.internal:8080; no scheme, \
                        an IPv6 address in brackets";
            check.rule(is_host_and_port(&self.name), "name", &self.name, rule);
            self.periodic.options().check(check);
        });
        check.finish()
    }
}

pub(super) fn is_host_and_port(name: &str) -> bool {
    if let Ok(address) = name.parse::<SocketAddr>() {
        return address.port() != 0;
    }
    let Some((host, port)) = name.rsplit_once(':') else { return false };
    is_host(host)
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// Whether it is a name as DNS has them, with or without the dot at its end.
pub(super) fn is_host(host: &str) -> bool {
    let labels = host.strip_suffix('.').unwrap_or(host);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    labels.len() <= 253 && labels.split('.').all(is_label)
}

fn look_up(name: &str) -> io::Result<Vec<SocketAddr>> {
    let found: Vec<SocketAddr> = name.to_socket_addrs()?.collect();
    Ok(routed(found, has_route))
}

/// Those of `found` that can be reached, if both families are among them; all of them if none can.
pub(super) fn routed(
    found: Vec<SocketAddr>,
    mut has_route: impl FnMut(&SocketAddr) -> bool,
) -> Vec<SocketAddr> {
    let sixes = found.iter().filter(|address| address.is_ipv6()).count();
    if sixes == 0 || sixes == found.len() {
        return found;
    }
    let reached: Vec<SocketAddr> = found.iter().copied().filter(|address| has_route(address)).collect();
    if reached.is_empty() { found } else { reached }
}

/// Whether the host would know where to send a packet for `address`. Connecting a datagram socket sends nothing.
pub(super) fn has_route(address: &SocketAddr) -> bool {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    UdpSocket::bind(any).and_then(|socket| socket.connect(address)).is_ok()
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[test]
    fn a_name_is_a_host_and_a_port() {
        let long = format!("{}:80", "a.".repeat(127));
        for good in [
            "users.internal:8080",
            "users:1",
            "users.internal.:80",
            "_a-1.b:65535",
            "10.0.0.1:80",
            "[::1]:80",
            &long,
        ] {
            assert!(system(good).validate().is_ok(), "{good}");
        }
        let long = format!("{}b:80", "a.".repeat(127));
        for bad in [
            "",
            ":80",
            "users",
            "users:",
            "users:0",
            "users:+80",
            "users:65536",
            "http://users:80",
            "us ers:80",
            "a..b:80",
            "::1:80",
            "[::1]",
            "10.0.0.1:0",
            "user@host:80",
            &long,
        ] {
            assert!(system(bad).validate().is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_bad_name_is_told_with_the_rule_and_never_looked_up() {
        let mut system = system("http://users");
        let Some(Resolution::Failed(cause)) = poll_fn(|cx| system.poll_next(cx)).await else {
            panic!("a scheme was taken for a host")
        };
        let text = cause.to_string();
        assert!(
            text.starts_with("invalid options: system.name = \"http://users\": a host and a port"),
            "{text}"
        );
        assert!(poll_fn(|cx| system.poll_next(cx)).await.is_none());
    }

    #[tokio::test]
    async fn this_host_knows_itself() {
        let mut system = system("localhost:80");
        let Some(Resolution::Bound(set)) = poll_fn(|cx| system.poll_next(cx)).await else {
            panic!("localhost did not resolve")
        };
        assert!(!set.is_empty());
        let loopback = |address: &SocketAddr| address.ip().is_loopback() && address.port() == 80;
        assert!(set.iter().all(|endpoint| endpoint.address().sockets().iter().all(loopback)));
    }

    #[test]
    fn of_both_families_only_what_has_a_route_is_used() {
        let both: Vec<SocketAddr> =
            ["[2001:db8::1]:80", "10.0.0.1:80"].iter().flat_map(|address| address.parse()).collect();
        assert_eq!(routed(both.clone(), |address| address.is_ipv4()), both[1..]);
        assert_eq!(routed(both.clone(), |address| address.is_ipv6()), both[..1]);
        assert_eq!(routed(both.clone(), |_| true), both);
        assert_eq!(routed(both.clone(), |_| false), both, "better to try than to have none");
        assert_eq!(routed(both[..1].to_vec(), |_| false), both[..1], "the only family is used as it is");
    }
}
