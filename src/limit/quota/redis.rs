//! A quota in a Redis server.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use redis::{AsyncConnectionConfig, Client, RedisError, Script, aio::MultiplexedConnection};
use tower::BoxError;

use super::{Granted, Quota, Taking};
use crate::{Invalid, invalid::Check, limit::rate::RateLimitOptions};

/// The cell rate algorithm by the server's clock, in sixteenths of a microsecond since 2023-11-14: whole numbers that Lua's
/// can hold until 2041. A clock that was set back does not close the quota: nothing was ever taken further ahead than a whole
/// burst and the longest wait.
const SCRIPT: &str = r"
local time = redis.call('TIME')
local now = ((tonumber(time[1]) - 1700000000) * 1000000 + tonumber(time[2])) * 16
local interval, burst, weight = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local patience, longest = tonumber(ARGV[4]), tonumber(ARGV[5])
local span = interval * burst
if weight > burst then return {2, 0} end
local free = tonumber(redis.call('GET', KEYS[1]) or '0')
free = math.min(math.max(free, now), now + span + longest)
local after = free + interval * weight
local wait = math.max(after - span - now, 0)
local micros = math.ceil(wait / 16)
if wait > patience then return {1, micros} end
if weight > 0 then
  if wait > 0 then after = now + span + micros * 16 end
  redis.call('SET', KEYS[1], string.format('%.0f', after), 'PX', math.ceil((after - now) / 16000) + 1000)
end
return {0, micros}
";

/// Sixteenths of a microsecond in a microsecond.
const PARTS: u128 = 16;

/// A rate that all who name the same server and the same name share; feature `redis`.
///
/// In any interval of the server's clock no more than `burst + rate x t` are granted, whoever asks. The interval between
/// two is rounded up to a sixteenth of a microsecond: above some 100,000 a second it may be a per cent less than was said.
/// Each request is one round trip, on one connection, which is made at the first and again after it broke or left a request
/// without an answer for as long as that would wait. Making it may take up to a second, whatever the requests would wait.
///
/// A server that restarts without its data has forgotten what was taken: a burst more may pass.
pub struct Redis {
    client: Client,
    link: Arc<Mutex<Option<Link>>>,
    script: Script,
    key: String,
    interval: u64,
    burst: u32,
    longest: Duration,
}

impl Redis {
    /// The quota `name` at the server `url`, for example `redis://cache.internal:6379/`. It is first asked with the first
    /// request. All that use the same name should say the same rate.
    ///
    /// # Errors
    /// [`Invalid`] if the address makes no sense, and with every option that breaks its rule.
    pub fn new(url: &str, name: &str, options: RateLimitOptions) -> Result<Self, Invalid> {
        let client = Client::open(url);
        let mut check = Check::default();
        // The address may hold a password: it is not told.
        check.rule(client.is_ok(), "url", "...", "redis://[user:password@]host[:port][/database]");
        options.check(&mut check);
        check.finish()?;
        let client = client.map_err(|_| Check::missing("url"))?;
        let interval = (options.per.as_nanos() * PARTS).div_ceil(u128::from(options.rate) * 1_000);
        Ok(Self {
            client,
            link: Arc::default(),
            script: Script::new(SCRIPT),
            key: format!("mainstay:quota:{name}"),
            interval: u64::try_from(interval).unwrap_or(u64::MAX),
            burst: options.burst,
            longest: Duration::from_secs(3_600),
        })
    }

    async fn ask(&self, weight: u32, patience: Duration) -> Result<Granted, BoxError> {
        let live = self.connected().await?;
        let mut connection = live.connection.clone();
        // Whoever is dropped while it waits has most likely run out of time.
        let _asking = Asking { quota: self, heard: live.heard.load(Relaxed), live: &live };
        let asked: Result<(u8, u64), _> = self
            .script
            .key(&self.key)
            .arg(self.interval)
            .arg(self.burst)
            .arg(weight)
            .arg(parts(patience))
            .arg(parts(self.longest))
            .invoke_async(&mut connection)
            .await;
        if asked.is_ok() {
            live.heard.fetch_add(1, Relaxed);
        }
        match asked {
            Ok((0, micros)) => Ok(Granted::After(Duration::from_micros(micros))),
            Ok((1, micros)) => Ok(Granted::NotYet(Some(Duration::from_micros(micros)))),
            Ok(_) => Ok(Granted::NotYet(None)),
            Err(error) => {
                self.forget(&live);
                Err(error.into())
            }
        }
    }

    /// The one connection, or that which is being made.
    async fn connected(&self) -> Result<Arc<Live>, BoxError> {
        let dialing = {
            let mut link = held(&self.link);
            match &*link {
                Some(Link::Live(live)) => return Ok(live.clone()),
                Some(Link::Dialing(dialing)) => dialing.clone(),
                None => {
                    let dialing = dial(self.client.clone(), self.link.clone());
                    *link = Some(Link::Dialing(dialing.clone()));
                    dialing
                }
            }
        };
        let dialed = dialing.clone().await;
        let mut link = held(&self.link);
        // It has noted how it ended, unless it was cut off.
        if dialed.is_err() && matches!(&*link, Some(Link::Dialing(known)) if known.ptr_eq(&dialing)) {
            *link = None;
        }
        Ok(dialed?)
    }

    /// The next one connects anew, if nobody has done so already.
    fn forget(&self, dead: &Arc<Live>) {
        let mut link = held(&self.link);
        if matches!(&*link, Some(Link::Live(live)) if Arc::ptr_eq(live, dead)) {
            *link = None;
        }
    }
}

fn held(link: &Mutex<Option<Link>>) -> MutexGuard<'_, Option<Link>> {
    link.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long a connection may take to be made.
const DIAL: Duration = Duration::from_secs(1);

/// Connects in a task of its own: requests that wait for it may give up before it is there, and the next ones find it.
fn dial(client: Client, link: Arc<Mutex<Option<Link>>>) -> Dialing {
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(DIAL));
    let task = tokio::spawn(async move {
        let made = client.get_multiplexed_async_connection_with_config(&config).await;
        let made = made.map(|connection| Arc::new(Live { connection, heard: AtomicU64::new(0) }));
        *held(&link) = made.as_ref().ok().cloned().map(Link::Live);
        made
    });
    // The task ends without a result only if the runtime goes, and all who wait for it with that.
    let ended = |_| Err(RedisError::from((redis::ErrorKind::Io, "the runtime has ended")));
    task.map(move |result| result.unwrap_or_else(ended)).boxed().shared()
}

/// How far a connection is.
enum Link {
    Dialing(Dialing),
    Live(Arc<Live>),
}

type Dialing = Shared<BoxFuture<'static, Result<Arc<Live>, RedisError>>>;

struct Live {
    connection: MultiplexedConnection,
    /// How many answers have come.
    heard: AtomicU64,
}

/// A request on its way. A connection whose other end has gone silently shows no error: it is forgotten if a request on it is
/// dropped and no answer to any has come since it was sent. One that was cancelled at once may cost a good connection so, which
/// is made anew; those that are under way on it end as they would.
struct Asking<'a> {
    quota: &'a Redis,
    live: &'a Arc<Live>,
    heard: u64,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if self.live.heard.load(Relaxed) == self.heard {
            self.quota.forget(self.live);
        }
    }
}

fn parts(time: Duration) -> u64 {
    u64::try_from(time.as_micros() * PARTS).unwrap_or(u64::MAX)
}

impl Quota for Redis {
    fn take(&self, weight: u32, patience: Duration) -> Taking<'_> {
        Box::pin(self.ask(weight, patience))
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("key", &self.key).finish_non_exhaustive()
    }
}
