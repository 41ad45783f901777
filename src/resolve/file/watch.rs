//! A file that is read again when it changes.

use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use super::document::{DocumentError, Format};
use crate::{
    Invalid, clock,
    invalid::Check,
    resolve::{Resolution, Resolve, Target, Teller, Watched, watch, watched::Begun},
};

/// Resolves to the endpoints that the file at `path` lists, as YAML, JSON or TOML by its extension, and reads it again
/// when it changes.
///
/// ```yaml
/// endpoints:
///   - 10.0.0.1:8080                       # an address alone, or
///   - address: users-2.internal:8080      # a map; `addresses` has several sockets of one instance
///     weight: 2.5                         # [1.0]
///     priority: 1                         # [0]
///     region: eu
///     zone: a
///     sub_zone: r7
///     health: healthy                     # [unknown], healthy, unhealthy, draining
///     instance: i-2                       # the same address with another one is another endpoint
///     metadata: {version: v2}
/// ```
///
/// In TOML each is a table `[[endpoints]]`. A field that is not known is an error, so that a mistyped one is not silently
/// without effect. A file that cannot be read, or that breaks a rule, is a failure with line and reason and keeps the last
/// good set; a file that is not there is an absent name, with its grace period.
///
/// **When it is read.** Its inode, size and times are looked at every \[1 s\]. A file that was put in the place of another,
/// by a rename or by a link that now leads elsewhere (as in a Kubernetes ConfigMap), is read at once. One that is written
/// in place is read when it has not changed for one interval, so that no half of it is taken for the whole. Whatever its
/// times say it is read again every \[30 s\].
///
/// ```
/// use mainstay::resolve::{self, Resolve};
///
/// assert!(resolve::file("/etc/mesh/users.yaml").validate().is_ok());
/// assert!(resolve::file("/etc/mesh/users.conf").validate().is_err());
/// ```
pub fn file(path: impl Into<PathBuf>) -> File {
    File { path: path.into(), options: FileOptions::default(), begun: Begun::default() }
}

/// When a file is read, and how much of it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct FileOptions {
    /// How often the file is looked at \[1 s\].
    pub interval: Duration,
    /// How often it is read whatever its times say \[30 s\].
    pub reread: Duration,
    /// The largest file, in bytes \[16 MiB\].
    pub largest: u64,
    /// How it is written; by its extension if not said.
    pub format: Option<Format>,
}

impl FileOptions {
    /// Sets [`interval`](Self::interval).
    pub const fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Sets [`reread`](Self::reread).
    pub const fn reread(mut self, reread: Duration) -> Self {
        self.reread = reread;
        self
    }

    /// Sets [`largest`](Self::largest).
    pub const fn largest(mut self, largest: u64) -> Self {
        self.largest = largest;
        self
    }

    /// Sets [`format`](Self::format).
    pub const fn format(mut self, format: Format) -> Self {
        self.format = Some(format);
        self
    }
}

impl Default for FileOptions {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            reread: Duration::from_secs(30),
            largest: 16 << 20,
            format: None,
        }
    }
}

/// The resolver made by [`file`](fn@file).
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    options: FileOptions,
    begun: Begun,
}

impl File {
    /// Replaces the options.
    #[must_use]
    pub fn options(mut self, options: FileOptions) -> Self {
        self.options = options;
        self
    }

    /// The scheme: `file:///etc/mesh/users.yaml`, `file:users.yaml`.
    pub(in crate::resolve) fn of(target: &Target) -> Result<Self, Invalid> {
        target.only(&[])?;
        if !target.authority().is_empty() {
            let rule = "a file has no host: file:///etc/mesh/users.yaml, with three slashes";
            return Err(target.invalid("authority", target.authority(), rule));
        }
        let root = if target.is_rooted() { "/" } else { "" };
        Ok(file(format!("{root}{}", target.path())))
    }

    fn format(&self) -> Option<Format> {
        self.options.format.or_else(|| Format::of(&self.path))
    }
}

