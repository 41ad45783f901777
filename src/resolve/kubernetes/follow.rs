//! List, watch, and begin again.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use super::{
    KubernetesOptions,
    config::Server,
    name::{Name, Port},
    slice::{Event, Slices, page},
};
use crate::{
    clock,
    random::{Entropy, unit},
    resolve::{
        Resolution, Teller,
        web::{Credential, Lines, Link, Reply, Rest, Trouble, WebError, escape},
    },
};

/// How many slices are asked for at once.
const PAGE: usize = 500;

/// A watch that ends before this has not been one.
const SHORT: Duration = Duration::from_secs(1);

/// How many bytes a page counts at least, so that a list of empty ones has an end, too.
const PAGE_LEAST: usize = 1 << 10;

/// `410 Gone`: what is asked for is older than what is kept.
const GONE: u16 = 410;

/// Tells for ever.
pub(super) async fn follow(
    source: super::config::Source,
    name: Name,
    options: KubernetesOptions,
    tell: Teller,
) {
    let mut rest = Rest::default();
    let (mut known, mut place): (Option<Known>, _) = (None, String::new());
    loop {
        let trouble = match begin(&source, &name, &options).await {
            Ok(mut watching) => {
                // A kubeconfig may lead to another cluster now, which has other slices, and versions of its own.
                let begun = format!("{}{}", watching.link.base(), watching.path);
                if place != begun {
                    (known, place) = (None, begun);
                }
                let error = watching.run(&mut known, &tell, &mut rest).await;
                Trouble::new(format_args!("kubernetes API at {}", watching.link.base()), error)
            }
            Err(error) => Trouble::new(format_args!("kubernetes API of {source}"), error),
        };
        tell.failed(trouble);
        rest.after_failure(&options.watch.backoff).await;
    }
}

/// What there is, up to a version.
struct Known {
    slices: Slices,
    version: String,
}

struct Watching<'a> {
    link: Link,
    path: String,
    port: &'a Port,
    options: &'a KubernetesOptions,
}

/// Reads credentials, anew after each trouble: a kubeconfig may have changed, too.
async fn begin<'a>(
    source: &super::config::Source,
    name: &'a Name,
    options: &'a KubernetesOptions,
) -> Result<Watching<'a>, WebError> {
    let source = source.clone();
    let read = tokio::task::spawn_blocking(move || source.read()).await;
    let server = read.unwrap_or_else(|error| Err(WebError::credential("reading credentials", error)))?;
    let Server { base, access, namespace } = server;
    let namespace = name.namespace.as_deref().unwrap_or(&namespace);
    let path = format!(
        "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices?labelSelector={}",
        escape(namespace),
        escape(&format!("kubernetes.io/service-name={}", name.service)),
    );
    Ok(Watching { link: Link::new(base, access, Credential::Bearer), path, port: &name.port, options })
}

impl Watching<'_> {
    /// Lists if nothing is known, watches, and watches on, until something fails.
    async fn run(&mut self, known: &mut Option<Known>, tell: &Teller, rest: &mut Rest) -> WebError {
        loop {
            let Some(listed) = known else {
                match self.list().await {
                    Ok(listed) => {
                        self.tell(&listed.slices, tell);
                        *known = Some(listed);
                        continue;
                    }
                    Err(error) => return error,
                }
            };
            let began = clock::now();
            let watched = self.watch(listed, tell).await;
            let is_short = clock::now().saturating_duration_since(began) < SHORT;
            if !is_short {
                rest.reset();
            }
            match watched {
                Ok(()) if is_short => return WebError::document("the watch ended as soon as it had begun"),
                Ok(()) => {}
                Err(error) => {
                    let is_gone = error.status() == Some(GONE);
                    if is_void(&error) {
                        *known = None;
                    }
                    // What there is is asked for anew without a rest, unless that is all that happens.
                    if !is_gone || is_short {
                        return error;
                    }
                }
            }
        }
    }

    async fn list(&mut self) -> Result<Known, WebError> {
        let limit = self.options.watch.timeout;
        let (mut slices, mut next) = (Slices::default(), String::new());
        let (mut size, largest) = (0, self.link.largest());
        loop {
            let page_of = next;
            let from =
                if page_of.is_empty() { String::new() } else { format!("&continue={}", escape(&page_of)) };
            let reply = self.link.get(&format!("{}&limit={PAGE}{from}", self.path), &[], limit).await?;
            let text = reply.success(limit).await?;
            size += text.len().max(PAGE_LEAST);
            if size > largest.max(PAGE_LEAST) {
                return Err(WebError::TooLarge(largest));
            }
            let listed = page(&text)?;
            for slice in listed.items {
                slices.insert(slice);
            }
            // A page that leads to itself would be asked for for ever.
            if !listed.metadata.next.is_empty() && listed.metadata.next == page_of {
                return Err(WebError::document("a page that follows itself"));
            }
            next = listed.metadata.next;
            if next.is_empty() {
                return Ok(Known { slices, version: listed.metadata.resource_version });
            }
        }
    }

    /// One watch, to its end. `Ok` means that the next may begin where it ended.
    async fn watch(&mut self, known: &mut Known, tell: &Teller) -> Result<(), WebError> {
        let options = self.options;
        // So that watches that began together do not end together.
        let longest = options.longest.mul_f64(1.0 - 0.5 * unit(random())).max(SHORT);
        let path = format!(
            "{}&watch=1&allowWatchBookmarks=true&resourceVersion={}&timeoutSeconds={}",
            self.path,
            escape(&known.version),
            longest.as_secs(),
        );
        // Without an event the head of the answer may take until the first bookmark at some proxies: it comes at once from
        // the API server itself.
        let reply = self.link.get(&path, &[], options.watch.timeout).await?;
        if !reply.status.is_success() {
            return Err(reply.refusal(options.watch.timeout).await);
        }
        // It is well again: what was told of trouble is over.
        told(tell, &known.slices, self.port, options.zone.as_deref());
        // A watch that does not end when it was asked to may be one that nobody feeds any more.
        let until = clock::now() + longest + options.silence;
        read(reply, known, options, until, |slices| told(tell, slices, self.port, options.zone.as_deref()))
            .await
    }

    fn tell(&self, slices: &Slices, tell: &Teller) {
        told(tell, slices, self.port, self.options.zone.as_deref());
    }
}

