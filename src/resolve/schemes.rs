//! From the scheme of a name to its resolver.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use super::{Resolution, Resolve, Target, fixed};
use crate::{Invalid, invalid::Check};

/// Resolves what `name` says: a scheme, and what the scheme makes of the rest.
///
/// | name | what is resolved | feature |
/// |---|---|---|
/// | `users.internal:8080`, `dns:///users.internal:8080` | a host, through DNS | `dns` |
/// | `dns://10.0.0.53/users.internal:8080` | the same, asked of these servers | `dns` |
/// | `srv:///_users._tcp.internal` | SRV records | `dns` |
/// | `system:///users.internal:8080` | a host, through the system's resolver | none |
/// | `fixed:///10.0.0.1:80,10.0.0.2:80` | a list that never changes | none |
/// | `file:///etc/mesh/users.yaml` | a file, by its extension YAML, JSON or TOML | `file` |
/// | `etcd:///services/users`, `etcd://host:2379,host2:2379/services/users` | keys of etcd under `services/users/` | `etcd` |
/// | `zookeeper:///services/users`, `zookeeper://zk1:2181,zk2:2181/services/users` | children of a node of ZooKeeper | `zookeeper` |
/// | `kubernetes:///users.prod:http` | a service in Kubernetes | `kubernetes` |
/// | `consul:///users?tag=v2` | a service in Consul | `consul` |
/// | `eureka://10.0.0.1:8761/USERS` | an application in Eureka | `eureka` |
///
/// Mistakes are told when a client is built. For schemes of your own see [`Schemes`].
///
/// ```
/// use mainstay::resolve::{self, Resolve};
///
/// assert!(resolve::name("system:///users.internal:8080").validate().is_ok());
/// let error = resolve::name("sistem:///users.internal:8080").validate().unwrap_err();
/// assert!(error.to_string().contains("name.scheme = \"sistem\""));
/// ```
pub fn name(name: impl AsRef<str>) -> Named {
    Schemes::default().name(name)
}

/// A function that makes the resolver of a name.
type Make = Arc<dyn Fn(&Target) -> Result<Box<dyn Resolve>, Invalid> + Send + Sync>;

/// The schemes that names may have. The default has those of the features that are on.
///
/// ```
/// use mainstay::resolve::{self, Resolve, Schemes};
///
/// let mut schemes = Schemes::default();
/// schemes.register("shards", |target| {
///     target.only(&[])?;
///     let count: u16 = target.path().parse().map_err(|_| target.invalid("path", target.path(), "a number of shards"))?;
///     Ok(Box::new(resolve::fixed((0..count).map(|shard| format!("shard-{shard}.internal:80")))))
/// });
/// assert!(schemes.name("shards:///12").validate().is_ok());
/// assert!(schemes.name("shards:///many").validate().is_err());
/// ```
#[derive(Clone)]
pub struct Schemes(BTreeMap<String, Make>);

impl Schemes {
    /// Without any scheme.
    pub fn none() -> Self {
        Self(BTreeMap::new())
    }

    /// Takes `make` for names whose scheme is `scheme`, in place of what stood for it. Case does not matter.
    pub fn register(
        &mut self,
        scheme: &str,
        make: impl Fn(&Target) -> Result<Box<dyn Resolve>, Invalid> + Send + Sync + 'static,
    ) -> &mut Self {
        self.0.insert(scheme.to_ascii_lowercase(), Arc::new(make));
        self
    }

    /// Resolves what `name` says.
    pub fn name(&self, name: impl AsRef<str>) -> Named {
        let target = Target::parse(name.as_ref());
        let shown =
            target.as_ref().map_or_else(|_| "a name that cannot be read".to_owned(), Target::to_string);
        let resolver = target.and_then(|target| match self.0.get(target.scheme()) {
            Some(make) => make(&target),
            None => Err(self.unknown(&target)),
        });
        Named { shown, resolver, ended: false }
    }

    fn unknown(&self, target: &Target) -> Invalid {
        let known: Vec<&str> = self.0.keys().map(String::as_str).collect();
        let rule = match FEATURES.iter().find(|(scheme, _)| *scheme == target.scheme()) {
            Some((_, feature)) => {
                let system = if *feature == "dns" { "; system:/// needs none" } else { "" };
                format!("needs the feature `{feature}` of mainstay{system}")
            }
            None => format!("one of {}", known.join(", ")),
        };
        Check::problem("name.scheme", target.scheme(), rule)
    }
}

/// Schemes that a feature brings, and the feature.
const FEATURES: &[(&str, &str)] = &[
    ("consul", "consul"),
    ("dns", "dns"),
    ("etcd", "etcd"),
    ("eureka", "eureka"),
    ("file", "file"),
    ("kubernetes", "kubernetes"),
    ("srv", "dns"),
    ("zookeeper", "zookeeper"),
];

