//! Questions that wait for an answer.

use super::{
    ConsulOptions, Reading,
    parse::{Index, endpoints},
};
use crate::{
    clock,
    resolve::{
        Resolution, Teller,
        web::{Access, Base, Credential, Link, Pace, Rest, Trouble, WebError, escape},
    },
};

/// How many questions may follow each other without a rest.
const BURST: u32 = 8;

/// Tells for ever.
pub(super) async fn follow(
    base: Base,
    access: Access,
    service: String,
    options: ConsulOptions,
    tell: Teller,
) {
    let registry = format!("consul at {base}");
    let path = path(&service, &options);
    let mut link = Link::new(base, access, Credential::Header("x-consul-token"));
    let mut rest = Rest::default();
    let mut pace = Pace::new(options.pace, BURST, clock::now());
    let mut index = Index::default();
    loop {
        // Some answer at once, for ever.
        tokio::time::sleep(pace.next(clock::now())).await;
        match ask(&mut link, &path, index, &options).await {
            Ok((told, resolution)) => {
                index = index.after(told.as_deref());
                rest.reset();
                tell.tell(resolution);
            }
            Err(error) => {
                // Who comes back may count from anywhere.
                index = Index::default();
                tell.failed(Trouble::new(&registry, error));
                rest.after_failure(&options.watch.backoff).await;
            }
        }
    }
}

async fn ask(
    link: &mut Link,
    path: &str,
    index: Index,
    options: &ConsulOptions,
) -> Result<(Option<String>, Resolution), WebError> {
    let limit = options.watch.timeout;
    let (path, patience) = match index.get() {
        None => (path.to_owned(), limit),
        // A server adds up to a sixteenth, so that those who wait do not all come back at once.
        Some(index) => {
            let wait = options.wait;
            let and = if path.ends_with('?') { "" } else { "&" };
            (format!("{path}{and}index={index}&wait={}ms", wait.as_millis()), wait + wait / 16 + limit)
        }
    };
    let reply = link.get(&path, &[], patience).await?;
    let told = reply.headers.get("x-consul-index").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = reply.success(limit).await?;
    let resolution = endpoints(&body, options)?.map_or(Resolution::Absent, Resolution::bound);
    Ok((told, resolution))
}

fn path(service: &str, options: &ConsulOptions) -> String {
    let mut path = format!("/v1/health/service/{}?", escape(service));
    let mut add = |key: &str, value: &str| path.push_str(&format!("&{key}={}", escape(value)));
    for tag in &options.tags {
        add("tag", tag);
    }
    for (key, value) in [
        ("dc", &options.datacenter),
        ("near", &options.near),
        ("ns", &options.namespace),
        ("partition", &options.partition),
        ("filter", &options.filter),
    ] {
        if let Some(value) = value {
            add(key, value);
        }
    }
    if options.passing {
        add("passing", "1");
    }
    path.push_str(match options.reading {
        Reading::Default => "",
        Reading::Stale => "&stale",
        Reading::Consistent => "&consistent",
        Reading::Cached => "&cached",
    });
    path.replacen("?&", "?", 1)
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_in_the_path() {
        assert_eq!(path("users", &ConsulOptions::default()), "/v1/health/service/users?");
        let options = ConsulOptions::default()
            .tag("v2")
            .tag("a b")
            .datacenter("eu")
            .near("_agent")
            .passing(true)
            .reading(Reading::Stale);
        let told = "/v1/health/service/a%2Fb?tag=v2&tag=a%20b&dc=eu&near=_agent&passing=1&stale";
        assert_eq!(path("a/b", &options), told);
    }
}
