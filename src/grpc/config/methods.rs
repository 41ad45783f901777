//! What is known by method.

use std::collections::HashMap;

/// By `service/method`, `service/` for all others of the service, and nothing for all others.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Methods<T>(HashMap<String, T>);

impl<T> Default for Methods<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> Methods<T> {
    /// Returns whether nothing was known of it.
    pub(super) fn insert(&mut self, service: &str, method: &str, value: T) -> bool {
        let key = if service.is_empty() { String::new() } else { format!("{service}/{method}") };
        self.0.insert(key, value).is_none()
    }

    /// What is known of the method, or else of its service, or else of all.
    #[inline]
    pub(crate) fn get(&self, path: &str) -> Option<&T> {
        if self.0.is_empty() { None } else { self.find(path.strip_prefix('/').unwrap_or(path)) }
    }

    fn find(&self, path: &str) -> Option<&T> {
        let Some(end) = path.rfind('/') else { return self.0.get("") };
        let service = &path[..=end];
        self.0.get(path).or_else(|| self.0.get(service)).or_else(|| self.0.get(""))
    }

    #[cfg(feature = "tonic")]
    pub(super) fn each<U>(&self, mut make: impl FnMut(&T) -> U) -> Methods<U> {
        Methods(self.0.iter().map(|(key, value)| (key.clone(), make(value))).collect())
    }
}
