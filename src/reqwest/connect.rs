//! One `reqwest::Client` for each endpoint.

use std::{fmt, net::SocketAddr, sync::Arc};

use ::reqwest::{
    ClientBuilder, Request, Url,
    dns::{Addrs, Name, Resolve, Resolving},
};

use super::{Classifier, Description, Follow, transport::Transport};
use crate::{
    Client, Endpoint,
    endpoint::Address,
    http::DescriptionOptions,
    invalid::{Check, Invalid},
};

/// The header that tells a server which attempt it is looking at, from the second on.
const ATTEMPT: ::http::HeaderName = ::http::HeaderName::from_static("x-attempt-count");

type Make = dyn Fn() -> ClientBuilder + Send + Sync;

/// Makes the [`Transport`] of an endpoint: what [`builder`] gives to
/// [`ClientBuilder::connect`](crate::client::ClientBuilder::connect).
#[derive(Clone)]
pub struct Connect {
    host: Arc<str>,
    make: Arc<Make>,
}

impl Connect {
    /// Requests are for `host`; clients are what `make` makes, which is called once for each endpoint.
    ///
    /// # Errors
    /// [`Invalid`] if `host` is not a host's name, or `make` makes what cannot be built.
    pub fn new(
        host: impl Into<Arc<str>>,
        make: impl Fn() -> ClientBuilder + Send + Sync + 'static,
    ) -> Result<Self, Invalid> {
        let host = host.into();
        let mut check = Check::default();
        // As reqwest reads it; an address is dialled without a look-up, and could not mean another.
        let url = Url::parse(&format!("http://{host}/"));
        let is_name = url.is_ok_and(|url| url.domain().is_some_and(|name| name.eq_ignore_ascii_case(&host)));
        check.rule(is_name, "host", &host, "the name of a host, without a port, and no address");
        let built = make().build().err();
        check.rule(built.is_none(), "client", built.map(|error| Told(error.into())), "can be built");
        check.finish()?;
        Ok(Self { host, make: Arc::new(make) })
    }

    /// The transport to `endpoint`.
    pub fn connect(&self, endpoint: &Endpoint) -> Transport {
        let name: Arc<str> = endpoint.identity().to_string().into();
        let (client, port) = match endpoint.address() {
            Address::Authority(authority) => {
                let looked_up = LookedUp { host: self.host.clone(), authority: authority.clone() };
                let port = authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
                ((self.make)().dns_resolver(Arc::new(looked_up)), port)
            }
            address => {
                let sockets = address.sockets();
                let port = sockets.first().map(SocketAddr::port);
                let agreed = port.filter(|port| sockets.iter().all(|socket| socket.port() == *port));
                ((self.make)().resolve_to_addrs(&self.host, sockets), agreed)
            }
        };
        Transport::new(name, self.host.clone(), port, client.build())
    }
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect").field("host", &self.host).finish_non_exhaustive()
    }
}

/// An error with its causes, in words.
struct Told(Box<dyn std::error::Error>);

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// The one host is an authority that is looked up each time; any other is itself. It takes the place of a resolver that
/// the client may have been given.
struct LookedUp {
    host: Arc<str>,
    authority: Arc<str>,
}

impl Resolve for LookedUp {
    fn resolve(&self, name: Name) -> Resolving {
        // Port 0 stands for that of the URL.
        let target = if name.as_str().eq_ignore_ascii_case(&self.host) {
            self.authority.to_string()
        } else {
            format!("{}:0", name.as_str())
        };
        Box::pin(async move {
            let sockets: Vec<_> = tokio::net::lookup_host(target).await?.collect();
            Ok(Box::new(sockets.into_iter()) as Addrs)
        })
    }
}

/// Begins to build a client of requests for `host`, over `reqwest::Client`s that `make` makes: one for each endpoint, one more to
/// see that it can be built. `label` names the client in errors, events and metrics.
///
/// What it is made of can be replaced: [`Description`], [`Classifier`], [`Follow`].
///
/// # Errors
/// [`Invalid`] as [`Connect::new`] says.
pub fn builder(
    label: impl Into<Arc<str>>,
    host: impl Into<Arc<str>>,
    make: impl Fn() -> ClientBuilder + Send + Sync + 'static,
) -> Result<crate::client::ClientBuilder<Transport, Request>, Invalid> {
    let connect = Connect::new(host, make)?;
    let description = Description::new(DescriptionOptions::default().attempt_header(ATTEMPT))?;
    Ok(Client::builder(label)
        .connect(move |endpoint| connect.connect(endpoint))
        .describe(description)
        .classify(Classifier)
        .track(Follow))
}
