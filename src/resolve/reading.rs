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

/// The hosts of a name. Nobody should write a password before them; whoever does is told so without it, whatever is in it.
pub(super) fn hosts(authority: &str) -> impl Iterator<Item = &str> {
    let whole = authority.contains('@');
    authority.split(move |character| character == ',' && !whole)
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

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;

    #[test]
    fn no_part_of_a_password_before_the_hosts_is_taken_for_one_of_them() {
        assert!(hosts("a:1,b:2").eq(["a:1", "b:2"]));
        #[cfg(all(feature = "etcd", feature = "zookeeper"))]
        for name in ["etcd://me:se,cret@a:1,b:2/users", "zookeeper://me:se,cret@a:1,b:2/users"] {
            let told =
                crate::resolve::Resolve::validate(&crate::resolve::name(name)).unwrap_err().to_string();
            assert!(!told.contains("se,") && !told.contains("me:se"), "{told}");
        }
    }
}
