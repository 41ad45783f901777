//! The last good set, kept in a file for a start without the registry.

use std::{
    fmt, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::task::{JoinHandle, coop::poll_proceed};

use super::document::{self, Format};
use crate::{
    Invalid,
    alarm::Alarm,
    clock,
    error::Cause,
    invalid::Check,
    random::{Entropy, Random as _},
    resolve::{Endpoints, Resolution, Resolve},
};

/// When the last good set is kept, and when it is used.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SavedOptions {
    /// How long the registry may be silent at the start before the file is used \[2 s\]. If it fails the file is used at
    /// once.
    pub patience: Duration,
    /// The shortest time between two writes \[10 s\].
    pub interval: Duration,
    /// The largest file that is read, in bytes \[16 MiB\].
    pub largest: u64,
}

impl SavedOptions {
    /// Sets [`patience`](Self::patience).
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sets [`interval`](Self::interval).
    pub const fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Sets [`largest`](Self::largest).
    pub const fn largest(mut self, largest: u64) -> Self {
        self.largest = largest;
        self
    }
}

impl Default for SavedOptions {
    fn default() -> Self {
        Self { patience: Duration::from_secs(2), interval: Duration::from_secs(10), largest: 16 << 20 }
    }
}

/// Another resolver whose last good set is kept in a file, so that a process can start while its registry is down: what
/// [`ResolveExt::saved`](crate::resolve::ResolveExt::saved) makes.
///
/// The file is JSON in the form that [`file`](fn@crate::resolve::file) reads, written anew beside itself and put in place by a
/// rename, for its owner alone to read. It is used only until the registry tells its first set, and never after: what is lost later the client
/// bears with by itself. That it is used is told as a failure with the registry's own cause. An answer that there is
/// nothing is an answer; the file does not stand against it. How old the file is nobody knows; endpoints that are gone
/// meanwhile are found out by their health.
pub struct Saved<R> {
    resolver: R,
    path: PathBuf,
    options: SavedOptions,
    state: State,
    ended: bool,
    /// Told next, before the resolver is asked again.
    next: Option<Resolution>,
    alarm: Alarm,
    store: Store,
}

/// Where the endpoints come from.
enum State {
    New,
    /// The resolver has told nothing good yet, and the file is read meanwhile.
    Waiting {
        until: Instant,
        read: Reading,
        cause: Option<Cause>,
    },
    /// From the file.
    Stale,
    /// From the resolver.
    Fresh,
    Refused,
}

enum Reading {
    Running(JoinHandle<io::Result<Endpoints>>),
    Done(io::Result<Endpoints>),
}

/// What is to be written, and is being written.
#[derive(Default)]
struct Store {
    due: Option<Endpoints>,
    written: Option<u64>,
    running: Option<(Endpoints, JoinHandle<io::Result<u64>>)>,
    not_before: Option<Instant>,
    failing: bool,
    alarm: Alarm,
}

impl<R: Resolve> Saved<R> {
    pub(in crate::resolve) fn new(resolver: R, path: PathBuf, options: SavedOptions) -> Self {
        Self {
            resolver,
            path,
            options,
            state: State::New,
            ended: false,
            next: None,
            alarm: Alarm::default(),
            store: Store::default(),
        }
    }

    /// What to tell in place of what the resolver told.
    fn take(&mut self, resolution: Resolution) -> Option<Resolution> {
        match (&resolution, &mut self.state) {
            (Resolution::Bound(set), _) => {
                self.state = State::Fresh;
                if !set.is_empty() {
                    self.store.due = Some(set.clone());
                }
            }
            (Resolution::Absent, _) => self.state = State::Fresh,
            (Resolution::Failed(cause), State::Waiting { cause: known, .. }) => {
                *known = Some(cause.clone());
                return None;
            }
            (Resolution::Failed(cause), State::Stale) => {
                return Some(self.stale(Some(cause.clone())));
            }
            _ => {}
        }
        Some(resolution)
    }