impl Default for Schemes {
    fn default() -> Self {
        let mut schemes = Self::none();
        #[cfg(feature = "dns")]
        for scheme in ["dns", "srv"] {
            schemes.register(scheme, |target| Ok(Box::new(super::Dns::of(target)?)));
        }
        schemes.register("system", |target| {
            target.only(&[])?;
            Ok(Box::new(super::system(target.path())))
        });
        #[cfg(feature = "consul")]
        schemes.register("consul", |target| Ok(Box::new(super::Consul::of(target)?)));
        #[cfg(feature = "eureka")]
        schemes.register("eureka", |target| Ok(Box::new(super::Eureka::of(target)?)));
        #[cfg(feature = "kubernetes")]
        schemes.register("kubernetes", |target| Ok(Box::new(super::Kubernetes::of(target)?)));
        #[cfg(feature = "file")]
        schemes.register("file", |target| Ok(Box::new(super::File::of(target)?)));
        schemes.register("fixed", |target| {
            target.only(&[])?;
            Ok(Box::new(fixed(target.path().split(',').map(str::trim).filter(|address| !address.is_empty()))))
        });
        #[cfg(feature = "etcd")]
        schemes.register("etcd", |target| Ok(Box::new(super::Etcd::named(target)?)));
        #[cfg(feature = "zookeeper")]
        schemes.register("zookeeper", |target| Ok(Box::new(super::ZooKeeper::named(target)?)));
        schemes
    }
}

impl fmt::Debug for Schemes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The resolver made by [`name`].
pub struct Named {
    shown: String,
    resolver: Result<Box<dyn Resolve>, Invalid>,
    ended: bool,
}

impl Resolve for Named {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Resolution>> {
        match &mut self.resolver {
            Ok(resolver) => resolver.poll_next(cx),
            Err(_) if self.ended => Poll::Ready(None),
            Err(invalid) => {
                self.ended = true;
                Poll::Ready(Some(Resolution::Failed(Arc::new(invalid.clone()))))
            }
        }
    }

    fn refresh(&mut self) {
        if let Ok(resolver) = &mut self.resolver {
            resolver.refresh();
        }
    }

    fn describe(&self) -> String {
        self.shown.clone()
    }

    fn validate(&self) -> Result<(), Invalid> {
        match &self.resolver {
            Ok(resolver) => resolver.validate(),
            Err(invalid) => Err(invalid.clone()),
        }
    }
}

impl fmt::Debug for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Named({})", self.shown)
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn a_list_in_a_name_is_a_list() {
        let mut named = name("fixed:///10.0.0.1:80, 10.0.0.2:80,");
        let Some(Resolution::Bound(set)) = poll_fn(|cx| named.poll_next(cx)).await else {
            panic!("a list did not resolve")
        };
        assert_eq!(set.len(), 2);
        assert_eq!(named.describe(), "fixed:///10.0.0.1:80, 10.0.0.2:80,");
    }

    #[tokio::test]
    async fn a_scheme_that_is_not_known_is_told_with_those_that_are() {
        let mut named = Schemes::none().register("x", |_| Ok(Box::new(fixed([""; 0])))).name("y:///a");
        let told = "invalid options: name.scheme = \"y\": one of x";
        assert_eq!(named.validate().unwrap_err().to_string(), told);
        let Some(Resolution::Failed(cause)) = poll_fn(|cx| named.poll_next(cx)).await else {
            panic!("resolved a scheme that nobody knows")
        };
        assert_eq!(cause.to_string(), told);
        assert!(poll_fn(|cx| named.poll_next(cx)).await.is_none());
    }

    #[test]
    fn what_a_scheme_refuses_is_refused() {
        assert!(name("system:///users").validate().is_err(), "no port");
        assert!(name("system:///users:80?ttl=5").validate().is_err(), "an option that it does not have");
        assert!(name("system:///users:80").validate().is_ok());
    }

    #[cfg(not(feature = "dns"))]
    #[test]
    fn a_scheme_whose_feature_is_off_says_so() {
        let error = name("users:80").validate().unwrap_err();
        let told = "name.scheme = \"dns\": needs the feature `dns` of mainstay; system:/// needs none";
        assert!(error.to_string().ends_with(told), "{error}");
    }

    #[test]
    fn a_scheme_may_be_replaced() {
        let mut schemes = Schemes::default();
        schemes.register("DNS", |target| Err(target.invalid("path", target.path(), "not today")));
        let error = schemes.name("users:80").validate().unwrap_err();
        assert_eq!(error.to_string(), "invalid options: name.path = \"users:80\": not today");
    }
}
