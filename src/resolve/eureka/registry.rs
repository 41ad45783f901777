//! A copy of the registry, kept by what changed of it.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{
    parse::{Applications, Instance},
    resolver::{EurekaOptions, Wanted},
};
use crate::Endpoint;

/// Every instance's status, which the hash is made of, and all of those that are wanted.
#[derive(Debug, Default)]
pub(super) struct Registry(BTreeMap<(String, String), Known>);

#[derive(Debug)]
struct Known {
    status: String,
    wanted: Option<Box<Instance>>,
}

impl Registry {
    pub(super) fn of(all: Applications, wanted: &Wanted) -> Self {
        let mut registry = Self::default();
        for application in all.application {
            for instance in application.instance {
                registry.insert(application.name.clone(), instance, wanted);
            }
        }
        registry
    }

    /// Takes what changed; whether it is then what the server has.
    pub(super) fn apply(&mut self, delta: Applications, wanted: &Wanted) -> bool {
        for application in delta.application {
            for instance in application.instance {
                if instance.action_type == "DELETED" {
                    self.0.remove(&(application.name.clone(), instance.id().to_owned()));
                } else {
                    self.insert(application.name.clone(), instance, wanted);
                }
            }
        }
        self.hash() == delta.hash.0
    }

    fn insert(&mut self, application: String, instance: Instance, wanted: &Wanted) {
        let known = Known {
            status: instance.status.clone(),
            wanted: instance.is(&application, wanted).then(|| Box::new(instance.clone())),
        };
        self.0.insert((application, instance.id().to_owned()), known);
    }

    /// `DOWN_2_UP_8_`: how many have which status.
    pub(super) fn hash(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for known in self.0.values() {
            *counts.entry(&known.status).or_default() += 1;
        }
        counts.into_iter().fold(String::new(), |mut hash, (status, count)| {
            let _ = write!(hash, "{status}_{count}_");
            hash
        })
    }

    /// The endpoints that are wanted, or `None` if there is no instance of that name, up or not.
    pub(super) fn endpoints(&self, wanted: &Wanted, options: &EurekaOptions) -> Option<Vec<Endpoint>> {
        let mut instances = self.0.values().filter_map(|known| known.wanted.as_deref()).peekable();
        instances.peek()?;
        Some(instances.filter_map(|instance| instance.endpoint(wanted, options)).collect())
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn read(hash: &str, instances: &[(&str, u8, &str, &str)]) -> Applications {
        let instance = |(app, id, status, action): &(&str, u8, &str, &str)| -> Value {
            json!({"name": app, "instance": {"instanceId": id.to_string(), "ipAddr": format!("10.0.0.{id}"), "status": status,
                "actionType": action, "port": {"$": 80, "@enabled": "true"}}})
        };
        let all: Vec<Value> = instances.iter().map(instance).collect();
        serde_json::from_value(json!({"apps__hashcode": hash, "application": all})).unwrap()
    }

    fn users() -> Wanted {
        Wanted { application: Some("USERS".into()), ..Wanted::default() }
    }

    #[test]
    fn what_changed_is_taken_and_the_hash_is_that_of_all_applications() {
        let mut registry = Registry::of(
            read("", &[("USERS", 1, "UP", ""), ("USERS", 2, "DOWN", ""), ("OTHERS", 3, "UP", "")]),
            &users(),
        );
        assert_eq!(registry.hash(), "DOWN_1_UP_2_");
        let delta = read(
            "UP_3_",
            &[("USERS", 2, "UP", "MODIFIED"), ("USERS", 4, "UP", "ADDED"), ("OTHERS", 3, "UP", "DELETED")],
        );
        assert!(registry.apply(delta, &users()));
        let told = registry.endpoints(&users(), &EurekaOptions::default()).unwrap();
        assert_eq!(told.len(), 3);
        assert!(!registry.apply(read("UP_7_", &[]), &users()), "something was missed");
    }

    #[test]
    fn a_name_without_instances_is_told_from_one_without_any_that_is_up() {
        let registry = Registry::of(read("", &[("USERS", 1, "DOWN", "")]), &users());
        assert_eq!(registry.endpoints(&users(), &EurekaOptions::default()).map(|told| told.len()), Some(0));
        let others = Wanted { application: Some("OTHERS".into()), ..Wanted::default() };
        let registry = Registry::of(read("", &[("USERS", 1, "UP", "")]), &others);
        assert!(registry.endpoints(&others, &EurekaOptions::default()).is_none());
    }

    proptest! {
        #[test]
        fn changes_lead_to_what_a_full_answer_says(steps in proptest::collection::vec((0_u8..6, 0_u8..3), 0..30)) {
            let mut registry = Registry::default();
            let mut truth: BTreeMap<u8, &str> = BTreeMap::new();
            for (id, step) in steps {
                let (status, action) = [("UP", "ADDED"), ("DOWN", "MODIFIED"), ("UP", "DELETED")][usize::from(step)];
                if action == "DELETED" { truth.remove(&id); } else { truth.insert(id, status); }
                let all: Vec<_> = truth.iter().map(|(id, status)| ("USERS", *id, *status, "")).collect();
                let full = Registry::of(read("", &all), &users());
                prop_assert!(registry.apply(read(&full.hash(), &[("USERS", id, status, action)]), &users()));
                let options = EurekaOptions::default();
                prop_assert_eq!(registry.endpoints(&users(), &options), full.endpoints(&users(), &options));
            }
        }
    }
}