    /// Uses the file, once it is read and there is reason to.
    fn fall_back(&mut self, cx: &mut Context<'_>) -> Poll<Resolution> {
        let State::Waiting { until, read, cause } = &mut self.state else { return Poll::Pending };
        if let Reading::Running(running) = read {
            match ready!(Pin::new(running).poll(cx)) {
                Ok(found) => *read = Reading::Done(found),
                Err(error) if error.is_panic() => *read = Reading::Done(Err(io::Error::other(error))),
                Err(_) => {
                    // The runtime that read it has ended; this one reads it anew.
                    let again = Reading::Running(read_of(&self.path, self.options.largest));
                    *read = again;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
        let has_reason = cause.is_some() || self.ended;
        if !has_reason && !self.alarm.poll(cx, Some(*until)) {
            return Poll::Pending;
        }
        let cause = cause.take();
        let Reading::Done(found) = read else { return Poll::Pending };
        let found = std::mem::replace(found, Err(io::ErrorKind::Other.into()));
        self.state = State::Stale;
        match found {
            Ok(set) if !set.is_empty() => {
                self.next = Some(self.stale(cause));
                Poll::Ready(Resolution::Bound(set))
            }
            // There is no file, or nothing good in it: as if there had never been one.
            found => {
                self.state = State::Fresh;
                if let Err(error) = &found
                    && error.kind() != io::ErrorKind::NotFound
                {
                    tracing::warn!(target: "mainstay", path = %self.path.display(), %error, "no snapshot to start from");
                }
                cause.map_or(Poll::Pending, |cause| Poll::Ready(Resolution::Failed(cause)))
            }
        }
    }

    fn stale(&self, cause: Option<Cause>) -> Resolution {
        Resolution::Failed(Arc::new(Stale { path: self.path.clone(), cause }))
    }
}

impl<R: Resolve> Resolve for Saved<R> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Resolution>> {
        let budget = ready!(poll_proceed(cx));
        if matches!(self.state, State::Refused) {
            return Poll::Ready(None);
        }
        if matches!(self.state, State::New) {
            if let Err(invalid) = self.validate() {
                self.state = State::Refused;
                return Poll::Ready(Some(Resolution::Failed(Arc::new(invalid))));
            }
            let read = Reading::Running(read_of(&self.path, self.options.largest));
            let until = clock::now() + self.options.patience;
            self.state = State::Waiting { until, read, cause: None };
        }
        self.store.poll(cx, &self.path, self.options.interval);
        if let Some(next) = self.next.take() {
            return Poll::Ready(Some(next));
        }
        while !self.ended {
            match self.resolver.poll_next(cx) {
                Poll::Ready(Some(resolution)) => {
                    if let Some(told) = self.take(resolution) {
                        self.store.poll(cx, &self.path, self.options.interval);
                        budget.made_progress();
                        return Poll::Ready(Some(told));
                    }
                }
                Poll::Ready(None) => self.ended = true,
                Poll::Pending => break,
            }
        }
        if let Poll::Ready(told) = self.fall_back(cx) {
            budget.made_progress();
            return Poll::Ready(Some(told));
        }
        let is_waiting = matches!(self.state, State::Waiting { .. });
        if self.ended && !is_waiting && self.store.is_idle() { Poll::Ready(None) } else { Poll::Pending }
    }

    fn refresh(&mut self) {
        if !self.ended {
            self.resolver.refresh();
        }
    }

    fn describe(&self) -> String {
        format!("{}, saved in {}", self.resolver.describe(), self.path.display())
    }

    fn validate(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        check.absorb("", self.resolver.validate()).part("saved", |check| {
            let rule = "ends in a file's name";
            check
                .rule(self.path.file_name().is_some(), "path", self.path.display().to_string(), rule)
                .duration("patience", self.options.patience)
                .duration("interval", self.options.interval)
                .rule(self.options.largest > 0, "largest", self.options.largest, "at least one byte");
        });
        check.finish()
    }
}

impl<R: Resolve> fmt::Debug for Saved<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Saved({})", self.describe())
    }
}