impl File {
    fn begin(&self) -> Result<Watched, Invalid> {
        self.validate()?;
        let format = self.format().ok_or_else(|| Check::missing("file.format"))?;
        let (path, options) = (self.path.clone(), self.options.clone());
        let begin = move |tell| follow(Sight::new(path.clone(), format, options.clone()), tell);
        Ok(watch(self.describe(), begin))
    }
}

impl Resolve for File {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Resolution>> {
        if self.begun.is_new() {
            self.begun = self.begin().into();
        }
        self.begun.poll_next(cx)
    }

    fn describe(&self) -> String {
        format!("file {}", self.path.display())
    }

    fn validate(&self) -> Result<(), Invalid> {
        Check::of(|check| {
            check.part("file", |check| {
                let rule = "ends in .yaml, .yml, .json or .toml, or its format is said";
                check
                    .rule(self.format().is_some(), "path", self.path.display().to_string(), rule)
                    .duration("interval", self.options.interval)
                    .duration("reread", self.options.reread)
                    .rule(self.options.largest > 0, "largest", self.options.largest, "at least one byte");
            });
        })
    }
}

async fn follow(mut sight: Sight, tell: Teller) {
    loop {
        let looked = tokio::task::spawn_blocking(move || {
            let news = sight.look(clock::now());
            (sight, news)
        });
        // The runtime is ending: what is told next will be told by another.
        let Ok((returned, news)) = looked.await else { return std::future::pending().await };
        sight = returned;
        if let Some(resolution) = news {
            tell.tell(resolution);
        }
        tokio::time::sleep(sight.options.interval).await;
    }
}

/// What is known of the file.
struct Sight {
    path: PathBuf,
    format: Format,
    options: FileOptions,
    /// How it looked last time, and when it was told.
    seen: Option<Stamp>,
    told: Option<(Stamp, Instant)>,
    /// A hash of the last good text.
    content: Option<u64>,
}

/// What of a file changes when its content does.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stamp {
    Missing,
    Unreadable(io::ErrorKind),
    Present { file: (u64, u64), size: u64, times: [i64; 4] },
}

impl Stamp {
    fn of(found: io::Result<fs::Metadata>) -> Self {
        match found {
            Ok(found) => Self::Present { file: file_id(&found), size: found.len(), times: times(&found) },
            Err(error) if is_missing(&error) => Self::Missing,
            Err(error) => Self::Unreadable(error.kind()),
        }
    }

    /// Whether it is of another file, which took the place whole.
    fn is_other_file(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Present { file, .. }, Self::Present { file: other, .. }) => file != other,
            _ => true,
        }
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(unix)]
fn file_id(found: &fs::Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt as _;
    (found.dev(), found.ino())
}

#[cfg(unix)]
fn times(found: &fs::Metadata) -> [i64; 4] {
    use std::os::unix::fs::MetadataExt as _;
    [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()]
}

#[cfg(not(unix))]
fn file_id(_: &fs::Metadata) -> (u64, u64) {
    (0, 0)
}

#[cfg(not(unix))]
fn times(found: &fs::Metadata) -> [i64; 4] {
    let since = found.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    let since = since.unwrap_or_default();
    [since.as_secs() as i64, i64::from(since.subsec_nanos()), 0, 0]
}

impl Sight {
    fn new(path: PathBuf, format: Format, options: FileOptions) -> Self {
        Self { path, format, options, seen: None, told: None, content: None }
    }

    /// Looks at the file, and reads it if there is reason to. What is to be told, if anything.
    fn look(&mut self, now: Instant) -> Option<Resolution> {
        let stamp = Stamp::of(fs::metadata(&self.path));
        let stood_still = self.seen.replace(stamp.clone()) == Some(stamp.clone());
        if let Some((told, at)) = &self.told {
            let changed = *told != stamp;
            if changed && !stood_still && !stamp.is_other_file(told) {
                return None;
            }
            if !changed && now.saturating_duration_since(*at) < self.options.reread {
                return None;
            }
        }
        let news = self.read(&stamp);
        if news.is_some() || self.seen.as_ref() == Some(&stamp) {
            self.told = Some((stamp, now));
        }
        news
    }