/// Reads a watch. What came in one piece is told at once, so that a change to several slices is one.
async fn read(
    mut reply: Reply<'_>,
    known: &mut Known,
    options: &KubernetesOptions,
    until: Instant,
    tell: impl Fn(&Slices),
) -> Result<(), WebError> {
    let mut lines = Lines::new(options.largest_event);
    loop {
        let silence = options.silence.min(until.saturating_duration_since(clock::now()));
        let piece = match reply.piece(silence).await {
            Ok(Some(piece)) => piece,
            // It was silent for too long, or should have ended, which may be a connection that is gone: the next watch
            // begins after all that was heard, and fails if the registry is gone, too.
            Ok(None) | Err(WebError::Silent(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        let lines = lines.push(&piece).map_err(|_| WebError::TooLarge(options.largest_event))?;
        let mut changed = false;
        let mut end = ControlFlow::Continue(());
        for line in lines {
            match Event::parse(&line).and_then(|event| known.take(event, |said| reply.told(said))) {
                Ok(change) => changed |= change,
                Err(error) => {
                    end = ControlFlow::Break(error);
                    break;
                }
            }
        }
        if changed {
            tell(&known.slices);
        }
        if let ControlFlow::Break(error) = end {
            return Err(error);
        }
    }
}

impl Known {
    /// Whether a slice changed. What the API says is shown as `told` makes it.
    fn take(&mut self, event: Event, told: impl FnOnce(&str) -> String) -> Result<bool, WebError> {
        if let Some(version) = event.version() {
            version.clone_into(&mut self.version);
        }
        match event {
            Event::Changed(slice) => self.slices.insert(slice),
            Event::Deleted(slice) => self.slices.remove(&slice),
            Event::Bookmark(_) => return Ok(false),
            Event::Error(code, message) => {
                let code =
                    ::hyper::StatusCode::from_u16(code).unwrap_or(::hyper::StatusCode::INTERNAL_SERVER_ERROR);
                return Err(WebError::Ended(code, told(&message)));
            }
        }
        Ok(true)
    }
}

/// Whether nothing can be watched on from what is known, or something of it was missed.
fn is_void(error: &WebError) -> bool {
    match error {
        WebError::Document(_) | WebError::TooLarge(_) | WebError::Ended(..) => true,
        // What was asked is wrong, and not who asks or when.
        WebError::Status(status, _) => {
            status.is_client_error() && !matches!(status.as_u16(), 401 | 403 | 408 | 429)
        }
        _ => false,
    }
}

fn told(tell: &Teller, slices: &Slices, port: &Port, zone: Option<&str>) {
    if slices.is_empty() {
        return tell.tell(Resolution::Absent);
    }
    match slices.endpoints(port, zone) {
        Ok(endpoints) => tell.tell(Resolution::bound(endpoints)),
        Err(error) => tell.failed(Trouble::new("kubernetes", error)),
    }
}

fn random() -> u64 {
    use crate::random::Random as _;
    Entropy.next()
}

/// The longest that a watch is asked to last, unless it is said otherwise.
pub(super) const LONGEST: Duration = Duration::from_secs(10 * 60);