impl Store {
    fn is_idle(&self) -> bool {
        self.failing || (self.due.is_none() && self.running.is_none())
    }

    fn poll(&mut self, cx: &mut Context<'_>, path: &Path, interval: Duration) {
        loop {
            if let Some((set, running)) = &mut self.running {
                let Poll::Ready(done) = Pin::new(running).poll(cx) else { return };
                let set = set.clone();
                self.running = None;
                self.not_before = Some(clock::now() + interval);
                match done.unwrap_or_else(|error| Err(io::Error::other(error))) {
                    Ok(written) => {
                        self.written = Some(written);
                        self.failing = false;
                    }
                    Err(error) => {
                        // Told once: a full disk is not to fill the log, too.
                        if !self.failing {
                            tracing::warn!(target: "mainstay", path = %path.display(), %error, "no snapshot is kept");
                        }
                        self.failing = true;
                        // It is tried again: a registry that is well may have nothing more to say.
                        self.due.get_or_insert(set);
                    }
                }
            }
            if self.due.is_none() {
                return;
            }
            if let Some(not_before) = self.not_before {
                if !self.alarm.poll(cx, Some(not_before)) {
                    return;
                }
                self.not_before = None;
            }
            let Some(set) = self.due.take() else { return };
            let (path, written, written_set) = (path.to_owned(), self.written, set.clone());
            let running = tokio::task::spawn_blocking(move || save(&written_set, &path, written));
            self.running = Some((set, running));
        }
    }
}