    fn read(&mut self, stamp: &Stamp) -> Option<Resolution> {
        let was_told = self.told.as_ref().is_some_and(|(told, _)| told == stamp);
        if *stamp == Stamp::Missing {
            self.content = None;
            return (!was_told).then_some(Resolution::Absent);
        }
        let text = match read_text(&self.path, self.options.largest) {
            Ok((text, after)) if after == *stamp => text,
            // It changed under our eyes.
            Ok((_, after)) => {
                self.seen = Some(after);
                return None;
            }
            Err(error) => {
                // Once it can be read it is told again, though it may be as it was.
                self.content = None;
                return Some(self.failed(Reason::Read(error)));
            }
        };
        let mut hash = DefaultHasher::new();
        text.hash(&mut hash);
        let hash = hash.finish();
        if self.content == Some(hash) && was_told {
            return None;
        }
        self.content = Some(hash);
        Some(match self.format.parse(&text) {
            Ok(endpoints) => Resolution::bound(endpoints),
            Err(error) => self.failed(Reason::Document(error)),
        })
    }

    fn failed(&mut self, source: Reason) -> Resolution {
        Resolution::Failed(Arc::new(FileError { path: self.path.clone(), source }))
    }
}

/// The text of a file, and how the file looked after it was read.
fn read_text(path: &Path, largest: u64) -> io::Result<(String, Stamp)> {
    let opened = fs::File::open(path)?;
    let mut text = String::new();
    (&opened).take(largest + 1).read_to_string(&mut text)?;
    if text.len() as u64 > largest {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {largest} bytes")));
    }
    Ok((text, Stamp::of(fs::metadata(path))))
}

/// A file that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", .path.display())]
struct FileError {
    path: PathBuf,
    source: Reason,
}

