//! How the nodes of a registry are read, and what a name says of that.

use super::Target;
use crate::{
    invalid::Check,
    registry::{Encoding, Node, Source},
};

/// What is known of how instances are written.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    /// Found out for each node if it is not said.
    pub(super) encoding: Option<Encoding>,
    /// The additional endpoint of serversets that is meant.
    pub(super) endpoint: Option<String>,
}

impl Reading {
    /// The options of a name that are read here.
    pub(super) const OPTIONS: [&str; 4] = ["encoding", "endpoint", "user", "password_file"];

    /// What a name says.
    pub(super) fn of(target: &Target, check: &mut Check) -> Self {
        let encoding = target.value("encoding").and_then(|name| {
            let encoding = Encoding::parse(name);
            let rule = "one of plain, grpc, nerve, nerve_path, serverset";
            check.rule(encoding.is_some(), "name.encoding", name, rule);
            encoding
        });
        Self { encoding, endpoint: target.value("endpoint").map(str::to_owned) }
    }

    /// What a node says.
    pub(super) fn node(&self, name: &str, data: &[u8]) -> Node {
        Node::read(self.encoding, name, data, self.endpoint.as_deref())
    }
}

/// Who asks, as a name says it, and where the password is.
pub(super) fn login<'a>(target: &'a Target, check: &mut Check) -> Option<(&'a str, Source)> {
    match (target.value("user"), target.value("password_file")) {
        (Some(user), Some(file)) => Some((user, Source::file(file))),
        (user, file) => {
            let rule = "user and password_file go together";
            check.rule(user.or(file).is_none(), "name.user", user.unwrap_or_default(), rule);
            None
        }
    }
}