/// Writes `set` to `path` unless just that was written there before. A hash of what is there then.
fn save(set: &Endpoints, path: &Path, written: Option<u64>) -> io::Result<u64> {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let text = document::write(set.iter().map(|endpoint| &**endpoint));
    let mut hash = DefaultHasher::new();
    text.hash(&mut hash);
    let hash = hash.finish();
    if written == Some(hash) {
        return Ok(hash);
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    // Two that share the path must not write to the same file beside it, be they of one process, or of two that have the
    // same number in containers of their own.
    name.push(format!(".{:016x}.tmp", Entropy.next()));
    let beside = path.with_file_name(name);
    let put = || {
        let mut file = create(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    put().inspect_err(|_| {
        let _ = fs::remove_file(&beside);
    })?;
    Ok(hash)
}

/// A new file, for its owner alone: a registry that wants a token would tell the others nothing.
fn create(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Reads what was written to `path`, where that may take its time.
fn read_of(path: &Path, largest: u64) -> JoinHandle<io::Result<Endpoints>> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || read(&path, largest))
}

fn read(path: &Path, largest: u64) -> io::Result<Endpoints> {
    use std::io::Read as _;
    let mut text = String::new();
    fs::File::open(path)?.take(largest + 1).read_to_string(&mut text)?;
    if text.len() as u64 > largest {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {largest} bytes")));
    }
    let endpoints = document::parse(&text, Format::Json).map_err(io::Error::other)?;
    match Resolution::bound(endpoints) {
        Resolution::Bound(set) => Ok(set),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The endpoints are those of the last time.
#[derive(Debug)]
struct Stale {
    path: PathBuf,
    cause: Option<Cause>,
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "started from the snapshot {}: ", self.path.display())?;
        match &self.cause {
            Some(cause) => cause.fmt(f),
            None => f.write_str("the registry has not answered"),
        }
    }
}

impl std::error::Error for Stale {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_ref().and_then(|cause| cause.source())
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::{
        Endpoint,
        resolve::{Feed, ResolveExt as _, channel},
    };

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let place = std::env::temp_dir().join(format!("mainstay-saved-{}-{name}", std::process::id()));
            fs::create_dir_all(&place).unwrap();
            Self(place)
        }

        fn path(&self) -> PathBuf {
            self.0.join("users.json")
        }

        fn start(&self) -> (Feed, Saved<crate::resolve::Channel>) {
            let (feed, fed) = channel();
            (feed, fed.saved(self.path(), SavedOptions::default().interval(Duration::from_millis(100))))
        }

        async fn until(&self, resolver: &mut impl Resolve, what: impl Fn(&str) -> bool) {
            for _ in 0..500 {
                let _ = poll_fn(|cx| Poll::Ready(resolver.poll_next(cx))).await;
                if fs::read_to_string(self.path()).is_ok_and(|text| what(&text)) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("not written: {:?}", fs::read_to_string(self.path()));
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    async fn next(resolver: &mut impl Resolve) -> String {
        match poll_fn(|cx| resolver.poll_next(cx)).await {
            None => "over".to_owned(),
            Some(Resolution::Bound(set)) => {
                set.iter().map(|endpoint| endpoint.identity().to_string()).collect::<Vec<_>>().join(" ")
            }
            Some(Resolution::Failed(cause)) => format!("failed: {cause}"),
            Some(other) => format!("{other:?}"),
        }
    }

    fn away() -> Resolution {
        Resolution::Failed(Arc::new(io::Error::other("away")))
    }

    #[tokio::test]
    async fn a_process_starts_from_the_last_good_set_while_its_registry_is_down() {
        let place = Place::new("down");
        let (feed, mut before) = place.start();
        feed.set([Endpoint::new("10.0.0.1:80").with_instance("i-1"), Endpoint::new("10.0.0.2:80")]);
        assert_eq!(next(&mut before).await, "10.0.0.1:80 (i-1) 10.0.0.2:80");
        place.until(&mut before, |text| text.contains("10.0.0.2")).await;
        drop(before);

        let (feed, mut after) = place.start();
        feed.send(away());
        assert_eq!(next(&mut after).await, "10.0.0.1:80 (i-1) 10.0.0.2:80");
        let told = next(&mut after).await;
        assert!(told.starts_with("failed: started from the snapshot") && told.ends_with(": away"), "{told}");
        feed.set(["10.0.0.3:80"]);
        assert_eq!(next(&mut after).await, "10.0.0.3:80");
        feed.send(away());
        assert_eq!(next(&mut after).await, "failed: away", "the file's time is over");
        place.until(&mut after, |text| text.contains("10.0.0.3") && !text.contains("10.0.0.2")).await;
    }

    #[tokio::test]
    async fn a_registry_that_is_silent_is_waited_for_and_not_for_ever() {
        let place = Place::new("silent");
        fs::write(place.path(), "{\"endpoints\": [\"10.0.0.9:80\"]}").unwrap();
        let (_feed, fed) = channel();
        let mut saved = fed.saved(place.path(), SavedOptions::default().patience(Duration::from_millis(200)));
        let before = clock::now();
        assert_eq!(next(&mut saved).await, "10.0.0.9:80");
        assert!(clock::now() - before >= Duration::from_millis(200));
        assert!(next(&mut saved).await.ends_with("the registry has not answered"));
    }

    #[test]
    fn a_runtime_that_ends_while_the_file_is_read_is_no_reason_to_do_without() {
        let place = Place::new("runtime");
        fs::write(place.path(), "{\"endpoints\": [\"10.0.0.9:80\"]}").unwrap();
        let (feed, mut saved) = place.start();
        let runtime = || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_all().max_blocking_threads(1).build().unwrap()
        };
        let busy = runtime();
        let (leave, left) = std::sync::mpsc::channel::<()>();
        busy.block_on(async {
            tokio::task::spawn_blocking(move || left.recv());
            assert!(poll_fn(|cx| Poll::Ready(saved.poll_next(cx).is_pending())).await);
        });
        // What has not begun is not done any more.
        busy.shutdown_background();
        drop(leave);
        feed.send(away());
        assert_eq!(runtime().block_on(next(&mut saved)), "10.0.0.9:80");
    }

    #[tokio::test]
    async fn what_the_registry_says_stands_before_the_file() {
        let place = Place::new("first");
        fs::write(place.path(), "{\"endpoints\": [\"10.0.0.9:80\"]}").unwrap();
        let (feed, mut saved) = place.start();
        feed.send(Resolution::Absent);
        assert_eq!(next(&mut saved).await, "Absent");
        tokio::time::sleep(Duration::from_millis(200)).await;
        feed.send(away());
        assert_eq!(next(&mut saved).await, "failed: away");
    }

    #[tokio::test]
    async fn a_file_that_is_not_there_or_is_broken_changes_nothing() {
        let place = Place::new("none");
        let (feed, mut saved) = place.start();
        feed.send(away());
        assert_eq!(next(&mut saved).await, "failed: away");
        fs::write(place.path(), "{\"endpoints\": [\"10.0.0.9:80\"").unwrap();
        let (feed, mut saved) = place.start();
        feed.send(away());
        assert_eq!(next(&mut saved).await, "failed: away");
        feed.set(["10.0.0.1:80"]);
        assert_eq!(next(&mut saved).await, "10.0.0.1:80");
        place.until(&mut saved, |text| text.contains("10.0.0.1")).await;
        drop(feed);
        assert_eq!(next(&mut saved).await, "over");
        let left: Vec<_> = fs::read_dir(&place.0).unwrap().collect();
        assert_eq!(left.len(), 1, "nothing is left beside it: {left:?}");
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_written_to_costs_no_endpoint() {
        let (feed, fed) = channel();
        let mut saved = fed.saved("/proc/nowhere/users.json", SavedOptions::default());
        feed.set(["10.0.0.1:80"]);
        assert_eq!(next(&mut saved).await, "10.0.0.1:80");
        drop(feed);
        assert_eq!(next(&mut saved).await, "over");
    }

    #[test]
    fn two_of_one_process_do_not_write_into_each_other() {
        let place = Place::new("two");
        let writes = |count: usize| {
            let path = place.path();
            move || {
                let names = (0..count).map(|index| format!("users-{index}.internal:80"));
                let Resolution::Bound(set) = Resolution::bound(names) else { panic!("no set") };
                for _ in 0..50 {
                    save(&set, &path, None).unwrap();
                    let found = read(&path, 1 << 24).unwrap().len();
                    assert!([3_000, 5_000].contains(&found), "{found}");
                }
            }
        };
        let both = [3_000, 5_000].map(|count| std::thread::spawn(writes(count)));
        both.into_iter().for_each(|one| one.join().unwrap());
    }

    #[cfg(unix)]
    #[test]
    fn what_is_kept_is_for_its_owner_alone() {
        use std::os::unix::fs::MetadataExt as _;
        let place = Place::new("owner");
        let Resolution::Bound(set) = Resolution::bound(["10.0.0.1:80"]) else { panic!("no set") };
        save(&set, &place.path(), None).unwrap();
        assert_eq!(fs::metadata(place.path()).unwrap().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn what_could_not_be_written_is_written_when_it_can_be() {
        let place = Place::new("later");
        let (feed, mut saved) = place.start();
        fs::remove_dir_all(&place.0).unwrap();
        feed.set(["10.0.0.1:80"]);
        assert_eq!(next(&mut saved).await, "10.0.0.1:80");
        for _ in 0..20 {
            let _ = poll_fn(|cx| Poll::Ready(saved.poll_next(cx))).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(saved.store.failing);
        fs::create_dir_all(&place.0).unwrap();
        place.until(&mut saved, |text| text.contains("10.0.0.1")).await;
    }

    #[tokio::test]
    async fn an_empty_set_is_not_kept() {
        let place = Place::new("empty");
        let (feed, mut saved) = place.start();
        feed.set(["10.0.0.1:80"]);
        next(&mut saved).await;
        place.until(&mut saved, |text| text.contains("10.0.0.1")).await;
        feed.set([""; 0]);
        assert_eq!(next(&mut saved).await, "");
        tokio::time::sleep(Duration::from_millis(300)).await;
        place.until(&mut saved, |text| text.contains("10.0.0.1")).await;
    }
}