#[derive(Debug, thiserror::Error)]
enum Reason {
    #[error(transparent)]
    Read(io::Error),
    #[error(transparent)]
    Document(DocumentError),
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let place = std::env::temp_dir().join(format!("mainstay-{}-{name}", std::process::id()));
            fs::create_dir_all(&place).unwrap();
            Self(place)
        }

        fn sight(&self) -> Sight {
            Sight::new(self.0.join("users.yaml"), Format::Yaml, FileOptions::default())
        }

        fn write(&self, name: &str, count: usize) {
            fs::write(self.0.join(name), list(count)).unwrap();
        }

        fn rename(&self, from: &str, to: &str) {
            fs::rename(self.0.join(from), self.0.join(to)).unwrap();
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn list(count: usize) -> String {
        let lines = (1..=count).map(|index| format!("  - 10.0.0.{index}:80\n"));
        format!("endpoints:\n{}", lines.collect::<String>())
    }

    fn size(told: Option<Resolution>) -> Option<usize> {
        match told {
            Some(Resolution::Bound(set)) => Some(set.len()),
            _ => None,
        }
    }

    fn failure(told: Option<Resolution>) -> String {
        match told {
            Some(Resolution::Failed(cause)) => cause.to_string(),
            other => panic!("not a failure: {other:?}"),
        }
    }

    #[test]
    fn a_file_in_the_place_of_another_is_read_at_once() {
        let (place, start) = (Place::new("rename"), clock::now());
        let mut sight = place.sight();
        assert!(matches!(sight.look(start), Some(Resolution::Absent)));
        assert!(sight.look(start).is_none(), "told once");
        place.write("users.yaml", 1);
        assert_eq!(size(sight.look(start)), Some(1));
        place.write("new", 2);
        place.rename("new", "users.yaml");
        assert_eq!(size(sight.look(start)), Some(2));
        assert!(sight.look(start).is_none());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_that_leads_elsewhere_is_seen() {
        use std::os::unix::fs::symlink;
        // As a ConfigMap is mounted: users.yaml -> ..data/users.yaml, ..data -> ..1, and then ..data -> ..2 by a rename.
        let (place, start) = (Place::new("link"), clock::now());
        for (dir, count) in [("..1", 1), ("..2", 2)] {
            fs::create_dir_all(place.0.join(dir)).unwrap();
            place.write(&format!("{dir}/users.yaml"), count);
        }
        symlink("..1", place.0.join("..data")).unwrap();
        symlink("..data/users.yaml", place.0.join("users.yaml")).unwrap();
        let mut sight = place.sight();
        assert_eq!(size(sight.look(start)), Some(1));
        symlink("..2", place.0.join("..data_tmp")).unwrap();
        place.rename("..data_tmp", "..data");
        assert_eq!(size(sight.look(start)), Some(2));
    }

    #[test]
    fn a_file_that_is_being_written_is_read_when_it_stands_still() {
        let (place, start) = (Place::new("write"), clock::now());
        place.write("users.yaml", 3);
        let mut sight = place.sight();
        assert_eq!(size(sight.look(start)), Some(3));
        place.write("users.yaml", 1);
        assert!(sight.look(start).is_none(), "half of a list is a list, too");
        place.write("users.yaml", 4);
        assert!(sight.look(start + SECOND).is_none());
        assert_eq!(size(sight.look(start + 2 * SECOND)), Some(4));
    }

    #[test]
    fn a_broken_file_is_told_with_path_line_and_reason_and_a_mended_one_is_taken() {
        let (place, start) = (Place::new("broken"), clock::now());
        place.write("users.yaml", 2);
        let mut sight = place.sight();
        sight.look(start);
        fs::write(place.0.join("new"), "endpoints:\n  - address: a:1\n    weight: none\n").unwrap();
        place.rename("new", "users.yaml");
        let told = failure(sight.look(start));
        assert!(told.contains("users.yaml") && told.contains("line 3") && !told.contains('\n'), "{told}");
        place.write("new", 2);
        place.rename("new", "users.yaml");
        assert_eq!(size(sight.look(start)), Some(2), "told again, though it is as it was before");
    }

    #[test]
    fn what_is_no_file_or_too_large_is_a_failure() {
        let (place, start) = (Place::new("folder"), clock::now());
        fs::create_dir_all(place.0.join("users.yaml")).unwrap();
        assert!(failure(place.sight().look(start)).contains("users.yaml"));
        fs::remove_dir(place.0.join("users.yaml")).unwrap();
        place.write("users.yaml", 100);
        let mut sight = place.sight();
        sight.options.largest = 100;
        assert!(failure(sight.look(start)).contains("more than 100 bytes"));
    }

    #[test]
    fn what_could_not_be_read_for_once_is_told_again() {
        let (place, start) = (Place::new("again"), clock::now());
        place.write("users.yaml", 2);
        let mut sight = place.sight();
        assert_eq!(size(sight.look(start)), Some(2));
        // The file is as it was all the time.
        sight.options.largest = 1;
        assert!(failure(sight.look(start + 30 * SECOND)).contains("more than 1 bytes"));
        sight.options.largest = 1 << 20;
        assert_eq!(size(sight.look(start + 60 * SECOND)), Some(2));
        assert!(sight.look(start + 90 * SECOND).is_none(), "nothing is new");
    }

    #[test]
    fn a_change_that_shows_in_no_time_is_seen_in_the_end() {
        let (place, start) = (Place::new("times"), clock::now());
        place.write("users.yaml", 1);
        let mut sight = place.sight();
        assert_eq!(size(sight.look(start)), Some(1));
        // Times that do not tell: those that were told are made those of now.
        place.write("users.yaml", 2);
        let stamp = Stamp::of(fs::metadata(place.0.join("users.yaml")));
        sight.told = Some((stamp, start));
        assert!(sight.look(start + 29 * SECOND).is_none());
        assert_eq!(size(sight.look(start + 30 * SECOND)), Some(2));
        assert!(sight.look(start + 60 * SECOND).is_none(), "nothing is new");
    }

    #[test]
    fn a_name_says_where_it_is() {
        let path =
            |name: &str| Target::parse(name).and_then(|target| File::of(&target)).map(|file| file.path);
        assert_eq!(path("file:///etc/users.yaml"), Ok("/etc/users.yaml".into()));
        assert_eq!(path("file:/etc/users.yaml"), Ok("/etc/users.yaml".into()));
        assert_eq!(path("file:users.yaml"), Ok("users.yaml".into()));
        assert!(path("file://etc/users.yaml").unwrap_err().to_string().contains("three slashes"));
    }
}
