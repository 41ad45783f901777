//! From what nodes say to a set of endpoints.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use super::{Encoding, Entry, Instance, Unreadable, read, serverset::Rule};
use crate::{
    Endpoint,
    endpoint::{Address, Reported},
};

/// A node that was read.
#[derive(Debug)]
pub(crate) struct Node {
    entry: Result<Entry, Unreadable>,
    /// What it stands for where nothing weighs it: made once, told often.
    endpoint: Option<Arc<Endpoint>>,
}

impl Node {
    /// Reads the node `name` with the data `data`, of which the additional endpoint `port` is meant, if one is.
    pub(crate) fn read(encoding: Option<Encoding>, name: &str, data: &[u8], port: Option<&str>) -> Self {
        let mut entry = read(encoding, name, data);
        let endpoint = match &entry {
            Ok(Entry::Instance(instance)) => match instance.endpoint(port) {
                Ok(endpoint) => endpoint.map(Arc::new),
                Err(reason) => {
                    entry = Err(Unreadable(reason));
                    None
                }
            },
            _ => None,
        };
        Self { entry, endpoint }
    }

    /// One that there was no reading of.
    #[cfg(feature = "zookeeper")]
    pub(crate) fn unreadable(reason: String) -> Self {
        Self { entry: Err(Unreadable(reason.into())), endpoint: None }
    }
}

/// Puts together what nodes say, taken in the order of their names. Of several with one address the fittest counts, and of
/// those the last, which is the youngest where names are numbered.
#[derive(Debug, Default)]
pub(crate) struct Assembly<'a> {
    rules: Vec<&'a Rule>,
    endpoints: BTreeMap<Address, Arc<Endpoint>>,
    /// Which nodes were skipped, and why.
    pub(crate) skipped: Vec<(String, Cow<'static, str>)>,
}

impl<'a> Assembly<'a> {
    /// One that weighs by what `nodes` say of weights.
    pub(crate) fn weighing(nodes: impl Iterator<Item = &'a Node>) -> Self {
        let rules = nodes.filter_map(|node| match &node.entry {
            Ok(Entry::Vector(rules)) => Some(rules),
            _ => None,
        });
        Self { rules: rules.flatten().collect(), ..Self::default() }
    }

    /// Takes what the node `name` says.
    pub(crate) fn take(&mut self, name: &str, node: &Node) {
        match (&node.entry, &node.endpoint) {
            (Err(Unreadable(reason)), _) => self.skipped.push((name.to_owned(), reason.clone())),
            (Ok(Entry::Instance(instance)), Some(endpoint)) => {
                let endpoint = self.weighed(endpoint, name, instance);
                match self.endpoints.get_mut(endpoint.address()) {
                    None => _ = self.endpoints.insert(endpoint.address().clone(), endpoint),
                    Some(known) if fitness(&endpoint) >= fitness(known) => *known = endpoint,
                    Some(_) => {}
                }
            }
            _ => {}
        }
    }

    /// Those that can be balanced over, one for each address.
    pub(crate) fn finish(self) -> Arc<[Arc<Endpoint>]> {
        self.endpoints.into_values().collect()
    }

    fn weighed(&self, endpoint: &Arc<Endpoint>, name: &str, instance: &Instance) -> Arc<Endpoint> {
        if self.rules.is_empty() {
            return endpoint.clone();
        }
        let address = endpoint.address().to_string();
        let factor: f64 = self.rules.iter().map(|rule| rule.factor(name, instance, &address)).product();
        let endpoint = Endpoint::clone(endpoint);
        Arc::new(match endpoint.weight() * factor {
            weight if weight > 0.0 && weight.is_finite() => endpoint.with_weight(weight),
            // Weighed down to nothing.
            _ => endpoint.with_reported(Reported::Draining),
        })
    }
}

fn fitness(endpoint: &Endpoint) -> u8 {
    match endpoint.reported() {
        Reported::Healthy | Reported::Unknown => 2,
        Reported::Draining => 1,
        Reported::Unhealthy => 0,
    }
}
