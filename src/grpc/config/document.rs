//! The document.

use serde_json::Value;

use super::{LoadBalancing, MethodPolicy, methods::Methods, read::Fields};
use crate::{
    budget::Budget,
    invalid::{Check, Invalid},
};

/// A service config, read and checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceConfig {
    methods: Methods<MethodPolicy>,
    balancing: Option<LoadBalancing>,
    throttling: Option<RetryThrottling>,
    health: Option<String>,
}

/// `retryThrottling`: the numbers of [`Budget::grpc`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct RetryThrottling {
    /// `maxTokens`: 1 to 1,000.
    pub max_tokens: u32,
    /// `tokenRatio`: at least 0.001; what it has beyond three places is cut off.
    pub token_ratio: f64,
}

impl RetryThrottling {
    fn read(fields: &mut Fields<'_, '_>) -> Option<Self> {
        let max = fields.whole("maxTokens").and_then(|max| u32::try_from(max).ok());
        let max = max.filter(|max| (1..=1_000).contains(max));
        fields.rule(max.is_some(), "maxTokens", "1 to 1,000");
        let ratio = fields.needed_number("tokenRatio")?;
        fields.rule(ratio >= 0.001, "tokenRatio", "at least 0.001: three places count");
        // More than a full bucket is a full bucket.
        Some(Self { max_tokens: max?, token_ratio: ratio.clamp(0.001, 1_000.0) })
    }

    /// A budget by these numbers, with its bucket full.
    ///
    /// # Errors
    /// [`Invalid`] if they were changed to what a document may not say.
    pub fn budget(&self) -> Result<Budget, Invalid> {
        Budget::grpc(self.max_tokens, self.token_ratio)
    }
}

impl ServiceConfig {
    /// Reads a document. Fields that are not known are ignored, as gRPC asks of every reader.
    ///
    /// # Errors
    /// [`Invalid`] with every field that breaks a rule, by its place in the document: keep the config that you have.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let mut check = Check::default();
        let document: Value = match serde_json::from_str(text) {
            Ok(document) => document,
            Err(error) => {
                check.rule(false, "", format_args!("{} bytes", text.len()), format!("JSON: {error}"));
                return check.finish().map(|()| Self::default());
            }
        };
        let mut config = Self::default();
        let mut fields = Fields::of(String::new(), &document, &mut check);
        config.balancing = LoadBalancing::read(&mut fields);
        config.throttling = fields.object("retryThrottling", RetryThrottling::read).flatten();
        config.health = fields
            .object("healthCheckConfig", |fields| {
                // A service of no name is the whole server; without the field nothing is watched.
                let name = fields.text("serviceName").to_owned();
                fields.has("serviceName").then_some(name)
            })
            .flatten();
        fields.objects("methodConfig", |method| config.add(method));
        check.finish().map(|()| config)
    }

    fn add(&mut self, method: &mut Fields<'_, '_>) {
        let policy = MethodPolicy::read(method);
        let methods = &mut self.methods;
        method.objects("name", |name| {
            let (service, of_service) = (name.text("service"), name.text("method"));
            name.rule(!service.is_empty() || of_service.is_empty(), "method", "none without a service");
            let is_new = methods.insert(service, of_service, policy.clone());
            name.rule(is_new, "service", "named once in a document, with the same method");
        });
    }

    /// The policy for a method by its path, `/package.Service/Method`: what is said of it, or else of its service, or else of
    /// all.
    pub fn method(&self, path: &str) -> Option<&MethodPolicy> {
        self.methods.get(path)
    }

    /// What `make` makes of each policy, found in the same way.
    #[cfg(feature = "tonic")]
    pub(crate) fn methods<T>(&self, make: impl FnMut(&MethodPolicy) -> T) -> Methods<T> {
        self.methods.each(make)
    }

    /// The balancing policy: the first of the list that is known.
    pub fn load_balancing(&self) -> Option<LoadBalancing> {
        self.balancing
    }

    /// How retries and hedges are throttled.
    pub fn retry_throttling(&self) -> Option<RetryThrottling> {
        self.throttling
    }

    /// The service whose health the servers are asked about; empty for the whole server.
    pub fn health_service(&self) -> Option<&str> {
        self.health.as_deref()
    }
}
